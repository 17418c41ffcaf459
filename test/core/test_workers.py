"""Processes that die at their work."""

from __future__ import annotations

import functools
import os
import signal

import pytest

pytest.importorskip("joblib")

from vla_ros.errors import DatasetError
from vla_ros.generation.workers import Workers


def work(folder, deadly, count):
    """Workers whose processes are killed at some numbers, as often as said; the others tell who they are."""

    def call(number):
        deaths = folder / str(number)
        before = len(deaths.read_text()) if deaths.exists() else 0
        if before < deadly.get(number, 0):
            deaths.write_text("x" * (before + 1))
            os.kill(os.getpid(), signal.SIGKILL)
        return number, os.getpid()

    return Workers(call, "episode {}".format, count)


@pytest.mark.parametrize("count", [1, 2])
def test_call_whose_process_died_is_made_again(tmp_path, count):
    workers = work(tmp_path, {0: 1, 8: 2}, count)
    found = list(workers.results(range(9)))
    assert [number for number, _ in found] == list(range(9))
    assert os.getpid() not in {pid for _, pid in found}
    assert workers.deaths == 3


def test_what_kills_every_process_is_named_and_what_went_before_is_there(tmp_path):
    results, found = work(tmp_path, {3: 9}, 2).results(range(6)), []
    with pytest.raises(DatasetError, match="episode 3 and nothing else"):
        found.extend(number for number, _ in results)
    assert found == [0, 1, 2]


def test_error_of_a_call_ends_the_work():
    with pytest.raises(ZeroDivisionError):
        list(Workers(functools.partial(divmod, 1), str, 1).results([1, 0, 2]))
