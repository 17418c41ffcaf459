"""What was done from each frame on, as chunks of actions in the contract's form."""

from __future__ import annotations

import numpy as np

from vla_ros.actions.encode import encode_joint_positions, encode_tool_poses
from vla_ros.contract import action_width
from vla_ros.errors import ChunkError, DatasetError
from vla_ros.geometry import rotations, se3
from vla_ros.recording.dataset import ACTION, EpisodeFrames
from vla_ros.recording.foreign_actions import decode_foreign
from vla_ros.training.fitting import Fit
from vla_ros.training.selection import BoolArray, RowArray, chunk_rows
from vla_ros.training.states import check_finite, read_joints, read_poses
from vla_ros.types import FloatArray

_QUAT_TOLERANCE = 1e-3


def label_chunks(frames: EpisodeFrames, fit: Fit, is_valid: BoolArray) -> FloatArray:
    """The chunk of every frame that is an example.

    Args:
        frames: the episode.
        fit: its dataset under the contract.
        is_valid: (frames, H) of `select_steps`.

    Returns:
        (frames, H, d) actions, relative to the frame's own observation where the contract says so; 0 in steps that
        aren't valid.

    Raises:
        DatasetError: if an action isn't finite, can't be written in the contract's form, or is relative to what the
            dataset doesn't say.
    """
    count, horizon = is_valid.shape
    actions = np.zeros((count, horizon, action_width(fit.contract.action, fit.joints)))
    examples = np.flatnonzero(is_valid[:, 0])
    if len(examples) == 0:
        return actions
    rows = _rows_until_end(chunk_rows(count, horizon, fit.shift)[examples], is_valid[examples])
    try:
        found = _encode(frames, fit, rows, examples)
    except ChunkError as error:
        raise DatasetError(f"episode {frames.name}: {error}") from error
    actions[examples] = np.where(is_valid[examples][..., None], found, 0.0)
    return actions


def _rows_until_end(rows: RowArray, is_valid: BoolArray) -> RowArray:
    """The rows of each chunk, the last valid one going on."""
    last = is_valid.sum(axis=1, keepdims=True) - 1
    return np.take_along_axis(rows, np.minimum(np.arange(rows.shape[1])[None], last), axis=1)


def _encode(frames: EpisodeFrames, fit: Fit, rows: RowArray, examples: RowArray) -> FloatArray:
    spec = fit.contract.action
    recorded = np.asarray(frames.columns[ACTION], dtype=np.float64).reshape(len(frames), -1)
    used = np.unique(rows)
    check_finite(np.where(np.isin(np.arange(len(frames)), used)[:, None], recorded, 0.0), frames, ACTION)
    if fit.own is None and spec.relative_to != "observation":
        # In the contract's form already, each step by itself.
        return recorded[rows]
    absolute, has_gripper = recorded, (fit.own or fit.contract).action.has_gripper
    if fit.own is None:
        absolute = decode_foreign(frames, fit.contract, fit.joints)
    else:
        # What isn't used may be anything.
        absolute = np.where(np.isin(np.arange(len(frames)), used)[:, None], recorded, recorded[used[0]])
    openings = np.clip(absolute[:, -1], 0.0, 1.0)[rows] if has_gripper else None
    arm = absolute[:, :-1] if has_gripper else absolute
    if spec.space == "joint":
        anchors = read_joints(frames, fit)
        if anchors is None:
            if spec.relative_to != "nothing":
                raise _unknown(frames, "joints")
            anchors = np.zeros_like(arm)
        return encode_joint_positions(arm[rows], openings, spec, anchors[examples])
    poses = read_poses(frames, fit)
    if poses is None:
        if spec.relative_to != "nothing":
            raise _unknown(frames, "tool")
        poses = np.broadcast_to(np.eye(4), (len(frames), 4, 4))
    return encode_tool_poses(_targets(frames, arm)[rows], openings, spec, poses[examples])


def _targets(frames: EpisodeFrames, arm: FloatArray) -> FloatArray:
    if arm.shape[1] != 7:
        raise DatasetError(
            f"episode {frames.name}: {ACTION} has {arm.shape[1]} entries for the tool; needs position (3), "
            "quat_xyzw (4)"
        )
    lengths = np.linalg.norm(arm[:, 3:], axis=1)
    off = np.abs(lengths - 1.0)
    if off.max() > _QUAT_TOLERANCE:
        raise DatasetError(
            f"episode {frames.name}: {ACTION} of frame {int(off.argmax())} turns by a quaternion of length "
            f"{lengths[int(off.argmax())]:.4f}"
        )
    return se3.make_pose(arm[:, :3], rotations.quat_xyzw_to_matrix(arm[:, 3:]))


def _unknown(frames: EpisodeFrames, what: str) -> DatasetError:
    return DatasetError(f"episode {frames.name}: actions are relative to the {what}, and no column says where it was")
