"""What held over stretches of an episode: who had the arm, whether it moved, whether a limit acted, which task."""

from __future__ import annotations

from bisect import bisect_right

from vla_ros.recording.recorded import RecordedEpisode
from vla_ros.types import MotionState

TELEOP = "teleop"
"""The source that is a person."""

# What is in force when an episode begins is written at its start, or as soon as its publisher is found.
_START_NS = 300_000_000


class Spans:
    """Asks an episode's verdicts, events and tasks by time.

    Args:
        episode: what was recorded.
    """

    def __init__(self, episode: RecordedEpisode) -> None:
        sources = episode.sources
        self._source_times, self._sources = [time for time, _ in sources], [source for _, source in sources]
        self._verdicts = episode.verdicts
        self._verdict_times = [verdict.stamp_ns for verdict in episode.verdicts]
        self._tasks = episode.tasks
        self._task_times = [task.received_ns for task in episode.tasks]
        self._first_task = episode.info.task
        self.task_at_start, self._labels = _labels(episode)
        marks = [event for event in episode.events if event.event in ("intervention_start", "intervention_end")]
        self._mark_times = [event.stamp_ns for event in marks]
        self._marks = [event.event == "intervention_start" for event in marks]
        policies = [time for time, source in sources if source not in ("", TELEOP)]
        self._first_policy_ns = policies[0] if policies else None

    def source(self, stamp_ns: int) -> str:
        """Who had the arm, empty for nobody."""
        return self._sources[max(0, bisect_right(self._source_times, stamp_ns) - 1)]

    def source_since_ns(self, stamp_ns: int) -> int:
        """Since when that source has it; 0 from ever."""
        return self._source_times[max(0, bisect_right(self._source_times, stamp_ns) - 1)]

    def is_intervention(self, stamp_ns: int) -> bool:
        """Whether a person had the arm, and a policy before."""
        index = bisect_right(self._mark_times, stamp_ns) - 1
        is_marked = index >= 0 and self._marks[index]
        had_policy = self._first_policy_ns is not None and self._first_policy_ns <= stamp_ns
        return is_marked or (had_policy and self.source(stamp_ns) == TELEOP)

    def is_at_rest(self, stamp_ns: int) -> bool:
        """Whether the filter was in another state than running; False where nobody said."""
        index = bisect_right(self._verdict_times, stamp_ns) - 1
        return index >= 0 and self._verdicts[index].state is not MotionState.RUNNING

    def limits(self, begin_ns: int, end_ns: int) -> tuple[str, ...]:
        """Names of the limits that acted from one time to another; a verdict holds until the next one."""
        first = max(0, bisect_right(self._verdict_times, begin_ns) - 1)
        last = bisect_right(self._verdict_times, end_ns)
        return tuple(sorted({name for verdict in self._verdicts[first:last] for name in verdict.limits}))

    def task(self, stamp_ns: int) -> str:
        """The instruction in force, which is what a policy was told."""
        index = bisect_right(self._task_times, stamp_ns) - 1
        return self._tasks[index].task if index >= 0 else self._first_task

    def label(self, stamp_ns: int) -> str:
        """The task that a frame is of: as the episode was recorded under, until another instruction is given in it."""
        index = bisect_right(self._labels, stamp_ns, key=lambda entry: entry[0]) - 1
        return self._labels[max(0, index)][1]


def _labels(episode: RecordedEpisode) -> tuple[str, list[tuple[int, str]]]:
    """The instruction in force at the start, empty for none; and (since when, task), the first from ever."""
    said, started_ns = episode.info.task, episode.info.started_ns
    at_start, labels = "", [(0, said)]
    in_force = ""
    for task in episode.tasks:
        if started_ns and task.received_ns <= started_ns + _START_NS:
            at_start = task.task
            if not said:
                labels.append((task.received_ns, task.task))
        elif task.task != in_force:
            labels.append((task.received_ns, task.task))
        in_force = task.task
    return at_start, labels
