"""Runs a few lines of Python in a process of its own, in the environment that our nodes get."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import vla_ros
from vla_ros.commands.doctor.finding import one_line

PIP = f"{shlex.quote(sys.executable)} -m pip install"
TIMEOUT_S = 60.0  # A first import of torch from a cold disk takes half a minute.


@dataclass(frozen=True)
class Answer:
    """What became of a probe.

    Attributes:
        is_ok: it ended with exit code 0.
        text: what it printed, or, if it failed, why, in one line.
    """

    is_ok: bool
    text: str


def start(code: str) -> subprocess.Popen[str]:
    """Starts `python -c code`."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=node_like_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def answer(process: subprocess.Popen[str], timeout_s: float = TIMEOUT_S) -> Answer:
    """Waits for a process; one that takes too long is killed."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return Answer(False, f"no answer within {timeout_s:g} s")
    if process.returncode == 0:
        return Answer(True, out.strip())
    if process.returncode < 0:
        return Answer(False, f"the process died of {signal.Signals(-process.returncode).name}")
    lines = [line for line in err.splitlines() if line.strip()]
    return Answer(False, one_line(lines[-1]) if lines else f"exit code {process.returncode}")


def ask(code: str, timeout_s: float = TIMEOUT_S) -> Answer:
    """Runs `python -c code`."""
    return answer(start(code), timeout_s)


def node_like_environment() -> dict[str, str]:
    """What our nodes see, with this vla_ros importable."""
    try:
        from vla_ros.launching.environment import process_environment
    except ImportError:  # PyYAML is missing; there is a check that says so.
        return dict(os.environ)
    return process_environment(os.environ, Path(vla_ros.__file__).parents[1])
