"""Finishes what a crash, a loss of power or a full disk left unfinished, and says what is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rosbags.rosbag2 import Reader

from vla_ros.errors import ConfigError, RecordingError
from vla_ros.files import flush_to_disk
from vla_ros.recording.bag_writer import ENDINGS, TYPESTORE, BagWriter
from vla_ros.recording.episode import METADATA_FILE, EpisodeInfo, Outcome, read_info, write_info
from vla_ros.recording.reopening import NoMessageError, reopen
from vla_ros.recording.store import EpisodeStore, replace_custom_data
from vla_ros.recording.topics import EVENT_TOPIC, STRING, ends_with

_OUTCOMES: dict[str, Outcome] = {"stop": "unlabelled", "success": "success", "failure": "failure"}

# SQLite's tables without a message are as large.
_EMPTY_BYTES = 2**20


@dataclass(frozen=True)
class Repaired:
    """What came of an episode or a bag.

    Attributes:
        name: it had.
        folder: where it is now; None for one that held nothing.
        messages: in it.
        duration_s: from the first to the last.
        damage: what is lost, a sentence each.
        problem: why there is no episode of it, empty if there is.
        is_left: whether it is still there, unfinished.
    """

    name: str
    folder: Path | None
    messages: int = 0
    duration_s: float = 0.0
    damage: tuple[str, ...] = ()
    problem: str = ""
    is_left: bool = False

    def __str__(self) -> str:
        if self.problem:
            return f"{self.name}: {self.problem}"
        lost = "; ".join(self.damage) or "nothing that was in the file is lost"
        return f"{self.name}: {self.messages} messages over {self.duration_s:.2f} s are in {self.folder}; {lost}"


def repair_folder(folder: Path, on_progress: Callable[[str, float], None] = lambda *_: None) -> list[Repaired]:
    """Finishes all unfinished episodes of a folder; finished ones aren't looked at.

    Args:
        folder: of episodes.
        on_progress: called with what is being done and how much of it is.

    Raises:
        RecordingError: if somebody is recording there.
    """
    found = []
    with EpisodeStore(folder) as store:
        if not store.unfinished():
            return []
        store.acquire("repairing episodes")
        for part in store.unfinished():
            try:
                found.append(repair_part(part, store, on_progress=partial(on_progress, part.name)))
            except (RecordingError, OSError) as error:
                found.append(Repaired(part.name, part, problem=f"left as it is: {error}", is_left=True))
    return found


def repair_part(
    part: Path, store: EpisodeStore, *, because: str = "", on_progress: Callable[[float], None] = lambda _: None
) -> Repaired:
    """Finishes an unfinished episode. The caller has the folder's lock.

    Args:
        part: its folder.
        store: of the folder that it is in.
        because: why it wasn't finished, if that is known.
        on_progress: called with the part that is done.

    Raises:
        RecordingError: if it can't be; it is then as before but for what was torn at its end.
    """
    paths = _bag_files(part)
    try:
        repaired, info = _close(part, paths, because or "its process ended without closing it", on_progress)
    except NoMessageError:
        if sum(path.stat().st_size for path in paths) > _EMPTY_BYTES:
            raise
        # Its process ended before the first message was written: nothing is lost.
        store.remove(part)
        return Repaired(part.name, None, problem="held no message yet, and is removed")
    return replace(repaired, folder=store.finish(part, info))


def repair_bag(folder: Path, on_progress: Callable[[float], None] = lambda _: None) -> Repaired:
    """Closes a bag of any origin that wasn't closed: one file, in a folder without (or with an old) metadata.yaml.

    Args:
        folder: of the bag.
        on_progress: called with the part that is done.

    Raises:
        RecordingError: if it can't be; what is whole of it is as before.
    """
    repaired, info = _close(folder, _bag_files(folder), "the bag wasn't closed", on_progress)
    if info is not None:
        write_info(info, folder)
    for path in (*folder.iterdir(), folder):
        flush_to_disk(path)
    return repaired


def _bag_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in ENDINGS.values())


def _close(
    folder: Path, paths: list[Path], because: str, on_progress: Callable[[float], None]
) -> tuple[Repaired, EpisodeInfo | None]:
    """Closes the bag in a folder, and makes the episode's own words for it, None where nobody said any."""
    if not paths:
        raise NoMessageError(f"{folder} holds no bag file")
    if len(paths) != 1:
        names = ", ".join(path.name for path in paths)
        raise RecordingError(f"{folder} needs one bag file, has {names}; `ros2 bag reindex` mends split bags")
    try:
        reopened = reopen(paths[0], on_progress)
    except OSError as error:
        raise RecordingError(f"{paths[0]} can't be opened ({error.strerror})") from error
    bag = reopened.bag
    first_ns, last_ns = bag.min_timestamp, bag.max_timestamp
    messages = sum(bag.counts.values())
    repaired = Repaired(folder.name, folder, messages, (last_ns - first_ns) * 1e-9, reopened.damage)
    _close_bag(bag)
    events = _events(folder)
    info = _info(folder, events)
    if info is not None:
        lost = "; ".join((because, *reopened.damage))
        info = replace(info.ended(_outcome(info, events), last_ns), recovered=lost)
        replace_custom_data(folder, info)
    return repaired, info


def _close_bag(bag: BagWriter) -> None:
    try:
        bag.close()
    except Exception as error:
        raise RecordingError(f"{bag.path} can't be closed ({error}); make room and repair it again") from error
    flush_to_disk(bag.path / METADATA_FILE)


def _events(folder: Path) -> list[dict[str, Any]]:
    """The decoded messages of `episode/event`."""
    events = []
    with Reader(folder) as reader:
        connections = [item for item in reader.connections if ends_with(item.topic, EVENT_TOPIC)]
        for _, _, data in reader.messages(connections) if connections else ():
            try:
                event = json.loads(TYPESTORE.deserialize_cdr(data, STRING).data)  # type: ignore[attr-defined]
            except Exception:  # Others may publish there, too.
                continue
            if isinstance(event, dict):
                events.append(event)
    return events


def _info(folder: Path, events: list[dict[str, Any]]) -> EpisodeInfo | None:
    """From beside the bag, else from its first event."""
    try:
        return read_info(folder)
    except ConfigError:
        started = next(
            (event["episode"] for event in events if event.get("event") == "start" and "episode" in event), None
        )
        try:
            return None if started is None else EpisodeInfo.from_json(json.dumps(started), f"{folder}: first event")
        except ConfigError:
            return None


def _outcome(info: EpisodeInfo, events: list[dict[str, Any]]) -> Outcome:
    """What was said of it before it was cut off; another recorder may have said things of its own episodes."""
    own = [event for event in events if event.get("episode") == info.name]
    said = [_OUTCOMES[event["event"]] for event in own if event.get("event") in _OUTCOMES]
    return said[-1] if said else ("unlabelled" if info.outcome == "open" else info.outcome)
