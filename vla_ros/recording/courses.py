"""Recorded actions as courses from rest to rest: a slow way to where they begin, and the same path once more."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from vla_ros.actions.path import SplinePath, unwrapped_rotvecs
from vla_ros.errors import VlaRosError
from vla_ros.geometry import rotations, se3
from vla_ros.recording.recorded_actions import RecordedActions
from vla_ros.types import FloatArray, JointChunk, ToolChunk

SOURCE = "replay"
FASTEST = 4.0

_NS = 1e-9
# Of a minimum-jerk move; the peak is 1.875 times the mean.
_APPROACH_RAD_S, _APPROACH_M_S, _APPROACH_TURN_RAD_S = 0.6, 0.15, 0.6
_PEAK = 1.875
_LEAST_MOVE_S, _DWELL_S, _RAMP_S = 0.5, 0.3, 1.0
_MOVE_POINTS = 25
# Points of a chunk: the arm comes to rest where a chunk ends, so what isn't renewed stops within this time.
_POINT_PERIOD_S, _AHEAD_S, _BEHIND_S = 0.02, 1.0, 0.1
# Silence in a recording longer than this is crossed slowly, whatever the clock said.
_LONGEST_GAP_S = 0.5


class ReplayError(VlaRosError):
    """A replay that can't begin or go on; the arm holds."""


class Course:
    """Where the arm is wanted when: a smooth curve from rest to rest.

    Args:
        times_s: (n,) from 0 on, strictly increasing.
        poses: (n, 4, 4) T_base_tcp, or None.
        positions: (n, joints) rad, or None; one of the two.
        openings: (n,) of the gripper, NaN to leave it as it is.
        lead_s: how long it takes to what was recorded; the way there is ours.
    """

    def __init__(
        self,
        times_s: FloatArray,
        poses: FloatArray | None,
        positions: FloatArray | None,
        openings: FloatArray,
        lead_s: float = 0.0,
    ) -> None:
        self._R_reference: FloatArray | None = None
        if poses is not None:
            self._R_reference = poses[0, :3, :3]
            turns = unwrapped_rotvecs(self._R_reference, poses[:, :3, :3])
            values = np.concatenate([poses[:, :3, 3], turns], axis=1)
        elif positions is not None:
            values = positions
        else:
            raise ValueError("a course needs poses or positions")
        self._spline = SplinePath(times_s, values)
        self.duration_s, self.lead_s = float(times_s[-1]), lead_s
        said = np.isfinite(openings)
        self._opening_times: list[float] = times_s[said].tolist()
        self._openings: list[float] = openings[said].tolist()

    @property
    def is_tool(self) -> bool:
        """Whether it leads the tool, else the joints."""
        return self._R_reference is not None

    def at(self, time_s: float) -> FloatArray:
        """T_base_tcp (4, 4), or (joints,) rad, wanted at a time."""
        value = self._spline.sample(max(0.0, time_s))[0]
        if self._R_reference is None:
            return np.asarray(value)
        return np.asarray(se3.make_pose(value[:3], rotations.rotvec_to_matrix(value[3:]) @ self._R_reference))

    def opening(self, time_s: float) -> float | None:
        """Of the gripper, None to leave it as it is: the recorded openings are steps, never averaged."""
        if not self._openings:
            return None
        return self._openings[max(0, bisect_right(self._opening_times, time_s + 1e-9) - 1)]

    def chunk(self, start_ns: int, now_ns: int) -> ToolChunk | JointChunk:
        """The stretch around now.

        Args:
            start_ns: when the course began, or will.
            now_ns: present time.
        """
        behind_ns = min(round(_BEHIND_S / _NS), max(0, now_ns - start_ns))
        stamp_ns = now_ns - behind_ns
        first_s = (stamp_ns - start_ns) * _NS
        # On a grid of its own, so that each chunk's curve leads through the points of the one before.
        first = max(0, int(np.ceil(first_s / _POINT_PERIOD_S - 1e-6)))
        last = int(np.ceil((first_s + behind_ns * _NS + _AHEAD_S) / _POINT_PERIOD_S))
        due_s = _POINT_PERIOD_S * np.arange(first, last + 1)
        wanted = np.array([self.at(time_s) for time_s in due_s.tolist()])
        said = [self.opening(time_s) for time_s in due_s.tolist()]
        openings = None if None in said else np.array(said, dtype=np.float64)
        times_s = np.asarray(due_s - first_s, dtype=np.float64)
        times_s[0] = max(0.0, times_s[0])
        if self.is_tool:
            return ToolChunk(stamp_ns, "absolute", wanted, openings, times_s, SOURCE)
        return JointChunk(stamp_ns, wanted, openings, times_s, SOURCE)


def approach_course(start: FloatArray, actions: RecordedActions) -> Course | None:
    """The way from a posture to the one in which the episode began, with the gripper as it was then.

    Args:
        start: (joints,) rad.
        actions: the episode's; where it says nothing of the posture there is no such way.

    Raises:
        ReplayError: if it is about another number of joints.
    """
    if actions.start_positions is None:
        return None
    if actions.start_positions.shape != start.shape:
        raise ReplayError(
            f"{actions.name} has {len(actions.start_positions)} joints, the arm {len(start)}; name its robot (--robot)"
        )
    times_s, share = _move(float(np.abs(actions.start_positions - start).max()) * _PEAK / _APPROACH_RAD_S)
    positions = start + share[:, None] * (actions.start_positions - start)
    return Course(times_s, None, positions, np.full(len(times_s), actions.openings[0]))


def path_course(start: FloatArray, actions: RecordedActions, speed: float) -> Course:
    """From where the arm is onto the first target, and along all of them.

    The recorded pace, times the speed, is taken up and given up over a second, so that an episode that was cut out of a
    motion can be repeated from rest.

    Args:
        start: T_base_tcp (4, 4), or (joints,) rad, where the arm is.
        actions: the episode's.
        speed: 1 as it was recorded.
    """
    times_s, values, openings = _bridged(actions, paced(actions.times_s, speed))
    first = values[0]
    move_s, share = _move(_duration_s(start, first))
    lead = np.array([_between(start, first, float(part)) for part in share])
    stay_s = move_s[-1] + _DWELL_S * np.array([0.25, 0.5, 0.75])
    lead_times_s = np.concatenate([move_s, stay_s])
    lead = np.concatenate([lead, np.repeat(first[None], len(stay_s), axis=0)])
    lead_s = float(move_s[-1]) + _DWELL_S
    times_s = np.concatenate([lead_times_s, lead_s + times_s])
    values = np.concatenate([lead, values])
    openings = np.concatenate([np.full(len(lead), openings[0]), openings])
    is_tool = actions.poses is not None
    return Course(times_s, values if is_tool else None, None if is_tool else values, openings, lead_s)


def _move(duration_s: float) -> tuple[FloatArray, FloatArray]:
    """Times and shares of a minimum-jerk move. Source: Flash and Hogan, J. Neuroscience 1985."""
    phase = np.linspace(0.0, 1.0, _MOVE_POINTS)
    share = 10.0 * phase**3 - 15.0 * phase**4 + 6.0 * phase**5
    return max(_LEAST_MOVE_S, duration_s) * phase, share


def _duration_s(a: FloatArray, b: FloatArray) -> float:
    """Of a slow move from one pose, or posture, to another."""
    if a.ndim == 1:
        return float(np.abs(b - a).max()) * _PEAK / _APPROACH_RAD_S
    turn = float(rotations.angle_between(a[:3, :3], b[:3, :3]))
    way = float(np.linalg.norm(b[:3, 3] - a[:3, 3]))
    return _PEAK * max(way / _APPROACH_M_S, turn / _APPROACH_TURN_RAD_S)


def _between(a: FloatArray, b: FloatArray, share: float) -> FloatArray:
    return a + share * (b - a) if a.ndim == 1 else np.asarray(se3.interpolate(a, b, share))


def paced(times_s: FloatArray, speed: float) -> FloatArray:
    """When what was recorded at a time is due: the pace rises evenly from 0 to `speed`, and falls so at the end."""
    if not 0.0 < speed <= FASTEST:
        raise ReplayError(f"speed {speed:g} isn't in (0, {FASTEST:g}]; 1 is as recorded")
    recorded = times_s - times_s[0]
    ramp_s = min(_RAMP_S, recorded[-1] / speed)
    # Covered while the pace rises, of the recording's time.
    covered = 0.5 * speed * ramp_s
    whole_s = recorded[-1] / speed + ramp_s
    left = recorded[-1] - recorded
    due_s = recorded / speed + 0.5 * ramp_s
    if ramp_s > 0.0:
        due_s = np.where(recorded < covered, np.sqrt(2.0 * ramp_s * recorded / speed), due_s)
        due_s = np.where(left < covered, whole_s - np.sqrt(2.0 * ramp_s * left / speed), due_s)
    return np.asarray(due_s)


def _bridged(actions: RecordedActions, times_s: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Targets with a slow move where the recording is silent."""
    values = actions.poses if actions.poses is not None else actions.positions
    if values is None:
        raise ReplayError(f"{actions.name} has neither poses nor postures")
    openings = actions.openings
    gaps = np.flatnonzero(np.diff(actions.times_s) > _LONGEST_GAP_S)
    for index in gaps[::-1].tolist():
        a, b = values[index], values[index + 1]
        move_s, share = _move(max(_duration_s(a, b), float(times_s[index + 1] - times_s[index])))
        # At rest on both sides: a curve through two points far apart swings out.
        inner = np.array([_between(a, b, float(part)) for part in share[1:-1]])
        longer_s = move_s[-1] - (times_s[index + 1] - times_s[index])
        inner_s = times_s[index] + move_s[1:-1]
        times_s = np.concatenate([times_s[: index + 1], inner_s, times_s[index + 1 :] + longer_s])
        values = np.concatenate([values[: index + 1], inner, values[index + 1 :]])
        openings = np.concatenate([openings[: index + 1], np.full(len(inner), np.nan), openings[index + 1 :]])
    return times_s, values, openings
