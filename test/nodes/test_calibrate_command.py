"""`vla-ros calibrate` beside a motion path with an arm, a gripper and a camera behind it whose delays are known."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from calibrate_call import calibrate
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64

from vla_ros.calibration.yaml_text import set_values
from vla_ros.config import load, package_share
from vla_ros.nodes import image_messages, messages
from vla_ros.nodes.safety_node import SafetyNode
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.safety.config import SafetyConfig
from vla_ros.types import FloatArray

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.lengthy]

ROBOT = load_robot("panda")


class DelayedCell:
    """An arm that is where it was told to be a known time ago, a gripper of known speed, and a camera before it.

    The picture is a speckled wall that goes with the tool; its stamps are late by a known time.
    """

    ARM_S, CAMERA_S, GRIPPER_S, GRIPPER_PER_S = 0.060, 0.080, 0.15, 0.8

    def __init__(self, peer: Any, processes: Any, wait: Callable[..., Any]) -> None:
        self.peer, self.model = peer, RobotModel.from_config(ROBOT)
        self._stamps: list[int] = []
        self._told: list[list[float]] = []
        self._opening, self._was_opening, self._gripper_told_ns = 1.0, 1.0, 0
        self._asked = 1.0
        self.is_gripper_reversed = False
        rng = np.random.default_rng(0)
        speckles = np.repeat(rng.integers(0, 255, (60, 80), dtype=np.uint8), 8, axis=0).repeat(8, axis=1)
        self._wall = cv2.GaussianBlur(speckles, (0, 0), 3.0)  # Flow is of smooth pictures.
        node = peer.node
        node.create_subscription(JointState, "joint_command", self._on_command, 1000)
        node.create_subscription(Float64, "gripper/command", self._on_gripper, 10)
        self._states = peer.speak(JointState, "joint_states")
        self._gripper = peer.speak(JointState, "gripper/state")
        self._images = peer.speak(Image, "camera/base/image")
        node.create_timer(0.01, self._publish)
        node.create_timer(0.02, self._publish_gripper)
        node.create_timer(0.05, self._publish_image)
        self.motion = processes.start_node("motion", robot="panda")
        wait(lambda: self._stamps or self.motion.poll() is not None, "the first command")
        assert self.motion.poll() is None, self.motion.text

    def _on_command(self, message: JointState) -> None:
        self._stamps.append(messages.to_ns(message.header.stamp))
        self._told.append(list(message.position))

    def positions(self, stamp_ns: int) -> FloatArray:
        """(7,) where the arm is at a time, between the ticks of the command of 60 ms before."""
        at = stamp_ns - round(1e9 * self.ARM_S)
        after = bisect_right(self._stamps, at)
        if after == 0:
            return self.model.home
        if after == len(self._stamps):
            return np.array(self._told[-1])
        begin, end = self._stamps[after - 1], self._stamps[after]
        share = (at - begin) / (end - begin)
        return np.array(self._told[after - 1]) * (1.0 - share) + share * np.array(self._told[after])

    def _publish(self) -> None:
        now_ns = self.peer.now_ns()
        message = JointState(name=list(ROBOT.joint_names), position=self.positions(now_ns).tolist())
        message.header.stamp = messages.to_time(now_ns)
        self._states.publish(message)

    def _on_gripper(self, message: Float64) -> None:
        self._was_opening, self._asked, self._gripper_told_ns = self._opening, message.data, self.peer.now_ns()

    def _publish_gripper(self) -> None:
        gone = max(0.0, (self.peer.now_ns() - self._gripper_told_ns) * 1e-9 - self.GRIPPER_S) * self.GRIPPER_PER_S
        way = self._asked - self._was_opening
        self._opening = self._was_opening + float(np.sign(way)) * min(abs(way), gone)
        told = 1.0 - self._opening if self.is_gripper_reversed else self._opening
        self._gripper.publish(JointState(name=["panda_finger_joint1"], position=[told]))

    def _publish_image(self) -> None:
        exposed_ns = self.peer.now_ns()
        # 600 px a metre along base y.
        place = 240.0 + 600.0 * float(self.model.forward_kinematics(self.positions(exposed_ns))[1, 3])
        whole, part = int(np.floor(place)), place % 1.0
        left, right = (self._wall[60:300, whole + i : whole + i + 320].astype(float) for i in (0, 1))
        gray = np.round((1.0 - part) * left + part * right).astype(np.uint8)
        image = np.repeat(gray[:, :, None], 3, axis=2)
        stamp_ns = exposed_ns + round(1e9 * self.CAMERA_S)
        self._images.publish(image_messages.to_image(image, stamp_ns, "camera_base_optical_frame"))


@pytest.fixture(scope="module")
def cell(module_processes: Any, make_module_peer: Any, patience: Any) -> DelayedCell:
    module_processes.close()
    return DelayedCell(make_module_peer("cell"), module_processes, patience)


def failed(found: dict[str, Any]) -> set[str]:
    return {check["name"] for check in found["checks"] if not check["is_good"]}


def test_latency_of_arm_and_camera_are_those_that_were_made(cell: DelayedCell, tmp_path: Path) -> None:
    code, found, told = calibrate(tmp_path, "latency", "--robot", "panda", "--camera", "base", "--yes")
    assert code == 0, (found, told)
    # States come every 10 ms, images every 50 ms.
    assert found["arm"]["latency_s"] == pytest.approx(cell.ARM_S, abs=0.004)
    assert found["camera"]["latency_s"] == pytest.approx(cell.CAMERA_S, abs=0.010)
    robot = load_robot(str(tmp_path / "panda.calibrated.yaml"))
    assert robot.command.delay_s == pytest.approx(cell.ARM_S, abs=0.004)
    safety = load(SafetyConfig, tmp_path / "safety.calibrated.yaml")
    assert safety.observation_latency_s == pytest.approx(cell.CAMERA_S, abs=0.010)
    assert {Path(item["file"]).name for item in found["written"]} == {"panda.calibrated.yaml", "safety.calibrated.yaml"}


def test_gripper_is_what_the_cell_makes_it(cell: DelayedCell, tmp_path: Path) -> None:
    code, found, told = calibrate(tmp_path, "gripper", "--robot", "panda", "--strokes", "1", answers="y\ny\ny\n")
    assert code == 0, (found, told)
    assert "did it open?" in told
    assert found["speed_per_s"] == pytest.approx(cell.GRIPPER_PER_S, rel=0.1)
    assert found["dead_time_s"] == pytest.approx(cell.GRIPPER_S, abs=0.05)
    assert (found["closed"], found["open"]) == pytest.approx((0.0, 1.0), abs=0.01)
    # The YAML has another speed.
    new = load_robot(str(tmp_path / "panda.calibrated.yaml")).gripper
    assert new is not None
    assert new.speed_per_s == pytest.approx(cell.GRIPPER_PER_S, rel=0.1)


def test_gripper_the_wrong_way_round_is_a_bad_verdict(cell: DelayedCell, tmp_path: Path) -> None:
    cell.is_gripper_reversed = True
    try:
        code, found, _ = calibrate(tmp_path, "gripper", "--robot", "panda", "--strokes", "1", "--yes")
    finally:
        cell.is_gripper_reversed = False
    assert code == 1
    assert found["is_reversed"]
    assert "sense" in failed(found)
    assert list(tmp_path.iterdir()) == []


def test_an_operators_no_is_a_bad_verdict_though_the_figures_are_good(cell: DelayedCell, tmp_path: Path) -> None:
    code, found, _ = calibrate(tmp_path, "gripper", "--robot", "panda", "--strokes", "1", answers="y\nn\nn\n")
    assert code == 1
    assert failed(found) == {"seen"}


def test_nothing_moves_unless_somebody_says_that_the_way_is_clear(cell: DelayedCell, tmp_path: Path) -> None:
    before = cell.positions(cell.peer.now_ns())
    code, _, told = calibrate(tmp_path, "axes", "--robot", "panda", answers="n\n")
    assert code == 2
    assert "nothing was moved" in told
    np.testing.assert_allclose(cell.positions(cell.peer.now_ns()), before, atol=1e-9)


def test_base_turned_by_half_a_turn_is_named(cell: DelayedCell, tmp_path: Path) -> None:
    tools: list[FloatArray] = []
    is_over = threading.Event()

    def look() -> None:
        model = RobotModel.from_config(ROBOT)
        while not is_over.wait(0.02):
            tools.append(model.forward_kinematics(cell.positions(cell.peer.now_ns()))[:3, 3])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        # The way is clear; base x and y are wrong, z and the tool's are right.
        code, found, told = calibrate(tmp_path, "axes", "--robot", "panda", answers="y\nn\nn\ny\ny\ny\ny\n")
    finally:
        is_over.set()
        thread.join()
    assert code == 1, told
    assert "away from the base" in told
    assert failed(found) == {"base_x_seen", "base_y_seen", "likely_cause"}
    assert any("base_link" in check["text"] for check in found["checks"])
    # Where the arm truly was: 20 mm to +x and +z and, tool down, to both sides and down, from where it began.
    away = np.array(tools) - tools[0]
    np.testing.assert_allclose(away.max(axis=0), [0.02, 0.02, 0.02], atol=0.002)
    np.testing.assert_allclose(away.min(axis=0), [0.0, -0.02, -0.02], atol=0.002)
    for move in found["moves"]:
        np.testing.assert_allclose(move["measured_m"], move["wanted_m"], atol=0.002)


def test_without_a_stack_it_says_what_is_missing(ros_domain: int, tmp_path: Path) -> None:
    code, _, told = calibrate(tmp_path, "gripper", "--robot", "ur5e", "--timeout", "0.5", "--namespace", "nobody")
    assert code == 2
    assert "no gripper/state within 0.5 s" in told


def test_the_latency_that_was_written_is_what_the_filter_leads_by(ros_domain: int, tmp_path: Path) -> None:
    path = tmp_path / "late.yaml"
    text = (package_share() / "config" / "robots" / "panda.yaml").read_text()
    path.write_text(set_values(text, {("command", "latency_s", "position"): 0.043}, "panda.yaml"))
    rclpy.init(args=["--ros-args", "-p", f"robot:={path}"])
    try:
        node = SafetyNode()
        assert node.filter.config.actuation_latency_s == pytest.approx(0.043)
        node.destroy_node()
    finally:
        rclpy.shutdown()
