"""policy_node's time for a chunk, beside the same observation and network without it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from vla_ros.nodes.runtime import make_turn, now_ns  # isort: skip # Settles the environment before rclpy is imported.

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from vla_ros.errors import SensorError, VlaRosError
from vla_ros.launching.environment import defaults_without_ros
from vla_ros.nodes.bench_processes import BenchProcess, environment
from vla_ros.nodes.policy_node import POLL_HZ, PolicyNode
from vla_ros.observation.image import prepare_frame
from vla_ros.policies.base import InferenceContext
from vla_ros.types import CameraFrame, FloatArray

ROBOT, RIG, TASK = "panda", "panda_table", "reach the red block"
_DOMAIN = "101"
_POLL_S = 1.0 / POLL_HZ
# Before every call, as a policy at its rate has one: what ran just now is quicker.
_PAUSE_S = 2.5 * _POLL_S
_START_S = 60.0
_YAML = """\
name: {name}
kind: learned
contract: {folder}/{name}/contract.yaml
rate_hz: 5.0
parameters: {{checkpoint: {folder}/{name}, runtime: torch, threads: 1}}
"""


def measure(folder: Path, name: str, trials: int, seed: int, on_trial: Callable[[int], None]) -> dict[str, FloatArray]:
    """Times chunks of policy_node and bare calls in turn, in one process.

    In the node's turns its executor takes in images and joint states as it does at work; in the others it rests.

    Args:
        folder: holds the checkpoint `name`.
        name: of the policy.
        trials: of each.
        seed: of the order.
        on_trial: called with the number of each before it.

    Returns:
        (trials,) s each: `node`, from images and states to the published chunk; `bare` and `bare_again`, resizing and
        the network; `model`, the network of the former.

    Raises:
        VlaRosError: if a process doesn't answer.
    """
    path = folder / f"{name}.yaml"
    path.write_text(_YAML.format(name=name, folder=folder), encoding="utf-8")
    with ExitStack() as stack:
        changed = {"ROS_DOMAIN_ID": _DOMAIN, "XDG_STATE_HOME": str(folder), **defaults_without_ros(os.environ)}
        changed["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        stack.enter_context(environment(changed))
        remap = ["--ros-args", "-r", f"__ns:=/bench_{os.getpid()}"]
        cell = ["-p", f"robot:={ROBOT}", "-p", f"rig:={RIG}"]
        for words in (
            ["vla_ros.nodes.bench_feeder", *remap, *cell],
            ["vla_ros.nodes", "camera_node", *remap, *cell[2:]],
        ):
            log = folder / f"{words[0]}.log"
            stack.enter_context(BenchProcess([sys.executable, "-m", *words], log))
        words = [*remap, *cell, "-p", f"policy:={path}"]
        rclpy.init(args=words, signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.try_shutdown)
        node = PolicyNode()
        stack.callback(node.destroy_node)
        stack.callback(node.close)
        node.start()
        bench = _Bench(node, stack)
        bench.wait_for_cell(folder)
        return bench.time(trials, np.random.default_rng(seed), on_trial)


class _Bench:
    """A policy_node whose executor serves its topics only while its gate is open."""

    def __init__(self, node: PolicyNode, stack: ExitStack) -> None:
        self._node = node
        if node.active is None or node.residents is None:
            raise VlaRosError("policy_node isn't configured")
        self._inference, self._resident, self._residents = node.inference, node.active, node.residents
        self._last_ns = 0
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._turn = make_turn(self._executor, [node])
        self._is_open, self._is_over = threading.Event(), threading.Event()
        self._serving = threading.Lock()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        stack.callback(self._close)

    def _close(self) -> None:
        self._is_over.set()
        self._is_open.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._is_over.is_set():
            self._is_open.wait()
            with self._serving:
                self._turn()
            self._is_over.wait(_POLL_S)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        self._is_open.set()
        try:
            yield
        finally:
            self._is_open.clear()

    def wait_for_cell(self, folder: Path) -> None:
        """Until an observation can be made."""
        self._resident.begin(TASK)
        deadline_s = time.monotonic() + _START_S
        with self._at_work():
            while True:
                try:
                    self._residents.take_frames()
                    self._seen = self._resident.builder.build(now_ns(self._node), TASK)
                    return
                except SensorError as error:
                    if time.monotonic() > deadline_s:
                        logs = " | ".join(log.read_text(errors="replace")[-300:] for log in folder.glob("*.log"))
                        raise VlaRosError(f"no observation after {_START_S:g} s: {error}; {logs}") from error
                    time.sleep(0.1)

    def time(self, trials: int, rng: np.random.Generator, on_trial: Callable[[int], None]) -> dict[str, FloatArray]:
        """See `measure`."""
        self._frames = {name: self._noise(name, rng) for name in self._seen.images}
        times = {name: np.empty(trials) for name in ("node", "bare", "bare_again", "model")}
        for _ in range(3):
            self._bare()
        for trial in range(trials):
            on_trial(trial)
            for kind in rng.permutation(["node", "bare", "bare_again"]).tolist():
                if kind == "node":
                    times["node"][trial] = self._chunk()
                else:
                    times[kind][trial], times["model"][trial] = self._bare()
        return times

    def _chunk(self) -> float:
        """One chunk of the node, of images that have come since the last."""
        with self._at_work():
            time.sleep(_PAUSE_S)
            while True:
                begin_s = time.perf_counter()
                last_ns = self._inference.ask(self._resident, TASK, self._inference.turn, self._last_ns)
                took_s = time.perf_counter() - begin_s
                if self._inference.level != DiagnosticStatus.OK:
                    raise VlaRosError(f"policy_node: {self._inference.status}")
                if last_ns > self._last_ns:
                    self._last_ns = last_ns
                    return took_s
                time.sleep(_POLL_S)

    def _bare(self) -> tuple[float, float]:
        """Resizing and the network, and the network's part."""
        specs = self._resident.contract.observation.images
        with self._serving:
            time.sleep(_PAUSE_S)
            begin_s = time.perf_counter()
            images = {name: prepare_frame(frame, specs[name]) for name, frame in self._frames.items()}
            prepared_s = time.perf_counter()
            self._resident.policy.infer(replace(self._seen, images=images), InferenceContext())
            end_s = time.perf_counter()
        return end_s - begin_s, end_s - prepared_s

    def _noise(self, name: str, rng: np.random.Generator) -> CameraFrame:
        """An image as the rig's camera gives it."""
        camera = self._node.rig.cameras[self._resident.contract.observation.images[name].camera]
        return CameraFrame(0, rng.integers(0, 256, (camera.height, camera.width, 3), dtype=np.uint8))
