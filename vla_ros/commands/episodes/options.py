"""Options that the actions of `vla-ros episodes` have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

from vla_ros.errors import RecordingError
from vla_ros.recording.store import EpisodeStore

DEFAULT_FOLDER = Path("episodes")


def add_common(parser: argparse.ArgumentParser) -> None:
    """`--folder` and `--json`."""
    parser.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="folder of episodes (default %(default)s)"
    )
    parser.add_argument("--json", dest="is_json", action="store_true", help="one JSON object, last on standard output")


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
