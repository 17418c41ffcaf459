"""What a calibration says to a person on the way, what it asks, and its verdict."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

from vla_ros.calibration.verdict import Check, is_good
from vla_ros.commands.calibrate.writing import Written

_ANSWERS = {"y": True, "yes": True, "n": False, "no": False}


def say(text: str) -> None:
    """A line for the person, beside what a machine reads."""
    print(text, file=sys.stderr, flush=True)


class Guide:
    """Says how things are when that changes, and not more often than every second."""

    def __init__(self) -> None:
        self._said, self._said_s = "", 0.0

    def __call__(self, text: str) -> None:
        now_s = time.monotonic()
        if text != self._said and now_s - self._said_s >= 1.0:
            self._said, self._said_s = text, now_s
            say(text)


def ask(question: str, is_yes: bool) -> bool | None:
    """Asks on the terminal.

    Args:
        question: to be answered with yes or no.
        is_yes: whether every question is answered with yes, without waiting.

    Returns:
        The answer, None where nobody is there to give one.
    """
    if is_yes:
        say(f"{question} yes (--yes)")
        return True
    while True:
        print(f"{question} [y/n] ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            say("(nobody answers)")
            return None
        answer = _ANSWERS.get(line.strip().lower())
        if answer is not None:
            return answer


def tell(
    args: argparse.Namespace, what: str, checks: Sequence[Check], figures: dict[str, Any], written: Sequence[Written]
) -> int:
    """Prints the verdict, for a person or as JSON; the exit code."""
    good = is_good(checks)
    if args.is_json:
        values = {
            "calibrated": what,
            "is_good": good,
            **_finite(figures),
            "checks": [{"name": check.name, "is_good": check.is_good, "text": check.text} for check in checks],
            "written": [{"file": str(item.path), "difference": item.difference} for item in written],
        }
        print(json.dumps(values))
        return 0 if good else 1
    for check in checks:
        print(f"{'ok ' if check.is_good else 'BAD'} {check.text}")
    for item in written:
        print(f"\n{item.difference}" if item.difference else f"\n{item.path} says so already")
        if item.difference:
            print(f"written to {item.path}")
    if good:
        print(f"{what}: good")
    else:
        print(f"{what}: not good; {sum(not check.is_good for check in checks)} of {len(checks)} checks failed")
    return 0 if good else 1


def _finite(values: Any) -> Any:
    """What isn't a number as null, which JSON has."""
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
