"""How a connection to a policy is doing, for diagnostics. Any thread may count."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import Any

import numpy as np

from vla_ros.policies.remote.errors import Fault

_KEPT = 1000


class Health:
    """Counts and times of one connection.

    Attributes:
        has_been_connected: whether the next connection is one anew.
    """

    def __init__(self) -> None:
        self.has_been_connected = False
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("requests", "replies", "reconnects", "timeouts", "late", "duplicate"), 0)
        self._faults: Counter[str] = Counter()
        self._round_trips_s: deque[float] = deque(maxlen=_KEPT)
        self._last_fault = ""

    def count(self, what: str) -> None:
        """One more of `requests`, `replies`, `reconnects`, `timeouts`, or of the discarded, `late` and `duplicate`."""
        with self._lock:
            self._counts[what] += 1

    def add_round_trip(self, took_s: float) -> None:
        """A request that was answered."""
        with self._lock:
            self._counts["replies"] += 1
            self._round_trips_s.append(took_s)

    def add_fault(self, fault: Fault, text: str) -> None:
        """A request of which nothing came, by its name."""
        with self._lock:
            self._faults[fault] += 1
            self._last_fault = text
            self._counts["timeouts"] += fault == "timeout"

    def as_dict(self) -> dict[str, Any]:
        """Counts, `faults` by name, `last_fault`, and the round trip's percentiles over the last thousand, s."""
        with self._lock:
            found: dict[str, Any] = dict(self._counts)
            found["discarded"] = found["late"] + found["duplicate"]
            found["faults"] = dict(self._faults)
            found["last_fault"] = self._last_fault
            times_s = np.array(self._round_trips_s)
        for name, percent in (("p50", 50.0), ("p99", 99.0)):
            found[f"round_trip_{name}_s"] = float(np.percentile(times_s, percent)) if len(times_s) else float("nan")
        return found
