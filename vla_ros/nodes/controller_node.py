"""controller_node: targets in, joint commands out; a lifecycle node that moves the arm only while active."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.lifecycle import Node as LifecycleNode

from vla_ros.control.cartesian_controller import CartesianController, ControllerState
from vla_ros.control.figures import ControllerFigures
from vla_ros.control.interfaces import make_sender
from vla_ros.nodes import messages
from vla_ros.nodes.command_link import CommandLink
from vla_ros.nodes.loop import TickLoop
from vla_ros.nodes.permission import Permission
from vla_ros.nodes.rivals import RivalWatch
from vla_ros.nodes.runtime import (
    RELIABLE,
    SENSOR,
    autostart,
    destroy,
    entities,
    logged_transition,
    newest_only,
    now_ns,
    parameter,
    raise_priority,
    run,
)
from vla_ros.nodes.settings import command_setting, controller_setting, model_setting, robot_setting
from vla_ros.nodes.state_intake import StateIntake
from vla_ros.nodes.streams import Streams
from vla_ros.nodes.target_intake import TargetIntake
from vla_ros.types import JointTarget, RobotState, ToolTarget

_AT_REST_RAD_S = 1e-4
# The pause before commands begin anew elsewhere; the arm's own controller holds meanwhile.
_RESUME_AFTER_NS = 1_000_000_000
# A UR leaves out what is 0.04 rad from both its last target and where it stands: after that only a new beginning helps.
_ASTRAY_RAD = 0.02


class ControllerNode(LifecycleNode):
    """The joint controller as a node. All motion happens in `step`, in one thread.

    Args:
        is_alone: whether targets and states come by topic; the motion executable hands them over directly.
    """

    def __init__(self, is_alone: bool) -> None:
        super().__init__("controller_node")
        self.robot, self.config = robot_setting(self), controller_setting(self)
        self._command_config = command_setting(self, self.robot)
        self._permission = Permission(self)
        self._autostart = bool(parameter(self, "autostart", True, "activate without being asked"))
        self._is_alone = is_alone
        self.dt_s = 1.0 / self.config.rate_hz
        self._is_active = self._is_braking = self._is_told = False
        self.is_astray = False
        """Whether the filter found the arm away from where it was told to be; who steps both says it."""

        self._state: ControllerState | None = None
        self._measured: RobotState | None = None
        self.targets: TargetIntake | None = None
        """Where targets come from by topic; None where they are handed over."""

        self._figures = ControllerFigures(self.config.rate_hz, self.robot)
        self._reason = "not active"
        self._resume_ns = 0
        self._built: set[Any] = set()
        self._streams: Streams | None = None
        self.waits_for = "controller_node isn't active"
        """Why targets aren't followed at present, empty while they are."""
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
        before = entities(self)
        model = model_setting(self, self.robot)
        self._controller = CartesianController(model, self.config)
        if math.isinf(self._controller.init(model.home).clearance_m):
            self.get_logger().warning(
                f"self-collision isn't checked: robot {self.robot.name} has no shapes for it in its URDF; put capsules "
                "around its links (self_collision in its YAML)"
            )
        self._sender = make_sender(self._command_config, self._controller)
        self._link = CommandLink(self, self.robot, self._command_config)
        self._link.is_armed = self._permission.is_armed
        if self._is_alone:
            self._streams = Streams(self)
            StateIntake(self, self.robot, newest_only(SENSOR), self.observe, self._streams)
            self.targets = TargetIntake(self, self.robot, self._streams, self.config.target_timeout_s)
            self._streams.start()
            self.create_timer(1.0, self._streams.check)
        topics = self._link.topics
        self._watch = RivalWatch(self, lambda: topics, lambda _rivals: None)
        self._built = entities(self) - before
        return super().on_configure(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leaves the topics; configuring makes them anew."""
        self._stop_streams()
        destroy(self, self._built)
        self._measured = self.targets = None
        return super().on_cleanup(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Permits motion; it begins from what is measured."""
        self._state, self._reason, self.waits_for = None, "waiting for joint states", "controller_node starts anew"
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
        self._reason, self.waits_for = "not active", "controller_node isn't active"

    def on_clock_jump(self, jump_ns: int) -> None:
        """Takes account of stamps that are other ones now."""
        if self._state is not None:
            self._sender.shift(jump_ns)

    def _stop_streams(self) -> None:
        if self._streams is not None:
            self._streams.stop()

    @property
    def is_armed(self) -> bool:
        """Whether commands reach the arm."""
        return self._permission.is_armed

    # Motion: the loop's thread.

    def observe(self, state: RobotState | None) -> None:
        """Takes the newest measured state from whoever shares this process."""
        self._measured = state

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
        if self._is_led_by_nobody():
            return
        if self._state is not None and self._link.is_armed and self._has_lost_the_arm(self._state, measured):
            self._state, self._resume_ns = None, stamp_ns + _RESUME_AFTER_NS
            self.get_logger().error(f"{self._reason}; going on from where the arm is in {_RESUME_AFTER_NS * 1e-9:g} s")
        if stamp_ns < self._resume_ns:
            self.waits_for = self._reason
            return
        if self._state is None:
            self._state = self._controller.init(measured.positions, measured.gripper_opening)
            self._sender.begin(self._state, stamp_ns)
            self._figures.clear()
            self._link.begin()
        approach = self._sender.approach(stamp_ns)
        if approach is not None:
            self._reason = self.waits_for = "taking over from the arm's own controller"
            self._link.publish(approach, stamp_ns)
            return
        self._sender.observe(measured.positions)
        self._state, is_late = self._sender.resume(self._state, stamp_ns, now_ns(self))
        if (hold := self._reason_to_hold(stamp_ns, measured)) or is_late:
            target = None
        self._state, command, report = self._controller.step(self._state, target, self.dt_s)
        self._figures.add(command, report)
        self._reason = hold or ("following" if target is not None else "holding: no target")
        sending = self._sender.send(self._state, command, stamp_ns, is_newest)
        if sending is not None:
            self._link.publish(sending, stamp_ns)
        self._is_told = is_newest

    def _is_led_by_nobody(self) -> bool:
        """Whether nothing is sent, since the hardware isn't ready or the arm was (dis)armed, and all is at rest."""
        is_armed, reason = self._permission.is_armed, self._permission.reason
        if not reason and is_armed == self._link.is_armed:
            return False
        if self._state is not None and self._link.is_armed and (self._is_moving() or not self._is_told):
            return False
        self._state = None
        self._link.is_armed = is_armed
        self._reason = f"not commanding: {reason or ('armed' if is_armed else 'dry run')}"
        self.waits_for = reason or self._reason
        return True

    def _has_lost_the_arm(self, state: ControllerState, measured: RobotState) -> bool:
        """Whether the arm is elsewhere than commanded: blocked, moved by hand, or put somewhere by a reset."""
        gap_rad = abs(state.command.positions - measured.positions)
        joint, is_over = int(gap_rad.argmax()), self.is_astray and not self._is_moving()
        name, limit_rad = self.robot.joint_names[joint], _ASTRAY_RAD if is_over else self.config.engage_tolerance_rad
        if gap_rad[joint] <= limit_rad:
            return False
        self._reason = f"not commanding: {name} is {gap_rad[joint]:.2f} rad from its command (limit {limit_rad} rad)"
        return True

    def _reason_to_hold(self, stamp_ns: int, measured: RobotState) -> str:
        self.waits_for = ""
        silence_s = (stamp_ns - measured.stamp_ns) * 1e-9
        if silence_s > self.config.state_timeout_s:
            return f"holding: no joint state for {silence_s:.2f} s (limit {self.config.state_timeout_s} s)"
        if self._permission.reason:
            self.waits_for = f"holding: {self._permission.reason}"
        elif self._link.is_armed and not self._permission.is_armed:
            self.waits_for = "holding: being disarmed"
        elif self._watch.rivals:
            self.waits_for = f"holding: two publishers: {self._watch.rivals}"
        elif self._is_braking:
            self.waits_for = "deactivating"
        return self.waits_for

    def _is_moving(self) -> bool:
        state = self._state
        return self._is_active and state is not None and any(abs(v) > _AT_REST_RAD_S for v in state.command.velocities)

    def _publish_diagnostics(self) -> None:
        values: dict[str, object] = {
            "active": self._is_active,
            "reason": self._reason,
            "interface": self._command_config.interface,
            "armed": self._permission.is_armed,
            **self._figures.read(),
        }
        is_told = self._reason.startswith(("holding: two", "not commanding"))
        level = DiagnosticStatus.WARN if is_told else DiagnosticStatus.OK
        self._diagnostics.publish(
            messages.to_diagnostics(now_ns(self), self.get_fully_qualified_name(), self._reason, values, level)
        )


class _Alone(ControllerNode):
    """The controller in a process of its own, ticking itself."""

    def __init__(self) -> None:
        super().__init__(is_alone=True)
        self._loop = TickLoop(self.config.rate_hz, self._tick, lambda: now_ns(self), self._on_jump, self._on_stall)
        self.create_timer(1.0, self._loop.check)
        self.start()
        self._loop.start()

    def _tick(self, stamp_ns: int, is_newest: bool) -> None:
        self.step(stamp_ns, is_newest, None if self.targets is None else self.targets.at(stamp_ns))

    def _forget_targets(self) -> None:
        if self.targets is not None:
            self.targets.clear()

    def _on_stall(self, stall_s: float) -> None:
        self.get_logger().error(f"the loop stood still for {stall_s:.2f} s; the arm brakes until targets are fresh")
        self._forget_targets()

    def _on_jump(self, jump_ns: int) -> None:
        self.get_logger().error(f"the clock jumped by {jump_ns * 1e-9:.3f} s; the arm brakes until targets are fresh")
        self.on_clock_jump(jump_ns)
        self._forget_targets()

    def close(self) -> None:
        """Brakes before the end."""
        self.brake()
        self._loop.stop()
        self._stop_streams()


def main() -> int:
    """Runs controller_node alone."""
    raise_priority()
    return run(lambda: [_Alone()])


if __name__ == "__main__":
    sys.exit(main())
