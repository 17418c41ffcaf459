"""Parameters that safety_node and controller_node have in common, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from rclpy.node import Node

from vla_ros.config import load, package_share
from vla_ros.control.config import ControllerConfig
from vla_ros.errors import ConfigError
from vla_ros.nodes.runtime import parameter, required_parameter
from vla_ros.robots.config import CommandConfig, RobotConfig, load_robot

SHARED = ("robot", "controller", "interface", "hardware")
"""Parameters of which one motion path has one value."""


Hardware = Literal["sim", "mock", "real"]


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


def hardware_setting(node: Node) -> Hardware:
    """What moves, as parameter `hardware` says: the simulator, a stand-in for a driver, or a driver with a real arm.

    Raises:
        ConfigError: if it is none of them.
    """
    meaning = "what moves: sim, or an arm behind a driver's topics: mock or real"
    chosen = node.get_parameter("hardware") if node.has_parameter("hardware") else None
    value = str(parameter(node, "hardware", "sim", meaning) if chosen is None else chosen.value)
    for hardware in get_args(Hardware):
        if value == hardware:
            known: Hardware = hardware
            return known
    raise ConfigError("parameter hardware", f"is {value!r}", f"choose from: {', '.join(get_args(Hardware))}")


def command_setting(node: Node, robot: RobotConfig) -> CommandConfig:
    """The command interface that parameter `interface` chooses; a real arm's may be another than the simulated one's.

    Raises:
        ConfigError: if the robot has no such interface.
    """
    interface = str(parameter(node, "interface", "", "how commands reach the arm; empty: as the robot's YAML says"))
    if not interface and robot.driver is not None and hardware_setting(node) != "sim":
        interface = robot.driver.interface
    return robot.command.using(interface)
