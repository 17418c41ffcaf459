"""Loading a policy may take minutes: what is loaded, for how long, and how much memory that took, told meanwhile."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vla_ros.contract import Rig
from vla_ros.errors import VlaRosError
from vla_ros.nodes.resident_policy import LoadedPolicy, PolicyLoadError

_REPORT_S = 2.0
_STATUS = Path("/proc/self/status")


@contextmanager
def progress(name: str, tell: Callable[[str], None]) -> Iterator[None]:
    """While its block runs, tells every two seconds how far the loading of a policy is.

    Args:
        name: of the policy.
        tell: called with a sentence, in a thread of its own.
    """
    begin_s, begin_mb = time.monotonic(), _memory_mb()
    is_done = threading.Event()

    def report() -> None:
        while not is_done.wait(_REPORT_S):
            tell(f"loading {name}: {time.monotonic() - begin_s:.0f} s, {max(0, _memory_mb() - begin_mb)} MB so far")

    thread = threading.Thread(target=report, name="loading", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()


class Loader:
    """Loads policies one after the other in a thread of its own. Its methods are one thread's.

    Args:
        rig: the cell.
        tell: called with how it goes, in any thread.
    """

    def __init__(self, rig: Rig, tell: Callable[[str], None]) -> None:
        self._rig, self._tell = rig, tell
        self._wanted: queue.Queue[str] = queue.Queue()
        self._done: queue.Queue[tuple[str, LoadedPolicy | VlaRosError]] = queue.Queue()
        self._pending: set[str] = set()
        threading.Thread(target=self._run, name="loader", daemon=True).start()

    def load(self, name: str) -> None:
        """Asks for one, which `take` will give; asking again meanwhile changes nothing."""
        if name not in self._pending:
            self._pending.add(name)
            self._wanted.put(name)

    def take(self) -> tuple[str, LoadedPolicy | VlaRosError] | None:
        """The next that is done, None if none is: its name as it was asked for, and the policy or why there is none."""
        try:
            name, loaded = self._done.get_nowait()
        except queue.Empty:
            return None
        self._pending.discard(name)
        return name, loaded

    def close(self) -> None:
        """Lets go of what was loaded and not taken."""
        while (taken := self.take()) is not None:
            if isinstance(taken[1], LoadedPolicy):
                taken[1].close()

    def _run(self) -> None:
        while True:
            name = self._wanted.get()
            try:
                with progress(name, self._tell):
                    loaded = LoadedPolicy.load(name, self._rig, "")
            except VlaRosError as error:
                self._done.put((name, error))
            # Whatever it is, the next one is loaded none the less.
            except BaseException as error:
                self._done.put((name, PolicyLoadError(name, error)))
            else:
                self._done.put((name, loaded))


def _memory_mb() -> int:
    """Resident memory of this process, 0 where the system doesn't say."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS:")), 0)
