"""The arm in the simulated world, driven as the stack drives it: chunks through filter and controller, tick by tick."""

from __future__ import annotations

from collections import deque

import numpy as np

from vla_ros.control.config import ControllerConfig
from vla_ros.errors import ChunkError
from vla_ros.evaluation.motion_path import MotionPath
from vla_ros.geometry.se3 import pose_error
from vla_ros.robots.model import RobotModel
from vla_ros.safety.config import SafetyConfig
from vla_ros.sim.scene import TIMESTEP_S
from vla_ros.sim.world import World
from vla_ros.types import FloatArray, JointCommand, RobotState, ToolChunk, ToolTarget, Verdict

# A commanded pose farther than this from the measured one is wound up against something.
_WOUND_UP_M = 0.03


class Motion:
    """One arm's motion path over a world that it steps.

    Args:
        world: placed as the episode begins.
        model: of its robot.
        safety: the filter's limits.
        controller: settings.
        start_ns: time of the first tick.
        latency_ticks: ticks from a command until the arm has it.
        opening: that the gripper was told before.

    Attributes:
        now_ns: time of the last tick.
        measured: the arm's state then.
        target: what the filter let through, None while it has let nothing through.
        command: what was sent, None before the first tick.
        verdict: the filter's.
        opening: commanded last.
    """

    def __init__(
        self,
        world: World,
        model: RobotModel,
        safety: SafetyConfig,
        controller: ControllerConfig,
        start_ns: int,
        latency_ticks: int = 0,
        opening: float = 1.0,
    ) -> None:
        self._world, self._model = world, model
        self.path = MotionPath(model, safety, controller)
        self.dt_ns = round(self.path.dt_s * 1e9)
        self._steps = round(self.path.dt_s / TIMESTEP_S)
        self.now_ns = start_ns
        self.measured: RobotState = world.robot_state(start_ns)
        self.path.states.append(self.measured)
        self.target: ToolTarget | None = None
        self.command: JointCommand | None = None
        self.verdict: Verdict | None = None
        self.opening = opening
        self._underway: deque[tuple[FloatArray, float]] = deque()
        self._latency_ticks = latency_ticks

    def offer(self, chunk: ToolChunk) -> str:
        """Gives the filter a chunk of whoever has the arm; why it was refused, else empty."""
        try:
            self.path.filter.offer(chunk, self.now_ns, self.path.states)
        except ChunkError as error:
            return str(error)
        return ""

    def tick(self) -> None:
        """One tick of filter and controller, and the world as long."""
        self.now_ns += self.dt_ns
        self.command, self.verdict, _ = self.path.step(self.now_ns, self.measured)
        target = self.path.target
        self.target = target if isinstance(target, ToolTarget) else None
        if self.target is not None and self.target.gripper_opening is not None:
            self.opening = self.target.gripper_opening
        self._underway.append((self.command.positions, self.opening))
        if len(self._underway) > self._latency_ticks:
            positions, opening = self._underway.popleft()
            self._world.set_joint_command(positions)
            self._world.set_gripper_command(opening)
        self._world.step(self._steps)
        self.measured = self._world.robot_state(self.now_ns)
        self.path.states.append(self.measured)

    def commanded(self) -> tuple[FloatArray, FloatArray]:
        """What the tool is told: T_base_tcp (4, 4), kept near the measured pose, and its twist in base (6,)."""
        T_measured = self._model.forward_kinematics(self.measured.positions)
        if self.target is None:
            return T_measured, np.zeros(6)
        T = self.target.T_base_tcp
        error_m = float(np.linalg.norm(pose_error(T_measured, T)[:3]))
        if error_m <= _WOUND_UP_M:
            return T, self.target.twist_tcp_in_base
        near = T.copy()
        near[:3, 3] = T_measured[:3, 3] + (T[:3, 3] - T_measured[:3, 3]) * (_WOUND_UP_M / error_m)
        return near, np.zeros(6)
