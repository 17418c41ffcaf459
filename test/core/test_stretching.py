"""Chunks at a part of their speed, as an arm whose speed is scaled carries them out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vla_ros.actions.path import OffsetLimits
from vla_ros.actions.stretching import StretchedClock, StretchedTimeline
from vla_ros.actions.timeline import ChunkTimeline
from vla_ros.geometry import se3
from vla_ros.types import ToolChunk

NS = 1_000_000_000
START_NS = 1_700_000_000 * NS
TICK_NS = 4_000_000
SPEED_M_S = 0.1
ANCHOR = se3.make_pose(np.array([0.4, 0.0, 0.3]), np.eye(3))
LIMITS = OffsetLimits(np.full(6, 0.5), np.full(6, 2.0), np.full(6, 150.0))


def line(stamp_ns: int, x_m: float, count: int = 20) -> tuple[ToolChunk, np.ndarray]:
    """A chunk along x at 0.1 m/s, and its anchor."""
    times_s = 0.1 * np.arange(1, count + 1)
    steps = np.zeros((count, 3))
    steps[:, 0] = SPEED_M_S * times_s
    anchor = ANCHOR.copy()
    anchor[0, 3] = x_m
    return ToolChunk(stamp_ns, "base", se3.make_pose(steps), None, times_s, "policy"), anchor


def run(timeline, until_s, scale_at=(), offers=()):
    """Steps ticks; returns times (s) and x (m) of what was due."""
    times, xs = [], []
    scale_at, offers = dict(scale_at), dict(offers)
    for tick in range(round(until_s / 0.004)):
        now_ns = START_NS + tick * TICK_NS
        if tick in scale_at:
            timeline.scale(scale_at[tick])
        if tick in offers:
            current = timeline.sample(now_ns) if timeline.stamp_ns is not None else None
            x_m = xs[-1] if xs else 0.4
            chunk, anchor = line(now_ns, x_m)
            timeline.offer(chunk, now_ns, anchor, current, LIMITS)
        sample = timeline.sample(now_ns)
        if sample is not None:
            times.append(tick * 0.004)
            xs.append(float(sample.T_base_tcp[0, 3]))
    return np.array(times), np.array(xs)


def test_at_full_speed_it_is_the_timeline_itself_to_the_bit():
    plain, stretched = ChunkTimeline(1.0), StretchedTimeline(ChunkTimeline(1.0))
    chunk, anchor = line(START_NS, 0.4)
    for timeline in (plain, stretched):
        timeline.offer(chunk, START_NS, anchor, None)
    for tick in range(400):
        now_ns = START_NS + tick * TICK_NS
        ours, theirs = stretched.sample(now_ns), plain.sample(now_ns)
        assert ours.T_base_tcp.tobytes() == theirs.T_base_tcp.tobytes()
        assert ours.velocity.tobytes() == theirs.velocity.tobytes()
        assert ours.stamp_ns == theirs.stamp_ns == now_ns


@pytest.mark.parametrize("scaling", [0.25, 0.5, 0.8])
def test_scaled_motion_has_that_part_of_the_speed_on_the_same_path(scaling):
    timeline = StretchedTimeline(ChunkTimeline(1.0))
    times, xs = run(timeline, 1.6, {0: scaling}, {0: True})
    late = times > 0.9
    slope = np.polyfit(times[late], xs[late], 1)[0]
    # What is left of leading over from rest after 0.9 s is less than this.
    assert slope == pytest.approx(scaling * SPEED_M_S, rel=1e-4)
    now_ns = START_NS + round(1.6 * NS)
    sample = timeline.sample(now_ns)
    assert sample.velocity[0] == pytest.approx(scaling * SPEED_M_S, rel=1e-4)


def test_velocity_told_is_the_derivative_of_the_pose_told_while_the_speed_changes():
    timeline = StretchedTimeline(ChunkTimeline(1.0))
    chunk, anchor = line(START_NS, 0.4)
    timeline.offer(chunk, START_NS, anchor, None)
    samples = []
    for tick in range(400):
        now_ns = START_NS + tick * TICK_NS
        if tick == 50:
            timeline.scale(0.3)
        samples.append(timeline.sample(now_ns))
    for before, after in pairwise(samples[2:]):
        step = (after.T_base_tcp[0, 3] - before.T_base_tcp[0, 3]) / 0.004
        # The speed falls by 2/s x 0.1 m/s: 0.0008 m/s a tick.
        assert min(before.velocity[0], after.velocity[0]) - 0.0009 < step
        assert step < max(before.velocity[0], after.velocity[0]) + 0.0009


def test_stopped_arm_is_led_nowhere_and_goes_on_from_there():
    timeline = StretchedTimeline(ChunkTimeline(1.0))
    times, xs = run(timeline, 3.0, {100: 0.0, 500: 1.0}, {0: True})
    standing = xs[(times > 1.0) & (times < 2.0)]
    assert np.ptp(standing) == 0.0
    # Nothing leaps on the way: at most the full speed in every tick.
    # (The path's spline is faster than its points by 0.014 % near its end.)
    assert np.abs(np.diff(xs)).max() <= SPEED_M_S * 0.004 * 1.001
    assert xs[-1] > standing[0] + 0.05


def test_chunk_that_comes_while_slow_begins_where_its_observation_saw_the_arm():
    timeline = StretchedTimeline(ChunkTimeline(1.0))
    # An arm that follows exactly: each chunk's anchor is where the last sample was.
    times, xs = run(timeline, 4.0, {0: 0.5}, dict.fromkeys(range(0, 1000, 125), True))
    late = times > 1.0
    slope = np.polyfit(times[late], xs[late], 1)[0]
    assert slope == pytest.approx(0.5 * SPEED_M_S, rel=0.01)
    assert np.abs(np.diff(xs)).max() < 1.05 * SPEED_M_S * 0.004


def test_newer_chunk_counts_while_time_stands_still():
    timeline = StretchedTimeline(ChunkTimeline(1.0))
    run(timeline, 2.0, {0: 0.0}, {0: True, 200: True, 400: True})
    assert timeline.stamp_ns == START_NS + 400 * TICK_NS


def test_clock_leads_stamps_of_the_past_back_to_what_it_was_then():
    clock = StretchedClock()
    told = {}
    for tick in range(600):
        now_ns = START_NS + tick * TICK_NS
        if tick == 100:
            clock.ask(0.4)
        if tick == 300:
            clock.ask(1.0)
        clock.advance(now_ns)
        told[now_ns] = clock.at(now_ns)
    stamps = sorted(told)
    assert all(told[b] > told[a] for a, b in pairwise(stamps))
    for stamp_ns in stamps[::7]:
        assert abs(clock.at(stamp_ns) - told[stamp_ns]) <= 1
    between_ns = stamps[200] + TICK_NS // 2
    assert abs(clock.at(between_ns) - (told[stamps[200]] + told[stamps[201]]) // 2) <= 2
    # Before anything was lost, it is the real time.
    assert clock.at(stamps[50]) == stamps[50]
