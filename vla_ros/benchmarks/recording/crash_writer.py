"""A process that records numbered messages until it is killed, and keeps a record of its own of what it added."""

from __future__ import annotations

import mmap
import random
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rosbags.rosbag2 import Reader

from vla_ros.contract import load_rig
from vla_ros.recording.bag_writer import Storage, Topic
from vla_ros.recording.episode import EpisodeInfo
from vla_ros.recording.recorder import Recorder, RecorderOptions
from vla_ros.recording.topics import EVENT_TOPIC, IMAGE, STRING

STATES = Topic("/joint_states", "sensor_msgs/msg/JointState")
IMAGES = Topic("/camera/base/image", IMAGE)
EVENTS = Topic(f"/{EVENT_TOPIC}", STRING)
# Longer than what may be lost of one, so that a writer that keeps all to itself shows.
_LONG_S = 4.0
_PERIOD_S, _STATES_AN_IMAGE, _IMAGE_BYTES = 0.004, 8, 230_400
_RECORD = struct.Struct("<qqq")


@dataclass(frozen=True)
class Truth:
    """What a writer said of itself last.

    Attributes:
        finished: episodes whose end was reported, which are 0 to this less one.
        messages: added to the open one.
        stamp_ns: of the last of these.
    """

    finished: int
    messages: int
    stamp_ns: int


class TruthFile:
    """A `Truth` in a file that outlives its writer: what is in its memory when it is killed stays.

    Args:
        path: made if it isn't there.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_RECORD.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _RECORD.size)

    def write(self, truth: Truth) -> None:
        """Replaces it."""
        self._map[:] = _RECORD.pack(truth.finished, truth.messages, truth.stamp_ns)

    def read(self) -> Truth:
        """The last one."""
        return Truth(*_RECORD.unpack(self._map[:]))


def message(number: int, size: int) -> bytes:
    """A message with its number."""
    return struct.pack("<IQ", 256, number) + bytes(size)


def numbers(folder: Path) -> tuple[list[int], int]:
    """The numbers of an episode's messages in order, and the time of the last of them, 0 for none."""
    found, last_ns = [], 0
    with Reader(folder) as reader:
        topics = [connection for connection in reader.connections if connection.topic != EVENTS.name]
        for _, stamp_ns, data in reader.messages(topics) if topics else ():
            found.append(struct.unpack_from("<IQ", data)[1])
            last_ns = max(last_ns, stamp_ns)
    return sorted(found), last_ns


@contextmanager
def open_episode(recorder: Recorder) -> Iterator[None]:
    """An episode that the block fills."""
    rig = load_rig("panda_table")
    recorder.start(lambda number: EpisodeInfo(number, "bench", "panda", rig, time.time_ns()))
    yield
    recorder.stop("success", time.time_ns())


def fill(
    recorder: Recorder, truth: TruthFile | None, finished: int, seconds: float, *, with_images: bool = True
) -> int:
    """Adds messages in real time; returns how many.

    Args:
        recorder: with an open episode.
        truth: says what was added, before it is.
        finished: episodes.
        seconds: how long.
        with_images: whether each eighth message is one.
    """
    image = bytes(random.randbytes(_IMAGE_BYTES))
    begin_s = time.monotonic()
    number = 0
    while time.monotonic() - begin_s < seconds:
        stamp_ns = time.time_ns()
        is_image = with_images and number % _STATES_AN_IMAGE == 0
        data = message(number, 400) + (image if is_image else b"")
        if not recorder.add(IMAGES if is_image else STATES, stamp_ns, data):
            raise RuntimeError(f"message {number} wasn't taken: {recorder.figures()}")
        number += 1
        if truth is not None:
            truth.write(Truth(finished, number, stamp_ns))
        time.sleep(max(0.0, begin_s + number * _PERIOD_S - time.monotonic()))
    return number


def record_for_ever(folder: Path, storage: Storage, truth: Path, seed: int) -> None:
    """Records a short episode and a long one by turns, to be killed; without images, the slow way to fill a chunk, if
    the seed is even."""
    rng = random.Random(seed)
    recorder = Recorder(folder, EVENTS, RecorderOptions(storage=storage))
    file, finished = TruthFile(truth), 0
    while True:
        file.write(Truth(finished, 0, 0))
        with open_episode(recorder):
            seconds = _LONG_S if finished % 2 else rng.uniform(0.1, 0.8)
            fill(recorder, file, finished, seconds, with_images=seed % 2 == 1)
        finished += 1
