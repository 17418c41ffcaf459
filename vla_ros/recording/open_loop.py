"""What a policy would have done beside what was done: errors by dimension over the horizon of its chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_ros.contract import ActionSpec
from vla_ros.errors import RecordingError
from vla_ros.geometry import rotations, se3
from vla_ros.recording.recorded import RecordedEpisode, StampArray
from vla_ros.types import FloatArray

_NS = 1e-9
# Between two targets further apart than this nothing was recorded.
_LONGEST_GAP_NS = 200_000_000
TOOL_NAMES = ("x_m", "y_m", "z_m", "turn_x_rad", "turn_y_rad", "turn_z_rad")


@dataclass(frozen=True, eq=False)
class Executed:
    """What was done, at any time of a recording.

    Attributes:
        stamps_ns: (n,) strictly increasing.
        values: (n, 4, 4) T_base_tcp or (n, joints) rad.
        openings: (n,) of the gripper, NaN where nobody said.
    """

    stamps_ns: StampArray
    values: FloatArray
    openings: FloatArray

    def at(self, stamps_ns: Sequence[int] | StampArray) -> tuple[FloatArray, FloatArray]:
        """Values and openings at some times: between neighbours, and NaN where the recording is silent."""
        wanted = np.asarray(stamps_ns, dtype=np.int64)
        after = np.clip(np.searchsorted(self.stamps_ns, wanted), 1, len(self.stamps_ns) - 1)
        begin, end = self.stamps_ns[after - 1], self.stamps_ns[after]
        share = np.clip((wanted - begin) / (end - begin), 0.0, 1.0)
        is_known = (wanted >= self.stamps_ns[0]) & (wanted <= self.stamps_ns[-1]) & (end - begin <= _LONGEST_GAP_NS)
        a, b = self.values[after - 1], self.values[after]
        if a.ndim == 3:
            values = np.array([se3.interpolate(*pair) for pair in zip(a, b, share.tolist(), strict=True)])
        else:
            values = a + share[:, None] * (b - a)
        values[~is_known] = np.nan
        # Openings are steps: the newest that was said.
        openings = np.where(share < 1.0, self.openings[after - 1], self.openings[after])
        return values, np.where(is_known, openings, np.nan)


def executed(
    episode: RecordedEpisode, spec: ActionSpec, forward_kinematics: Callable[[FloatArray], FloatArray]
) -> Executed:
    """What an episode's actions are by a contract: the executed targets, or what was measured (`label`).

    Args:
        episode: the recording.
        spec: tells space and label.
        forward_kinematics: (n,) rad -> T_base_tcp (4, 4).

    Raises:
        RecordingError: if the bag has nothing of the kind.
    """
    tool, joint, measured = episode.tool_targets, episode.joint_targets, episode.joint_positions
    if spec.label == "measured_next":
        stamps_ns, joints, openings = measured.stamps_ns, measured.values, episode.joint_openings
    elif spec.space == "tool" and len(tool):
        return Executed(tool.stamps_ns, tool.values, tool.openings)
    elif len(joint):
        stamps_ns, joints, openings = joint.stamps_ns, joint.values, joint.openings
    else:
        # Led by the tool: the joints that this came to.
        stamps_ns, joints = episode.joint_commands.stamps_ns, episode.joint_commands.values
        commands = episode.gripper_commands
        last = np.searchsorted(commands.stamps_ns, stamps_ns, side="right")
        openings = np.concatenate([[np.nan], commands.values])[last]
    if len(stamps_ns) < 2:
        raise RecordingError(f"{episode.info.name} has no targets, nor joint_command: there is nothing to compare with")
    values = joints if spec.space == "joint" else np.array([forward_kinematics(q) for q in joints])
    return Executed(stamps_ns, values, openings)


@dataclass(frozen=True, eq=False)
class Answer:
    """A policy's answer to one observation, made absolute.

    Attributes:
        stamp_ns: of the observation.
        due_s: (h,) when each action is due, after that.
        values: (h, 4, 4) T_base_tcp or (h, joints) rad.
        openings: (h,) of the gripper, None where it is left alone.
        stay: T_base_tcp (4, 4), or (joints,) rad, at the stamp: where who does nothing would be.
    """

    stamp_ns: int
    due_s: FloatArray
    values: FloatArray
    openings: FloatArray | None
    stay: FloatArray


@dataclass(frozen=True, eq=False)
class Comparison:
    """Answers beside what was done.

    Attributes:
        names: of the dimensions, with units.
        due_s: (h,) of the longest answer.
        errors: (n, h, d) answer minus recording, turns as rotation vectors in base axes; NaN where one is silent.
        stay_errors: (n, h, d) the same of who does nothing: what an answer has to be better than.
        answers: n of them.
    """

    names: tuple[str, ...]
    due_s: FloatArray
    errors: FloatArray
    stay_errors: FloatArray
    answers: tuple[Answer, ...]

    def summary(self) -> dict[str, Any]:
        """Mean and largest absolute error of each dimension, at each action of the horizon, and over it all."""
        size, stay = np.abs(self.errors), np.abs(self.stay_errors)
        whole, whole_stay = (_mean(values.reshape(-1, len(self.names)), 0) for values in (size, stay))
        return {
            "observations": len(self.answers),
            "horizon_s": self.due_s.tolist(),
            "compared": np.isfinite(self.errors).any(axis=2).sum(axis=0).tolist(),
            "mean_abs_error": self._by_name(_mean(size, 0)),
            "max_abs_error": self._by_name(_most(size)),
            "mean_abs_error_of_staying": self._by_name(_mean(stay, 0)),
            "overall": dict(zip(self.names, _plain(whole), strict=True)),
            "overall_of_staying": dict(zip(self.names, _plain(whole_stay), strict=True)),
        }

    def _by_name(self, values: FloatArray) -> dict[str, list[float | None]]:
        return {name: _plain(values[:, column]) for column, name in enumerate(self.names)}


def compare(answers: Sequence[Answer], done: Executed, joint_names: Sequence[str]) -> Comparison:
    """Puts answers beside what was done at the times at which they are due.

    Args:
        answers: at least one, all of one space.
        done: in the same space.
        joint_names: of the arm.

    Raises:
        RecordingError: if there is no answer.
    """
    if not answers:
        raise RecordingError("no observation could be made of the episode that the policy answered; nothing to compare")
    is_tool = answers[0].values.ndim == 3
    has_gripper = answers[0].openings is not None
    names = TOOL_NAMES if is_tool else tuple(f"{name}_rad" for name in joint_names)
    names += ("gripper",) if has_gripper else ()
    longest = max(answers, key=lambda answer: len(answer.due_s)).due_s
    errors = np.full((len(answers), len(longest), len(names)), np.nan)
    stay_errors = errors.copy()
    for row, answer in enumerate(answers):
        due_ns = answer.stamp_ns + np.round(answer.due_s / _NS).astype(np.int64)
        values, openings = done.at(due_ns)
        count, width = len(due_ns), 6 if is_tool else values.shape[1]
        stay = np.broadcast_to(answer.stay, values.shape)
        errors[row, :count, :width] = _differences(answer.values, values)
        stay_errors[row, :count, :width] = _differences(stay, values)
        if answer.openings is not None:
            now = done.at([answer.stamp_ns])[1]
            errors[row, :count, -1] = answer.openings - openings
            stay_errors[row, :count, -1] = now - openings
    return Comparison(names, longest, errors, stay_errors, tuple(answers))


def _differences(a: FloatArray, b: FloatArray) -> FloatArray:
    """(h, d): a minus b; NaN where b is."""
    if a.ndim == 2:
        return a - b
    out = np.full((len(a), 6), np.nan)
    known = np.isfinite(b).all(axis=(1, 2))
    out[known, :3] = a[known, :3, 3] - b[known, :3, 3]
    out[known, 3:] = rotations.matrix_to_rotvec(a[known, :3, :3] @ b[known, :3, :3].swapaxes(1, 2))
    return out


def _mean(values: FloatArray, axis: int) -> FloatArray:
    """Over what is known; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _most(values: FloatArray) -> FloatArray:
    known = np.isfinite(values)
    most = np.where(known, values, -1.0).max(axis=0)
    return np.where(known.any(axis=0), most, np.nan)


def _plain(values: FloatArray) -> list[float | None]:
    """As JSON has it, which has no NaN."""
    return [value if value == value else None for value in values.tolist()]
