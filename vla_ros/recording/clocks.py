"""Whether the stamps of a stream can be trusted, and its messages in their order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_ros.errors import RecordingError
from vla_ros.recording.recorded import Finding, StampArray

CLOCK_LIMIT_NS = 1_000_000_000
"""Stamps that differ from their reception, or run back, by more mean another clock, or one that was set."""

# Stamps that run back by more, and stay so, are of a clock that was set; told from this many messages on either side.
_STEP_NS, _ENOUGH = 50_000_000, 10


def put_in_order(stamps_ns: StampArray, received_ns: StampArray, topic: str) -> tuple[NDArray[np.intp], list[Finding]]:
    """Which messages to take so that stamps increase strictly: of equal ones the first that came.

    Args:
        stamps_ns: (n,) in the order in which they came.
        received_ns: (n,) when they came.
        topic: for errors and findings.

    Returns:
        Indices, and what was found on the way.

    Raises:
        RecordingError: if the stamps are of another clock than the reception, or a clock was set meanwhile.
    """
    if not len(stamps_ns):
        return np.zeros(0, dtype=np.intp), []
    late_ns = _check_clock(stamps_ns, received_ns, topic)
    findings = []
    if late_ns > CLOCK_LIMIT_NS:
        text = f"a message came {late_ns * 1e-9:.2f} s after its stamp: the machine or the network stood still"
        findings.append(Finding("late", topic, text))
    order = np.argsort(stamps_ns, kind="stable")
    overtaken = int(np.count_nonzero(np.diff(stamps_ns) < 0))
    if overtaken:
        text = f"{overtaken} messages came before an older one; they are put in order"
        findings.append(Finding("order", topic, text, count=overtaken))
    is_new = np.append(True, np.diff(stamps_ns[order]) > 0)
    repeated = int(np.count_nonzero(~is_new))
    if repeated:
        text = f"{repeated} of {len(stamps_ns)} messages repeat a stamp; the first of each counts"
        findings.append(Finding("duplicate", topic, text, int(stamps_ns[order][~is_new][0]), repeated))
    return order[is_new], findings


def _check_clock(stamps_ns: StampArray, received_ns: StampArray, topic: str) -> int:
    """How late the latest message came."""
    offset_ns = received_ns - stamps_ns
    usual_ns = int(np.median(offset_ns))
    mend = "are all machines' clocks in step, and is use_sim_time the same everywhere?"
    if abs(usual_ns) > CLOCK_LIMIT_NS:
        side = "before" if usual_ns > 0 else "after"
        raise RecordingError(
            f"{topic}: stamps lie {abs(usual_ns) * 1e-9:.2f} s {side} their reception (limit 1 s), so nothing can be "
            f"aligned with them; {mend}"
        )
    back_ns = np.maximum.accumulate(stamps_ns) - stamps_ns
    part = max(1, len(offset_ns) // 10)
    shift_ns = int(np.median(offset_ns[-part:]) - np.median(offset_ns[:part]))
    worst = int(np.argmax(back_ns))
    if back_ns[worst] > CLOCK_LIMIT_NS:
        raise RecordingError(
            f"{topic}: the clock was set: stamps run back by {back_ns[worst] * 1e-9:.2f} s at message {worst} of "
            f"{len(stamps_ns)} (limit 1 s); {mend}"
        )
    before, after = offset_ns[:worst], offset_ns[worst:]
    if back_ns[worst] > _STEP_NS and min(len(before), len(after)) >= _ENOUGH:
        step_ns = int(np.median(after) - np.median(before))
        # Late messages run back, too, but those after them are as they were before.
        if step_ns > 0.5 * back_ns[worst]:
            raise RecordingError(
                f"{topic}: the clock was set: stamps lie {step_ns * 1e-9:.2f} s further back from message {worst} of "
                f"{len(stamps_ns)} on, so times come twice; {mend}"
            )
    ahead_ns = int(usual_ns - offset_ns.min())
    if abs(shift_ns) > CLOCK_LIMIT_NS or ahead_ns > CLOCK_LIMIT_NS:
        leap_ns = shift_ns if abs(shift_ns) > CLOCK_LIMIT_NS else -ahead_ns
        raise RecordingError(
            f"{topic}: the clock was set: stamps leap by {-leap_ns * 1e-9:.2f} s against their reception (limit 1 s); "
            f"{mend}"
        )
    return int(offset_ns.max()) - usual_ns
