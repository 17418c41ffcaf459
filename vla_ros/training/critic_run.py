"""The settings of a critic, and datasets to one that is ready to learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vla_ros.training.augmentation import Augmentation
from vla_ros.training.batches import ExampleBatches
from vla_ros.training.config import LoopConfig
from vla_ros.training.critic import CriticConfig, CriticLearner, ProgressCritic
from vla_ros.training.data_config import DataConfig, read_data
from vla_ros.training.recipe import Progress
from vla_ros.training.scoring import Scoring, value_targets


@dataclass(frozen=True, kw_only=True)
class CriticRun(DataConfig):
    """The training of a critic; what it learns from is said in `data_config`.

    Give the contract, datasets, horizon, columns and selection of the training that its scores are for: they are of
    rows of the same examples.

    Attributes:
        horizon: see `own_config.TrainingConfig`.
        max_words: see there.
        architecture: of the critic.
        scoring: how scores come of its values.
        augmentation: of the images.
        loop: how it is trained.
    """

    horizon: int = 8
    max_words: int = 16
    architecture: CriticConfig = field(default_factory=CriticConfig)
    scoring: Scoring = field(default_factory=Scoring)
    augmentation: Augmentation = field(default_factory=Augmentation)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1000))


def prepare_critic(
    run: CriticRun, datasets: Sequence[Path], progress: Progress
) -> tuple[CriticLearner, ExampleBatches, CriticRun]:
    """Reads the data and makes a critic for it.

    Args:
        run: the settings.
        datasets: in the place of the settings'; none for those.
        progress: told the part of the work and how far it is, from 0 to 1.

    Returns:
        What learns, what from, and the settings in force.
    """
    run, examples = read_data(run, datasets, run.horizon, "critic", progress)
    targets = value_targets(examples, run.scoring.floor)
    vocabulary = examples.words()
    spec = examples.model_spec(vocabulary, run.max_words if vocabulary else 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.loop.seed)
        critic = ProgressCritic(spec, run.architecture)
    batches = ExampleBatches(examples, spec, examples.statistics(), run.loop.seed, run.augmentation)
    return CriticLearner(critic, targets), batches, run
