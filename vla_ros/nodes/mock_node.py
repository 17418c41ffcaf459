"""mock_node: the MuJoCo cell behind the topics, controllers, services and actions of a real arm's driver, in real time.

It takes the place of the driver and of nothing else: joint states are raw, controllers have to be activated, and what
the real arm would refuse or stop for, this one does too (docs/mock_hardware.md).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from vla_ros.errors import ConfigError, VlaRosError
from vla_ros.hardware.driver_loop import Arm, DriverLoop
from vla_ros.nodes import messages
from vla_ros.nodes.loop import TickLoop
from vla_ros.nodes.message_packages import missing_package
from vla_ros.nodes.mock_controllers import MockControllers
from vla_ros.nodes.mock_fingers import MockFingers
from vla_ros.nodes.runtime import RELIABLE, now_ns, parameter, raise_priority, run
from vla_ros.nodes.settings import robot_setting
from vla_ros.nodes.sim_cell import Division, SimCell
from vla_ros.robots.config import RobotConfig
from vla_ros.robots.driver import DriverConfig, DriverKind
from vla_ros.sim.scene import TIMESTEP_S
from vla_ros.types import FloatArray, RobotState

_RATE_HZ, _FASTEST_HZ = 250.0, 500.0
_STATE_HZ = 30.0
_LOST = "mock.lost_cameras"


class Side(Protocol):
    """What is one driver's own."""

    @property
    def arm(self) -> Arm:
        """The robot's side."""

    def feel(self, state: RobotState) -> None:
        """A physics step, with the cell's lock held."""

    def publish(self, state: RobotState, wrench: FloatArray, stamp_ns: int) -> None:
        """State and wrench, now and then."""

    def reset(self) -> None:
        """The arm is at home again, with the cell's lock held."""

    def describe(self) -> dict[str, object]:
        """For /diagnostics."""


class MockNode(Node):
    """Runs the driver's control loop and the physics in one thread, and serves in the executor's."""

    def __init__(self) -> None:
        super().__init__("mock_node")
        self._robot = robot = robot_setting(self)
        self._driver = driver = _driver_of(robot)
        rate_hz = float(parameter(self, "joint_state_rate_hz", _RATE_HZ, "of raw joint states, at most 500"))
        if not 1.0 <= rate_hz <= _FASTEST_HZ:
            raise ConfigError("joint_state_rate_hz", f"is {rate_hz}", f"it has to be in [1, {_FASTEST_HZ:g}]")
        parameter(self, "mock.silence_s", 0.5, "for how long mock/silence holds joint states back", is_fixed=False)
        parameter(self, "mock.force_n", 0.0, "added to the measured force, along the base's z", is_fixed=False)
        self._tick_hz = _RATE_HZ if rate_hz <= _RATE_HZ else _FASTEST_HZ
        self._cell = cell = SimCell(self, robot, self._tick_hz, self._clear)
        meaning = "cameras of the rig that send nothing, with commas, as if they were unplugged"
        self._lose_cameras(str(parameter(self, _LOST, "", meaning, is_fixed=False)))
        self.add_on_set_parameters_callback(self._on_parameters)
        self._fingers = MockFingers(self, cell)
        self._side = _make_side(driver.kind, self, robot, cell, self._fingers)
        self._loop = DriverLoop(self._side.arm, cell.world.robot_state(0).positions)
        self._controllers = MockControllers(self, robot, driver.controller_manager, self._loop, cell)
        self._joint_states = self.create_publisher(JointState, driver.joint_states, RELIABLE)
        self._division = Division(round(self._tick_hz / rate_hz))
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._tick, self._silent_until_ns = 0, 0
        self.create_service(Trigger, "mock/silence", self._silence)
        self.create_service(Trigger, "mock/extremes", self._extremes)
        self._ticks = TickLoop(self._tick_hz, self._step, lambda: now_ns(self), lambda _ns: None, lambda _s: None)
        self._ticks.start()
        self.create_timer(1.0 / _STATE_HZ, self._publish_state)
        self.create_timer(1.0, self._diagnose)

    def _clear(self) -> None:
        self._controllers.clear()
        self._side.reset()
        self._loop.reset(self._cell.world.robot_state(0).positions)

    def _step(self, stamp_ns: int, is_newest: bool) -> None:
        world = self._cell.world
        with self._cell.lock:
            self._controllers.apply(stamp_ns - self._ticks.period_ns)
            for _ in range(round(1.0 / self._tick_hz / TIMESTEP_S)):
                world.set_joint_command(self._loop.run(TIMESTEP_S, world.robot_state(stamp_ns).positions))
                world.step()
                self._side.feel(world.robot_state(stamp_ns))
            state = world.robot_state(stamp_ns)
            if state.gripper_opening is not None:
                self._fingers.step(1.0 / self._tick_hz, state.gripper_opening)
            self._tick += 1
            if not is_newest:
                return
            look = self._cell.look(self._tick)
        if self._division.is_due(self._tick) and stamp_ns >= self._silent_until_ns:
            self._joint_states.publish(self._to_message(state, stamp_ns))
        self._cell.publish(look, stamp_ns)

    def _to_message(self, state: RobotState, stamp_ns: int) -> JointState:
        message = messages.to_joint_state(stamp_ns, self._robot.joint_names, state.positions, state.velocities)
        gripper = self._driver.gripper
        # A gripper in the same controller manager is in the arm's joint states.
        if gripper is not None and gripper.states == self._driver.joint_states and state.gripper_opening is not None:
            message.name = [*message.name, gripper.joint]
            message.position = [*message.position, gripper.position(state.gripper_opening)]
            message.velocity = [*message.velocity, 0.0]
        return message

    def _publish_state(self) -> None:
        stamp_ns = now_ns(self)
        with self._cell.lock:
            state, wrench = self._cell.world.robot_state(stamp_ns), self._cell.world.outside_wrench()
        wrench = wrench + np.array([0.0, 0.0, float(self.get_parameter("mock.force_n").value), 0.0, 0.0, 0.0])
        self._side.publish(state, wrench, stamp_ns)

    def _on_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        for item in parameters:
            if item.name == _LOST and item.type_ is Parameter.Type.STRING:
                try:
                    self._lose_cameras(item.value)
                except VlaRosError as error:
                    return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _lose_cameras(self, words: str) -> None:
        self._cell.lose_cameras({name.strip() for name in words.split(",") if name.strip()})

    def _silence(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        duration_s = float(self.get_parameter("mock.silence_s").value)
        self._silent_until_ns = now_ns(self) + round(duration_s * 1e9)
        response.success, response.message = True, f"no joint states for {duration_s:g} s"
        return response

    def _extremes(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """What the arm was told since the last call, as multiples of its limits."""
        with self._cell.lock:
            extremes = self._side.arm.limits.forget()
        response.success, response.message = True, json.dumps(dataclasses.asdict(extremes))
        return response

    def _diagnose(self) -> None:
        self._ticks.check()
        with self._cell.lock:
            mover = self._side.arm.controllers.mover
            values = {
                "controller": mover.name if mover else "none",
                **self._side.describe(),
                **dataclasses.asdict(self._side.arm.limits.extremes),
            }
        name = self.get_fully_qualified_name()
        self._diagnostics.publish(messages.to_diagnostics(now_ns(self), name, str(values["mode"]), values))

    def close(self) -> None:
        """Ends physics and drawing."""
        self._ticks.stop()
        self._cell.close()


def _driver_of(robot: RobotConfig) -> DriverConfig:
    if robot.driver is None:
        mend = "add `driver:` with its kind (vla_ros/robots/driver.py), or use hardware:=sim"
        raise ConfigError(f"robot {robot.name}", "has no driver to be mocked", mend)
    return robot.driver


def _make_side(kind: DriverKind, node: Node, robot: RobotConfig, cell: SimCell, fingers: MockFingers) -> Side:
    """The driver's own part; only now its messages are needed.

    Raises:
        MissingDependencyError: if they aren't installed.
    """
    try:
        if kind == "franka":
            from vla_ros.nodes.mock_franka import MockFranka

            return MockFranka(node, robot, cell, fingers)
        from vla_ros.nodes.mock_ur import MockUr

        return MockUr(node, robot, cell, fingers)
    except ImportError as error:
        raise missing_package(error, "mock_node") from error


def main() -> int:
    """Runs mock_node."""
    raise_priority()
    return run(lambda: [MockNode()])


if __name__ == "__main__":
    sys.exit(main())
