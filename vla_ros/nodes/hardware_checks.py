"""What hardware_node looks at before an arm is led, and while it is: each check says what is wrong, and the mend."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from vla_ros.contract import Rig
from vla_ros.hardware.readiness import Check
from vla_ros.nodes.camera_report import CameraReport
from vla_ros.nodes.controller_manager import ControllerManagerClient
from vla_ros.nodes.driver_link import SILENT_S, DriverLink, Heard
from vla_ros.nodes.policy_watch import PolicyWatch
from vla_ros.nodes.runtime import SENSOR, newest_only, now_ns
from vla_ros.nodes.state_intake import StateIntake
from vla_ros.nodes.tf import TransformBuffer, TransformError, TransformListener
from vla_ros.robots.config import RobotConfig

_STATE_TIMEOUT_S = 0.2
_BEING_TOLD, _BEING_ACTIVATED = "being told to the arm", "being activated"


class HardwareChecks:
    """The checks, in their order.

    Args:
        node: subscribes and asks.
        robot: whose arm it is.
        rig: its cell.
        link: to its driver.
        manager: of its controllers.
        command_topic: resolved, on which the motion path alone may publish.
        policy: whether a policy has to be active: its name; empty for none.
        with_cameras: whether the rig's cameras have to send.
    """

    def __init__(
        self,
        node: Node,
        robot: RobotConfig,
        rig: Rig,
        link: DriverLink,
        manager: ControllerManagerClient,
        command_topic: str,
        policy: str,
        with_cameras: bool,
    ) -> None:
        self._node, self._robot, self._link, self._manager = node, robot, link, manager
        self._command_topic = command_topic
        self._states = StateIntake(node, robot, newest_only(SENSOR)).states
        self._tf = TransformBuffer()
        TransformListener(node, self._tf)
        cameras = rig.cameras.values() if with_cameras else ()
        self._frames = [robot.tcp_frame, *(camera.mount.frame for camera in cameras)]
        self._cameras = CameraReport(node, rig.cameras) if with_cameras and rig.cameras else None
        self._policy = PolicyWatch(node) if policy else None
        self._verdicts = Heard()
        self._verdict_topic = node.resolve_topic_name("safety/verdict")
        node.create_subscription(
            DiagnosticArray, self._verdict_topic, lambda _message: self._verdicts.note(), newest_only(SENSOR)
        )
        self.settings = _BEING_TOLD
        """Why the arm hasn't taken its settings, empty if it has."""

        self.activation = _BEING_ACTIVATED
        """Why the controller wasn't activated, empty if it was."""

    def in_order(self) -> tuple[Check, ...]:
        """All of them."""
        return (
            Check("driver", self._driver, is_latched=True),
            Check("arm", lambda: self._link.fault, is_latched=True),
            Check("joint_states", self._joint_states),
            Check("settings", lambda: self.settings),
            Check("controller", lambda: self.activation or self._manager.problem, is_latched=True),
            Check("tf", self._transforms, is_for_start=True),
            Check("cameras", lambda: "" if self._cameras is None else self._cameras.problem, is_for_start=True),
            Check("commands", self._rivals),
            Check("policy", lambda: "" if self._policy is None else self._policy.problem, is_for_start=True),
        )

    def begin_anew(self) -> None:
        """After a recovery the controller has to be active again."""
        self.activation = _BEING_ACTIVATED

    def _driver(self) -> str:
        problem = self._link.silence or self._manager.silence
        if problem:
            # One that is started again knows nothing of what it was told.
            self.settings = _BEING_TOLD
        return problem

    def _joint_states(self) -> str:
        newest = self._states.newest()
        if newest is None:
            return f"none with all of {', '.join(self._robot.joint_names)}; is the joint_state_broadcaster active?"
        silence_s = (now_ns(self._node) - newest.stamp_ns) * 1e-9
        if abs(silence_s) <= _STATE_TIMEOUT_S:
            return ""
        if silence_s < 0.0:
            return f"stamped {-silence_s:.2f} s in the future; are the clocks in step?"
        return f"none for {silence_s:.2f} s (limit {_STATE_TIMEOUT_S} s)"

    def _transforms(self) -> str:
        base, missing = self._robot.base_frame, []
        for frame in self._frames:
            try:
                self._tf.lookup(base, frame)
            except TransformError as error:
                missing.append(str(error))
        return "; ".join(missing)

    def _rivals(self) -> str:
        # Graphs notice a killed process only after twenty seconds.
        if self._verdicts.is_lost:
            return f"nothing on {self._verdict_topic} for {SILENT_S:g} s; has the motion path ended? Start it again"
        infos = self._node.get_publishers_info_by_topic(self._command_topic)
        publishers = sorted(info.node_name for info in infos)
        if len(publishers) > 1:
            return f"{self._command_topic} is published by {', '.join(publishers)}; end all but one"
        return "" if publishers else f"nobody publishes {self._command_topic}; is the motion path running?"
