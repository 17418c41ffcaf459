"""sim_node: the MuJoCo cell behind the topics of a real one, in real time."""

from __future__ import annotations

import sys

from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64

from vla_ros.errors import VlaRosError
from vla_ros.nodes import messages
from vla_ros.nodes.loop import TickLoop
from vla_ros.nodes.runtime import RELIABLE, SENSOR, newest_only, now_ns, raise_priority, run
from vla_ros.nodes.settings import command_setting, robot_setting
from vla_ros.nodes.sim_arm import SimArm
from vla_ros.nodes.sim_cell import Division, SimCell
from vla_ros.sim.scene import TIMESTEP_S

_RATE_HZ = 250.0
_GRIPPER_EVERY = 5


class SimNode(Node):
    """Steps the world in one thread, draws in another, and talks ROS like an arm driver and its cameras."""

    def __init__(self) -> None:
        super().__init__("sim_node")
        robot = robot_setting(self)
        self._robot = robot
        self._joint_states = self.create_publisher(JointState, "joint_states", RELIABLE)
        self._gripper_states = self.create_publisher(JointState, "gripper/state", RELIABLE)
        self._cell = SimCell(self, robot, _RATE_HZ, self._clear)
        self._gripper_command: float | None = None
        self._gripper_division = Division(_GRIPPER_EVERY if robot.gripper else 0)
        self._tick = 0
        self._arm = SimArm(self, robot, command_setting(self, robot), self._cell.world)
        if robot.gripper is not None:
            self.create_subscription(Float64, "gripper/command", self._on_gripper, newest_only(SENSOR))
        self._loop = TickLoop(_RATE_HZ, self._step, lambda: now_ns(self), lambda _jump_ns: None, lambda _stall_s: None)
        self._loop.start()
        self.create_timer(1.0, self._loop.check)

    def _on_gripper(self, message: Float64) -> None:
        with self._cell.lock:
            self._gripper_command = float(message.data)

    def _clear(self) -> None:
        self._arm.clear()
        self._gripper_command = None

    def _step(self, stamp_ns: int, is_newest: bool) -> None:
        cell = self._cell
        with cell.lock:
            self._arm.apply(stamp_ns, self._loop.period_ns)
            opening, self._gripper_command = self._gripper_command, None
            try:
                if opening is not None:
                    cell.world.set_gripper_command(opening)
            except VlaRosError as error:
                self.get_logger().error(str(error), throttle_duration_sec=2.0)
            cell.world.step(round(1.0 / _RATE_HZ / TIMESTEP_S))
            self._tick += 1
            if not is_newest:
                return
            state = cell.world.robot_state(stamp_ns)
            look = cell.look(self._tick)
        names = self._robot.joint_names
        self._joint_states.publish(messages.to_joint_state(stamp_ns, names, state.positions, state.velocities))
        if self._robot.gripper and state.gripper_opening is not None and self._gripper_division.is_due(self._tick):
            gripper = JointState(header=messages.header(stamp_ns), name=[self._robot.gripper.joints[0]])
            gripper.position = [float(state.gripper_opening)]
            self._gripper_states.publish(gripper)
        cell.publish(look, stamp_ns)

    def close(self) -> None:
        """Ends physics and drawing."""
        self._loop.stop()
        self._cell.close()


def main() -> int:
    """Runs sim_node."""
    raise_priority()
    return run(lambda: [SimNode()])


if __name__ == "__main__":
    sys.exit(main())
