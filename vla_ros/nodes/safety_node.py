"""safety_node: action chunks of the selected source in, a safe target a tick and its verdict out."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, MultiDOFJointTrajectory

from vla_ros.actions.path import OffsetLimits
from vla_ros.config import load, package_share
from vla_ros.errors import ChunkError, VlaRosError
from vla_ros.nodes import chunk_messages, messages
from vla_ros.nodes.chunk_intake import TELEOP, ChunkIntake
from vla_ros.nodes.loop import TickLoop
from vla_ros.nodes.rivals import RivalWatch
from vla_ros.nodes.runtime import (
    LATCHED,
    RELIABLE,
    SENSOR,
    Percentiles,
    now_ns,
    parameter,
    raise_priority,
    required_parameter,
    run,
    state_folder,
)
from vla_ros.nodes.state_intake import StateIntake
from vla_ros.policies.registry import policy_name
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.safety.config import SafetyConfig
from vla_ros.safety.filter import SafetyFilter
from vla_ros.safety.latch import StopLatch
from vla_ros.types import (
    Intervention,
    JointChunk,
    JointTarget,
    MotionState,
    ToolChunk,
    ToolTarget,
    Verdict,
)

_VERDICT_PERIOD_NS = 100_000_000


class SafetyNode(Node):
    """The Cartesian filter as a node. All motion happens in `step`, in one thread; callbacks only leave notes for it.

    Args:
        rate_hz: ticks per second of whoever calls `step`.
    """

    def __init__(self, rate_hz: float) -> None:
        super().__init__("safety_node")
        self.robot = load_robot(required_parameter(self, "robot", "name of the robot, or its YAML file"))
        path = str(parameter(self, "safety", "", "safety YAML file; empty: the package's own"))
        config = load(SafetyConfig, Path(path) if path else package_share() / "config" / "safety.yaml")
        self.dt_s = 1.0 / rate_hz
        model = RobotModel.from_config(self.robot)
        joint_limits = OffsetLimits(model.velocity, model.acceleration, model.jerk)
        self.filter = SafetyFilter(config, self.robot.tool, model.forward_kinematics, joint_limits)
        self.states = StateIntake(self, self.robot, SENSOR).states
        self.chunk_latency_s = Percentiles()
        """Chunk on the wire until the end of the first tick that followed it."""

        self._notes: deque[Any] = deque()
        self._fresh_chunks_ns: list[int] = []
        self._latencies_s: deque[float] = deque(maxlen=256)
        self._last_verdict: Verdict | None = None
        self._published_ns = 0
        self._rejected = ""

        self._target = self.create_publisher(MultiDOFJointTrajectory, "target", RELIABLE)
        self._joint_target = self.create_publisher(JointTrajectory, "joint_target", RELIABLE)
        self._verdicts = self.create_publisher(DiagnosticArray, "safety/verdict", RELIABLE)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._events = self.create_publisher(String, "episode/event", LATCHED)
        self.create_subscription(String, "task", self._on_task, RELIABLE)
        self.create_service(Trigger, "safety/stop", self._on_stop)
        self.create_service(Trigger, "safety/reset", self._on_reset)
        self._intake = ChunkIntake(self, self.robot, self._on_chunk, self._reject)
        self._intake.listen(TELEOP)
        meaning = "who may move the arm: a policy's name, teleop, or empty for nobody"
        source = policy_name(str(parameter(self, "source", "", meaning, is_fixed=False)))
        self._intake.listen(source)
        self.filter.select_source(source, now_ns(self))
        self._latch = StopLatch(state_folder() / f"stop{self.get_namespace().replace('/', '-').rstrip('-')}")
        stopped = self._latch.read()
        if stopped is not None:
            self.filter.stop(f"{stopped}; call safety/reset to go on", now_ns(self))
        self.add_on_set_parameters_callback(self._on_parameters)
        self._watch = RivalWatch(self, self._exclusive_topics, self._on_rivals)
        self.create_timer(1.0, self._publish_diagnostics)

    # Callbacks: executor's thread.

    def _on_chunk(self, chunk: ToolChunk | JointChunk, sent_ns: int) -> None:
        self._notes.append((self._offer, chunk, sent_ns))

    def _on_task(self, message: String) -> None:
        task = message.data.strip()
        reason = f"task is now {task!r}" if task else "the task is empty"
        self._notes.append((self.filter.drop_chunks, now_ns(self), reason))

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        reason = f"safety/stop was called on {time.strftime('%Y-%m-%d at %H:%M:%S')}"
        self._notes.append((self.filter.stop, reason, now_ns(self)))
        try:
            self._latch.set(reason)
        except OSError as error:
            self.get_logger().error(f"the stop is in force but won't outlive this process: {error}")
        self._events.publish(String(data='{"event": "stop", "by": "safety/stop"}'))
        response.success, response.message = True, "stopped; call safety/reset to go on"
        return response

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        state = self.filter.state
        self._latch.clear()
        self._notes.append((self.filter.reset, now_ns(self)))
        response.success, response.message = True, f"was {state.value}; the next chunk moves the arm"
        return response

    def _on_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        for item in parameters:
            if item.name == "source":
                if item.type_ is not Parameter.Type.STRING:
                    return SetParametersResult(successful=False, reason="source must be a string")
                try:
                    self._intake.listen(item.value)
                except VlaRosError as error:
                    return SetParametersResult(successful=False, reason=str(error))
                self._notes.append((self.filter.select_source, item.value, now_ns(self)))
                self._events.publish(String(data=f'{{"event": "source", "source": "{item.value}"}}'))
        return SetParametersResult(successful=True)

    def _exclusive_topics(self) -> list[str]:
        return [self._target.topic_name, self._joint_target.topic_name, *self._intake.topics(self.filter.source)]

    def _on_rivals(self, rivals: str) -> None:
        self._notes.append((self.filter.drop_chunks, now_ns(self), f"two publishers: {rivals}"))

    def _reject(self, reason: str) -> None:
        self._rejected = reason
        self.get_logger().warning(reason, throttle_duration_sec=2.0)

    # Motion: the loop's thread.

    def step(self, stamp_ns: int, is_newest: bool) -> ToolTarget | JointTarget | None:
        """One tick: takes what has arrived and returns the target.

        Args:
            stamp_ns: nominal ROS time of the tick.
            is_newest: whether to publish target and verdict; False while missed ticks are caught up with.
        """
        while self._notes:
            action, *arguments = self._notes.popleft()
            action(*arguments)
        target, verdict = self.filter.step(stamp_ns, self.dt_s, self.states.newest())
        if not is_newest:
            return target
        if isinstance(target, ToolTarget):
            self._target.publish(chunk_messages.to_target_message(target, self.robot.base_frame))
        elif target is not None:
            self._joint_target.publish(chunk_messages.to_joint_target_message(target, self.robot.joint_names))
        self._publish_verdict(verdict, stamp_ns)
        return target

    def finish_tick(self) -> None:
        """Called when the command of this tick is out, for the latency of the chunks taken in it."""
        if self._fresh_chunks_ns:
            now = now_ns(self)
            for sent_ns in self._fresh_chunks_ns:
                self.chunk_latency_s.add((now - sent_ns) * 1e-9)
                self._latencies_s.append((now - sent_ns) * 1e-9)
            self._fresh_chunks_ns.clear()

    def on_stall(self, stall_s: float) -> None:
        """Holds: the arm has stopped meanwhile, and the motion that was planned is over."""
        self.get_logger().error(f"the motion loop stood still for {stall_s:.2f} s; is the machine overloaded?")
        self.filter.drop_chunks(now_ns(self), f"the motion loop stood still for {stall_s:.2f} s")

    def on_clock_jump(self, jump_ns: int) -> None:
        """Holds: stamps from before the jump mean nothing now."""
        self.get_logger().error(f"the clock jumped by {jump_ns * 1e-9:.3f} s; the arm holds until the next chunk")
        self.filter.drop_chunks(now_ns(self), f"the clock jumped by {jump_ns * 1e-9:.3f} s")

    def _offer(self, chunk: Any, sent_ns: int) -> None:
        now = now_ns(self)
        if self._watch.rivals:
            self._reject(f"chunk of {chunk.source} dropped: two publishers: {self._watch.rivals}")
            return
        if chunk.source == TELEOP and self.filter.source != TELEOP:
            # Teleop outranks any policy; the policy goes on only when it is selected again.
            self.filter.select_source(TELEOP, chunk.stamp_ns)
        try:
            self.filter.offer(chunk, now, self.states)
        except ChunkError as error:
            self._reject(str(error))
            return
        self._rejected = ""
        self._fresh_chunks_ns.append(sent_ns)

    def _publish_verdict(self, verdict: Verdict, stamp_ns: int) -> None:
        names = {item.limit for item in verdict.interventions}
        last = self._last_verdict
        changed = last is None or last.state is not verdict.state or {i.limit for i in last.interventions} != names
        if not changed and stamp_ns - self._published_ns < _VERDICT_PERIOD_NS:
            return
        if changed and (last is None or last.state is not verdict.state):
            reason = "; ".join(item.reason for item in verdict.interventions)
            self.get_logger().info(f"{verdict.state.value}{': ' + reason if reason else ''}")
        self._last_verdict, self._published_ns = verdict, stamp_ns
        if self._rejected and verdict.state is not MotionState.RUNNING:
            verdict = Verdict(verdict.state, (*verdict.interventions, Intervention("chunk", self._rejected)))
        self._verdicts.publish(messages.to_verdict_message(verdict, stamp_ns, self.get_name(), self.filter.source))

    def _publish_diagnostics(self) -> None:
        stamp_ns = now_ns(self)
        chunk_ns = self.filter.chunk_stamp_ns
        values = {
            "state": self.filter.state.value,
            "source": self.filter.source,
            "chunk_age_s": (stamp_ns - chunk_ns) * 1e-9 if chunk_ns is not None else float("nan"),
            "chunk_to_command_p50_s": self.chunk_latency_s.at(0.5),
            "chunk_to_command_p99_s": self.chunk_latency_s.at(0.99),
            "chunk_to_command_s": " ".join(f"{self._latencies_s.popleft():.6f}" for _ in range(len(self._latencies_s))),
            "rejected": self._rejected,
        }
        self._diagnostics.publish(
            messages.to_diagnostics(stamp_ns, self.get_fully_qualified_name(), self.filter.state.value, values)
        )


class _Alone(SafetyNode):
    """The filter in a process of its own, ticking itself."""

    def __init__(self) -> None:
        super().__init__(rate_hz=250.0)
        self._loop = TickLoop(250.0, self._tick, lambda: now_ns(self), self.on_clock_jump, self.on_stall)
        self._loop.start()

    def _tick(self, stamp_ns: int, is_newest: bool) -> None:
        self.step(stamp_ns, is_newest)
        self.finish_tick()

    def close(self) -> None:
        """Ends the loop; the controller brakes when targets end."""
        self._loop.stop()


def main() -> int:
    """Runs safety_node alone."""
    raise_priority()
    return run(lambda: [_Alone()])


if __name__ == "__main__":
    sys.exit(main())
