"""What hardware_node needs of an arm's driver, whichever it is."""

from __future__ import annotations

import math
import time
from typing import Protocol

from rclpy.node import Node

from vla_ros.nodes.message_packages import missing_package
from vla_ros.nodes.service_calls import Steps
from vla_ros.robots.config import RobotConfig
from vla_ros.robots.driver import DriverConfig

SILENT_S = 1.0
"""Silence of a driver's state after which it counts as gone."""


class DriverLink(Protocol):
    """One driver's state, settings and recovery."""

    speed_scaling: float
    """Part of their speed, 0 .. 1, at which the arm carries out what it is told."""

    @property
    def silence(self) -> str:
        """Why nothing is known of the arm, empty if it is."""

    @property
    def fault(self) -> str:
        """Why the arm can't be led, empty if it can."""

    def apply_settings(self) -> Steps:
        """Tells the arm its payload and thresholds, before it moves. Raises VlaRosError where it refuses."""

    def recover(self) -> Steps:
        """Leads the arm out of a fault, as an operator asked. Raises VlaRosError where it can't."""


class Heard:
    """When something was last heard of.

    Args:
        silent_s: silence after which it counts as gone.
    """

    def __init__(self, silent_s: float = SILENT_S) -> None:
        self._silent_s = silent_s
        self._heard_s = -math.inf

    def note(self) -> None:
        """It was heard of now."""
        self._heard_s = time.monotonic()

    @property
    def is_lost(self) -> bool:
        """Whether it was heard of before, and not for a while."""
        return self._heard_s > -math.inf and self.is_silent

    @property
    def is_silent(self) -> bool:
        """Whether it wasn't for a while."""
        return time.monotonic() - self._heard_s > self._silent_s


def link_to_driver(node: Node, robot: RobotConfig, driver: DriverConfig) -> DriverLink:
    """The link to the driver that a robot's YAML names.

    Raises:
        MissingDependencyError: without the message packages of that driver.
    """
    try:
        if driver.kind == "franka":
            from vla_ros.nodes.franka_link import FrankaLink

            return FrankaLink(node, driver)
        from vla_ros.nodes.ur_link import UrLink

        return UrLink(node, driver)
    except ImportError as error:
        raise missing_package(error, f"robot {robot.name}") from error
