"""How good a calibration is: checks, each with what was found and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vla_ros.errors import VlaRosError


class CalibrateError(VlaRosError):
    """Measurements that a calibration can't be had from.

    Args:
        what: is calibrated.
        problem: what is wrong, with the value and the limit.
        mend: what to do about it.
    """

    def __init__(self, what: str, problem: str, mend: str) -> None:
        self.what, self.problem, self.mend = what, problem, mend
        super().__init__(f"{what}: {problem}; {mend}")


@dataclass(frozen=True)
class Check:
    """One thing that a verdict rests upon.

    Attributes:
        name: for a machine.
        is_good: whether it is as it should be.
        text: for a person: the value, its limit, and what to do where it is bad.
    """

    name: str
    is_good: bool
    text: str


def at_most(name: str, value: float, limit: float, what: str, unit: str, mend: str) -> Check:
    """A check of a figure that must not be above its limit; one that isn't a number is bad."""
    is_good = value <= limit
    text = f"{what} {value:.3g} {unit} (limit {limit:g} {unit})"
    return Check(name, is_good, text if is_good else f"{text}; {mend}")


def is_good(checks: Iterable[Check]) -> bool:
    """Whether all of at least one are."""
    found = [check.is_good for check in checks]
    return bool(found) and all(found)
