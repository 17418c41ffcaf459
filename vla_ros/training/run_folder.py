"""The folder of a training run.

    config.yaml                 all settings in force
    log.csv                     a line for each step
    open_loop.csv               a line for each examination on held-out episodes
    events/                     the same for TensorBoard, where that is installed
    checkpoints/step-NNNNNN/    a policy's checkpoint, with the settings in force (training.yaml)
    last.json, best.json        which of them is the newest, and which did best on held-out episodes
    resume/step-NNNNNN/         what going on needs besides: weights, their average, the optimiser's memory

Everything is there whole or not at all, whenever the process is killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vla_ros.errors import ConfigError
from vla_ros.files import whole_file, whole_folder
from vla_ros.policies.checkpoint import file_hash

CONFIG, LOG, OPEN_LOOP, EVENTS = "config.yaml", "log.csv", "open_loop.csv", "events"
CHECKPOINT_CONFIG = "training.yaml"
_STATE, _TENSORS = "state.json", "tensors.safetensors"
_RESUMABLE = 2


@dataclass(frozen=True)
class RunFolder:
    """See the module.

    Attributes:
        path: of the folder.
    """

    path: Path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder and keeps other processes out of it; what a killed one left unfinished goes.

        Raises:
            ConfigError: if it can't be made, or somebody trains into it.
        """
        try:
            for folder in (self.path, self.path / "checkpoints", self.path / "resume"):
                folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except OSError as error:
            problem = f"can't be written to ({error.strerror or error})"
            raise ConfigError(str(self.path), problem, "choose another --out") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise ConfigError(str(self.path), "somebody is training into it", "choose another --out") from error
        try:
            for parent in ("checkpoints", "resume"):
                for left_over in (self.path / parent).glob(".step-*"):
                    shutil.rmtree(left_over, ignore_errors=True)
            yield
        finally:
            os.close(lock)

    @property
    def has_run(self) -> bool:
        """Whether somebody has trained into it."""
        return (self.path / LOG).exists() or any((self.path / "checkpoints").glob("step-*"))

    def checkpoint(self, step: int) -> Path:
        """Where the policy of a step is."""
        return self.path / "checkpoints" / step_name(step)

    def write_config(self, settings: dict[str, Any], step: int | None = None) -> None:
        """Writes all settings in force, or with a step those of its checkpoint, which may be carried elsewhere."""
        path = self.path / CONFIG if step is None else self.checkpoint(step) / CHECKPOINT_CONFIG
        with whole_file(path) as partial:
            partial.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")

    def write_pointer(self, name: str, step: int, **facts: Any) -> None:
        """Says which checkpoint is `last` or `best`."""
        said = {"step": step, "checkpoint": f"checkpoints/{step_name(step)}", **facts}
        with whole_file(self.path / f"{name}.json") as partial:
            partial.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")

    def write_state(self, step: int, tensors: dict[str, Any], facts: dict[str, Any]) -> None:
        """Writes what is needed to go on after a step, and forgets older ones."""
        from safetensors.torch import save_file

        with whole_folder(self.path / "resume" / step_name(step)) as partial:
            save_file(tensors, partial / _TENSORS)
            said = {"step": step, "tensors": file_hash(partial / _TENSORS), **facts}
            (partial / _STATE).write_text(json.dumps(said, indent=1), encoding="utf-8")
        for old in self._steps("resume")[:-_RESUMABLE]:
            _forget(self.path / "resume" / step_name(old))

    def read_state(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Tensors and facts of the newest state that is whole, None if there is none."""
        from safetensors.torch import load_file

        for step in reversed(self._steps("resume")):
            folder = self.path / "resume" / step_name(step)
            try:
                facts = json.loads((folder / _STATE).read_text(encoding="utf-8"))
                if facts["tensors"] == file_hash(folder / _TENSORS):
                    return load_file(folder / _TENSORS), facts
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return None

    def forget_checkpoints(self, keep: int, best: int | None) -> None:
        """Removes all checkpoints but the newest and the best one; 0 keeps all."""
        for step in self._steps("checkpoints")[: -keep or None] if keep else ():
            if step != best:
                _forget(self.checkpoint(step))

    def _steps(self, folder: str) -> list[int]:
        found = (re.fullmatch(r"step-(\d+)", path.name) for path in (self.path / folder).glob("step-*"))
        return sorted(int(match[1]) for match in found if match)


def step_name(step: int) -> str:
    """Name of a step's folder."""
    return f"step-{step:06d}"


def _forget(folder: Path) -> None:
    """Removes a folder, which loses its name first: who is killed meanwhile leaves no part of one under it."""
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)
