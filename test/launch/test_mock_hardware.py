"""The whole stack in front of a mocked driver, as in a lab: every check before the first motion, and what goes wrong.

What the arm was told is judged by the mock, at its own rate.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launched_cell import Cell

pytest.importorskip("rclpy")
pytest.importorskip("vla_ros.sim.world")
pytest.importorskip("franka_msgs")
pytest.importorskip("ur_dashboard_msgs")

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from trajectory_msgs.msg import JointTrajectory

from vla_ros.config import find_config
from vla_ros.evaluation.limits_judge import judge_limits
from vla_ros.hardware.readiness import HardwareState
from vla_ros.nodes import messages
from vla_ros.nodes.runtime import LATCHED
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.slow]

ROBOTS = (pytest.param("fr3", marks=pytest.mark.lengthy), "ur5e")
CHECKS = ["driver", "arm", "joint_states", "settings", "controller", "tf", "cameras", "commands", "policy"]
FORCE_N = 250.0
TASKS = ("pick up the red block", "pick up the green block", "pick up the blue block")


def _firm(robot: str, folder: Path) -> Path:
    """The robot's YAML for contact: the simulated servos are stiff, and press where a Franka would give way."""
    text = find_config("robots", robot).read_text()
    text = re.sub(r"(collision_torque_nm|collision_force_n): \[.*\]", lambda m: _raised(m.group(1)), text)
    text = re.sub(r"force_n: [\d.]+, torque_nm: [\d.]+", f"force_n: {FORCE_N}, torque_nm: 100.0", text)
    # A test's machine stalls for longer than a lab's may.
    text = text.replace("\ncommand:\n", "\ncommand:\n  trajectory_lead_s: 0.2\n")
    path = folder / f"{robot}.yaml"
    path.write_text(text)
    return path


def _raised(key: str) -> str:
    return f"{key}: {[300.0] * (7 if key == 'collision_torque_nm' else 6)}"


class Lab:
    """A launched cell, and a person who listens to all of it."""

    def __init__(self, processes: Any, peer: Any, wait: Any, robot: str, folder: Path) -> None:
        self.peer, self.wait, self.processes = peer, wait, processes
        self.config = load_robot(robot)
        self.said: list[HardwareState] = []
        self.problems: set[str] = set()
        self.lifted: dict[str, float] = {}
        self.events: list[dict[str, Any]] = []
        self.positions: list[list[float]] = []
        self.commands: list[JointState] = peer.hear(JointState, "joint_command")
        self.model = RobotModel.from_config(self.config)
        node = peer.node
        node.create_subscription(String, "hardware/state", self._on_state, LATCHED)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)
        node.create_subscription(TFMessage, "sim/ground_truth", self._on_truth, 10)
        node.create_subscription(String, "episode/event", self._on_event, LATCHED)
        driver = self.config.driver
        assert driver is not None
        self.interface = self.config.command.using(driver.interface).interface
        node.create_subscription(JointState, driver.joint_states, self._on_joints, 10)
        self._task = peer.speak(String, "task", is_latched=True)
        other = self.other = folder / "other.yaml"
        other.write_text("name: other\nkind: scripted_visual\ncontract: tool_delta_visual\nrate_hz: 8.0\n")
        words = ["hardware:=mock", f"rig:={robot}_table", f"resident:={other}"]
        self.cell = Cell(processes, str(_firm(robot, folder)), *words)

    def _on_state(self, message: String) -> None:
        self.said.append(HardwareState.from_json(message.data))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.problems |= {f"{item.name}: {item.message}" for item in message.status if item.name == "/hardware_node"}

    def _on_truth(self, message: TFMessage) -> None:
        for edge in message.transforms:
            self.lifted[edge.child_frame_id] = edge.transform.translation.z

    def _on_event(self, message: String) -> None:
        self.events.append(json.loads(message.data))

    def _on_joints(self, message: JointState) -> None:
        names = self.config.joint_names
        self.positions.append([message.position[list(message.name).index(name)] for name in names])

    @property
    def reason(self) -> str:
        return self.said[-1].reason if self.said else "hardware_node hasn't spoken"

    def await_ready(self) -> None:
        assert self.cell.process.poll() is None, self.cell.process.text
        self.wait(lambda: self.said and self.said[-1].is_ready, f"the arm to be ready; {self.reason}", 60.0)

    def await_reason(self, *words: str) -> None:
        self.wait(lambda: all(word in self.reason for word in words), f"{words} in the reason; it is {self.reason}")

    def await_motion(self, task: str) -> None:
        """Gives a task and waits until the arm is under way."""
        self._task.publish(String(data=task))
        start = np.array(self.positions[-1])
        self.wait(lambda: np.abs(np.array(self.positions[-1]) - start).max() > 0.05, f"motion for {task!r}")

    def is_standing(self) -> bool:
        self.positions.clear()
        time.sleep(0.5)
        return len(self.positions) > 20 and float(np.ptp(self.positions, axis=0).max()) < 0.005

    def extremes(self) -> dict[str, float]:
        """What the arm was told since the last call, as multiples of its limits."""
        return dict(json.loads(self.peer.call(Trigger, "mock/extremes").message))


@pytest.fixture(scope="module", params=ROBOTS)
def lab(request, module_processes, make_module_peer, patience, tmp_path_factory) -> Iterator[Lab]:
    lab = Lab(module_processes, make_module_peer("person"), patience, request.param, tmp_path_factory.mktemp("lab"))
    lab.await_ready()
    yield lab
    lab.cell.process.end()


@pytest.fixture(autouse=True)
def judged(lab: Lab) -> Iterator[None]:
    """A test begins with an arm that may be led; whatever it does, the arm is told nothing past its limits."""
    if lab.said and not lab.said[-1].is_ready:
        lab.peer.call(Trigger, "hardware/recover")
        lab.await_ready()
    lab.commands.clear()
    lab.extremes()
    yield
    commands = list(lab.commands)
    if commands:
        stamps = np.array([messages.to_ns(message.header.stamp) for message in commands])
        report = judge_limits(stamps, np.array([message.position for message in commands]), lab.model)
        assert report.is_clean, [str(violation) for violation in report.first_violations.values()]
    if lab.cell.process.poll() is None and lab.interface == "trajectory":
        # A staircase of positions has the steps of its rate, and more where the machine stalls: what a UR makes of it
        # is servoj's. A Franka feels every step.
        extremes = lab.extremes()
        assert all(extremes[kind] <= 1.0 + 1e-3 for kind in ("velocity", "acceleration", "jerk")), extremes


def test_every_check_is_told_and_holds_before_the_first_motion(lab: Lab) -> None:
    assert list(lab.said[-1].checks) == CHECKS
    reasons = [state.reason.partition(":")[0] for state in lab.said if not state.is_ready]
    # The reasons come in the order of the checks: nothing is asked for before what it relies upon.
    order = [CHECKS.index(reason) for reason in reasons if reason in CHECKS]
    assert order == sorted(order)
    assert any(event.get("event") == "hardware" and event["is_ready"] for event in lab.events)


def test_scripted_policy_picks_a_block_up(lab: Lab) -> None:
    lab.await_motion(TASKS[0])
    lab.wait(lambda: lab.lifted.get("block_red", 0.0) > 0.08, "the red block in the air", 60.0)


def test_another_policy_takes_over_in_the_middle(lab: Lab) -> None:
    lab.await_motion(TASKS[1])
    swap = lab.processes.start_command("swap", str(lab.other))
    assert swap.wait(40.0) == 0, swap.text
    assert lab.said[-1].is_ready
    lab.await_motion(TASKS[2])


def test_stop_of_the_arm_is_named_latched_and_led_out_of_on_request_alone(lab: Lab) -> None:
    lab.await_motion(TASKS[0])
    is_franka = lab.config.driver.kind == "franka"
    assert lab.peer.call(Trigger, "mock/reflex" if is_franka else "mock/protective_stop").success
    lab.await_reason("reflex" if is_franka else "protective stop", "hardware/recover")
    lab.wait(lab.is_standing, "the arm to stand")
    lab.wait(lambda: any("stop" in text or "reflex" in text for text in lab.problems), "it on /diagnostics")
    status = lab.processes.start_command("hardware", "status")
    assert status.wait(40.0) == 1
    assert "isn't led" in status.text
    # It lasts until somebody asks: half of it is over by itself after a while.
    time.sleep(5.5)
    assert not lab.said[-1].is_ready
    recover = lab.processes.start_command("hardware", "recover")
    assert recover.wait(60.0) == 0, recover.text
    lab.await_ready()
    lab.await_motion(TASKS[1])


def test_joint_states_that_fall_silent_hold_the_arm_and_it_goes_on_by_itself(lab: Lab) -> None:
    lab.await_motion(TASKS[2])
    assert lab.peer.set_parameter("mock_node", "mock.silence_s", 1.0).successful
    lab.peer.call(Trigger, "mock/silence")
    lab.await_reason("joint_states: none for")
    lab.await_ready()
    lab.await_motion(TASKS[0])


def test_force_past_the_limit_stops_the_arm_until_it_is_recovered(lab: Lab) -> None:
    lab.await_motion(TASKS[1])
    assert lab.peer.set_parameter("mock_node", "mock.force_n", 2.0 * FORCE_N).successful
    lab.await_reason("force of")
    lab.wait(lab.is_standing, "the arm to stand")
    assert lab.peer.set_parameter("mock_node", "mock.force_n", 0.0).successful
    time.sleep(0.5)
    assert not lab.said[-1].is_ready
    assert lab.peer.call(Trigger, "hardware/recover").success
    lab.await_ready()
    lab.await_motion(TASKS[2])


def test_second_commander_of_the_arm_is_named_and_the_arm_holds(lab: Lab) -> None:
    topic = lab.config.command.using(lab.interface).topic
    rival = lab.peer.node.create_publisher(JointTrajectory if "trajectory" in topic else Float64MultiArray, topic, 1)
    lab.await_reason("commands:", "published by", "person")
    lab.wait(lab.is_standing, "the arm to stand")
    lab.peer.node.destroy_publisher(rival)
    lab.await_ready()


def test_kill_of_the_motion_process_stops_the_arm_within_its_limits_and_ends_the_stack(lab: Lab) -> None:
    lab.await_motion(TASKS[0])
    pid = lab.cell.pid_of("motion")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    lab.wait(lambda: lab.cell.process.poll() is not None, "the end of the stack", 60.0)
    assert lab.cell.process.returncode != 0
