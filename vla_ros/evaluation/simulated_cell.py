"""The simulated arm under filter and controller, tick by tick in one process: the whole way but for ROS and clocks."""

from __future__ import annotations

import numpy as np

from vla_ros.config import load, package_share
from vla_ros.contract import Rig
from vla_ros.control.config import ControllerConfig
from vla_ros.control.sending import Content, JointPoints
from vla_ros.evaluation.motion_path import MotionPath
from vla_ros.robots.config import CommandConfig, RobotConfig
from vla_ros.robots.model import RobotModel
from vla_ros.safety.config import SafetyConfig
from vla_ros.sim.scene import TIMESTEP_S
from vla_ros.sim.tool_servo import TWIST_TIMEOUT_S
from vla_ros.sim.trajectory import DesiredState
from vla_ros.sim.world import World
from vla_ros.types import FloatArray, Intervention, JointCommand, RobotState, Verdict

START_NS = 1_000_000_000
"""Time at which every episode's cell is set up; there is no other clock."""

_NS = 1e-9


class SimulatedCell:
    """An arm at its table that takes chunks. After `begin` it is at `START_NS`, at home, with an open gripper.

    Args:
        robot: the arm.
        rig: its cell.
        world: the physics of that cell.
        interface: how commands reach the arm; empty as its YAML says.
    """

    def __init__(self, robot: RobotConfig, rig: Rig, world: World, interface: str = "") -> None:
        config = package_share() / "config"
        self.model, self.world, self.rig = RobotModel.from_config(robot), world, rig
        self._safety = load(SafetyConfig, config / "safety.yaml")
        self._controller = load(ControllerConfig, config / "controller.yaml")
        self._command: CommandConfig = robot.command.using(interface)
        self.has_gripper = robot.gripper is not None
        self.period_ns = round(1e9 / self._controller.rate_hz)
        self._steps = round(self.period_ns * _NS / TIMESTEP_S)
        self._opening: float | None = None
        self.begin("")

    def begin(self, source: str) -> None:
        """Filter and controller anew, for chunks of a source. The world is reset by whoever knows to what."""
        self.path = MotionPath(self.model, self._safety, self._controller, self._command)
        self.path.filter.select_source(source, START_NS)
        self.now_ns = START_NS
        self._opening = None

    @property
    def opening(self) -> float | None:
        """What the gripper was told last, None before."""
        return self._opening

    def measure(self) -> RobotState:
        """Measures the arm now, which is what the next tick goes by."""
        state = self.world.robot_state(self.now_ns)
        self.path.states.append(state)
        return state

    def tick(
        self, measured: RobotState
    ) -> tuple[tuple[tuple[int, JointCommand], ...], Verdict, tuple[Intervention, ...]]:
        """Moves on by a period of the controller.

        Returns:
            The commands that left in it with their stamps, the filter's verdict, and what acted in the controller.
        """
        _, verdict, acted = self.path.step(self.now_ns, measured)
        sending = self.path.sending
        if sending is not None:
            self._apply(sending.content)
            opening = sending.ticks[-1][1].gripper_opening if sending.ticks else None
            if self.has_gripper and opening is not None:
                self._opening = opening
                self.world.set_gripper_command(opening)
        self.world.step(self._steps)
        self.now_ns += self.period_ns
        return () if sending is None else sending.ticks, verdict, acted

    def tcp_pose(self) -> FloatArray:
        """Ground truth: T_base_tcp (4, 4)."""
        return self.world.tcp_pose()

    def _apply(self, content: Content) -> None:
        if content is None:
            return
        if isinstance(content, JointPoints):
            start_ns = content.stamp_ns - self.now_ns
            times_s = [self.world.time_s + (start_ns + offset_ns) * _NS for offset_ns in content.offsets_ns]
            desired = DesiredState(content.positions, content.velocities, content.accelerations)
            self.world.set_joint_trajectory(times_s, desired)
        elif self._command.interface == "velocity":
            self.world.set_joint_velocities(np.asarray(content), self._command.velocity_watchdog_s)
        elif self._command.interface == "cartesian":
            self.world.set_tool_command(np.asarray(content))
        elif self._command.interface == "twist":
            self.world.set_tool_twist(np.asarray(content), TWIST_TIMEOUT_S)
        else:
            self.world.set_joint_command(np.asarray(content))
