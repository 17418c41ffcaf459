"""controller_node's own part: what it says of its robot and of joint states that it can't use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

rclpy = pytest.importorskip("rclpy")

from sensor_msgs.msg import JointState

from vla_ros.config import find_config
from vla_ros.nodes.controller_node import ControllerNode
from vla_ros.nodes.runtime import SENSOR
from vla_ros.nodes.state_intake import StateIntake
from vla_ros.robots.config import load_robot

pytestmark = pytest.mark.ros

CAPSULE = {"link": "panda_link0", "from_m": [0.0, 0.0, 0.0], "to_m": [0.0, 0.0, 0.1], "radius_m": 0.05}


@pytest.mark.parametrize("is_checked", [True, False])
def test_arm_whose_links_are_not_kept_apart_is_said_once(
    is_checked: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    robot: dict[str, Any] = yaml.safe_load(find_config("robots", "panda").read_text(encoding="utf-8"))
    if not is_checked:
        robot["self_collision"] = {"capsules": [CAPSULE]}
    path = tmp_path / "arm.yaml"
    path.write_text(yaml.safe_dump(robot), encoding="utf-8")
    rclpy.init(args=["--ros-args", "-p", f"robot:={path}"])
    try:
        node = ControllerNode(is_alone=False)
        node.start()
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    assert capfd.readouterr().err.count("self-collision isn't checked") == (0 if is_checked else 1)


@pytest.mark.parametrize(
    ("second_ns", "position", "says"),
    [(5, 0.1, "0.000 ms older"), (4, 0.1, "older than the one before"), (6, float("nan"), "finite"), (6, 0.1, "")],
)
def test_joint_state_that_is_dropped_is_told(
    second_ns: int, position: float, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    robot = load_robot("panda")
    rclpy.init()
    try:
        node = rclpy.create_node("listener")
        intake = StateIntake(node, robot, SENSOR)
        for stamp_ns, value in ((5, 0.0), (second_ns, position)):
            message = JointState(name=robot.joint_names, position=[value] * len(robot.joints))
            message.header.stamp.nanosec = stamp_ns
            intake._take(message)
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    said = capfd.readouterr().err
    assert (says in said) if says else ("dropped" not in said)
    assert len(intake.states) == (1 if says else 2)
