"""What the expert knows of a moment and what it wants in it; the sizes of what it handles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vla_ros.geometry.rotations import rotvec_to_matrix
from vla_ros.types import FloatArray

HALF_M = 0.02
"""Half of a block's edge, of a cylinder's height and of its width."""
_TOOL_DOWN = np.diag([1.0, -1.0, -1.0])
# How far an object's centre may lie from the tcp, along the tool's axes, to be between the fingers.
_BETWEEN_M = np.array([0.016, 0.022, 0.024])
# Opening past which fingers that close on an object don't touch it yet; and short of which they have missed it.
_LOOSE, MISSED = 0.07, 0.12


@dataclass(frozen=True)
class Moment:
    """What the expert goes by: all of it can be seen or is in a policy's state.

    Attributes:
        T_base_tcp: (4, 4) commanded.
        opening: of the gripper, measured.
        commanded_opening: what it was told last.
        objects: true T_base_object (4, 4) by name, the origin in the middle.
        width: opening at which the fingers touch an object of 4 cm.
        table_m: z of the table's top in base.
    """

    T_base_tcp: FloatArray
    opening: float
    commanded_opening: float
    objects: Mapping[str, FloatArray]
    width: float
    table_m: float = 0.0

    @property
    def p_base(self) -> FloatArray:
        """(3,) of the tool."""
        return np.asarray(self.T_base_tcp[:3, 3])

    @property
    def yaw_rad(self) -> float:
        """Of the tool's x about base z."""
        return math.atan2(self.T_base_tcp[1, 0], self.T_base_tcp[0, 0])

    @property
    def tilt_rad(self) -> float:
        """Of the tool's z from straight down."""
        return math.acos(min(1.0, max(-1.0, -float(self.T_base_tcp[2, 2]))))

    def place(self, name: str) -> FloatArray:
        """(3,) of an object in base."""
        return np.asarray(self.objects[name][:3, 3])

    @property
    def is_closing(self) -> bool:
        """Whether the fingers were told to close."""
        return self.commanded_opening < 0.5

    def is_between(self, name: str) -> bool:
        """Whether an object is between the fingers, held or not."""
        local = self.T_base_tcp[:3, :3].T @ (self.place(name) - self.p_base)
        return bool((np.abs(local) <= _BETWEEN_M).all())

    def is_held(self, name: str) -> bool:
        """Whether the fingers have closed on an object."""
        has_width = self.width - MISSED < self.opening < self.width + _LOOSE
        return self.is_closing and has_width and self.is_between(name)


@dataclass(frozen=True)
class Aim:
    """What the expert wants in a moment.

    Attributes:
        velocity: (3,) m/s of the tool, in base.
        yaw_rad: that the tool is to have, pointing down.
        opening: to command.
    """

    velocity: FloatArray
    yaw_rad: float
    opening: float


def tool_down(p_base: FloatArray, yaw_rad: float) -> FloatArray:
    """(4, 4) pose with the tcp's z downwards and its x at a yaw about base z."""
    T = np.eye(4)
    T[:3, :3] = rotvec_to_matrix(np.array([0.0, 0.0, yaw_rad])) @ _TOOL_DOWN
    T[:3, 3] = p_base
    return T
