"""What safety_node says of itself: verdicts as they change, its state and its latencies once a second."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from vla_ros.nodes import messages
from vla_ros.nodes.runtime import RELIABLE, Percentiles, now_ns
from vla_ros.safety.filter import SafetyFilter
from vla_ros.types import Intervention, MotionState, Verdict

_VERDICT_PERIOD_NS = 100_000_000


class SafetyReport:
    """Publishes `safety/verdict` and `/diagnostics`.

    Args:
        node: publishes and logs.
        safety: what is reported of.
    """

    def __init__(self, node: Node, safety: SafetyFilter) -> None:
        self._node, self._filter = node, safety
        self._latency_s = Percentiles()
        self._latencies_s: deque[float] = deque(maxlen=256)
        self._last: Verdict | None = None
        self._published_ns = 0
        self._rejected = ""
        self.count_anew()
        self._verdicts = node.create_publisher(DiagnosticArray, "safety/verdict", RELIABLE)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        node.create_timer(1.0, self._publish_diagnostics)

    def count_anew(self) -> None:
        """Counts chunks from now on, since they are another source's."""
        self._chunks = {"taken": 0, "late": 0, "refused": 0}

    def reject(self, reason: str, is_late: bool = False) -> None:
        """Notes why the last chunk wasn't taken."""
        self._rejected = reason
        self._chunks["late" if is_late else "refused"] += 1
        self._node.get_logger().warning(reason, throttle_duration_sec=2.0)

    def accept(self) -> None:
        """Notes that the last chunk was taken."""
        self._rejected = ""
        self._chunks["taken"] += 1

    def add_latencies(self, sent_ns: Sequence[int]) -> None:
        """Takes when chunks were sent whose first command is out now."""
        now = now_ns(self._node)
        for sent in sent_ns:
            self._latency_s.add((now - sent) * 1e-9)
            self._latencies_s.append((now - sent) * 1e-9)

    def publish_verdict(self, verdict: Verdict, stamp_ns: int) -> None:
        """Publishes a tick's verdict if it says something new, or if it is time for one."""
        last = self._last
        is_new_state = last is None or last.state is not verdict.state
        is_new = is_new_state or last is None or _limits(last) != _limits(verdict)
        if not is_new and stamp_ns - self._published_ns < _VERDICT_PERIOD_NS:
            return
        if is_new_state:
            reason = "; ".join(item.reason for item in verdict.interventions)
            self._node.get_logger().info(f"{verdict.state.value}{': ' + reason if reason else ''}")
        self._last, self._published_ns = verdict, stamp_ns
        if self._rejected and verdict.state is not MotionState.RUNNING:
            verdict = Verdict(verdict.state, (*verdict.interventions, Intervention("chunk", self._rejected)))
        name = self._node.get_name()
        self._verdicts.publish(messages.to_verdict_message(verdict, stamp_ns, name, self._filter.source))

    def _publish_diagnostics(self) -> None:
        stamp_ns, state = now_ns(self._node), self._filter.state.value
        chunk_ns = self._filter.chunk_stamp_ns
        values = {
            "state": state,
            "source": self._filter.source,
            "chunk_age_s": (stamp_ns - chunk_ns) * 1e-9 if chunk_ns is not None else float("nan"),
            "chunk_to_command_p50_s": self._latency_s.at(0.5),
            "chunk_to_command_p99_s": self._latency_s.at(0.99),
            "chunk_to_command_s": " ".join(f"{self._latencies_s.popleft():.6f}" for _ in range(len(self._latencies_s))),
            "rejected": self._rejected,
            **{f"chunks_{key}": count for key, count in self._chunks.items()},
        }
        name = self._node.get_fully_qualified_name()
        self._diagnostics.publish(messages.to_diagnostics(stamp_ns, name, state, values))


def _limits(verdict: Verdict) -> set[str]:
    return {item.limit for item in verdict.interventions}
