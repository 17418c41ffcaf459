"""The whole stack as `vla-ros launch` starts it, watched and stopped by a plain rclpy script that knows none of us."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launched_cell import MARK, Cell

pytest.importorskip("rclpy")
pytest.importorskip("vla_ros.sim.world")

from vla_ros.evaluation.limits_judge import judge_limits
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.slow]

CLIENT = Path(__file__).with_name("plain_client.py")
NODES = {"camera_node", "controller_node", "motion_loop", "policy_node", "safety_node", "sim_node", "tf_node"}
# docs/design.md, section 3: what a launched cell has.
TOPICS = {
    "/camera/base/image": "sensor_msgs/msg/Image",
    "/camera/base/camera_info": "sensor_msgs/msg/CameraInfo",
    "/camera/wrist/image": "sensor_msgs/msg/Image",
    "/camera/wrist/camera_info": "sensor_msgs/msg/CameraInfo",
    "/task": "std_msgs/msg/String",
    "/policies/scripted_visual/action_chunk": "trajectory_msgs/msg/MultiDOFJointTrajectory",
    "/policies/scripted_visual/joint_chunk": "trajectory_msgs/msg/JointTrajectory",
    "/teleop/action_chunk": "trajectory_msgs/msg/MultiDOFJointTrajectory",
    "/target": "trajectory_msgs/msg/MultiDOFJointTrajectory",
    "/joint_target": "trajectory_msgs/msg/JointTrajectory",
    "/joint_states": "sensor_msgs/msg/JointState",
    "/gripper/command": "std_msgs/msg/Float64",
    "/gripper/state": "sensor_msgs/msg/JointState",
    "/forward_position_controller/commands": "std_msgs/msg/Float64MultiArray",
    "/joint_command": "sensor_msgs/msg/JointState",
    "/safety/verdict": "diagnostic_msgs/msg/DiagnosticArray",
    "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
    "/episode/event": "std_msgs/msg/String",
    "/tf": "tf2_msgs/msg/TFMessage",
    "/tf_static": "tf2_msgs/msg/TFMessage",
    "/robot_description": "std_msgs/msg/String",
    "/sim/ground_truth": "tf2_msgs/msg/TFMessage",
}
SERVICES = {
    "/safety/stop": "std_srvs/srv/Trigger",
    "/safety/reset": "std_srvs/srv/Trigger",
    "/sim/reset": "std_srvs/srv/Trigger",
    **{
        f"/{node}/{service}": f"lifecycle_msgs/srv/{kind}"
        for node in ("controller_node", "policy_node")
        for service, kind in (("get_state", "GetState"), ("change_state", "ChangeState"))
    },
}


def ask_plain_client(*words: str) -> dict[str, Any]:
    """Runs the script in an environment of its own, with nothing but the ROS domain in common with ours."""
    environ = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/"), "ROS_DOMAIN_ID": os.environ["ROS_DOMAIN_ID"]}
    if os.environ.get("AMENT_PREFIX_PATH", sys.prefix) != sys.prefix:
        # Where ROS is sourced, the script needs it, too.
        environ |= {key: value for key, value in os.environ.items() if key not in environ and key != MARK}
    done = subprocess.run(
        [sys.executable, str(CLIENT), *words],
        env=environ,
        capture_output=True,
        text=True,
        timeout=110,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def cell(module_processes) -> Cell:
    """A panda that is told to reach for a block."""
    module_processes.close()
    return Cell(module_processes, "panda", "task:=reach the red block")


@pytest.fixture(scope="module")
def found(module_domain: int, cell: Cell) -> dict[str, Any]:
    """What the plain script saw of it, the stop at the end included."""
    found = ask_plain_client("--stop")
    assert not found["given_up_on"], f"the script waited in vain for {found['given_up_on']}\n{cell.process.text}"
    return found


def test_plain_script_finds_every_topic_of_the_design_with_its_type(found) -> None:
    assert {topic: found["topics"].get(topic) for topic in TOPICS} == {topic: [kind] for topic, kind in TOPICS.items()}


def test_plain_script_finds_nodes_and_services(found) -> None:
    assert set(found["nodes"]) >= NODES
    assert {name: found["services"].get(name) for name in SERVICES} == {name: [t] for name, t in SERVICES.items()}


def test_plain_script_receives_images_and_joint_states(found) -> None:
    for camera in ("base", "wrist"):
        assert found[f"{camera}_image"] == ["rgb8", 320, 240, 320 * 240 * 3]
        assert found[f"{camera}_info"] == [320, 240]
    assert tuple(found["joints"]) == load_robot("panda").joint_names


def test_nobody_of_the_stack_hears_the_ground_truth(found) -> None:
    assert found["hear_ground_truth"] == []


def test_plain_script_sees_the_arm_move_within_its_limits(found) -> None:
    assert found["moved_rad"] > 0.02
    stamps_ns, positions = zip(*found["commands"], strict=True)
    report = judge_limits(np.array(stamps_ns), np.array(positions), RobotModel.from_config(load_robot("panda")))
    assert report.is_clean, [str(violation) for violation in report.first_violations.values()]
    assert report.peak_velocity_fraction > 0.01


def test_stop_of_the_plain_script_brings_the_arm_to_rest_while_the_policy_goes_on(found) -> None:
    assert found["stop"][0] is True
    assert found["moved_after_rest_rad"] < 1e-6


def test_interrupt_ends_everything_with_code_0(found, cell: Cell, patience) -> None:
    # Five nodes, each with its guard, and the command itself.
    assert len(cell.pids()) >= 11
    assert cell.interrupt() == 0
    assert cell.pids() == {}
    assert "Traceback" not in cell.process.text
    assert "still running" not in cell.process.text


def test_ur5e_moves_too_and_ends_as_cleanly(processes) -> None:
    cell = Cell(processes, "ur5e", "task:=reach the blue block")
    found = ask_plain_client()
    assert not found["given_up_on"], f"the script waited in vain for {found['given_up_on']}\n{cell.process.text}"
    assert tuple(found["joints"]) == load_robot("ur5e").joint_names
    assert found["hear_ground_truth"] == []
    assert cell.interrupt() == 0
    assert cell.pids() == {}
    assert "Traceback" not in cell.process.text


@pytest.mark.parametrize("node", ["sim_node", "motion"])
def test_killed_node_ends_everything_with_a_failure_that_names_it(node, processes, patience) -> None:
    cell = Cell(processes, "panda", "cameras:=false")
    pid = patience(lambda: cell.pid_of(node), f"the process of {node}")
    patience(lambda: cell.pid_of("tf_node"), "the last node")
    os.kill(pid, signal.SIGKILL)
    assert cell.process.wait(60) == 1
    assert f"required node {node!r} was killed by SIGKILL" in cell.process.text
    assert cell.pids() == {}
