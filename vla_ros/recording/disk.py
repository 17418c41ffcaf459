"""When the disk will be full: said before it is."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

_WINDOW_S = 10.0


@dataclass(frozen=True)
class DiskLimits:
    """What must stay free.

    Attributes:
        reserve_bytes: an episode ends when so little is free: closing it, and the rest of the machine, need some.
        end_s: an episode ends when it could go on only so long.
        warn_s: it is announced when it could go on only so long.
    """

    reserve_bytes: int = 512 * 2**20
    end_s: float = 5.0
    warn_s: float = 300.0

    def __post_init__(self) -> None:
        if self.reserve_bytes < 0 or not 0.0 <= self.end_s <= self.warn_s:
            raise ValueError(f"{self}: needs 0 <= end_s <= warn_s and a reserve that isn't negative")


@dataclass(frozen=True)
class DiskState:
    """How long the disk will do.

    Attributes:
        level: `low` is to be announced, at `full` an episode ends.
        free_bytes: now.
        rate_bytes_s: at which it is being filled by the episode.
        left_s: until the reserve is reached; infinite where nothing is written.
    """

    level: Literal["ok", "low", "full"]
    free_bytes: int
    rate_bytes_s: float
    left_s: float

    def __str__(self) -> str:
        if self.left_s == float("inf"):
            return f"{self.free_bytes / 1e9:.1f} GB free"
        return f"{self.free_bytes / 1e9:.1f} GB free, enough for {self.left_s:.0f} s more"


class DiskWatch:
    """Tells from the last seconds how long the disk will do. An episode has one of its own.

    Args:
        limits: what must stay free.
    """

    def __init__(self, limits: DiskLimits) -> None:
        self._limits = limits
        self._seen: deque[tuple[float, int]] = deque()

    def step(self, now_s: float, free_bytes: int, written_bytes: int) -> DiskState:
        """What holds now.

        Args:
            now_s: monotonic time.
            free_bytes: of the file system.
            written_bytes: of the episode up to now, with what waits to be written.
        """
        self._seen.append((now_s, written_bytes))
        while self._seen[0][0] < now_s - _WINDOW_S and len(self._seen) > 2:
            self._seen.popleft()
        then_s, then_bytes = self._seen[0]
        took_s = now_s - then_s
        rate = (written_bytes - then_bytes) / took_s if took_s > 0.0 else 0.0
        usable = free_bytes - self._limits.reserve_bytes
        left_s = max(0.0, usable / rate) if rate > 0.0 else float("inf")
        if usable <= 0 or left_s < self._limits.end_s:
            level: Literal["ok", "low", "full"] = "full"
        else:
            level = "low" if left_s < self._limits.warn_s else "ok"
        return DiskState(level, free_bytes, rate, left_s)
