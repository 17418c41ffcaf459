"""A policy's thread: quick answers come in the loop itself, slow ones don't hold it up, and no two at once."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

pytest.importorskip("msgpack")
pytest.importorskip("websockets")

from vla_ros.policies.remote.worker import Worker


@pytest.fixture
def worker():
    worker = Worker("test")
    yield worker
    worker.close()


def ask(worker: Worker, times: int, call) -> list[int]:
    """The thread of each call."""

    async def go() -> list[int]:
        return [await worker.submit(call) for _ in range(times)]

    return asyncio.run(go())


def test_quick_answers_come_in_the_loop_after_a_while_and_slow_ones_never(worker) -> None:
    here = threading.get_ident()
    quick = ask(worker, 60, threading.get_ident)
    assert quick[0] != here
    assert quick[-1] == here

    def slow() -> int:
        time.sleep(0.005)
        return threading.get_ident()

    assert ask(worker, 40, slow)[-1] != here
    assert ask(worker, 60, threading.get_ident)[-1] == here


def test_what_is_raised_comes_from_either_thread(worker) -> None:
    def fail() -> None:
        raise ValueError("oops")

    for _ in range(20):
        with pytest.raises(ValueError, match="oops"):
            ask(worker, 1, fail)


def test_no_two_answers_are_given_at_once_and_the_order_is_kept(worker) -> None:
    inside, most, order = [0], [0], []

    def call(number: int) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        order.append(number)
        time.sleep(0.002 if number % 7 == 0 else 0.0)
        inside[0] -= 1

    async def go() -> None:
        for _ in range(12):
            await worker.submit(lambda: None)
        await asyncio.gather(*(worker.submit(call, number) for number in range(50)))

    asyncio.run(go())
    assert most[0] == 1
    assert order == list(range(50))


def test_quick_policy_that_takes_long_holds_the_loop_up_once_and_is_then_asked_in_its_thread(worker) -> None:
    here = threading.get_ident()
    assert ask(worker, 60, threading.get_ident)[-1] == here

    def slow() -> int:
        time.sleep(0.01)
        return threading.get_ident()

    assert [thread == here for thread in ask(worker, 4, slow)] == [True, False, False, False]
