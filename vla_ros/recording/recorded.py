"""What the bag of an episode says: series of values on one clock, and cameras whose images are read when asked for.

Everything stamped keeps the sender's stamp; what carries none (tasks, gripper commands) has the time of its reception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.recording.episode import EpisodeInfo
from vla_ros.robots.config import RobotConfig
from vla_ros.types import CameraModel, FloatArray, ImageArray, JointChunk, MotionState, ToolChunk

StampArray = NDArray[np.int64]


@dataclass(frozen=True)
class Series:
    """Values over time.

    Attributes:
        stamps_ns: (n,) strictly increasing.
        values: (n, ...), finite.
    """

    stamps_ns: StampArray
    values: FloatArray

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def last_index(self, stamp_ns: int) -> int | None:
        """Index of the newest value that isn't later than a time, None before the first."""
        index = int(np.searchsorted(self.stamps_ns, stamp_ns, side="right")) - 1
        return index if index >= 0 else None


@dataclass(frozen=True)
class TargetSeries(Series):
    """Targets over time: (n, 4, 4) tcp poses in base, or (n, joints) rad in the robot YAML's order.

    Attributes:
        openings: (n,) of the gripper in [0, 1]; NaN where a target leaves it alone.
    """

    openings: FloatArray


@dataclass(frozen=True)
class RecordedChunk:
    """A chunk on its way to the filter.

    Attributes:
        received_ns: when it was heard.
        chunk: itself; its `source` is told by the topic.
    """

    received_ns: int
    chunk: ToolChunk | JointChunk


@dataclass(frozen=True)
class RecordedVerdict:
    """What the safety filter said; in force until the next one.

    Attributes:
        stamp_ns: the tick.
        state: of the filter.
        source: who was selected, empty for nobody.
        limits: name of each limit that acted -> its reason.
    """

    stamp_ns: int
    state: MotionState
    source: str
    limits: Mapping[str, str]


@dataclass(frozen=True)
class RecordedEvent:
    """A message of `episode/event`.

    Attributes:
        stamp_ns: its own, or the time of its reception where it has none.
        event: e.g. `start`, `source`, `intervention_start`.
        values: all that the JSON object holds.
    """

    stamp_ns: int
    event: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class RecordedTask:
    """An instruction, in force from `received_ns` on; empty to hold."""

    received_ns: int
    task: str


@dataclass(frozen=True)
class Finding:
    """Something in a bag or episode that its reader should know.

    Attributes:
        kind: one word: `gap`, `clock`, `order`, `duplicate`, `value`, `missing`, `type`, `contract`, `truncated`, ...
        topic: or column that it is about, empty for all.
        text: for a person, with numbers.
        stamp_ns: where it begins, None where that means nothing.
        count: of messages or frames.
    """

    kind: str
    topic: str
    text: str
    stamp_ns: int | None = None
    count: int = 1


@dataclass(frozen=True)
class RecordedCamera:
    """A camera's images in a bag: known by their stamps, decoded when they are asked for.

    Attributes:
        name: of the rig's camera.
        topic: in the bag.
        stamps_ns: (n,) exposures, strictly increasing; an image is named by its index in this.
        width: pixels.
        height: pixels.
        encoding: of raw images, e.g. `rgb8`; of compressed ones their format.
        camera: intrinsics (CameraInfo, else the rig's).
        T_parent_cam: (4, 4) pose of the optical frame in the link that carries it (TF, else the rig's).
        open_images: gives (index, image) in the order of the indices; see `read`.
    """

    name: str
    topic: str
    stamps_ns: StampArray
    width: int
    height: int
    encoding: str
    camera: CameraModel | None
    T_parent_cam: FloatArray
    open_images: Callable[[StampArray], Iterator[tuple[int, ImageArray]]] = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def read(self, indices: Sequence[int] | StampArray | None = None) -> Iterator[tuple[int, ImageArray]]:
        """Some of the images (all if None), each once, by rising index: (index, (height, width, 3) uint8 rgb).

        Raises:
            RecordingError: for an image that can't be decoded.
        """
        wanted = np.arange(len(self), dtype=np.int64) if indices is None else np.unique(np.asarray(indices, np.int64))
        return self.open_images(wanted)


@dataclass(frozen=True)
class RecordedEpisode:
    """An episode as its bag has it.

    Attributes:
        info: its own words; of a bag of other origin what its reader was told.
        robot: the arm.
        description: URDF that was in force, empty where the bag has none.
        joint_positions: (n, joints) rad, measured, in the robot YAML's order.
        joint_velocities: (n, joints) rad/s, at the same stamps.
        joint_openings: (n,) gripper opening known when each joint state came, NaN while unknown.
        gripper_openings: (n,) measured.
        gripper_commands: (n,) commanded; at the times of their reception.
        tool_targets: what the filter let through, tcp in base.
        joint_targets: the same of sources that act in joint space.
        joint_commands: (n, joints) rad, what was sent to the arm.
        chunks: in the order of their reception.
        verdicts: by stamp.
        events: by stamp.
        tasks: by reception.
        observed: JSON objects of `policies/<policy>/observed`, each with its `policy`, in order.
        cameras: by the rig's names; only those that are in the bag.
        truth: (n, 4, 4) poses in base that a simulator told, by name: things, `tcp`, `camera/<rig camera>`.
        findings: what is to be known besides.
        topics: relative name -> name in the bag.
        open_images: (camera, index, image) of several cameras in one pass; see `read_images`.
    """

    info: EpisodeInfo
    robot: RobotConfig
    description: str
    joint_positions: Series
    joint_velocities: Series
    joint_openings: FloatArray
    gripper_openings: Series
    gripper_commands: Series
    tool_targets: TargetSeries
    joint_targets: TargetSeries
    joint_commands: Series
    chunks: tuple[RecordedChunk, ...]
    verdicts: tuple[RecordedVerdict, ...]
    events: tuple[RecordedEvent, ...]
    tasks: tuple[RecordedTask, ...]
    observed: tuple[Mapping[str, Any], ...]
    cameras: Mapping[str, RecordedCamera]
    truth: Mapping[str, Series] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    topics: Mapping[str, str] = field(default_factory=dict)
    open_images: Callable[[Mapping[str, StampArray]], Iterator[tuple[str, int, ImageArray]]] | None = field(
        default=None, repr=False, compare=False
    )

    def read_images(self, wanted: Mapping[str, Sequence[int] | StampArray]) -> Iterator[tuple[str, int, ImageArray]]:
        """(camera, index, image) of some images of some cameras: each camera's by rising index, the cameras mixed.

        Raises:
            RecordingError: for an image that can't be decoded.
        """
        indices = {name: np.unique(np.asarray(some, dtype=np.int64)) for name, some in wanted.items()}
        if self.open_images is not None:
            yield from self.open_images(indices)
            return
        for name, some in indices.items():
            yield from ((name, index, image) for index, image in self.cameras[name].read(some))

    @property
    def sources(self) -> tuple[tuple[int, str], ...]:
        """(since when, ns; who has the arm), by time: from verdicts and `source` events; the first holds from ever."""
        told = [(verdict.stamp_ns, verdict.source) for verdict in self.verdicts]
        told += [(event.stamp_ns, str(event.values.get("source", ""))) for event in self.events if _is_switch(event)]
        told.sort(key=lambda entry: entry[0])
        first = told[0][1] if told else ""
        changes = [(0, self.info.source or first)]
        for stamp_ns, source in told:
            if source != changes[-1][1]:
                changes.append((stamp_ns, source))
        return tuple(changes)


def _is_switch(event: RecordedEvent) -> bool:
    return event.event == "source"
