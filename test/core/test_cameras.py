"""Cameras: projection there and back, planes, crops; OpenCV and similar triangles as oracles."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vla_ros.geometry import cameras, se3
from vla_ros.types import CameraModel

IDEAL = cameras.camera_from_fov(320, 240, 0.8)
LENS = CameraModel(320, 240, IDEAL.K, (0.1, -0.05, 0.001, -0.002, 0.01))
T_BASE_CAM = se3.make_pose(
    np.array([1.0, 0.2, 0.8]), np.array([[0.0, -0.6, -0.8], [-1.0, 0.0, 0.0], [0.0, 0.8, -0.6]])[:, [0, 1, 2]]
)


def test_field_of_view_spans_the_image() -> None:
    top = np.tan(0.4) * np.array([[0.0, -1.0, 0.0]]) + [0, 0, 1]
    # The upper edge of the uppermost pixel is half a pixel above its centre.
    np.testing.assert_allclose(cameras.project(IDEAL, top), [[159.5, -0.5]], atol=1e-9)


@pytest.mark.parametrize("camera", [IDEAL, LENS])
def test_ray_of_a_projected_point_passes_through_it(camera: CameraModel) -> None:
    points = np.random.default_rng(0).uniform([-0.3, -0.2, 0.8], [0.3, 0.2, 1.5], (100, 3))
    rays = cameras.pixel_rays(camera, cameras.project(camera, points))
    # OpenCV undoes the lens by iteration, to about 1e-6.
    np.testing.assert_allclose(rays * points[:, 2:], points, atol=1e-5)


def test_point_behind_the_camera_has_no_pixel() -> None:
    assert np.all(np.isnan(cameras.project(IDEAL, np.array([[0.0, 0.0, -1.0]]))))


def test_plane_gives_back_the_point_that_was_projected() -> None:
    on_table = np.array([[0.4, 0.1, 0.02], [0.5, -0.1, 0.02]])
    points_cam = (se3.invert(T_BASE_CAM) @ np.column_stack([on_table, np.ones(2)]).T).T[:, :3]
    pixels = cameras.project(IDEAL, points_cam)
    np.testing.assert_allclose(cameras.intersect_plane(IDEAL, T_BASE_CAM, pixels, 0.02), on_table, atol=1e-9)


def test_plane_behind_the_camera_is_never_met() -> None:
    assert np.all(np.isnan(cameras.intersect_plane(IDEAL, T_BASE_CAM, np.array([[160.0, 120.0]]), 5.0)))


def test_crop_keeps_what_a_pixel_sees() -> None:
    crop, points = (40, 20, 200, 150), np.array([[0.05, -0.02, 1.0], [-0.1, 0.1, 1.2]])
    small = cameras.crop_and_resize(IDEAL, crop, 100, 75)
    full = cameras.project(IDEAL, points)
    # By hand: shift by the crop, halve, with pixel centres at whole numbers.
    np.testing.assert_allclose(cameras.project(small, points), (full - [40, 20] + 0.5) / 2 - 0.5, atol=1e-9)


def test_undistorted_image_shows_points_where_the_ideal_camera_does() -> None:
    point = np.array([[0.15, 0.1, 1.0]])
    image = np.zeros((240, 320, 3), np.uint8)
    u, v = cameras.project(LENS, point)[0]
    cv2.circle(image, (round(float(u)), round(float(v))), 3, (255, 255, 255), -1)
    ys, xs = np.nonzero(cameras.undistort(image, LENS)[:, :, 0] > 127)
    np.testing.assert_allclose([xs.mean(), ys.mean()], cameras.project(IDEAL, point)[0], atol=1.0)  # a pixel of drawing
