"""Runs one command and outlives it just long enough to leave nothing behind. A script of its own, started once a node:

    python -I -S guard.py SIGTERM_AFTER_S SIGKILL_AFTER_S COMMAND...

The guard's standard input is its lifeline: a byte, or the end of file that the kernel sends when the supervisor dies in
whatever way, makes it stop the command with SIGINT, then SIGTERM, then SIGKILL. So an ordered stop and a killed
supervisor take the same road. As a subreaper (Linux) it adopts the command's orphans, in other sessions too, and ends
them when the command has ended. If the guard itself is killed, the kernel kills the command (PR_SET_PDEATHSIG; safe
here, since that signal follows the parent's thread and this process has only one). It ends as the command did: with its
exit code or by its signal.

Only the standard library and no import of vla_ros: it has to start fast and stay small.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LEFTOVER_GRACE_S = 1.0


def main(words: list[str]) -> None:
    """Runs, waits, cleans up and ends as the command did. Never returns."""
    sigterm_after_s, sigkill_after_s, command = float(words[0]), float(words[1]), words[2:]
    prctl = getattr(ctypes.CDLL(None), "prctl", lambda *_: 0)
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake = _signals_as_bytes()
    child = _start(command, prctl)
    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
    pauses_s = [sigterm_after_s, sigkill_after_s, float("inf")]
    deadline: float | None = None
    status = _reap(child)
    while status is None:
        if deadline is not None and time.monotonic() >= deadline:
            number = signals.pop(0)
            if number != signal.SIGINT:
                _say(f"still running, sending {number.name}")
            _signal_group(child, number)
            deadline = time.monotonic() + pauses_s.pop(0)
        if _is_stop_requested(wake, deadline) and deadline is None:
            deadline = time.monotonic()
        status = _reap(child)
    _end_leftovers()
    _end_like(status)


def _signals_as_bytes() -> int:
    """A descriptor on which every signal that concerns us arrives as a byte, its number."""
    wake, write_end = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return wake


def _start(command: list[str], prctl: Callable[..., int]) -> int:
    guard = os.getpid()
    child = os.fork()
    if child:
        with contextlib.suppress(OSError):
            os.setpgid(child, child)
        return child
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == guard:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.execvp(command[0], command)
    except OSError as error:
        _say(f"can't start {command[0]}: {error.strerror}")
    os._exit(127)


def _say(text: str) -> None:
    # Nobody reads where the supervisor has died, and that must not end the guard.
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())


def _is_stop_requested(wake: int, deadline: float | None) -> bool:
    """Sleeps until something happens; whether it was a request to stop."""
    lifeline = [0] if deadline is None else []
    wait_s = None if deadline is None or deadline == float("inf") else max(0.0, deadline - time.monotonic())
    ready, _, _ = select.select([wake, *lifeline], [], [], wait_s)
    numbers = os.read(wake, 4096) if wake in ready else b""
    return 0 in ready or any(number != signal.SIGCHLD for number in numbers)


def _reap(child: int) -> int | None:
    """Collects everything that has ended; the wait status of the command if it was among it."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, found = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            status = found if pid == child else status
    return status


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _end_leftovers() -> None:
    """Ends what the command left behind: SIGTERM, a short grace, SIGKILL until nothing is left."""
    kill_at = time.monotonic() + _LEFTOVER_GRACE_S
    asked: set[int] = set()
    while left := _descendants():
        number = signal.SIGKILL if time.monotonic() >= kill_at else signal.SIGTERM
        for pid in left:
            if number == signal.SIGKILL or pid not in asked:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        asked |= left
        time.sleep(0.01)
        _reap(-1)


def _descendants() -> set[int]:
    """Every process below this one, by the parents that /proc tells."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else []):  # noqa: PTH208, PTH112
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(name))
    found: set[int] = set()
    todo = [os.getpid()]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += below
    return found


def _end_like(status: int) -> None:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
