"""What a check says, and how checks are run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: short, the same whatever was found.
        status: `ok`; `missing`, if vla_ros needs it; `optional`, if it would be a gain and isn't there.
        detail: version, place or what is wrong; one line.
        mend: the command that mends it, empty where there is nothing to mend.
    """

    name: str
    status: Literal["ok", "missing", "optional"]
    detail: str
    mend: str = ""


Check = Callable[[], Finding]


def examine(checks: Sequence[Check]) -> Iterator[Finding]:
    """Runs checks side by side and gives their findings in order, each as soon as it and those before it are there."""
    with ThreadPoolExecutor(max_workers=max(2, len(os.sched_getaffinity(0)))) as threads:
        yield from threads.map(_run, checks)


def _run(check: Check) -> Finding:
    """A check that fails is a finding too: the doctor has to live through everything."""
    try:
        return check()
    except Exception as error:
        name = getattr(check, "__name__", type(check).__name__).removeprefix("check_")
        mend = "install it; its own line has the command" if isinstance(error, ImportError) else "mend what it names"
        return Finding(name, "missing", one_line(f"{type(error).__name__}: {error}"), mend)


def one_line(text: str) -> str:
    """The text without line breaks and runs of blanks."""
    return " ".join(text.split())
