"""The benchmark of a remote policy's round trip: it measures what it says, whatever the machine is at."""

from __future__ import annotations

import pytest

pytest.importorskip("msgpack")
pytest.importorskip("websockets")

from vla_ros.benchmarks.options import Options
from vla_ros.benchmarks.policies import remote


def test_round_trips_of_everything_are_timed_over_the_same_bytes() -> None:
    result = remote.run(Options(ticks=10))
    assert set(result.figures) == {"remote_over_echo"}
    # Two images of 224 x 224 x 3 bytes, and little else.
    assert 0 < result.details["request_bytes"] - 2 * 224 * 224 * 3 < 2000
    # 50 steps of 7 numbers of 8 bytes.
    assert 0 < result.details["reply_bytes"] - 50 * 7 * 8 < 300
    times_ms = result.series["times_ms"]
    assert {name: len(values) for name, values in times_ms.items()} == dict.fromkeys(
        ("remote", "echo", "echo_again", "same_reply"), 10
    )
    assert all((values > 0.0).all() for values in times_ms.values())
    assert result.details["faults"] == {}
    # Void where the machine was uneven, which with ten trips it may be.
    assert (result.figures["remote_over_echo"] is None) == bool(result.problems)
