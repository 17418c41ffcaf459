"""What a person may choose about a run, and what a part of a benchmark hands back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vla_ros.benchmarks.parallel import Pool


def _say_nothing(_part: str, _fraction: float) -> None:
    return


@dataclass(frozen=True)
class Options:
    """How to run.

    Attributes:
        is_quick: the same figures from less data.
        seed: of everything random.
        ticks: how long the adversarial part and the timed ones run; None for their own lengths.
        pool: for what isn't timed.
        progress: called with what is being done and how much of it is done, 0 to 1.
    """

    is_quick: bool = False
    seed: int = 0
    ticks: int | None = None
    pool: Pool = field(default_factory=lambda: Pool(0))
    progress: Callable[[str, float], None] = _say_nothing

    def count(self, quick: int, full: int) -> int:
        """How many ticks: as asked for, else by the kind of run."""
        return self.ticks if self.ticks is not None else quick if self.is_quick else full


@dataclass(frozen=True)
class Result:
    """What a part of a benchmark found.

    Attributes:
        figures: the promised keys.
        details: raw medians, spreads, counts and controls, as plain values.
        series: arrays for the plots; they aren't printed.
        problems: why figures are missing, one sentence each with the mend.
    """

    figures: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)
    series: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
