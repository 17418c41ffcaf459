"""A thread that answers an event loop's questions, one at a time.

An executor does the same with twice the locks, and a policy that answers in a millisecond would wait as long for them.
Who has answered within that for a while is asked in the loop itself. Once that takes long, the thread is asked again:
one slow answer is the most that others on the loop ever wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

_Question = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


# Quick is whose last few answers mostly took less; and one past the other limit ends it.
_QUICK_S, _QUICK_TIMES, _SLOW_S = 1e-3, 8, 5e-3


class Worker:
    """One thread and its queue.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._last: Callable[[], None] | None = None
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        # Held by whoever is answering.
        self._turn = threading.Lock()
        self._waiting = 0
        """Questions that the thread hasn't settled; the loop's own."""

        self._took_s: deque[float] = deque(maxlen=_QUICK_TIMES)
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Queues a call, from a running loop; cancelling the future takes it out of the queue again."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._is_quick() and self._waiting == 0 and self._turn.acquire(blocking=False):
            try:
                _settle(future, *self._answer(call, args))
            finally:
                self._turn.release()
        else:
            self._waiting += 1
            future.add_done_callback(self._forget)
            self._questions.put((loop, future, call, args))
        return future

    def run(self, call: Callable[[], Any]) -> Any:
        """Its result, or what it raises; from where no loop runs."""

        async def wait() -> Any:
            return await self.submit(call)

        return asyncio.run(wait())

    def close(self, last: Callable[[], None] | None = None) -> None:
        """Ends the thread after what is queued, and after a last call, if there is one."""
        self._last = last
        self._questions.put(None)

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            loop, future, call, args = question
            if future.cancelled():
                continue
            with self._turn:
                result, error = self._answer(call, args)
            with contextlib.suppress(RuntimeError):  # The loop may be over by now.
                loop.call_soon_threadsafe(_settle, future, result, error)
            del question, future, result, error, args
        if self._last is not None:
            self._last()

    def _forget(self, _future: object) -> None:
        self._waiting -= 1

    def _is_quick(self) -> bool:
        return len(self._took_s) == _QUICK_TIMES and statistics.median(self._took_s) < _QUICK_S

    def _answer(self, call: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Exception | None]:
        """Its result, or what it raised. Who holds the turn calls it."""
        begin_s = time.perf_counter()
        try:
            return call(*args), None
        except Exception as raised:
            return None, raised
        # Of BaseException, say a policy that calls sys.exit, which isn't to end this thread.
        except BaseException as raised:
            return None, RuntimeError(f"{type(raised).__name__}: {raised}")
        finally:
            took_s = time.perf_counter() - begin_s
            if took_s > _SLOW_S:
                self._took_s.clear()
            self._took_s.append(took_s)


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
