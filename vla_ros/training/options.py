"""What a training may do besides, as `options` of its YAML file; docs/training_options.md has them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Distillation:
    """A teacher.

    Attributes:
        teacher: folder of its checkpoint, of the policy kind `learned`.
        by: `actions` takes the student's loss on chunks that the teacher draws; `chunk` compares the answers to the
            same noise; `logits` compares distributions of tokens.
        weight: share of the teacher's term in the loss, above 0 and at most 1.
        temperature: of `logits`.
    """

    teacher: str
    by: Literal["actions", "chunk", "logits"] = "actions"
    weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 < self.weight <= 1.0:
            raise ValueError(f"weight {self.weight} isn't above 0 and at most 1")
        if not self.temperature > 0.0:
            raise ValueError(f"temperature {self.temperature} isn't positive")


@dataclass(frozen=True)
class Insulation:
    """Weights that the loss of the actions doesn't reach.

    Attributes:
        weights: patterns of their names, such as `context` of flow_vla.
        terms: the losses that don't reach them.
    """

    weights: tuple[str, ...]
    terms: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.weights or not self.terms:
            raise ValueError("weights and terms name at least one each")


@dataclass(frozen=True)
class Weighting:
    """How good each example was, from a critic's scores.

    Attributes:
        scores: file that `vla-ros critic` wrote.
        by: `weight` counts good examples more; `word` tells the network in the instruction which are good.
        good: the word of good examples, which the policy is told later on (its parameter `added_words`).
        bad: the word of the others.
        silent: share of the examples that are told neither, so that the network works without, too.
    """

    scores: str
    by: Literal["weight", "word"] = "weight"
    good: str = "well"
    bad: str = "badly"
    silent: float = 0.3

    def __post_init__(self) -> None:
        if not 0.0 <= self.silent < 1.0:
            raise ValueError(f"silent {self.silent} isn't in [0, 1)")
        if self.good == self.bad:
            raise ValueError(f"good and bad are both {self.good!r}")


@dataclass(frozen=True)
class Smoothness:
    """A penalty on rough answers.

    Attributes:
        weight: of the term, at least 0.
        order: of the difference along the chunk: 2 an acceleration, 3 a jerk, where actions are positions.
    """

    weight: float
    order: int = 2

    def __post_init__(self) -> None:
        if not self.weight >= 0.0 or self.order < 1:
            raise ValueError(f"weight {self.weight} is negative, or order {self.order} below 1")


@dataclass(frozen=True)
class Options:
    """What changes the loss; without an entry nothing is done.

    Attributes:
        freeze: patterns of the names of weights that aren't trained.
        insulation: see there.
        distillation: see there.
        weighting: see there.
        smoothness: see there.
    """

    freeze: tuple[str, ...] = ()
    insulation: Insulation | None = None
    distillation: Distillation | None = None
    weighting: Weighting | None = None
    smoothness: Smoothness | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """Words that the network has to know besides."""
        by_word = self.weighting is not None and self.weighting.by == "word"
        return (self.weighting.good, self.weighting.bad) if self.weighting is not None and by_word else ()
