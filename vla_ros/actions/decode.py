"""From the form in which a policy acts to the wire form of docs/design.md, section 4, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from vla_ros.actions.units import apply_bound, decode_gripper, find_half_turn, units
from vla_ros.contract import ActionSpec, action_width
from vla_ros.errors import ChunkError, ContractError, LateChunkError
from vla_ros.geometry import rotations, se3
from vla_ros.geometry.rotation_forms import TO_MATRIX
from vla_ros.types import ActionChunk, FloatArray, JointChunk, ToolChunk

__all__ = ["anchored_poses", "decode_gripper", "decode_joint_chunk", "decode_tool_chunk", "place_in_time"]

AnyChunk = TypeVar("AnyChunk", ToolChunk, JointChunk)

# Cosine of the pitch below which roll and yaw are made of rounding, so that nothing can be added to them.
LEAST_PITCH_COSINE = 1e-3


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
        ChunkError: for a wrong shape, non-finite numbers, rotations that are none, steps of half a turn or more, and
            Euler angles to be added where the anchor has none.
        ContractError: if the contract acts in joint space.
    """
    if spec.space != "tool":
        raise ContractError(f"the contract acts in {spec.space} space: decode it with decode_joint_chunk")
    actions = _check(chunk, action_width(spec, 0), spec, source)
    entries = 6 if spec.has_scaled_rotation else 3
    arm = actions[:, : action_width(spec, 0) - spec.has_gripper]
    scaled = apply_bound(arm[:, :entries], spec) * units(spec, entries)
    turns = scaled[:, 3:] if spec.has_scaled_rotation else arm[:, 3:]
    if spec.composition == "base_euler":
        deltas = _add_euler(T_base_tcp, scaled, spec, source)
    else:
        deltas = _compose(scaled[:, :3], turns, spec, source)
    frame = "absolute" if spec.relative_to == "nothing" else ("tcp" if spec.composition == "tcp" else "base")
    openings = decode_gripper(actions[:, -1], spec) if spec.has_gripper else None
    return ToolChunk(stamp_ns, frame, deltas, openings, _times(len(actions), spec), source)


def decode_joint_chunk(
    chunk: ActionChunk, spec: ActionSpec, stamp_ns: int, positions: FloatArray, source: str
) -> JointChunk:
    """A joint-space answer as absolute joint positions.

    Args:
        chunk: (h, joints + gripper) actions.
        spec: what they mean.
        stamp_ns: the observation's stamp.
        positions: (joints,) measured at the stamp, rad.
        source: name of the policy.

    Raises:
        ChunkError: for a wrong shape or non-finite numbers.
        ContractError: if the contract acts in tool space, or has scales for another number of joints.
    """
    if spec.space != "joint":
        raise ContractError(f"the contract acts in {spec.space} space: decode it with decode_tool_chunk")
    joints = len(positions)
    actions = _check(chunk, action_width(spec, joints), spec, source)
    moves = apply_bound(actions[:, :joints], spec) * units(spec, joints)
    if spec.relative_to == "previous_step":
        moves = np.cumsum(moves, axis=0)
    absolute = moves if spec.relative_to == "nothing" else positions + moves
    openings = decode_gripper(actions[:, -1], spec) if spec.has_gripper else None
    return JointChunk(stamp_ns, absolute, openings, _times(len(actions), spec), source)


def place_in_time(chunk: AnyChunk, spec: ActionSpec, now_ns: int) -> AnyChunk:
    """The chunk with its points where the contract's timing puts them.

    Args:
        chunk: decoded; its points are timed from the observation.
        spec: `absolute` leaves them there, `on_arrival` moves them all so that the wait for the answer doesn't count.
        now_ns: when the answer arrived.

    Raises:
        LateChunkError: if the observation is older than `spec.max_age_s`.
    """
    age_s = (now_ns - chunk.stamp_ns) * 1e-9
    if age_s > spec.max_age_s:
        raise LateChunkError(
            f"chunk of {chunk.source} answers an observation {age_s:.3f} s old (limit {spec.max_age_s} s, the "
            "contract's max_age_s); is the policy too slow for it?"
        )
    if spec.timing == "absolute":
        return chunk
    return replace(chunk, time_from_start_s=chunk.time_from_start_s + max(0.0, age_s))


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


def _compose(moves: FloatArray, turns: FloatArray, spec: ActionSpec, source: str) -> FloatArray:
    try:
        deltas = se3.make_pose(moves, TO_MATRIX[spec.rotation](turns))
    except ValueError as error:
        raise ChunkError(f"chunk of {source}: {error}") from error
    if spec.relative_to != "previous_step":
        return deltas
    if spec.rotation == "rotvec":
        _check_steps(np.linalg.norm(turns, axis=-1), source)
    else:
        _check_steps(np.linalg.norm(rotations.matrix_to_rotvec(deltas[:, :3, :3]), axis=-1), source)
    if spec.rotation == "rpy":
        _check_steps(np.abs(turns).max(axis=1), source)
    return _accumulate(deltas, spec.composition)


def _check_steps(angles_rad: FloatArray, source: str) -> None:
    step = find_half_turn(angles_rad)
    if step is not None:
        raise ChunkError(
            f"chunk of {source}: step {step} turns by {angles_rad[step]:.3f} rad, half a turn or more: which way can't "
            "be told; are the contract's rotation form and scale the policy's?"
        )


def _add_euler(T_base_tcp: FloatArray, steps: FloatArray, spec: ActionSpec, source: str) -> FloatArray:
    pitch_cosine = float(np.hypot(T_base_tcp[0, 0], T_base_tcp[1, 0]))
    if pitch_cosine < LEAST_PITCH_COSINE:
        raise ChunkError(
            f"chunk of {source}: the tcp's pitch is a right angle (its cosine {pitch_cosine:.1e}, limit "
            f"{LEAST_PITCH_COSINE:g}), where Euler angles aren't unique and nothing can be added to them"
        )
    if spec.relative_to == "previous_step":
        _check_steps(np.abs(steps[:, 3:]).max(axis=1), source)
        steps = np.cumsum(steps, axis=0)
    return se3.relative_base(T_base_tcp, se3.compose_base_euler(T_base_tcp, steps))


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
