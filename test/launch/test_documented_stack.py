"""What the documents say to type beside a running stack: `vla-ros hardware`, `ros2 service`, `param` and `topic`.

By the real `ros2` where that is installed, else by what it would do.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import documents
import pytest
import yaml
from launched_cell import Cell

pytest.importorskip("rclpy")
pytest.importorskip("vla_ros.sim.world")
pytest.importorskip("franka_msgs")
pytest.importorskip("ur_dashboard_msgs")

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.slow, pytest.mark.lengthy, pytest.mark.timeout(300)]

ROS2 = shutil.which("ros2")
# In this order: what stops the arm comes last. Each is in the documents, and nothing else of these kinds is.
BOTH = (
    "ros2 topic echo /hardware/state",
    "ros2 topic echo /diagnostics",
    "ros2 topic info -v",
    "ros2 topic pub --once /task std_msgs/msg/String '{data: push the blue block left}'",
    "ros2 service call /episode/start std_srvs/srv/Trigger",
    "ros2 param set /safety_node source teleop",
    "ros2 param set /safety_node source scripted_visual",
    "ros2 param set /teleop_node clutch true",
    "ros2 param set /controller_node armed true",
    "ros2 param set /mock_node mock.force_n 20.0",
    "ros2 service call /mock/extremes std_srvs/srv/Trigger",
    "ros2 service call /safety/stop std_srvs/srv/Trigger",
    "ros2 service call /safety/reset std_srvs/srv/Trigger",
    "ros2 service call /mock/silence std_srvs/srv/Trigger",
)
OF = {
    "fr3": (
        "ros2 service call /gripper/homing std_srvs/srv/Trigger",
        "ros2 service call /mock/reflex std_srvs/srv/Trigger",
        "ros2 service call /hardware/recover std_srvs/srv/Trigger",
    ),
    "ur5e": (
        "ros2 param set /mock_node mock.speed_scaling 0.3",
        "ros2 service call /mock/protective_stop std_srvs/srv/Trigger",
        "vla-ros hardware recover",
    ),
}


def test_table_here_is_what_the_documents_say() -> None:
    said = {
        command.words
        for command in documents.commands("ros2")
        if {*command.words[1:2]} & {"topic", "service", "param"} and "/" in "".join(command.words[2:])
    }
    typed = {
        documents.split_words(line) for lines in (BOTH, *OF.values()) for line in lines if line.startswith("ros2 ")
    }
    assert said | {("ros2", "topic", "info", "-v")} == typed
    said = {word for c in documents.commands("vla-ros") if c.words[1:2] == ("hardware",) for word in c.words[2:3]}
    assert said >= {"status", "arm", "recover"}


def message_type(name: str) -> Any:
    package, kind, type_name = name.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), type_name)


class Terminal:
    """Types commands as a reader of the documents would.

    Args:
        peer: stands in for `ros2` where there is none.
        patience: waits.
    """

    def __init__(self, peer: Any, patience: Callable[..., Any]) -> None:
        self._peer, self._patience = peer, patience

    def type(self, line: str) -> str:
        """What is printed; fails where the exit code isn't 0."""
        words = list(documents.split_words(line))
        if words[0] == "vla-ros":
            words[:1] = [sys.executable, "-m", "vla_ros.cli"]
        elif ROS2 is None:
            return str(getattr(self, f"_{words[1]}")(*words[2:]))
        else:
            words[0] = ROS2
            words += ["--once"] if words[1:3] == ["topic", "echo"] else []
            words += ["/joint_command"] if words[1:3] == ["topic", "info"] else []
        done = subprocess.run(words, capture_output=True, text=True, timeout=90, cwd=documents.CHECKOUT)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout

    def _topic(self, verb: str, *words: str) -> str:
        if verb == "info":
            (info,) = self._peer.node.get_publishers_info_by_topic("/joint_command")
            return str(info)
        name = next(word for word in words if word.startswith("/"))
        if verb == "echo":
            (kind,) = self._patience(lambda: dict(self._peer.node.get_topic_names_and_types()).get(name), name)
            heard = self._peer.hear(message_type(kind), name)
            self._patience(lambda: heard, name)
            return str(heard[0])
        kind, text = words[-2:]
        publisher = self._peer.matched(self._peer.speak(message_type(kind), name))
        publisher.publish(message_type(kind)(**yaml.safe_load(text)))
        return text

    def _service(self, _verb: str, name: str, kind: str) -> str:
        assert [kind] == self._patience(lambda: dict(self._peer.node.get_service_names_and_types()).get(name), name)
        answer = self._peer.call(message_type(kind), name)
        return f"success={answer.success}, message={answer.message!r}"

    def _param(self, _verb: str, node: str, name: str, value: str) -> str:
        result = self._peer.set_parameter(node, name, yaml.safe_load(value))
        assert result.successful, result.reason
        return "Set parameter successful"


def _typed(terminal: Terminal, line: str) -> str:
    """What is printed; empty where it can't be done yet."""
    try:
        said = terminal.type(line)
    except AssertionError as error:
        if "Cannot unlock" not in str(error):
            raise
        return ""
    return said if "success=False" not in said else ""


@pytest.mark.parametrize("robot", OF)
def test_what_is_typed_beside_a_stack_is_answered(
    robot: str, processes: Any, make_peer: Any, patience: Any, tmp_path: Path
) -> None:
    words = ["hardware:=mock", "arm:=false", "teleop:=pose", "record:=true", f"folder:={tmp_path}"]
    cell = Cell(processes, robot, *words)
    terminal = Terminal(make_peer("reader"), patience)

    def is_ready() -> bool:
        assert cell.process.poll() is None, cell.process.text
        command = [sys.executable, "-m", "vla_ros.cli", "hardware", "status", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=documents.CHECKOUT)
        return done.returncode == 0 and not any(json.loads(done.stdout.splitlines()[-1])["checks"].values())

    patience(is_ready, "an arm that may be led", 120.0)
    assert "the arm may be led" in terminal.type("vla-ros hardware status")
    terminal.type("vla-ros hardware arm")
    terminal.type("vla-ros hardware disarm")
    for line in (*BOTH, *OF[robot]):
        # A UR keeps a protective stop for 5 s: whoever types this tries again.
        said = patience(lambda line=line: _typed(terminal, line), line) if "recover" in line else terminal.type(line)
        assert said, line
        if " service call " in line:
            assert "success=True" in said, f"{line}: {said}"
        if " param set " in line:
            assert "successful" in said, f"{line}: {said}"
    if ROS2 is not None:
        subprocess.run([ROS2, "daemon", "stop"], env=os.environ, capture_output=True, timeout=60, check=False)
    assert cell.interrupt() == 0
    assert cell.pids() == {}
    assert list(tmp_path.glob("episode_*"))
