"""A calibration board in the simulated cell, as sim_node's parameters have it."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node

from vla_ros.calibration.boards import FORM, draw_board, parse_board
from vla_ros.contract import Rig
from vla_ros.errors import VlaRosError
from vla_ros.geometry import rotations, se3
from vla_ros.nodes.runtime import parameter
from vla_ros.robots.config import RobotConfig
from vla_ros.sim.picture import Picture
from vla_ros.types import FloatArray

_SQUARE_PX = 60
# On the table before the arm, where a wrist camera at home looks; above the mat.
_X_M, _ABOVE_M = 0.55, 0.003


def board_setting(node: Node, robot: RobotConfig, rig: Rig) -> Picture | None:
    """The board that parameter `board` names, None for none.

    Raises:
        VlaRosError: for what is none, or a pose that can't be read.
    """
    text = str(parameter(node, "board", "", f"calibration board, {FORM}, and nothing else on the table; empty: none"))
    link = str(parameter(node, "board_link", "", "link that carries the board; empty: it lies on the table"))
    place = str(parameter(node, "board_pose", "", "of its middle in that link: x,y,z,roll,pitch,yaw, m and rad"))
    if not text:
        return None
    board = parse_board(text)
    T_link_middle = _pose(place)
    if T_link_middle is None:
        if link:
            raise VlaRosError("board_link needs board_pose: x,y,z,roll,pitch,yaw of the board's middle, z into it")
        p = np.array([_X_M, 0.0, rig.table_height_m + _ABOVE_M])
        # Face up, its right side to the arm's right.
        T_link_middle = se3.make_pose(p, np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]]))
    margin = se3.make_pose(np.array([-board.square_m, -board.square_m, 0.0]))
    T_link_picture = T_link_middle @ se3.make_pose(-board.middle_m) @ margin
    image = np.pad(draw_board(board, _SQUARE_PX), _SQUARE_PX, constant_values=255)
    return Picture(image, image.shape[1] * board.square_m / _SQUARE_PX, link or robot.base_frame, T_link_picture)


def _pose(text: str) -> FloatArray | None:
    if not text:
        return None
    try:
        numbers = [float(word) for word in text.split(",")]
        x, y, z, *rpy = numbers
        return se3.make_pose(np.array([x, y, z]), rotations.rpy_to_matrix(np.array(rpy).reshape(3)))
    except ValueError as error:
        raise VlaRosError(f"board_pose {text!r} isn't x,y,z,roll,pitch,yaw") from error
