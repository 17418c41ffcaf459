"""Recorded targets as chunks of actions in a contract's form, for all frames of an episode at once.

What `actions.encode` does for one chunk, without a loop over frames; a test holds them to each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_ros.actions.decode import LEAST_PITCH_COSINE
from vla_ros.actions.path import unwrapped_rotvecs
from vla_ros.actions.units import encode_gripper, find_half_turn, units
from vla_ros.contract import ActionSpec
from vla_ros.errors import ChunkError
from vla_ros.geometry import rotations, se3
from vla_ros.geometry.rotation_forms import FROM_MATRIX
from vla_ros.types import FloatArray

RowArray = NDArray[np.int64]


def chunk_rows(frames: int, horizon: int, shift: int) -> RowArray:
    """(frames, H) the row of each frame's each step; outside of [0, frames) where the episode has none.

    Args:
        frames: of the episode.
        horizon: steps of a chunk.
        shift: row of the first step, counted from the frame's own.
    """
    return np.asarray(np.arange(frames)[:, None] + np.arange(horizon)[None] + shift, dtype=np.int64)


def encode_tool_windows(
    poses: FloatArray, openings: FloatArray | None, spec: ActionSpec, anchors: FloatArray, rows: RowArray
) -> FloatArray:
    """Chunks of tool actions.

    Args:
        poses: (n, 4, 4) targets of the tcp in base.
        openings: (n,) of the gripper; None where the contract leaves it alone.
        spec: the form.
        anchors: (m, 4, 4) tcp pose at each chunk's observation.
        rows: (m, H) the target of each step, an index into poses. Where a chunk ends early its last one goes on.

    Returns:
        (m, H, d) actions, each chunk as `encode_tool_poses` writes it.

    Raises:
        ChunkError: for steps of half a turn, and Euler angles of a pose whose pitch is a right angle.
    """
    windows = poses[rows]
    if spec.composition == "base_euler":
        arm = _euler_differences(windows, spec, anchors)
    else:
        deltas = _deltas(windows, spec, anchors)
        arm = np.concatenate([deltas[..., :3, 3], _write_rotations(deltas[..., :3, :3], spec)], axis=-1)
    entries = 6 if spec.has_scaled_rotation else 3
    arm[..., :entries] /= units(spec, entries)
    return _with_gripper(arm, openings, spec, rows)


def encode_joint_windows(
    positions: FloatArray, openings: FloatArray | None, spec: ActionSpec, anchors: FloatArray, rows: RowArray
) -> FloatArray:
    """Chunks of joint actions.

    Args:
        positions: (n, joints) targets, rad.
        openings: as of `encode_tool_windows`.
        spec: the form.
        anchors: (m, joints) measured at each chunk's observation, rad.
        rows: (m, H) likewise.

    Returns:
        (m, H, joints + gripper) actions, each chunk as `encode_joint_positions` writes it.
    """
    windows = positions[rows]
    arm = windows if spec.relative_to == "nothing" else windows - _before(windows, anchors, spec)
    return _with_gripper(arm / units(spec, positions.shape[1]), openings, spec, rows)


def _with_gripper(arm: FloatArray, openings: FloatArray | None, spec: ActionSpec, rows: RowArray) -> FloatArray:
    if not spec.has_gripper:
        return arm
    if openings is None:
        raise ChunkError(f"the contract's gripper is {spec.gripper}, and the recorded actions have none")
    return np.concatenate([arm, encode_gripper(openings, spec)[rows][..., None]], axis=-1)


def _before(values: FloatArray, anchors: FloatArray, spec: ActionSpec) -> FloatArray:
    """What each value is relative to, step by step."""
    if spec.relative_to == "observation":
        return np.broadcast_to(anchors[:, None], values.shape)
    return np.concatenate([anchors[:, None], values[:, :-1]], axis=1)


def _deltas(windows: FloatArray, spec: ActionSpec, anchors: FloatArray) -> FloatArray:
    if spec.relative_to == "nothing":
        return windows
    relative = se3.relative_tcp if spec.composition == "tcp" else se3.relative_base
    deltas = relative(_before(windows, anchors, spec), windows)
    if spec.relative_to == "previous_step":
        angles = np.linalg.norm(rotations.matrix_to_rotvec(deltas[..., :3, :3]), axis=-1)
        found = find_half_turn(angles.ravel())
        if found is not None:
            frame, step = np.unravel_index(found, angles.shape)
            raise ChunkError(
                f"frame {frame}, step {step}: turns by {angles[frame, step]:.3f} rad, half a turn: which way can't be "
                "told; drop that frame (`--clean outliers=drop`)"
            )
    return deltas


def _write_rotations(R: FloatArray, spec: ActionSpec) -> FloatArray:
    if spec.relative_to == "previous_step":
        return FROM_MATRIX[spec.rotation](R)
    written = FROM_MATRIX[spec.rotation](R)
    if spec.rotation == "rotvec":
        # A vector that leaps from step to step has passed half a turn; there are few, if any.
        leaps = (np.diff(written, axis=1) ** 2).sum(axis=-1) >= np.pi**2
        for chunk in np.flatnonzero(leaps.any(axis=1)):
            written[chunk] = unwrapped_rotvecs(np.eye(3), R[chunk])
    elif spec.rotation == "rpy":
        _check_pitch(R)
        written = np.unwrap(written, axis=1)
    elif spec.rotation == "quat_xyzw":
        written = written * np.where(written[:, :1, 3:] < 0.0, -1.0, 1.0)
        turns = np.sum(written[:, 1:] * written[:, :-1], axis=-1) < 0.0
        written[:, 1:] *= np.where(np.cumsum(turns, axis=1) % 2 == 1, -1.0, 1.0)[..., None]
    return written


def _euler_differences(windows: FloatArray, spec: ActionSpec, anchors: FloatArray) -> FloatArray:
    chain = np.concatenate([anchors[:, None], windows], axis=1)
    _check_pitch(chain[..., :3, :3])
    rpy = np.unwrap(rotations.matrix_to_rpy(chain[..., :3, :3]), axis=1)
    values = np.concatenate([chain[..., :3, 3], rpy], axis=-1)
    return np.asarray(values[:, 1:] - _before(values[:, 1:], values[:, 0], spec))


def _check_pitch(R: FloatArray) -> None:
    pitch_cosines = np.hypot(R[..., 0, 0], R[..., 1, 0])
    if pitch_cosines.size and pitch_cosines.min() < LEAST_PITCH_COSINE:
        frame = int(np.unravel_index(int(pitch_cosines.argmin()), pitch_cosines.shape)[0])
        raise ChunkError(
            f"frame {frame}: a pose's pitch is a right angle (its cosine {pitch_cosines.min():.1e}, limit "
            f"{LEAST_PITCH_COSINE:g}), where Euler angles aren't unique; choose another rotation form"
        )
