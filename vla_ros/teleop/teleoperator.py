"""From what the operator says to action chunks: engaging, leading, and letting go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vla_ros.geometry import rotations, se3
from vla_ros.teleop.clutch import Clutch, pursuit
from vla_ros.teleop.config import FRAMES, TeleopConfig
from vla_ros.teleop.frames import frame_axes, in_base
from vla_ros.teleop.motion import Motion, MotionLimits, Path
from vla_ros.teleop.operator_input import OperatorInput
from vla_ros.teleop.state import ArmView, TeleopState
from vla_ros.teleop.windup import near, slowed
from vla_ros.types import FloatArray, ToolChunk

SOURCE = "teleop"
# Points of a chunk before its beginning: the spline through them begins without a bend, this far from what counts.
_PAST = 4
# s, at least, of a chunk: the filter's gripper may put off a change by 0.3 s, and forgets it when a chunk ends.
_SHORTEST_S = 0.35
# Gaps past which an arm isn't where it was led to: then it is led on from where it is. The filter has the same.
_NEAR_M, _NEAR_RAD = 0.02, 0.1
# An opening that isn't known to be commanded, as of a gripper that holds a block, is open only from here on.
_WIDE_OPEN = 0.9
# Part of a trigger's way.
_LEVER_MOVED = 0.05
# Part of acceleration and jerk at the moment of engaging.
_SOFT = 0.2
# m/s and rad/s: what an arm that stands still may be measured to do.
_MOVING = 0.02


class Teleoperator:
    """Leads the tool as an operator says. It never looks at a clock.

    The target goes on from what was said last, not from the measurement that lags behind it, and stays near that. Each
    chunk begins on the path of the one before, goes on as the operator says for `lead_s`, and then brakes: silence
    stops the arm softly.

    Args:
        config: speeds, limits and devices.
        arm_lead_s: time from a command until the arm carries it out (`trajectory_lead_s` and the like). The filter is
            that much ahead of a path's points, so that what changes before then would be a step to it.
    """

    def __init__(self, config: TeleopConfig, arm_lead_s: float = 0.0) -> None:
        self.config = config
        self._arm_lead_ns = round(1e9 * arm_lead_s)
        self._limits = MotionLimits(
            (config.acceleration_m_s2, config.angular_acceleration_rad_s2),
            (config.jerk_m_s3, config.angular_jerk_rad_s3),
        )
        self._windup = (config.windup_m, config.windup_rad)

    def begin(self, frame: str) -> TeleopState:
        """The state before the first step."""
        return TeleopState(frame, self.config.speeds.index(self.config.speed))

    def step(
        self, state: TeleopState, said: OperatorInput, arm: ArmView | None, now_ns: int
    ) -> tuple[TeleopState, ToolChunk | None]:
        """Takes what the operator says.

        Args:
            state: after the step before.
            said: now; what was pressed counts once.
            arm: None while nothing is known of it.
            now_ns: ROS time.

        Returns:
            The new state, and a chunk to be sent: one a period while engaged, one that brakes when let go, else None.
        """
        state = self._take_settings(replace(state, notice=""), said, arm)
        problem = said.problem or ("no joint state yet; is the arm's driver running?" if arm is None else arm.problem)
        if problem or arm is None:
            # What is held now has to be let go first.
            state = replace(state, is_armed=False, notice=problem)
            return self._release(state, now_ns) if state.is_engaged else (state, None)
        if not said.is_held:
            state = replace(state, is_armed=True)
            return self._release(state, now_ns) if state.is_engaged else (state, None)
        if not state.is_armed:
            return replace(state, notice="let go of the dead-man switch first"), None
        if not state.is_engaged:
            state = replace(self._engage(state, arm, now_ns), lever=said.lever)
        elif now_ns + self._arm_lead_ns < state.point_ns:
            return self._take_gripper(state, said, arm), None
        return self._lead(self._take_gripper(state, said, arm), said, arm, now_ns)

    def led(self, state: TeleopState, arm: ArmView, now_ns: int) -> FloatArray:
        """(4, 4) where the tool is led to now, or where it would be led on from."""
        is_led = state.path is not None and (state.is_engaged or self._is_where_led(state.path, arm, now_ns))
        return state.path.at(now_ns).T_base_tcp if is_led and state.path is not None else arm.T_base_tcp

    def with_speed(self, state: TeleopState, speed: float) -> TeleopState:
        """The state with the nearest of the speeds."""
        speeds = self.config.speeds
        return replace(state, level=min(range(len(speeds)), key=lambda level: abs(speeds[level] - speed)))

    def with_frame(self, state: TeleopState, frame: str) -> TeleopState:
        """The state with another frame, in which a hand takes hold anew."""
        return replace(state, frame=frame, clutch=None)

    def speed(self, state: TeleopState) -> float:
        """Part of the full speed in force."""
        return self.config.speeds[state.level]

    def _take_settings(self, state: TeleopState, said: OperatorInput, arm: ArmView | None) -> TeleopState:
        for command in said.commands:
            if command in ("faster", "slower"):
                level = state.level + (1 if command == "faster" else -1)
                state = replace(state, level=min(max(level, 0), len(self.config.speeds) - 1))
            elif command == "frame":
                has_camera = arm is not None and arm.T_base_cam is not None
                choices: list[str] = [name for name in FRAMES if name != "camera" or has_camera]
                place = choices.index(state.frame) + 1 if state.frame in choices else 0
                state = self.with_frame(state, choices[place % len(choices)])
        return state

    def _take_gripper(self, state: TeleopState, said: OperatorInput, arm: ArmView) -> TeleopState:
        opening = state.opening if said.opening is None else said.opening
        # A trigger that rests when the arm is taken over mustn't drop what the gripper holds.
        if said.lever is not None and (state.lever is None or abs(said.lever - state.lever) > _LEVER_MOVED):
            opening, state = said.lever, replace(state, lever=None)
        for command in said.commands:
            if command == "gripper":
                known = arm.commanded_opening if opening is None else opening
                measured = arm.measured_opening or 0.0
                is_open = measured > _WIDE_OPEN if known is None else known > 0.5
                opening = 0.0 if is_open else 1.0
            elif command in ("open", "close"):
                opening = 1.0 if command == "open" else 0.0
        return replace(state, opening=opening)

    def _engage(self, state: TeleopState, arm: ArmView, now_ns: int) -> TeleopState:
        """From where the arm was led to last, if it is still there and was left alone; else from where it is."""
        motion = Motion(arm.T_base_tcp, arm.twist, np.zeros(6))
        path, opening = state.path, None if arm.is_others else state.opening
        if path is not None and self._is_where_led(path, arm, now_ns):
            motion = path.at(now_ns)
        path = Path(motion, now_ns, motion.velocity, 1.0, self._limits)
        # An arm that moves is braked with all there is.
        is_moving = float(np.abs(motion.velocity).max()) > _MOVING
        engaged_ns = now_ns - round(1e9 * self.config.soft_start_s) * is_moving
        state = replace(state, is_engaged=True, engaged_ns=engaged_ns, path=path, past=(), opening=opening, clutch=None)
        return replace(state, point_ns=now_ns + self._arm_lead_ns - self.config.period_ns)

    def _is_where_led(self, path: Path, arm: ArmView, now_ns: int) -> bool:
        gap = se3.pose_error(path.at(now_ns).T_base_tcp, arm.T_base_tcp)
        is_near = np.linalg.norm(gap[:3]) <= _NEAR_M and np.linalg.norm(gap[3:]) <= _NEAR_RAD
        return bool(is_near) and not arm.is_others

    def _release(self, state: TeleopState, now_ns: int) -> tuple[TeleopState, ToolChunk | None]:
        return self._say(replace(state, is_engaged=False, clutch=None), np.zeros(6), None, 0.0, now_ns)

    def _lead(
        self, state: TeleopState, said: OperatorInput, arm: ArmView, now_ns: int
    ) -> tuple[TeleopState, ToolChunk | None]:
        here = self._motion(state, arm, now_ns)
        state, wanted = self._wanted(state, said, arm, here)
        wanted = slowed(wanted, here.T_base_tcp, self._arm_then(state, arm, now_ns), self._windup)
        return self._say(state, wanted, arm, self.config.lead_s, now_ns)

    def _wanted(
        self, state: TeleopState, said: OperatorInput, arm: ArmView, here: Motion
    ) -> tuple[TeleopState, FloatArray]:
        """The velocity that is wanted, in base axes."""
        config = self.config
        speed = self.speed(state) if said.speed is None else said.speed
        full = np.array((config.linear_m_s, config.angular_rad_s)).repeat(3)
        if said.T_base_wanted is None and said.T_track_hand is None:
            R = frame_axes(state.frame, here.T_base_tcp, arm.T_base_cam)
            return state, in_base(speed * full * _bounded(said.sticks, np.ones(2)), R)
        T_wanted, gain = said.T_base_wanted, config.pose.gain_per_s
        velocity = said.sticks * full
        if T_wanted is None and said.T_track_hand is not None:
            if state.clutch is None:
                R = frame_axes(state.frame, here.T_base_tcp, arm.T_base_cam)
                clutch = Clutch(said.T_track_hand, here.T_base_tcp, np.asarray(R @ config.pose.R_view_track))
                state = replace(state, clutch=clutch)
            if state.clutch is not None:
                T_wanted, velocity = state.clutch.wanted(said.T_track_hand, config.pose), np.zeros(6)
        if T_wanted is not None:
            velocity = velocity + pursuit(here.T_base_tcp, T_wanted, gain, self._limits.acceleration)
        return state, _bounded(velocity, speed * full[[0, 3]])

    def _begin_ns(self, state: TeleopState, now_ns: int) -> int:
        """The next point of the grid that what is said now can still change."""
        periods = -(-(now_ns + self._arm_lead_ns - state.point_ns) // self.config.period_ns)
        return state.point_ns + max(1, periods) * self.config.period_ns

    def _motion(self, state: TeleopState, arm: ArmView | None, now_ns: int) -> Motion:
        """Where the next path begins."""
        if state.path is None:
            raise ValueError("nothing is led before engaging")
        motion = state.path.at(self._begin_ns(state, now_ns))
        return motion if arm is None else near(motion, self._arm_then(state, arm, now_ns), self._windup)

    def _arm_then(self, state: TeleopState, arm: ArmView, now_ns: int) -> FloatArray:
        """(4, 4) where the measured tool will be when the next path begins, moving as it was told to."""
        if state.path is None:
            return arm.T_base_tcp
        begin_ns = self._begin_ns(state, now_ns)
        way = (begin_ns - now_ns) * 1e-9 * state.path.at(begin_ns).velocity
        return se3.compose_base(arm.T_base_tcp, se3.make_pose(way[:3], rotations.rotvec_to_matrix(way[3:])))

    def _say(
        self, state: TeleopState, wanted: FloatArray, arm: ArmView | None, lead_s: float, now_ns: int
    ) -> tuple[TeleopState, ToolChunk | None]:
        """The chunk from the next point on."""
        config, old = self.config, state.path
        if old is None:
            return state, None
        begin_ns, period_ns = self._begin_ns(state, now_ns), config.period_ns
        passed = range(max(state.point_ns, old.start_ns), begin_ns, period_ns)[-_PAST:]
        past = (*state.past, *((time_ns, old.at(time_ns).T_base_tcp) for time_ns in passed))[-_PAST:]
        engaged_s = (begin_ns - state.engaged_ns) * 1e-9
        share = 1.0 if config.soft_start_s <= 0.0 else min(1.0, _SOFT + (1.0 - _SOFT) * engaged_s / config.soft_start_s)
        limits = self._limits.scaled(share)
        path = Path(self._motion(state, arm, now_ns), begin_ns, wanted, lead_s, limits, self._limits)
        count = 1 + int(np.ceil(max(path.duration_s, _SHORTEST_S) * 1e9 / period_ns))
        times_ns = [begin_ns + period_ns * index for index in range(count)]
        points = (*past, *((time_ns, path.at(time_ns).T_base_tcp) for time_ns in times_ns))
        stamp_ns = begin_ns - _PAST * period_ns
        chunk = ToolChunk(
            stamp_ns=stamp_ns,
            frame="absolute",
            transforms=np.array([T for _, T in points]),
            openings=None if state.opening is None else np.full(len(points), state.opening),
            time_from_start_s=np.array([(time_ns - stamp_ns) * 1e-9 for time_ns, _ in points]),
            source=SOURCE,
        )
        return replace(state, path=path, past=past, point_ns=begin_ns), chunk


def _bounded(vector: FloatArray, most: FloatArray) -> FloatArray:
    """(6,) with the norms of its linear and angular part at most so much: a diagonal stick isn't faster."""
    out = vector.copy()
    for rows, limit in zip((slice(0, 3), slice(3, 6)), most.tolist(), strict=True):
        size = float(np.linalg.norm(vector[rows]))
        if size > limit:
            out[rows] *= limit / size
    return out
