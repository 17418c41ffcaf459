"""The motion as a stream of short trajectories that each end at rest, so that silence is a stop inside the limits.

A trajectory is the uniform cubic B-spline whose control points are the commands of the last ticks and, after them,
those of a stop. Its derivatives are averages of its control points' divided differences, so it keeps every limit that
the commands keep. It is sent as position, velocity and acceleration at the ticks; quintic interpolation between those,
as joint_trajectory_controller's, gives exactly this curve back.

The arm carries out each command some time, the lead, after its tick. In what it is about to carry out, a trajectory
and the next agree, so it doesn't matter when in that time the one replaces the other. Only a trajectory that comes so
late that the arm has begun to stop may not change that any more: then the stop is what counts, and the motion goes on
from it.

Source: de Boor, "A Practical Guide to Splines", 2001, chapter X (derivatives of a B-spline).
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from vla_ros.control.braking import stop_positions
from vla_ros.control.cartesian_controller import CartesianController, ControllerState
from vla_ros.control.sending import JointPoints, Sending
from vla_ros.errors import ConfigError
from vla_ros.types import FloatArray, JointCommand

_S = 1_000_000_000
# What a trajectory may take from here until it is in force.
_TRANSPORT_NS = 20_000_000
# For the arm to come from where its controller holds it to where it was measured: a joint servo's sag, no more.
_APPROACH_NS = 300_000_000
# The part of that in which it is told so, for a controller that doesn't hear the first words.
_ANNOUNCED_NS = 100_000_000
# Every stop is over by then.
_LONGEST_STOP_S = 1.0


class TrajectoryStream:
    """Sends trajectories at a rate of their own.

    Args:
        controller: makes the commands; its limits are the stop's.
        rate_hz: trajectories per second.
        lead_s: how long after its tick a command is carried out.

    Raises:
        ConfigError: if trajectories can't follow each other within the lead.
    """

    def __init__(self, controller: CartesianController, rate_hz: float, lead_s: float) -> None:
        self._controller = controller
        self._period_ns = round(controller.dt_s * _S)
        self._lead_ns = round(lead_s * _S)
        self._every = max(1, round(1.0 / (rate_hz * controller.dt_s)))
        least_ns = (self._every + 2) * self._period_ns + _TRANSPORT_NS
        if self._lead_ns < least_ns:
            raise ConfigError(
                "command: trajectory_lead_s",
                f"{lead_s} s is too short for {rate_hz} trajectories a second, which need {least_ns / _S:.3f} s",
                "raise one of them",
            )
        # One more than reach back to what the arm carries out at present.
        self._known = self._lead_ns // self._period_ns + 4
        self._controls: deque[FloatArray] = deque(maxlen=self._known)
        self._unsent: list[tuple[int, JointCommand]] = []

    def begin(self, state: ControllerState, stamp_ns: int) -> None:
        """Starts anew from a state at rest, at a tick."""
        self._controls.extend([state.command.positions] * self._known)
        self._unsent.clear()
        self._since = 0
        self._begun_ns = stamp_ns
        self._agree(stamp_ns - self._period_ns, state)

    def observe(self, positions: FloatArray) -> None:
        """Trajectories say where the arm has to be."""

    def approach(self, stamp_ns: int) -> Sending | None:
        """A trajectory to where the commands begin, from wherever the arm's controller holds it."""
        if stamp_ns >= self._begun_ns + _APPROACH_NS:
            return None
        self._agreed_ns = stamp_ns
        if stamp_ns >= self._begun_ns + _ANNOUNCED_NS:
            return Sending(None)
        at_rest = np.zeros((1, len(self._controls[-1])))
        offset_ns = self._begun_ns + _APPROACH_NS - stamp_ns
        return Sending(JointPoints(stamp_ns, [offset_ns], self._controls[-1][None], at_rest, at_rest))

    def resume(self, state: ControllerState, stamp_ns: int, now_ns: int) -> tuple[ControllerState, bool]:
        """Before a tick, puts the stop that the arm has begun in the place of commands that it hasn't heard of.

        The curve at a tick depends on the command of the tick after it, too.
        """
        settled_ns = now_ns + _TRANSPORT_NS - self._lead_ns + self._period_ns
        if self._agreed_ns >= settled_ns:
            return state, False
        self._controls.clear()
        self._controls.extend(self._agreed_controls)
        del self._unsent[self._agreed_count :]
        state = self._agreed_state
        missing = (stamp_ns - self._agreed_ns) // self._period_ns - 1
        for number in range(1, min(missing, math.ceil(_LONGEST_STOP_S / self._controller.dt_s)) + 1):
            state, command, _ = self._controller.step(state, None, self._controller.dt_s)
            self._note(self._agreed_ns + number * self._period_ns, command)
        self._agree(stamp_ns - self._period_ns, state)
        return state, self._agreed_ns < settled_ns

    def send(self, state: ControllerState, command: JointCommand, stamp_ns: int, is_newest: bool) -> Sending | None:
        """The newest trajectory, when it is time for one."""
        self._note(stamp_ns, command)
        self._since += 1
        if not is_newest or self._since < self._every:
            return None
        sending = Sending(self._points(command, stamp_ns), tuple(self._unsent))
        self._unsent.clear()
        self._since = 0
        self._agree(stamp_ns, state)
        return sending

    def shift(self, jump_ns: int) -> None:
        """Moves all stamps that are remembered, after a jump of the clock."""
        self._agreed_ns += jump_ns
        self._begun_ns += jump_ns

    def _note(self, stamp_ns: int, command: JointCommand) -> None:
        self._controls.append(command.positions)
        self._unsent.append((stamp_ns, command))

    def _agree(self, stamp_ns: int, state: ControllerState) -> None:
        """The commands up to this tick are what the arm has in any case been told to do."""
        self._agreed_ns, self._agreed_state = stamp_ns, state
        self._agreed_controls, self._agreed_count = tuple(self._controls), len(self._unsent)

    def _points(self, command: JointCommand, stamp_ns: int) -> JointPoints:
        dt_s = self._period_ns / _S
        stop = stop_positions(
            command.positions, command.velocities, command.accelerations, self._controller.limits, dt_s
        )
        # Three equal control points make the end rest.
        c = np.concatenate([np.array(self._controls), stop, stop[-1:], stop[-1:]])
        before, at, after = c[:-2], c[1:-1], c[2:]
        return JointPoints(
            stamp_ns - (self._known - 2) * self._period_ns + self._lead_ns,
            [index * self._period_ns for index in range(len(at))],
            (before + 4.0 * at + after) / 6.0,
            (after - before) / (2.0 * dt_s),
            (after - 2.0 * at + before) / dt_s**2,
        )
