"""The inference thread: the active policy is asked, off the executor, with the newest observation there is."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from vla_ros.errors import InstructionError, SensorError, VlaRosError
from vla_ros.nodes.resident_policy import ResidentPolicy
from vla_ros.nodes.runtime import Percentiles, now_ns, parameter

TIMES = ("wait", "preprocess", "infer", "decode", "age")
"""From the exposure until its turn came, the observation's making, the policy, its answer's way out; and all of it."""


class Inference:
    """Asks one policy at a time, as often as its own rate says, while that is permitted and there is a task.

    What was begun for another task, policy or activation is never published.

    Args:
        node: for the clock and the log.
        take_frames: brings what the cameras saw to the policies; raises SensorError. Called in the thread.
        on_event: called with what others should hear of.
    """

    def __init__(
        self, node: Node, take_frames: Callable[[], None], on_event: Callable[[Mapping[str, Any]], None]
    ) -> None:
        meaning = "ms by which every answer is held back, to see what a policy far away would do"
        self._extra_latency_s = 1e-3 * int(parameter(node, "extra_latency_ms", 0, meaning, least=0))
        self._node, self._take_frames, self._on_event = node, take_frames, on_event
        self.status, self.level = "not active", DiagnosticStatus.OK
        self.times_s = {name: Percentiles() for name in TIMES}
        self._wake = threading.Condition()
        self._inferring = threading.Lock()
        self._policy: ResidentPolicy | None = None
        self._task = ""
        self._turn = 1
        self._is_active = self._is_over = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    @property
    def is_active(self) -> bool:
        return self._is_active

    @property
    def task(self) -> str:
        """The instruction in force."""
        return self._task

    @property
    def turn(self) -> int:
        """Counts tasks, policies and activations: what was planned in another turn is over."""
        return self._turn

    def start(self) -> None:
        """Starts the thread, once. Threads switch every 0.1 ms: a network doesn't wait for messages coming in."""
        sys.setswitchinterval(1e-4)
        if not self._thread.is_alive():
            self._thread.start()

    def set_task(self, task: str) -> None:
        """Another instruction, empty to hold."""
        with self._wake:
            was_task, self._task = self._task, task.strip()
            self._next_turn()
        if was_task and not self._task:
            self._on_event({"event": "task", "task": ""})

    def select(self, policy: ResidentPolicy | None) -> None:
        """Another policy, None for nobody. The last one may still be at an answer, which is lost: `wait_until_idle`."""
        with self._wake:
            self._policy = policy
            self.times_s = {name: Percentiles() for name in TIMES}
            self._next_turn()

    def set_active(self, is_active: bool) -> None:
        """Permits chunks, or no more of them."""
        with self._wake:
            self._is_active = is_active
            self._next_turn()
            if not is_active:
                self._say(self._turn, "not active")

    def wait_until_idle(self) -> None:
        """Returns when nobody is being asked: for who takes a policy away, after `select`."""
        with self._inferring:
            return

    def close(self) -> None:
        """Ends the thread."""
        with self._wake:
            self._is_over = True
            self._next_turn()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)

    def _next_turn(self) -> None:
        self._turn += 1
        self._wake.notify()

    def _run(self) -> None:
        begun, last_ns, is_understood, next_s = 0, 0, False, time.monotonic()
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._is_over or self._may_ask(), timeout=0.2)
                if self._is_over:
                    return
                policy, task, turn = self._policy, self._task, self._turn
                may_ask = self._may_ask()
            if not may_ask or policy is None:
                if self._is_active and not task:
                    self._say(turn, "no task: holding")
                continue
            with self._inferring:
                if turn != self._turn:
                    continue
                if turn != begun:
                    begun, last_ns, is_understood = turn, 0, self._begin(policy, task, turn)
                next_s = max(next_s + policy.period_s, time.monotonic())
                if is_understood:
                    last_ns = self.ask(policy, task, turn, last_ns)
            with self._wake:
                # Another turn doesn't wait for the next regular one.
                if turn == self._turn and not self._is_over:
                    self._wake.wait(max(0.0, next_s - time.monotonic()))

    def _may_ask(self) -> bool:
        return self._is_active and bool(self._task) and self._policy is not None

    def _begin(self, policy: ResidentPolicy, task: str, turn: int) -> bool:
        try:
            policy.begin(task)
        except InstructionError as error:
            self._say(turn, f"holding: {error}", DiagnosticStatus.ERROR)
            self._node.get_logger().error(str(error))
            self._on_event({"event": "task_refused", "task": task, "reason": str(error)})
            return False
        except (Exception, SystemExit) as error:
            self._report(turn, error, "begin its task")
            return False
        self._say(turn, f"task: {task}")
        self._on_event({"event": "task", "task": task, "policy": policy.name})
        return True

    def ask(self, policy: ResidentPolicy, task: str, turn: int, last_ns: int) -> int:
        """One observation, and its answer on its way. The thread's own; public for who measures it.

        Args:
            policy: is asked.
            task: the instruction.
            turn: in which that was planned; `turn` if it is to be published.
            last_ns: stamp of the newest observation that was answered.

        Returns:
            That stamp from now on.
        """
        begin_s, begin_ns = time.perf_counter(), now_ns(self._node)
        try:
            self._take_frames()
            observation = policy.builder.build(begin_ns, task)
        except SensorError as error:
            self._say(turn, f"holding: {error}", DiagnosticStatus.WARN)
            self._node.get_logger().warning(str(error), throttle_duration_sec=2.0)
            return last_ns
        # A fault of ours, and none the less a reason to hold and not the end of this thread.
        except Exception as error:
            self._report(turn, error, "be shown what there is")
            return last_ns
        if observation.stamp_ns <= last_ns:
            return last_ns
        observed_s = time.perf_counter()
        try:
            chunk = policy.infer(observation, self.times_s["age"].at(0.5))
            inferred_s = time.perf_counter()
            if self._extra_latency_s:
                time.sleep(self._extra_latency_s)
            # Whoever ends the turn waits for what is on its way, so that nothing of it comes after.
            with self._wake:
                if turn != self._turn:
                    return observation.stamp_ns
                if chunk.is_idle:
                    policy.rest()
                else:
                    policy.publish(chunk, observation, now_ns(self._node))
        # A policy is other people's code: whatever it raises, the arm holds, and the next observation is tried.
        except (Exception, SystemExit) as error:
            self._report(turn, error, "answer")
            return observation.stamp_ns
        done_s = time.perf_counter()
        self._say(turn, chunk.note or f"task: {task}")
        took_s = {
            "wait": (begin_ns - observation.stamp_ns) * 1e-9,
            "preprocess": observed_s - begin_s,
            "infer": inferred_s - observed_s,
            "decode": done_s - inferred_s,
            "age": (now_ns(self._node) - observation.stamp_ns) * 1e-9,
        }
        with self._wake:
            for name, times in self.times_s.items() if turn == self._turn else ():
                times.add(took_s[name])
        return observation.stamp_ns

    def _report(self, turn: int, error: BaseException, what: str) -> None:
        """What a policy raised: one line where it is meant for a person, all of it where it isn't."""
        logger = self._node.get_logger()
        if isinstance(error, VlaRosError):
            self._say(turn, f"holding: {error}", DiagnosticStatus.WARN)
            logger.error(str(error), throttle_duration_sec=2.0)
            return
        self._say(turn, f"holding: the policy failed to {what}, see its log", DiagnosticStatus.WARN)
        logger.error(f"policy failed to {what}:\n{traceback.format_exc()}", throttle_duration_sec=5.0)

    def _say(self, turn: int, status: str, level: bytes = DiagnosticStatus.OK) -> None:
        """What diagnostics tell from now on, unless that turn is over: then somebody else has the word."""
        with self._wake:
            if turn == self._turn:
                self.status, self.level = status, level
