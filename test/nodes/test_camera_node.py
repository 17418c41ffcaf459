"""camera_node with a topic and a video in the place of devices. A V4L2 device is not among a test machine's things."""

from __future__ import annotations

import itertools
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image

from vla_ros.nodes import image_messages, messages
from vla_ros.nodes.camera_report import RATE_KEY, CameraReport
from vla_ros.nodes.tf import TransformBuffer, TransformError, TransformListener
from vla_ros.types import CameraModel

pytestmark = pytest.mark.ros

S = 1_000_000_000
K = np.array([[60.0, 0.0, 31.5], [0.0, 62.0, 23.5], [0.0, 0.0, 1.0]])
DISTORTION = (-0.3, 0.1, 0.002, -0.001, 0.0)
MOUNT = {
    "parent": "panda_link0",
    "frame": "camera_optical_frame",
    "position_m": [1.0, -0.2, 0.7],
    "rpy_rad": [-2.2, 0.1, 1.5],
}


def camera(**changes: Any) -> dict[str, Any]:
    return {
        "topic": "camera/front/image",
        "width": 64,
        "height": 48,
        "fovy_rad": 0.9,
        "rate_hz": 20.0,
        "mount": MOUNT,
        **changes,
    }


def write_rig(folder: Path, **cameras: dict[str, Any]) -> Path:
    path = folder / "rig.yaml"
    path.write_text(yaml.safe_dump({"name": "rig", "robot": "panda", "cameras": cameras}))
    return path


@pytest.fixture
def serve(tmp_path: Path, ros_domain: int) -> Iterator[Callable[..., Any]]:
    """Runs camera_node on a rig of the given cameras, in this process."""
    from vla_ros.nodes.camera_node import CameraNode

    running: list[tuple[Any, Any, threading.Event]] = []

    def serve(**cameras: dict[str, Any]) -> Any:
        rclpy.init(args=["--ros-args", "-p", f"rig:={write_rig(tmp_path, **cameras)}"])
        node = CameraNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        is_over = threading.Event()

        def spin() -> None:
            while not is_over.is_set():
                executor.spin_once(timeout_sec=0.1)

        thread = threading.Thread(target=spin, daemon=True)
        thread.start()
        running.append((node, thread, is_over))
        return node

    yield serve
    for node, thread, is_over in running:
        is_over.set()
        thread.join()
        node.close()
        node.destroy_node()
    rclpy.try_shutdown()


class TopicSource:
    """A driver whose images camera_node is to process."""

    def __init__(self, peer: Any, wait: Callable[..., Any]) -> None:
        self.peer, self._wait = peer, wait
        rng = np.random.default_rng(0)
        blocks = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        self.image = np.repeat(np.repeat(blocks, 4, axis=0), 4, axis=1)
        self.images: list[Image] = peer.hear(Image, "camera/front/image")
        self.infos: list[CameraInfo] = peer.hear(CameraInfo, "camera/front/camera_info")
        self._image = peer.speak(Image, "raw/image")
        self._info = peer.speak(CameraInfo, "raw/camera_info")
        self.info = image_messages.to_camera_info(CameraModel(64, 48, K, DISTORTION), 0, "raw")

    def send_until(self, condition: Callable[[], Any], what: str, stamp_ns: int = 5 * S) -> None:
        """Sends image and intrinsics again and again."""

        def sent() -> bool:
            self._info.publish(self.info)
            self._image.publish(image_messages.to_image(self.image, stamp_ns, "raw"))
            return bool(condition())

        self._wait(sent, what)


@pytest.fixture
def source(make_peer, patience) -> TopicSource:
    return TopicSource(make_peer("driver"), patience)


def test_topic_is_rectified_cropped_and_resized_and_its_camera_info_follows(serve, source) -> None:
    serve(
        front=camera(
            width=20,
            height=20,
            source={"kind": "topic", "address": "raw/image", "crop_xywh": [8, 4, 40, 40], "undistort": True},
        )
    )
    # By hand: half the focal lengths; the centre of the first pixel of a pair is a quarter of the new pixel off it.
    expected_k = [30.0, 0.0, (31.5 - 8 + 0.5) / 2 - 0.5, 0.0, 31.0, (23.5 - 4 + 0.5) / 2 - 0.5, 0.0, 0.0, 1.0]
    source.send_until(lambda: any(np.allclose(info.k, expected_k) for info in list(source.infos)), "its CameraInfo")
    count = len(source.images)
    source.send_until(lambda: len(source.images) > count + 1, "an image made after it")
    message = source.images[-1]
    assert (message.width, message.height, message.encoding) == (20, 20, "rgb8")
    assert message.header.frame_id == "camera_optical_frame"
    rectified = cv2.undistort(source.image, K, np.array(DISTORTION))
    # The mean of two by two pixels is what halving an image by area is; it may round the other way.
    expected = rectified[4:44, 8:48].reshape(20, 2, 20, 2, 3).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(image_messages.from_image(message).astype(float), expected, atol=1.0)
    info = source.infos[-1]
    assert (info.width, info.height, info.header.frame_id) == (20, 20, "camera_optical_frame")
    assert not any(info.d)


def test_stamps_of_a_topic_are_the_sources_own(serve, source) -> None:
    serve(front=camera(source={"kind": "topic", "address": "raw/image"}))
    source.send_until(lambda: source.images and source.infos, "an image", stamp_ns=123 * S + 456)
    assert messages.to_ns(source.images[-1].header.stamp) == 123 * S + 456
    assert source.infos[-1].header.stamp == source.images[-1].header.stamp
    np.testing.assert_array_equal(image_messages.from_image(source.images[-1]), source.image)


def test_stamps_of_a_topic_that_is_known_to_be_late_are_dated_back(serve, source) -> None:
    serve(front=camera(source={"kind": "topic", "address": "raw/image", "latency_s": 0.04}))
    source.send_until(lambda: source.images and source.infos, "an image", stamp_ns=123 * S + 456)
    assert messages.to_ns(source.images[-1].header.stamp) == 123 * S + 456 - 40_000_000
    assert source.infos[-1].header.stamp == source.images[-1].header.stamp


def test_restamped_topic_has_the_time_of_arrival_less_the_latency(serve, source) -> None:
    serve(front=camera(source={"kind": "topic", "address": "raw/image", "restamp": True, "latency_s": 100.0}))
    begin_ns = source.peer.now_ns()
    source.send_until(lambda: source.images, "an image")
    end_ns = source.peer.now_ns()
    assert begin_ns - 100 * S <= messages.to_ns(source.images[-1].header.stamp) <= end_ns - 100 * S


def test_crop_that_does_not_fit_publishes_nothing_and_is_told(serve, source, patience) -> None:
    serve(front=camera(source={"kind": "topic", "address": "raw/image", "crop_xywh": [40, 0, 40, 48]}))
    told = source.peer.hear(DiagnosticArray, "/diagnostics")
    source.send_until(
        lambda: any("crop_xywh (40, 0, 40, 48)" in m.status[0].message for m in list(told)), "a diagnostic"
    )
    assert not source.images


def test_lens_of_another_kind_publishes_nothing_and_is_told_until_it_is_mended(serve, source) -> None:
    mended, source.info = source.info, image_messages.to_camera_info(CameraModel(64, 48, K, ()), 0, "raw")
    source.info.distortion_model = "equidistant"
    serve(front=camera(source={"kind": "topic", "address": "raw/image"}))
    told = source.peer.hear(DiagnosticArray, "/diagnostics")

    def is_told() -> bool:
        return bool(told) and "distortion model 'equidistant'" in told[-1].status[0].message

    source.send_until(is_told, "a diagnostic")
    # Images that came before the first camera_info had the rig's intrinsics.
    count, told_before = len(source.images), len(told)
    source.send_until(lambda: len(told) > told_before, "another diagnostic")
    assert len(source.images) == count
    source.info = mended
    source.send_until(lambda: not is_told(), "a diagnostic without it")
    assert len(source.images) > count


def write_video(path: Path, colours: list[tuple[int, int, int]]) -> Path:
    """A video with an image of each rgb colour."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for red, green, blue in colours:
        writer.write(np.full((48, 64, 3), (blue, green, red), dtype=np.uint8))
    writer.release()
    return path


def test_video_is_played_again_and_again_in_the_rigs_form(serve, make_peer, patience, tmp_path) -> None:
    peer = make_peer("viewer")
    images, infos = peer.hear(Image, "camera/front/image"), peer.hear(CameraInfo, "camera/front/camera_info")
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    video = write_video(tmp_path / "video.avi", colours)
    begin_ns = peer.now_ns()
    serve(front=camera(width=32, height=24, rate_hz=50.0, source={"kind": "video", "address": str(video)}))
    patience(lambda: len(images) >= 12 and len(infos) >= 12, "four rounds")
    stamps_ns = [messages.to_ns(message.header.stamp) for message in images]
    assert begin_ns < stamps_ns[0]
    assert all(after > before for before, after in itertools.pairwise(stamps_ns))
    # MJPG keeps a plain colour to a few units.
    means = np.array([image_messages.from_image(message).mean(axis=(0, 1)) for message in images])
    shown = [int(np.argmin(np.abs(np.array(colours) - mean).max(axis=1))) for mean in means]
    np.testing.assert_allclose(means, np.array(colours)[shown], atol=6.0)
    assert all(after == (before + 1) % 3 for before, after in itertools.pairwise(shown))
    assert all((message.width, message.height) == (32, 24) for message in [*images, *infos])
    # The ideal camera of the rig: 24 rows in 0.9 rad.
    assert infos[0].k[4] == pytest.approx(12.0 / np.tan(0.45))


def test_rate_of_a_camera_that_stays_away_is_told(serve, make_peer, patience) -> None:
    peer = make_peer("listener")
    told = peer.hear(DiagnosticArray, "/diagnostics")
    serve(front=camera(), side=camera(topic="camera/side/image", source={"kind": "topic", "address": "raw/image"}))
    patience(lambda: told, "a diagnostic")
    front, side = told[-1].status[0].message.split("; ", 1)[0], told[-1].status[0].message
    assert front.startswith("camera front at 0.0 Hz, the rig says 20 Hz: nothing on camera/front/camera_info")
    assert "camera side at 0.0 Hz, the rig says 20 Hz: nothing on raw/image; does its driver run" in side
    assert told[-1].status[0].level == b"\x01"


@pytest.mark.parametrize(("late_s", "text"), [(3.0, "stamps are 3"), (-3.0, "stamps are -3"), (0.1, "at rate")])
def test_stamps_that_are_old_or_of_another_clock_are_told(late_s, text, serve, make_peer, patience) -> None:
    peer = make_peer("driver")
    told, infos = peer.hear(DiagnosticArray, "/diagnostics"), peer.speak(CameraInfo, "camera/front/camera_info")
    model = CameraModel(64, 48, K, DISTORTION)

    def publish() -> None:
        infos.publish(image_messages.to_camera_info(model, peer.now_ns() - round(late_s * S), "camera_optical_frame"))

    peer.node.create_timer(0.05, publish)
    serve(front=camera())
    patience(lambda: any(text in message.status[0].message for message in list(told)), text)
    values = {item.key: float(item.value) for item in told[-1].status[0].values}
    # Half a second for a machine that stands still.
    assert late_s - 0.01 < values["front_age_s"] < late_s + 0.5


@pytest.fixture
def report(make_peer) -> Callable[..., CameraReport]:
    """Who leads an arm, in a namespace, and hears what camera_node says of cameras."""

    def report(*names: str, namespace: str = "") -> CameraReport:
        return CameraReport(make_peer("leader", namespace=namespace).node, names)

    return report


def test_whoever_leads_an_arm_has_the_cameras_problems_from_camera_node(serve, report, make_peer, patience) -> None:
    front = report("front")
    assert front.problem.startswith("/camera_node says nothing on /diagnostics for 3 s; is it running?")
    peer = make_peer("driver")
    infos = peer.speak(CameraInfo, "camera/front/camera_info")
    serve(front=camera())
    patience(lambda: front.problem.startswith("camera front at 0.0 Hz, the rig says 20 Hz: nothing on"), "silence")
    period_s = [0.125]
    model = CameraModel(64, 48, K, DISTORTION)

    def publish() -> None:
        infos.publish(image_messages.to_camera_info(model, peer.now_ns(), "camera_optical_frame"))

    timer = peer.node.create_timer(period_s[0], publish)
    patience(lambda: "Hz, the rig says 20 Hz: is its driver set to that rate" in front.problem, "a camera that is slow")
    # A timer's rate, of a machine that may stall: never faster than it was set to, but for what rounding shows.
    found = re.search(r"camera front at ([\d.]+) Hz", front.problem)
    assert found is not None
    assert float(found[1]) < 9.0
    timer.cancel()
    peer.node.create_timer(0.05, publish)
    patience(lambda: front.problem == "", "a camera at its rate")


def test_cameras_that_camera_node_leaves_out_are_named(serve, report, patience) -> None:
    both = report("front", "side")
    serve(front=camera())
    patience(lambda: both.problem.startswith("/camera_node doesn't watch side; give it the same rig"), "the lack")


def test_camera_node_of_another_arm_is_not_listened_to(report, make_peer, patience) -> None:
    left, right = report("front", namespace="/left"), report("front", namespace="/right")
    diagnostics = make_peer("cameras").speak(DiagnosticArray, "/diagnostics")
    bad, good = DiagnosticStatus.WARN, DiagnosticStatus.OK

    def told() -> bool:
        for name, text, level in (("/left", "front is slow", bad), ("/right", "all cameras at rate", good)):
            values = {RATE_KEY.format("front"): 1.0}
            diagnostics.publish(messages.to_diagnostics(0, f"{name}/camera_node", text, values, level))
        return left.problem == "front is slow" and right.problem == ""

    patience(told, "each its own")


def test_mounts_are_in_tf_for_whoever_comes_late(serve, make_peer, patience) -> None:
    other = {**MOUNT, "parent": "hand", "frame": "camera_on_hand", "position_m": [0.0, 0.1, 0.0]}
    serve(front=camera(), hand=camera(topic="camera/hand/image", mount=other))
    buffer = TransformBuffer()
    TransformListener(make_peer("late").node, buffer, with_moving=False)

    def are_known() -> bool:
        try:
            buffer.lookup("panda_link0", "camera_optical_frame")
            buffer.lookup("hand", "camera_on_hand")
        except TransformError:
            return False
        return True

    patience(are_known, "the mounts")
    T = buffer.lookup("panda_link0", "camera_optical_frame")
    np.testing.assert_allclose(T[:3, 3], MOUNT["position_m"], atol=1e-12)
    # URDF's rpy: about the fixed axes x, y, z in turn.
    np.testing.assert_allclose(T[:3, :3], Rotation.from_euler("xyz", MOUNT["rpy_rad"]).as_matrix(), atol=1e-9)
    np.testing.assert_allclose(buffer.lookup("hand", "camera_on_hand")[:3, 3], [0.0, 0.1, 0.0], atol=1e-12)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"kind": "device", "address": "/dev/video_of_nobody"}, "/dev/video_of_nobody can't be opened; does it exist"),
        ({"kind": "video", "address": "/nowhere/video.mp4"}, "/nowhere/video.mp4 can't be opened; does it exist"),
    ],
)
def test_unreadable_source_ends_the_node_with_code_2_and_a_line_that_names_it(
    processes, tmp_path, source, text
) -> None:
    rig = write_rig(tmp_path, front=camera(source=source))
    process = processes.start_node("camera_node", rig=rig)
    assert process.wait(30.0) == 2
    assert f"camera front: {text}" in process.text.splitlines()[-1]
    assert "Traceback" not in process.text


def test_unknown_camera_ends_the_node_with_code_2_and_the_known_ones(processes, tmp_path) -> None:
    process = processes.start_node("camera_node", rig=write_rig(tmp_path, front=camera()), cameras="[frnt]")
    assert process.wait(30.0) == 2
    assert process.text.splitlines()[-1] == "unknown camera of rig rig 'frnt'; did you mean 'front'? known: front"


def test_node_without_its_rig_says_what_to_pass(processes) -> None:
    process = processes.start(sys.executable, "-m", "vla_ros.nodes", "camera_node")
    assert process.wait(30.0) == 2
    assert "camera_node: parameter 'rig' is not set" in process.text.splitlines()[-1]
    assert "-p rig:=" in process.text
