"""From the wire form back to the form in which a policy acts: the inverse of `decode`, for labels and prefixes.

One chunk, or many at once: all that is said of a chunk's arrays holds with the same axes in front of all of them.
"""

from __future__ import annotations

import numpy as np

from vla_ros.actions.decode import LEAST_PITCH_COSINE, anchored_poses
from vla_ros.actions.path import unwrapped_rotvecs
from vla_ros.actions.units import encode_gripper, find_half_turn, units
from vla_ros.contract import ActionSpec
from vla_ros.errors import ChunkError, ContractError
from vla_ros.geometry import rotations, se3
from vla_ros.geometry.rotation_forms import FROM_MATRIX
from vla_ros.types import ActionChunk, FloatArray, JointChunk, ToolChunk


def encode_tool_chunk(chunk: ToolChunk, spec: ActionSpec, T_base_tcp: FloatArray) -> ActionChunk:
    """The actions that `decode_tool_chunk` turns into a chunk.

    Args:
        chunk: in wire form; it may be relative to another anchor than the actions will be.
        spec: in which form.
        T_base_tcp: (4, 4) tcp pose at the observation to which the actions answer; the chunk's anchor, where it is
            relative and brings none.

    Raises:
        ChunkError: as `encode_tool_poses`.
        ContractError: likewise.
    """
    return ActionChunk(encode_tool_poses(anchored_poses(chunk, T_base_tcp), chunk.openings, spec, T_base_tcp))


def encode_tool_poses(
    poses: FloatArray, openings: FloatArray | None, spec: ActionSpec, T_base_tcp: FloatArray
) -> FloatArray:
    """Absolute poses of the tcp as actions.

    Rotation vectors, Euler angles and quaternions go on from row to row without a leap, wherever the turns from each
    pose to the next are less than half a turn; the first row has the smallest. `spec.bound` isn't applied: an action
    past it stays behind its pose when it is decoded.

    Args:
        poses: (..., h, 4, 4) in base.
        openings: (..., h) gripper openings in [0, 1]; not looked at where the contract leaves the gripper alone.
        spec: the form.
        T_base_tcp: (..., 4, 4) tcp pose at the observation; the pose before the first of step deltas.

    Returns:
        (..., h, 3 + rotation + gripper) actions.

    Raises:
        ChunkError: for poses that are none, a missing gripper, steps of half a turn, and Euler angles of a pose whose
            pitch is a right angle, where they aren't unique.
        ContractError: if the contract acts in joint space.
    """
    if spec.space != "tool":
        raise ContractError(f"the contract acts in {spec.space} space: encode it with encode_joint_positions")
    if not (poses.size and se3.is_pose(poses) and se3.is_pose(T_base_tcp)):
        raise ChunkError("actions can't be made of these poses: they aren't all finite rigid motions, or there is none")
    if spec.composition == "base_euler":
        arm = _euler_differences(poses, spec, T_base_tcp)
    else:
        deltas = _deltas(poses, spec, T_base_tcp)
        arm = np.concatenate([deltas[..., :3, 3], _write_rotations(deltas[..., :3, :3], spec)], axis=-1)
    entries = 6 if spec.has_scaled_rotation else 3
    arm[..., :entries] /= units(spec, entries)
    return _with_gripper(arm, openings, spec)


def encode_joint_chunk(chunk: JointChunk, spec: ActionSpec, positions: FloatArray) -> ActionChunk:
    """The actions that `decode_joint_chunk` turns into a chunk. Arguments as of `encode_joint_positions`."""
    return ActionChunk(encode_joint_positions(chunk.positions, chunk.openings, spec, positions))


def encode_joint_positions(
    targets: FloatArray, openings: FloatArray | None, spec: ActionSpec, positions: FloatArray
) -> FloatArray:
    """Absolute joint positions as actions.

    Args:
        targets: (..., h, joints) rad.
        openings: (..., h) gripper openings in [0, 1]; not looked at where the contract leaves the gripper alone.
        spec: the form.
        positions: (..., joints) rad at the observation; those before the first of step deltas.

    Returns:
        (..., h, joints + gripper) actions.

    Raises:
        ChunkError: for positions that aren't finite or of another width, or a missing gripper.
        ContractError: if the contract acts in tool space, or has scales for another number of joints.
    """
    if spec.space != "joint":
        raise ContractError(f"the contract acts in {spec.space} space: encode it with encode_tool_poses")
    wanted = (*positions.shape[:-1], targets.shape[-2] if targets.ndim > 1 else 0, positions.shape[-1])
    if targets.size == 0 or targets.shape != wanted:
        steps = ", ".join([*map(str, positions.shape[:-1]), "steps", str(positions.shape[-1])])
        raise ChunkError(f"actions need ({steps}) joint positions, found {targets.shape}")
    if not (np.isfinite(targets).all() and np.isfinite(positions).all()):
        raise ChunkError("actions can't be made of joint positions that aren't finite")
    before = {
        "nothing": np.zeros_like(targets),
        "observation": np.broadcast_to(positions[..., None, :], targets.shape),
        "previous_step": np.concatenate([positions[..., None, :], targets[..., :-1, :]], axis=-2),
    }[spec.relative_to]
    return _with_gripper((targets - before) / units(spec, positions.shape[-1]), openings, spec)


def _with_gripper(arm: FloatArray, openings: FloatArray | None, spec: ActionSpec) -> FloatArray:
    if not spec.has_gripper:
        return arm
    if openings is None or openings.shape != arm.shape[:-1] or not np.isfinite(openings).all():
        raise ChunkError(f"the contract's gripper is {spec.gripper}: actions need {arm.shape[-2]} finite openings")
    return np.concatenate([arm, encode_gripper(openings, spec)[..., None]], axis=-1)


def _deltas(poses: FloatArray, spec: ActionSpec, T_base_tcp: FloatArray) -> FloatArray:
    if spec.relative_to == "nothing":
        return poses
    relative = se3.relative_tcp if spec.composition == "tcp" else se3.relative_base
    first = T_base_tcp[..., None, :, :]
    if spec.relative_to == "observation":
        return np.asarray(relative(np.broadcast_to(first, poses.shape), poses))
    deltas = relative(np.concatenate([first, poses[..., :-1, :, :]], axis=-3), poses)
    angles = np.linalg.norm(rotations.matrix_to_rotvec(deltas[..., :3, :3]), axis=-1)
    found = find_half_turn(angles.ravel())
    if found is not None:
        place, angle = _place(found, angles.shape), angles.ravel()[found]
        raise ChunkError(f"{place} turns by {angle:.3f} rad, half a turn: which way can't be told; leave that step out")
    return np.asarray(deltas)


def _place(index: int, shape: tuple[int, ...]) -> str:
    """Which step of an array of chunks an index into its flat form is."""
    *chunk, step = np.unravel_index(index, shape)
    return f"step {step}" if not chunk else f"chunk {', '.join(map(str, chunk))}, step {step}"


def _write_rotations(R: FloatArray, spec: ActionSpec) -> FloatArray:
    if spec.relative_to == "previous_step":
        return FROM_MATRIX[spec.rotation](R)
    written = FROM_MATRIX[spec.rotation](R)
    if spec.rotation == "rotvec":
        # A vector that leaps from step to step has passed half a turn; few chunks have one, if any.
        leaps = (np.diff(written, axis=-2) ** 2).sum(axis=-1) >= np.pi**2
        for chunk in map(tuple, np.argwhere(leaps.any(axis=-1))):
            written[chunk] = unwrapped_rotvecs(np.eye(3), R[chunk])
    elif spec.rotation == "rpy":
        _check_pitch(R)
        written = np.unwrap(written, axis=-2)
    elif spec.rotation == "quat_xyzw":
        written = written * np.where(written[..., :1, 3:] < 0.0, -1.0, 1.0)
        turns = np.sum(written[..., 1:, :] * written[..., :-1, :], axis=-1) < 0.0
        written[..., 1:, :] *= np.where(np.cumsum(turns, axis=-1) % 2 == 1, -1.0, 1.0)[..., None]
    return written


def _euler_differences(poses: FloatArray, spec: ActionSpec, T_base_tcp: FloatArray) -> FloatArray:
    chain = np.concatenate([T_base_tcp[..., None, :, :], poses], axis=-3)
    _check_pitch(chain[..., :3, :3])
    rpy = np.unwrap(rotations.matrix_to_rpy(chain[..., :3, :3]), axis=-2)
    values = np.concatenate([chain[..., :3, 3], rpy], axis=-1)
    before = values[..., :1, :] if spec.relative_to == "observation" else values[..., :-1, :]
    return np.asarray(values[..., 1:, :] - before)


def _check_pitch(R: FloatArray) -> None:
    pitch_cosines = np.hypot(R[..., 0, 0], R[..., 1, 0])
    if pitch_cosines.min() < LEAST_PITCH_COSINE:
        raise ChunkError(
            f"a pose's pitch is a right angle (its cosine {pitch_cosines.min():.1e}, limit {LEAST_PITCH_COSINE:g}), "
            "where Euler angles aren't unique; choose another rotation form"
        )
