"""How a policy's vectors are normalised; the statistics are a file beside the checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class NormalisationSpec:
    """How one vector is normalised. The formulas are those of `vla_ros.policies.normalisation`.

    Attributes:
        formula: `mean_std`; `min_max` and `quantile` (1 % and 99 %) to [-1, 1]; `none` changes nothing.
        epsilon: added to the divisor, both ways; openpi has 1e-6.
        mask: False for entries that pass through, as a gripper's often do; null takes the statistics' own mask.
        clip: normalised values are held in [-clip, clip], both ways; null for no bound.
    """

    formula: Literal["none", "mean_std", "min_max", "quantile"] = "none"
    epsilon: float = 0.0
    mask: tuple[bool, ...] | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        if not (self.epsilon >= 0.0 and math.isfinite(self.epsilon)):
            raise ValueError(f"epsilon {self.epsilon} is negative or not finite")
        if self.clip is not None and not (self.clip > 0.0 and math.isfinite(self.clip)):
            raise ValueError(f"clip {self.clip} isn't positive and finite; null doesn't clip")


@dataclass(frozen=True)
class Normalisation:
    """How a policy's state vector and its actions are normalised."""

    state: NormalisationSpec = field(default_factory=NormalisationSpec)
    action: NormalisationSpec = field(default_factory=NormalisationSpec)
