"""What a benchmark promises: figures with what they must be, and what would make us proud."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Requirement:
    """A figure and its bounds.

    Attributes:
        key: where the figure is in the results; a dot leads into an object.
        must: bound that has to hold.
        proud: bound that we would like to hold.
        meaning: for a person.
        unit: of the figure, empty for ratios and counts.
        is_least: whether the bounds are the least that is allowed, and not the most.
        is_full_only: whether a quick run is too short for it: it then says the figure and doesn't fail.
    """

    key: str
    must: float
    proud: float
    meaning: str
    unit: str = ""
    is_least: bool = False
    is_full_only: bool = False


@dataclass(frozen=True)
class Outcome:
    """A figure held against its requirement.

    Attributes:
        requirement: the bounds.
        value: the figure, None where it could not be measured.
        is_due: whether it counts in this run.
        holds_must: never without a value.
        holds_proud: likewise.
    """

    requirement: Requirement
    value: float | None
    is_due: bool
    holds_must: bool
    holds_proud: bool

    def as_json(self) -> dict[str, Any]:
        """The outcome as plain values."""
        return {
            "value": self.value,
            "must": self.requirement.must,
            "proud": self.requirement.proud,
            "is_due": self.is_due,
            "holds_must": self.holds_must,
            "holds_proud": self.holds_proud,
        }


def judge(
    results: Mapping[str, Any], requirements: Sequence[Requirement], *, is_quick: bool = False
) -> tuple[Outcome, ...]:
    """Holds every requirement against the results. What is missing or not a number holds nothing."""
    outcomes = []
    for requirement in requirements:
        value = find(results, requirement.key)
        holds = [
            value is not None and (value >= bound if requirement.is_least else value <= bound)
            for bound in (requirement.must, requirement.proud)
        ]
        is_due = not (is_quick and requirement.is_full_only)
        outcomes.append(Outcome(requirement, value, is_due, *holds))
    return tuple(outcomes)


def find(results: Mapping[str, Any], key: str) -> float | None:
    """The finite number at a dotted key, else None."""
    value: Any = results
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
