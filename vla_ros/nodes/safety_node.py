"""safety_node: action chunks of the selected source in, a safe target a tick and its verdict out."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import String
from std_srvs.srv import Trigger

from vla_ros.actions.path import OffsetLimits
from vla_ros.config import load, package_share
from vla_ros.errors import ChunkError, LateChunkError, VlaRosError
from vla_ros.nodes.chunk_intake import TELEOP, ChunkIntake
from vla_ros.nodes.emergency_stop import EmergencyStop
from vla_ros.nodes.handovers import Handovers
from vla_ros.nodes.hardware_watch import HardwareWatch
from vla_ros.nodes.loop import TickLoop
from vla_ros.nodes.rivals import RivalWatch
from vla_ros.nodes.runtime import (
    LATCHED,
    RELIABLE,
    SENSOR,
    now_ns,
    parameter,
    raise_priority,
    run,
    state_folder,
)
from vla_ros.nodes.safety_report import SafetyReport
from vla_ros.nodes.settings import command_setting, controller_setting, model_setting, robot_setting
from vla_ros.nodes.state_intake import StateIntake
from vla_ros.nodes.streams import Streams
from vla_ros.nodes.target_publisher import TargetPublisher
from vla_ros.policies.registry import policy_name
from vla_ros.safety.config import SafetyConfig
from vla_ros.safety.filter import SafetyFilter
from vla_ros.safety.latch import StopLatch
from vla_ros.types import JointChunk, JointTarget, MotionState, ToolChunk, ToolTarget, Verdict


class SafetyNode(Node):
    """The Cartesian filter as a node. It is stepped in one thread and told things in others, one at a time."""

    def __init__(self) -> None:
        super().__init__("safety_node")
        self.robot = robot_setting(self)
        self.rate_hz = controller_setting(self).rate_hz
        self.dt_s = 1.0 / self.rate_hz
        path = str(parameter(self, "safety", "", "safety YAML file; empty: the package's own"))
        config = load(SafetyConfig, Path(path) if path else package_share() / "config" / "safety.yaml")
        command = command_setting(self, self.robot)
        config = replace(config, actuation_latency_s=config.actuation_latency_s + command.delay_s)
        # A controller of trajectories that knows of the arm's scaling stretches them by itself.
        self._is_stretched = command.interface != "trajectory"
        model = model_setting(self, self.robot)
        joint_limits = OffsetLimits(model.velocity, model.acceleration, model.jerk)
        self.filter = SafetyFilter(config, self.robot.tool, model.forward_kinematics, joint_limits)
        self.hardware = HardwareWatch(self)
        self._lock = threading.Lock()
        self._report = SafetyReport(self, self.filter)
        self._taken_ns: list[int] = []
        self._served_ns: list[int] = []
        self._waits_for, self._is_released = "", False
        self._outcome: tuple[ToolTarget | JointTarget | None, Verdict] | None = None
        self.hurry: Callable[[], None] = lambda: None
        """Called in any thread when there is something that the next tick is better early for: a chunk, a stop."""

        self._targets = TargetPublisher(self, self.robot)
        self._events = self.create_publisher(String, "episode/event", LATCHED)
        self.create_subscription(String, "task", self._on_task, RELIABLE)
        self.create_service(Trigger, "safety/stop", self._on_stop)
        self.create_service(Trigger, "safety/reset", self._on_reset)
        self._streams = Streams(self)
        self.states = StateIntake(self, self.robot, SENSOR, streams=self._streams).states
        self._intake = ChunkIntake(self, self._streams, self.robot, self._on_chunk, self._report.reject)
        self._intake.listen(TELEOP)
        meaning = "who may move the arm: a policy's name, teleop, or empty for nobody"
        source = policy_name(str(parameter(self, "source", "", meaning, is_fixed=False)))
        self._intake.listen(source)
        self.filter.select_source(source, now_ns(self))
        self._handovers = Handovers(source)
        self._latch = StopLatch(state_folder() / f"stop{self.get_namespace().replace('/', '-').rstrip('-')}")
        stopped = self._latch.read()
        if stopped is not None:
            self.filter.stop(f"{stopped}; call safety/reset to go on", now_ns(self))
        button = config.emergency_stop
        self._emergency_stop = None if button is None else EmergencyStop(self, button, self._stop)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._watch = RivalWatch(self, self._exclusive_topics, self._on_rivals)
        self.create_timer(1.0, self._streams.check)

    def start(self) -> None:
        """Begins to hear chunks and joint states."""
        self._streams.start()

    # Callbacks: threads of the streams and of the executor.

    def _on_chunk(self, chunk: ToolChunk | JointChunk, sent_ns: int) -> None:
        if self._watch.rivals:
            self._report.reject(f"chunk of {chunk.source} dropped: two publishers: {self._watch.rivals}")
            return
        is_takeover = chunk.source == TELEOP != self.filter.source
        with self._lock:
            if is_takeover:
                # Teleop outranks any policy; the policy goes on only when it is selected again.
                self.filter.select_source(TELEOP, chunk.stamp_ns)
            is_taken = self._offer(chunk, sent_ns)
        if is_taken:
            self.hurry()
        if is_takeover:
            self.set_parameters([Parameter("source", Parameter.Type.STRING, TELEOP)])

    def _offer(self, chunk: ToolChunk | JointChunk, sent_ns: int) -> bool:
        if self._waits_for:
            self._report.reject(f"chunk of {chunk.source} dropped: {self._waits_for}")
            return False
        try:
            self.filter.offer(chunk, now_ns(self), self.states)
        except ChunkError as error:
            self._report.reject(str(error), isinstance(error, LateChunkError))
            return False
        self._report.accept()
        self._handovers.note_motion(chunk.source)
        self._taken_ns.append(sent_ns)
        return True

    def _on_task(self, message: String) -> None:
        task = message.data.strip()
        self._handovers.begin_anew()
        self._drop_chunks(f"task is now {task!r}" if task else "the task is empty")

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._stop("safety/stop was called")
        response.success, response.message = True, "stopped; call safety/reset to go on"
        return response

    def _stop(self, why: str) -> None:
        """Stops, across restarts, until reset."""
        reason = f"{why} on {time.strftime('%Y-%m-%d at %H:%M:%S')}"
        with self._lock:
            self.filter.stop(reason, now_ns(self))
        self.hurry()
        try:
            self._latch.set(reason)
        except OSError as error:
            self.get_logger().error(f"the stop is in force but won't outlive this process: {error}")
        event = {"event": "safety_stop", "reason": reason, "stamp_ns": now_ns(self)}
        self._events.publish(String(data=json.dumps(event)))

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._emergency_stop is not None and self._emergency_stop.reason:
            response.success, response.message = False, f"{self._emergency_stop.reason}; mend that first"
            return response
        self._latch.clear()
        with self._lock:
            state = self.filter.state
            self.filter.reset(now_ns(self))
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
                stamp_ns = now_ns(self)
                with self._lock:
                    if item.value != self.filter.source:
                        self._report.count_anew()
                    self.filter.select_source(item.value, stamp_ns)
                for event in self._handovers.select(item.value, stamp_ns):
                    self._events.publish(String(data=json.dumps(event)))
        return SetParametersResult(successful=True)

    def _exclusive_topics(self) -> list[str]:
        return [*self._targets.topics, *self._intake.topics(self.filter.source)]

    def _on_rivals(self, rivals: str) -> None:
        self._drop_chunks(f"two publishers: {rivals}")

    def _drop_chunks(self, reason: str) -> None:
        with self._lock:
            self.filter.drop_chunks(now_ns(self), reason)

    # Motion: the loop's thread.

    def await_controller(self, reason: str) -> None:
        """Holds as long as targets aren't followed, and begins softly when they are again.

        Args:
            reason: why they aren't; empty if they are.
        """
        if reason != self._waits_for:
            self._waits_for, self._is_released = reason, True
            self._drop_chunks(reason or "the controller follows again; waiting for a chunk")

    def step(self, stamp_ns: int) -> ToolTarget | JointTarget | None:
        """One tick.

        Args:
            stamp_ns: nominal ROS time of the tick.

        Returns:
            The target, None to brake and hold.
        """
        if self._is_stretched:
            self.filter.timeline.scale(self.hardware.speed_scaling)
        with self._lock:
            target, verdict = self.filter.step(stamp_ns, self.dt_s, self.states.newest())
            self._served_ns += self._taken_ns
            self._taken_ns.clear()
        # Until the next chunk the controller stays where it began, which needn't be where the filter came to rest.
        self._is_released &= self.filter.state is not MotionState.RUNNING
        self._outcome = None if self._is_released else target, verdict
        return self._outcome[0]

    def finish_tick(self, stamp_ns: int) -> None:
        """Publishes target and verdict of the newest tick, when its command is out: that is what mustn't wait."""
        if self._served_ns:
            self._report.add_latencies(self._served_ns)
            self._served_ns.clear()
        if self._outcome is None:
            return
        target, verdict = self._outcome
        if target is not None:
            self._targets.publish(target)
        self._report.publish_verdict(verdict, stamp_ns)

    def on_stall(self, stall_s: float) -> None:
        """Holds: the arm has stopped meanwhile, and the motion that was planned is over."""
        self.get_logger().error(f"the motion loop stood still for {stall_s:.2f} s; is the machine overloaded?")
        self._drop_chunks(f"the motion loop stood still for {stall_s:.2f} s")

    def on_clock_jump(self, jump_ns: int) -> None:
        """Holds: stamps from before the jump mean nothing now."""
        self.get_logger().error(f"the clock jumped by {jump_ns * 1e-9:.3f} s; the arm holds until the next chunk")
        self._drop_chunks(f"the clock jumped by {jump_ns * 1e-9:.3f} s")

    def close(self) -> None:
        """Ends the intake."""
        self._streams.stop()


class _Alone(SafetyNode):
    """The filter in a process of its own, ticking itself."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = TickLoop(self.rate_hz, self._tick, lambda: now_ns(self), self.on_clock_jump, self.on_stall)
        self.hurry = self._loop.hurry
        self.create_timer(1.0, self._loop.check)
        self.start()
        self._loop.start()

    def _tick(self, stamp_ns: int, is_newest: bool) -> None:
        self.await_controller(self.hardware.reason)
        self.step(stamp_ns)
        if is_newest:
            self.finish_tick(stamp_ns)

    def close(self) -> None:
        """Ends the loop; the controller brakes when targets end."""
        self._loop.stop()
        super().close()


def main() -> int:
    """Runs safety_node alone."""
    raise_priority()
    return run(lambda: [_Alone()])


if __name__ == "__main__":
    sys.exit(main())
