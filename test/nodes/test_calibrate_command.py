"""`vla-ros calibrate` beside a running stack whose truth is known: delays that a test makes, poses that the simulator
tells, pictures that a test takes where the arm truly is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from board_camera import BoardCamera
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64
from tf2_msgs.msg import TFMessage

from vla_ros.calibration.boards import parse_board
from vla_ros.config import load, package_share
from vla_ros.contract import load_rig
from vla_ros.geometry import cameras, rotations, se3
from vla_ros.nodes import image_messages, messages
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.safety.config import SafetyConfig
from vla_ros.types import CameraModel, FloatArray, ImageArray

pytestmark = [pytest.mark.ros, pytest.mark.slow]

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
        self._wall = np.repeat(rng.integers(0, 255, (60, 80), dtype=np.uint8), 8, axis=0).repeat(8, axis=1)
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


def calibrate(folder: Path, *words: str, answers: str = "") -> tuple[int, dict[str, Any], str]:
    """Runs the command with answers on standard input; its exit code, its JSON and what it told."""
    done = subprocess.run(
        [sys.executable, "-m", "vla_ros.cli", "calibrate", *words, "--json"],
        input=answers,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(package_share())},
        timeout=110,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr


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
    np.testing.assert_array_equal(cell.positions(cell.peer.now_ns()), before)


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


BOARD = parse_board("charuco:7x5:25:18")
CAMERA = CameraModel(320, 240, cameras.camera_from_fov(320, 240, 0.9).K)


class Photographer:
    """Takes pictures of a board as a camera on the simulated arm would, from the pose that the simulator tells."""

    def __init__(self, peer: Any, T_tcp_cam: FloatArray, T_base_board: FloatArray) -> None:
        self._artist, self._rng = BoardCamera(CAMERA, samples=2), np.random.default_rng(0)
        self._peer, self._T_tcp_cam, self._T_base_board = peer, T_tcp_cam, T_base_board
        self._images = peer.speak(Image, "camera/hand/image")
        self._infos = peer.speak(CameraInfo, "camera/hand/camera_info")
        self._truth = peer.hear(TFMessage, "sim/ground_truth")
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.wait(0.15):
            newest = self._truth[-1:]
            del self._truth[:-1]
            for edge in newest[0].transforms if newest else ():
                if edge.child_frame_id == "tcp":
                    self._take(messages.to_ns(edge.header.stamp), messages.from_transform(edge.transform))

    def _take(self, stamp_ns: int, T_base_tcp: FloatArray) -> None:
        T_cam_board = se3.invert(T_base_tcp @ self._T_tcp_cam) @ self._T_base_board
        image: ImageArray = self._artist.take(BOARD, T_cam_board, self._rng)
        self._infos.publish(image_messages.to_camera_info(CAMERA, stamp_ns, "hand"))
        self._images.publish(image_messages.to_image(image, stamp_ns, "hand"))

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()


def pose(xyz_m: list[float], rpy_rad: list[float]) -> FloatArray:
    return se3.make_pose(np.array(xyz_m), rotations.rpy_to_matrix(np.array(rpy_rad)))


class TestInTheSimulator:
    """sim_node and motion, as bringup starts them."""

    T_TCP_CAM = pose([0.06, 0.01, -0.08], [0.05, -0.1, 1.6])

    @pytest.fixture(scope="class")
    def photographer(self, module_processes: Any, make_module_peer: Any, patience: Any) -> Iterator[Photographer]:
        pytest.importorskip("vla_ros.sim.world")
        module_processes.close()
        peer = make_module_peer("photographer")
        states = peer.hear(JointState, "joint_states")
        commands = peer.hear(JointState, "joint_command")
        sim = module_processes.start_node("sim_node", robot="panda", rig="panda_table", cameras=False)
        module_processes.start_node("motion", robot="panda")
        patience(lambda: (states and commands) or sim.poll() is not None, "the simulator and its motion path")
        assert sim.poll() is None, sim.text
        model = RobotModel.from_config(ROBOT)
        T_base_board = (
            model.forward_kinematics(model.home) @ self.T_TCP_CAM @ pose([-0.09, -0.06, 0.4], [0.1, 0.1, 0.0])
        )
        found = Photographer(peer, self.T_TCP_CAM, np.asarray(T_base_board))
        yield found
        found.close()

    def test_hand_eye_through_poses_finds_the_mount(self, photographer: Photographer, tmp_path: Path) -> None:
        """The mount in the rig is off by centimetres; the arm goes to poses by itself, through the safe path."""
        rig = yaml.safe_load((package_share() / "config" / "rigs" / "panda_table.yaml").read_text())
        guess = {
            "parent": ROBOT.tcp_frame,
            "frame": "hand",
            "position_m": [0.03, 0.0, -0.05],
            "rpy_rad": [0.0, 0.0, 1.5],
        }
        camera = {"topic": "camera/hand/image", "width": 320, "height": 240, "fovy_rad": 0.9, "rate_hz": 7.0}
        rig["cameras"] = {"hand": {**camera, "mount": guess}}
        (tmp_path / "cell.yaml").write_text(yaml.safe_dump(rig))
        home = RobotModel.from_config(ROBOT)
        T_home = home.forward_kinematics(home.home)
        rng = np.random.default_rng(1)
        poses = []
        for _ in range(13):
            turn = rotations.rotvec_to_matrix(rng.uniform(-0.33, 0.33, 3))
            T = se3.make_pose(T_home[:3, 3] + rng.uniform(-0.03, 0.03, 3), np.asarray(turn @ T_home[:3, :3]))
            poses.append([*T[:3, 3].tolist(), *rotations.matrix_to_rpy(T[:3, :3]).tolist()])
        (tmp_path / "poses.yaml").write_text(yaml.safe_dump({"poses": poses}))
        code, found, told = calibrate(
            tmp_path, "hand-eye", "--robot", "panda", "--rig", "cell.yaml", "--camera", "hand", "--poses", "poses.yaml",
            "--board", str(BOARD), "--speed", "0.25", "--save-poses", "taken.yaml", "--yes",
        )  # fmt: skip
        assert code == 0, (found.get("checks"), told)
        mount = load_rig(str(tmp_path / "cell.calibrated.yaml")).cameras["hand"].mount
        gap = se3.pose_error(self.T_TCP_CAM, pose(list(mount.position_m), list(mount.rpy_rad)))
        # Corners of small pictures; the arm's state and the truth are of the same tick.
        assert 1e3 * float(np.linalg.norm(gap[:3])) < 2.5
        assert np.degrees(np.linalg.norm(gap[3:])) < 0.35
        assert len(yaml.safe_load((tmp_path / "taken.yaml").read_text())["poses"]) >= 12
        assert found["moved_mm"] > 20.0

    def test_axes_and_gripper_of_the_simulator_are_good(self, photographer: Photographer, tmp_path: Path) -> None:
        code, found, told = calibrate(tmp_path, "gripper", "--robot", "panda", "--strokes", "1", "--yes")
        assert code == 0, (found, told)
        # The simulated gripper does what its YAML says.
        assert ROBOT.gripper is not None
        assert found["speed_per_s"] == pytest.approx(ROBOT.gripper.speed_per_s, rel=0.2)
        code, found, told = calibrate(tmp_path, "axes", "--robot", "panda", "--yes")
        assert code == 0, (found, told)
        assert [(move["frame"], move["axis"]) for move in found["moves"]] == [
            (frame, axis) for frame in ("base", "tool") for axis in "xyz"
        ]
