"""Pinhole cameras: projection, rays, planes, undistortion, resizing of intrinsics. OpenCV does the lens.

The optical frame has z forward, x right and y down; pixel (0, 0) is the centre of the upper left pixel.
"""

from __future__ import annotations

import cv2
import numpy as np

from vla_ros.errors import SensorError
from vla_ros.types import CameraModel, FloatArray, ImageArray

# k1, k2, p1, p2, then k3, then k4, k5, k6.
_COEFFICIENTS = (0, 4, 5, 8)
_NEWTON_STEPS = 12


def camera_from_fov(width: int, height: int, fovy_rad: float) -> CameraModel:
    """An ideal camera with square pixels from its vertical field of view."""
    focal_px = 0.5 * height / np.tan(0.5 * fovy_rad)
    K = np.array([[focal_px, 0.0, (width - 1) / 2], [0.0, focal_px, (height - 1) / 2], [0.0, 0.0, 1.0]])
    return CameraModel(width, height, K)


def calibrated_camera(
    width: int, height: int, fovy_rad: float, K: tuple[float, ...] | None, distortion: tuple[float, ...]
) -> CameraModel:
    """A camera from nine numbers of K, row by row, or where there are none from its field of view."""
    if K is None:
        return CameraModel(width, height, camera_from_fov(width, height, fovy_rad).K, distortion)
    return CameraModel(width, height, np.array(K).reshape(3, 3), distortion)


def project(camera: CameraModel, points_cam: FloatArray) -> FloatArray:
    """(n, 3) points in the optical frame, m, to (n, 2) pixels.

    NaN for points that the camera doesn't show: behind it, or so far aside that the lens's polynomial has turned back.

    Raises:
        SensorError: for a lens that isn't OpenCV's with 4, 5 (plumb_bob) or 8 (rational_polynomial) coefficients.
    """
    points = np.asarray(points_cam, dtype=np.float64).reshape(-1, 3)
    pixels, _ = _distorted(camera, points)
    is_shown = points[:, 2] > 0.0
    if camera.distortion:
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = np.abs(pixel_rays(camera, pixels) * points[:, 2:] - points).max(axis=1, initial=0.0)
        is_shown &= gap <= 1e-6 * np.abs(points).max(axis=1, initial=0.0)
    pixels[~is_shown] = np.nan
    return pixels


def pixel_rays(camera: CameraModel, pixels: FloatArray) -> FloatArray:
    """(n, 2) pixels to (n, 3) directions in the optical frame with z = 1, the lens undone.

    NaN where the lens's polynomial reaches no such pixel.

    Raises:
        SensorError: as `project`.
    """
    seen = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
    rays = np.ones((len(seen), 3))
    rays[:, :2] = (seen - camera.K[:2, 2]) / camera.K[[0, 1], [0, 1]]
    if not camera.distortion:
        return rays
    # Newton's method: OpenCV's own way back stops after five steps, up to a pixel away in the corners of a wide lens.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for _ in range(_NEWTON_STEPS):
            reached, J = _distorted(camera, rays)
            misses = seen - reached
            if np.all(np.abs(misses) < 1e-9):
                return rays
            (du, dv), (a, b), (c, d) = misses.T, J[:, 0].T, J[:, 1].T
            rays[:, :2] += np.stack([d * du - b * dv, a * dv - c * du], axis=-1) / (a * d - b * c)[:, None]
    rays[~(np.abs(misses) < 1e-6).all(axis=1)] = np.nan
    return rays


def _distorted(camera: CameraModel, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(n, 2) pixels of points in the optical frame and their (n, 2, 2) derivatives by the points' x and y."""
    if len(points) == 0:
        return np.zeros((0, 2)), np.zeros((0, 2, 2))
    zero = np.zeros(3)
    pixels, J = cv2.projectPoints(points, zero, zero, camera.K, _lens(camera))
    J = np.asarray(J, dtype=np.float64).reshape(len(points), 2, -1)
    return np.asarray(pixels, dtype=np.float64).reshape(-1, 2), J[:, :, 3:5]


def _lens(camera: CameraModel) -> FloatArray:
    if len(camera.distortion) not in _COEFFICIENTS:
        raise SensorError(
            f"a lens with {len(camera.distortion)} coefficients isn't known; plumb_bob has 4 or 5, rational_polynomial "
            "8; have other images rectified by their driver"
        )
    return np.array(camera.distortion)


def intersect_plane(camera: CameraModel, T_base_cam: FloatArray, pixels: FloatArray, height_m: float) -> FloatArray:
    """Where the rays through pixels meet the horizontal plane z = height_m of base.

    Args:
        camera: intrinsics.
        T_base_cam: pose of the optical frame in base.
        pixels: (n, 2).
        height_m: z of the plane in base.

    Returns:
        (n, 3) points in base; NaN where a ray doesn't meet the plane in front of the camera.
    """
    rays = pixel_rays(camera, pixels) @ T_base_cam[:3, :3].T
    origin = T_base_cam[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (height_m - origin[2]) / rays[:, 2]
    points = origin + distance[:, None] * rays
    points[~(distance > 0.0)] = np.nan
    return np.asarray(points, dtype=np.float64)


def undistort(image: ImageArray, camera: CameraModel) -> ImageArray:
    """The image an ideal camera with the same K would have taken.

    Raises:
        SensorError: as `project`.
    """
    if not camera.distortion:
        return image
    return np.asarray(cv2.undistort(image, camera.K, _lens(camera)), dtype=np.uint8)


def crop_and_resize(camera: CameraModel, crop_xywh: tuple[int, int, int, int], width: int, height: int) -> CameraModel:
    """Intrinsics after cutting (x, y, width, height) out of the image and resizing the cut to width x height."""
    x, y, crop_width, crop_height = crop_xywh
    scale = np.array([width / crop_width, height / crop_height])
    K = camera.K.copy()
    # Pixel centres are at whole numbers, so edges lie half a pixel out.
    K[:2, 2] = (K[:2, 2] - [x, y] + 0.5) * scale - 0.5
    K[[0, 1], [0, 1]] *= scale
    return CameraModel(width, height, K, camera.distortion)
