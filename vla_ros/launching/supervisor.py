"""Starts the nodes of a graph, watches them, and ends them all together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from vla_ros.errors import ConfigError
from vla_ros.launching import guard
from vla_ros.launching.environment import node_environment
from vla_ros.launching.graph import LaunchGraph, NodeAction, ParameterFile
from vla_ros.launching.output import OutputReader, show
from vla_ros.launching.packages import find_program
from vla_ros.launching.parameters import command_line, parameter_steps

OWN_LABEL = "launch"
# As in ROS: SIGINT, after this SIGTERM, after this again SIGKILL.
SIGTERM_AFTER_S = 5.0
SIGKILL_AFTER_S = 5.0
# What a guard may take after SIGKILL for the node's orphans.
_CLEAN_UP_S = 5.0
_POLL_S = 0.05


@dataclass(frozen=True)
class Death:
    """A node that ended.

    Args:
        label: its name in the output.
        exit_code: exit code, or minus the number of the signal that killed it.
        is_required: whether that ends everything.
    """

    label: str
    exit_code: int
    is_required: bool

    def __str__(self) -> str:
        kind = "required node" if self.is_required else "node"
        if self.exit_code >= 0:
            return f"{kind} {self.label!r} ended with exit code {self.exit_code}"
        return f"{kind} {self.label!r} was killed by {signal.Signals(-self.exit_code).name}"


@dataclass
class _Running:
    node: NodeAction
    label: str
    command: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    restart_at: float | None = None


class Supervisor:
    """The processes of one launch graph. `start` and `stop`, or `with`; nothing survives it, however it ends.

    Every node runs below a small process of its own, its guard, which ends the node and its children when it is told to
    or when this process is gone. Signals go only to processes that were started here.

    Args:
        graph: what to start.
        log_dir: folder for `<label>.log` and the written parameter files; made if missing. None keeps none.
        is_quiet: whether what nodes print stays off the screen.
        environ: environment to start from; the process's own if None.
        sigterm_after_s: time between SIGINT and SIGTERM.
        sigkill_after_s: time between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        graph: LaunchGraph,
        *,
        log_dir: Path | None = None,
        is_quiet: bool = False,
        environ: Mapping[str, str] | None = None,
        sigterm_after_s: float = SIGTERM_AFTER_S,
        sigkill_after_s: float = SIGKILL_AFTER_S,
    ) -> None:
        self._graph = graph
        self._log_dir, self._is_quiet = log_dir, is_quiet
        self._environ = os.environ if environ is None else environ
        self._sigterm_after_s, self._sigkill_after_s = sigterm_after_s, sigkill_after_s
        self._running: list[_Running] = []
        self._deaths: list[Death] = []
        self._output: OutputReader | None = None
        self._last_errors: dict[str, str] = {}
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._is_stopping = False

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def deaths(self) -> tuple[Death, ...]:
        """The nodes that ended before anybody asked for it, in their order; respawned ones each time."""
        return tuple(self._deaths)

    @property
    def is_running(self) -> bool:
        """Whether any node runs or is about to be respawned, as of the last `poll`."""
        return any(item.process is not None or item.restart_at is not None for item in self._running)

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the guards of the running nodes, by label."""
        return {item.label: item.process.pid for item in self._running if item.process is not None}

    def last_error(self, label: str) -> str:
        """What a node said last on standard error, empty for nothing; known after `stop`."""
        return self._last_errors.get(label, "")

    def start(self) -> None:
        """Starts all nodes, or none.

        Raises:
            ConfigError: for an executable that doesn't exist or a log folder that can't be made.
            MissingDependencyError: for a package that isn't installed.
        """
        programs = [
            find_program(node.package, node.executable, self._environ, node.where) for node in self._graph.nodes
        ]
        folder = self._parameter_folder()
        for node, label, program in zip(self._graph.nodes, self._graph.labels(), programs, strict=True):
            words = command_line(node, program.words, _write_parameters(node, label, folder))
            environment = node_environment(node, program, self._environ)
            self._running.append(_Running(node, label, words, environment))
        self._output = OutputReader(self._log_dir, is_quiet=self._is_quiet)
        try:
            for item in self._running:
                self._spawn(item, self._output)
        except BaseException:
            self.stop()
            raise

    def poll(self) -> Death | None:
        """Looks after the nodes once, respawning included.

        Returns:
            The first required node that ended, now or earlier, or None.
        """
        for item in self._running:
            if item.process is not None and item.process.poll() is not None:
                self._on_end(item, item.process.returncode)
            if item.restart_at is not None and self._output is not None and time.monotonic() >= item.restart_at:
                item.restart_at = None
                self._spawn(item, self._output)
        return next((death for death in self._deaths if death.is_required), None)

    def wait(self, should_stop: Callable[[], bool]) -> Death | None:
        """Polls until a required node ends, all have ended, or `should_stop` says so.

        Returns:
            The required node that ended, if that was the reason.
        """
        while not should_stop():
            death = self.poll()
            if death is not None or not self.is_running:
                return death
            time.sleep(_POLL_S)
        return None

    def stop(self) -> int:
        """Ends all nodes and waits for them. May be called again.

        Returns:
            0, or 1 if a required node ended, or if all ended by themselves and one of them not with 0.
        """
        self.poll()
        was_running = self.is_running
        self._is_stopping = True
        for item in self._running:
            item.restart_at = None
            if item.process is not None:
                _release(item.process)
        deadline = time.monotonic() + self._sigterm_after_s + self._sigkill_after_s + _CLEAN_UP_S
        for item in self._running:
            if item.process is not None:
                self._await_end(item, item.process, deadline)
        if self._output is not None:
            self._output.close(timeout_s=2.0)
            self._last_errors = self._output.newest_errors
            self._output = None
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None
        has_failed = any(death.is_required or (not was_running and death.exit_code != 0) for death in self._deaths)
        return int(has_failed)

    def _spawn(self, item: _Running, output: OutputReader) -> None:
        timing = [str(self._sigterm_after_s), str(self._sigkill_after_s)]
        item.process = subprocess.Popen(
            # -I -S: the guard needs no site-packages, and must not be re-executed by those of the ROS wheels.
            [sys.executable, "-I", "-S", guard.__file__, *timing, *item.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=item.environment,
            # Ctrl-C in the terminal reaches us alone and goes on from here once.
            start_new_session=True,
        )
        for pipe, is_error in ((item.process.stdout, False), (item.process.stderr, True)):
            if pipe is not None:
                output.add(item.label, pipe, is_error=is_error, output=item.node.output)

    def _on_end(self, item: _Running, exit_code: int) -> None:
        if item.process is not None and item.process.stdin is not None:
            item.process.stdin.close()
        item.process = None
        if self._is_stopping:
            return
        death = Death(item.label, exit_code, item.node.is_required)
        self._deaths.append(death)
        show(OWN_LABEL, str(death), is_error=exit_code != 0 or death.is_required)
        if item.node.is_respawned:
            item.restart_at = time.monotonic() + item.node.respawn_delay_s

    def _await_end(self, item: _Running, process: subprocess.Popen[bytes], deadline: float) -> None:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            # The node dies with its guard.
            process.kill()
            process.wait()
        self._on_end(item, process.returncode)

    def _parameter_folder(self) -> Path:
        if self._log_dir is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="vla_ros_launch_")
            return Path(self._temporary.name)
        try:
            self._log_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                str(self._log_dir), f"can't be made ({error.strerror})", "choose another folder"
            ) from error
        return self._log_dir


def _release(process: subprocess.Popen[bytes]) -> None:
    """Tells a guard to stop its node: by a byte, since a forked copy of us may still hold the pipe's other end."""
    # A broken or closed pipe: it has ended by itself.
    with contextlib.suppress(BrokenPipeError, ValueError):
        if process.stdin is not None:
            process.stdin.write(b".")
            process.stdin.close()


def _write_parameters(node: NodeAction, label: str, folder: Path) -> list[str]:
    paths = []
    for number, step in enumerate(parameter_steps(node)):
        if isinstance(step, ParameterFile):
            paths.append(str(step.path))
        else:
            path = folder / f"{label.replace('/', '_')}.{number}.yaml"
            path.write_text(step, encoding="utf-8")
            paths.append(str(path))
    return paths
