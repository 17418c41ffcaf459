"""Parameters that safety_node and controller_node have in common, and what they stand for."""

from __future__ import annotations

from pathlib import Path

from rclpy.node import Node

from vla_ros.config import load, package_share
from vla_ros.control.config import ControllerConfig
from vla_ros.nodes.runtime import parameter, required_parameter
from vla_ros.robots.config import CommandConfig, RobotConfig, load_robot

SHARED = ("robot", "controller", "interface")
"""Parameters of which one motion path has one value."""


def robot_setting(node: Node) -> RobotConfig:
    """The robot that parameter `robot` names.

    Raises:
        VlaRosError: if there is none.
    """
    return load_robot(required_parameter(node, "robot", "name of the robot, or its YAML file"))


def controller_setting(node: Node) -> ControllerConfig:
    """The joint controller's settings, from the file that parameter `controller` names."""
    path = str(parameter(node, "controller", "", "controller YAML file; empty: the package's own"))
    return load(ControllerConfig, Path(path) if path else package_share() / "config" / "controller.yaml")


def command_setting(node: Node, robot: RobotConfig) -> CommandConfig:
    """The command interface that parameter `interface` chooses.

    Raises:
        ConfigError: if the robot has no such interface.
    """
    interface = parameter(node, "interface", "", "how commands reach the arm; empty: as the robot's YAML says")
    return robot.command.using(str(interface))
