"""Examples scored by a critic: how good each was, and at which row each failed episode failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from vla_ros.errors import DatasetError
from vla_ros.training.advantages import (
    advantages,
    are_good,
    exponential_weights,
    failing_step,
    is_before_failure,
    progress_targets,
)
from vla_ros.training.batches import ExampleBatches
from vla_ros.training.critic import ProgressCritic
from vla_ros.training.examples import ExampleSet
from vla_ros.training.weighting import Scores
from vla_ros.types import FloatArray

_ASKED_AT_ONCE = 64
_OUTCOMES = {"success": True, "failure": False}


@dataclass(frozen=True)
class Scoring:
    """How scores come of values.

    Attributes:
        floor: see `progress_targets`.
        ahead: steps that an advantage looks ahead; null for a chunk's.
        temperature: of the weights, see `exponential_weights`.
        largest: weight.
        share_good: of all examples that count as good.
        window: steps of an average, see `failing_step`.
        least_drop: see there.
        mask_failing: whether chunks that reach past a failing step weigh nothing.
    """

    floor: float = 0.5
    ahead: int | None = None
    temperature: float = 0.1
    largest: float = 20.0
    share_good: float = 0.3
    window: int = 5
    least_drop: float = 0.2
    mask_failing: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.floor < 1.0 or not 0.0 < self.share_good < 1.0:
            raise ValueError(f"floor {self.floor} isn't in [0, 1), or share_good {self.share_good} not between 0 and 1")
        for name in ("temperature", "largest", "least_drop"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} {getattr(self, name)} isn't positive")
        if self.window < 1 or (self.ahead is not None and self.ahead < 1):
            raise ValueError(f"window {self.window} or ahead {self.ahead} is below 1")


def find_outcomes(examples: ExampleSet) -> list[bool | None]:
    """Whether each episode succeeded; None where nobody said."""
    return [_OUTCOMES.get(str(episode.attributes.get("outcome", ""))) for episode in examples.episodes]


def value_targets(examples: ExampleSet, floor: float = 0.5) -> FloatArray:
    """(n,) what a critic should say of each row; NaN in episodes of which nobody said how they ended.

    Raises:
        DatasetError: unless there are successes and failures, since a critic of one kind learns nothing.
    """
    outcomes = find_outcomes(examples)
    counts = {name: outcomes.count(is_success) for name, is_success in _OUTCOMES.items()}
    if min(counts.values()) == 0:
        raise DatasetError(
            f"{len(outcomes)} episodes, {counts['success']} of them labelled success and {counts['failure']} failure; "
            "a critic needs both: label them as they are recorded (vla-ros record), or add a dataset of failures"
        )
    return np.concatenate(progress_targets([episode.length for episode in examples.episodes], outcomes, floor=floor))


def score(
    critic: ProgressCritic,
    batches: ExampleBatches,
    scoring: Scoring,
    progress: Callable[[float], None] = lambda _share: None,
) -> Scores:
    """What a critic finds about all rows of some examples.

    Args:
        critic: trained on them, or on others of the same sizes.
        batches: of them.
        scoring: how.
        progress: told the share that is done.
    """
    examples = batches.examples
    values = _values(critic, batches, progress)
    returns = value_targets(examples, scoring.floor)
    count, ahead = len(examples.states), scoring.ahead or examples.horizon
    advantage, weight = np.full(count, np.nan), np.ones(count)
    failing_row = np.full(len(examples.episodes), -1, dtype=np.int64)
    for index, episode in enumerate(examples.episodes):
        rows = slice(episode.first, episode.first + episode.length)
        if not (np.isfinite(values[rows]).all() and np.isfinite(returns[rows]).all()):
            continue
        advantage[rows] = advantages(values[rows], returns[rows], ahead)
        weight[rows] = exponential_weights(advantage[rows], scoring.temperature, scoring.largest)
        step = failing_step(values[rows], scoring.window, scoring.least_drop)
        # A success is worth 1 in the end, and a failure never anything.
        if returns[episode.first + episode.length - 1] > 0.0 or step is None:
            continue
        failing_row[index] = episode.first + step
        if scoring.mask_failing:
            weight[rows] *= is_before_failure(values[rows], examples.horizon, scoring.window, scoring.least_drop)
    # Of examples alone; where nobody knows, nothing is good.
    counted = np.full(count, np.nan)
    counted[examples.rows] = advantage[examples.rows]
    return Scores(
        values.astype(np.float32),
        advantage.astype(np.float32),
        weight.astype(np.float32),
        are_good(counted, scoring.share_good),
        failing_row,
    )


def _values(critic: ProgressCritic, batches: ExampleBatches, progress: Callable[[float], None]) -> FloatArray:
    """(n,) the critic's; of rows that are no examples, between their neighbours'."""
    examples = batches.examples
    known = np.empty(len(examples))
    device = next(critic.parameters()).device
    for first in range(0, len(examples), _ASKED_AT_ONCE):
        numbers = np.arange(first, min(first + _ASKED_AT_ONCE, len(examples)))
        with torch.inference_mode():
            known[numbers] = critic.value(batches.examples_at(numbers).inputs.to(device)).cpu().numpy()
        progress((first + len(numbers)) / len(examples))
    values = np.full(len(examples.states), np.nan)
    for episode in examples.episodes:
        is_own = (examples.rows >= episode.first) & (examples.rows < episode.first + episode.length)
        if is_own.any():
            steps = np.arange(episode.first, episode.first + episode.length)
            values[steps] = np.interp(steps, examples.rows[is_own], known[is_own])
    return values
