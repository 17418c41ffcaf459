"""The next batches are made while the network learns from this one."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from vla_ros.training.learner import Batches


class Loader:
    """Gives one process its batches step by step, and makes the next ones in a thread meanwhile.

    Args:
        batches: the examples.
        size: of a batch.
        first_step: that will be asked for.
        process: which of the processes this is; they take turns in the order of the examples.
        processes: how many there are.
        ahead: batches that are made beforehand.
    """

    def __init__(
        self, batches: Batches, size: int, first_step: int = 0, process: int = 0, processes: int = 1, ahead: int = 2
    ) -> None:
        self._batches, self._size = batches, size
        self._next, self._process, self._processes = first_step, process, processes
        # One core for the batches: more would fight with the network over the same ones.
        self._thread = ThreadPoolExecutor(1, "batches", torch.set_num_threads, (1,))
        self._coming: deque[Future[Any]] = deque()
        self._ahead = ahead

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_arguments: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def __next__(self) -> Any:
        """The batch of the next step; what went wrong when it was made is raised here."""
        while len(self._coming) <= self._ahead:
            self._coming.append(self._thread.submit(self._make, self._next))
            self._next += 1
        return self._coming.popleft().result()

    def _make(self, step: int) -> Any:
        return self._batches.batch(step * self._processes + self._process, self._size)
