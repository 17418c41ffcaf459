"""The tick loop: an exact grid of stamps, whatever is late, stalls, jumps or fails."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy")

from vla_ros.nodes.loop import LONGEST_CATCH_UP, TICKS_TO_REST, TickLoop

pytestmark = pytest.mark.ros

RATE_HZ, PERIOD_NS = 100.0, 10_000_000
PERIOD_S = PERIOD_NS * 1e-9
# What ROS time is ahead of the monotonic clock.
OFFSET_NS = 1_700_000_000_000_000_000


class Recorder:
    """A tick loop with all that it calls written down, on a ROS clock that a test sets."""

    def __init__(self, on_tick: Callable[[Recorder], None] = lambda recorder: None, rate_hz: float = RATE_HZ) -> None:
        self.ticks: list[tuple[int, bool]] = []
        self.called_ns: list[int] = []
        self.stalls_s: list[float] = []
        self.jumps_ns: list[int] = []
        self.read_errors_ns: list[int] = []
        self.offset_ns = OFFSET_NS
        self._on_tick = on_tick
        self.loop = TickLoop(rate_hz, self._step, self.ros_now_ns, self.jumps_ns.append, self.stalls_s.append)

    def ros_now_ns(self) -> int:
        error_ns = self.read_errors_ns.pop() if self.read_errors_ns else 0
        return time.monotonic_ns() + self.offset_ns + error_ns

    def _step(self, stamp_ns: int, is_newest: bool) -> None:
        self.called_ns.append(time.monotonic_ns() + OFFSET_NS)
        self.ticks.append((stamp_ns, is_newest))
        self._on_tick(self)

    @property
    def stamps_ns(self) -> np.ndarray:
        return np.array([stamp_ns for stamp_ns, _ in self.ticks])

    @property
    def ahead_ns(self) -> np.ndarray:
        """How long before its nominal time each tick was called."""
        return self.stamps_ns - np.array(self.called_ns[: len(self.ticks)])


@pytest.fixture
def run(patience: Callable[..., None]) -> Iterator[Callable[..., Recorder]]:
    """Runs a recorder until it has made so many ticks."""
    interval_s = sys.getswitchinterval()
    recorders: list[Recorder] = []

    def run(recorder: Recorder, ticks: int) -> Recorder:
        recorders.append(recorder)
        recorder.loop.start()
        patience(lambda: len(recorder.ticks) >= ticks, f"{ticks} ticks", timeout_s=20.0)
        recorder.loop.stop()
        return recorder

    yield run
    for recorder in recorders:
        recorder.loop.stop()
    sys.setswitchinterval(interval_s)


def sleep_in_tick(number: int, duration_s: float) -> Callable[[Recorder], None]:
    def on_tick(recorder: Recorder) -> None:
        if len(recorder.ticks) == number:
            time.sleep(duration_s)

    return on_tick


def test_stamps_lie_on_an_exact_grid_at_the_rate_asked_for(run) -> None:
    begin_ns = time.monotonic_ns() + OFFSET_NS
    recorder = run(Recorder(), 50)
    end_ns = time.monotonic_ns() + OFFSET_NS
    assert recorder.loop.period_ns == PERIOD_NS
    # Only a stall of the machine leaves ticks out, and those are whole periods, too.
    steps_ns = np.diff(recorder.stamps_ns)
    np.testing.assert_array_equal(steps_ns % PERIOD_NS, 0)
    assert np.count_nonzero(steps_ns != PERIOD_NS) <= len(recorder.stalls_s)
    assert begin_ns <= recorder.stamps_ns[0]
    assert recorder.stamps_ns[-1] <= end_ns
    assert 0.0 < recorder.loop.achieved_hz <= 1.05 * RATE_HZ


def test_stamp_is_the_nominal_time_and_not_later_than_the_present(run) -> None:
    ahead_ns: list[int] = []
    run(Recorder(lambda recorder: ahead_ns.append(recorder.ticks[-1][0] - recorder.ros_now_ns())), 30)
    assert max(ahead_ns) <= 0


def test_missed_ticks_are_called_in_order_and_only_the_last_is_the_newest(run) -> None:
    recorder = run(Recorder(sleep_in_tick(10, 5.5 * PERIOD_S)), 30)
    assert recorder.stalls_s == []
    np.testing.assert_array_equal(np.diff(recorder.stamps_ns), PERIOD_NS)
    # While the tenth tick slept at least five were due: all but the last are late ones in a row.
    is_newest = [flag for _, flag in recorder.ticks]
    assert max(len(late) for late in "".join(".T"[flag] for flag in is_newest).split("T")) >= 4
    assert recorder.loop.missed == is_newest.count(False)
    assert recorder.loop.ticks == is_newest.count(True)


def test_stall_is_told_once_before_the_ticks_of_coming_to_rest(run) -> None:
    told_at: list[int] = []
    stall_s = (LONGEST_CATCH_UP + 10.5) * PERIOD_S
    recorder = Recorder(sleep_in_tick(10, stall_s))
    recorder.loop._on_stall = lambda stalled_s: (
        told_at.append(len(recorder.ticks)),
        recorder.stalls_s.append(stalled_s),
    )
    run(recorder, 60)
    assert told_at == [10]
    assert stall_s - 1.5 * PERIOD_S <= recorder.stalls_s[0] < stall_s + 1.0
    np.testing.assert_array_equal(np.diff(recorder.stamps_ns), PERIOD_NS)
    assert not recorder.ticks[10][1]


def test_stall_leaves_out_what_is_missing_past_the_ticks_to_rest(run) -> None:
    recorder = run(Recorder(sleep_in_tick(10, (TICKS_TO_REST + 40.5) * PERIOD_S)), TICKS_TO_REST + 20)
    assert len(recorder.stalls_s) == 1
    steps = np.diff(recorder.stamps_ns) // PERIOD_NS
    np.testing.assert_array_equal(steps[9 : 9 + TICKS_TO_REST], 1)
    assert steps[9 + TICKS_TO_REST] == round(recorder.stalls_s[0] / PERIOD_S) - TICKS_TO_REST + 1
    assert recorder.ticks[10 + TICKS_TO_REST][1]


def test_clock_jump_is_told_once_and_stamps_go_on_from_it(run) -> None:
    jump_ns = 3_600_000_000_000

    def set_clock(recorder: Recorder) -> None:
        if len(recorder.ticks) == 10:
            recorder.offset_ns += jump_ns
        if len(recorder.ticks) == 30:
            recorder.offset_ns -= jump_ns

    recorder = run(Recorder(set_clock), 50)
    assert recorder.jumps_ns == pytest.approx([jump_ns, -jump_ns], abs=20_000_000)
    steps_ns = np.diff(recorder.stamps_ns)
    jumps = np.abs(steps_ns) > 1_000_000_000
    assert np.count_nonzero(jumps) == 2
    np.testing.assert_array_equal(steps_ns[~jumps] % PERIOD_NS, 0)
    assert abs(recorder.stamps_ns[-1] - recorder.ros_now_ns()) < 1_000_000_000


def test_a_clock_that_is_read_late_once_is_no_jump(run) -> None:
    def disturb(recorder: Recorder) -> None:
        if len(recorder.ticks) in (10, 20):
            recorder.read_errors_ns += [500_000_000]

    recorder = run(Recorder(disturb), 40)
    assert recorder.jumps_ns == []


def test_failure_of_a_tick_ends_the_loop_and_is_kept(run, patience) -> None:
    error = ValueError("tick 5")

    def fail(recorder: Recorder) -> None:
        if len(recorder.ticks) == 5:
            raise error

    recorder = run(Recorder(fail), 5)
    patience(lambda: recorder.loop.failure, "the failure")
    assert recorder.loop.failure is error
    assert len(recorder.ticks) == 5
    assert not any(thread.name == "tick_loop" for thread in threading.enumerate())


def test_stop_waits_for_the_tick_in_progress_and_thaws_garbage() -> None:
    is_inside = threading.Event()

    def linger(recorder: Recorder) -> None:
        if len(recorder.ticks) > 1:
            return
        is_inside.set()
        time.sleep(0.2)
        is_inside.clear()

    interval_s = sys.getswitchinterval()
    recorder = Recorder(linger)
    recorder.loop.start()
    sys.setswitchinterval(interval_s)
    assert gc.get_freeze_count() > 0
    assert is_inside.wait(10.0)
    recorder.loop.stop()
    assert recorder.loop.is_over
    assert not is_inside.is_set()
    assert gc.get_freeze_count() == 0
    assert not any(thread.name == "tick_loop" for thread in threading.enumerate())


def hurry_at(*numbers: int) -> Callable[[Recorder], None]:
    """In the tick of each number: from there, only the thread of the loop can call the next one."""

    def on_tick(recorder: Recorder) -> None:
        if len(recorder.ticks) in numbers:
            recorder.loop.hurry()

    return on_tick


def assert_grid(recorder: Recorder) -> None:
    """Nothing lost, nothing doubled, nothing more than a period ahead."""
    steps_ns = np.diff(recorder.stamps_ns)
    np.testing.assert_array_equal(steps_ns % recorder.loop.period_ns, 0)
    assert steps_ns.min() > 0
    assert np.count_nonzero(steps_ns != recorder.loop.period_ns) <= len(recorder.stalls_s)
    assert recorder.ahead_ns.max() <= recorder.loop.period_ns


def test_tick_in_a_hurry_comes_early_under_its_own_stamp_and_the_next_keeps_its_place(run) -> None:
    recorder = run(Recorder(hurry_at(10, 20, 30)), 40)
    assert_grid(recorder)
    early = np.flatnonzero(recorder.ahead_ns > 0)
    assert set(early) <= {10, 20, 30}
    # A machine under load may let one of them come late.
    assert len(early) >= 2
    assert recorder.ahead_ns[early].max() > 0.5 * PERIOD_NS


def test_hurry_calls_the_tick_in_its_own_thread_much_sooner_than_the_grid_would(patience) -> None:
    rng = np.random.default_rng(0)
    waits_s: dict[bool, list[float]] = {False: [], True: []}
    threads: list[int] = []
    interval_s = sys.getswitchinterval()
    recorder = Recorder(lambda recorder: threads.append(threading.get_ident()))
    recorder.loop.start()
    try:
        for trial in range(60):
            begin = len(recorder.ticks)
            patience(lambda begin=begin: len(recorder.ticks) >= begin + 2, "two ticks")
            time.sleep(float(rng.uniform(0.0, PERIOD_S)))
            before, is_hurried = len(recorder.ticks), trial % 2 == 0
            begin_s = time.monotonic()
            if is_hurried:
                recorder.loop.hurry()
            while len(recorder.ticks) == before:
                time.sleep(1e-4)
            waits_s[is_hurried].append(time.monotonic() - begin_s)
    finally:
        recorder.loop.stop()
        sys.setswitchinterval(interval_s)
    assert_grid(recorder)
    assert np.median(waits_s[True]) < 0.3 * np.median(waits_s[False])
    assert threads.count(threading.get_ident()) >= 20
    # None of them brings the tick after it forward as well.
    assert np.count_nonzero(recorder.ahead_ns > 0) <= len(waits_s[True])


def test_second_hurry_in_a_period_waits_until_the_early_tick_was_due(run) -> None:
    # The tick that came early is in a hurry itself.
    recorder = run(Recorder(hurry_at(10, 11)), 30)
    assert_grid(recorder)
    assert recorder.called_ns[11] >= recorder.stamps_ns[10]
    assert set(np.flatnonzero(recorder.ahead_ns > 0)) <= {10, 11}
    assert recorder.ahead_ns[11] > 0


def test_a_flood_of_hurry_from_many_threads_makes_no_more_ticks_and_never_two_at_a_time(run) -> None:
    is_inside = threading.Lock()
    overlaps: list[int] = []
    is_over = threading.Event()

    def on_tick(recorder: Recorder) -> None:
        if not is_inside.acquire(blocking=False):
            overlaps.append(len(recorder.ticks))
            return
        time.sleep(5e-4)
        is_inside.release()

    recorder = Recorder(on_tick)

    def flood() -> None:
        while not is_over.wait(2e-4):
            recorder.loop.hurry()

    threads = [threading.Thread(target=flood) for _ in range(3)]
    for thread in threads:
        thread.start()
    run(recorder, 100)
    is_over.set()
    for thread in threads:
        thread.join()
    assert overlaps == []
    assert_grid(recorder)
    assert np.count_nonzero(recorder.ahead_ns > 0) > 50


def test_hurry_after_ticks_were_missed_leaves_the_catching_up_as_it_is(run) -> None:
    def on_tick(recorder: Recorder) -> None:
        sleep_in_tick(10, 5.5 * PERIOD_S)(recorder)
        hurry_at(10, 12)(recorder)

    recorder = run(Recorder(on_tick), 40)
    assert recorder.stalls_s == []
    assert_grid(recorder)
    is_newest = [flag for _, flag in recorder.ticks]
    late = is_newest[10:].index(True)
    assert late >= 4
    assert not any(is_newest[10 : 10 + late])
    # At most the one that follows the catching up.
    assert set(np.flatnonzero(recorder.ahead_ns > 0)) <= {10 + late + 1}


def test_hurry_in_a_stall_is_told_as_one_and_comes_to_rest_on_the_grid(run) -> None:
    stall_s = (LONGEST_CATCH_UP + 10.5) * PERIOD_S

    def on_tick(recorder: Recorder) -> None:
        sleep_in_tick(10, stall_s)(recorder)
        hurry_at(10, 11, 12)(recorder)

    recorder = run(Recorder(on_tick), 60)
    assert len(recorder.stalls_s) == 1
    assert_grid(recorder)


def test_hurry_before_the_start_and_after_the_end_calls_nothing(run) -> None:
    recorder = Recorder()
    recorder.loop.hurry()
    assert recorder.ticks == []
    run(recorder, 5)
    ticks = len(recorder.ticks)
    recorder.loop.hurry()
    assert len(recorder.ticks) == ticks
    assert_grid(recorder)


def test_failure_of_a_tick_in_a_hurry_ends_the_loop_and_is_kept(patience) -> None:
    error = ValueError("in a hurry")
    me = threading.get_ident()

    def fail(recorder: Recorder) -> None:
        if threading.get_ident() == me:
            raise error

    interval_s = sys.getswitchinterval()
    recorder = Recorder(fail)
    recorder.loop.start()
    patience(lambda: (recorder.ticks and recorder.loop.hurry()) or recorder.loop.failure, "the failure")
    sys.setswitchinterval(interval_s)
    assert recorder.loop.failure is error
    patience(lambda: not any(thread.name == "tick_loop" for thread in threading.enumerate()), "the loop's end")
    ticks = len(recorder.ticks)
    recorder.loop.hurry()
    assert len(recorder.ticks) == ticks
    recorder.loop.stop()


def test_stop_does_not_wait_for_the_next_tick(patience) -> None:
    interval_s = sys.getswitchinterval()
    recorder = Recorder(rate_hz=0.2)
    recorder.loop.start()
    sys.setswitchinterval(interval_s)
    patience(lambda: recorder.loop.ticks, "the first tick")
    recorder.loop.stop()
    assert not any(thread.name == "tick_loop" for thread in threading.enumerate())
    assert len(recorder.ticks) == 1
