"""Which frames are examples, and how far each one's chunk goes.

A chunk ends before the first step that isn't to be learnt; a frame whose first step isn't is no example. So the steps
that count are always the first ones of a chunk, and a chain of deltas is never broken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_ros.errors import DatasetError
from vla_ros.recording import dataset as d
from vla_ros.recording.dataset import EpisodeFrames

BoolArray = NDArray[np.bool_]
RowArray = NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """What is learned from.

    Attributes:
        sources: who had the arm (`source`), e.g. `teleop` or `expert`; empty for anybody.
        outcomes: of the episodes, e.g. `success`; empty for any.
        interventions_only: only what a person did where a policy had the arm before.
        with_held: also what is commanded while nobody moves the arm.
        with_idle: also frames that cleaning found idle: at rest for long.
        with_outliers: also frames and actions that cleaning found far from their neighbours.
    """

    sources: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    interventions_only: bool = False
    with_held: bool = False
    with_idle: bool = True
    with_outliers: bool = False


def select_steps(
    frames: EpisodeFrames, selection: Selection, horizon: int, shift: int
) -> tuple[BoolArray, dict[str, int]]:
    """Which steps of an episode's chunks are learned from.

    Args:
        frames: the episode.
        selection: what is wanted.
        horizon: steps of a chunk.
        shift: see `chunk_rows`.

    Returns:
        (frames, H) bool, in each chunk true from the first step up to where it ends; and how many frames are no
        examples, by the reason.

    Raises:
        DatasetError: if the dataset doesn't say what is asked for.
    """
    count = len(frames)
    rows = chunk_rows(count, horizon, shift)
    is_inside = (rows >= 0) & (rows < count)
    rows = np.clip(rows, 0, max(0, count - 1))
    first = rows[:, :1]
    reasons: dict[str, BoolArray] = {}
    if selection.outcomes and str(frames.attributes.get("outcome", "")) not in selection.outcomes:
        reasons[f"outcome isn't {' or '.join(selection.outcomes)}"] = np.zeros_like(is_inside)
    reasons["no action recorded for the first step"] = is_inside
    is_padding = _flag(frames, d.IS_PADDING)
    reasons["past the recording's end"] = ~is_padding[rows]
    sources = _texts(frames, d.SOURCE, "sources" if selection.sources else "")
    if selection.sources:
        reasons[f"source isn't {' or '.join(selection.sources)}"] = np.isin(sources, selection.sources)[rows]
    if selection.interventions_only:
        if d.IS_INTERVENTION not in frames.columns:
            raise _unsaid(frames, d.IS_INTERVENTION, "interventions_only")
        reasons["no intervention"] = _flag(frames, d.IS_INTERVENTION)[rows]
    if not selection.with_held:
        reasons["nobody moved the arm"] = ~_flag(frames, d.IS_HELD)[rows]
    if not selection.with_idle:
        reasons["idle"] = np.broadcast_to(~_flag(frames, d.IS_IDLE)[:, None], rows.shape)
    if not selection.with_outliers:
        is_outlier = _flag(frames, d.IS_OUTLIER)
        reasons["outlier"] = ~is_outlier[rows] & ~is_outlier[:, None]
    tasks = np.array(frames.tasks, dtype=object)
    # Between the frame, its first step and every later one: who leads, what for, and no leap in time.
    leaps = np.cumsum(_flag(frames, d.IS_JUMP))
    starts = np.arange(count)[:, None]
    reasons["a leap in time or another's action before the first step"] = (
        (sources[rows] == sources[first])
        & ((tasks[rows] == tasks[starts]) | (rows < starts))
        & (leaps[rows] <= leaps[first])
        & (leaps[np.maximum(rows, starts)] <= leaps[first])
    )
    return _count(reasons, is_inside.shape)


def explain(left_out: Mapping[str, int]) -> str:
    """Half a sentence of how many frames were left out and why."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items(), key=lambda item: -item[1]))


def _count(reasons: Mapping[str, BoolArray], shape: tuple[int, ...]) -> tuple[BoolArray, dict[str, int]]:
    is_valid, left_out = np.ones(shape, dtype=bool), {}
    is_example = np.ones(shape[0], dtype=bool)
    for reason, is_good in reasons.items():
        lost = int(np.count_nonzero(is_example & ~is_good[:, 0]))
        if lost:
            left_out[reason] = lost
        is_example &= is_good[:, 0]
        is_valid &= is_good
    return np.logical_and.accumulate(is_valid, axis=1), left_out


def _flag(frames: EpisodeFrames, name: str) -> BoolArray:
    """(frames,) a column of flags; all False where there is none."""
    if name not in frames.columns:
        return np.zeros(len(frames), dtype=bool)
    return np.asarray(frames.columns[name].reshape(len(frames)), dtype=bool)


def _texts(frames: EpisodeFrames, name: str, needed_for: str) -> NDArray[np.object_]:
    if name not in frames.columns:
        if needed_for:
            raise _unsaid(frames, name, needed_for)
        return np.full(len(frames), "", dtype=object)
    return np.asarray(frames.columns[name].reshape(len(frames)), dtype=object)


def _unsaid(frames: EpisodeFrames, column: str, option: str) -> DatasetError:
    return DatasetError(
        f"episode {frames.name} has no column {column!r}, which `{option}` asks for; leave that option out"
    )


def chunk_rows(frames: int, horizon: int, shift: int) -> RowArray:
    """(frames, H) the row of each frame's each step; outside of [0, frames) where the episode has none.

    Args:
        frames: of the episode.
        horizon: steps of a chunk.
        shift: row of the first step, counted from the frame's own.
    """
    return np.asarray(np.arange(frames)[:, None] + np.arange(horizon)[None] + shift, dtype=np.int64)
