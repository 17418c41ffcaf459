"""The errors of vla_ros: each carries its data and says how to mend what it names.

Everything derived from `VlaRosError` is meant for the person at the keyboard: the command line prints its text as one
line and exits with code 2, a node logs it and holds the arm. Anything else that escapes is a bug of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VlaRosError(Exception):
    """Base of all errors whose text is addressed to the user."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A half sentence that names the known words and the nearest of them, for the end of an error text."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    listing = "known: " + (", ".join(names) if names else "none")
    return f"did you mean {near[0]!r}? {listing}" if near else listing


class ConfigError(VlaRosError):
    """A configuration file or argument that can't be used.

    Args:
        where: the file, and the key inside it, as `file: key.sub`.
        problem: what is wrong, with the value and the limit.
        mend: what to do about it.
    """

    def __init__(self, where: str, problem: str, mend: str) -> None:
        self.where, self.problem, self.mend = where, problem, mend
        super().__init__(f"{where}: {problem}; {mend}")


class UnknownNameError(VlaRosError):
    """A name that isn't in a closed list, such as a robot, a policy or a launch argument."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        super().__init__(f"unknown {kind} {name!r}; {did_you_mean(name, self.known)}")


class MissingDependencyError(VlaRosError):
    """Something that has to be installed first."""

    def __init__(self, what: str, needed_for: str, mend: str) -> None:
        self.what, self.needed_for, self.mend = what, needed_for, mend
        super().__init__(f"{what} is missing, needed for {needed_for}; mend: {mend}")


class InstructionError(VlaRosError):
    """An instruction that is empty or that the policy can't read."""

    def __init__(self, instruction: str, problem: str, mend: str) -> None:
        self.instruction, self.problem, self.mend = instruction, problem, mend
        super().__init__(f"instruction {instruction!r}: {problem}; {mend}")


class LimitExceededError(VlaRosError):
    """A value past a limit.

    Args:
        name: the joint, axis or signal.
        quantity: what is limited, with its unit.
        value: the value found.
        lower: lower limit.
        upper: upper limit.
    """

    def __init__(self, name: str, quantity: str, value: float, lower: float, upper: float) -> None:
        self.name, self.quantity, self.value, self.lower, self.upper = name, quantity, value, lower, upper
        super().__init__(f"{quantity} of {name} is {value:.6g}, allowed [{lower:.6g}, {upper:.6g}]")


class ContractError(VlaRosError):
    """A rig, policy or message that doesn't fit the contract in force."""


class ChunkError(VlaRosError):
    """An action chunk that can't be executed; the text says which field and why."""


class LateChunkError(ChunkError):
    """An action chunk that came too late to be executed."""


class SensorError(VlaRosError):
    """A camera or state source that can't be opened or went silent."""


class RecordingError(VlaRosError):
    """An episode or a bag that can't be written, read or repaired; the text says what of it is left, and where."""


class DatasetError(VlaRosError):
    """A dataset that can't be written or read, or data that would make a wrong one; the text names frame and column."""
