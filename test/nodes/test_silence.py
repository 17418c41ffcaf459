"""Silence and deaths in the motion path, with the arm in motion in MuJoCo: it comes to rest inside its limits.

What is judged depends on the interface. Of trajectories it is all that the arm's controller makes of them at 1 kHz, the
stop included. Of positions it is what was sent; when they end, the arm's own controller holds the last, and how it
stops the arm is its affair: of that, the simulated arm's measured positions and velocities are looked at.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vla_ros.sim.world")

from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, MultiDOFJointTrajectory, MultiDOFJointTrajectoryPoint

from vla_ros.evaluation.limits_judge import judge_limits
from vla_ros.nodes import messages
from vla_ros.nodes.command_messages import from_trajectory_message
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.sim.trajectory import DesiredState, TrajectoryFollower
from vla_ros.types import FloatArray

pytestmark = [pytest.mark.ros, pytest.mark.sim]

ROBOT = load_robot("panda")
TRAJECTORIES = ROBOT.command.using("trajectory").topic
S = 1_000_000_000
MS = 1_000_000
AT_REST_RAD_S = 0.01
# To and fro along y: 0.27 m/s in the middle, and what it takes to be there.
AMPLITUDE_M, RATE_RAD_S = 0.15, 1.8
HORIZON_S = 0.3


class Cell:
    """A simulated arm, its motion path, and a source of chunks that keeps it in motion."""

    def __init__(self, peer: Any, wait: Callable[..., Any]) -> None:
        self.peer, self.wait = peer, wait
        self.model = RobotModel.from_config(ROBOT)
        self._home = self.model.forward_kinematics(self.model.home)
        self.states: list[JointState] = peer.hear(JointState, "joint_states")
        self.commands: list[JointState] = peer.hear(JointState, "joint_command")
        self.trajectories: list[tuple[int, JointTrajectory]] = []
        peer.node.create_subscription(JointTrajectory, TRAJECTORIES, self._on_trajectory, 1000)
        self._chunks = peer.speak(MultiDOFJointTrajectory, "policies/p/action_chunk")
        self._is_silent = threading.Event()
        self._is_silent.set()
        self._epoch_ns = peer.now_ns()
        peer.node.create_timer(0.1, self._send)

    def _on_trajectory(self, message: JointTrajectory, info: Any) -> None:
        # When it was sent: the test's own ears may be later than the arm's, and the arm's are judged by what it does.
        self.trajectories.append((int(info["source_timestamp"]), message))

    def _send(self) -> None:
        if self._is_silent.is_set():
            return
        now_ns = self.peer.now_ns()
        message = MultiDOFJointTrajectory(joint_names=["tcp"])
        message.header.frame_id, message.header.stamp = ROBOT.base_frame, messages.to_time(now_ns)
        for ahead_s in np.arange(0.05, HORIZON_S + 1e-9, 0.05).tolist():
            phase = RATE_RAD_S * (1e-9 * (now_ns - self._epoch_ns) + ahead_s)
            T = self._home.copy()
            T[1, 3] += AMPLITUDE_M * math.sin(phase)
            point = MultiDOFJointTrajectoryPoint(transforms=[messages.to_transform(T)])
            point.time_from_start = messages.to_duration(ahead_s)
            message.points.append(point)
        self._chunks.publish(message)

    def _tool_speed(self) -> float:
        """m/s, of the tcp over the last 50 ms as measured."""
        a, b = self.states[-13], self.states[-1]
        way = self._tcp(b) - self._tcp(a)
        return float(np.linalg.norm(way)) / (1e-9 * (stamp_ns(b) - stamp_ns(a)))

    def _tcp(self, state: JointState) -> FloatArray:
        return self.model.forward_kinematics(np.array(state.position))[:3, 3]

    def move(self) -> None:
        """Sends chunks until the arm moves at 0.2 m/s or more."""
        self.peer.matched(self._chunks)
        self._is_silent.clear()
        self.wait(lambda: len(self.states) > 13 and self._tool_speed() > 0.2, "the arm to move at 0.2 m/s")

    def fall_silent(self) -> int:
        """Sends no more chunks; returns when."""
        self._is_silent.set()
        return int(self.peer.now_ns())

    def rest_after_s(self, since_ns: int) -> float:
        """Waits until the arm has been at rest for 0.3 s, and returns how long after a time it came to rest."""

        def newest_moving_ns() -> int:
            return max((stamp_ns(state) for state in list(self.states) if is_moving(state)), default=since_ns)

        self.wait(lambda: stamp_ns(self.states[-1]) - max(newest_moving_ns(), since_ns) > 0.3 * S, "the arm to rest")
        return 1e-9 * (newest_moving_ns() - since_ns)

    def judge(self, interface: str, sim: Any) -> None:
        """Holds all that was sent, and what the arm made of it, against the limits."""
        commands, states = list(self.commands), list(self.states)
        stamps, positions = [stamp_ns(message) for message in commands], [message.position for message in commands]
        sent = judge_limits(np.array(stamps), np.array(positions), self.model)
        assert sent.is_clean, [str(item) for item in sent.first_violations.values()]
        assert sent.peak_velocity_fraction > 0.1
        measured = np.array([state.position for state in states])
        assert np.all((measured >= self.model.lower) & (measured <= self.model.upper))
        if interface == "position":
            # It holds the last that it heard; the simulated servo sags by less than this.
            np.testing.assert_allclose(measured[-1], positions[-1], atol=5e-3)
            return
        self._judge_trajectories()
        if "came too late" in sim.text:
            return  # The machine was too busy for the arm's half of this test.
        speeds = np.array([state.velocity for state in states])
        steps_s = 1e-9 * np.diff([stamp_ns(state) for state in states])
        accelerations = np.abs(np.diff(speeds, axis=0)) / steps_s[:, None]
        assert np.all(np.abs(speeds) <= self.model.velocity)
        # The simulated servo follows a trajectory's acceleration within a tenth.
        assert np.all(accelerations <= 1.1 * self.model.acceleration)

    def _judge_trajectories(self) -> None:
        """The motion that joint_trajectory_controller makes, at 1 kHz."""
        follower, epoch_ns = TrajectoryFollower(self.model.home), self.trajectories[0][0]
        heard = list(self.trajectories)
        times_ns, positions = [], []
        for time_ns in range(epoch_ns, heard[-1][0] + 1_500 * MS, MS):
            while heard and heard[0][0] <= time_ns:
                arrival_ns, message = heard.pop(0)
                times, *points = from_trajectory_message(message, ROBOT.joint_names)
                times_s = [1e-9 * (time - epoch_ns) for time in times]
                follower.replace(1e-9 * (arrival_ns - epoch_ns), times_s, DesiredState(*points))
            times_ns.append(time_ns)
            positions.append(follower.sample(1e-9 * (time_ns - epoch_ns)).positions)
        report = judge_limits(np.array(times_ns), np.array(positions), self.model)
        assert report.is_clean, [str(item) for item in report.first_violations.values()]
        assert report.peak_velocity_fraction > 0.1
        np.testing.assert_array_equal(positions[-100], positions[-1])


def stamp_ns(message: JointState) -> int:
    return messages.to_ns(message.header.stamp)


def is_moving(state: JointState) -> bool:
    return bool(np.abs(state.velocity).max() > AT_REST_RAD_S)


@pytest.fixture
def cell(processes, make_peer, patience) -> Cell:
    return Cell(make_peer("p"), patience)


def start(cell: Cell, processes: Any, interface: str, *names: str) -> list[Any]:
    """Starts nodes and waits until the first joint command."""
    started = []
    for name in names:
        extra = {"rig": "panda_table", "cameras": "false"} if name == "sim_node" else {}
        extra |= {"source": "p"} if name in ("motion", "safety_node") else {}
        started.append(processes.start_node(name, robot="panda", interface=interface, **extra))
    cell.commands.clear()
    cell.wait(lambda: cell.commands or any(node.poll() is not None for node in started), "a joint command")
    assert all(node.poll() is None for node in started), [node.text for node in started]
    return started


def kill(process: Any) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait(5.0)


@pytest.mark.parametrize("interface", ["position", "trajectory"])
def test_arm_in_motion_rests_when_its_source_falls_silent_and_when_the_motion_path_dies(
    cell: Cell, processes, interface: str
) -> None:
    sim, motion = start(cell, processes, interface, "sim_node", "motion")
    cell.move()
    # The last chunk is carried out to its end and braked from: 0.3 m/s against 2 m/s^2, and room for a busy machine.
    assert cell.rest_after_s(cell.fall_silent()) < HORIZON_S + 1.0
    cell.move()
    since_ns = cell.peer.now_ns()
    kill(motion)
    # The lead of a trajectory, its stop and the servo's settling.
    assert cell.rest_after_s(since_ns) < 0.5
    cell.judge(interface, sim)


@pytest.mark.parametrize("interface", ["position", "trajectory"])
def test_arm_in_motion_rests_when_either_half_of_the_motion_path_dies(cell: Cell, processes, interface: str) -> None:
    sim, controller, safety = start(cell, processes, interface, "sim_node", "controller_node", "safety_node")
    cell.move()
    since_ns = cell.peer.now_ns()
    kill(safety)
    # 0.1 s until the controller misses the targets, then as above.
    assert cell.rest_after_s(since_ns) < 0.7
    cell.fall_silent()
    start(cell, processes, interface, "safety_node")
    cell.move()
    since_ns = cell.peer.now_ns()
    kill(controller)
    assert cell.rest_after_s(since_ns) < 0.5
    cell.judge(interface, sim)
