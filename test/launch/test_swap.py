"""`vla-ros swap` while the simulated arm moves: it holds smoothly, the new policy goes on, and nobody misses it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vla_ros.sim.world")

from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import MultiDOFJointTrajectory

from vla_ros.evaluation.limits_judge import judge_limits
from vla_ros.nodes import messages
from vla_ros.nodes.runtime import LATCHED
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.slow]

FIRST = "scripted_visual"
MOVING_RAD_S = 0.03


class Stage:
    """A launched stack with two more policies that do the same under other names, one of them loaded from the start."""

    def __init__(self, processes: Any, peer: Any, wait: Any, folder: Path) -> None:
        self.processes, self.peer, self.wait = processes, peer, wait
        self.files = {name: self._write(folder, name) for name in ("second", "third")}
        self.commands: list[JointState] = peer.hear(JointState, "joint_command")
        self.events: list[tuple[float, dict[str, Any]]] = []
        self.chunks: list[tuple[float, str]] = []
        peer.node.create_subscription(String, "episode/event", self._on_event, LATCHED)
        for name in (FIRST, *self.files):
            topic = f"policies/{name}/action_chunk"
            peer.node.create_subscription(MultiDOFJointTrajectory, topic, self._on_chunk(name), 100)
        self.task = peer.speak(String, "task", is_latched=True)
        self.stack = processes.start_command("launch", "bringup", "robot:=panda", f"resident:={self.files['second']}")

    def _write(self, folder: Path, name: str) -> Path:
        path = folder / f"{name}.yaml"
        path.write_text(f"name: {name}\nkind: {FIRST}\ncontract: tool_delta_visual\nrate_hz: 8.0\n")
        return path

    def _on_event(self, message: String) -> None:
        self.events.append((time.monotonic(), json.loads(message.data)))

    def _on_chunk(self, name: str) -> Any:
        return lambda _message: self.chunks.append((time.monotonic(), name))

    def swap(self, *words: str) -> tuple[int, str]:
        process = self.processes.start_command("swap", *words)
        return process.wait(60.0), process.text

    def move(self, task: str) -> None:
        """Gives the instruction until the arm moves."""
        self.peer.matched(self.task)
        self.task.publish(String(data=task))
        self.wait(self.is_moving, f"motion for {task!r}: {self.stack.text[-2000:]}")

    def is_moving(self) -> bool:
        return bool(self.commands) and float(np.abs(self.commands[-1].velocity).max()) > MOVING_RAD_S

    def await_swap(self, to: str) -> float:
        """When the change to a policy was told."""

        def found() -> float:
            told = [when for when, event in self.events if event["event"] == "policy_swapped" and event["policy"] == to]
            return told[-1] if told else 0.0

        return float(self.wait(found, f"the change to {to}"))


@pytest.fixture(scope="module")
def stage(module_processes, make_module_peer, patience, tmp_path_factory) -> Iterator[Stage]:
    module_processes.close()
    stage = Stage(module_processes, make_module_peer("person"), patience, tmp_path_factory.mktemp("policies"))
    patience(lambda: len(stage.commands) > 100, "commands", 60.0)
    patience(lambda: any(event["event"] == "policy_active" for _, event in stage.events), "an active policy", 60.0)
    yield stage
    assert stage.stack.end() == 0, stage.stack.text


def test_policy_that_is_loaded_takes_over_within_a_second_and_the_other_is_silent(stage: Stage) -> None:
    stage.move("push the red block left")
    code, text = stage.swap(str(stage.files["second"]), "--json")
    assert code == 0, text
    result = json.loads(text.splitlines()[-1])
    assert (result["from"], result["to"], result["source"]) == (FIRST, "second", "second")
    assert result["was_loaded"]
    swapped_s = stage.await_swap("second")
    first_s = stage.wait(lambda: [when for when, name in list(stage.chunks) if name == "second"], "its first chunk")[0]
    assert first_s - swapped_s < 1.0
    stage.wait(stage.is_moving, "the arm to go on")
    # What it says and what the other had sent come on different topics.
    assert not [when for when, name in stage.chunks if name == FIRST and when > swapped_s + 0.2]


def test_policy_that_is_not_loaded_is_loaded_while_the_other_goes_on(stage: Stage) -> None:
    stage.move("reach the blue block")
    before = len(stage.chunks)
    code, text = stage.swap(str(stage.files["third"]), "--json")
    assert code == 0, text
    assert not json.loads(text.splitlines()[-1])["was_loaded"]
    swapped_s = stage.await_swap("third")
    assert any(name == "second" for when, name in stage.chunks[before:] if when < swapped_s)
    stage.wait(lambda: [name for when, name in list(stage.chunks) if name == "third"], "its first chunk")
    told = [event["event"] for _, event in stage.events if event.get("policy") == "third"]
    assert told.index("policy_loaded") < told.index("policy_swapped")


def test_policy_that_is_unknown_changes_nothing(stage: Stage) -> None:
    before = len([event for _, event in stage.events if event["event"] == "policy_swapped"])
    code, text = stage.swap("scripted_visul")
    assert code == 2
    assert "did you mean 'scripted_visual'?" in text
    assert len([event for _, event in stage.events if event["event"] == "policy_swapped"]) == before


def test_policy_that_cannot_be_loaded_is_refused_each_time_and_taken_once_it_is_mended(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stage._write(tmp_path, "fourth")
    good = path.read_text()
    path.write_text(good.replace(f"kind: {FIRST}", "kind: nonsense"))
    for _ in range(2):
        before = len(stage.events)
        code, text = stage.swap(str(path))
        assert code == 2
        assert "unknown policy kind 'nonsense'" in text
        # Not even the source was changed and put back.
        assert not [event for _, event in stage.events[before:] if event["event"] != "policy_refused"]
    path.write_text(good)
    code, text = stage.swap(str(path), "--json")
    assert code == 0, text
    assert not json.loads(text.splitlines()[-1])["was_loaded"]
    stage.await_swap("fourth")


@pytest.mark.parametrize("namespace", ["bad ns", "9x", "a//b"])
def test_namespace_that_is_none_is_one_line_and_code_2(processes: Any, namespace: str) -> None:
    process = processes.start_command("swap", FIRST, "--namespace", namespace)
    assert process.wait(60.0) == 2
    assert process.text.count("\n") == 1
    assert "--namespace" in process.text


def test_no_limit_was_broken_by_any_change(stage: Stage) -> None:
    stamps = np.array([messages.to_ns(message.header.stamp) for message in list(stage.commands)])
    positions = np.array([message.position for message in list(stage.commands)[: len(stamps)]])
    report = judge_limits(stamps, positions, RobotModel.from_config(load_robot("panda")))
    assert report.is_clean, [str(item) for item in report.first_violations.values()]
    assert report.peak_velocity_fraction > 0.05
