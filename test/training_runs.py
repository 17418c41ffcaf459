"""Something tiny that learns from made-up numbers, for the tests of the training loop, also in other processes."""

from __future__ import annotations

import csv
import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla_ros.contract import (
    ActionSpec,
    Contract,
    ImageSpec,
    Normalisation,
    NormalisationSpec,
    ObservationSpec,
    StateItem,
)
from vla_ros.policies.architectures.base import Batch, Inputs, architecture_class
from vla_ros.policies.architectures.spec import ModelSpec
from vla_ros.policies.normalisation import Statistics
from vla_ros.policies.statistics_file import CheckpointStatistics
from vla_ros.training.architecture_learner import ArchitectureLearner
from vla_ros.training.config import LoopConfig
from vla_ros.training.trainer import Trainer

SPEC = ModelSpec(("base",), (8, 8), 8, 7, 4, ("pick", "red"), 2)
CONTRACT = Contract(
    "tiny",
    ObservationSpec({"base": ImageSpec("base", 8, 8)}, (StateItem("tcp_pose"), StateItem("gripper")), "base"),
    ActionSpec("tool", "observation", 0.1, rotation="rotvec"),
    Normalisation(NormalisationSpec("mean_std"), NormalisationSpec("mean_std")),
)
TINY: dict[str, dict[str, Any]] = {
    "bc": {"width": 16, "heads": 2, "layers": 1, "keypoints": 2, "channels": (8,)},
    "act": {"width": 16, "heads": 2, "mlp_width": 32, "posterior_layers": 1, "encoder_layers": 1, "decoder_layers": 1,
            "latent_width": 4, "dropout": 0.2, "channels": (8,)},
}  # fmt: skip
LOOP = LoopConfig(
    steps=12, batch_size=4, warm_up_steps=2, checkpoint_every=4, ema_decay=0.9, precision="fp32", learning_rate=3e-3
)


class DrawnBatches:
    """Examples by their place in an endless order: what is to be done follows from what is seen."""

    def __init__(self, bad_step: int | None = None) -> None:
        self.bad_step = bad_step

    def __len__(self) -> int:
        return 1000

    def batch(self, step: int, size: int) -> Batch:
        examples = [self._example(place) for place in range(step * size, (step + 1) * size)]
        images, state, actions = (torch.stack(parts) for parts in zip(*examples, strict=True))
        if step == self.bad_step:
            actions = actions * float("nan")
        words = torch.ones((size, SPEC.max_words), dtype=torch.int64)
        return Batch(Inputs(images, state, words), actions, torch.ones((size, SPEC.horizon), dtype=torch.bool))

    def _example(self, place: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(place)
        state = torch.randn(SPEC.state_width, generator=generator)
        return torch.rand((1, 3, 8, 8), generator=generator), state, state[:7].expand(SPEC.horizon, 7).tanh()


def make_learner(name: str = "bc") -> ArchitectureLearner:
    """A tiny network, always with the same weights."""
    kind = architecture_class(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = kind(SPEC, kind.config_class(**TINY[name]))
    rng = np.random.default_rng(0)
    state, action = (Statistics.from_samples(rng.standard_normal((50, width))) for width in (8, 7))
    return ArchitectureLearner(network, CONTRACT, CheckpointStatistics(state, action, "drawn", CONTRACT.interface_hash))


def run(out: Path, loop: LoopConfig = LOOP, name: str = "bc", is_resumed: bool = False) -> None:
    """A whole training."""
    torch.set_num_threads(1)
    Trainer(make_learner(name), DrawnBatches(), loop, out, is_resumed=is_resumed).run()


def run_beside_another(rank: int, port: int, out: Path) -> None:
    """One of two processes, told so as `accelerate launch` tells those of several GPUs; on CPUs it wants MPI."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"})
    run(out, dataclasses.replace(LOOP, batch_size=2, steps=6))
    torch.distributed.destroy_process_group()


def read_log(out: Path) -> list[dict[str, float]]:
    """What a run found at every step, without what depends on the clock."""
    with (out / "log.csv").open(newline="") as stream:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
    return [{name: row[name] for name in row if name not in ("seconds", "samples_per_s")} for row in rows]
