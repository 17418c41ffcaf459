"""A control loop in a thread of its own on the monotonic clock, with ticks named in ROS time."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import time
from collections.abc import Callable

from vla_ros.nodes.runtime import Percentiles

LONGEST_CATCH_UP = 25
TICKS_TO_REST = 150
_CLOCK_JUMP_NS = 20_000_000


class TickLoop:
    """Calls a function at a fixed rate with the nominal time of the tick.

    A tick that comes late is still named by its nominal time, and ticks that were missed are called in a row, so that
    the motion stays on its time grid; only the newest of them is worth publishing. After a stall of more than
    `LONGEST_CATCH_UP` ticks `on_stall` is called first, for the motion to end; the ticks called after it are those of
    coming to rest, and what is missing past `TICKS_TO_REST` of them is left out.

    What can't wait for a tick calls `hurry`: the next tick then comes at once, under the nominal time that it would
    have had anyhow, which lies up to a period ahead. The tick after it keeps its place on the grid. None comes before
    the one before it was due, so that the motion is never more than a period ahead, however often one is in a hurry.

    Args:
        rate_hz: ticks per second.
        step: called with the tick's nominal ROS time in ns, and whether it is the newest tick that is due. Never
            called twice at a time; in the loop's thread or that of `hurry`.
        ros_now_ns: reads ROS time.
        on_clock_jump: called with the jump in ns when ROS time and the monotonic clock part.
        on_stall: called with the seconds for which the loop stood still.
    """

    def __init__(
        self,
        rate_hz: float,
        step: Callable[[int, bool], None],
        ros_now_ns: Callable[[], int],
        on_clock_jump: Callable[[int], None],
        on_stall: Callable[[float], None],
    ) -> None:
        self.period_ns = round(1e9 / rate_hz)
        self.lateness_s, self.busy_s = Percentiles(2048), Percentiles(2048)
        self._step, self._ros_now_ns = step, ros_now_ns
        self._on_clock_jump, self._on_stall = on_clock_jump, on_stall
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tick_loop", daemon=True)
        self.failure: BaseException | None = None
        """What ended the loop, if not `stop`."""

        self.ticks = 0
        self.missed = 0
        self._started_ns = self._due_ns = self._offset_ns = self._drifted = 0
        # Held by whose turn it is to call a tick; nobody's before the start.
        self._turn = threading.Lock()
        self._turn.acquire()
        # Free while a tick is in a hurry: of all waits with a time-out that somebody else can end the most punctual.
        self._bell = threading.Lock()
        self._bell.acquire()

    def check(self) -> None:
        """To be called now and then by who owns the loop.

        Raises:
            RuntimeError: if it has failed.
        """
        if self.failure is not None:
            raise RuntimeError("the loop failed") from self.failure

    @property
    def is_over(self) -> bool:
        """Whether `stop` was called."""
        return self._is_over.is_set()

    @property
    def achieved_hz(self) -> float:
        """Ticks per second since the start."""
        elapsed_s = (time.monotonic_ns() - self._started_ns) * 1e-9
        return self.ticks / elapsed_s if self._started_ns and elapsed_s > 0.0 else 0.0

    def start(self) -> None:
        """Starts the thread. Garbage is frozen and threads switch every 0.1 ms, so that no pause is long."""
        sys.setswitchinterval(1e-4)
        gc.collect()
        gc.freeze()
        # In this order a pause between the two readings leaves stamps behind the present, never ahead of it.
        self._offset_ns = self._ros_now_ns() - time.monotonic_ns()
        self._started_ns = self._due_ns = time.monotonic_ns()
        self._turn.release()
        self._thread.start()

    def hurry(self) -> None:
        """Calls the next tick at once, in this thread: waking another takes longer at the worst than all else.

        Where a tick is in progress, or has come early already, the thread of the loop calls it as soon as it may.
        """
        if self._turn.acquire(blocking=False):
            try:
                if self._may_tick():
                    self._tick()
                    return
            finally:
                self._turn.release()
        self._ring()

    def stop(self) -> None:
        """Ends the thread after the tick in progress."""
        self._is_over.set()
        self._ring()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=1.0)
            if self._turn.acquire(timeout=1.0):
                self._turn.release()
        gc.unfreeze()

    def _run(self) -> None:
        while not self._is_over.is_set() and self.failure is None:
            due_ns = self._due_ns
            is_hurried = self._wait(due_ns)
            with self._turn:
                if self._may_tick() and (is_hurried or due_ns == self._due_ns):
                    self._tick()
                elif is_hurried:
                    self._ring()

    def _wait(self, due_ns: int) -> bool:
        """Until a tick is due, or in a hurry and the one before it was due; whether it is in a hurry."""
        early_ns = due_ns - self.period_ns - time.monotonic_ns()
        if early_ns > 0:
            time.sleep(early_ns * 1e-9)
        wait_ns = due_ns - time.monotonic_ns()
        return wait_ns > 0 and self._bell.acquire(timeout=wait_ns * 1e-9)

    def _ring(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._bell.release()

    def _may_tick(self) -> bool:
        is_over = self._is_over.is_set() or self.failure is not None
        return not is_over and time.monotonic_ns() >= self._due_ns - self.period_ns

    def _tick(self) -> None:
        # What rang until here is acted upon in this tick.
        self._bell.acquire(blocking=False)
        try:
            now_ns = time.monotonic_ns()
            late = max(0, (now_ns - self._due_ns) // self.period_ns)
            due_ns = self._due_ns + late * self.period_ns
            drift_ns = self._ros_now_ns() - now_ns - self._offset_ns
            # Stamps keep an exact grid, and a pause between the two readings is no jump: a drift has to last.
            self._drifted = self._drifted + 1 if abs(drift_ns) > _CLOCK_JUMP_NS else 0
            if self._drifted == 3:
                self._offset_ns += drift_ns
                self._on_clock_jump(drift_ns)
            if late > LONGEST_CATCH_UP:
                self._on_stall(late * self.period_ns * 1e-9)
            for back in range(late, max(0, late - TICKS_TO_REST), -1):
                self._step(due_ns - back * self.period_ns + self._offset_ns, False)
            self._step(due_ns + self._offset_ns, True)
            self.ticks += 1
            self.missed += late
            self.lateness_s.add(max(0, now_ns - due_ns) * 1e-9)
            self.busy_s.add((time.monotonic_ns() - now_ns) * 1e-9)
            self._due_ns = due_ns + self.period_ns
        except BaseException as error:
            self.failure = error
