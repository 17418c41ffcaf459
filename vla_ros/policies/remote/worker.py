"""A thread that answers an event loop's questions, one at a time.

An executor does the same with twice the locks, and a policy that answers in a millisecond would wait as long for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any

_Question = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Worker:
    """One thread and its queue.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._last: Callable[[], None] | None = None
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Queues a call, from a running loop; cancelling the future takes it out of the queue again."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
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
            result, error = None, None
            try:
                result = call(*args)
            except Exception as raised:
                error = raised
            # Of BaseException, say a policy that calls sys.exit, which isn't to end this thread.
            except BaseException as raised:
                error = RuntimeError(f"{type(raised).__name__}: {raised}")
            with contextlib.suppress(RuntimeError):  # The loop may be over by now.
                loop.call_soon_threadsafe(_settle, future, result, error)
            del question, future, result, error, args
        if self._last is not None:
            self._last()


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
