"""The MuJoCo cell as ROS sees it, whoever drives the arm in it: cameras, ground truth, resets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from vla_ros.errors import UnknownNameError, VlaRosError
from vla_ros.instruction import Instruction, parse_instruction
from vla_ros.nodes import image_messages, messages
from vla_ros.nodes.runtime import IMAGES, RELIABLE, parameter
from vla_ros.nodes.settings import rig_setting
from vla_ros.nodes.sim_board import board_setting
from vla_ros.robots.config import RobotConfig
from vla_ros.sim.cameras import CameraRenderer, simulated_camera
from vla_ros.sim.viewer import SceneViewer
from vla_ros.sim.world import Snapshot, World
from vla_ros.types import FloatArray, ImageArray

_TRUTH_HZ = 25.0


@dataclass(frozen=True)
class Look:
    """What is to be published of a moment.

    Attributes:
        truth: ground truth, when it is due.
        snapshot: what cameras are drawn from, when images are due.
    """

    truth: dict[str, FloatArray] | None
    snapshot: Snapshot | None


class Division:
    """Every so many ticks something is due; none is served twice, and what was missed is left out."""

    def __init__(self, every: int) -> None:
        self._every, self._served = every, 0

    def is_due(self, tick: int) -> bool:
        """Whether it is, at a tick; 0 ticks apart means never."""
        if not self._every:
            return False
        number = tick // self._every
        is_due = number != self._served
        self._served = number
        return is_due


class SimCell:
    """The world, its lock, and all of it that isn't the arm.

    Args:
        node: declares parameters, publishes and serves `sim/reset`.
        robot: the arm.
        rate_hz: ticks per second.
        on_reset: called with the lock held when the world has been reset.
    """

    def __init__(self, node: Node, robot: RobotConfig, rate_hz: float, on_reset: Callable[[], None]) -> None:
        self._node, self._on_reset = node, on_reset
        self._base = robot.base_frame
        rig = rig_setting(node)
        with_cameras = bool(parameter(node, "cameras", True, "draw and publish the rig's cameras"))
        seed = int(parameter(node, "seed", 0, "seed of the next sim/reset", is_fixed=False, least=0))
        setting = parameter(node, "setting", "blocks", "which scenes: blocks, varied or single")
        parameter(node, "needed", "", "instruction that the scene of the next sim/reset must allow", is_fixed=False)
        self.world = World(robot, rig, seed, setting, board_setting(node, robot, rig))
        self.world.reset(seed, self._needed())
        self.lock = threading.Lock()
        """Held by who reads or steps the world."""

        self._truth = node.create_publisher(TFMessage, "sim/ground_truth", RELIABLE)
        self._cameras = {
            name: (
                node.create_publisher(Image, camera.topic, IMAGES),
                node.create_publisher(CameraInfo, camera.info_topic, RELIABLE),
                simulated_camera(camera),
                camera.mount.frame,
            )
            for name, camera in rig.cameras.items()
        }
        self._renderer = CameraRenderer(self.world.scene) if with_cameras and rig.cameras else None
        rates_hz = {camera.rate_hz for camera in rig.cameras.values()}
        self._image_division = Division(max(1, int(rate_hz / max(rates_hz))) if self._renderer else 0)
        self._truth_division = Division(max(1, round(rate_hz / _TRUTH_HZ)))
        self._drawing: Future[dict[str, ImageArray]] | None = None
        self._lost: frozenset[str] = frozenset()
        self._is_over = False
        is_headless = bool(parameter(node, "headless", True, "false: open the simulator's viewer on the display"))
        self._viewer = None if is_headless else SceneViewer(self.world.scene)
        if self._viewer is not None:
            node.create_timer(1.0 / 30.0, self._show)
        node.create_service(Trigger, "sim/reset", self._reset)

    def lose_cameras(self, names: Collection[str]) -> None:
        """These cameras send nothing from now on, the others do.

        Raises:
            UnknownNameError: for one that the rig doesn't have.
        """
        for name in names:
            if name not in self._cameras:
                raise UnknownNameError("camera", name, self._cameras)
        self._lost = frozenset(names)

    def look(self, tick: int) -> Look:
        """What is due at a tick. To be called with the lock held."""
        return Look(
            self.world.truth() if self._truth_division.is_due(tick) else None,
            self.world.snapshot() if self._image_division.is_due(tick) else None,
        )

    def publish(self, look: Look, stamp_ns: int) -> None:
        """Publishes ground truth, and has the cameras drawn unless they still are."""
        if look.truth is not None:
            edges = [messages.to_transform_stamped(T, self._base, name, stamp_ns) for name, T in look.truth.items()]
            self._truth.publish(TFMessage(transforms=edges))
        if look.snapshot is not None and self._renderer and (self._drawing is None or self._drawing.done()):
            self._drawing = self._renderer.submit(look.snapshot)
            self._drawing.add_done_callback(lambda future: self._publish_images(future, stamp_ns))

    def close(self) -> None:
        """Ends drawing."""
        self._is_over = True
        if self._renderer:
            self._renderer.close()
        if self._viewer is not None:
            self._viewer.close()

    def _needed(self) -> Instruction | None:
        """What the next scene must allow. Raises InstructionError if it can't be read."""
        text = str(self._node.get_parameter("needed").value).strip()
        return parse_instruction(text) if text else None

    def _reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        seed = int(self._node.get_parameter("seed").value)
        try:
            needed = self._needed()
            with self.lock:
                self.world.reset(seed, needed)
                self._on_reset()
        except VlaRosError as error:
            response.success, response.message = False, str(error)
            return response
        response.success, response.message = True, f"reset to seed {seed}"
        return response

    def _show(self) -> None:
        if self._viewer is not None and self._viewer.is_open:
            with self.lock:
                snapshot = self.world.snapshot()
            self._viewer.show(snapshot)

    def _publish_images(self, future: Future[dict[str, ImageArray]], stamp_ns: int) -> None:
        if self._is_over:
            return
        for name, image in future.result().items():
            if name in self._lost:
                continue
            images, infos, camera, frame = self._cameras[name]
            infos.publish(image_messages.to_camera_info(camera, stamp_ns, frame))
            images.publish(image_messages.to_image(image, stamp_ns, frame))
