"""Datasets and settings to one of our own networks that is ready to learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla_ros.config import build, plain
from vla_ros.policies.architectures.base import Architecture, architecture_class
from vla_ros.training.architecture_learner import ArchitectureLearner
from vla_ros.training.batches import ExampleBatches
from vla_ros.training.data_config import read_data
from vla_ros.training.open_loop import compare_chunks
from vla_ros.training.optional import with_options
from vla_ros.training.outcome import Examination
from vla_ros.training.own_config import TrainingConfig
from vla_ros.training.recipe import Progress, Recipe, summarise

_ASKED_AT_ONCE = 64


def prepare(settings: dict[str, Any], where: str, datasets: Sequence[Path], progress: Progress) -> Recipe:
    """See `recipe.prepare`."""
    config = build(TrainingConfig, settings, where)
    cls = architecture_class(config.policy)
    network_config = build(cls.config_class, config.architecture, f"{where}: architecture")
    config, examples = read_data(config, datasets, config.horizon, where, progress)
    seed = config.loop.seed
    learned, held_out = config.split(examples, seed)
    vocabulary = tuple(dict.fromkeys((*examples.words(), *config.options.words)))
    spec = learned.model_spec(vocabulary, config.max_words if vocabulary else 1)
    statistics = learned.statistics()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = cls(spec, network_config)
    batches = ExampleBatches(
        learned, spec, statistics, seed, config.augmentation if config.augment else None, config.weights
    )
    examine = None
    if held_out is not None:
        unseen = ExampleBatches(held_out, spec, statistics, seed)
        examine = make_examination(network, unseen, config.held_out_examples)
    period_s = examples.contract.action.period_s
    learner = ArchitectureLearner(network, examples.contract, statistics)
    return Recipe(
        with_options(learner, config.options, len(examples.states)),
        batches,
        config.loop,
        plain(dataclasses.asdict(config)),
        summarise(_heading(network, learned.contract.name), learned, held_out),
        examine,
        # As often as half a chunk lasts.
        rate_hz=round(1.0 / (period_s * max(1, config.horizon // 2)), 3),
        # A policy that was told how well things went is asked to do them well.
        parameters={"added_words": config.options.words[0]} if config.options.words else {},
    )


def make_examination(network: Architecture, unseen: ExampleBatches, most: int) -> Callable[[], Examination]:
    """What asks the network about held-out examples, the same ones with the same noise each time.

    Args:
        network: is asked, in evaluation mode.
        unseen: the examples.
        most: examples to ask about, spread evenly over all.
    """
    count = min(most, len(unseen))
    numbers = np.unique(np.linspace(0, len(unseen) - 1, count).round().astype(np.int64))
    rows = unseen.examples.rows[numbers]
    done, is_valid = unseen.examples.actions[rows].astype(np.float64), unseen.examples.is_valid[rows]
    contract = unseen.examples.contract
    normaliser = unseen.statistics.action_normaliser(contract)

    def examine() -> Examination:
        device = next(network.parameters()).device
        generator = torch.Generator().manual_seed(0)
        answers = []
        for first in range(0, len(numbers), _ASKED_AT_ONCE):
            inputs = unseen.examples_at(numbers[first : first + _ASKED_AT_ONCE]).inputs
            noise = torch.randn((len(inputs.state), *network.noise_shape), generator=generator)
            answers.append(network.sample(inputs.to(device), noise.to(device)).float().cpu().numpy())
        actions = normaliser.unnormalise(np.concatenate(answers).astype(np.float64))
        return compare_chunks(actions, done, is_valid, contract.action)

    return examine


def _heading(network: Architecture, contract: str) -> str:
    weights, words = sum(weight.numel() for weight in network.parameters()), len(network.spec.vocabulary)
    return f"{network.name}: {weights / 1e6:.2f} million weights, {words} words, contract {contract}"
