"""Records episodes into a folder, one at a time; where the messages come from isn't its matter."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vla_ros.errors import RecordingError
from vla_ros.files import flush_to_disk
from vla_ros.recording.bag_writer import TYPESTORE, Storage, Topic
from vla_ros.recording.disk import DiskLimits, DiskState, DiskWatch
from vla_ros.recording.episode import INFO_KEY, EpisodeInfo, Outcome, write_info
from vla_ros.recording.repair import repair_part
from vla_ros.recording.store import EpisodeStore
from vla_ros.recording.topics import STRING
from vla_ros.recording.writer import MAX_QUEUE_BYTES, EpisodeWriter, WriterFigures


@dataclass(frozen=True)
class RecorderOptions:
    """How episodes are written.

    Attributes:
        storage: of the bags.
        is_compressed: whether MCAP chunks are compressed with zstd.
        max_queue_bytes: what may wait for the disk.
        disk: what must stay free.
    """

    storage: Storage = "mcap"
    is_compressed: bool = False
    max_queue_bytes: int = MAX_QUEUE_BYTES
    disk: DiskLimits = field(default_factory=DiskLimits)


def event_bytes(event: str, stamp_ns: int, **values: Any) -> tuple[str, bytes]:
    """An event of `episode/event` as JSON and as the message that carries it."""
    text = json.dumps({"event": event, "stamp_ns": stamp_ns, **values})
    message = TYPESTORE.types[STRING](data=text)
    return text, bytes(TYPESTORE.serialize_cdr(message, STRING))


class Recorder:
    """The episodes of a folder as they are recorded. `add` is any thread's, the rest is one's.

    Args:
        folder: of the episodes.
        event_topic: resolved name of `episode/event`.
        options: how they are written.
    """

    def __init__(self, folder: Path, event_topic: Topic, options: RecorderOptions) -> None:
        self.store = EpisodeStore(folder)
        self.info: EpisodeInfo | None = None
        """Of the episode that is open."""
        self._event_topic, self._options = event_topic, options
        self._writer: EpisodeWriter | None = None
        self._watch = DiskWatch(options.disk)

    def start(self, make_info: Callable[[int], EpisodeInfo], before: Sequence[tuple[Topic, bytes]] = ()) -> str:
        """Begins an episode.

        Args:
            make_info: called with its number.
            before: messages that were in force already, with their topics: written at the episode's start.

        Returns:
            The event, as JSON.

        Raises:
            RecordingError: if one is open, here or elsewhere, or the disk is full.
        """
        if self.info is not None:
            raise RecordingError(f"episode {self.info.number} is being recorded; stop it first")
        self.store.acquire("recording an episode")
        try:
            self._watch = DiskWatch(self._options.disk)
            state = self._watch.step(0.0, self._free_bytes(), 0)
            if state.level == "full":
                raise RecordingError(f"{self.store.folder}: {state}, which is the reserve; make room first")
            info = make_info(self.store.next_number())
            options = self._options
            writer = EpisodeWriter(
                self.store.part(info),
                options.storage,
                is_compressed=options.is_compressed,
                max_queue_bytes=options.max_queue_bytes,
            )
            try:
                write_info(info, writer.folder)
                flush_to_disk(writer.folder)
            except OSError as error:
                writer.abort()
                raise RecordingError(f"{writer.folder} can't be written to ({error.strerror})") from error
        except BaseException:
            self.store.release()
            raise
        event, data = event_bytes("start", info.started_ns, episode=json.loads(info.to_json()))
        writer.add(self._event_topic, info.started_ns, data)
        for later_ns, (topic, latched) in enumerate(before, 1):
            writer.add(topic, info.started_ns + later_ns, latched)
        try:
            writer.wait_begun()
        except RecordingError:
            with suppress(RecordingError):
                writer.abort()
            self.store.release()
            raise
        self.info, self._writer = info, writer
        return event

    def add(self, topic: Topic, stamp_ns: int, data: bytes) -> bool:
        """Takes a message; False if none is recorded now, or it had to be dropped, which is counted."""
        writer = self._writer
        return writer is not None and writer.add(topic, stamp_ns, data)

    def say(self, event: str, stamp_ns: int, **values: Any) -> str:
        """Writes an event into the open episode and returns it as JSON."""
        text, data = event_bytes(event, stamp_ns, **values)
        self.add(self._event_topic, stamp_ns, data)
        return text

    def figures(self) -> WriterFigures:
        """Of the episode that is open; zeros between two."""
        writer = self._writer
        return WriterFigures() if writer is None else writer.figures()

    def watch_disk(self, now_s: float) -> DiskState:
        """How long the disk will do; at `full` the episode has to be stopped.

        Args:
            now_s: monotonic time.
        """
        figures = self.figures()
        return self._watch.step(now_s, self._free_bytes(), figures.bytes + figures.queue_bytes)

    def stop(
        self, outcome: Outcome, stamp_ns: int, reason: str = "", lost: Mapping[str, int] | None = None
    ) -> tuple[str, Path]:
        """Ends the episode.

        Args:
            outcome: how it ended.
            stamp_ns: ROS time.
            reason: why, if it isn't that somebody wanted it.
            lost: messages that didn't come as far as `add`, by topic.

        Returns:
            The event, as JSON, and the episode's folder.

        Raises:
            RecordingError: if none is open, or anything wasn't written; the text says what there is.
        """
        info = self._open_info()
        dropped = dict(Counter(self.figures().dropped) + Counter(lost or {}))
        values: dict[str, Any] = {"episode": info.name, "reason": reason, "lost": dropped}
        values = {key: value for key, value in values.items() if value}
        name = "stop" if outcome == "unlabelled" else outcome
        event = self.say(name, stamp_ns, **values)
        info = info.ended(outcome, stamp_ns)
        if dropped:
            listing = ", ".join(f"{count} of {topic}" for topic, count in sorted(dropped.items()))
            info = replace(info, recovered=f"messages were lost on the way to the bag: {listing}")
        writer, self._writer = self._writer, None
        self.info = None
        try:
            if writer is not None:
                try:
                    writer.close({INFO_KEY: info.to_json()})
                except RecordingError as error:
                    raise self._rescue(writer.folder, error) from error
                return event, self.store.finish(writer.folder, info)
        finally:
            self.store.release()
        raise RecordingError("no episode is being recorded")

    def discard(self, stamp_ns: int) -> str:
        """Ends the episode and removes it; returns the event, as JSON."""
        info = self._open_info()
        event = self.say("discard", stamp_ns, episode=info.name)
        writer, self._writer = self._writer, None
        self.info = None
        try:
            if writer is not None:
                with suppress(RecordingError):
                    writer.abort()
                self.store.remove(writer.folder)
        finally:
            self.store.release()
        return event

    def _open_info(self) -> EpisodeInfo:
        if self.info is None:
            raise RecordingError("no episode is being recorded; start one first")
        return self.info

    def _rescue(self, part: Path, error: RecordingError) -> RecordingError:
        """What to say of an episode whose writing failed, after what there is of it was finished."""
        try:
            repaired = repair_part(part, self.store, because=str(error))
        except (RecordingError, OSError) as again:
            mend = "make room and run `vla-ros episodes repair`"
            return RecordingError(f"{error}; what was written is in {part} and not closed ({again}): {mend}")
        return RecordingError(f"{error}; {repaired}")

    def _free_bytes(self) -> int:
        self.store.folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.store.folder).free
