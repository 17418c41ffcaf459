"""Which places of an endless order are actions, and which are questions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property


@dataclass(frozen=True)
class Mixture:
    """Two kinds of examples as evenly mixed as can be: of any first n, n times the share, rounded down, are actions.

    Attributes:
        share: of actions, above 0; 0.7 by default.
    """

    share: float = 0.7

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"share {self.share} isn't in (0, 1]")

    def place(self, n: int) -> tuple[bool, int]:
        """Whether the n-th example is an action, and how many of its kind came before."""
        before = self._count(n)
        is_action = self._count(n + 1) > before
        return is_action, before if is_action else n - before

    def _count(self, n: int) -> int:
        # In whole numbers, so that no rounding shifts a place in a long run.
        return n * self._exact.numerator // self._exact.denominator

    @cached_property
    def _exact(self) -> Fraction:
        return Fraction(str(self.share))
