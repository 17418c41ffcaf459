"""The state vectors of an episode's frames, and where the tool was, under the contract that is learned."""

from __future__ import annotations

import numpy as np

from vla_ros.contract import StateItem, state_layout
from vla_ros.errors import DatasetError
from vla_ros.geometry import rotations, se3
from vla_ros.geometry.rotation_forms import FROM_MATRIX, TO_MATRIX, nearest_rotvec
from vla_ros.recording.dataset import JOINT_POSITIONS, STATE, TCP_POSE, EpisodeFrames
from vla_ros.training.fitting import Fit, own_item
from vla_ros.types import FloatArray


def read_states(frames: EpisodeFrames, fit: Fit) -> FloatArray:
    """(frames, s) state vectors as the contract orders and writes them, not normalised.

    An item that the dataset's own contract writes likewise is taken as it is; another is made of what was measured.

    Raises:
        DatasetError: for a value that isn't finite.
    """
    items = fit.contract.observation.state
    if not items:
        return np.zeros((len(frames), 0))
    own = fit.own or fit.contract
    if items == own.observation.state:
        return column(frames, STATE)
    return np.concatenate([_item(frames, fit, item) for item in items], axis=1)


def read_poses(frames: EpisodeFrames, fit: Fit) -> FloatArray | None:
    """(frames, 4, 4) T_base_tcp as measured; None where the dataset doesn't say."""
    if TCP_POSE in frames.columns:
        values = column(frames, TCP_POSE)
        return se3.make_pose(values[:, :3], rotations.quat_xyzw_to_matrix(values[:, 3:]))
    found = _own_values(frames, fit, "tcp_pose")
    if found is None:
        return None
    values, item = found
    return se3.make_pose(values[:, :3] + np.array(item.origin_m), TO_MATRIX[item.rotation](values[:, 3:]))


def read_joints(frames: EpisodeFrames, fit: Fit) -> FloatArray | None:
    """(frames, joints) positions as measured, rad; None where the dataset doesn't say."""
    if JOINT_POSITIONS in frames.columns:
        return column(frames, JOINT_POSITIONS)
    found = _own_values(frames, fit, "joint_positions")
    return None if found is None else found[0]


def column(frames: EpisodeFrames, name: str) -> FloatArray:
    """(frames, d) a column of numbers, all of them finite.

    Raises:
        DatasetError: naming the frame and the entry that isn't.
    """
    values = np.asarray(frames.columns[name], dtype=np.float64).reshape(len(frames), -1)
    check_finite(values, frames, name)
    return values


def check_finite(values: FloatArray, frames: EpisodeFrames, name: str) -> None:
    """Raises DatasetError naming the first frame and entry of (frames, d) that isn't finite."""
    if np.isfinite(values).all():
        return
    frame, entry = np.argwhere(~np.isfinite(values))[0]
    raise DatasetError(
        f"episode {frames.name}: {name} of frame {frame}, entry {entry} is {values[frame, entry]}, not finite; "
        "leave the episode out (`vla-ros dataset drop`) or make the dataset anew"
    )


def _own_values(frames: EpisodeFrames, fit: Fit, kind: str) -> tuple[FloatArray, StateItem] | None:
    """What the dataset's own state says of an item, and how it is written there."""
    own = fit.own or fit.contract
    item = next((item for item in own.observation.state if item.kind == kind), None)
    if item is None or STATE not in frames.columns:
        return None
    return column(frames, STATE)[:, state_layout(own.observation, fit.joints)[kind]], item


def _item(frames: EpisodeFrames, fit: Fit, item: StateItem) -> FloatArray:
    own = fit.own or fit.contract
    found = _own_values(frames, fit, item.kind)
    if found is not None and own_item(item, own) == item:
        return found[0]
    if item.kind == "tcp_pose":
        poses = read_poses(frames, fit)
        if poses is not None:
            return _write_poses(poses, item)
    elif item.kind == "joint_positions":
        joints = read_joints(frames, fit)
        if joints is not None:
            return joints
    elif found is not None and item.kind == "joint_velocities":
        return found[0]
    elif found is not None:
        return _write_openings(found[0], found[1], item)
    raise DatasetError(f"episode {frames.name}: nothing says what {item.kind} was")


def _write_poses(poses: FloatArray, item: StateItem) -> FloatArray:
    """As `observation.state_vector` writes them."""
    turns = FROM_MATRIX[item.rotation](poses[:, :3, :3])
    if item.near_rotvec_rad is not None:
        near = np.array(item.near_rotvec_rad)
        turns = np.stack([nearest_rotvec(turn, near) for turn in turns])
    return np.concatenate([poses[:, :3, 3] - np.array(item.origin_m), turns], axis=1)


def _write_openings(values: FloatArray, written: StateItem, item: StateItem) -> FloatArray:
    entry, (closed, opened) = next(
        (index, ends) for index, ends in enumerate(written.gripper_entries) if ends[0] != ends[1]
    )
    openings = (values[:, entry] - closed) / (opened - closed)
    return np.stack([low + openings * (high - low) for low, high in item.gripper_entries], axis=1)
