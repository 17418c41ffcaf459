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

    `hurry` has the next tick called at once, still named by its nominal time, which lies up to a period ahead then.
    The tick after it keeps its place on the grid. No tick is called before the one before it was due, so that however
    often `hurry` is called, motion is never more than a period ahead of time.

    Args:
        rate_hz: ticks per second.
        step: called with the tick's nominal ROS time in ns, and whether it is the newest tick that is due.
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
        # Free while the next tick is in a hurry: of all that a wait with a time-out can be ended by, the least late.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._thread = threading.Thread(target=self._run, name="tick_loop", daemon=True)
        self.failure: BaseException | None = None
        """What ended the thread, if not `stop`."""

        self.ticks = 0
        self.missed = 0
        self._started_ns = 0

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
        self._started_ns = time.monotonic_ns()
        self._thread.start()

    def hurry(self) -> None:
        """Has the next tick called at once, for what it has to act upon. Any thread."""
        with contextlib.suppress(RuntimeError):
            self._bell.release()

    def stop(self) -> None:
        """Ends the thread after the tick in progress."""
        self._is_over.set()
        self.hurry()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=1.0)
        gc.unfreeze()

    def _run(self) -> None:
        try:
            offset_ns = self._ros_now_ns() - time.monotonic_ns()
            due_ns = time.monotonic_ns()
            drifted = 0
            while not self._is_over.is_set():
                self._wait(due_ns)
                if self._is_over.is_set():
                    return
                now_ns = time.monotonic_ns()
                late = max(0, (now_ns - due_ns) // self.period_ns)
                due_ns += late * self.period_ns
                drift_ns = self._ros_now_ns() - now_ns - offset_ns
                # Stamps keep an exact grid, and a pause between the two readings is no jump: a drift has to last.
                drifted = drifted + 1 if abs(drift_ns) > _CLOCK_JUMP_NS else 0
                if drifted == 3:
                    offset_ns += drift_ns
                    self._on_clock_jump(drift_ns)
                if late > LONGEST_CATCH_UP:
                    self._on_stall(late * self.period_ns * 1e-9)
                for back in range(late, max(0, late - TICKS_TO_REST), -1):
                    self._step(due_ns - back * self.period_ns + offset_ns, False)
                self._step(due_ns + offset_ns, True)
                self.ticks += 1
                self.missed += late
                self.lateness_s.add(max(0, now_ns - due_ns) * 1e-9)
                self.busy_s.add((time.monotonic_ns() - now_ns) * 1e-9)
                due_ns += self.period_ns
        except BaseException as error:
            self.failure = error

    def _wait(self, due_ns: int) -> None:
        """Until a tick is due, or in a hurry and the one before it was due."""
        before_ns = due_ns - self.period_ns - time.monotonic_ns()
        if before_ns > 0:
            time.sleep(before_ns * 1e-9)
        wait_ns = due_ns - time.monotonic_ns()
        if wait_ns > 0:
            self._bell.acquire(timeout=wait_ns * 1e-9)
        else:
            # What was to be hurried for is acted upon in this tick.
            self._bell.acquire(blocking=False)
