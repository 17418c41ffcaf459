"""Actions of a dataset that others made, as absolute targets: by the contract that says what they mean."""

from __future__ import annotations

import numpy as np

from vla_ros.actions.decode import anchored_poses, decode_joint_chunk, decode_tool_chunk
from vla_ros.contract import Contract, StateItem, state_layout
from vla_ros.errors import DatasetError
from vla_ros.geometry import rotations, se3
from vla_ros.geometry.rotation_forms import TO_MATRIX
from vla_ros.recording.dataset import ACTION, JOINT_POSITIONS, STATE, TCP_POSE, EpisodeFrames
from vla_ros.types import ActionChunk, FloatArray


def decode_foreign(frames: EpisodeFrames, contract: Contract, joints: int) -> FloatArray:
    """A foreign episode's actions as `ACTION` has them: absolute, then the gripper's opening where there is one.

    What is relative to the observation is put on each frame's own state; what is relative to the step before is summed
    up from the first frame's.

    Args:
        frames: the episode.
        contract: what its actions, and its state, mean.
        joints: of the arm.

    Returns:
        (frames, 7 or joints, and 1 for a gripper).

    Raises:
        DatasetError: if what the actions are relative to isn't in the dataset.
        ChunkError: if the actions don't have the contract's form.
    """
    spec = contract.action
    actions = np.asarray(frames.columns[ACTION], dtype=np.float64)
    is_chained = spec.relative_to != "observation"
    starts = [0] if is_chained else range(len(actions))
    stretches = [ActionChunk(actions[start:] if is_chained else actions[start : start + 1]) for start in starts]
    rows = []
    is_alone = spec.relative_to == "nothing"
    if spec.space == "joint":
        measured = np.zeros((len(actions), joints)) if is_alone else _joints(frames, contract, joints)
        for start, stretch in zip(starts, stretches, strict=True):
            chunk = decode_joint_chunk(stretch, spec, 0, measured[start], frames.name)
            rows.append(_with_openings(chunk.positions, chunk.openings))
    else:
        poses = np.tile(np.eye(4), (len(actions), 1, 1)) if is_alone else _poses(frames, contract, joints)
        for start, stretch in zip(starts, stretches, strict=True):
            tool = decode_tool_chunk(stretch, spec, 0, poses[start], frames.name)
            T = anchored_poses(tool, poses[start])
            arm = np.concatenate([T[:, :3, 3], rotations.matrix_to_quat_xyzw(T[:, :3, :3])], axis=1)
            rows.append(_with_openings(arm, tool.openings))
    return np.concatenate(rows)


def _with_openings(arm: FloatArray, openings: FloatArray | None) -> FloatArray:
    return arm if openings is None else np.concatenate([arm, openings[:, None]], axis=1)


def _state(frames: EpisodeFrames, contract: Contract, joints: int, kind: str) -> tuple[FloatArray, StateItem] | None:
    item = next((item for item in contract.observation.state if item.kind == kind), None)
    if item is None or STATE not in frames.columns:
        return None
    return np.asarray(frames.columns[STATE], np.float64)[:, state_layout(contract.observation, joints)[kind]], item


def _joints(frames: EpisodeFrames, contract: Contract, joints: int) -> FloatArray:
    if JOINT_POSITIONS in frames.columns:
        return np.asarray(frames.columns[JOINT_POSITIONS], dtype=np.float64)
    found = _state(frames, contract, joints, "joint_positions")
    if found is None:
        raise _missing(frames, contract, JOINT_POSITIONS)
    return found[0]


def _poses(frames: EpisodeFrames, contract: Contract, joints: int) -> FloatArray:
    if TCP_POSE in frames.columns:
        values = np.asarray(frames.columns[TCP_POSE], dtype=np.float64)
        return se3.make_pose(values[:, :3], rotations.quat_xyzw_to_matrix(values[:, 3:]))
    found = _state(frames, contract, joints, "tcp_pose")
    if found is None:
        raise _missing(frames, contract, TCP_POSE)
    values, item = found
    return se3.make_pose(values[:, :3] + np.array(item.origin_m), TO_MATRIX[item.rotation](values[:, 3:]))


def _missing(frames: EpisodeFrames, contract: Contract, what: str) -> DatasetError:
    return DatasetError(
        f"episode {frames.name}: its actions are relative to the {contract.action.relative_to.replace('_', ' ')} "
        f"(contract {contract.name}), and neither a column {what!r} nor the contract's state says where the arm was"
    )
