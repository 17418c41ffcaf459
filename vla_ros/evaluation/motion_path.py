"""Safety filter and controller tick by tick in one process: the motion path of replays, rollouts and demonstrations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vla_ros.actions.path import OffsetLimits
from vla_ros.control.cartesian_controller import CartesianController, ControllerState
from vla_ros.control.config import ControllerConfig
from vla_ros.control.interfaces import make_sender
from vla_ros.control.sending import Sending
from vla_ros.robots.config import CommandConfig
from vla_ros.robots.model import RobotModel
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.safety.config import SafetyConfig
from vla_ros.safety.filter import SafetyFilter
from vla_ros.types import Intervention, JointCommand, JointTarget, RobotState, ToolTarget, Verdict

_STATES = 1024


class MotionPath:
    """Filter and controller as the executable `motion` has them, stepped from outside.

    Args:
        model: the arm.
        safety: the filter's limits.
        controller: settings.
        command: how commands reach the arm; None for one that is at once where a command says.
    """

    def __init__(
        self,
        model: RobotModel,
        safety: SafetyConfig,
        controller: ControllerConfig,
        command: CommandConfig | None = None,
    ) -> None:
        if command is not None:
            safety = replace(safety, actuation_latency_s=safety.actuation_latency_s + command.lead_s)
        limits = OffsetLimits(model.velocity, model.acceleration, model.jerk)
        self.dt_s = 1.0 / controller.rate_hz
        self.filter = SafetyFilter(safety, model.config.tool, model.forward_kinematics, limits)
        self.states = JointStateBuffer(_STATES)
        self._controller = CartesianController(model, controller)
        self._state: ControllerState | None = None
        self._sender = None if command is None else make_sender(command, self._controller)
        self.sending: Sending | None = None
        """What leaves for the arm after this tick, where it was said how commands reach it."""
        self.target: ToolTarget | JointTarget | None = None
        """What the filter let through in the last tick."""

    def step(self, now_ns: int, measured: RobotState) -> tuple[JointCommand, Verdict, tuple[Intervention, ...]]:
        """One tick: the command, the filter's verdict, and what acted in the controller."""
        if self._state is None:
            self._state = self._controller.init(measured.positions, measured.gripper_opening)
            if self._sender is not None:
                self._sender.begin(self._state, now_ns)
        target, verdict = self.filter.step(now_ns, self.dt_s, measured)
        self.target = target
        if self._sender is not None:
            self.sending = self._sender.approach(now_ns)
            if self.sending is not None:
                positions = np.array(self._state.command.positions)
                rest = np.zeros_like(positions)
                return JointCommand(positions, rest, rest, self._state.gripper_opening), verdict, ()
            self._state, is_late = self._sender.resume(self._state, now_ns, now_ns)
            target = None if is_late else target
        self._state, command, report = self._controller.step(self._state, target, self.dt_s)
        if self._sender is not None:
            self.sending = self._sender.send(self._state, command, now_ns, True)
        return command, verdict, report.interventions
