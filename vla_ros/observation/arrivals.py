"""How often something arrives: the rate of a camera, and whether it is the one that its rig promises."""

from __future__ import annotations

from collections import deque

WINDOW_S = 2.0
"""Time over which a rate is measured."""

_SHARE = 0.7


class Arrivals:
    """Counts what arrives; times are of any steady clock, s.

    Args:
        rate_hz: at which it is promised to.
    """

    def __init__(self, rate_hz: float) -> None:
        self._promised_hz = rate_hz
        self._at_s: deque[float] = deque()

    def note(self, now_s: float) -> None:
        """One has arrived."""
        self._at_s.append(now_s)
        self._forget(now_s)

    def rate_hz(self, now_s: float) -> float:
        """Arrivals a second of late; 0 for fewer than two."""
        self._forget(now_s)
        if len(self._at_s) < 2 or self._at_s[-1] <= self._at_s[0]:
            return 0.0
        return (len(self._at_s) - 1) / (self._at_s[-1] - self._at_s[0])

    def is_silent(self, now_s: float) -> bool:
        """Whether nothing has arrived of late."""
        self._forget(now_s)
        return not self._at_s

    def problem(self, now_s: float) -> str:
        """What is wrong with the rate, empty if it is 0.7 of what is promised, or more."""
        rate_hz = self.rate_hz(now_s)
        return (
            ""
            if rate_hz >= _SHARE * self._promised_hz
            else f"at {rate_hz:.1f} Hz, the rig says {self._promised_hz:g} Hz"
        )

    def _forget(self, now_s: float) -> None:
        while self._at_s and self._at_s[0] <= now_s - WINDOW_S:
            self._at_s.popleft()
