"""What has to hold before an arm is led, in its order, and what of it holds now."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vla_ros.errors import SensorError

NOT_LOOKED_AT = "not looked at yet"


@dataclass(frozen=True)
class Check:
    """One thing that has to hold.

    Attributes:
        name: for people and diagnostics.
        problem: why it doesn't hold now, and the mend; empty if it does.
        is_for_start: whether it is asked of the start alone: later it is told, and the arm goes on.
        is_latched: whether an arm that was led needs an operator's recovery after it, even if it passes by itself.
    """

    name: str
    problem: Callable[[], str]
    is_for_start: bool = False
    is_latched: bool = False


class Readiness:
    """Looks at checks one after the other; a later one may rely on those before it.

    A fault lasts until it is recovered from: an arm that comes back by itself must not move by itself.

    Args:
        checks: in their order.
    """

    def __init__(self, checks: tuple[Check, ...]) -> None:
        self._checks = checks
        self._results: dict[str, str] = {check.name: NOT_LOOKED_AT for check in checks}
        self._has_started = False
        self._fault = ""

    @property
    def results(self) -> Mapping[str, str]:
        """Name of each check and its problem, empty where it holds."""
        return self._results

    @property
    def has_started(self) -> bool:
        """Whether all checks held once since the beginning or the last recovery."""
        return self._has_started

    @property
    def cause(self) -> str:
        """The fault, or the name of the check, for which the arm isn't led now, empty if it is."""
        if self._fault:
            return self._fault
        for check in self._checks:
            if self._results[check.name] and not (self._has_started and check.is_for_start):
                return check.name
        return ""

    @property
    def reason(self) -> str:
        """Why the arm isn't led now, in words, empty if it is."""
        cause = self.cause
        return f"{cause}: {self._results[cause]}" if cause in self._results else cause

    @property
    def warnings(self) -> str:
        """What doesn't hold and doesn't keep the arm from being led."""
        names = [check.name for check in self._checks if check.is_for_start] if self._has_started else []
        return "; ".join(f"{name}: {self._results[name]}" for name in names if self._results[name])

    def look(self) -> None:
        """Looks at the checks; before the start, up to the first that doesn't hold."""
        is_open = True
        for check in self._checks:
            problem = self._results[check.name] = check.problem() if is_open else NOT_LOOKED_AT
            if self._has_started and check.is_latched and problem:
                self.fault(f"{check.name}: {problem}")
            is_open = is_open and (self._has_started or not self._results[check.name])
        self._has_started = is_open

    def fault(self, reason: str) -> None:
        """Notes a fault; the first one stays until `recover`."""
        self._fault = self._fault or reason

    def recover(self) -> None:
        """Ends a fault. All checks have to hold again, those of the start, too."""
        self._fault = ""
        self._has_started = False


@dataclass(frozen=True)
class HardwareState:
    """What `hardware/state` says, as JSON.

    Attributes:
        is_ready: whether the arm may be led.
        reason: why not, empty if it may.
        speed_scaling: part of their speed, 0 .. 1, at which the arm carries out what it is told.
        stamp_ns: ROS time.
        checks: name of each check and its problem, empty where it holds.
    """

    is_ready: bool
    reason: str
    speed_scaling: float
    stamp_ns: int
    checks: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The message's text."""
        return json.dumps({**vars(self), "checks": dict(self.checks)})

    @classmethod
    def from_json(cls, text: str) -> HardwareState:
        """What a message says.

        Raises:
            SensorError: if it is none of ours.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            return cls(
                bool(values["is_ready"]),
                str(values["reason"]),
                float(values["speed_scaling"]),
                int(values["stamp_ns"]),
                {str(name): str(problem) for name, problem in values["checks"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SensorError(f"hardware/state says {text[:80]!r}, which isn't of hardware_node ({error})") from error
