"""Hand-eye sessions from pictures: a Panda stands in known poses, a known camera takes pictures of a board."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from board_camera import BoardCamera

from vla_ros.calibration.boards import find_board, parse_board
from vla_ros.calibration.hand_eye import (
    HandEyeSample,
    calibrate_mount,
    is_new,
    is_still,
    missing,
    setup_of,
    turns_deg,
)
from vla_ros.calibration.verdict import CalibrateError, is_good
from vla_ros.geometry import cameras, rotations, se3
from vla_ros.geometry.hand_eye import CalibrationError, Setup, locate_target
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.types import CameraModel, FloatArray

BOARD = parse_board("charuco:7x5:25:18")
CAMERA = CameraModel(480, 360, cameras.camera_from_fov(480, 360, 0.9).K, (-0.2, 0.05, 0.0, 0.0))
SETUPS: tuple[Setup, ...] = ("eye_in_hand", "eye_to_hand")


def pose(xyz_m: list[float], rpy_rad: list[float]) -> FloatArray:
    return se3.make_pose(np.array(xyz_m), rotations.rpy_to_matrix(np.array(rpy_rad)))


# In the tcp, looking along the fingers from beside them; in the room, looking back at the arm.
T_TCP_CAM = pose([0.06, 0.01, -0.08], [0.05, -0.1, 1.6])
T_BASE_CAM = pose([1.1, 0.05, 0.45], [-1.9, 0.02, 1.5])


def tool_poses(count: int, seed: int, tilt_rad: float = 0.45) -> list[FloatArray]:
    """Around a place over the table, tool down, turned every way."""
    rng = np.random.default_rng(seed)
    down = np.diag([1.0, -1.0, -1.0])
    found = []
    for _ in range(count):
        R = rotations.rotvec_to_matrix(rng.uniform(-tilt_rad, tilt_rad, 3)) @ down
        found.append(se3.make_pose(np.array([0.5, 0.0, 0.35]) + rng.uniform(-0.05, 0.05, 3), R))
    return found


def samples_of(setup: Setup, arm: list[FloatArray], noise_px: float = 0.05, seed: int = 0) -> list[HandEyeSample]:
    """Without pictures: corners with noise, and pnp."""
    rng = np.random.default_rng(seed)
    points = np.array([[0.025 * (i % 6 + 1), 0.025 * (i // 6 + 1), 0.0] for i in range(24)])
    found = []
    for number, T_base_tcp in enumerate(arm):
        T_cam_board = board_before(setup, T_base_tcp)
        pixels = cameras.project(CAMERA, points @ T_cam_board[:3, :3].T + T_cam_board[:3, 3])
        pixels = pixels + rng.normal(scale=noise_px, size=pixels.shape)
        T, rms_px = locate_target(CAMERA, points, pixels)
        found.append(HandEyeSample(number, T_base_tcp, T, rms_px))
    return found


# On the table below the camera; in the gripper, towards the camera in the room.
T_BASE_BOARD = pose([0.46, 0.07, 0.0], [np.pi, 0.0, 0.4])
T_TCP_BOARD = pose([0.02, -0.05, 0.05], [1.4, 0.1, 1.5])


def board_before(setup: Setup, T_base_tcp: FloatArray) -> FloatArray:
    if setup == "eye_in_hand":
        return np.asarray(se3.invert(T_base_tcp @ T_TCP_CAM) @ T_BASE_BOARD)
    return np.asarray(se3.invert(T_BASE_CAM) @ T_base_tcp @ T_TCP_BOARD)


def truth(setup: Setup) -> FloatArray:
    return T_TCP_CAM if setup == "eye_in_hand" else T_BASE_CAM


def error_mm_deg(T: FloatArray, wanted: FloatArray) -> tuple[float, float]:
    gap = se3.pose_error(wanted, T)
    return 1e3 * float(np.linalg.norm(gap[:3])), float(np.degrees(np.linalg.norm(gap[3:])))


def test_mount_is_recovered_from_pictures() -> None:
    artist, rng = BoardCamera(CAMERA, samples=2), np.random.default_rng(5)
    model = RobotModel.from_config(load_robot("panda"))
    found: list[HandEyeSample] = []
    while len(found) < 14:
        q = model.home + rng.uniform(-0.3, 0.3, 7)
        T_base_tcp = model.forward_kinematics(q)
        # The board where the camera at home looks, so that it stays in view.
        T_base_board = model.forward_kinematics(model.home) @ T_TCP_CAM @ pose([-0.09, -0.06, 0.40], [0.1, 0.1, 0.0])
        image = artist.take(BOARD, se3.invert(T_base_tcp @ T_TCP_CAM) @ T_base_board, rng)
        sighting = find_board(BOARD, image)
        if sighting is None or len(sighting.ids) < 12:
            continue
        T_cam_board, rms_px = locate_target(CAMERA, sighting.points_m, sighting.pixels)
        found.append(HandEyeSample(len(found), T_base_tcp, T_cam_board, rms_px))
    mount = calibrate_mount(found, "eye_in_hand", np.eye(4))
    assert is_good(mount.checks), [check.text for check in mount.checks]
    mm, deg = error_mm_deg(mount.T_parent_cam, T_TCP_CAM)
    assert mm < 2.0
    assert deg < 0.3
    # What it says of itself is of the size of the truth.
    assert mm < 4.0 * mount.std_mm + 0.3


@pytest.mark.parametrize("setup", SETUPS)
def test_mount_is_recovered_in_its_own_parent(setup: Setup) -> None:
    T_base_parent = pose([0.1, -0.2, 0.3], [0.2, 0.1, -0.4])
    mount = calibrate_mount(samples_of(setup, tool_poses(15, 3)), setup, T_base_parent)
    assert is_good(mount.checks), [check.text for check in mount.checks]
    # Eye-in-hand poses are of the parent already.
    wanted = truth(setup) if setup == "eye_in_hand" else se3.invert(T_base_parent) @ truth(setup)
    mm, deg = error_mm_deg(mount.T_parent_cam, wanted)
    assert mm < 1.5
    assert deg < 0.2


def test_a_board_that_slipped_makes_the_verdict_bad() -> None:
    found = samples_of("eye_in_hand", tool_poses(15, 4))
    slip = pose([0.02, 0.0, 0.0], [0.0, 0.0, 0.05])
    slipped = [replace(s, T_cam_board=s.T_cam_board @ slip) if number >= 9 else s for number, s in enumerate(found)]
    mount = calibrate_mount(slipped, "eye_in_hand", np.eye(4))
    bad = {check.name for check in mount.checks if not check.is_good}
    assert "left_out_mm" in bad
    assert "left_out_deg" in bad


def test_missing_turns_are_named_by_the_tools_axis() -> None:
    base = se3.make_pose(np.array([0.5, 0.0, 0.3]), np.diag([1.0, -1.0, -1.0]))

    def turned(rotvecs: list[list[float]]) -> list[HandEyeSample]:
        poses = [
            se3.compose_tcp(base, se3.make_pose(np.zeros(3), rotations.rotvec_to_matrix(np.array(v)))) for v in rotvecs
        ]
        return [HandEyeSample(number, T, np.eye(4), 0.1) for number, T in enumerate(poses)]

    angles = np.linspace(-0.35, 0.35, 13)  # 40 degrees from end to end.
    about_z = turned([[0.0, 0.0, angle] for angle in angles])
    assert turns_deg(about_z) == pytest.approx([0.0, 0.0, np.degrees(0.7)], abs=0.5)
    (text,) = missing(about_z)
    assert "x axis" in text or "y axis" in text
    about_x_and_z = turned([[angle, 0.0, 0.0] for angle in angles] + [[0.0, 0.0, angle] for angle in angles])
    assert missing(about_x_and_z) == []
    assert missing(about_x_and_z[:4])[0] == "8 more poses"
    with pytest.raises(CalibrationError, match="about one axis"):
        calibrate_mount(about_z, "eye_in_hand", np.eye(4))
    with pytest.raises(CalibrateError, match="5 poses"):
        calibrate_mount(about_x_and_z[:5], "eye_in_hand", np.eye(4))


def test_too_few_turns_are_no_good_verdict_even_with_small_residuals() -> None:
    arm = tool_poses(14, 6, tilt_rad=0.15)  # Up to 17 degrees: enough to solve, not to trust.
    mount = calibrate_mount(samples_of("eye_in_hand", arm, noise_px=0.02), "eye_in_hand", np.eye(4))
    assert "motion" in {check.name for check in mount.checks if not check.is_good}


def test_arm_is_still_only_if_it_was_all_around_the_exposure() -> None:
    stamps = [round(1e9 + 1e7 * index) for index in range(200)]  # 100 Hz from 1 s to 2.99 s.
    positions = np.zeros((200, 7))
    positions[100:, 2] = 0.01 * np.arange(100)  # Moves from 2 s on.
    assert is_still(stamps, positions, round(1.5e9)) is True
    assert is_still(stamps, positions, round(1.85e9)) is False  # Moves within the 0.2 s that follow.
    assert is_still(stamps, positions, round(2.5e9)) is False
    assert is_still(stamps, positions, round(2.9e9)) is None  # What follows isn't known yet.
    assert is_still(stamps, positions, round(1.1e9)) is None
    assert is_still([], np.zeros((0, 7)), round(1.1e9)) is None


def test_a_pose_counts_once() -> None:
    first, other = samples_of("eye_in_hand", tool_poses(2, 7))
    nudged = replace(first, T_base_link=se3.compose_base(first.T_base_link, pose([0.005, 0.0, 0.0], [0.0, 0.0, 0.02])))
    assert not is_new(nudged, [first])
    assert is_new(other, [first])


def test_cameras_on_moving_links_are_eyes_in_hand() -> None:
    model = RobotModel.from_config(load_robot("panda"))
    assert setup_of(model, "wrist_camera_link") == "eye_in_hand"
    assert setup_of(model, "panda_link4") == "eye_in_hand"
    assert setup_of(model, "panda_link0") == "eye_to_hand"
