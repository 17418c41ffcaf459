"""A cell before a mocked driver, and a person in it who sees, hears, ends and starts things: a lab's day, for tests."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from vla_ros.config import find_config, package_share
from vla_ros.contract import load_rig
from vla_ros.hardware.readiness import HardwareState
from vla_ros.launching.resolve import resolve
from vla_ros.launching.supervisor import Supervisor
from vla_ros.nodes import image_messages, messages
from vla_ros.nodes.runtime import LATCHED, SENSOR
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
FORCE_N = 250.0
POLICY, OTHER = "scripted_visual", "other"


@dataclass(frozen=True)
class Told:
    """What a node says on `/diagnostics`."""

    node: str
    level: bytes
    message: str
    values: dict[str, str]


class Lab:
    """A cell, started as `ros2 launch` starts it, where no node ends because another did; and who listens to all of it.

    Args:
        processes: start what is started beside it.
        peer: listens.
        wait: `wait_until`.
        robot: name of the arm.
        folder: for what is written.
    """

    def __init__(self, processes: Any, peer: Any, wait: Callable[..., Any], robot: str, folder: Path) -> None:
        self.peer, self.processes, self.folder, self._wait = peer, processes, folder, wait
        self.config, self.rig = load_robot(robot), load_rig(f"{robot}_table")
        self.model = RobotModel.from_config(self.config)
        assert self.config.driver is not None
        self.driver = self.config.driver
        self.interface = self.config.command.using(self.driver.interface).interface
        self.said: list[HardwareState] = []
        self.told: list[Told] = []
        self.events: list[dict[str, Any]] = []
        self.truth: dict[str, Any] = {}
        self.positions: list[list[float]] = []
        self.opening = 1.0
        self.is_stop_asked_for = False
        """Whether a test had the arm stop itself."""

        self.commands: list[JointState] = peer.hear(JointState, "joint_command")
        for kind, topic, callback, profile in (
            (String, "hardware/state", self._on_state, LATCHED),
            (DiagnosticArray, "/diagnostics", self._on_diagnostics, 100),
            (TFMessage, "sim/ground_truth", self._on_truth, 10),
            (String, "episode/event", self._on_event, LATCHED),
            (JointState, self.driver.joint_states, self._on_joints, 10),
            (JointState, "gripper/state", self._on_gripper, 10),
        ):
            peer.node.create_subscription(kind, topic, callback, profile)
        self._task = peer.speak(String, "task", is_latched=True)
        self.other = folder / f"{OTHER}.yaml"
        self.other.write_text(f"name: {OTHER}\nkind: scripted_visual\ncontract: tool_delta_visual\nrate_hz: 8.0\n")
        self.robot = _firm(robot, folder)
        self.source = POLICY
        self._again: dict[str, Any] = {}
        words = {"robot": str(self.robot), "rig": self.rig.name, "hardware": "mock", "resident": str(self.other)}
        graph = resolve(package_share() / "launch" / "bringup.launch.xml", words)
        nodes = tuple(replace(node, is_required=False) for node in graph.nodes)
        self.stack = Supervisor(replace(graph, nodes=nodes), log_dir=folder / "logs", is_quiet=True)
        self.stack.start()

    # What is heard: the peer's thread.

    def _on_state(self, message: String) -> None:
        self.said.append(HardwareState.from_json(message.data))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for item in message.status:
            values = {pair.key: pair.value for pair in item.values}
            self.told.append(Told(item.name.rpartition("/")[2], item.level, item.message, values))

    def _on_truth(self, message: TFMessage) -> None:
        self.truth = {edge.child_frame_id: messages.from_transform(edge.transform) for edge in message.transforms}

    def _on_event(self, message: String) -> None:
        self.events.append(json.loads(message.data))

    def _on_joints(self, message: JointState) -> None:
        names = self.config.joint_names
        self.positions.append([message.position[list(message.name).index(name)] for name in names])

    def _on_gripper(self, message: JointState) -> None:
        self.opening = float(message.position[0])

    # What is waited for.

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
        """`wait_until`, which tells beside what all nodes said last."""
        try:
            return self._wait(condition, what, timeout_s)
        except AssertionError as error:
            newest = {item.node: item for item in list(self.told)}
            raise AssertionError("\n".join([str(error), *map(str, newest.values())])) from error

    @property
    def reason(self) -> str:
        """Why the arm isn't led now."""
        return self.said[-1].reason if self.said else "hardware_node hasn't spoken"

    def await_ready(self) -> None:
        """Waits until the arm may be led."""
        self.wait(lambda: self.said and self.said[-1].is_ready, f"the arm to be ready; {self.reason}", 60.0)

    def await_told(self, node: str, level: bytes, *words: str) -> Told:
        """Waits until a node says so on `/diagnostics`, since the test began, and returns it."""

        def found() -> Told | None:
            heard = [item for item in list(self.told) if item.node == node and item.level == level]
            return next((item for item in heard if all(word in item.message for word in words)), None)

        return self.wait(found, f"{words} on /diagnostics of {node}, level {level!r}")

    def await_standing(self) -> None:
        """Waits until the arm stands."""
        self.wait(self.is_standing, "the arm to stand")

    def is_standing(self) -> bool:
        """Whether the arm stands for half a second."""
        self.positions.clear()
        time.sleep(0.5)
        return len(self.positions) > 20 and float(np.ptp(self.positions, axis=0).max()) < 0.005

    def give(self, task: str) -> None:
        """Gives a task, empty for none."""
        self._task.publish(String(data=task))

    def await_motion(self, task: str = "") -> None:
        """Waits until the arm is under way, to another task where one is given."""
        if task:
            self.give(task)
        start = np.array(self.positions[-1])
        self.wait(lambda: np.abs(np.array(self.positions[-1]) - start).max() > 0.05, f"motion for {task!r}")

    def extremes(self) -> dict[str, float]:
        """What the arm was told since the last call, as multiples of its limits."""
        return dict(json.loads(self.peer.call(Trigger, "mock/extremes").message))

    def images(self) -> dict[str, Any]:
        """(h, w, 3) uint8 of every camera, exposed from now on."""
        node, now_ns, found = self.peer.node, self.peer.now_ns(), {}

        def take(name: str, message: Image) -> None:
            if messages.to_ns(message.header.stamp) > now_ns:
                found[name] = image_messages.from_image(message)

        heard = [
            node.create_subscription(Image, camera.topic, lambda message, name=name: take(name, message), SENSOR)
            for name, camera in self.rig.cameras.items()
        ]
        self.wait(lambda: len(found) == len(heard), "images of all cameras")
        for subscription in heard:
            node.destroy_subscription(subscription)
        return dict(found)

    # What is ended and started.

    def is_running(self, label: str) -> bool:
        """Whether a node's process is alive."""
        self.stack.poll()
        return label in self.stack.pids or (label in self._again and self._again[label].poll() is None)

    def kill(self, label: str) -> None:
        """Ends a node of the launch file, in a way of which it learns nothing."""
        if label in self.stack.pids:
            guard = self.stack.pids[label]
            (pid,) = map(int, Path(f"/proc/{guard}/task/{guard}/children").read_text().split())
        else:
            pid = self._again[label].pid
        os.kill(pid, signal.SIGKILL)
        self.wait(lambda: not self.is_running(label), f"the end of {label}")

    def start_again(self, label: str) -> None:
        """Starts a node that has ended, with what bringup has told it, as docs/hardware.md says."""
        common = {"robot": str(self.robot), "hardware": "mock"}
        if label == "motion":
            self._again[label] = self.processes.start_node("motion", **common, source=self.source)
            return
        names = {POLICY: POLICY, OTHER: str(self.other)}
        resident = next(word for name, word in names.items() if name != self.source)
        words = {**common, "rig": self.rig.name, "policy": names[self.source], "resident": resident}
        assignments = [f"{key}:={value}" for key, value in words.items()]
        self._again[label] = self.processes.start_command("launch", "policy", *assignments)

    def close(self) -> None:
        """Ends all of it, and looks at how it went."""
        ends = [process.end() for process in self._again.values() if process.poll() is None]
        assert self.stack.stop() == 0
        assert not any(ends)
        self.peer.close()
        logs = [path.read_text(errors="replace") for path in (self.folder / "logs").glob("*.log")]
        logs += [process.text for process in self._again.values()]
        assert not [text for text in logs if "Traceback" in text]


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
