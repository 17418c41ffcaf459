"""What an episode did, in a form that can be done again: absolute poses or postures over time, with the gripper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vla_ros.contract import Contract
from vla_ros.errors import DatasetError, RecordingError
from vla_ros.geometry import rotations, se3
from vla_ros.recording.dataset import ACTION, IS_PADDING, JOINT_POSITIONS, STAMP, EpisodeFrames, Schema
from vla_ros.recording.foreign_actions import decode_foreign
from vla_ros.types import FloatArray

if TYPE_CHECKING:
    from vla_ros.recording.recorded import RecordedEpisode

_NS = 1e-9
_QUAT_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class RecordedActions:
    """The executed targets of an episode.

    Attributes:
        name: of the episode.
        robot: its name, empty where nobody said.
        times_s: (n,) when each target was due, from the first on; strictly increasing.
        poses: (n, 4, 4) T_base_tcp, None in joint space.
        positions: (n, joints) rad in the robot YAML's order, None in tool space.
        openings: (n,) of the gripper, NaN where it was left alone.
        start_positions: (joints,) rad measured at the first target, None where nobody knows.
    """

    name: str
    robot: str
    times_s: FloatArray
    poses: FloatArray | None
    positions: FloatArray | None
    openings: FloatArray
    start_positions: FloatArray | None = None

    @property
    def duration_s(self) -> float:
        """From the first target to the last."""
        return float(self.times_s[-1] - self.times_s[0])

    def without_posture(self) -> RecordedActions:
        """The tool's way alone, for an arm with other joints.

        Raises:
            RecordingError: if the episode moved joints.
        """
        if self.poses is None:
            raise RecordingError(f"{self.name} moved the joints of {self.robot}; another arm can't repeat that")
        return RecordedActions(self.name, "", self.times_s, self.poses, None, self.openings)


def actions_of_frames(
    schema: Schema, frames: EpisodeFrames, contract: Contract | None = None, joints: int = 0
) -> RecordedActions:
    """The actions of a dataset's episode.

    Args:
        schema: of the dataset.
        frames: the episode.
        contract: what its actions mean where the dataset doesn't say (a public one); then they are made absolute.
        joints: of the arm, for such a dataset.

    Raises:
        DatasetError: if there are no actions, they aren't understood, or they aren't finite.
    """
    where = f"episode {frames.name}"
    if ACTION not in frames.columns or len(frames) == 0:
        raise DatasetError(f"{where} has no column {ACTION!r}, or no frame; nothing can be replayed of it")
    period_s = 1.0 / schema.fps
    kept = np.ones(len(frames), dtype=bool)
    if IS_PADDING in frames.columns:
        kept = ~frames.columns[IS_PADDING].reshape(len(frames)).astype(bool)
    if not kept.any():
        raise DatasetError(f"{where} is all padding; nothing can be replayed of it")
    times_s = _frame_times(frames, period_s)[kept]
    if schema.contract is None:
        if contract is None:
            raise DatasetError(
                f"{where}: the dataset doesn't say what its actions mean; name a contract that does (--contract)"
            )
        absolute = decode_foreign(frames, contract, joints)
        space, has_gripper = contract.action.space, contract.action.has_gripper
    else:
        absolute = np.asarray(frames.columns[ACTION], dtype=np.float64)
        space, has_gripper = schema.contract.action.space, schema.contract.action.has_gripper
    absolute = absolute[kept]
    _check(absolute, where)
    arm = absolute[:, :-1] if has_gripper else absolute
    openings = np.clip(absolute[:, -1], 0.0, 1.0) if has_gripper else np.full(len(arm), np.nan)
    start = frames.columns.get(JOINT_POSITIONS)
    return RecordedActions(
        name=frames.name,
        robot=schema.robot,
        times_s=times_s - times_s[0],
        poses=_poses(arm, where) if space == "tool" else None,
        positions=arm if space == "joint" else None,
        openings=openings,
        start_positions=None if start is None else np.asarray(start[kept][0], dtype=np.float64),
    )


def actions_of_recording(
    episode: RecordedEpisode, forward_kinematics: Callable[[FloatArray], FloatArray]
) -> RecordedActions:
    """The actions of a recorded bag: every target that the filter sent.

    Where both tool and joints were led, what is repeated is the tool's way.

    Args:
        episode: what the bag says.
        forward_kinematics: (n,) rad -> T_base_tcp (4, 4), for such an episode.

    Raises:
        RecordingError: if there are no targets.
    """
    tool, joint = episode.tool_targets, episode.joint_targets
    name = episode.info.name
    if not len(tool) and not len(joint):
        raise RecordingError(
            f"{name} has no message on target or joint_target: nobody moved the arm, or the targets weren't recorded"
        )
    if len(tool) and len(joint):
        led = np.array([forward_kinematics(q) for q in joint.values])
        stamps_ns = np.concatenate([tool.stamps_ns, joint.stamps_ns])
        values, openings = np.concatenate([tool.values, led]), np.concatenate([tool.openings, joint.openings])
    else:
        said = tool if len(tool) else joint
        stamps_ns, values, openings = said.stamps_ns, said.values, said.openings
    # One of both kinds may have been sent for the same tick, when the source changed.
    stamps_ns, order = np.unique(stamps_ns, return_index=True)
    is_tool = len(tool) > 0
    return RecordedActions(
        name=name,
        robot=episode.robot.name,
        times_s=(stamps_ns - stamps_ns[0]) * _NS,
        poses=values[order] if is_tool else None,
        positions=None if is_tool else values[order],
        openings=openings[order],
        start_positions=_measured_at(episode, int(stamps_ns[0])),
    )


def _measured_at(episode: RecordedEpisode, stamp_ns: int) -> FloatArray | None:
    """Joint positions at a time, None where the nearest lie too far off."""
    measured = episode.joint_positions
    if not len(measured):
        return None
    nearest = int(np.argmin(np.abs(measured.stamps_ns - stamp_ns)))
    is_near = abs(int(measured.stamps_ns[nearest]) - stamp_ns) < 100_000_000
    return np.asarray(measured.values[nearest], dtype=np.float64) if is_near else None


def _frame_times(frames: EpisodeFrames, period_s: float) -> FloatArray:
    """When each action was due after the first: by the true stamps where they make sense, else by the grid."""
    grid = np.asarray(np.arange(len(frames)) * period_s, dtype=np.float64)
    if STAMP not in frames.columns:
        return grid
    stamps_ns = np.asarray(frames.columns[STAMP]).reshape(len(frames))
    steps_s = np.diff(stamps_ns) * _NS
    if len(steps_s) and steps_s.min() < 0.2 * period_s:
        return grid
    return np.asarray((stamps_ns - stamps_ns[0]) * _NS, dtype=np.float64)


def _check(values: FloatArray, where: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        frame, entry = np.argwhere(~finite)[0]
        raise DatasetError(f"{where}: {ACTION} of frame {frame}, entry {entry} is {values[frame, entry]}, not finite")


def _poses(arm: FloatArray, where: str) -> FloatArray:
    if arm.shape[1] != 7:
        raise DatasetError(
            f"{where}: {ACTION} has {arm.shape[1]} entries for the tool; needs position (3), quat_xyzw (4)"
        )
    lengths = np.linalg.norm(arm[:, 3:], axis=1)
    if np.abs(lengths - 1.0).max() > _QUAT_TOLERANCE:
        frame = int(np.argmax(np.abs(lengths - 1.0)))
        raise DatasetError(f"{where}: {ACTION} of frame {frame} turns by a quaternion of length {lengths[frame]:.4f}")
    return se3.make_pose(arm[:, :3], rotations.quat_xyzw_to_matrix(arm[:, 3:]))
