"""From the form in which a policy acts to the wire form of docs/design.md, section 4, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from vla_ros.contract import ActionSpec, RotationForm
from vla_ros.errors import ChunkError
from vla_ros.geometry import rotations, se3
from vla_ros.types import ActionChunk, FloatArray, JointChunk, ToolChunk

AnyChunk = TypeVar("AnyChunk", ToolChunk, JointChunk)

ROTATION_WIDTH: dict[RotationForm, int] = {"rotvec": 3, "rpy": 3, "quat_xyzw": 4, "rot6d": 6, "rot6d_rows": 6}

_TO_MATRIX: dict[RotationForm, Callable[[FloatArray], FloatArray]] = {
    "rotvec": rotations.rotvec_to_matrix,
    "rpy": rotations.rpy_to_matrix,
    "quat_xyzw": rotations.quat_xyzw_to_matrix,
    "rot6d": rotations.rot6d_to_matrix,
    "rot6d_rows": rotations.rot6d_rows_to_matrix,
}


def decode_tool_chunk(
    chunk: ActionChunk, spec: ActionSpec, stamp_ns: int, T_base_tcp: FloatArray, source: str
) -> ToolChunk:
    """A tool-space answer as transforms relative to the anchor (or absolute).

    Args:
        chunk: (h, 3 + rotation + gripper) actions.
        spec: what they mean.
        stamp_ns: the observation's stamp.
        T_base_tcp: tcp pose at the stamp; used where the form depends on it (`base_euler`), and only there.
        source: name of the policy.

    Raises:
        ChunkError: for a wrong shape, non-finite numbers or rotations that are none.
    """
    has_gripper = spec.gripper != "none"
    width = 3 + ROTATION_WIDTH[spec.rotation] + has_gripper
    actions = _check(chunk, width, spec, source)
    moves = actions[:, :3] * spec.position_scale_m
    turns = actions[:, 3 : width - has_gripper]
    if spec.rotation in ("rotvec", "rpy"):
        turns = turns * spec.rotation_scale_rad
    if spec.composition == "base_euler":
        if spec.rotation != "rpy" or spec.relative_to == "nothing":
            raise ChunkError("composition base_euler adds Euler angles: it needs rotation rpy and a relative action")
        steps = np.concatenate((moves, turns), axis=1)
        if spec.relative_to == "previous_step":
            steps = np.cumsum(steps, axis=0)
        deltas = se3.relative_base(T_base_tcp, se3.compose_base_euler(T_base_tcp, steps))
    else:
        try:
            deltas = se3.make_pose(moves, _TO_MATRIX[spec.rotation](turns))
        except ValueError as error:
            raise ChunkError(f"chunk of {source}: {error}") from error
        if spec.relative_to == "previous_step":
            deltas = _accumulate(deltas, spec.composition)
    frame = "absolute" if spec.relative_to == "nothing" else ("tcp" if spec.composition == "tcp" else "base")
    openings = decode_gripper(actions[:, -1], spec) if has_gripper else None
    return ToolChunk(stamp_ns, frame, deltas, openings, _times(len(actions), spec), source)


def decode_joint_chunk(
    chunk: ActionChunk, spec: ActionSpec, stamp_ns: int, positions: FloatArray, source: str
) -> JointChunk:
    """A joint-space answer as absolute joint positions.

    Args:
        chunk: (h, joints + gripper) actions, rad.
        spec: what they mean.
        stamp_ns: the observation's stamp.
        positions: (joints,) measured at the stamp.
        source: name of the policy.

    Raises:
        ChunkError: for a wrong shape or non-finite numbers.
    """
    has_gripper = spec.gripper != "none"
    actions = _check(chunk, len(positions) + has_gripper, spec, source)
    moves = actions[:, : len(positions)] * spec.position_scale_m
    if spec.relative_to == "previous_step":
        moves = np.cumsum(moves, axis=0)
    absolute = moves if spec.relative_to == "nothing" else positions + moves
    openings = decode_gripper(actions[:, -1], spec) if has_gripper else None
    return JointChunk(stamp_ns, absolute, openings, _times(len(actions), spec), source)


def place_in_time(chunk: AnyChunk, spec: ActionSpec, now_ns: int) -> AnyChunk:
    """The chunk with its points where the contract's timing puts them.

    Args:
        chunk: decoded; its points are timed from the observation.
        spec: `absolute` leaves them there, `on_arrival` moves them all so that the wait for the answer doesn't count.
        now_ns: when the answer arrived.

    Raises:
        ChunkError: if the observation is older than `spec.max_age_s`.
    """
    age_s = (now_ns - chunk.stamp_ns) * 1e-9
    if age_s > spec.max_age_s:
        raise ChunkError(
            f"chunk of {chunk.source} answers an observation {age_s:.3f} s old (limit {spec.max_age_s} s, the "
            "contract's max_age_s); is the policy too slow for it?"
        )
    if spec.timing == "absolute":
        return chunk
    return replace(chunk, time_from_start_s=chunk.time_from_start_s + max(0.0, age_s))


def decode_gripper(values: FloatArray, spec: ActionSpec) -> FloatArray:
    """A gripper column in the contract's sense and range to openings in [0, 1]."""
    unsigned = 0.5 * (values + 1.0) if spec.gripper.startswith("signed") else values
    opening = 1.0 - unsigned if spec.gripper.endswith("closing") else unsigned
    return np.clip(opening, 0.0, 1.0)


def anchored_poses(chunk: ToolChunk, T_base_anchor: FloatArray) -> FloatArray:
    """(n, 4, 4) absolute poses in base of a chunk's points.

    Args:
        chunk: in wire form; its own anchor, where it has one, comes before the argument.
        T_base_anchor: tcp pose at the chunk's stamp.
    """
    if chunk.frame == "absolute":
        return chunk.transforms
    anchor = T_base_anchor if chunk.T_base_anchor is None else chunk.T_base_anchor
    compose = se3.compose_tcp if chunk.frame == "tcp" else se3.compose_base
    return compose(anchor, chunk.transforms)


def _check(chunk: ActionChunk, width: int, spec: ActionSpec, source: str) -> FloatArray:
    actions = np.asarray(chunk.actions, dtype=np.float64)
    if actions.ndim != 2 or actions.shape[0] == 0 or actions.shape[1] != width:
        raise ChunkError(
            f"chunk of {source} has shape {actions.shape}; the contract means (steps, {width}): "
            f"{spec.space}, rotation {spec.rotation}, gripper {spec.gripper}"
        )
    if not np.all(np.isfinite(actions)):
        step, column = np.argwhere(~np.isfinite(actions))[0]
        raise ChunkError(f"chunk of {source}: step {step}, entry {column} is {actions[step, column]}, not finite")
    return actions


def _times(steps: int, spec: ActionSpec) -> FloatArray:
    return np.asarray((np.arange(steps) + spec.first_action_offset_steps) * spec.period_s, dtype=np.float64)


def _accumulate(deltas: FloatArray, composition: str) -> FloatArray:
    out = np.empty_like(deltas)
    total = np.eye(4)
    for step, delta in enumerate(deltas):
        total = se3.compose_tcp(total, delta) if composition == "tcp" else se3.compose_base(total, delta)
        out[step] = total
    return out
