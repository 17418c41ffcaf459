"""camera_node: the rig's cameras on their topics, their mounts in TF, their rates watched."""

from __future__ import annotations

import functools
import math
import sys
import threading
import time
from collections.abc import Sequence

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from vla_ros.contract import CameraMount, RigCamera
from vla_ros.errors import SensorError, UnknownNameError
from vla_ros.geometry import rotations, se3
from vla_ros.nodes import image_messages, messages
from vla_ros.nodes.camera_report import RATE_KEY
from vla_ros.nodes.runtime import IMAGES, RELIABLE, SENSOR, newest_only, now_ns, parameter, run
from vla_ros.nodes.settings import rig_setting
from vla_ros.nodes.tf import TransformBroadcaster
from vla_ros.observation.arrivals import Arrivals
from vla_ros.observation.camera_feed import CameraFeed, open_capture
from vla_ros.types import CameraModel, FloatArray, ImageArray

_STALE_S, _EARLY_S = 0.5, 0.05
"""Ages at which images come too late to be of use, and so early that the clocks can't be in step."""


def mount_pose(mount: CameraMount) -> FloatArray:
    """T_parent_cam (4, 4) of a mount."""
    return se3.make_pose(np.array(mount.position_m), rotations.rpy_to_matrix(np.array(mount.rpy_rad)))


class CameraNode(Node):
    """Publishes what no driver publishes: devices, videos, processed topics; and the mounts of all cameras."""

    def __init__(self) -> None:
        super().__init__("camera_node")
        rig = rig_setting(self)
        wanted = [
            str(name) for name in parameter(self, "cameras", [""], "cameras of the rig to serve; empty: all") if name
        ]
        for name in wanted:
            if name not in rig.cameras:
                raise UnknownNameError(f"camera of rig {rig.name}", name, rig.cameras)
        self._cameras = {name: camera for name, camera in rig.cameras.items() if not wanted or name in wanted}
        self._is_over = threading.Event()
        self._arrivals = {name: Arrivals(camera.rate_hz) for name, camera in self._cameras.items()}
        self._ages_s: dict[str, float] = {}
        self._failures: dict[str, str] = {}
        self._threads: list[threading.Thread] = []
        edges = [(c.mount.parent, c.mount.frame, mount_pose(c.mount)) for c in self._cameras.values()]
        self._broadcaster = TransformBroadcaster(self)
        self._broadcaster.send(edges, now_ns(self), is_static=True)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        for name, camera in self._cameras.items():
            if camera.source.kind == "driver":
                self.create_subscription(
                    CameraInfo, camera.info_topic, functools.partial(self._on_driver_info, name), SENSOR
                )
            else:
                self._serve(name, camera)
        self.create_timer(1.0, self._publish_diagnostics)

    def _serve(self, name: str, camera: RigCamera) -> None:
        feed = CameraFeed(name, camera)
        images = self.create_publisher(Image, camera.topic, IMAGES)
        infos = self.create_publisher(CameraInfo, camera.info_topic, RELIABLE)

        def publish(image: ImageArray, source: CameraModel | None, stamp_ns: int) -> None:
            try:
                prepared, model = feed.prepare(image, source)
            except SensorError as error:
                self._failures[name] = str(error)
                self.get_logger().error(str(error), throttle_duration_sec=5.0)
                return
            infos.publish(image_messages.to_camera_info(model, stamp_ns, camera.mount.frame))
            images.publish(image_messages.to_image(prepared, stamp_ns, camera.mount.frame))
            self._failures.pop(name, None)
            self._note(name, stamp_ns)

        latency_ns = round(camera.source.latency_s * 1e9)
        if camera.source.kind == "topic":
            newest: dict[str, CameraInfo] = {}
            info_topic = f"{camera.source.address.rpartition('/')[0]}/camera_info"

            def on_info(message: CameraInfo) -> None:
                if message.k[0] > 0.0:
                    newest["info"] = message

            def on_image(message: Image) -> None:
                stamp_ns = now_ns(self) if camera.source.restamp else messages.to_ns(message.header.stamp)
                try:
                    source = image_messages.from_camera_info(newest["info"]) if newest else None
                    publish(image_messages.from_image(message), source, stamp_ns - latency_ns)
                except SensorError as error:
                    self._failures[name] = str(error)
                    self.get_logger().error(str(error), throttle_duration_sec=5.0)

            self.create_subscription(CameraInfo, info_topic, on_info, newest_only(SENSOR))
            self.create_subscription(Image, camera.source.address, on_image, newest_only(SENSOR))
            return
        capture = open_capture(name, camera.source.address)

        def read() -> None:
            next_s = time.monotonic()
            while not self._is_over.is_set():
                is_read, bgr = capture.read()
                stamp_ns = now_ns(self) - latency_ns
                if not is_read and camera.source.kind == "video":
                    capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
                    is_read, bgr = capture.read()
                if not is_read:
                    self._failures[name] = f"camera {name}: {camera.source.address} gives no more images; unplugged?"
                    self._is_over.wait(0.5)
                    continue
                publish(np.ascontiguousarray(bgr[:, :, ::-1]), None, stamp_ns)
                if camera.source.kind == "video":
                    next_s = max(next_s + 1.0 / camera.rate_hz, time.monotonic())
                    self._is_over.wait(max(0.0, next_s - time.monotonic()))
            capture.release()

        thread = threading.Thread(target=read, name=f"camera {name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _on_driver_info(self, name: str, message: CameraInfo) -> None:
        self._note(name, messages.to_ns(message.header.stamp))

    def _note(self, name: str, stamp_ns: int) -> None:
        self._ages_s[name] = (now_ns(self) - stamp_ns) * 1e-9
        self._arrivals[name].note(time.monotonic())

    def _publish_diagnostics(self) -> None:
        now_s = time.monotonic()
        values: dict[str, object] = {}
        problems = []
        for name, arrivals in self._arrivals.items():
            values[RATE_KEY.format(name)] = arrivals.rate_hz(now_s)
            age_s = self._ages_s.get(name, math.nan)
            values[f"{name}_age_s"] = age_s
            if name in self._failures:
                problems.append(self._failures[name])
            elif problem := arrivals.problem(now_s):
                problems.append(f"camera {name} {problem}: {self._mend(name, arrivals.is_silent(now_s))}")
            elif not -_EARLY_S < age_s < _STALE_S:
                problems.append(
                    f"camera {name}: stamps are {age_s:.2f} s old; is its driver slow, or its clock another?"
                )
        level = DiagnosticStatus.WARN if problems else DiagnosticStatus.OK
        text = "; ".join(problems) or "all cameras at rate"
        self._diagnostics.publish(
            messages.to_diagnostics(now_ns(self), self.get_fully_qualified_name(), text, values, level)
        )

    def _mend(self, name: str, is_silent: bool) -> str:
        camera = self._cameras[name]
        if is_silent:
            what = {"driver": camera.info_topic, "topic": camera.source.address}.get(camera.source.kind)
            if what is None:
                return f"nothing from {camera.source.address}; is it still plugged in?"
            return f"nothing on {what}; does its driver run, in this namespace?"
        return "is its driver set to that rate, its exposure shorter than the period, and USB 3 or the network free?"

    def close(self) -> None:
        """Lets go of the devices."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(timeout=1.0)


def _make() -> Sequence[Node]:
    return [CameraNode()]


def main() -> int:
    """Runs camera_node."""
    return run(_make)


if __name__ == "__main__":
    sys.exit(main())
