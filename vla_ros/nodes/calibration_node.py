"""Hears what calibrations look at, and leads the arm for those that move it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from vla_ros.nodes.leading_node import LeadingNode  # isort: skip # Settles the environment before rclpy is imported.

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64

from vla_ros.calibration.verdict import CalibrateError
from vla_ros.contract import RigCamera
from vla_ros.nodes import image_messages, messages
from vla_ros.nodes.runtime import RELIABLE, SENSOR, newest_only, now_ns, serve_ready
from vla_ros.nodes.settings import model_setting
from vla_ros.nodes.state_intake import StateIntake
from vla_ros.nodes.streams import Polled
from vla_ros.robots.config import RobotConfig
from vla_ros.robots.model import RobotModel
from vla_ros.robots.state_buffer import find_joints
from vla_ros.teleop.script import ScriptStep
from vla_ros.types import CameraModel, FloatArray, ImageArray, RobotState

_POLL_S = 0.01
_BEGIN_S = 10.0
# A turn may last as long as finding a board in a large image.
_MOST = 2000
_DEEP = QoSProfile(reliability=ReliabilityPolicy.BEST_EFFORT, history=HistoryPolicy.KEEP_LAST, depth=_MOST)


@dataclass(frozen=True)
class Track:
    """A record of joints: stamps_ns (n,), positions (n, joints) rad."""

    stamps_ns: tuple[int, ...]
    positions: FloatArray

    def times_s(self, origin_ns: int) -> FloatArray:
        """(n,) the stamps, s, from a time on that isn't far from them, so that a float holds microseconds."""
        return np.array([(stamp - origin_ns) * 1e-9 for stamp in self.stamps_ns])


class CalibrationNode(Node):
    """Listens; publishes nothing but `gripper/command`, when it is asked to.

    Args:
        robot: the arm, None where only a camera counts.
        camera: the camera, None where none does.
        hears: what besides is wanted, of `commands` (of the joints) and `gripper`.
    """

    def __init__(self, robot: RobotConfig | None, camera: RigCamera | None, hears: Collection[str] = ()) -> None:
        super().__init__("calibrate")
        self._robot, self._polled = robot, Polled(self, most=_MOST)
        self.model = None if robot is None else model_setting(self, robot)
        """Of the arm, as the motion path has it: on real hardware with the kinematics that its driver publishes."""
        self.states: list[RobotState] = []
        self.commands: list[tuple[int, FloatArray]] = []
        self.gripper_states: list[tuple[int, float]] = []
        """(ROS time of its arrival, opening): not every driver stamps it."""
        self.image: tuple[int, ImageArray] | None = None
        """Newest (stamp, (h, w, 3) uint8, rgb) since it was taken."""
        self.info: CameraModel | None = None
        """What the camera's own CameraInfo says."""
        self.image_problem = ""
        self.on_image: Callable[[int, ImageArray], None] | None = None
        """Called with every image besides."""
        self._gripper = None
        if robot is not None:
            self._intake = StateIntake(self, robot, _DEEP, self.states.append, self._polled)
            if "commands" in hears:
                self._polled.subscribe(JointState, "joint_command", self._on_command, _DEEP)
            if robot.gripper is not None and "gripper" in hears:
                self._gripper = self.create_publisher(Float64, "gripper/command", RELIABLE)
                self._polled.subscribe(JointState, "gripper/state", self._on_gripper, _DEEP)
        if camera is not None:
            self._polled.subscribe(Image, camera.topic, self._on_image, SENSOR)
            self._polled.subscribe(CameraInfo, camera.info_topic, self._on_info, newest_only(SENSOR))

    def poll(self) -> None:
        """Takes what has come."""
        self._polled.take()

    def forget(self, kept: int = 0) -> None:
        """Begins the records anew, but for so many of the newest."""
        del self.states[: len(self.states) - kept]
        del self.commands[: len(self.commands) - kept]
        del self.gripper_states[: len(self.gripper_states) - kept]

    def state_at(self, stamp_ns: int) -> RobotState:
        """The arm's state at an exposure.

        Raises:
            SensorError: if it isn't known.
        """
        return self._intake.states.at(stamp_ns)

    def state_track(self) -> Track:
        """The measured joints since `forget`."""
        return _track([(state.stamp_ns, state.positions) for state in self.states])

    def command_track(self) -> Track:
        """The commanded joints since `forget`."""
        return _track(self.commands)

    @property
    def is_gripper_heard(self) -> bool:
        """Whether somebody listens to `gripper/command`."""
        return self._gripper is not None and self._gripper.get_subscription_count() > 0

    def command_gripper(self, opening: float) -> int:
        """Sends an opening; the ROS time at which it was sent."""
        if self._gripper is None:
            raise ValueError("this arm has no gripper")
        sent_ns = now_ns(self)
        self._gripper.publish(Float64(data=float(opening)))
        return sent_ns

    def take_image(self) -> tuple[int, ImageArray] | None:
        """The newest image, once."""
        image, self.image = self.image, None
        return image

    def _on_command(self, message: JointState, _info: object = None) -> None:
        if self._robot is not None:
            order = find_joints(list(message.name), self._robot.joint_names, "joint_command")
            self.commands.append((messages.to_ns(message.header.stamp), np.array(message.position)[order]))

    def _on_gripper(self, message: JointState, _info: object = None) -> None:
        if message.position:
            self.gripper_states.append((now_ns(self), float(message.position[0])))

    def _on_image(self, message: Image, _info: object = None) -> None:
        try:
            stamp_ns, image = messages.to_ns(message.header.stamp), image_messages.from_image(message)
        except Exception as error:  # An encoding nobody knows is told, and the session goes on.
            self.image_problem = str(error)
            return
        self.image = stamp_ns, image
        if self.on_image is not None:
            self.on_image(stamp_ns, image)

    def _on_info(self, message: CameraInfo, _info: object = None) -> None:
        if message.k[0] > 0.0:
            self.info = image_messages.from_camera_info(message)


def _track(pairs: Sequence[tuple[int, FloatArray]]) -> Track:
    rising: list[tuple[int, FloatArray]] = []
    for stamp_ns, positions in pairs:
        if not rising or stamp_ns > rising[-1][0]:
            rising.append((stamp_ns, positions))
    return Track(tuple(stamp for stamp, _ in rising), np.array([positions for _, positions in rising]))


class Session:
    """The listener, and where it moves the arm the leader, in turns that a command asks for."""

    def __init__(self, node: CalibrationNode, leader: LeadingNode | None) -> None:
        self.node, self._leader = node, leader
        self._executor = SingleThreadedExecutor()
        for one in (node, leader):
            if one is not None:
                self._executor.add_node(one)

    @property
    def model(self) -> RobotModel:
        """Of the arm, as the motion path has it."""
        if self.node.model is None:
            raise ValueError("this session has no arm")
        return self.node.model

    def turn(self) -> None:
        """What has come, then the rest of a turn's time."""
        next_s = time.monotonic() + _POLL_S
        self.node.poll()
        if self._leader is not None:
            self._leader.poll()
        serve_ready(self._executor)
        time.sleep(max(0.0, next_s - time.monotonic()))

    def turn_for(self, duration_s: float) -> None:
        """Turns for so long."""
        end_s = time.monotonic() + duration_s
        while time.monotonic() < end_s:
            self.turn()

    def wait_for(self, condition: Callable[[], object], timeout_s: float, what: str) -> None:
        """Turns until a condition holds.

        Raises:
            CalibrateError: saying what didn't come.
        """
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                mend = "is the stack running, in this ROS_DOMAIN_ID and namespace?"
                raise CalibrateError("calibrate", f"no {what} within {timeout_s:g} s", mend)
            self.turn()

    def newest_state(self, timeout_s: float = _BEGIN_S) -> RobotState:
        """The arm's newest state.

        Raises:
            CalibrateError: if there is none.
        """
        self.wait_for(lambda: self.node.states, timeout_s, "joint_states")
        return self.node.states[-1]

    def lead(self, steps: Sequence[ScriptStep]) -> None:
        """Leads the tool through steps, through the safe path, and lets go.

        Raises:
            CalibrateError: if the arm can't be led, or somebody else takes it.
            ConfigError: for more than the full speed.
        """
        if self._leader is None:
            raise ValueError("this session doesn't lead")
        course = self._leader.course
        course.begin(steps)
        deadline_s = time.monotonic() + _BEGIN_S
        has_led = False
        while not course.is_over:
            self.turn()
            has_led |= course.has_begun
            is_late = not has_led and time.monotonic() > deadline_s
            is_lost = has_led and not self._leader.is_leading and not course.is_over
            if is_late or is_lost:
                course.end()
                self.turn()
                problem = self._leader.problem or "safety_node doesn't say that teleop leads"
                what = "the arm can't be led" if is_late else "the arm was lost on the way"
                raise CalibrateError("calibrate", f"{what}: {problem}", "mend that; nothing else was moved")
        self.turn_for(0.1)


@contextmanager
def calibration_session(
    robot: RobotConfig | None,
    camera: RigCamera | None,
    *,
    robot_name: str = "",
    words: Sequence[str] = (),
    interface: str = "",
    safety: str = "",
    is_led: bool = False,
    hears: Collection[str] = (),
) -> Iterator[Session]:
    """A session for a command, with a context that is gone afterwards.

    Args:
        robot: the arm, None where only a camera counts.
        camera: the camera, None where none does.
        robot_name: of the robot or its YAML file, for the leader.
        words: ROS arguments: the stack's namespace, and its parameters `hardware` and `prefix`.
        interface: the launch file's, if it was given.
        safety: the stack's safety YAML file, if it isn't the package's.
        is_led: whether the arm is to be moved.
        hears: as of CalibrationNode.
    """
    given = ["--ros-args", *words]
    if is_led:
        for name, value in (("robot", robot_name), ("interface", interface), ("safety", safety)):
            given += ["-p", f'{name}:="{value}"'] if value else []
        given += ["-p", "device:=scripted"]
    rclpy.init(args=given, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = CalibrationNode(robot, camera, hears)
        leader = LeadingNode() if is_led else None
        try:
            yield Session(node, leader)
        finally:
            if leader is not None:
                leader.close()
                leader.destroy_node()
            node.destroy_node()
    finally:
        rclpy.try_shutdown()
