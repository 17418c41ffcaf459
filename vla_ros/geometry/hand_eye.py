"""Where a camera is mounted, from robot poses and what the camera saw of a target that didn't move with it.

Fifteen poses that tilt the tool by 20 degrees and more about different axes give about a millimetre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from scipy.optimize import least_squares

from vla_ros.errors import VlaRosError
from vla_ros.geometry import rotations, se3
from vla_ros.geometry.averaging import mean_pose
from vla_ros.geometry.cameras import pixel_rays, project
from vla_ros.types import CameraModel, FloatArray

Setup = Literal["eye_in_hand", "eye_to_hand"]

_MIN_SAMPLES = 3
_MIN_TURN_DEG = 5.0


class CalibrationError(VlaRosError):
    """Samples that a camera's mount can't be found from.

    Args:
        problem: what is wrong with them, with the value and the limit.
        mend: what to do about it.
    """

    def __init__(self, problem: str, mend: str) -> None:
        self.problem, self.mend = problem, mend
        super().__init__(f"hand-eye calibration: {problem}; {mend}")


@dataclass(frozen=True)
class HandEyeCalibration:
    """A camera's mount and how well the samples agree with it.

    Attributes:
        T_mount_cam: (4, 4) pose of the optical frame in the tcp (`eye_in_hand`) or in base (`eye_to_hand`).
        T_target: (4, 4) pose of the target in base (`eye_in_hand`) or in the tcp (`eye_to_hand`).
        rotation_residuals_deg: (n,) by which each sample's own target is turned from T_target.
        translation_residuals_mm: (n,) by which each sample's own target is away from T_target.
    """

    T_mount_cam: FloatArray
    T_target: FloatArray
    rotation_residuals_deg: FloatArray
    translation_residuals_mm: FloatArray


def calibrate_hand_eye(T_base_tcp: FloatArray, T_cam_target: FloatArray, setup: Setup) -> HandEyeCalibration:
    """Finds the mount of a camera: on the arm with the target in the room, or in the room with the target on the arm.

    Args:
        T_base_tcp: (n, 4, 4) tcp poses at the exposures.
        T_cam_target: (n, 4, 4) target poses in the optical frame, as `locate_target` gives them.
        setup: `eye_in_hand` or `eye_to_hand`.

    Raises:
        CalibrationError: for fewer than three samples, what isn't a pose, or poses that turn about one axis at most.

    Source: Park and Martin, "Robot Sensor Calibration: Solving AX = XB on the Euclidean Group", 1994, made the start of
    a joint least-squares fit of mount and target. In code of our own: OpenCV 5.0.0's Python has no calibrateHandEye
    (opencv #29565).
    """
    arm, seen = np.asarray(T_base_tcp, dtype=np.float64), np.asarray(T_cam_target, dtype=np.float64)
    _check_samples(arm, seen)
    if setup == "eye_to_hand":
        arm = se3.invert(arm)
    elif setup != "eye_in_hand":
        raise ValueError(f"setup {setup!r} is none; eye_in_hand or eye_to_hand")
    mount = _closed_form(arm, seen)
    mount, target = _refine(arm, seen, mount, mean_pose(arm @ mount @ seen))
    errors = se3.pose_error(target, arm @ mount @ seen)
    return HandEyeCalibration(
        mount,
        target,
        rotation_residuals_deg=np.degrees(np.linalg.norm(errors[:, 3:], axis=1)),
        translation_residuals_mm=1000.0 * np.linalg.norm(errors[:, :3], axis=1),
    )


def locate_target(camera: CameraModel, points_target: FloatArray, pixels: FloatArray) -> tuple[FloatArray, float]:
    """Pose of a target in the optical frame from where its points are seen.

    Args:
        camera: intrinsics and lens.
        points_target: (n, 3) the points in the target's frame, m; at least four, not on a line; a plane will do.
        pixels: (n, 2) where they are seen, in the image as the camera took it.

    Returns:
        T_cam_target (4, 4) and the root mean square distance of the points' projections from the pixels, pixels.

    Raises:
        CalibrationError: for points that no pose can be had from.

    Source: Terzakis and Lourakis, "A Consistently Fast and Globally Optimal Solution to the Perspective-n-Point
    Problem", ECCV 2020 (OpenCV's SQPNP), then Levenberg-Marquardt on the pixels.
    """
    points, seen = np.asarray(points_target, dtype=np.float64), np.asarray(pixels, dtype=np.float64)
    if points.ndim != 2 or points.shape[1:] != (3,) or seen.shape != (len(points), 2):
        raise CalibrationError(f"points {points.shape} and pixels {seen.shape}", "it takes (n, 3) and (n, 2)")
    if len(points) < 4 or not (np.isfinite(points).all() and np.isfinite(seen).all()):
        raise CalibrationError(f"{len(points)} points", "it takes four and more, all finite")
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if spread[1] < 1e-3 * spread[0]:
        raise CalibrationError("the target's points lie on a line", "take some beside it")
    # Rays have the lens undone, so what follows sees an ideal camera with K = I.
    rays = np.ascontiguousarray(pixel_rays(camera, seen)[:, :2])
    if not np.isfinite(rays).all():
        raise CalibrationError("a pixel is one that the lens never reaches", "check the distortion coefficients")
    lens_free = (np.eye(3), None)
    found = np.full((2, 3), np.nan)
    is_found, rotvec, p = cv2.solvePnP(points, rays, *lens_free, flags=cv2.SOLVEPNP_SQPNP)
    if is_found:
        found[:] = np.reshape(cv2.solvePnPRefineLM(points, rays, *lens_free, rotvec, p), (2, 3))
    if not np.isfinite(found).all():
        raise CalibrationError("no pose of the target fits the pixels", "check their order and the camera's intrinsics")
    T_cam_target = se3.make_pose(found[1], rotations.rotvec_to_matrix(found[0]))
    misses = project(camera, points @ T_cam_target[:3, :3].T + T_cam_target[:3, 3]) - seen
    return T_cam_target, float(np.sqrt(np.mean(np.sum(misses**2, axis=1))))


def _check_samples(T_base_tcp: FloatArray, T_cam_target: FloatArray) -> None:
    for name, poses in (("T_base_tcp", T_base_tcp), ("T_cam_target", T_cam_target)):
        if poses.ndim != 3 or poses.shape[1:] != (4, 4):
            raise CalibrationError(f"{name} has shape {poses.shape}", "it takes (n, 4, 4)")
        for index, pose in enumerate(poses):
            if not se3.is_pose(pose, tolerance=1e-4):
                raise CalibrationError(f"{name}[{index}] isn't a finite rigid motion", "leave the sample out")
    if len(T_base_tcp) != len(T_cam_target) or len(T_base_tcp) < _MIN_SAMPLES:
        raise CalibrationError(
            f"{len(T_base_tcp)} tcp poses and {len(T_cam_target)} target poses",
            f"it takes as many of one as of the other, and at least {_MIN_SAMPLES}",
        )
    turns = rotations.matrix_to_rotvec(_motions(T_base_tcp)[:, :3, :3])
    # Root mean square turn between samples about the strongest axis, and about the strongest one at right angles to it.
    turns_deg = np.degrees(np.linalg.svd(turns, compute_uv=False) / np.sqrt(len(turns)))
    if turns_deg[1] < _MIN_TURN_DEG:
        raise CalibrationError(
            f"between poses the tool turns by {turns_deg[0]:.1f} degrees about one axis and by {turns_deg[1]:.1f} "
            f"degrees about the others (limit {_MIN_TURN_DEG})",
            "tilt it about two axes, by 20 degrees and more",
        )


def _motions(poses: FloatArray) -> FloatArray:
    """(m, 4, 4) from every pose to every later one."""
    first, second = np.triu_indices(len(poses), k=1)
    return se3.relative_tcp(poses[first], poses[second])


def _closed_form(arm: FloatArray, seen: FloatArray) -> FloatArray:
    """X of A X = X B over all pairs of samples: the rotation, which takes B's axes to A's, then the translation."""
    A, B = _motions(arm), _motions(se3.invert(seen))
    # Axis times sine of the turn, twice: unlike a rotation vector it has no jump at 180 degrees.
    axes_a, axes_b = ((T[:, :3, :3] - T[:, :3, :3].swapaxes(-1, -2))[:, [2, 0, 1], [1, 2, 0]] for T in (A, B))
    U, _, V = np.linalg.svd(axes_a.T @ axes_b)
    R = U @ np.diag([1.0, 1.0, np.linalg.det(U @ V)]) @ V
    slope = (A[:, :3, :3] - np.eye(3)).reshape(-1, 3)
    offset = (B[:, :3, 3] @ R.T - A[:, :3, 3]).reshape(-1)
    return se3.make_pose(np.linalg.lstsq(slope, offset, rcond=None)[0], R)


def _refine(arm: FloatArray, seen: FloatArray, mount: FloatArray, target: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mount and target that fit all samples best.

    A turn of the target counts by what it moves at the camera's distance: what the pixels say of both is alike there.
    """
    reach_m = float(np.mean(np.linalg.norm(seen[:, :3, 3], axis=1)))

    def moved(T: FloatArray, x: FloatArray) -> FloatArray:
        return se3.make_pose(T[:3, 3] + x[:3], rotations.rotvec_to_matrix(x[3:]) @ T[:3, :3])

    def misses(x: FloatArray) -> FloatArray:
        errors = se3.pose_error(moved(target, x[6:]), arm @ moved(mount, x[:6]) @ seen)
        return (errors * [1.0, 1.0, 1.0, reach_m, reach_m, reach_m]).reshape(-1)

    x = least_squares(misses, np.zeros(12), method="lm").x
    return moved(mount, x[:6]), moved(target, x[6:])
