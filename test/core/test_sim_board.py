"""A board in the simulated cell: it is drawn where it is said to be, and the wrist camera's mount follows from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("vla_ros.sim.world")  # Not "mujoco": MUJOCO_GL is chosen first.

from vla_ros.calibration.boards import draw_board, find_board, parse_board
from vla_ros.calibration.hand_eye import HandEyeSample, calibrate_mount
from vla_ros.contract import Rig, load_rig
from vla_ros.errors import UnknownNameError
from vla_ros.geometry import rotations, se3
from vla_ros.geometry.hand_eye import locate_target
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.sim.cameras import CameraRenderer, simulated_camera
from vla_ros.sim.picture import Picture
from vla_ros.sim.world import World

pytestmark = pytest.mark.sim

ROBOT = load_robot("panda")
BOARD = parse_board("charuco:6x5:30:24")
PX = 60
# Face up, x to the arm's right.
T_BASE_BOARD = se3.make_pose(
    np.array([0.65, 0.09, 0.003]), np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
)


def sharp_rig() -> Rig:
    """The wrist camera alone, with twice the pixels a side."""
    rig = load_rig("panda_table")
    return replace(rig, cameras={"wrist": replace(rig.cameras["wrist"], width=640, height=480)})


def picture(link: str = ROBOT.base_frame) -> Picture:
    """The board with a margin of a square."""
    image = np.pad(draw_board(BOARD, PX), PX, constant_values=255)
    margin = se3.make_pose(np.array([-BOARD.square_m, -BOARD.square_m, 0.0]))
    return Picture(image, image.shape[1] * BOARD.square_m / PX, link, T_BASE_BOARD @ margin)


def test_mount_of_the_simulated_wrist_camera_follows_from_its_pictures() -> None:
    rig = sharp_rig()
    mount = rig.cameras["wrist"].mount
    world, model = World(ROBOT, rig, 0, picture=picture()), RobotModel.from_config(ROBOT)
    assert set(world.truth()) == {"tcp", "camera/wrist"}  # Nothing lies on the board.
    camera, rng = simulated_camera(rig.cameras["wrist"]), np.random.default_rng(0)
    samples: list[HandEyeSample] = []
    with CameraRenderer(world.scene) as renderer:
        for number in range(40):
            q = model.home + rng.uniform(-0.25, 0.25, 7)
            world.place_arm(q)
            sighting = find_board(BOARD, renderer.render(world.snapshot(), ["wrist"])["wrist"])
            if sighting is None or len(sighting.ids) < 16:
                continue
            T_cam_board, rms_px = locate_target(camera, sighting.points_m, sighting.pixels)
            # The simulator's own camera and the board's place: drawing is right, and mirrors nothing.
            gap = se3.pose_error(T_BASE_BOARD, world.truth()["camera/wrist"] @ T_cam_board)
            assert np.linalg.norm(gap[:3]) < 0.015
            assert np.degrees(np.linalg.norm(gap[3:])) < 4.0
            samples.append(HandEyeSample(number, model.link_pose(q, mount.parent), T_cam_board, rms_px))
            if len(samples) == 16:
                break
    assert len(samples) >= 12
    found = calibrate_mount(samples, "eye_in_hand", np.eye(4))
    truth = se3.make_pose(np.array(mount.position_m), rotations.rpy_to_matrix(np.array(mount.rpy_rad)))
    gap = se3.pose_error(truth, found.T_parent_cam)
    # Pictures without smoothed edges place a corner to a few tenths of a pixel.
    assert 1e3 * np.linalg.norm(gap[:3]) < 4.0
    assert np.degrees(np.linalg.norm(gap[3:])) < 0.5


def test_board_needs_a_link_that_is_there() -> None:
    with pytest.raises(UnknownNameError, match="panda_hand"):
        World(ROBOT, sharp_rig(), 0, picture=picture("panda_hnd"))
