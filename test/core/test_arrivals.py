"""The rate of what arrives, against times that are written down."""

from __future__ import annotations

import pytest

from vla_ros.observation.arrivals import WINDOW_S, Arrivals


def arrivals(times_s: list[float], rate_hz: float = 20.0) -> Arrivals:
    found = Arrivals(rate_hz)
    for time_s in times_s:
        found.note(time_s)
    return found


@pytest.mark.parametrize("rate_hz", [1.0, 14.5, 30.0, 500.0])
def test_rate_is_that_of_the_arrivals(rate_hz):
    times_s = [100.0 + i / rate_hz for i in range(int(4.0 * rate_hz))]
    assert arrivals(times_s).rate_hz(times_s[-1]) == pytest.approx(rate_hz, rel=1e-6)


def test_a_rate_is_forgotten_after_the_window():
    found = arrivals([0.0, 0.1, 0.2])
    assert found.rate_hz(0.2) == pytest.approx(10.0)
    assert not found.is_silent(WINDOW_S + 0.19)
    assert found.is_silent(WINDOW_S + 0.2)
    assert found.rate_hz(WINDOW_S + 0.2) == 0.0


@pytest.mark.parametrize("times_s", [[], [1.0], [1.0, 1.0]])
def test_one_arrival_is_no_rate(times_s):
    found = arrivals(times_s)
    assert found.rate_hz(1.0) == 0.0
    assert found.problem(1.0) == "at 0.0 Hz, the rig says 20 Hz"


@pytest.mark.parametrize(("rate_hz", "is_good"), [(13.9, False), (14.1, True), (60.0, True)])
def test_seven_tenths_of_what_is_promised_are_enough(rate_hz, is_good):
    times_s = [i / rate_hz for i in range(100)]
    problem = arrivals(times_s).problem(times_s[-1])
    assert (problem == "") == is_good
    assert is_good or problem == "at 13.9 Hz, the rig says 20 Hz"
