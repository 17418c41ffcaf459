"""One episode of a running stack, from the reset to its outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vla_ros.errors import VlaRosError
from vla_ros.evaluation.episode_log import EpisodeLog, EpisodeRecorder
from vla_ros.evaluation.rollout_settings import Attempt
from vla_ros.sim.tasks import Judge, Task

if TYPE_CHECKING:
    from vla_ros.nodes.rollout import RolloutClient

_PATIENCE_S = 15.0


def run_stack_episode(
    client: RolloutClient,
    attempt: Attempt,
    time_limit_s: float,
    alive: Callable[[], None],
    watch: Callable[[float, str], None],
    after_s: float = 0.0,
) -> tuple[EpisodeLog, bool]:
    """Resets, gives the instruction and judges from ground truth.

    Args:
        client: drives the stack.
        attempt: scene and words.
        time_limit_s: after which it has failed.
        alive: raises where a node has died.
        watch: called often with the time, s, and what is going on: the outcome, or the filter's state.
        after_s: how long to go on watching when it is over.

    Returns:
        What was heard, and whether what `attempt.other` asks for was done meanwhile.

    Raises:
        VlaRosError: if a node dies, or the simulator falls silent.
    """
    truth = client.begin(attempt.seed, alive, attempt.needed)
    objects = client.objects(truth)
    judge = Judge(Task.parse(attempt.task, time_limit_s), objects)
    wrong = [Judge(Task.parse(attempt.other, time_limit_s), objects)] if attempt.other else []
    start_ns = client.get_clock().now().nanoseconds
    recorder = EpisodeRecorder(attempt.task, attempt.seed, client.joint_names, start_ns)
    client.recorder = recorder
    client.events.clear()
    client.start_task(attempt.task)
    outcome, did_other, judged_ns = "running", False, 0
    ended_s: float | None = None

    def is_over() -> bool:
        nonlocal outcome, did_other, judged_ns, ended_s
        time_s = (client.truth_stamp_ns - start_ns) * 1e-9
        if client.truth_stamp_ns > judged_ns and time_s >= 0.0 and ended_s is None:
            judged_ns = client.truth_stamp_ns
            moment = client.objects(client.truth), client.truth["tcp"], client.opening, time_s
            did_other |= any(other.update(*moment) == "success" for other in wrong)
            outcome = judge.update(*moment)
            if outcome != "running":
                ended_s = time.monotonic()
        watch(max(0.0, time_s), outcome if outcome != "running" else client.verdict.split(":")[0])
        return ended_s is not None and time.monotonic() - ended_s >= after_s

    is_judged = client.spin_until(is_over, time_limit_s + _PATIENCE_S, alive)
    client.recorder = None
    if not is_judged:
        raise VlaRosError("the simulator's ground truth fell silent; see its log")
    duration_s = (judged_ns - start_ns) * 1e-9
    client.end_task(outcome, judge.reason)
    is_late = outcome == "failure" and duration_s > time_limit_s
    reason = judge.reason + _refusal(client.events)
    log = recorder.finish("timeout" if is_late else outcome, duration_s, reason)  # type: ignore[arg-type]
    return log, did_other


def _refusal(events: Iterable[Mapping[str, Any]]) -> str:
    """Why the policy wouldn't do the task, if it wouldn't: then the arm just stood there."""
    refused = next((event for event in events if event.get("event") == "task_refused"), None)
    return "" if refused is None else f"; the policy refused the task: {refused.get('reason', '')}"
