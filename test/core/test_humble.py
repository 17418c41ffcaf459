"""Our nodes beside ROS 2 Humble's rclpy and messages, which pip can't install: beside what was recorded of them."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

needs_mypy = pytest.mark.skipif(
    importlib.util.find_spec("mypy") is None or sys.version_info[:2] != (3, 11),
    reason="needs mypy (`make test` installs it) on Python 3.11, whose numpy's stubs can be read as Python 3.10",
)
CHECKOUT = Path(__file__).parents[2]
NODES = sorted((CHECKOUT / "vla_ros" / "nodes").glob("*.py"))
CHECK = CHECKOUT / "scripts" / "check_humble.py"


def check(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CHECK), *words], capture_output=True, text=True, timeout=110, cwd=CHECKOUT
    )


@needs_mypy
def test_nodes_use_what_humble_has() -> None:
    done = check()
    assert done.returncode == 0, done.stdout


# What Humble's sources say at the recorded commit; each of these was in our nodes once, or is in Kilted's rclpy.
FOREIGN = """
from typing import Any

from rclpy.event_handler import PublisherEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import String


class Listener(Node):
    def __init__(self) -> None:
        super().__init__("listener")
        self.create_subscription(String, "task", self._on_task, 10)
        self.create_timer(1.0, self._tick, autostart=False)
        self.count_services("stop")
        self.create_subscription(String, "task", self._right, 10, callback_group=self.default_callback_group)
        self.count_publishers("task")

    def _on_task(self, message: String, info: Any) -> None: ...

    def _right(self, message: String) -> None: ...

    def _tick(self) -> None: ...
"""


@needs_mypy
def test_what_humble_lacks_is_found_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "foreign.py"
    path.write_text(FOREIGN)
    done = check(str(path))
    lines = FOREIGN.splitlines()
    found = {lines[int(line.split(":")[1]) - 1].strip() for line in done.stdout.splitlines() if ": error:" in line}
    assert done.returncode == 1
    assert found == {
        "from rclpy.event_handler import PublisherEventCallbacks",
        'self.create_subscription(String, "task", self._on_task, 10)',
        "self.create_timer(1.0, self._tick, autostart=False)",
        'self.count_services("stop")',
    }, done.stdout


def test_record_is_what_the_source_says() -> None:
    """Where a clone of rclpy is: git clone -b humble https://github.com/ros2/rclpy."""
    source = os.environ.get("VLA_ROS_HUMBLE_RCLPY")
    if not source:
        pytest.skip("VLA_ROS_HUMBLE_RCLPY isn't set: the folder rclpy/rclpy of a clone of its branch humble")
    program = CHECKOUT / "scripts" / "record_rclpy.py"
    done = subprocess.run(
        [sys.executable, str(program), source, "humble"], capture_output=True, text=True, check=True, timeout=60
    )
    found = yaml.safe_load(done.stdout)
    recorded = yaml.safe_load((CHECKOUT / "test/data/rclpy_humble.yaml").read_text(encoding="utf-8"))
    assert found["modules"] == recorded["modules"]


def imported_messages() -> set[str]:
    """Types in messages, `package/msg/Name`, that our nodes import."""
    found = set()
    for path in NODES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.endswith(".msg"):
                found |= {f"{node.module.replace('.', '/')}/{alias.name}" for alias in node.names}
    return found


# They come with the arms' drivers; nodes that differ where they do say so (vla_ros/nodes/controller_manager.py).
DRIVERS = ("controller_manager_msgs", "franka_msgs", "ur_dashboard_msgs")


def test_messages_of_the_nodes_are_the_same_in_humble_and_kilted() -> None:
    """By the definitions that rosbags has of both: what runs here, with Kilted's, has Humble's fields."""
    typesys = pytest.importorskip("rosbags.typesys")
    humble, kilted = (typesys.get_typestore(getattr(typesys.Stores, f"ROS2_{name}")) for name in ("HUMBLE", "KILTED"))
    names = {name for name in imported_messages() if not name.startswith(DRIVERS)}
    assert len(names) > 30
    for name in names:
        assert humble.fielddefs[name] == kilted.fielddefs[name], name


@pytest.mark.parametrize("folder", ["vla_ros", "scripts", "test", "interfaces"])
def test_source_is_python_3_10(folder: str) -> None:
    for path in (CHECKOUT / folder).rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 10))
