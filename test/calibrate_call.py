"""`vla-ros calibrate` in a process of its own, with answers in the place of a person's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from vla_ros.config import package_share


def calibrate(folder: Path, *words: str, answers: str = "") -> tuple[int, dict[str, Any], str]:
    """Runs the command with answers on standard input; its exit code, its JSON and what it told."""
    done = subprocess.run(
        [sys.executable, "-m", "vla_ros.cli", "calibrate", *words, "--json"],
        input=answers,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(package_share())},
        timeout=200,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr
