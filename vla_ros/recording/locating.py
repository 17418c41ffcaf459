"""Which folder a person means by an episode."""

from __future__ import annotations

from pathlib import Path

from vla_ros.errors import RecordingError
from vla_ros.recording.episode import PART_ENDING, episode_number


def locate_episode(word: str, folder: Path) -> Path:
    """The folder of an episode.

    Args:
        word: its folder, or its number in `folder`.
        folder: of episodes.

    Raises:
        RecordingError: if there is none, naming those that there are.
    """
    path = Path(word).expanduser()
    if path.is_dir() and not word.isdecimal():
        return path
    if not word.isdecimal():
        raise RecordingError(f"episode {word!r} is neither a folder nor a number; `vla-ros episodes list` shows them")
    wanted = folder / f"episode_{int(word):06d}"
    if wanted.is_dir():
        return wanted
    numbers = sorted(number for path in folder.glob("episode_*") if (number := episode_number(path)) is not None)
    if int(word) in numbers:
        mend = "`vla-ros episodes repair` makes it whole"
        raise RecordingError(f"episode {word} in {folder} wasn't closed ({wanted.name}{PART_ENDING}); {mend}")
    there = f"it has {numbers[0]} to {numbers[-1]}" if numbers else "it has none; --folder says where they are"
    raise RecordingError(f"no episode {word} in {folder}: {there}")
