"""Options that the actions of `vla-ros episodes` have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

from vla_ros.errors import RecordingError
from vla_ros.recording.store import EpisodeStore

DEFAULT_FOLDER = Path("episodes")


def add_common(parser: argparse.ArgumentParser, *, is_action: bool = True) -> None:
    """`--folder` and `--json`, before the action or after it."""
    # Suppressed: else an action's default would overwrite what was said before the action.
    folder, is_json = (argparse.SUPPRESS, argparse.SUPPRESS) if is_action else (DEFAULT_FOLDER, False)
    parser.add_argument(
        "--folder", type=Path, default=folder, metavar="DIR", help=f"folder of episodes (default {DEFAULT_FOLDER})"
    )
    parser.add_argument(
        "--json", dest="is_json", action="store_true", default=is_json, help="one JSON object, last on standard output"
    )


def chosen(folder: Path, words: list[str]) -> list[Path]:
    """The folders that words stand for: numbers of finished episodes in a folder, or paths of bags.

    Raises:
        RecordingError: for one that isn't there.
    """
    store = EpisodeStore(folder)
    found = []
    for word in words:
        path = Path(word)
        if not word.isdecimal() and not path.is_dir():
            raise RecordingError(f"{word!r} is neither a number of an episode in {folder} nor the folder of a bag")
        found.append(store.episode(int(word)) if word.isdecimal() else path)
    return found
