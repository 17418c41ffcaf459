"""Simulated cameras: pixels, intrinsics and poses agree, and every block can be seen."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

pytest.importorskip("vla_ros.sim.world")  # Not "mujoco": MUJOCO_GL is chosen first.

from vla_ros.contract import load_rig
from vla_ros.errors import UnknownNameError
from vla_ros.geometry.cameras import project
from vla_ros.geometry.rotations import rpy_to_matrix
from vla_ros.geometry.se3 import invert, make_pose
from vla_ros.robots.config import RobotConfig, load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.sim.cameras import CameraRenderer, simulated_camera
from vla_ros.sim.placement import BLOCK_SIZE_M
from vla_ros.sim.world import World
from vla_ros.types import FloatArray, ImageArray

pytestmark = pytest.mark.sim

CORNERS = BLOCK_SIZE_M / 2.0 * np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
HSV_HUE = {"block_red": 1, "block_green": 67, "block_blue": 113}  # OpenCV's, of 180.


@pytest.fixture(scope="module", params=["panda", "ur5e", "fr3", "ur10e"])
def cell(request: pytest.FixtureRequest) -> Iterator[tuple[World, CameraRenderer]]:
    world = World(load_robot(request.param), load_rig(f"{request.param}_table"), 0)
    with CameraRenderer(world.scene) as renderer:
        yield world, renderer


@functools.cache
def robot_model(robot: RobotConfig) -> RobotModel:
    return RobotModel.from_config(robot)


def camera_pose(world: World, name: str) -> FloatArray:
    """T_base_cam from rig, URDF and pinocchio: nothing of it comes from MuJoCo."""
    robot, mount = world.scene.robot, world.scene.rig.cameras[name].mount
    T_base_link, link = np.eye(4), mount.parent
    model = robot_model(robot)
    poses = {pose.child: pose for pose in (*model.link_poses(world.robot_state(0).positions), *model.static_link_poses)}
    while link != robot.base_frame:
        T_base_link = poses[link].T_parent_child @ T_base_link
        link = poses[link].parent
    return T_base_link @ make_pose(np.array(mount.position_m), rpy_to_matrix(np.array(mount.rpy_rad)))


def block_pixels(world: World, camera: str, T_base_block: FloatArray) -> FloatArray:
    """(8, 2) pixels of a block's corners."""
    T_cam_block = invert(camera_pose(world, camera)) @ T_base_block
    return project(
        simulated_camera(world.scene.rig.cameras[camera]), CORNERS @ T_cam_block[:3, :3].T + T_cam_block[:3, 3]
    )


def colour_centroid(image: ImageArray, block: str) -> FloatArray:
    hue, saturation, _ = np.moveaxis(cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(int), -1, 0)
    off = np.abs((hue - HSV_HUE[block] + 90) % 180 - 90)
    rows, columns = np.nonzero((off < 10) & (saturation > 150))
    return np.array([columns.mean(), rows.mean()])


def hull_centroid(pixels: FloatArray) -> FloatArray:
    moments = cv2.moments(cv2.convexHull(pixels.astype(np.float32)))
    return np.array([moments["m10"], moments["m01"]]) / moments["m00"]


@pytest.mark.parametrize("camera", ["base", "wrist"])
def test_projected_blocks_fall_on_their_pixels(cell: tuple[World, CameraRenderer], camera: str) -> None:
    world, renderer = cell
    errors = []
    for seed in range(12):
        world.reset(seed)
        image = renderer.render(world.snapshot(), [camera])[camera]
        height, width = image.shape[:2]
        for name, T_base_block in world.object_poses().items():
            pixels = block_pixels(world, camera, T_base_block)
            # In the wrist's image blocks may stand at the edge or behind the fingers, which are below row 180.
            is_whole = np.all(pixels > 1) and np.all(pixels < [width - 2, height - 2 if camera == "base" else 175])
            if is_whole:
                errors.append(colour_centroid(image, name) - hull_centroid(pixels))
    assert len(errors) >= 15
    # Without antialiasing a silhouette of ten pixels is good to a few tenths; a wrong convention is half a pixel off.
    assert np.max(np.abs(errors)) < 0.4
    assert np.all(np.abs(np.mean(errors, axis=0)) < 0.15)


def test_every_block_is_in_view_of_the_base_camera_at_every_seed(cell: tuple[World, CameraRenderer]) -> None:
    world, _ = cell
    camera = world.scene.rig.cameras["base"]
    for seed in range(200):
        world.reset(seed)
        for T_base_block in world.object_poses().values():
            pixels = block_pixels(world, "base", T_base_block)
            assert np.all(pixels > 4)
            assert np.all(pixels < [camera.width - 5, camera.height - 5])


def test_arm_at_home_hides_no_block_from_the_base_camera(cell: tuple[World, CameraRenderer]) -> None:
    world, renderer = cell
    for seed in range(20):
        world.reset(seed)
        image = renderer.render(world.snapshot(), ["base"])["base"]
        for name, T_base_block in world.object_poses().items():
            seen = colour_centroid(image, name)
            assert np.linalg.norm(seen - hull_centroid(block_pixels(world, "base", T_base_block))) < 0.5


def test_cameras_of_all_arms_see_the_task_area_alike() -> None:
    views = []
    for robot in ("panda", "ur5e", "fr3", "ur10e"):
        world = World(load_robot(robot), load_rig(f"{robot}_table"), 0)
        views.append([camera_pose(world, name) for name in ("base", "wrist")])
        cameras = world.scene.rig.cameras
        assert (cameras["base"].rate_hz, cameras["wrist"].rate_hz) == (20.0, 20.0)
    # Home poses in the robot YAMLs are rounded to 1e-6 rad.
    np.testing.assert_allclose(views[0], views[1], atol=1e-5)


def test_wrist_camera_frame_is_the_descriptions_own(cell: tuple[World, CameraRenderer]) -> None:
    world, _ = cell
    frame = world.scene.rig.cameras["wrist"].mount.frame
    np.testing.assert_allclose(world.link_pose(frame), camera_pose(world, "wrist"), atol=1e-5)


def test_images_have_the_rigs_size_and_are_drawn_off_the_callers_thread(cell: tuple[World, CameraRenderer]) -> None:
    world, renderer = cell
    images = renderer.render(world.snapshot())
    assert {name: image.shape for name, image in images.items()} == {"base": (240, 320, 3), "wrist": (240, 320, 3)}
    assert all(image.dtype == np.uint8 and image.flags.c_contiguous for image in images.values())
    assert any(thread.name.startswith("camera_renderer") for thread in threading.enumerate())


def test_snapshot_keeps_its_moment_while_the_world_goes_on(cell: tuple[World, CameraRenderer]) -> None:
    world, renderer = cell
    world.reset(1)
    snapshot = world.snapshot()
    before = renderer.render(snapshot, ["base"])["base"]
    world.reset(2)
    np.testing.assert_array_equal(renderer.render(snapshot, ["base"])["base"], before)
    assert np.any(renderer.render(world.snapshot(), ["base"])["base"] != before)


def test_unknown_camera_is_refused_with_the_known_ones(cell: tuple[World, CameraRenderer]) -> None:
    world, renderer = cell
    with pytest.raises(UnknownNameError, match=r"'bse'; did you mean 'base'"):
        renderer.render(world.snapshot(), ["bse"])
