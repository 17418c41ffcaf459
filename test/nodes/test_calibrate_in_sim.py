"""`vla-ros calibrate` in the simulator: its motion, its gripper, and pictures taken where it says that the arm is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")
pytest.importorskip("vla_ros.sim.world")

from board_camera import BoardCamera
from calibrate_call import calibrate
from sensor_msgs.msg import CameraInfo, Image, JointState
from tf2_msgs.msg import TFMessage

from vla_ros.calibration.boards import parse_board
from vla_ros.config import package_share
from vla_ros.contract import load_rig
from vla_ros.geometry import cameras, rotations, se3
from vla_ros.nodes import image_messages, messages
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.types import CameraModel, FloatArray, ImageArray

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.slow, pytest.mark.lengthy]

ROBOT = load_robot("panda")
BOARD = parse_board("charuco:7x5:25:18")
CAMERA = CameraModel(480, 360, cameras.camera_from_fov(480, 360, 0.9).K)


class Photographer:
    """Takes pictures of a board as a camera on the simulated arm would, from the pose that the simulator tells."""

    def __init__(self, peer: Any, T_tcp_cam: FloatArray, T_base_board: FloatArray) -> None:
        self._artist, self._rng = BoardCamera(CAMERA, samples=2), np.random.default_rng(0)
        self._before = np.eye(4)
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
        # While it moves, no more than a gray picture: drawing is what the motion's own time would go to.
        is_still = float(np.abs(T_base_tcp - self._before).max()) < 1e-4
        self._before = T_base_tcp
        image: ImageArray = np.full((CAMERA.height, CAMERA.width, 3), 110, dtype=np.uint8)
        if is_still:
            T_cam_board = se3.invert(T_base_tcp @ self._T_tcp_cam) @ self._T_base_board
            image = self._artist.take(BOARD, T_cam_board, self._rng)
        self._infos.publish(image_messages.to_camera_info(CAMERA, stamp_ns, "hand"))
        self._images.publish(image_messages.to_image(image, stamp_ns, "hand"))

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()


def pose(xyz_m: list[float], rpy_rad: list[float]) -> FloatArray:
    return se3.make_pose(np.array(xyz_m), rotations.rpy_to_matrix(np.array(rpy_rad)))


T_TCP_CAM = pose([0.06, 0.01, -0.08], [0.05, -0.1, 1.6])


@pytest.fixture(scope="module")
def photographer(module_processes: Any, make_module_peer: Any, patience: Any) -> Iterator[Photographer]:
    module_processes.close()
    peer = make_module_peer("photographer")
    states = peer.hear(JointState, "joint_states")
    commands = peer.hear(JointState, "joint_command")
    sim = module_processes.start_node("sim_node", robot="panda", rig="panda_table", cameras=False)
    module_processes.start_node("motion", robot="panda")
    patience(lambda: (states and commands) or sim.poll() is not None, "the simulator and its motion path")
    assert sim.poll() is None, sim.text
    model = RobotModel.from_config(ROBOT)
    T_base_board = model.forward_kinematics(model.home) @ T_TCP_CAM @ pose([-0.09, -0.06, 0.4], [0.1, 0.1, 0.0])
    found = Photographer(peer, T_TCP_CAM, np.asarray(T_base_board))
    yield found
    found.close()


@pytest.mark.timeout(260)
def test_hand_eye_through_poses_finds_the_mount(photographer: Photographer, tmp_path: Path) -> None:
    """The mount in the rig is off by centimetres; the arm goes to poses by itself, through the safe path."""
    rig = yaml.safe_load((package_share() / "config" / "rigs" / "panda_table.yaml").read_text())
    guess = {
        "parent": ROBOT.tcp_frame,
        "frame": "hand",
        "position_m": [0.03, 0.0, -0.05],
        "rpy_rad": [0.0, 0.0, 1.5],
    }
    camera = {"topic": "camera/hand/image", "width": 480, "height": 360, "fovy_rad": 0.9, "rate_hz": 7.0}
    rig["cameras"] = {"hand": {**camera, "mount": guess}}
    (tmp_path / "cell.yaml").write_text(yaml.safe_dump(rig))
    model = RobotModel.from_config(ROBOT)
    T_home = model.forward_kinematics(model.home)
    rng = np.random.default_rng(1)
    poses = []
    for _ in range(15):
        turn = rotations.rotvec_to_matrix(rng.uniform(-0.33, 0.33, 3))
        T = se3.make_pose(T_home[:3, 3] + rng.uniform(-0.03, 0.03, 3), np.asarray(turn @ T_home[:3, :3]))
        poses.append([*T[:3, 3].tolist(), *rotations.matrix_to_rpy(T[:3, :3]).tolist()])
    (tmp_path / "poses.yaml").write_text(yaml.safe_dump({"poses": poses}))
    code, found, told = calibrate(
        tmp_path, "hand-eye", "--robot", "panda", "--rig", "cell.yaml", "--camera", "hand", "--poses", "poses.yaml",
        "--board", str(BOARD), "--speed", "0.25", "--save-poses", "taken.yaml", "--yes",
    )  # fmt: skip
    assert code == 0, f"{found.get('checks')}\n{told}"
    mount = load_rig(str(tmp_path / "cell.calibrated.yaml")).cameras["hand"].mount
    gap = se3.pose_error(T_TCP_CAM, pose(list(mount.position_m), list(mount.rpy_rad)))
    # Corners of small pictures; the arm's state and the truth are of the same tick.
    assert 1e3 * float(np.linalg.norm(gap[:3])) < 3.0
    assert np.degrees(np.linalg.norm(gap[3:])) < 0.4
    assert len(yaml.safe_load((tmp_path / "taken.yaml").read_text())["poses"]) >= 12
    assert found["moved_mm"] > 20.0


def test_axes_and_gripper_of_the_simulator_are_good(photographer: Photographer, tmp_path: Path) -> None:
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
