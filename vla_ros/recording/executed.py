"""Where the arm was sent at a time: the executed target, past the filter, absolute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_ros.contract import ActionSpec
from vla_ros.errors import DatasetError, SensorError
from vla_ros.geometry import rotations, se3
from vla_ros.recording.arm import RecordedArm
from vla_ros.recording.recorded import RecordedEpisode, Series, TargetSeries
from vla_ros.types import FloatArray

IN_FORCE_NS = 100_000_000
"""Targets further apart than this weren't a motion: nobody had the arm between them."""


@dataclass(frozen=True)
class Executed:
    """Where the arm was sent at a time.

    Attributes:
        vector: tcp in base (position, quat_xyzw), or joints; then the gripper's opening where the contract has one.
        is_held: no target was in force: this is where the last command left it.
        is_padding: the time lies after the recording's end; this is the last one.
    """

    vector: FloatArray
    is_held: bool
    is_padding: bool


class ExecutedTargets:
    """Asks for executed targets by time, in the form in which a contract acts.

    Args:
        episode: what was recorded.
        arm: of that episode.
        spec: tool or joint space, with or without a gripper, and whether the label is what was measured.

    Raises:
        DatasetError: if the episode has neither targets nor commands, and the contract doesn't mean the measured state.
    """

    def __init__(self, episode: RecordedEpisode, arm: RecordedArm, spec: ActionSpec) -> None:
        self._episode, self._arm, self._spec = episode, arm, spec
        self._is_measured = spec.label == "measured_next"
        sent: tuple[Series, ...] = (episode.tool_targets, episode.joint_targets, episode.joint_commands)
        ends = [int(series.stamps_ns[-1]) for series in sent if len(series)]
        if not ends and not self._is_measured:
            raise DatasetError(
                f"{episode.info.name}: the bag has neither targets nor joint_command, so nobody knows where the arm "
                "was sent; a contract with `label: measured_next` does without"
            )
        self.end_ns = int(episode.joint_positions.stamps_ns[-1]) if self._is_measured else max(ends)

    def at(self, stamp_ns: int) -> Executed:
        """The executed target at a time.

        Raises:
            SensorError: if the measured state is asked for where there is none.
            DatasetError: if the contract has a gripper, and nobody knows its opening.
        """
        is_padding = stamp_ns > self.end_ns
        time_ns = min(stamp_ns, self.end_ns)
        tool, posture = _in_force(self._episode.tool_targets, time_ns), _in_force(self._episode.joint_targets, time_ns)
        is_held = tool is None and posture is None
        if self._is_measured:
            arm = self._write(self._arm.state_at(time_ns).positions)
            is_held &= bool(len(self._episode.tool_targets) + len(self._episode.joint_targets))
        elif self._spec.space == "tool" and tool is not None:
            arm = pose_vector(tool[0])
        elif posture is not None:
            arm = self._write(posture[0])
        else:
            arm = self._write(self._command(time_ns))
        if not self._spec.has_gripper:
            return Executed(arm, is_held, is_padding)
        target = tool or posture
        opening = self._opening(time_ns, float("nan") if target is None else target[1])
        return Executed(np.append(arm, opening), is_held, is_padding)

    def _write(self, positions: FloatArray) -> FloatArray:
        return pose_vector(self._arm.tcp(positions)) if self._spec.space == "tool" else positions

    def _command(self, stamp_ns: int) -> FloatArray:
        """The joints as commanded at a time; the last command where they are far apart, measured before the first."""
        commands = self._episode.joint_commands
        index = commands.last_index(stamp_ns)
        if index is None:
            return self._arm.state_at(stamp_ns).positions
        if index + 1 < len(commands) and commands.stamps_ns[index + 1] - commands.stamps_ns[index] <= IN_FORCE_NS:
            fraction = _fraction(commands, index, stamp_ns)
            return np.asarray(commands.values[index] + fraction * (commands.values[index + 1] - commands.values[index]))
        return np.asarray(commands.values[index])

    def _opening(self, stamp_ns: int, of_target: float) -> float:
        """Of the target, else what was commanded last, else what was measured."""
        if np.isfinite(of_target):
            return of_target
        commanded = self._arm.commanded_opening(stamp_ns)
        if commanded is not None:
            return commanded
        try:
            measured = self._arm.state_at(stamp_ns).gripper_opening
        except SensorError:
            measured = None
        if measured is None:
            raise DatasetError(
                f"{self._episode.info.name}: the contract has a gripper, and the bag says nothing of it: no opening in "
                f"the targets, no gripper/command and no gripper/state by {stamp_ns} ns"
            )
        return measured


def pose_vector(T: FloatArray) -> FloatArray:
    """(4, 4) to position and quat_xyzw, (7,)."""
    return np.concatenate([T[:3, 3], rotations.matrix_to_quat_xyzw(T[:3, :3])])


def _in_force(series: TargetSeries, stamp_ns: int) -> tuple[FloatArray, float] | None:
    """A target at a time, between its neighbours, with the opening of the one before; None where there is none."""
    index = series.last_index(stamp_ns)
    if index is None:
        return None
    opening = float(series.openings[index])
    if series.stamps_ns[index] == stamp_ns:
        return series.values[index], opening
    if index + 1 == len(series) or series.stamps_ns[index + 1] - series.stamps_ns[index] > IN_FORCE_NS:
        return None
    before, after = series.values[index], series.values[index + 1]
    fraction = _fraction(series, index, stamp_ns)
    if before.ndim == 2:
        return np.asarray(se3.interpolate(before, after, fraction)), opening
    return np.asarray(before + fraction * (after - before)), opening


def _fraction(series: Series, index: int, stamp_ns: int) -> float:
    begin_ns, end_ns = int(series.stamps_ns[index]), int(series.stamps_ns[index + 1])
    return (stamp_ns - begin_ns) / (end_ns - begin_ns)
