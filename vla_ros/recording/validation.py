"""Whether an episode is what it says: counts, stamps, topics that its rig promises, rates and gaps."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import Reader

from vla_ros.errors import ConfigError
from vla_ros.recording.episode import INFO_FILE, METADATA_FILE, PART_ENDING, EpisodeInfo, read_info, read_info_file
from vla_ros.recording.topics import COMPRESSED_ENDING, RecordedTopic, ends_with, fixed_topics

_WITH_HEADER = frozenset(
    {
        "sensor_msgs/msg/Image",
        "sensor_msgs/msg/CompressedImage",
        "sensor_msgs/msg/CameraInfo",
        "sensor_msgs/msg/JointState",
        "trajectory_msgs/msg/MultiDOFJointTrajectory",
        "trajectory_msgs/msg/JointTrajectory",
    }
)
"""Of these one node publishes a topic, so that stamps can't go back; diagnostics come from many."""
_LEAST_RATE, _GAP_PERIODS, _STATE_GAP_S = 0.7, 3.5, 0.1


@dataclass(frozen=True)
class TopicFigures:
    """A topic of a bag.

    Attributes:
        name: resolved.
        type: of its messages.
        count: found.
        rate_hz: between first and last; 0 for fewer than two.
        longest_gap_s: between two arrivals.
    """

    name: str
    type: str
    count: int
    rate_hz: float
    longest_gap_s: float


@dataclass
class Validation:
    """What was found.

    Attributes:
        folder: of the episode.
        topics: of its bag.
        errors: why it isn't to be trusted.
        warnings: what one should know.
    """

    folder: Path
    topics: list[TopicFigures] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def is_valid(self) -> bool:
        return not self.errors

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "folder": str(self.folder),
            "is_valid": self.is_valid,
            "errors": self.errors,
            "warnings": self.warnings,
            "topics": [vars(topic) for topic in self.topics],
        }


def validate(folder: Path, on_progress: Callable[[float], None] = lambda _: None) -> Validation:
    """Reads a whole episode, or a bag of other origin, and says what is wrong with it.

    Args:
        folder: of the episode.
        on_progress: called with the part that is done.
    """
    found = Validation(folder)
    if folder.name.endswith(PART_ENDING):
        found.errors.append("it isn't finished; `vla-ros episodes repair` finishes it")
        return found
    info = _words(folder, found)
    try:
        with Reader(folder) as reader:
            _read(reader, found, on_progress)
    # rosbags raises many kinds for what is cut or overwritten; each is why the bag can't be trusted.
    except Exception as error:
        found.errors.append(f"the bag can't be read ({type(error).__name__}: {error}); `vla-ros episodes repair` may")
        return found
    if info is not None:
        for topic in fixed_topics(info.rig):
            _compare(topic, found)
    return found


def _words(folder: Path, found: Validation) -> EpisodeInfo | None:
    try:
        info = read_info(folder)
    except ConfigError as error:
        if (folder / INFO_FILE).is_file():
            found.errors.append(str(error))
        else:
            found.warnings.append(f"no {INFO_FILE}: robot, rig and contract have to be named where it is used")
        return None
    try:
        read_info_file(folder)
    except ConfigError as error:
        found.warnings.append(f"{INFO_FILE}: {error.problem}; {METADATA_FILE} says it, too")
    if info.outcome == "open":
        found.errors.append(f"{INFO_FILE} says that it is open; `vla-ros episodes repair {folder}` closes it")
    if info.recovered:
        found.warnings.append(f"it was mended: {info.recovered}")
    if not info.task:
        found.warnings.append("it has no task: no instruction was in force at its start")
    return info


def _read(reader: Reader, found: Validation, on_progress: Callable[[float], None]) -> None:
    arrivals: dict[str, list[int]] = {connection.topic: [] for connection in reader.connections}
    stamps: dict[str, list[int]] = {connection.topic: [] for connection in reader.connections}
    types = {connection.topic: connection.msgtype for connection in reader.connections}
    total = max(1, reader.message_count)
    for done, (connection, arrival_ns, data) in enumerate(reader.messages()):
        if done % 500 == 0:
            on_progress(done / total)
        arrivals[connection.topic].append(arrival_ns)
        if connection.msgtype in _WITH_HEADER and len(data) >= 12:
            stamps[connection.topic].append(_header_stamp_ns(data))
    promised: dict[str, int] = {}
    for connection in reader.connections:
        promised[connection.topic] = promised.get(connection.topic, 0) + connection.msgcount
    for topic, times in sorted(arrivals.items()):
        if len(times) != promised[topic]:
            found.errors.append(f"{topic} has {len(times)} messages, its metadata says {promised[topic]}")
        found.topics.append(_figures(topic, types[topic], np.array(times, dtype=np.int64)))
        back = _steps_back(np.array(stamps[topic], dtype=np.int64))
        if back:
            found.errors.append(f"stamps of {topic} go back {back} times; was a clock set, or do two publish it?")


def _header_stamp_ns(data: bytes | memoryview) -> int:
    """The stamp of the header that a message begins with, serialised."""
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] else ">iI", data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _steps_back(stamps_ns: NDArray[np.int64]) -> int:
    return int((np.diff(stamps_ns) < 0).sum())


def _figures(topic: str, kind: str, arrivals_ns: NDArray[np.int64]) -> TopicFigures:
    gaps_s = np.diff(np.sort(arrivals_ns)) * 1e-9
    duration_s = float(gaps_s.sum())
    rate_hz = len(gaps_s) / duration_s if duration_s > 1e-3 else 0.0
    return TopicFigures(topic, kind, len(arrivals_ns), rate_hz, float(gaps_s.max(initial=0.0)))


def _compare(topic: RecordedTopic, found: Validation) -> None:
    """Holds a topic of the rig against what is in the bag."""
    names = (topic.name, f"{topic.name}{COMPRESSED_ENDING}")
    there = [item for item in found.topics if item.count and any(ends_with(item.name, name) for name in names)]
    if not there:
        if topic.is_required:
            found.errors.append(f"no {topic.name}: nobody published what the rig promises")
        return
    figures = there[0]
    allowed_s = _GAP_PERIODS / topic.rate_hz if topic.rate_hz else _STATE_GAP_S
    if topic.is_required and figures.longest_gap_s > allowed_s:
        found.warnings.append(f"{figures.name} has a gap of {figures.longest_gap_s:.3f} s (allowed {allowed_s:.3f} s)")
    if topic.rate_hz and figures.count > 1 and figures.rate_hz < _LEAST_RATE * topic.rate_hz:
        found.warnings.append(f"{figures.name} at {figures.rate_hz:.1f} Hz, the rig says {topic.rate_hz:g} Hz")
