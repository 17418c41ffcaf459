"""The training loop: batches in, a folder of checkpoints out, whatever it is that learns.

`accelerate` is underneath: one process trains alone, and under `accelerate launch` every process takes its share of the
batches and only the first one writes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from safetensors import SafetensorError

from vla_ros.contract import canonical_hash
from vla_ros.errors import ConfigError
from vla_ros.training.average import WeightAverage
from vla_ros.training.config import LoopConfig
from vla_ros.training.learner import Batches, Learner
from vla_ros.training.loader import Loader
from vla_ros.training.machinery import LearnerLosses, make_accelerator, make_optimiser
from vla_ros.training.memory import recall, remember, trained_weights
from vla_ros.training.outcome import Examination, TrainingReport, Watch
from vla_ros.training.run_folder import EVENTS, LOG, OPEN_LOOP, RunFolder
from vla_ros.training.run_log import Events, Table
from vla_ros.training.schedule import learning_rate_share
from vla_ros.training.step import step_generator, train_step

_WINDOW = 20
_EVENTS_EVERY = 10


class Trainer:
    """See the module. A trainer runs once.

    Args:
        learner: what learns; its module goes to the device that `accelerate` chooses.
        batches: what from.
        config: how.
        out: folder of the run.
        settings: all settings in force, for `config.yaml`.
        examine: looks at the module, which is in evaluation mode and has the averaged weights then.
        watch: who looks on.
        is_resumed: whether to go on from the newest whole state in the folder, or from the beginning if there is none.

    Raises:
        ConfigError: if there is nothing to learn from, or nothing that learns.
    """

    def __init__(
        self,
        learner: Learner,
        batches: Batches,
        config: LoopConfig,
        out: Path,
        *,
        settings: Mapping[str, Any] | None = None,
        examine: Callable[[], Examination] | None = None,
        watch: Watch | None = None,
        is_resumed: bool = False,
    ) -> None:
        if not len(batches):
            raise ConfigError("training", "there are no examples to learn from", "give a dataset with episodes")
        weights = trained_weights(learner.module)
        if not weights:
            raise ConfigError("training", "no weight of the network is to be trained", "freeze less")
        if config.threads:
            torch.set_num_threads(config.threads)
        self._learner, self._batches, self._config = learner, batches, config
        self._folder, self._settings, self._examine = RunFolder(out), dict(settings or {}), examine
        self._watch, self._is_resumed = watch or Watch(), is_resumed
        self._accelerator = make_accelerator(config)
        self._is_main: bool = self._accelerator.is_main_process
        optimiser = make_optimiser(weights, config)
        self._losses, self._optimiser = self._accelerator.prepare(LearnerLosses(learner), optimiser)
        self._average = WeightAverage(trained_weights(learner.module), config.ema_decay)
        self._step, self._seconds = 0, 0.0
        self._best: dict[str, Any] = {}
        self._figures: dict[str, float] = {}
        self._open_loop: dict[str, float] = {}
        self._recent: deque[float] = deque(maxlen=_WINDOW)

    def run(self) -> TrainingReport:
        """Trains to the end, or until somebody says stop.

        Raises:
            TrainingError: for a loss or a gradient that isn't finite; the checkpoints before it stay.
            ConfigError: if the folder can't be used, or holds a run that this isn't the continuation of.
        """
        with self._folder.held() if self._is_main else nullcontext():
            self._accelerator.wait_for_everyone()
            self._begin()
            if self._step >= self._config.steps:
                return self._report(is_complete=True)
            table = Table(self._folder.path / LOG, self._step) if self._is_main else None
            examined = Table(self._folder.path / OPEN_LOOP, self._step) if self._is_main else None
            events = Events(self._folder.path / EVENTS, self._step) if self._is_main else None
            try:
                return self._loop(table, examined, events)
            finally:
                if events is not None:
                    events.close()

    def _begin(self) -> None:
        """Takes up where an earlier run left off, if that is wanted."""
        state = self._folder.read_state() if self._is_resumed else None
        if state is None and not self._is_resumed and self._is_main and self._folder.has_run:
            raise ConfigError(
                str(self._folder.path), "holds a training already", "go on with --resume, or choose another --out"
            )
        if state is not None:
            tensors, facts = state
            for name, value in self._identity().items():
                if facts.get(name) != value:
                    problem = f"has been trained with another {name}: {facts.get(name)!r}, not {value!r}"
                    raise ConfigError(str(self._folder.path), problem, "go on with what it began with")
            recall(tensors, self._learner.module, self._average, self._optimiser)
            self._step, self._seconds, self._best = facts["step"], facts["seconds"], facts["best"]
            self._open_loop = facts["open_loop"]
            if self._is_main:
                self._point()
        if self._is_main:
            self._folder.write_config(self._settings)
        steps = self._accelerator.gather(torch.tensor([self._step], device=self._accelerator.device)).tolist()
        if len(set(steps)) > 1:
            problem = f"the processes go on at steps {steps}, so that not all of them see it"
            raise ConfigError(str(self._folder.path), problem, "choose an --out that all machines share")

    def _identity(self) -> dict[str, Any]:
        """What has to be the same for going on to mean anything."""
        config = self._config
        return {
            "learner": canonical_hash(self._learner.describe()),
            "examples": len(self._batches),
            "batch_size": config.batch_size * self._accelerator.num_processes,
            "seed": config.seed,
        }

    def _loop(self, table: Table | None, examined: Table | None, events: Events | None) -> TrainingReport:
        config, processes = self._config, self._accelerator.num_processes
        clock, begun_s = self._watch.clock, self._watch.clock() - self._seconds
        self._learner.module.train()
        loader = Loader(self._batches, config.batch_size, self._step, self._accelerator.process_index, processes)
        done, is_last = self._agree(self._share_done(), False)
        with loader:
            while not is_last:
                step_began_s = clock()
                learning_rate = config.learning_rate * learning_rate_share(
                    self._step, done, config.warm_up_steps, config.floor
                )
                self._take_step(next(loader), learning_rate)
                self._seconds = clock() - begun_s
                self._recent.append(clock() - step_began_s)
                done, is_stopped = self._agree(self._share_done(), self._watch.should_stop())
                is_last = done >= 1.0 or is_stopped
                with self._writing():
                    if table is not None and events is not None:
                        self._log(table, events, learning_rate)
                    if is_last or self._step % config.checkpoint_every == 0:
                        self._keep(examined, events, is_last=done >= 1.0)
                    self._seconds = clock() - begun_s
                note = f"step {self._step}, loss {self._figures['total']:.4g}, {self._samples_per_s:.0f} samples/s"
                self._watch.progress("training", done, note)
        return self._report(is_complete=done >= 1.0)

    def _take_step(self, batch: Any, learning_rate: float) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        where = f"at step {self._step} (learning rate {learning_rate:.3g})"
        if self._best or self._step >= self._config.checkpoint_every:
            where += f"; the checkpoints in {self._folder.path / 'checkpoints'} stay as they are"
        moved = batch.to(self._accelerator.device) if hasattr(batch, "to") else batch
        self._figures = train_step(
            self._losses,
            moved,
            self._optimiser,
            step_generator(self._config.seed, self._step, self._accelerator.process_index),
            max_gradient_norm=self._config.gradient_norm,
            accelerator=self._accelerator,
            where=where,
        )
        self._average.update(self._step)
        self._step += 1

    def _share_done(self) -> float:
        """By steps or by the clock, whichever is further."""
        by_clock = 0.0 if self._config.minutes is None else self._seconds / (60.0 * self._config.minutes)
        return max(self._step / self._config.steps, by_clock)

    def _agree(self, done: float, is_stopped: bool) -> tuple[float, bool]:
        """What the first process finds, in all of them: clocks and signals differ."""
        if self._accelerator.num_processes == 1:
            return done, is_stopped
        said = torch.tensor([done, float(is_stopped)], dtype=torch.float64, device=self._accelerator.device)
        done, stopped = broadcast(said).tolist()
        return done, bool(stopped)

    @property
    def _samples_per_s(self) -> float:
        samples = len(self._recent) * self._config.batch_size * self._accelerator.num_processes
        return samples / max(sum(self._recent), 1e-9)

    def _log(self, table: Table, events: Events, learning_rate: float) -> None:
        samples = self._step * self._config.batch_size * self._accelerator.num_processes
        speed = round(self._samples_per_s, 2)
        row = {"step": self._step, "seconds": round(self._seconds, 3), "samples": samples}
        table.add({**row, "learning_rate": learning_rate, **self._figures, "samples_per_s": speed})
        if self._step % _EVENTS_EVERY == 0:
            events.add(
                self._step, "training", {**self._figures, "learning_rate": learning_rate, "samples_per_s": speed}
            )

    def _keep(self, examined: Table | None, events: Events | None, is_last: bool) -> None:
        """Examines, if it is time for that, and writes a checkpoint of the averaged weights and what going on needs."""
        if self._is_main and examined is not None and events is not None:
            with self._average.applied():
                found = self._look(is_last)
                self._learner.save(self._folder.checkpoint(self._step))
            self._folder.write_config(self._settings, self._step)
            if found is not None:
                self._open_loop = dict(found.figures)
                examined.add({"step": self._step, "seconds": round(self._seconds, 3), **found.figures})
                events.add(self._step, "open_loop", found.figures)
                if not self._best or found.score <= self._best["score"]:
                    self._best = {"step": self._step, "score": found.score, "open_loop": self._open_loop}
            facts = {"seconds": self._seconds, "best": self._best, "open_loop": self._open_loop, **self._identity()}
            self._folder.write_state(self._step, remember(self._learner.module, self._average, self._optimiser), facts)
            self._point()
            self._folder.forget_checkpoints(self._config.keep, self._best.get("step"))
            events.flush()
        self._accelerator.wait_for_everyone()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            problem = f"what belongs to step {self._step} can't be written ({error})"
            raise ConfigError(str(self._folder.path), problem, "make room there, and go on with --resume") from error

    def _point(self) -> None:
        """Says which checkpoints are the last and the best; only of steps that training goes on from, since a step that
        is taken again replaces its checkpoint."""
        self._folder.write_pointer("last", self._step)
        if self._best:
            self._folder.write_pointer("best", **self._best)

    def _look(self, is_last: bool) -> Examination | None:
        every = self._config.open_loop_every
        is_due = every is None or (every > 0 and self._step % every == 0) or is_last
        if self._examine is None or not is_due:
            return None
        self._learner.module.eval()
        try:
            with torch.no_grad():
                return self._examine()
        finally:
            self._learner.module.train()

    def _report(self, *, is_complete: bool) -> TrainingReport:
        last = self._folder.checkpoint(self._step)
        best = self._folder.checkpoint(self._best["step"]) if self._best else last
        return TrainingReport(
            self._folder.path,
            self._step,
            self._seconds,
            is_complete,
            last,
            best,
            self._figures,
            self._open_loop,
            self._samples_per_s,
        )
