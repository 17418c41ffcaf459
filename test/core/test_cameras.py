"""Cameras: projection there and back, planes, crops; OpenCV and similar triangles as oracles."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vla_ros.errors import SensorError
from vla_ros.geometry import cameras, se3
from vla_ros.types import CameraModel

IDEAL = cameras.camera_from_fov(320, 240, 0.8)
LENS = CameraModel(320, 240, IDEAL.K, (0.1, -0.05, 0.001, -0.002, 0.01))
# An Azure Kinect's, of its published order of magnitude.
RATIONAL = CameraModel(320, 240, IDEAL.K, (2.1, 1.5, 5e-4, -3e-4, 0.08, 2.4, 2.0, 0.35))
# Barrels of wide lenses, with four and with five coefficients.
WIDE = [CameraModel(320, 240, IDEAL.K, D) for D in ((-0.3, 0.1, 0.001, -0.001), (-0.4, 0.15, 0.0, 0.0, -0.02))]
T_BASE_CAM = se3.make_pose(
    np.array([1.0, 0.2, 0.8]), np.array([[0.0, -0.6, -0.8], [-1.0, 0.0, 0.0], [0.0, 0.8, -0.6]])[:, [0, 1, 2]]
)


def test_field_of_view_spans_the_image() -> None:
    top = np.tan(0.4) * np.array([[0.0, -1.0, 0.0]]) + [0, 0, 1]
    # The upper edge of the uppermost pixel is half a pixel above its centre.
    np.testing.assert_allclose(cameras.project(IDEAL, top), [[159.5, -0.5]], atol=1e-9)


@pytest.mark.parametrize("camera", [IDEAL, LENS, RATIONAL, *WIDE])
def test_ray_of_a_projected_point_passes_through_it(camera: CameraModel) -> None:
    points = np.random.default_rng(0).uniform([-0.3, -0.2, 0.8], [0.3, 0.2, 1.5], (100, 3))
    rays = cameras.pixel_rays(camera, cameras.project(camera, points))
    np.testing.assert_allclose(rays * points[:, 2:], points, atol=1e-12)


def distorted_by_hand(camera: CameraModel, points: np.ndarray) -> np.ndarray:
    """The rational model as ROS's CameraInfo has it (Brown's with k4 to k6 of zero), written out."""
    k1, k2, p1, p2, k3, k4, k5, k6 = np.pad(camera.distortion, (0, 8 - len(camera.distortion)))
    x, y = (points[:, :2] / points[:, 2:]).T
    r2 = x * x + y * y
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return np.asarray(np.column_stack([u, v]) * camera.K[[0, 1], [0, 1]] + camera.K[:2, 2])


@pytest.mark.parametrize("camera", [IDEAL, LENS, RATIONAL, *WIDE])
def test_projection_is_the_published_model(camera: CameraModel) -> None:
    points = np.random.default_rng(1).uniform([-0.4, -0.3, 0.8], [0.4, 0.3, 1.5], (100, 3))
    np.testing.assert_allclose(cameras.project(camera, points), distorted_by_hand(camera, points), atol=1e-9)


@pytest.mark.parametrize("camera", [LENS, RATIONAL, *WIDE])
def test_every_pixel_has_its_ray(camera: CameraModel) -> None:
    pixels = np.stack(np.meshgrid(np.linspace(0, 319, 9), np.linspace(0, 239, 7)), axis=-1).reshape(-1, 2)
    rays = cameras.pixel_rays(camera, pixels)
    np.testing.assert_allclose(distorted_by_hand(camera, rays), pixels, atol=1e-8)
    np.testing.assert_allclose(cameras.project(camera, 2.0 * rays), pixels, atol=1e-8)


def test_no_ray_reaches_past_a_barrel_lens() -> None:
    # x - 0.3 x^3 turns back at x^2 = 1 / 0.9, at 0.7027 focal lengths from the centre.
    barrel = CameraModel(320, 240, IDEAL.K, (-0.3, 0.0, 0.0, 0.0))
    focal, centre = barrel.K[0, 0], barrel.K[:2, 2]
    rays = cameras.pixel_rays(barrel, centre + focal * np.array([[0.70, 0.0], [0.71, 0.0]]))
    assert np.all(np.isfinite(rays[0]))
    assert np.all(np.isnan(rays[1]))


@pytest.mark.parametrize("x", [1.1, 1.5, 1.8, 2.0, 5.0])
def test_point_past_the_lens_has_no_pixel(x: float) -> None:
    """The polynomial would put it back into the image."""
    barrel = CameraModel(320, 240, IDEAL.K, (-0.3, 0.0, 0.0, 0.0))
    pixels = cameras.project(barrel, np.array([[x, 0.0, 1.0], [1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]]))
    assert np.all(np.isnan(pixels[0]))
    np.testing.assert_allclose(pixels[1:], distorted_by_hand(barrel, np.array([[1.0, 0, 1], [-1.0, 0, 1]])), atol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7, 12, 14])
def test_lens_of_another_kind_is_refused(count: int) -> None:
    camera = CameraModel(320, 240, IDEAL.K, (0.1,) * count)
    image = np.zeros((240, 320, 3), np.uint8)
    for use in (
        lambda: cameras.project(camera, np.array([[0.0, 0.0, 1.0]])),
        lambda: cameras.pixel_rays(camera, np.array([[1.0, 1.0]])),
        lambda: cameras.undistort(image, camera),
    ):
        with pytest.raises(SensorError, match=f"lens with {count} coefficients"):
            use()


@pytest.mark.parametrize("camera", [IDEAL, LENS])
def test_no_points_are_no_pixels(camera: CameraModel) -> None:
    assert cameras.project(camera, np.zeros((0, 3))).shape == (0, 2)
    assert cameras.pixel_rays(camera, np.zeros((0, 2))).shape == (0, 3)


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


@pytest.mark.parametrize("camera", [LENS, RATIONAL, *WIDE])
def test_undistorted_image_shows_points_where_the_ideal_camera_does(camera: CameraModel) -> None:
    point = np.array([[0.15, 0.1, 1.0]])
    image = np.zeros((240, 320, 3), np.uint8)
    u, v = cameras.project(camera, point)[0]
    cv2.circle(image, (round(float(u)), round(float(v))), 3, (255, 255, 255), -1)
    ys, xs = np.nonzero(cameras.undistort(image, camera)[:, :, 0] > 127)
    np.testing.assert_allclose([xs.mean(), ys.mean()], cameras.project(IDEAL, point)[0], atol=1.0)  # a pixel of drawing
