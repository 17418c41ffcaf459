"""Processes of a benchmark: what they print is kept, and they end with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import vla_ros


class BenchProcess(subprocess.Popen[bytes]):
    """A process with what it prints in a file."""

    def __init__(self, words: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            super().__init__(words, stdout=file, stderr=subprocess.STDOUT, env=_child_environment())

    def __exit__(self, *_arguments: object) -> None:
        """Ends it."""
        self.terminate()
        try:
            self.wait(5.0)
        except subprocess.TimeoutExpired:
            self.kill()
            self.wait()


def _child_environment() -> dict[str, str]:
    child = dict(os.environ)
    # The wheels' start-up sets LD_LIBRARY_PATH unless it is marked as done.
    if "LD_LIBRARY_PATH" not in child:
        child.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
    here = str(Path(vla_ros.__file__).parents[1])  # From a checkout, too.
    child["PYTHONPATH"] = os.pathsep.join(filter(None, (here, child.get("PYTHONPATH"))))
    return child


@contextmanager
def environment(changed: Mapping[str, str]) -> Iterator[None]:
    """Changes the environment while a block runs."""
    before = {key: os.environ.get(key) for key in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
