"""Work that isn't timed, on two cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

Given = TypeVar("Given")
Found = TypeVar("Found")


class Pool:
    """Processes that are started when there is something to do, and end with the block.

    Args:
        workers: how many; 0 to do everything in this process.
    """

    def __init__(self, workers: int = 2) -> None:
        self._workers = workers
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_arguments: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def submit(self, work: Callable[..., Found], *given: Any) -> Future[Found]:
        """Begins `work`, a function of a module, of what is given; that and what it finds are pickled."""
        if self._workers == 0:
            future: Future[Found] = Future()
            future.set_result(work(*given))
            return future
        if self._executor is None:
            # Not forked from here: this process may have threads and a half-open ROS.
            context = multiprocessing.get_context("forkserver")
            self._executor = ProcessPoolExecutor(self._workers, mp_context=context)
        return self._executor.submit(work, *given)

    def spread(
        self, work: Callable[[Given], Found], given: Sequence[Given], on_done: Callable[[float], None]
    ) -> list[Found]:
        """`work` of each item, in the order of the items.

        Args:
            work: a function of a module.
            given: the items.
            on_done: called with the part that is done, 0 to 1.
        """
        futures = [self.submit(work, item) for item in given]
        for number, _ in enumerate(as_completed(futures), start=1):
            on_done(number / len(futures))
        return [future.result() for future in futures]
