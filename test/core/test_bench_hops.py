"""The hops of `vla-ros bench motion` on the real thing: `motion` and the relay as processes, over DDS."""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("rclpy")

from vla_ros.nodes import bench_hops

pytestmark = [pytest.mark.ros, pytest.mark.slow]


def test_chunks_and_pings_are_answered_and_the_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    before = dict(os.environ)
    trials: list[int] = []
    times = bench_hops.measure(4, 0, trials.append)
    assert trials == [0, 1, 2, 3]
    assert dict(os.environ) == before
    # A machine under load loses a message now and then: half of them would be something else.
    assert np.isfinite(times.chunks).sum() >= 2
    assert np.isfinite(times.relay).sum() >= 10
    # Both took time, and a chunk waits for a tick at least as often as not.
    assert np.nanmin(times.relay) > 1e-5
    assert np.nanmedian(times.chunks) > np.nanmin(times.relay)
