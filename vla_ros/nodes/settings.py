"""Parameters that several nodes have in common, and what they stand for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rclpy.node import Node
from std_msgs.msg import String

from vla_ros.config import load, package_share
from vla_ros.contract import Rig, load_rig
from vla_ros.control.config import ControllerConfig
from vla_ros.errors import ConfigError, UnknownNameError, VlaRosError
from vla_ros.nodes.runtime import LATCHED, destroy, entities, is_ending, parameter, required_parameter
from vla_ros.nodes.streams import Polled
from vla_ros.robots.config import CommandConfig, RobotConfig, load_robot
from vla_ros.robots.live_description import LiveDescription, adopt
from vla_ros.robots.model import RobotModel

SHARED = ("robot", "prefix", "controller", "interface", "hardware")
"""Parameters of which one motion path has one value."""
HARDWARE = ("sim", "mock", "real")
"""What moves: MuJoCo, a stand-in that speaks as the arm's driver does, or the driver."""
SIM, REAL = "sim", "real"
_LOOK_S = 0.02


def _once(node: Node, name: str, default: Any, description: str) -> Any:
    """A parameter that is asked for at several places of a node."""
    return node.get_parameter(name).value if node.has_parameter(name) else parameter(node, name, default, description)


def prefix_setting(node: Node) -> str:
    """What stands before every link and joint of the arm: parameter `prefix`."""
    return str(_once(node, "prefix", "", "before every link and joint, for several arms in one tree, such as left_"))


def robot_setting(node: Node) -> RobotConfig:
    """The robot that parameter `robot` names, behind `prefix`.

    Raises:
        VlaRosError: if there is none.
    """
    name = required_parameter(node, "robot", "name of the robot, or its YAML file")
    return load_robot(name, prefix_setting(node))


def rig_setting(node: Node) -> Rig:
    """The rig that parameter `rig` names, behind `prefix`.

    Raises:
        VlaRosError: if there is none.
    """
    return load_rig(required_parameter(node, "rig", "name of the rig, or its YAML file"), prefix_setting(node))


def controller_setting(node: Node) -> ControllerConfig:
    """The joint controller's settings, from the file that parameter `controller` names."""
    path = str(parameter(node, "controller", "", "controller YAML file; empty: the package's own"))
    return load(ControllerConfig, Path(path) if path else package_share() / "config" / "controller.yaml")


def hardware_setting(node: Node) -> str:
    """What moves: parameter `hardware`, one of `HARDWARE`.

    Raises:
        UnknownNameError: for another word.
    """
    hardware = str(_once(node, "hardware", SIM, f"what moves: {', '.join(HARDWARE)}"))
    if hardware not in HARDWARE:
        raise UnknownNameError("hardware", hardware, HARDWARE)
    return hardware


def command_setting(node: Node, robot: RobotConfig) -> CommandConfig:
    """The command interface that parameter `interface` chooses; empty: the driver's, or the simulated arm's.

    Raises:
        ConfigError: if the robot has no such interface.
    """
    meaning = "how commands reach the arm; empty: as the robot's YAML says"
    interface = str(_once(node, "interface", "", meaning))
    if not interface and hardware_setting(node) != SIM and robot.driver is not None:
        interface = robot.driver.interface
    return robot.command.using(interface)


def states_topic(node: Node, robot: RobotConfig) -> str:
    """Where the arm's joint states are: `joint_states`, or the driver's raw ones where a driver (or its mock) moves."""
    return "joint_states" if hardware_setting(node) == SIM or robot.driver is None else robot.driver.joint_states


def model_setting(node: Node, robot: RobotConfig) -> RobotModel:
    """The robot's model: from our description, or on real hardware from the driver's, with its calibration in it.

    Raises:
        VlaRosError: if the driver's doesn't come, or isn't of this robot.
    """
    live = live_description(node, robot)
    return RobotModel.from_config(robot) if live is None else RobotModel(robot, live.urdf)


def live_description(node: Node, robot: RobotConfig) -> LiveDescription | None:
    """The driver's description on `robot_description` with ours hung on it; None where there is no real driver.

    Waits for it in the thread that asks, `description_timeout_s` at most.

    Raises:
        VlaRosError: if it doesn't come, or isn't of this robot.
    """
    if hardware_setting(node) != REAL:
        return None
    timeout_s = float(_once(node, "description_timeout_s", 30.0, "wait so long for the driver's robot_description"))
    before = entities(node)
    polled, came = Polled(node), list[str]()
    polled.subscribe(String, "robot_description", lambda message, _info: came.append(message.data), LATCHED)
    topic = node.resolve_topic_name("robot_description")
    try:
        deadline_s = time.monotonic() + timeout_s
        while not came:
            if is_ending():
                raise VlaRosError(f"{node.get_name()}: asked to end while it waited for {topic}")
            if time.monotonic() > deadline_s:
                mend = "start its robot_state_publisher, in this namespace, or give hardware:=mock or sim"
                raise ConfigError(topic, f"no description of the arm for {timeout_s:g} s; does its driver run?", mend)
            time.sleep(_LOOK_S)
            polled.take()
    finally:
        polled.close()
        destroy(node, entities(node) - before)
    live = adopt(robot, came[-1], topic)
    node.get_logger().info(str(live))
    return live
