"""The settings of a critic, and datasets to one that is ready to learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from vla_ros.contract import load_contract
from vla_ros.errors import ConfigError
from vla_ros.training.augmentation import Augmentation
from vla_ros.training.batches import ExampleBatches
from vla_ros.training.config import LoopConfig
from vla_ros.training.critic import CriticConfig, CriticLearner, ProgressCritic
from vla_ros.training.examples import read_examples
from vla_ros.training.image_cache import CacheOptions
from vla_ros.training.recipe import Progress
from vla_ros.training.scoring import Scoring, value_targets
from vla_ros.training.selection import Selection


@dataclass(frozen=True)
class CriticRun:
    """The training of a critic; what isn't said here is as in `own_config.TrainingConfig`.

    Give the contract, datasets, horizon, columns and selection of the training that its scores are for: they are of
    rows of the same examples.

    Attributes:
        contract: see there, like the next seven.
        datasets: see there.
        horizon: see there.
        max_words: see there.
        columns: see there.
        selection: see there.
        is_cached: see there.
        cache: see there.
        architecture: of the critic.
        scoring: how scores come of its values.
        augmentation: of the images.
        loop: how it is trained.
    """

    contract: str | None = None
    datasets: tuple[str, ...] = ()
    horizon: int = 8
    max_words: int = 16
    columns: dict[str, str] = field(default_factory=dict)
    selection: Selection = field(default_factory=Selection)
    is_cached: bool = True
    cache: str | None = None
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
    if datasets:
        run = replace(run, datasets=tuple(str(path.expanduser().absolute()) for path in datasets))
    if not run.datasets:
        raise ConfigError("critic: datasets", "there is none", "name one with --dataset")
    examples = read_examples(
        [Path(path) for path in run.datasets],
        run.horizon,
        None if run.contract is None else load_contract(run.contract),
        selection=run.selection,
        cache=CacheOptions(run.is_cached, None if run.cache is None else Path(run.cache).expanduser()),
        columns=run.columns or None,
        progress=progress,
    )
    targets = value_targets(examples, run.scoring.floor)
    vocabulary = examples.words()
    spec = examples.model_spec(vocabulary, run.max_words if vocabulary else 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.loop.seed)
        critic = ProgressCritic(spec, run.architecture)
    batches = ExampleBatches(examples, spec, examples.statistics(), run.loop.seed, run.augmentation)
    return CriticLearner(critic, targets), batches, run
