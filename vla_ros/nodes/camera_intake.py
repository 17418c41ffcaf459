"""Images of the cameras that a contract names, each with its intrinsics and the camera's pose at the exposure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import ceil

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from vla_ros.contract import Rig
from vla_ros.errors import SensorError
from vla_ros.geometry.cameras import calibrated_camera
from vla_ros.nodes import image_messages, messages
from vla_ros.nodes.runtime import SENSOR, newest_only
from vla_ros.nodes.streams import Polled
from vla_ros.nodes.tf import TransformBuffer, TransformError, TransformListener
from vla_ros.robots.model import RobotModel
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.types import CameraFrame, CameraModel, FloatArray

_STATE_TOLERANCE_NS = 50_000_000
_FRAMES_KEPT = 4
# The slowest policy takes a few seconds an answer.
_HISTORY_KEPT_S = 3.0


class CameraIntake:
    """Keeps the newest images of some cameras until they are taken.

    Args:
        node: subscribes.
        rig: the cell.
        model: gives the links that carry cameras; used by the thread that calls `take` only.
        states: measured joint states, for those links at the exposure.
        streams: serves the cameras' topics.
    """

    def __init__(self, node: Node, rig: Rig, model: RobotModel, states: JointStateBuffer, streams: Polled) -> None:
        self._node, self._rig, self._model, self._states = node, rig, model, states
        self._streams = streams
        self._tf = TransformBuffer()
        TransformListener(node, self._tf, with_moving=False)
        self._images: dict[str, deque[Image]] = {}
        self._infos: dict[str, CameraModel | None] = {}
        self._located: set[str] = set()
        """The cameras whose poses somebody needs."""

    def listen(self, cameras: Iterable[str], with_history: bool, with_geometry: bool) -> None:
        """Hears these cameras, too, from now on.

        Args:
            cameras: names of the rig's cameras.
            with_history: whether older images count, too: then those of the last seconds are kept between two calls.
            with_geometry: whether somebody needs the cameras' poses; where nobody does they aren't looked for.
        """
        self._located |= set(cameras) if with_geometry else set()
        for name in cameras:
            kept = max(_FRAMES_KEPT, ceil(_HISTORY_KEPT_S * self._rig.cameras[name].rate_hz) if with_history else 0)
            if name not in self._images:
                self._listen(name, kept)
            elif kept > (self._images[name].maxlen or 0):
                self._images[name] = deque(self._images[name], maxlen=kept)

    def _listen(self, name: str, kept: int) -> None:
        camera = self._rig.cameras[name]
        self._images[name] = deque(maxlen=kept)
        self._infos[name] = calibrated_camera(camera.width, camera.height, camera.fovy_rad, camera.K, camera.distortion)

        def on_image(message: Image, _info: object) -> None:
            self._images[name].append(message)

        def on_info(message: CameraInfo, _info: object) -> None:
            if message.k[0] > 0.0:
                try:
                    self._infos[name] = image_messages.from_camera_info(message)
                except SensorError as error:
                    self._infos[name] = None
                    self._node.get_logger().error(f"camera {name}: {error}", throttle_duration_sec=5.0)

        # Every image of a history counts, also of a burst.
        self._streams.subscribe(Image, camera.topic, on_image, SENSOR)
        self._streams.subscribe(CameraInfo, camera.info_topic, on_info, newest_only(SENSOR))

    def take(self) -> list[tuple[str, CameraFrame]]:
        """The (camera, frame) that came since the last call, in order for each camera.

        Raises:
            SensorError: for an image that can't be read.
        """
        taken = []
        for name, kept in list(self._images.items()):
            while kept:
                message = kept.popleft()
                stamp_ns = messages.to_ns(message.header.stamp)
                pose = self._camera_pose(name, stamp_ns) if name in self._located else None
                image = image_messages.from_image(message)
                taken.append((name, CameraFrame(stamp_ns, image, self._infos[name], pose)))
        return taken

    def _camera_pose(self, name: str, stamp_ns: int) -> FloatArray | None:
        """T_base_cam at an exposure: the mount from TF, the link that carries it from the joints at that moment."""
        mount = self._rig.cameras[name].mount
        try:
            T_parent_cam = self._tf.lookup(mount.parent, mount.frame)
            state = self._states.at(stamp_ns, _STATE_TOLERANCE_NS)
        except (TransformError, SensorError) as error:
            self._node.get_logger().warning(f"camera {name}: {error}", throttle_duration_sec=2.0)
            return None
        return self._model.link_pose(state.positions, mount.parent) @ T_parent_cam
