"""Hand-eye calibration on a drawn cell whose mount is known, with the noise of corners and arms, beside OpenCV's."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from vla_ros.geometry import cameras, lie, rotations, se3
from vla_ros.geometry.hand_eye import CalibrationError, HandEyeCalibration, Setup, calibrate_hand_eye, locate_target
from vla_ros.types import CameraModel

CAMERA = CameraModel(640, 480, cameras.camera_from_fov(640, 480, 0.9).K, (-0.3, 0.1, 0.001, -0.001, 0.02))
BOARD = np.array([[0.03 * column, 0.03 * row, 0.0] for row in range(6) for column in range(8)])
MIDDLE = np.array([0.105, 0.075, 0.0])
SETUPS: tuple[Setup, ...] = ("eye_in_hand", "eye_to_hand")


@dataclass(frozen=True)
class Cell:
    """What was there, and what was seen of it."""

    T_mount_cam: np.ndarray
    T_target: np.ndarray
    T_base_tcp: np.ndarray
    T_cam_target: np.ndarray


def pose(xyz_m: list[float], rpy_rad: list[float]) -> np.ndarray:
    return se3.make_pose(np.array(xyz_m), rotations.rpy_to_matrix(np.array(rpy_rad)))


def draw_cell(setup: Setup, count: int, seed: int, noise_px: float = 0.0, arm_noise: float = 0.0) -> Cell:
    """A camera that looks at a board from anywhere above it; `arm_noise` in m, and in rad twice that."""
    rng = np.random.default_rng(seed)
    T_mount_cam = pose([0.05, -0.03, 0.08], [0.1, -0.2, 1.5])
    T_target = pose([0.5, 0.1, 0.02], [0.02, 0.03, 0.4])
    arm, seen = [], []
    while len(arm) < count:
        away = rng.uniform([-0.25, -0.25, 0.3], [0.25, 0.25, 0.5])
        z = -away / np.linalg.norm(away)
        x = np.cross([np.sin(roll := rng.uniform(-1, 1)), np.cos(roll), 0.0], z)
        x /= np.linalg.norm(x)
        T_target_cam = se3.make_pose(MIDDLE + away, np.stack([x, np.cross(z, x), z], axis=1))
        T_cam_target = se3.invert(T_target_cam)
        pixels = cameras.project(CAMERA, BOARD @ T_cam_target[:3, :3].T + T_cam_target[:3, 3])
        if not np.all((pixels > 0.0) & (pixels < [640.0, 480.0])):
            continue
        if noise_px:
            T_cam_target, _ = locate_target(CAMERA, BOARD, pixels + rng.normal(scale=noise_px, size=pixels.shape))
        # The arm's pose, or its inverse, closes the loop: arm @ mount @ seen = target.
        loop = T_target @ T_target_cam @ se3.invert(T_mount_cam)
        shake = se3.make_pose(
            rng.normal(scale=arm_noise, size=3), rotations.rotvec_to_matrix(rng.normal(scale=2.0 * arm_noise, size=3))
        )
        arm.append((loop if setup == "eye_in_hand" else se3.invert(loop)) @ shake)
        seen.append(T_cam_target)
    return Cell(T_mount_cam, T_target, np.array(arm), np.array(seen))


def calibrate(cell: Cell, setup: Setup) -> HandEyeCalibration:
    return calibrate_hand_eye(cell.T_base_tcp, cell.T_cam_target, setup)


def error_mm_deg(T: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    error = se3.pose_error(expected, T)
    return 1000.0 * float(np.linalg.norm(error[:3])), float(np.degrees(np.linalg.norm(error[3:])))


@pytest.mark.parametrize("count", [3, 12])
@pytest.mark.parametrize("setup", SETUPS)
def test_mount_and_target_are_found_exactly_without_noise(setup: Setup, count: int) -> None:
    cell = draw_cell(setup, count, seed=1)
    found = calibrate(cell, setup)
    np.testing.assert_allclose(found.T_mount_cam, cell.T_mount_cam, atol=1e-7)
    np.testing.assert_allclose(found.T_target, cell.T_target, atol=1e-7)
    assert found.rotation_residuals_deg.shape == found.translation_residuals_mm.shape == (count,)
    assert found.translation_residuals_mm.max() < 1e-3


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("setup", SETUPS)
def test_mount_is_found_through_noise(setup: Setup, seed: int) -> None:
    # A third of a pixel in the corners, 0.2 mm and 0.02 degrees in the arm, fifteen poses.
    cell = draw_cell(setup, 15, seed, noise_px=0.3, arm_noise=2e-4)
    found = calibrate(cell, setup)
    off_mm, off_deg = error_mm_deg(found.T_mount_cam, cell.T_mount_cam)
    assert off_mm < 2.0
    assert off_deg < 0.4
    # The report says so without knowing the truth.
    assert 0.05 < found.translation_residuals_mm.mean() < 2.0
    assert 0.01 < found.rotation_residuals_deg.mean() < 0.5


@pytest.mark.parametrize("seed", range(5))
def test_nothing_near_the_mount_fits_the_samples_better(seed: int) -> None:
    cell = draw_cell("eye_in_hand", 10, seed, noise_px=0.5, arm_noise=5e-4)
    found = calibrate(cell, "eye_in_hand")
    reach_m = np.linalg.norm(cell.T_cam_target[:, :3, 3], axis=1).mean()

    def misfit(T_mount_cam: np.ndarray, T_target: np.ndarray) -> float:
        errors = se3.pose_error(T_target, cell.T_base_tcp @ T_mount_cam @ cell.T_cam_target)
        return float(np.sum((errors * np.repeat([1.0, reach_m], 3)) ** 2))

    best = misfit(found.T_mount_cam, found.T_target)
    assert best <= misfit(cell.T_mount_cam, cell.T_target)
    for nudge in np.vstack([np.eye(6), -np.eye(6)]) * 1e-4:
        T = lie.exp_se3(nudge)
        assert best < misfit(found.T_mount_cam @ T, found.T_target)
        assert best < misfit(found.T_mount_cam, T @ found.T_target)


@pytest.mark.parametrize("setup", SETUPS)
def test_joint_fit_is_no_worse_than_opencv(setup: Setup) -> None:
    if not hasattr(cv2, "calibrateHandEye"):
        pytest.skip("needs an OpenCV with cv2.calibrateHandEye, which 5.0.0 lacks (opencv #29565)")
    ours, theirs = [], []
    for seed in range(12):
        cell = draw_cell(setup, 12, seed, noise_px=0.3, arm_noise=2e-4)
        arm = cell.T_base_tcp if setup == "eye_in_hand" else se3.invert(cell.T_base_tcp)
        R, p = cv2.calibrateHandEye(
            *(arm[:, :3, :3], arm[:, :3, 3], cell.T_cam_target[:, :3, :3], cell.T_cam_target[:, :3, 3]),
            method=cv2.CALIB_HAND_EYE_PARK,
        )
        theirs.append(error_mm_deg(se3.make_pose(p[:, 0], R), cell.T_mount_cam)[0])
        ours.append(error_mm_deg(calibrate(cell, setup).T_mount_cam, cell.T_mount_cam)[0])
    assert np.median(ours) <= np.median(theirs)
    assert max(ours) <= max(theirs)


def test_bad_sample_stands_out_in_the_report() -> None:
    cell = draw_cell("eye_in_hand", 12, seed=2)
    cell.T_cam_target[7, :3, 3] += [0.02, 0.0, 0.0]
    found = calibrate(cell, "eye_in_hand")
    assert np.argmax(found.translation_residuals_mm) == 7
    assert found.translation_residuals_mm[7] > 3.0 * np.median(found.translation_residuals_mm)


def test_wrong_setup_shows_in_the_report() -> None:
    cell = draw_cell("eye_in_hand", 12, seed=3)
    assert calibrate(cell, "eye_to_hand").translation_residuals_mm.mean() > 10.0


@pytest.mark.parametrize("seed", range(12))
def test_half_turns_between_poses_do_no_harm(seed: int) -> None:
    """Where the axis of a turn may point either way, and rounding decides."""
    cell = draw_cell("eye_in_hand", 1, seed)
    moves = np.array(
        [pose([0, 0, 0], [0, 0, 0]), pose([0, 0, 0], [0, 0, np.pi]), pose([0.05, 0.1, 0.1], [0.4, 0.3, 0])]
    )
    arm = cell.T_base_tcp @ moves
    seen = se3.invert(cell.T_mount_cam) @ se3.invert(arm) @ cell.T_target
    found = calibrate_hand_eye(arm, seen, "eye_in_hand")
    np.testing.assert_allclose(found.T_mount_cam, cell.T_mount_cam, atol=1e-6)


def test_turning_about_one_axis_only_is_refused() -> None:
    arm = np.array([pose([0.1 * k, 0.0, 0.3], [0.0, 0.0, 0.4 * k]) for k in range(8)])
    mount = pose([0.05, 0.0, 0.1], [0.1, 0.2, 0.3])
    seen = se3.invert(mount) @ se3.invert(arm) @ pose([0.5, 0.0, 0.0], [0.0, 0.0, 0.0])
    with pytest.raises(CalibrationError, match="about two axes"):
        calibrate_hand_eye(arm, seen, "eye_in_hand")


def test_moving_without_turning_is_refused() -> None:
    arm = se3.make_pose(np.random.default_rng(0).normal(size=(8, 3)))
    with pytest.raises(CalibrationError, match=r"0\.0 degrees about one axis"):
        calibrate_hand_eye(arm, arm, "eye_in_hand")


def test_samples_that_cannot_do_are_refused() -> None:
    cell = draw_cell("eye_in_hand", 6, seed=5)
    arm, seen = cell.T_base_tcp, cell.T_cam_target
    with pytest.raises(CalibrationError, match="at least 3"):
        calibrate_hand_eye(arm[:2], seen[:2], "eye_in_hand")
    with pytest.raises(CalibrationError, match="6 tcp poses and 5 target poses"):
        calibrate_hand_eye(arm, seen[:5], "eye_in_hand")
    with pytest.raises(CalibrationError, match="shape"):
        calibrate_hand_eye(arm[0], seen[0], "eye_in_hand")
    spoilt = seen.copy()
    spoilt[4, 0, 3] = np.nan
    with pytest.raises(CalibrationError, match=r"T_cam_target\[4\]"):
        calibrate_hand_eye(arm, spoilt, "eye_in_hand")
    with pytest.raises(ValueError, match="eye_in_hand or eye_to_hand"):
        calibrate_hand_eye(arm, seen, "eye-in-hand")  # type: ignore[arg-type]


@pytest.mark.parametrize("camera", [CAMERA, CameraModel(640, 480, CAMERA.K)])
@pytest.mark.parametrize("depth_m", [0.0, 0.05])
def test_target_is_located_from_its_corners(camera: CameraModel, depth_m: float) -> None:
    """A plane and one that isn't."""
    target = BOARD + depth_m * (np.arange(len(BOARD)) % 3)[:, None] * [0.0, 0.0, 1.0]
    T_cam_target = pose([-0.1, -0.05, 0.6], [0.4, -0.5, 0.3])
    pixels = cameras.project(camera, target @ T_cam_target[:3, :3].T + T_cam_target[:3, 3])
    found, rms_px = locate_target(camera, target, pixels)
    np.testing.assert_allclose(found, T_cam_target, atol=1e-6)
    assert rms_px < 1e-4


def test_rms_of_a_target_is_the_noise_of_its_corners() -> None:
    T_cam_target = pose([-0.1, -0.05, 0.6], [0.4, -0.5, 0.3])
    pixels = cameras.project(CAMERA, BOARD @ T_cam_target[:3, :3].T + T_cam_target[:3, 3])
    rng = np.random.default_rng(6)
    found = [locate_target(CAMERA, BOARD, pixels + rng.normal(scale=0.5, size=pixels.shape))[1] for _ in range(40)]
    # Two coordinates a corner, less what the six numbers of a pose take up of 96.
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(0.5 * np.sqrt(2.0 * (1.0 - 6.0 / 96.0)), rel=0.03)


def test_points_without_a_pose_are_refused() -> None:
    pixels = np.random.default_rng(7).uniform(0, 400, (48, 2))
    with pytest.raises(CalibrationError, match="four"):
        locate_target(CAMERA, BOARD[:3], pixels[:3])
    with pytest.raises(CalibrationError, match="on a line"):
        locate_target(CAMERA, BOARD[:8], pixels[:8])
    with pytest.raises(CalibrationError, match="pixels"):
        locate_target(CAMERA, BOARD, pixels[:40])
    pixels[3] = np.nan
    with pytest.raises(CalibrationError, match="finite"):
        locate_target(CAMERA, BOARD, pixels)
