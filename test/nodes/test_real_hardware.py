"""What nodes take from a real arm's driver, which is a node of the test: its description and its raw joint states."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("rclpy")

from live_descriptions import CALIBRATED, ur_driver
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String
from tf2_msgs.msg import TFMessage
from trajectory_msgs.msg import JointTrajectory

from vla_ros.hardware.readiness import HardwareState
from vla_ros.nodes.calibration_node import calibration_session
from vla_ros.nodes.replay_node import replay_node
from vla_ros.nodes.settings import model_setting
from vla_ros.robots.config import load_robot
from vla_ros.robots.description import load_description
from vla_ros.robots.live_description import adopt
from vla_ros.robots.model import RobotModel

pytestmark = pytest.mark.ros


class Driver:
    """An arm's driver as far as it goes without moving: description, joint states, and hardware_node's good word."""

    def __init__(self, peer: Any, robot: str, live: str, topic: str) -> None:
        self.peer, self.robot = peer, load_robot(robot)
        self.positions = [joint.home_rad + 0.1 for joint in self.robot.joints]
        self._description = peer.speak(String, "robot_description", is_latched=True)
        self._description.publish(String(data=live))
        self._states = peer.speak(JointState, topic)
        self._word = peer.speak(String, "hardware/state", is_latched=True)
        peer.node.create_timer(0.01, self._tick)

    def _tick(self) -> None:
        message = JointState(name=list(self.robot.joint_names), position=self.positions)
        message.velocity = [0.0] * len(self.positions)
        message.header.stamp = self.peer.node.get_clock().now().to_msg()
        self._states.publish(message)
        self._word.publish(String(data=HardwareState(True, "", 1.0, self.peer.now_ns()).to_json()))


def edges(heard: list[Any]) -> dict[str, Any]:
    return {item.child_frame_id: item for message in heard for item in message.transforms}


def test_tf_has_from_us_what_the_driver_lacks_and_no_more(make_peer, processes, patience) -> None:
    live, config = ur_driver("ur5e", CALIBRATED), load_robot("ur5e")
    driver = Driver(make_peer("driver"), "ur5e", live, "joint_states")
    static, moving = driver.peer.hear(TFMessage, "/tf_static"), driver.peer.hear(TFMessage, "/tf")
    descriptions = driver.peer.hear(String, "robot_description")
    driver.peer.node.create_subscription(
        TFMessage, "/tf_static", static.append, QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    )
    node = processes.start_node("tf_node", robot="ur5e", hardware="real")
    patience(lambda: static and moving, "TF")
    ours = edges(static).keys() | edges(moving).keys()
    published = adopt(config, live).published
    assert not ours & published
    every = {item.get("name") for item in ElementTree.fromstring(adopt(config, live).urdf).findall("link")}
    assert ours == every - published
    assert driver.peer.node.count_publishers("robot_description") == 1
    assert descriptions == []
    assert "2.50 mm" in node.text
    assert node.end() == 0


def test_target_is_made_with_the_drivers_kinematics(make_peer, processes, patience) -> None:
    """On a Franka: a hand 50 mm longer, and the commanded joints hold where the raw topic has the arm."""
    live = load_description(load_robot("fr3")).replace('xyz="0 0 0.1034"', 'xyz="0 0 0.1534"')
    driver = Driver(make_peer("driver"), "fr3", live, "franka/joint_states")
    merged = driver.peer.speak(JointState, "joint_states")
    driver.peer.node.declare_parameter("hardware", "real")
    # The node's own thread serves it; `model_setting` looks for itself.
    model = model_setting(driver.peer.node, driver.robot)
    nominal = RobotModel.from_config(driver.robot)
    q = np.array(driver.positions)
    gap = model.forward_kinematics(q)[:3, 3] - nominal.forward_kinematics(q)[:3, 3]
    assert np.linalg.norm(gap) == pytest.approx(0.05)
    # An arm at home on the merged topic is not where the arm is.
    driver.peer.node.create_timer(
        0.02,
        lambda: merged.publish(
            JointState(name=list(driver.robot.joint_names), position=[joint.home_rad for joint in driver.robot.joints])
        ),
    )
    commands = driver.peer.hear(JointState, "joint_command")
    trajectories = driver.peer.hear(JointTrajectory, "joint_trajectory_controller/joint_trajectory")
    node = processes.start_node("motion", robot="fr3", hardware="real", armed="true")
    patience(lambda: commands and trajectories, f"commands\n{node.text}")
    np.testing.assert_allclose(commands[0].position, driver.positions, atol=1e-9)
    assert "50.00 mm" in node.text
    assert node.end() == 0


def test_mock_hardware_takes_the_drivers_topic_and_interface_and_our_description(
    make_peer, processes, patience
) -> None:
    """The Panda's own interface is position, its driver's trajectory; nobody publishes a description."""
    peer = make_peer("driver")
    driver = Driver(peer, "panda", "<none/>", "franka/joint_states")
    trajectories = peer.hear(JointTrajectory, "joint_trajectory_controller/joint_trajectory")
    positions = peer.hear(Float64MultiArray, "forward_position_controller/commands")
    node = processes.start_node("motion", robot="panda", hardware="mock")
    patience(lambda: trajectories, f"a trajectory\n{node.text}")
    np.testing.assert_allclose(trajectories[0].points[-1].positions, driver.positions, atol=1e-6)
    assert positions == []


@pytest.mark.parametrize("executable", ["tf_node", "motion"])
def test_description_that_does_not_come_is_named_with_the_mend(executable, processes) -> None:
    node = processes.start_node(executable, robot="fr3", hardware="real", description_timeout_s=0.5)
    assert node.wait(30) == 2
    assert "/robot_description: no description of the arm for 0.5 s" in node.text
    assert "robot_state_publisher" in node.text
    assert "Traceback" not in node.text


def test_wait_for_a_description_ends_with_ctrl_c(processes, patience, ros_domain) -> None:
    node = processes.start_node("tf_node", robot="fr3", hardware="real", description_timeout_s=60.0)
    patience(
        lambda: Path(f"/proc/{node.pid}/task").exists() and len(list(Path(f"/proc/{node.pid}/task").iterdir())) > 5,
        "DDS",
    )
    node.end()
    assert "asked to end while it waited" in node.text


@pytest.mark.parametrize("command", ["calibrate", "replay"])
def test_commands_that_join_a_real_arm_have_its_drivers_kinematics(make_peer, command) -> None:
    live, config = ur_driver("ur5e", CALIBRATED), load_robot("ur5e")
    driver = Driver(make_peer("driver"), "ur5e", live, "joint_states")
    words = ["-p", "hardware:=real"]
    joined = calibration_session(config, None, words=words) if command == "calibrate" else replay_node(config, words)
    with joined as found:
        tcp_m = found.model.forward_kinematics(np.array(driver.positions))[:3, 3]
    theirs, ours = RobotModel(config, adopt(config, live).urdf), RobotModel.from_config(config)
    np.testing.assert_allclose(tcp_m, theirs.forward_kinematics(np.array(driver.positions))[:3, 3], atol=1e-9)
    assert np.linalg.norm(tcp_m - ours.forward_kinematics(np.array(driver.positions))[:3, 3]) > 1e-3
