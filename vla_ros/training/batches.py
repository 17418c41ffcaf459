"""Batches of examples for a network of our own, in an order that is settled beforehand.

Numbers are made by what the policy itself uses when it works: the same `Normaliser`, the same words, images by 255.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_ros.errors import ContractError, DatasetError, InstructionError
from vla_ros.policies.architectures.base import Batch, Inputs
from vla_ros.policies.architectures.spec import ModelSpec
from vla_ros.policies.statistics_file import CheckpointStatistics
from vla_ros.training.augmentation import NO_AUGMENTATION, Augmentation, augment
from vla_ros.training.examples import ExampleSet
from vla_ros.training.image_cache import Rows
from vla_ros.training.order import ExampleOrder
from vla_ros.training.selection import RowArray


class ExampleBatches:
    """See the module. A `vla_ros.training.learner.Batches`.

    Args:
        examples: to learn from.
        spec: of the network.
        statistics: to normalise with: the examples' own, or those that a checkpoint was trained with.
        seed: settles the order, and what augmentation draws.
        augmentation: of the images; None leaves them as the policy sees them.
        weights: how often each dataset is drawn from, relative to the others; None for evenly over all examples.

    Raises:
        ContractError: if the network's sizes aren't the examples'.
        DatasetError: if an instruction has words that the network doesn't know.
    """

    def __init__(
        self,
        examples: ExampleSet,
        spec: ModelSpec,
        statistics: CheckpointStatistics,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        _check_fit(examples, spec)
        self.examples, self.spec, self.statistics = examples, spec, statistics
        self._state = statistics.state_normaliser(examples.contract)
        self._action = statistics.action_normaliser(examples.contract)
        self._words = _word_table(examples, spec)
        self._augmentation, self._seed = augmentation, seed
        self._images = [[Rows(part.images[name]) for name in spec.images] for part in examples.parts]
        self._cameras = [list(examples.contract.observation.images).index(name) for name in spec.images]
        self._firsts = np.array([part.first for part in examples.parts], dtype=np.int64)
        self._order = ExampleOrder(examples.part_of[examples.rows], seed, weights)

    def __len__(self) -> int:
        return len(self.examples)

    def order(self, epoch: int) -> RowArray:
        """(n,) numbers of examples, as one epoch goes through them."""
        return self._order.epoch(epoch)

    def batch(self, step: int, size: int) -> Batch:
        """The examples at the places `step * size` up to `(step + 1) * size` of the order; the same at every call."""
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence([self._seed, step, size]).generate_state(1, np.uint64)[0] >> 1)
        )
        return self.examples_at(self._order.places(step * size, size), generator)

    def examples_at(self, numbers: RowArray | Sequence[int], generator: torch.Generator | None = None) -> Batch:
        """A batch of some examples.

        Args:
            numbers: of them, in [0, len).
            generator: for the augmentation; without one images are as the policy sees them.
        """
        rows = self.examples.rows[np.asarray(numbers, dtype=np.int64)]
        images, shift = self._gather(rows, generator)
        normalised = self._action.normalise(self.examples.actions[rows].astype(np.float64))
        is_valid = torch.from_numpy(self.examples.is_valid[rows])
        inputs = Inputs(images, torch.from_numpy(self._states(rows)), self._words[self.examples.task_of[rows]])
        actions = torch.from_numpy(np.asarray(normalised, dtype=np.float32))
        truth = self.examples.truth
        if truth is None:
            return Batch(inputs, actions, is_valid, index=torch.from_numpy(rows))
        xy = torch.from_numpy(truth.xy[rows][:, self._cameras].astype(np.float32)) + shift[:, :, None]
        is_visible = torch.from_numpy(truth.is_visible[rows][:, self._cameras])
        is_visible &= ((xy >= 0.0) & (xy <= 1.0)).all(dim=-1)
        pose, is_known = (torch.from_numpy(each[rows]) for each in (truth.pose, truth.is_known))
        return Batch(inputs, actions, is_valid, xy, is_visible, pose.float(), is_known, index=torch.from_numpy(rows))

    def _states(self, rows: RowArray) -> NDArray[np.float32]:
        if not self.examples.contract.observation.state:
            return np.zeros((len(rows), self.spec.state_width), dtype=np.float32)
        return np.asarray(self._state.normalise(self.examples.states[rows]), dtype=np.float32)

    def _gather(self, rows: RowArray, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """(B, cameras, 3, h, w) in [0, 1] and (B, cameras, 2) by how much each was shifted."""
        shape = (len(rows), len(self.spec.images), 3, *self.spec.image_size)
        gathered = np.empty(shape, dtype=np.uint8)
        parts = np.searchsorted(self._firsts, rows, side="right") - 1
        places = list(zip(parts.tolist(), (rows - self._firsts[parts]).tolist(), strict=True))
        for part, row in places:
            for images in self._images[part]:
                images.bring(row)
        for place, (part, row) in enumerate(places):
            for camera, images in enumerate(self._images[part]):
                gathered[place, camera] = images[row]
        how = self._augmentation or NO_AUGMENTATION
        flat = torch.from_numpy(gathered).flatten(0, 1)
        if generator is None:
            how, generator = NO_AUGMENTATION, torch.Generator()
        values, shift = augment(flat, how, generator)
        return values.reshape(shape), shift.reshape(*shape[:2], 2)


def _check_fit(examples: ExampleSet, spec: ModelSpec) -> None:
    own = examples.model_spec(spec.vocabulary, spec.max_words)
    wrong = []
    if set(own.images) != set(spec.images):
        wrong.append(f"images are {sorted(own.images)}, the network takes {sorted(spec.images)}")
    for name in ("image_size", "state_width", "action_width", "horizon"):
        found, wanted = getattr(own, name), getattr(spec, name)
        if found != wanted:
            wrong.append(f"{name} is {found}, the network's {wanted}")
    if wrong:
        raise ContractError(f"examples of contract {examples.contract.name} don't fit the network: {'; '.join(wrong)}")


def _word_table(examples: ExampleSet, spec: ModelSpec) -> Tensor:
    """(tasks, max_words) int64; zeros for a task that no example has."""
    table = torch.zeros(len(examples.tasks), spec.max_words, dtype=torch.int64)
    for task in np.unique(examples.task_of[examples.rows]).tolist():
        try:
            table[task] = torch.tensor(spec.word_ids(examples.tasks[task]), dtype=torch.int64)
        except InstructionError as error:
            raise DatasetError(f"{examples.find_task(task)}: {error}") from error
    return table
