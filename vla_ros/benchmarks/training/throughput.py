"""What the trainer costs over the bare step: its loader, augmentation, averaging, tables and `accelerate`.

Blocks of steps of both take turns in one process. A block of the trainer ends when its loader has made as many batches
as it used, so that nothing is made on the other's time.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.benchmarks.options import Options, Result
from vla_ros.benchmarks.timing import is_void, ratio_of_medians
from vla_ros.benchmarks.training.made_up import SETTINGS, make_examples, make_network
from vla_ros.config import build
from vla_ros.policies.packages import packages_for
from vla_ros.training.config import LoopConfig, read_settings

_AHEAD = 2
_WARM_UP_BLOCKS = 1


@dataclass
class Counted:
    """Batches that count how many were made."""

    batches: Any
    made: int = 0

    def __len__(self) -> int:
        return len(self.batches)

    def batch(self, step: int, size: int) -> Any:
        found = self.batches.batch(step, size)
        self.made += 1
        return found


@dataclass
class Turns:
    """Asked after each step of the trainer whether it should stop; in between it takes the other's turn.

    Attributes:
        bare: the other's step.
        batches: the trainer's.
        steps: of a block.
        blocks: of each.
        trainer_s: seconds a step, block by block.
        bare_s: likewise.
        halves_s: likewise, of the first and the second half of each of the other's blocks: the control.
    """

    bare: Any
    batches: Counted
    steps: int
    blocks: int
    progress: Any
    trainer_s: list[float] = field(default_factory=list)
    bare_s: list[float] = field(default_factory=list)
    halves_s: list[tuple[float, float]] = field(default_factory=list)
    taken: int = 0
    since_s: float = 0.0

    def should_stop(self) -> bool:
        self.taken += 1
        if self.taken % self.steps:
            return False
        while self.batches.made < self.taken + _AHEAD:
            time.sleep(0.0005)
        now_s = time.perf_counter()
        if self.since_s:
            self.trainer_s.append((now_s - self.since_s) / self.steps)
        half, ends_s = self.steps // 2, [now_s]
        for count in (half, self.steps - half):
            for _ in range(count):
                self.bare()
            ends_s.append(time.perf_counter())
        self.bare_s.append((ends_s[2] - ends_s[0]) / self.steps)
        self.halves_s.append(((ends_s[1] - ends_s[0]) / half, (ends_s[2] - ends_s[1]) / (self.steps - half)))
        self.progress("throughput", len(self.bare_s) / (self.blocks + _WARM_UP_BLOCKS))
        self.since_s = time.perf_counter()
        return len(self.trainer_s) >= self.blocks


def run(options: Options) -> Result:
    """Measures `samples_per_s_over_bare`: the trainer's samples a second over the bare step's."""
    with packages_for("the benchmark of training"):
        import torch

        from vla_ros.training.architecture_learner import ArchitectureLearner
        from vla_ros.training.augmentation import Augmentation
        from vla_ros.training.batches import ExampleBatches
        from vla_ros.training.outcome import Watch
        from vla_ros.training.trainer import Trainer
    settings, where = read_settings(SETTINGS, None, ())
    blocks = options.count(8, 40)
    loop = build(LoopConfig, settings["loop"], where)
    loop = replace(loop, steps=10**6, minutes=None, checkpoint_every=10**6, open_loop_every=0)
    steps = max(2, 256 // loop.batch_size)
    with tempfile.TemporaryDirectory(prefix="vla_ros_bench_") as name:
        examples = make_examples(Path(name) / "frames", frames=1000 if options.is_quick else 4000, seed=options.seed)
        statistics = examples.statistics()
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            networks = [make_network(examples) for _ in range(2)]
        batches = ExampleBatches(examples, networks[0].spec, statistics, options.seed, Augmentation())
        counted = Counted(batches)
        turns = Turns(_bare_step(networks[1], batches.batch(0, loop.batch_size), loop), counted, steps, blocks,
                       options.progress)  # fmt: skip
        learner = ArchitectureLearner(networks[0], examples.contract, statistics)
        Trainer(learner, counted, loop, Path(name) / "run", watch=Watch(should_stop=turns.should_stop)).run()
    trainer_s, bare_s = (np.array(values[_WARM_UP_BLOCKS:]) for values in (turns.trainer_s, turns.bare_s))
    count = min(len(trainer_s), len(bare_s))
    ratio = ratio_of_medians(bare_s[:count], trainer_s[:count], blocks=count)
    halves_s = np.array(turns.halves_s[_WARM_UP_BLOCKS:])
    control = ratio_of_medians(halves_s[:, 0], halves_s[:, 1], blocks=len(halves_s))
    figure: float | None = ratio.median
    problems = []
    if is_void(control.median):
        figure = None
        problems.append(f"the bare step over itself is {control.median:.2f}: the machine was too uneven, run it again")
    details = {
        "batch_size": loop.batch_size,
        "precision": loop.precision,
        "threads": torch.get_num_threads(),
        "steps": count * steps,
        "trainer_samples_per_s": loop.batch_size / float(np.median(trainer_s)),
        "bare_samples_per_s": loop.batch_size / float(np.median(bare_s)),
        "samples_per_s_over_bare": ratio.as_json(),
        "a_a": control.as_json(),
    }
    return Result({"samples_per_s_over_bare": figure}, details, problems=tuple(problems))


def _bare_step(network: Any, batch: Any, loop: LoopConfig) -> Any:
    """What anybody would write: forward, backward, clipping and AdamW, on a batch that is there."""
    import torch

    optimiser = torch.optim.AdamW(network.parameters(), lr=loop.learning_rate, betas=loop.betas)
    generator = torch.Generator().manual_seed(0)
    network.train()

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=loop.precision == "bf16"):
            losses = network.losses(batch, generator)
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), loop.gradient_norm)
        optimiser.step()

    return step
