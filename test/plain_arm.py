"""An arm of a few lines for tests of the motion path: it is where it was told to be, and writes down what it hears."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Transform
from rcl_interfaces.srv import GetParameters
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import MultiDOFJointTrajectory, MultiDOFJointTrajectoryPoint

from vla_ros.evaluation.limits_judge import LimitReport, judge_limits
from vla_ros.nodes import messages
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray

ROBOT = load_robot("panda")
BASE = ROBOT.base_frame
COMMAND_TOPIC = "forward_position_controller/commands"
# Why a good chunk is refused where joint states or the chunk itself were under way for too long.
TOO_LATE = ("has no anchor", "are late", "s old (limit")


class Arm:
    """A plain node that is where it was told to be, and writes down what it hears."""

    def __init__(self, peer: Any, wait: Callable[..., Any], states: str = "joint_states") -> None:
        self.peer, self.patience = peer, wait
        self.model = RobotModel.from_config(ROBOT)
        self.positions = list(self.model.home)
        self.is_silent = self.is_deaf = self.expects_fault = False
        self.reach_rad = math.inf
        """It takes no target that is farther than this both from where it is and from the last one; a UR has 0.04."""
        self.commands: list[JointState] = peer.hear(JointState, "joint_command")
        self.verdicts: list[DiagnosticArray] = []
        peer.node.create_subscription(DiagnosticArray, "safety/verdict", self._on_verdict, 1000)
        self._refusal = self._old_refusal = ""
        self.disturbance = ""
        """What the machine's load did to the motion since the test began; holding was right then."""
        self.diagnostics: list[DiagnosticArray] = peer.hear(DiagnosticArray, "/diagnostics")
        self._states = peer.speak(JointState, states)
        peer.node.create_subscription(Float64MultiArray, COMMAND_TOPIC, self._on_command, 1)
        peer.node.create_timer(0.01, self._publish)
        self._publishers: dict[tuple[type, str], Any] = {}

    def _on_command(self, message: Float64MultiArray) -> None:
        # It is where the last target was that it took.
        is_near = np.abs(np.array(message.data) - self.positions).max() <= self.reach_rad
        if is_near and not self.is_deaf:
            self.positions = list(message.data)

    def _on_verdict(self, message: DiagnosticArray) -> None:
        self.verdicts.append(message)
        reasons = {item.key: item.value for item in message.status[0].values}
        refusal = reasons.pop("chunk", "")
        text = "; ".join(reasons.values())
        if "stood still" in text or (self.state == "fault" and not self.expects_fault):
            self.disturbance = text
        elif refusal != self._old_refusal and any(words in refusal for words in TOO_LATE):
            self.disturbance = refusal
        self._refusal = refusal

    def _publish(self) -> None:
        if not self.is_silent:
            message = JointState(name=list(ROBOT.joint_names), position=self.positions)
            message.header.stamp = self.peer.node.get_clock().now().to_msg()
            self._states.publish(message)

    # What it hears

    @property
    def state(self) -> str:
        return self.verdicts[-1].status[0].message if self.verdicts else ""

    @property
    def reasons(self) -> str:
        """All reasons of the newest verdict."""
        if not self.verdicts:
            return ""
        return "; ".join(f"{item.key}={item.value}" for item in self.verdicts[-1].status[0].values)

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Waits for a condition, but not past a disturbance."""

        def look() -> bool:
            assert not self.disturbance, f"disturbed: {self.disturbance}"
            return bool(condition())

        self.patience(look, what)

    def await_free(self) -> None:
        """Waits for the end of a disturbance, and forgets it."""
        is_free = ("idle", "holding")
        self.patience(lambda: self.state in is_free and "stood still" not in self.reasons, "the filter to hold")
        self._old_refusal, self.disturbance = self._refusal, ""

    def await_verdict(self, *words: str) -> None:
        """Waits for a verdict with all these words in its state and reasons."""
        try:
            self.wait(lambda: all(word in f"{self.state}; {self.reasons}" for word in words), f"a verdict with {words}")
        except AssertionError as error:
            raise AssertionError(f"{error}; the newest is {self.state}; {self.reasons}") from None

    def await_ticks(self, count: int) -> list[JointState]:
        """The next so many commands."""
        begin = len(self.commands)
        self.wait(lambda: len(self.commands) >= begin + count, f"{count} commands")
        return self.commands[begin : begin + count]

    def await_rest(self) -> None:
        """Waits until the last 50 commands, a fifth of a second, are at rest."""
        self.await_ticks(1)
        self.wait(lambda: spread(self.commands[-50:]) < 1e-6, "the arm to come to rest")

    def tcp(self) -> FloatArray:
        """Position of the tcp by the newest command, m in base."""
        return self.model.forward_kinematics(np.array(self.commands[-1].position))[:3, 3]

    # What it says

    def publisher(self, kind: type, topic: str) -> Any:
        if (kind, topic) not in self._publishers:
            self._publishers[kind, topic] = self.peer.speak(kind, topic)
        return self._publishers[kind, topic]

    def send(self, message: Any, source: str = "policies/p") -> None:
        """Sends a chunk as soon as somebody listens, or at once where nobody does."""
        kind = "action_chunk" if isinstance(message, MultiDOFJointTrajectory) else "joint_chunk"
        publisher = self.publisher(type(message), f"{source}/{kind}")
        if source in ("policies/p", "teleop"):
            self.peer.matched(publisher)
        publisher.publish(message)

    def chunk(self, *way_m: float, duration_s: float = 1.0, frame: str = BASE) -> MultiDOFJointTrajectory:
        """A straight move of the tcp, anchored now."""
        message = MultiDOFJointTrajectory(joint_names=["tcp_delta"])
        message.header.frame_id = frame
        message.header.stamp = self.peer.node.get_clock().now().to_msg()
        for share in np.linspace(0.1, 1.0, 10):
            transform = Transform()
            transform.rotation.w = 1.0
            x, y, z = (float(share * way) for way in way_m)
            transform.translation.x, transform.translation.y, transform.translation.z = x, y, z
            point = MultiDOFJointTrajectoryPoint(transforms=[transform])
            point.time_from_start = messages.to_duration(float(share) * duration_s)
            message.points.append(point)
        return message

    def await_motion(self, axis: int, way_m: float, start: FloatArray) -> None:
        """Waits until the tcp has gone so far along an axis of base."""
        self.wait(
            lambda: (self.tcp() - start)[axis] * math.copysign(1.0, way_m) >= abs(way_m),
            f"{way_m} m along axis {axis}",
        )

    def judge(self) -> LimitReport:
        commands = list(self.commands)
        stamps = [messages.to_ns(message.header.stamp) for message in commands]
        positions = [message.position for message in commands]
        return judge_limits(np.array(stamps), np.array(positions), self.model)

    def call(self, name: str) -> Trigger.Response:
        return self.peer.call(Trigger, name)

    def selected(self) -> str:
        """What parameter `source` says."""
        request = GetParameters.Request(names=["source"])
        return str(self.peer.call(GetParameters, "safety_node/get_parameters", request).values[0].string_value)

    def select(self, source: str) -> Any:
        return self.peer.set_parameter("safety_node", "source", source)


def spread(commands: list[JointState]) -> float:
    """How far any joint moved over some commands, rad; nothing is known of fewer than fifty."""
    if len(commands) < 50:
        return math.inf
    return float(np.ptp([message.position for message in commands], axis=0).max())
