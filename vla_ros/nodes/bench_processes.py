"""Processes of a benchmark: what they print is kept, and they end with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import vla_ros
from vla_ros.launching.environment import process_environment


class BenchProcess(subprocess.Popen[bytes]):
    """A process with what it prints in a file."""

    def __init__(self, words: Sequence[str], log: Path) -> None:
        self.log = log
        child = process_environment(os.environ, Path(vla_ros.__file__).parents[1])
        with log.open("wb") as file:
            super().__init__(words, stdout=file, stderr=subprocess.STDOUT, env=child)

    def __exit__(self, *_arguments: object) -> None:
        """Ends it."""
        self.terminate()
        try:
            self.wait(5.0)
        except subprocess.TimeoutExpired:
            self.kill()
            self.wait()


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
