"""An episode's bag written by a thread of its own, so that a disk that stands still for a moment stops nobody."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vla_ros.errors import RecordingError
from vla_ros.recording.bag_writer import BagWriter, Storage, Topic

FLUSH_S = 0.4
"""After so long messages are in the file: what the end of this process can cost at most, besides the queue."""
SYNC_S = 1.0
MAX_QUEUE_BYTES = 512 * 2**20

_CLOSE_S = 120.0


@dataclass(frozen=True)
class WriterFigures:
    """How a bag is doing.

    Attributes:
        messages: written.
        bytes: of these, without headers.
        counts: messages written, by topic.
        queue_bytes: waiting to be written.
        dropped: messages that found the queue full, by topic.
        longest_write_s: how long the disk stood still at most.
        failure: why nothing is written any more, empty for nothing.
    """

    messages: int = 0
    bytes: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    queue_bytes: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    longest_write_s: float = 0.0
    failure: str = ""


class EpisodeWriter:
    """Writes messages into a bag in a thread of its own. Any thread may add.

    Args:
        folder: of the bag, made here.
        storage: of the messages.
        is_compressed: whether chunks are compressed with zstd, MCAP only.
        max_queue_bytes: what may wait; messages that come when it is full are dropped and counted.

    Raises:
        RecordingError: if it can't be made.
    """

    def __init__(
        self, folder: Path, storage: Storage, *, is_compressed: bool = False, max_queue_bytes: int = MAX_QUEUE_BYTES
    ) -> None:
        self.folder = folder
        try:
            self._bag = BagWriter(folder, storage, is_compressed=is_compressed)
            self._bag.open()
        except Exception as error:
            raise RecordingError(f"{folder} can't be made ({error}); is it writable, and the disk not full?") from error
        self._max_queue_bytes = max_queue_bytes
        self._queue: deque[tuple[Topic, int, bytes]] = deque()
        self._queue_bytes = 0
        self._changed = threading.Condition()
        self._is_closing, self._is_over = False, threading.Event()
        self._is_begun = threading.Event()
        self._failure = ""
        self._messages = self._bytes = 0
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._longest_write_s = 0.0
        self._threads = [
            threading.Thread(target=run, name=f"{what} {folder.name}", daemon=True)
            for what, run in (("write", self._write), ("sync", self._sync))
        ]
        for thread in self._threads:
            thread.start()

    def add(self, topic: Topic, stamp_ns: int, data: bytes) -> bool:
        """Takes a message, serialised.

        Args:
            topic: where it is from.
            stamp_ns: when it was received.
            data: CDR.

        Returns:
            Whether it will be written if the disk takes it.
        """
        with self._changed:
            if self._is_closing or self._failure:
                return False
            if self._queue_bytes + len(data) > self._max_queue_bytes:
                self._dropped[topic.name] += 1
                return False
            self._queue.append((topic, stamp_ns, data))
            self._queue_bytes += len(data)
            # The thread wakes by itself some hundred times a second: to wake it each time costs more than to write.
            return True

    def wait_begun(self) -> None:
        """Until the first messages are in the file.

        Raises:
            RecordingError: if they don't come there.
        """
        self._is_begun.wait(_CLOSE_S)
        if self._failure or not self._is_begun.is_set():
            raise RecordingError(f"{self.folder}: nothing can be written ({self._failure or 'the disk stands still'})")

    def figures(self) -> WriterFigures:
        """How it is doing."""
        with self._changed:
            return WriterFigures(
                self._messages,
                self._bytes,
                dict(self._counts),
                self._queue_bytes,
                dict(self._dropped),
                self._longest_write_s,
                self._failure,
            )

    def close(self, custom_data: Mapping[str, str]) -> None:
        """Writes what waits, and the bag's metadata.

        Args:
            custom_data: goes into the metadata.

        Raises:
            RecordingError: if anything wasn't written; the file is then as the failure left it.
        """
        self._end()
        if not self._failure:
            try:
                for key, value in custom_data.items():
                    self._bag.set_custom_data(key, value)
                self._bag.close()
                return
            except Exception as error:
                self._failure = _say(error)
        self.abort()
        raise RecordingError(f"{self.folder}: a write failed ({self._failure})")

    def abort(self) -> None:
        """Lets go of the file as it is."""
        self._end()
        with suppress(Exception):
            self._bag.file.rescue()
        with suppress(Exception):
            self._bag.abort()

    def _end(self) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._threads[0].join(_CLOSE_S)
        if self._threads[0].is_alive():
            self._failure = f"the disk hasn't taken the last {self._queue_bytes} bytes within {_CLOSE_S:g} s"
            raise RecordingError(f"{self.folder}: {self._failure}; what is written is recovered by a repair")
        self._is_over.set()
        self._threads[1].join(_CLOSE_S)

    def _write(self) -> None:
        """The thread that writes."""
        # The first message says what episode this is: it is in the file at once.
        flushed_s = float("-inf")
        try:
            is_last = False
            while not is_last:
                batch, is_last = self._take()
                begin_s = time.monotonic()
                for topic, stamp_ns, data in batch:
                    self._bag.write(self._bag.connect(topic), stamp_ns, data)
                    # Not after the whole batch: after a stall that is long.
                    self._note(topic.name, len(data))
                    flushed_s = self._flush_now_and_then(flushed_s)
                flushed_s = self._flush_now_and_then(flushed_s)
                self._longest_write_s = max(self._longest_write_s, time.monotonic() - begin_s)
            self._bag.file.flush()
        # Whatever it is, it must not pass for an episode that was written.
        except BaseException as error:
            with self._changed:
                self._failure = self._failure or _say(error)
                self._queue.clear()
                self._queue_bytes = 0
            self._is_begun.set()

    def _flush_now_and_then(self, flushed_s: float) -> float:
        """When it was flushed last."""
        if time.monotonic() - flushed_s < FLUSH_S or not self._messages:
            return flushed_s
        self._bag.file.flush()
        self._is_begun.set()
        return time.monotonic()

    def _take(self) -> tuple[list[tuple[Topic, int, bytes]], bool]:
        """All that waits, and whether there will be no more."""
        with self._changed:
            if not self._is_closing:
                self._changed.wait(0.01)
            batch = list(self._queue)
            self._queue.clear()
            return batch, self._is_closing

    def _note(self, topic: str, size: int) -> None:
        with self._changed:
            self._queue_bytes -= size
            self._messages += 1
            self._bytes += size
            self._counts[topic] += 1

    def _sync(self) -> None:
        """The thread that waits for the disk, while the other one goes on."""
        while not self._is_over.wait(SYNC_S):
            try:
                self._bag.file.sync()
            except BaseException as error:
                with self._changed:
                    self._failure = self._failure or _say(error)
                return


def _say(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text)
