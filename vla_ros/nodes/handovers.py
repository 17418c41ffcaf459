"""Who has the arm, told as events: so that a recording can tell what a person did in a policy's place."""

from __future__ import annotations

from typing import Any

from vla_ros.nodes.chunk_intake import TELEOP


class Handovers:
    """Follows who is selected. An intervention begins when teleoperation takes the arm from a policy that has moved it
    since it was selected, or since the task changed; it ends when somebody else is selected. In between the operator
    may let go, and the arm hold, as often as they like. Teleoperation from the start is none.

    Args:
        source: who is selected at first.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._has_moved = False
        self._taken_from = ""

    def note_motion(self, source: str) -> None:
        """A chunk of this source is carried out."""
        self._has_moved |= source == self._source

    def begin_anew(self) -> None:
        """What was done before is over: another task."""
        self._has_moved = False

    def select(self, source: str, stamp_ns: int) -> list[dict[str, Any]]:
        """The events of a source's selection.

        Args:
            source: who is selected now.
            stamp_ns: since when.
        """
        before, had_moved = self._source, self._has_moved
        self._source = source
        events: list[dict[str, Any]] = [{"event": "source", "source": source, "stamp_ns": stamp_ns}]
        if source == before:
            return events
        self._has_moved = False
        if source == TELEOP and before and had_moved:
            self._taken_from = before
            events.append({"event": "intervention_start", "source": before, "stamp_ns": stamp_ns})
        elif before == TELEOP and self._taken_from:
            events.append({"event": "intervention_end", "source": self._taken_from, "stamp_ns": stamp_ns})
            self._taken_from = ""
        return events
