"""A launched stack, for tests of several folders: its processes are known by a mark in their environment."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

MARK = "VLA_ROS_TEST_RUN"


class Cell:
    """A launched stack whose processes all carry a mark in their environment."""

    def __init__(self, processes: Any, robot: str, *words: str) -> None:
        self.robot = robot
        self.mark = uuid.uuid4().hex
        self.process = processes.start_command("launch", "bringup", f"robot:={robot}", *words, **{MARK: self.mark})

    def pids(self) -> dict[int, str]:
        """Every process of this run that is alive, with its command line."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return found

    def pid_of(self, node: str) -> int | None:
        """The process of a node, not its guard's."""
        words = f" -m vla_ros.nodes {node} "
        return next((pid for pid, line in self.pids().items() if words in line and "guard.py" not in line), None)

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        return int(self.process.end())
