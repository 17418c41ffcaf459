"""Pinhole cameras: projection, rays, planes, undistortion, resizing of intrinsics. OpenCV does the lens.

The optical frame has z forward, x right and y down; pixel (0, 0) is the centre of the upper left pixel.
"""

from __future__ import annotations

import cv2
import numpy as np

from vla_ros.types import CameraModel, FloatArray, ImageArray


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
    """(n, 3) points in the optical frame, m, to (n, 2) pixels. Points behind the camera give NaN."""
    points = np.asarray(points_cam, dtype=np.float64).reshape(-1, 3)
    zero = np.zeros(3)
    pixels, _ = cv2.projectPoints(points, zero, zero, camera.K, np.array(camera.distortion))
    out = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
    out[points[:, 2] <= 0.0] = np.nan
    return out


def pixel_rays(camera: CameraModel, pixels: FloatArray) -> FloatArray:
    """(n, 2) pixels to (n, 3) directions in the optical frame with z = 1, the lens undone."""
    points = np.asarray(pixels, dtype=np.float64).reshape(-1, 1, 2)
    if camera.distortion:
        ideal = cv2.undistortPoints(points, camera.K, np.array(camera.distortion)).reshape(-1, 2)
    else:
        ideal = (points[:, 0] - camera.K[:2, 2]) / camera.K[[0, 1], [0, 1]]
    return np.column_stack([ideal, np.ones(len(ideal))])


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
    """The image an ideal camera with the same K would have taken."""
    if not camera.distortion:
        return image
    return np.asarray(cv2.undistort(image, camera.K, np.array(camera.distortion)), dtype=np.uint8)


def crop_and_resize(camera: CameraModel, crop_xywh: tuple[int, int, int, int], width: int, height: int) -> CameraModel:
    """Intrinsics after cutting (x, y, width, height) out of the image and resizing the cut to width x height."""
    x, y, crop_width, crop_height = crop_xywh
    scale = np.array([width / crop_width, height / crop_height])
    K = camera.K.copy()
    # Pixel centres are at whole numbers, so edges lie half a pixel out.
    K[:2, 2] = (K[:2, 2] - [x, y] + 0.5) * scale - 0.5
    K[[0, 1], [0, 1]] *= scale
    return CameraModel(width, height, K, camera.distortion)
