"""In which order examples come: shuffled anew each epoch, each dataset as often as its weight says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vla_ros.errors import DatasetError

Numbers = NDArray[np.int64]


class ExampleOrder:
    """An endless order, a function of the seed alone: any place of it can be asked for at once.

    An epoch has as many places as there are examples. With weights, each dataset takes its share of every epoch's
    places and goes through its own examples, all of them before any comes again.

    Args:
        part_of: (n,) the dataset of each example, 0 .. parts - 1.
        seed: settles it.
        weights: of the datasets; None for every example once an epoch.

    Raises:
        DatasetError: if weights are missing, negative or all 0, or a dataset with a weight has no example.
    """

    def __init__(self, part_of: Numbers, seed: int, weights: Sequence[float] | None = None) -> None:
        self._seed, self._count = seed, len(part_of)
        if weights is None:
            self._pools, self._shares = [np.arange(self._count)], [self._count]
        else:
            self._pools = [np.flatnonzero(part_of == part) for part in range(len(weights))]
            self._shares = _shares(weights, [len(pool) for pool in self._pools], int(part_of.max()) + 1, self._count)
        self._kept: tuple[int, Numbers] = (-1, np.zeros(0, dtype=np.int64))

    def epoch(self, epoch: int) -> Numbers:
        """(n,) numbers of examples at the places of an epoch."""
        number, kept = self._kept
        if number == epoch:
            return kept
        drawn = [self._stretch(part, epoch * share, share) for part, share in enumerate(self._shares) if share > 0]
        mixed = np.concatenate(drawn)
        if len(drawn) > 1:
            mixed = np.random.default_rng([self._seed, 1, epoch]).permutation(mixed)
        self._kept = (epoch, mixed)
        return mixed

    def places(self, first: int, count: int) -> Numbers:
        """(count,) numbers of the examples at some places, over the ends of epochs."""
        found = []
        while count > 0:
            epoch, begin = divmod(first, self._count)
            taken = self.epoch(epoch)[begin : begin + count]
            found.append(taken)
            first, count = first + len(taken), count - len(taken)
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def _stretch(self, part: int, first: int, count: int) -> Numbers:
        """Of a dataset's own endless order: one shuffle of its examples after the other."""
        pool, found = self._pools[part], []
        while count > 0:
            turn, begin = divmod(first, len(pool))
            shuffled = np.random.default_rng([self._seed, 0, part, turn]).permutation(pool)
            found.append(shuffled[begin : begin + count])
            first, count = first + len(found[-1]), count - len(found[-1])
        return np.concatenate(found)


def _shares(weights: Sequence[float], sizes: Sequence[int], parts: int, places: int) -> list[int]:
    """Places of an epoch for each dataset: by its weight, the largest remainders rounded up."""
    if len(weights) < parts or not all(math.isfinite(weight) and weight >= 0.0 for weight in weights):
        raise DatasetError(f"weights {list(weights)}: one for each of the {parts} datasets, none below 0")
    if sum(weights) <= 0.0:
        raise DatasetError(f"weights {list(weights)} are all 0; one has to be above")
    for part, (weight, size) in enumerate(zip(weights, sizes, strict=True)):
        if weight > 0.0 and size == 0:
            raise DatasetError(f"dataset {part} has the weight {weight:g} and no example")
    exact = [places * weight / sum(weights) for weight in weights]
    shares = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda part: shares[part] - exact[part])
    for part in by_remainder[: places - sum(shares)]:
        shares[part] += 1
    return shares
