"""Datasets, a checkpoint and settings to an adapter that is ready to learn: `vla-ros train --policy openvla`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from vla_ros.config import build, plain
from vla_ros.errors import ChunkError, ConfigError
from vla_ros.training.data_config import read_data
from vla_ros.training.open_loop import compare_chunks
from vla_ros.training.openvla.batches import OpenVLABatches
from vla_ros.training.openvla.learner import OpenVLALearner
from vla_ros.training.openvla.settings import OpenVLATraining
from vla_ros.training.openvla.teacher import with_teacher
from vla_ros.training.outcome import Examination
from vla_ros.training.recipe import Progress, Recipe, summarise
from vla_ros.types import FloatArray

# OpenVLA says one action at a time.
_HORIZON = 1
_ASKED_AT_ONCE = 8


def prepare(settings: dict[str, Any], where: str, datasets: Sequence[Path], progress: Progress) -> Recipe:
    """See `recipe.prepare`."""
    config = build(OpenVLATraining, settings, where)
    if not config.openvla.checkpoint:
        raise ConfigError(f"{where}: openvla.checkpoint", "is empty", "name OpenVLA's folder with --checkpoint")
    config, examples = read_data(config, datasets, _HORIZON, where, progress)
    seed = config.loop.seed
    learned, held_out = config.split(examples, seed)
    learner = OpenVLALearner(config.openvla, learned, seed, str(PartialState().device))
    examine = None
    if held_out is not None:
        examine = make_examination(learner, learner.batches(held_out, seed), config.held_out_examples)
    return Recipe(
        with_teacher(learner, config.distillation),
        learner.batches(seed=seed, weights=config.weights),
        config.loop,
        plain(dataclasses.asdict(config)),
        summarise(_heading(learner), learned, held_out),
        examine,
        kind="openvla",
        rate_hz=round(1.0 / examples.contract.action.period_s, 3),
        can_export=False,
    )


def make_examination(learner: OpenVLALearner, unseen: OpenVLABatches, most: int) -> Callable[[], Examination]:
    """What lets the model answer held-out examples token by token, as the policy does.

    Args:
        learner: whose model is asked.
        unseen: the examples.
        most: examples to ask about, spread evenly over all.
    """
    examples = unseen.examples
    count = min(most, len(examples))
    numbers = np.unique(np.linspace(0, len(examples) - 1, count).round().astype(np.int64)).tolist()
    done = examples.actions[examples.rows[numbers]].astype(np.float64)

    def examine() -> Examination:
        answers = answer_examples(learner, unseen, numbers)
        return compare_chunks(answers[:, None], done, np.ones(done.shape[:2], dtype=bool), examples.contract.action)

    return examine


def answer_examples(learner: OpenVLALearner, batches: OpenVLABatches, numbers: Sequence[int]) -> FloatArray:
    """(n, d) what the model says to some examples, in the contract's units; NaN where it says what is no action.

    Args:
        learner: whose model is asked.
        batches: of the examples.
        numbers: of the examples among them.
    """
    width = batches.examples.actions.shape[2]
    answers = np.full((len(numbers), width), np.nan)
    lengths = {place: len(batches.prompt_at(number)) for place, number in enumerate(numbers)}
    for _, alike in groupby(sorted(lengths, key=lengths.__getitem__), lengths.__getitem__):
        places = list(alike)
        for first in range(0, len(places), _ASKED_AT_ONCE):
            some = places[first : first + _ASKED_AT_ONCE]
            asked = [numbers[place] for place in some]
            prompts = torch.tensor([batches.prompt_at(number) for number in asked])
            pixels = batches.actions_at(asked).pixel_values
            device = learner.model.device
            said = learner.model.generate(pixels.to(device), prompts.to(device), width).cpu().numpy()
            for place, tokens in zip(some, said, strict=True):
                try:
                    answers[place] = learner.normaliser.unnormalise(learner.bins.decode(tokens))
                except ChunkError:
                    continue
    return answers


def _heading(learner: OpenVLALearner) -> str:
    about = learner.describe()
    quantised = "" if about["quantisation"] == "none" else f", the base in {about['quantisation']}"
    layers = f"{about['trained_parameters'] / 1e6:.2f} million weights in {about['layers']} layers"
    return f"openvla: adapter {about['adapter']} of rank {about['rank']}, {layers}{quantised}"
