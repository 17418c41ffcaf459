"""controller_node: targets in, joint commands out; a lifecycle node that moves the arm only while active."""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.lifecycle import Node as LifecycleNode
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, MultiDOFJointTrajectory

from vla_ros.config import load, package_share
from vla_ros.control.cartesian_controller import CartesianController, ControllerReport, ControllerState
from vla_ros.control.config import ControllerConfig
from vla_ros.errors import ChunkError
from vla_ros.nodes import chunk_messages, messages
from vla_ros.nodes.loop import TickLoop
from vla_ros.nodes.rivals import RivalWatch
from vla_ros.nodes.runtime import (
    RELIABLE,
    SENSOR,
    autostart,
    logged_transition,
    newest_only,
    now_ns,
    parameter,
    raise_priority,
    required_parameter,
    run,
)
from vla_ros.nodes.state_intake import StateIntake
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.types import JointCommand, JointTarget, RobotState, ToolTarget

_OPENING_STEP = 0.005
# The pause before commands begin anew elsewhere; the arm's own controller holds meanwhile.
_RESUME_AFTER_NS = 1_000_000_000


def load_controller_config(path: str) -> ControllerConfig:
    """The controller YAML at a path, or the package's own for an empty one."""
    return load(ControllerConfig, Path(path) if path else package_share() / "config" / "controller.yaml")


class ControllerNode(LifecycleNode):
    """The joint controller as a node. All motion happens in `step`, in one thread.

    Args:
        is_alone: whether targets and states come by topic; the motion executable hands them over directly.
    """

    def __init__(self, is_alone: bool) -> None:
        super().__init__("controller_node")
        self.robot = load_robot(required_parameter(self, "robot", "name of the robot, or its YAML file"))
        path = parameter(self, "controller", "", "controller YAML file; empty: the package's own")
        self.config = load_controller_config(str(path))
        self._autostart = bool(parameter(self, "autostart", True, "activate without being asked"))
        self._is_alone = is_alone
        self.dt_s = 1.0 / self.config.rate_hz
        self._is_active = self._is_configured = False
        self._is_braking = False
        self._state: ControllerState | None = None
        self._measured: RobotState | None = None
        self._sent_opening: float | None = None
        self._target: ToolTarget | JointTarget | None = None
        self._report: ControllerReport | None = None
        self._reason = "not active"
        self._ticks = self._clipped = 0
        self._resume_ns = 0
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self.create_timer(1.0, self._publish_diagnostics)

    def start(self) -> None:
        """Configures and activates where `autostart` says so."""
        if self._autostart:
            autostart(self)

    # Lifecycle and callbacks: executor's thread.

    @logged_transition
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Builds the controller and its topics; nothing moves."""
        if self._is_configured:
            return super().on_configure(state)  # Configured before, and cleaned up since: all is still there.
        self._controller = CartesianController(RobotModel.from_config(self.robot), self.config)
        self._commands = self.create_publisher(Float64MultiArray, self.robot.command.topic, RELIABLE)
        self._joint_command = self.create_publisher(JointState, "joint_command", RELIABLE)
        if self.robot.gripper is not None:
            self._gripper = self.create_publisher(Float64, "gripper/command", RELIABLE)
        if self._is_alone:
            StateIntake(self, self.robot, newest_only(SENSOR), self.observe)
            read = functools.partial(chunk_messages.from_target_message, base_frame=self.robot.base_frame)
            read_joint = functools.partial(chunk_messages.from_joint_target_message, joint_names=self.robot.joint_names)
            self.create_subscription(
                MultiDOFJointTrajectory, "target", functools.partial(self._on_target, read), newest_only(SENSOR)
            )
            self.create_subscription(
                JointTrajectory, "joint_target", functools.partial(self._on_target, read_joint), newest_only(SENSOR)
            )
        topics = [publisher.topic_name for publisher in (self._commands, self._joint_command)]
        self._watch = RivalWatch(self, lambda: topics, lambda _rivals: None)
        self._is_configured = True
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Permits motion; it begins from what is measured."""
        self._state, self._reason = None, "waiting for joint states"
        self._is_braking = False
        self._is_active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Brakes, then permits no motion."""
        self.brake()
        return super().on_deactivate(state)

    def brake(self) -> None:
        """Comes to rest, at most a second, and stops commanding."""
        self._is_braking = True
        deadline_s = time.monotonic() + 1.0
        while self._is_moving() and time.monotonic() < deadline_s:
            time.sleep(self.dt_s)
        self._is_active = False
        self._reason = "not active"

    def _on_target(self, read: Any, message: MultiDOFJointTrajectory | JointTrajectory) -> None:
        try:
            target = read(message)
        except ChunkError as error:
            self.get_logger().error(str(error), throttle_duration_sec=2.0)
            return
        if self._target is None or target.stamp_ns > self._target.stamp_ns:
            self._target = target

    # Motion: the loop's thread.

    def observe(self, state: RobotState | None) -> None:
        """Takes the newest measured state from whoever shares this process."""
        self._measured = state

    def target_from_topic(self, stamp_ns: int) -> ToolTarget | JointTarget | None:
        """The newest target that came by topic, None if it is too old."""
        target = self._target
        if target is None or stamp_ns - target.stamp_ns > self.config.target_timeout_s * 1e9:
            return None
        return target

    def step(self, stamp_ns: int, is_newest: bool, target: ToolTarget | JointTarget | None) -> None:
        """One tick: commands the arm towards the target, or brakes and holds without one.

        Args:
            stamp_ns: nominal ROS time of the tick.
            is_newest: whether to send the command; False while missed ticks are caught up with.
            target: None to brake and hold.
        """
        measured = self._measured
        if not self._is_active or measured is None:
            return
        if self._state is not None and self._has_lost_the_arm(self._state, measured):
            self._state, self._resume_ns = None, stamp_ns + _RESUME_AFTER_NS
            self.get_logger().error(f"{self._reason}; going on from where the arm is in {_RESUME_AFTER_NS * 1e-9:g} s")
        if stamp_ns < self._resume_ns:
            return
        if self._state is None:
            self._state = self._controller.init(measured.positions, measured.gripper_opening)
            self._sent_opening = None
        hold = self._reason_to_hold(stamp_ns, measured)
        if hold:
            target = None
        self._state, command, self._report = self._controller.step(self._state, target, self.dt_s)
        self._ticks += 1
        self._clipped += self._report.is_clipped
        self._reason = hold or ("following" if target is not None else "holding: no target")
        if is_newest:
            self._publish(command, stamp_ns)

    def _has_lost_the_arm(self, state: ControllerState, measured: RobotState) -> bool:
        """Whether the arm is elsewhere than commanded: blocked, moved by hand, or put somewhere by a reset."""
        gap_rad = abs(state.command.positions - measured.positions)
        joint = int(gap_rad.argmax())
        if gap_rad[joint] <= self.config.engage_tolerance_rad:
            return False
        self._reason = (
            f"not commanding: {self.robot.joint_names[joint]} is {gap_rad[joint]:.2f} rad from its command "
            f"(limit {self.config.engage_tolerance_rad} rad)"
        )
        return True

    def _reason_to_hold(self, stamp_ns: int, measured: RobotState) -> str:
        silence_s = (stamp_ns - measured.stamp_ns) * 1e-9
        if silence_s > self.config.state_timeout_s:
            return f"holding: no joint state for {silence_s:.2f} s (limit {self.config.state_timeout_s} s)"
        if self._watch.rivals:
            return f"holding: two publishers: {self._watch.rivals}"
        return "deactivating" if self._is_braking else ""

    def _publish(self, command: JointCommand, stamp_ns: int) -> None:
        self._commands.publish(Float64MultiArray(data=command.positions.tolist()))
        self._joint_command.publish(messages.to_joint_command(command, self.robot.joint_names, stamp_ns))
        opening = command.gripper_opening
        if self.robot.gripper is None or opening is None:
            return
        if self._sent_opening is None or abs(opening - self._sent_opening) > _OPENING_STEP:
            self._gripper.publish(Float64(data=opening))
            self._sent_opening = opening

    def _is_moving(self) -> bool:
        state = self._state
        return self._is_active and state is not None and bool((abs(state.command.velocities) > 1e-4).any())

    def _publish_diagnostics(self) -> None:
        report = self._report
        values = {
            "active": self._is_active,
            "reason": self._reason,
            "sigma_min": report.sigma_min if report else float("nan"),
            "clip_rate": self._clipped / self._ticks if self._ticks else 0.0,
            "limits": "; ".join(item.reason for item in report.interventions) if report else "",
        }
        level = (
            DiagnosticStatus.WARN
            if self._reason.startswith(("holding: two", "not commanding"))
            else DiagnosticStatus.OK
        )
        self._diagnostics.publish(
            messages.to_diagnostics(now_ns(self), self.get_fully_qualified_name(), self._reason, values, level)
        )


class _Alone(ControllerNode):
    """The controller in a process of its own, ticking itself."""

    def __init__(self) -> None:
        super().__init__(is_alone=True)
        self._loop = TickLoop(
            self.config.rate_hz, self._tick, lambda: now_ns(self), self._on_clock_jump, self._on_stall
        )
        self.start()
        self._loop.start()

    def _tick(self, stamp_ns: int, is_newest: bool) -> None:
        self.step(stamp_ns, is_newest, self.target_from_topic(stamp_ns))

    def _on_stall(self, stall_s: float) -> None:
        self.get_logger().error(f"the loop stood still for {stall_s:.2f} s; the arm brakes until targets are fresh")
        self._target = None

    def _on_clock_jump(self, jump_ns: int) -> None:
        self.get_logger().error(f"the clock jumped by {jump_ns * 1e-9:.3f} s; the arm brakes until targets are fresh")
        self._target = None

    def close(self) -> None:
        """Brakes before the end."""
        self.brake()
        self._loop.stop()


def main() -> int:
    """Runs controller_node alone."""
    raise_priority()
    return run(lambda: [_Alone()])


if __name__ == "__main__":
    sys.exit(main())
