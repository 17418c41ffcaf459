"""From a chunk on the wire to the first joint command that differs because of it, beside a bare relay of two hops."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from vla_ros.nodes.runtime import RELIABLE, SENSOR  # isort: skip # Settles the environment before rclpy is imported.

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import MultiDOFJointTrajectory

from vla_ros.config import load, package_share
from vla_ros.control.config import ControllerConfig
from vla_ros.errors import VlaRosError
from vla_ros.geometry import se3
from vla_ros.launching.environment import defaults_without_ros
from vla_ros.nodes import chunk_messages, messages
from vla_ros.nodes.bench_processes import BenchProcess, environment
from vla_ros.nodes.bench_relay import PING, PONG
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray, ToolChunk

ROBOT = "panda"
PINGS = 5  # Of each of the two series of the relay, for every chunk.
# A domain that people seldom use, and a namespace of our own in it: nothing here is for a real arm.
_DOMAIN = "101"
_SOURCE = "bench"
_STATES_HZ = 100.0
_ASIDE_M = 0.01
# Jerk. What is left of the motion before has no more than the first of these in any joint, and a chunk has more than
# the second in the first tick that follows it, at whatever rate.
_CALM_RAD_S3, _DIFFERS_RAD_S3 = 2.5, 8.0
_CALM_TICKS = 8
_START_S, _ANSWER_S, _REST_S = 30.0, 1.0, 5.0


@dataclass(frozen=True)
class HopTimes:
    """Seconds from publishing to hearing the answer; NaN where none came.

    Attributes:
        chunks: (n,) until the first command that differs.
        relay: (n, PINGS) through the relay.
        relay_again: the same once more, for the A/A control.
    """

    chunks: FloatArray
    relay: FloatArray
    relay_again: FloatArray


def measure(trials: int, seed: int, on_trial: Callable[[int], None]) -> HopTimes:
    """Starts `motion` and the relay as processes, and sends chunks to one and pings to the other in turn.

    Args:
        trials: how many chunks.
        seed: of the order.
        on_trial: called with the number of each trial before it.

    Raises:
        VlaRosError: if a process doesn't answer; its log is in the text.
    """
    namespace = f"bench_{os.getpid()}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vla_ros_bench_")))
        changed = {"ROS_DOMAIN_ID": _DOMAIN, "XDG_STATE_HOME": str(folder), **defaults_without_ros(os.environ)}
        changed["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        stack.enter_context(environment(changed))
        remap = ["--ros-args", "-r", f"__ns:=/{namespace}"]
        settings = folder / "controller.yaml"
        # Without a pull on the posture the whole arm rests as soon as the tool does.
        shipped = (package_share() / "config" / "controller.yaml").read_text(encoding="utf-8")
        settings.write_text(re.sub(r"^posture_gain_per_s:.*$", "posture_gain_per_s: 0.0", shipped, flags=re.MULTILINE))
        motion = ["motion", *remap, "-p", f"robot:={ROBOT}", "-p", f"source:={_SOURCE}"]
        motion += ["-p", f"controller:={settings}"]
        processes = [
            stack.enter_context(BenchProcess([sys.executable, "-m", "vla_ros.nodes", *motion], folder / "motion.log")),
            stack.enter_context(
                BenchProcess([sys.executable, "-m", "vla_ros.nodes.bench_relay", *remap], folder / "relay.log")
            ),
        ]
        rclpy.init(args=remap, signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.try_shutdown)
        client = _Client(processes)
        stack.callback(client.destroy_node)
        client.wait_for_both()
        rng = np.random.default_rng(seed)
        times = HopTimes(np.full(trials, np.nan), np.full((trials, PINGS), np.nan), np.full((trials, PINGS), np.nan))
        for trial in range(trials):
            on_trial(trial)
            client.rest()
            for kind in rng.permutation(["chunk", *["ping"] * PINGS, *["again"] * PINGS]).tolist():
                if kind == "chunk":
                    times.chunks[trial] = client.chunk()
                else:
                    row = (times.relay if kind == "ping" else times.relay_again)[trial]
                    row[int(np.argmax(np.isnan(row)))] = client.ping()
        return times


class _Client(Node):
    """Sends chunks and pings, hears the answers, and is the arm: always where it was told to be."""

    def __init__(self, processes: Sequence[BenchProcess]) -> None:
        super().__init__("bench_client")
        self._processes = processes
        config = load_robot(ROBOT)
        model = RobotModel.from_config(config)
        self._names, self._base, self._tcp = config.joint_names, config.base_frame, config.tcp_frame
        self._home = np.array(model.forward_kinematics(model.home))
        dt_s = 1.0 / load(ControllerConfig, package_share() / "config" / "controller.yaml").rate_hz
        self._calm_rad, self._differs_rad = _CALM_RAD_S3 * dt_s**3, _DIFFERS_RAD_S3 * dt_s**3
        self._side = 1.0
        self._heard = [model.home.tolist()] * 2
        self._heard_ns = [0, 0]
        self._calm = 0
        """Commands in a row that go on as before."""
        self._is_asked = False
        self._answer_ns = self._pong_ns = 0
        self._stamp = (0, 0)
        self._chunks = self.create_publisher(MultiDOFJointTrajectory, f"policies/{_SOURCE}/action_chunk", RELIABLE)
        self._pings = self.create_publisher(MultiDOFJointTrajectory, PING, RELIABLE)
        self._states = self.create_publisher(JointState, "joint_states", RELIABLE)
        self.create_subscription(JointState, "joint_command", self._on_command, SENSOR)
        self.create_subscription(JointState, PONG, self._on_pong, SENSOR)
        self.create_timer(1.0 / _STATES_HZ, self._publish_state)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def wait_for_both(self) -> None:
        """Until commands and pongs come."""
        self._wait(lambda: self._calm > _CALM_TICKS, _START_S, "joint commands of motion")
        deadline_s = time.monotonic() + _START_S
        while np.isnan(self.ping()):
            if time.monotonic() > deadline_s:
                raise VlaRosError(f"the relay doesn't answer: {self._logs()}")
        deadline_s = time.monotonic() + _START_S
        while np.isnan(self.chunk()):
            if time.monotonic() > deadline_s:
                raise VlaRosError(f"motion doesn't move for a chunk: {self._logs()}")
            self.rest()

    def rest(self) -> None:
        """Until the motion before is over, but for what fades."""
        self._calm = 0
        self._wait(lambda: self._calm > _CALM_TICKS, _REST_S, "the arm to rest")

    def chunk(self) -> float:
        """Sends a chunk to an arm at rest: seconds until the first command that differs, NaN if none does."""
        self._side = -self._side
        p = self._home[:3, 3] + np.array([0.0, 0.0, _ASIDE_M * self._side])
        pose = se3.make_pose(p, self._home[:3, :3])
        stamp_ns = int(self.get_clock().now().nanoseconds)
        chunk = ToolChunk(stamp_ns, "absolute", np.stack([pose] * 3), None, np.array([0.04, 0.08, 0.12]), _SOURCE)
        message = chunk_messages.to_tool_chunk_message(chunk, self._tcp, self._base)
        self._is_asked, self._answer_ns = True, 0
        sent_ns = time.monotonic_ns()
        self._chunks.publish(message)
        return self._seconds(lambda: self._answer_ns, sent_ns)

    def ping(self) -> float:
        """Sends the same kind of message to the relay: seconds until its answer, NaN if none comes."""
        pose = se3.make_pose(self._home[:3, 3], self._home[:3, :3])
        stamp_ns = int(self.get_clock().now().nanoseconds)
        chunk = ToolChunk(stamp_ns, "absolute", np.stack([pose] * 3), None, np.array([0.04, 0.08, 0.12]), _SOURCE)
        message = chunk_messages.to_tool_chunk_message(chunk, self._tcp, self._base)
        self._stamp, self._pong_ns = (message.header.stamp.sec, message.header.stamp.nanosec), 0
        sent_ns = time.monotonic_ns()
        self._pings.publish(message)
        return self._seconds(lambda: self._pong_ns, sent_ns)

    def _seconds(self, answer_ns: Callable[[], int], sent_ns: int) -> float:
        deadline_ns = sent_ns + round(_ANSWER_S * 1e9)
        while not answer_ns() and time.monotonic_ns() < deadline_ns:
            self._executor.spin_once(timeout_sec=0.05)
        return 1e-9 * (answer_ns() - sent_ns) if answer_ns() else float("nan")

    def _wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            dead = [process for process in self._processes if process.poll() is not None]
            if dead or time.monotonic() > deadline_s:
                raise VlaRosError(f"waited {timeout_s:g} s for {what}: {self._logs()}")
            self._executor.spin_once(timeout_sec=0.05)

    def _logs(self) -> str:
        return " | ".join(process.log.read_text(errors="replace")[-500:].strip() for process in self._processes)

    def _publish_state(self) -> None:
        message = JointState(name=list(self._names), position=self._heard[-1])
        message.header.stamp = self.get_clock().now().to_msg()
        self._states.publish(message)

    def _on_command(self, message: JointState) -> None:
        heard_ns = time.monotonic_ns()
        positions = list(message.position)
        stamp_ns = messages.to_ns(message.header.stamp)
        # A command may be lost on its way: how the motion goes on is told from what was heard, by its times.
        before_ns, last_ns = self._heard_ns[-2:]
        before, last = self._heard[-2:]
        onwards = (stamp_ns - last_ns) / (last_ns - before_ns) if last_ns > before_ns else 1.0
        bend = max(abs(a - b - onwards * (b - c)) for a, b, c in zip(positions, last, before, strict=True))
        if self._is_asked and bend > self._differs_rad:
            self._is_asked, self._answer_ns = False, heard_ns
        self._calm = self._calm + 1 if bend < self._calm_rad else 0
        self._heard, self._heard_ns = [last, positions], [last_ns, stamp_ns]

    def _on_pong(self, message: JointState) -> None:
        heard_ns = time.monotonic_ns()
        if (message.header.stamp.sec, message.header.stamp.nanosec) == self._stamp:
            self._pong_ns = heard_ns
