"""The commands in README.md, CONTRIBUTING.md and docs/, as a reader would type them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
DOCUMENTS = tuple(
    path for path in (CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").glob("*.md")))
)
# Where a block's language is another, it holds no commands.
_LANGUAGES = ("", "sh", "bash", "console")
_ASSIGNMENT = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True)
class Command:
    """A command of a document.

    Attributes:
        place: document and line.
        words: without what stands before the program's name: a folder, assignments to the environment.
        is_whole: a line of a block, to be typed as it is. Words in a sentence may be the part that it is about.
    """

    place: str
    words: tuple[str, ...]
    is_whole: bool

    @property
    def program(self) -> str:
        return self.words[0]

    def __str__(self) -> str:
        return f"{self.place}: {shlex.join(self.words)}"


def commands(*programs: str) -> list[Command]:
    """Every command of the documents that runs one of these programs, in their order."""
    found = [command for document in DOCUMENTS for command in _commands_of(document)]
    return [command for command in found if command.program in programs]


def split_words(line: str) -> tuple[str, ...]:
    """A command line as the words that a shell makes of it."""
    return tuple(shlex.split(line))


def _commands_of(document: Path) -> list[Command]:
    found = []
    is_code, is_skipped, begun, begin = False, False, "", 0
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```"):
            is_code = not is_code
            is_skipped = is_code and line.removeprefix("```") not in _LANGUAGES
        elif is_code or line.startswith("    ") or begun:
            begin = begin if begun else number
            begun += f" {line}".removesuffix("\\")
            if not line.endswith("\\"):
                found += [] if is_skipped else _split(begun, f"{document.name}:{begin}")
                begun = ""
        else:
            for text in re.findall(r"`([^`]+)`", line):
                found += _split(text, f"{document.name}:{number}", is_whole=False)
    return found


def _split(text: str, place: str, is_whole: bool = True) -> list[Command]:
    try:
        words = shlex.split(text, comments=is_whole)
    except ValueError:  # a program over several lines, or prose
        return []
    found: list[list[str]] = [[]]
    for word in words:
        if word in ("&&", "||", "|", ";", "&"):
            found.append([])
        else:
            found[-1].append(word)
    result = []
    for part in found:
        while part and _ASSIGNMENT.match(part[0]):
            del part[0]
        if part:
            result.append(Command(place, (Path(part[0]).name, *part[1:]), is_whole))
    return result
