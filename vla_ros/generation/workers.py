"""One call after the other in processes of their own; one that dies costs its call, which is made again.

joblib's pool of processes under another loop than joblib's own, which gives everything up when a process dies, and lets
a single worker's calls run in the process that asks for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, TypeVar

from vla_ros.errors import DatasetError

T = TypeVar("T")
# A process for each core: libraries mustn't start threads for all of them in each.
_ENVIRONMENT = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
_IDLE_S = 60


class Workers(Generic[T]):
    """Processes that carry out a call for many numbers.

    Args:
        call: number -> result; goes to other processes, as its results do.
        name: number -> what the call makes, for errors.
        count: of processes.

    Attributes:
        deaths: how often processes have died.
    """

    def __init__(self, call: Callable[[int], T], name: Callable[[int], str], count: int) -> None:
        # Whoever installs no more than inference hasn't joblib.
        from joblib.externals.loky import get_reusable_executor
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        self._call, self._name, self._count = call, name, count
        self._pool: Callable[..., Any] = get_reusable_executor
        self._death: type[Exception] = TerminatedWorkerError
        self.deaths = 0

    def results(self, numbers: Iterable[int]) -> Generator[T, None, None]:
        """The call's results in the numbers' order; close it to end the processes early.

        Raises:
            DatasetError: if processes that do nothing else die of the same number twice.
        """
        underway: deque[tuple[int, Future[T]]] = deque()
        is_done = False
        try:
            for number in numbers:
                underway.append((number, self._submit(number)))
                if len(underway) > 2 * self._count:
                    yield self._first(underway)
            while underway:
                yield self._first(underway)
            is_done = True
        finally:
            self._executor().shutdown(kill_workers=not is_done)

    def _executor(self) -> Any:
        """A new one if the last is broken."""
        return self._pool(max_workers=self._count, timeout=_IDLE_S, env=_ENVIRONMENT)

    def _submit(self, number: int) -> Future[T]:
        try:
            submitted: Future[T] = self._executor().submit(self._call, number)
        except BrokenProcessPool as error:  # Since a moment ago.
            submitted = Future()
            submitted.set_exception(error)
        return submitted

    def _first(self, underway: deque[tuple[int, Future[T]]]) -> T:
        if self._has_died(underway[0][1]):
            self._mend(underway)
        return underway.popleft()[1].result()

    def _mend(self, underway: deque[tuple[int, Future[T]]]) -> None:
        """All numbers go down with a process, whosever fault it was; then each goes alone."""
        self.deaths += 1
        wait([future for _, future in underway])
        for place, (number, future) in enumerate(underway):
            if self._has_died(future):
                underway[place] = number, self._alone(number)

    def _alone(self, number: int) -> Future[T]:
        for _ in range(2):
            future = self._submit(number)
            if not self._has_died(future):
                return future
            self.deaths += 1
        raise DatasetError(
            f"two processes died making {self._name(number)} and nothing else; if not for want of memory, run it with "
            f"PYTHONFAULTHANDLER=1 to see where ({future.exception()})"
        )

    def _has_died(self, future: Future[T]) -> bool:
        """Waits for it."""
        return isinstance(future.exception(), self._death)
