"""Two policies on the same scenes: how often one did what the other didn't, and what the difference can at most be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeVar

from scipy.optimize import brentq

Key = TypeVar("Key")
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class PairedOutcomes:
    """Pairs of outcomes of A and B.

    Attributes:
        both: A and B succeeded.
        only_a: A did, B didn't.
        only_b: B did, A didn't.
        neither: both failed.
    """

    both: int
    only_a: int
    only_b: int
    neither: int

    def __post_init__(self) -> None:
        if min(self.both, self.only_a, self.only_b, self.neither) < 0:
            raise ValueError(f"{self} has a negative count")

    @classmethod
    def of(cls, a: Mapping[Key, bool], b: Mapping[Key, bool]) -> PairedOutcomes:
        """Of successes by what both were tried at; what only one was tried at is left out."""
        pairs = [(is_a, b[key]) for key, is_a in a.items() if key in b]
        counts = {outcome: pairs.count(outcome) for outcome in ((True, True), (True, False), (False, True))}
        both, only_a, only_b = counts.values()
        return cls(both, only_a, only_b, len(pairs) - both - only_a - only_b)

    @property
    def pairs(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """Success rate of A less that of B, NaN without pairs."""
        return (self.only_a - self.only_b) / self.pairs if self.pairs else math.nan

    def mcnemar_p(self) -> float:
        """Two-sided p value of the exact McNemar test: that A and B succeed equally often.

        Source: Q. McNemar, Psychometrika 12, 1947; exact: twice the binomial tail of the discordant pairs.
        """
        discordant, fewer = self.only_a + self.only_b, min(self.only_a, self.only_b)
        tail = sum(math.comb(discordant, k) for k in range(fewer + 1))
        return min(1.0, 2 * tail / 2**discordant)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Score interval of the difference of the success rates; (-1, 1) without pairs.

        Source: T. Tango, Equivalence test and confidence interval for the difference in proportions for the
        paired-sample design, Statistics in Medicine 17, 1998, equations (8) and (13).
        """
        if not self.pairs:
            return -1.0, 1.0
        z = NormalDist().inv_cdf(0.5 + 0.5 * confidence)
        return self._end(z), self._end(-z)

    def costs_at_most(self, confidence: float = 0.95) -> float:
        """By how much A's success rate may at most be below B's: upper bound, one-sided, of B less A."""
        return -self.interval(2.0 * confidence - 1.0)[0] if self.pairs else 1.0

    def plain(self) -> dict[str, Any]:
        """The figures as JSON has them."""
        lower, upper = self.interval()
        return {
            "pairs": self.pairs,
            "both": self.both,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "neither": self.neither,
            "difference": self.difference if self.pairs else None,
            "difference_interval": [lower, upper],
            "mcnemar_p": self.mcnemar_p(),
            "costs_at_most": self.costs_at_most(),
        }

    def _end(self, z: float) -> float:
        """Where the score is z: it falls from infinity at -1 to minus infinity at 1."""
        inside = 1.0 - 1e-9
        if self._score(-inside) <= z:
            return -1.0
        if self._score(inside) >= z:
            return 1.0
        return float(brentq(lambda delta: self._score(delta) - z, -inside, inside, xtol=_TOLERANCE))

    def _score(self, delta: float) -> float:
        """The standardised difference, if it truly were delta."""
        n, b, c = self.pairs, self.only_a, self.only_b
        # Maximum likelihood of the rate of `only_b` under that difference: a quadratic's root.
        linear = -b - c + (2 * n - b + c) * delta
        rate = (math.sqrt(max(0.0, linear * linear + 8 * n * c * delta * (1.0 - delta))) - linear) / (4 * n)
        variance = n * (2.0 * rate + delta * (1.0 - delta))
        gap = b - c - n * delta
        if variance <= 0.0:
            return math.copysign(math.inf, gap) if gap else 0.0
        return gap / math.sqrt(variance)


def describe(paired: PairedOutcomes, a: str, b: str) -> str:
    """What a comparison says, in a sentence or two, for a person."""
    if not paired.pairs:
        return f"{a} and {b} were tried at nothing in common"
    lower, upper = paired.interval()
    said = (
        f"{a} less {b}: {100 * paired.difference:+.1f} points (95 % interval {100 * lower:+.1f} to {100 * upper:+.1f}, "
        f"McNemar p = {paired.mcnemar_p():.3g}, {paired.pairs} pairs)"
    )
    bound = 100 * paired.costs_at_most()
    if bound <= 0.0:
        return f"{said}; {a} is better by {-bound:.1f} points at least"
    return f"{said}; {a} costs at most {bound:.1f} points against {b} (95 %)"
