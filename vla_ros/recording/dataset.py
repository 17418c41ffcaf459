"""What every dataset format is written from and read into: episodes on a regular grid, a frame a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from vla_ros.contract import Contract
from vla_ros.types import ImageArray

DType = Literal["float32", "float64", "int64", "bool", "string"]

STATE = "observation.state"
"""The contract's state vector at the frame's stamp."""
IMAGES = "observation.images."
"""Begins the name of an image column; the rest is the contract's name of the image. As the rig's camera gave it: what a
contract does to an image is done by who loads it, so that one dataset serves several."""
ACTION = "action"
"""The executed target a period after the frame's stamp, absolute: tcp in base (position, quat_xyzw) or joints, then the
gripper's opening where the contract has one. With the label `measured_next`, where the arm was measured then; the
gripper is the one wanted all the same, as in Bridge. Quaternions go on from frame to frame without changing sides."""
POLICY_ACTION, HAS_POLICY_ACTION = "policy_action", "has_policy_action"
"""What the selected source itself wanted then, before the filter, in the same form; NaN where it said nothing that
reaches that time, and the flag is False. The source may be a person (`source`)."""
STAMP = "stamp_ns"
"""Exposure of the reference camera's image: the true time of the frame. LeRobot's `timestamp` is the grid's."""
TCP_POSE, JOINT_POSITIONS = "tcp_pose", "joint_positions"
"""Measured at the stamp: tcp in base (position, quat_xyzw), and the joints in the robot YAML's order, rad."""
SOURCE = "source"
"""Who had the arm at the action's time: a policy's name, `teleop`, or empty for nobody."""
IS_INTERVENTION = "is_intervention"
"""A person had the arm at the action's time, in an episode in which a policy had it before."""
IS_FILTERED = "is_filtered"
"""A limit acted between the stamp and the action's time."""
IS_HELD = "is_held"
"""Nobody moved the arm at the action's time: holding, stopped or in a fault. The action is where the last command left
it."""
IS_PADDING = "is_padding"
"""The action lies after the recording's end, and the last one stands for it."""
IS_IDLE, IS_OUTLIER, IS_JUMP, IS_DUPLICATE = "is_idle", "is_outlier", "is_jump", "is_duplicate"
"""What cleaning found: nothing moves; a value far from its neighbours; a stamp that leaps, or frames dropped before it;
the reference image of the frame before once more."""

OBJECT_POSE, DESTINATION_POSE = "object_pose", "destination_pose"
"""Where the thing that the instruction names, and its destination, truly were at the stamp: in base (position,
quat_xyzw); NaN where there is none. Like the next two only in what a simulator recorded."""
OBJECT_XY, DESTINATION_XY = "object_xy.", "destination_xy."
"""Begin the names of columns, one for each image: where the middles of both lie in the camera's full image, from (0, 0)
at the upper left to (1, 1) at the lower right; NaN where they aren't in it. What hides them isn't asked."""


@dataclass(frozen=True)
class Column:
    """One value a frame.

    Attributes:
        name: e.g. `action`.
        dtype: of the entries.
        shape: of one frame's value, e.g. (8,); (1,) for a number.
        names: of the entries, empty where they have none.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...] = (1,)
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageColumn:
    """One image a frame, (height, width, 3) uint8 rgb.

    Attributes:
        name: `observation.images.` and the contract's name of it.
        height: pixels.
        width: pixels.
        camera: the rig's camera, empty where nobody said.
    """

    name: str
    height: int
    width: int
    camera: str = ""


@dataclass(frozen=True)
class Schema:
    """What all episodes of a dataset have in common.

    Attributes:
        fps: frames a second: one over the contract's period.
        robot: its name.
        columns: values, in the order in which they are written.
        images: images, likewise.
        contract: under which it was made; None for a public dataset that says nothing of it.
    """

    fps: float
    robot: str
    columns: tuple[Column, ...]
    images: tuple[ImageColumn, ...]
    contract: Contract | None = None

    def column(self, name: str) -> Column | None:
        """The column of that name, None where there is none."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True)
class EpisodeFrames:
    """One episode's frames; the images come when they are asked for.

    Attributes:
        name: of the bag or file that it is from.
        columns: by name, (frames, *shape), in the column's dtype; strings as objects.
        tasks: the instruction in force at each frame.
        read_images: begins anew with each call and gives (image column, frame, image): each column's frames in order
            from 0 on and none left out, the columns mixed as they come.
        attributes: what else is known, as JSON has it: outcome, operator, note, versions, what cleaning found.
    """

    name: str
    columns: Mapping[str, NDArray[Any]]
    tasks: tuple[str, ...]
    read_images: Callable[[], Iterator[tuple[str, int, ImageArray]]]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tasks)


class Dataset(Protocol):
    """A dataset on disk, read an episode at a time."""

    @property
    def schema(self) -> Schema: ...

    @property
    def names(self) -> tuple[str, ...]:
        """Of its episodes, in order."""

    def read(self, index: int) -> EpisodeFrames:
        """One episode.

        Raises:
            DatasetError: if its files are damaged.
        """


class DatasetWriter(Protocol):
    """A dataset being written. An episode that was added stays, whatever happens to the next one."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the episodes that it holds already: who resumes leaves them out."""

    def add(self, episode: EpisodeFrames) -> None:
        """Writes one episode.

        Raises:
            DatasetError: if it doesn't fit the schema, or the disk is full.
        """

    def close(self) -> None:
        """Completes the files: statistics, episodes, tasks."""


class Format(Protocol):
    """A dataset format; a module is one."""

    def create(self, folder: Path, schema: Schema, options: Mapping[str, Any]) -> DatasetWriter:
        """Begins a dataset, or goes on with the one that is there if its schema is the same.

        Raises:
            DatasetError: if there is another one, naming where it differs, or an option isn't understood.
        """

    def open_dataset(self, folder: Path) -> Dataset:
        """Reads a dataset of this format, ours or anybody's.

        Raises:
            DatasetError: if it isn't one, or what is in it isn't understood.
        """
