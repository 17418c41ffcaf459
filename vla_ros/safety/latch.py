"""A stop that outlives the process: written down when it is called, in force until it is reset."""

from __future__ import annotations

import contextlib
from pathlib import Path


class StopLatch:
    """One arm's stop, kept in a small file.

    Args:
        path: of the file; folders above it are made when a stop is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> str | None:
        """Why the arm is stopped, None if it isn't. A file that is there but can't be read counts as a stop."""
        try:
            return self.path.read_text(encoding="utf-8").strip() or "stopped"
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            return f"stopped, as far as can be told: {self.path} can't be read ({error})"

    def set(self, reason: str) -> None:
        """Writes a stop down.

        Raises:
            OSError: if it can't be written; the stop itself must not wait for that.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(reason + "\n", encoding="utf-8")

    def clear(self) -> None:
        """Ends the stop."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
