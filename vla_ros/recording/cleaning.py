"""What a dataset is better without, or should at least say: idle frames, outliers, leaps in time, repeated images.

Each is flagged in a column of its own, dropped, or not looked for. What was found stands in the episode's attributes
together with the thresholds, so that a dataset tells how it was cleaned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vla_ros.errors import DatasetError
from vla_ros.recording import dataset as d
from vla_ros.types import ImageArray

Treatment = Literal["off", "flag", "drop"]
Flags = NDArray[np.bool_]

ATTRIBUTE = "cleaning"
"""Where in an episode's attributes it stands what was found, and by which thresholds."""

_MOVING = (d.ACTION, d.TCP_POSE, d.JOINT_POSITIONS)


@dataclass(frozen=True)
class CleaningOptions:
    """What is looked for, and what is done with it.

    Attributes:
        idle: frames in which nothing moves: neither the action nor the arm nor the gripper.
        outliers: values far from those just before and after, or past `limits`.
        jumps: frames whose true stamp isn't a period after the one before. Dropping one drops that frame alone.
        duplicates: frames that show the reference image of the frame before once more.
        idle_speed: m/s, rad/s and quaternion entries a second below which something stands still.
        idle_opening: change of the gripper's opening, of 1, that counts as none.
        idle_least_s: shorter rests are part of a motion; at an episode's ends every idle frame counts.
        outlier_sigmas: deviation from the median of the frames about it, in standard deviations as these tell it.
        outlier_least: deviation (m, rad) that is never too much.
        outlier_frames: how many frames on either side are looked at.
        limits: column -> lowest and highest value that any of its entries may have.
        jump_s: how much longer or shorter than a period a step of the stamps may be.
    """

    idle: Treatment = "flag"
    outliers: Treatment = "flag"
    jumps: Treatment = "flag"
    duplicates: Treatment = "flag"
    idle_speed: float = 0.002
    idle_opening: float = 0.01
    idle_least_s: float = 1.0
    outlier_sigmas: float = 8.0
    outlier_least: float = 0.02
    outlier_frames: int = 3
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    jump_s: float = 0.1


def clean(
    schema: d.Schema, frames: d.EpisodeFrames, options: CleaningOptions | None = None
) -> tuple[d.Schema, d.EpisodeFrames]:
    """Flags and drops frames of an episode.

    Args:
        schema: of the episode.
        frames: as `make_frames` made them, or as they were read from a dataset.
        options: what is looked for.

    Returns:
        The schema with a column for each that isn't off, and the frames that are left. Where frames were dropped inside
        the episode the next one is a jump: nothing may be learnt across it.

    Raises:
        DatasetError: if no frame is left, or `limits` names a column that isn't there.
    """
    options = options or CleaningOptions()
    finders: dict[str, tuple[Treatment, Callable[[d.Schema, d.EpisodeFrames, CleaningOptions], Flags]]] = {
        d.IS_IDLE: (options.idle, find_idle),
        d.IS_OUTLIER: (options.outliers, find_outliers),
        d.IS_JUMP: (options.jumps, find_jumps),
        d.IS_DUPLICATE: (options.duplicates, find_duplicates),
    }
    flags = {name: find(schema, frames, options) for name, (how, find) in finders.items() if how != "off"}
    is_kept = np.ones(len(frames), dtype=bool)
    for name, (how, _) in finders.items():
        if how == "drop":
            is_kept &= ~flags[name]
    if not is_kept.any():
        found = ", ".join(f"{int(each.sum())} {name}" for name, each in flags.items())
        raise DatasetError(f"{frames.name}: cleaning leaves nothing of {len(frames)} frames: {found}")
    kept = np.flatnonzero(is_kept)
    if len(kept) < len(frames):
        flags.setdefault(d.IS_JUMP, np.zeros(len(frames), dtype=bool))[kept[1:][np.diff(kept) > 1]] = True
    columns = {**frames.columns, **{name: each[:, None] for name, each in flags.items()}}
    report = {
        "found": {name: int(each.sum()) for name, each in flags.items()},
        "dropped": len(frames) - len(kept),
        "options": dataclasses.asdict(options),
    }
    left = replace(
        frames,
        columns={name: values[kept] for name, values in columns.items()},
        tasks=tuple(frames.tasks[index] for index in kept),
        read_images=_reader(frames.read_images, kept),
        attributes={**frames.attributes, ATTRIBUTE: report},
    )
    others = tuple(column for column in schema.columns if column.name not in flags)
    return replace(schema, columns=(*others, *(d.Column(name, "bool") for name in flags))), left


def find_idle(schema: d.Schema, frames: d.EpisodeFrames, options: CleaningOptions) -> Flags:
    """(frames,) in which nothing moves, for long enough or at an end."""
    count = len(frames)
    is_still = np.ones(max(0, count - 1), dtype=bool)
    for name in _MOVING:
        column = schema.column(name)
        if column is None:
            continue
        steps = np.abs(np.diff(frames.columns[name].astype(np.float64), axis=0))
        is_gripper = np.array([entry == "gripper" for entry in column.names] or [False] * steps.shape[1])
        is_still &= (steps[:, ~is_gripper] <= options.idle_speed / schema.fps).all(axis=1)
        is_still &= (steps[:, is_gripper] <= options.idle_opening).all(axis=1)
    # A frame is idle if nothing has moved since the one before; the first, if nothing does until the next.
    is_idle = np.append(is_still[:1], is_still) if count > 1 else np.zeros(count, dtype=bool)
    least = max(1, round(options.idle_least_s * schema.fps))
    for begin, end in _runs(is_idle):
        if begin > 0 and end < count and end - begin < least:
            is_idle[begin:end] = False
    return is_idle


def find_outliers(schema: d.Schema, frames: d.EpisodeFrames, options: CleaningOptions) -> Flags:
    """(frames,) with a value far from the median of the frames about it, or past the limits given; not grippers.

    Source: Hampel's identifier, as in Pearson et al., "Generalized Hampel filters", EURASIP J. 2016, eq. 3.
    """
    is_outlier = np.zeros(len(frames), dtype=bool)
    reach = options.outlier_frames
    for name in _MOVING:
        column = schema.column(name)
        if column is None or len(frames) <= 2 * reach:
            continue
        is_arm = np.array([entry != "gripper" for entry in column.names] or [True] * column.shape[0])
        values = frames.columns[name].astype(np.float64)[:, is_arm]
        # At the ends the window is that of the first and last frames that have one: a mirror would hide what is there.
        centres = np.clip(np.arange(len(frames)) - reach, 0, len(frames) - 2 * reach - 1)
        windows = np.lib.stride_tricks.sliding_window_view(values, 2 * reach + 1, axis=0)[centres]
        middle = np.median(windows, axis=-1)
        spread = 1.4826 * np.median(np.abs(windows - middle[..., None]), axis=-1)
        allowed = np.maximum(options.outlier_sigmas * spread, options.outlier_least)
        is_outlier |= (np.abs(values - middle) > allowed).any(axis=1)
    for name, (low, high) in options.limits.items():
        if name not in frames.columns:
            raise DatasetError(f"{frames.name}: limits are given for {name!r}; columns: {', '.join(frames.columns)}")
        values = frames.columns[name]
        is_outlier |= ((values < low) | (values > high)).reshape(len(frames), -1).any(axis=1)
    return is_outlier


def find_jumps(schema: d.Schema, frames: d.EpisodeFrames, options: CleaningOptions) -> Flags:
    """(frames,) whose stamp isn't a period after the one before; none where a dataset has no stamps."""
    if d.STAMP not in frames.columns:
        return np.zeros(len(frames), dtype=bool)
    steps_s = np.diff(frames.columns[d.STAMP][:, 0]) * 1e-9
    return np.append(False, np.abs(steps_s - 1.0 / schema.fps) > options.jump_s)


def find_duplicates(schema: d.Schema, frames: d.EpisodeFrames, options: CleaningOptions) -> Flags:
    """(frames,) with the stamp of the frame before."""
    if d.STAMP not in frames.columns:
        return np.zeros(len(frames), dtype=bool)
    return np.append(False, np.diff(frames.columns[d.STAMP][:, 0]) == 0)


def _runs(flags: Flags) -> Iterator[tuple[int, int]]:
    """(begin, end) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    yield from ((int(begin), int(end)) for begin, end in edges.reshape(-1, 2))


def _reader(
    read: Callable[[], Iterator[tuple[str, int, ImageArray]]], kept: NDArray[Any]
) -> Callable[[], Iterator[tuple[str, int, ImageArray]]]:
    numbers = {int(frame): number for number, frame in enumerate(kept)}

    def read_kept() -> Iterator[tuple[str, int, ImageArray]]:
        for column, frame, image in read():
            if frame in numbers:
                yield column, numbers[frame], image

    return read_kept
