"""Cleaning finds what was put in, flags or drops just that, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from vla_ros.errors import DatasetError
from vla_ros.recording import dataset as d
from vla_ros.recording.cleaning import CleaningOptions, clean

FPS, COUNT = 10.0, 60
SCHEMA = d.Schema(
    FPS,
    "panda",
    (
        d.Column(d.ACTION, "float32", (8,), ("x", "y", "z", "qx", "qy", "qz", "qw", "gripper")),
        d.Column(d.STAMP, "int64"),
        d.Column(d.TCP_POSE, "float64", (7,), ("x", "y", "z", "qx", "qy", "qz", "qw")),
    ),
    (d.ImageColumn("observation.images.base", 2, 2),),
)


def episode(**changes: Any) -> d.EpisodeFrames:
    """A tool that goes along x at 5 cm/s, every image its frame's number."""
    time = np.arange(COUNT) / FPS
    pose = np.zeros((COUNT, 7))
    pose[:, 0], pose[:, 6] = 0.05 * time, 1.0
    action = np.concatenate([pose, np.ones((COUNT, 1))], axis=1).astype(np.float32)
    columns = {d.ACTION: action, d.TCP_POSE: pose, d.STAMP: (1_000_000_000 * time).round().astype(np.int64)[:, None]}
    columns.update(changes)

    def read() -> Iterator[tuple[str, int, Any]]:
        for frame in range(COUNT):
            yield "observation.images.base", frame, np.full((2, 2, 3), frame, np.uint8)

    return d.EpisodeFrames("one", columns, tuple(f"task {k}" for k in range(COUNT)), read, {"note": "kept"})


def stopped(*spans: tuple[int, int]) -> d.EpisodeFrames:
    """The same, with rests: frames of each span stay where the one before was."""
    moves = np.full(COUNT, 0.005)
    for begin, end in spans:
        moves[begin:end] = 0.0
    plain = episode()
    columns = {name: plain.columns[name].copy() for name in (d.ACTION, d.TCP_POSE)}
    for values in columns.values():
        values[:, 0] = np.cumsum(moves)
    return episode(**columns)


def flagged(frames: d.EpisodeFrames, name: str) -> list[int]:
    return np.flatnonzero(frames.columns[name][:, 0]).tolist()


def test_clean_motion_is_left_as_it_is() -> None:
    schema, frames = clean(SCHEMA, episode())
    for name in (d.IS_IDLE, d.IS_OUTLIER, d.IS_JUMP, d.IS_DUPLICATE):
        assert flagged(frames, name) == []
        assert schema.column(name).dtype == "bool"
    assert len(frames) == COUNT
    assert frames.attributes["note"] == "kept"
    assert frames.attributes["cleaning"]["dropped"] == 0


def test_rests_are_idle_at_the_ends_and_inside_if_they_last() -> None:
    """Inside 12 frames count and 5 don't: a second is 10. At the ends every one does."""
    _, frames = clean(SCHEMA, stopped((0, 3), (20, 32), (40, 45), (58, 60)))
    assert flagged(frames, d.IS_IDLE) == [0, 1, 2, *range(20, 32), 58, 59]


def test_gripper_that_moves_while_the_arm_rests_is_not_idle() -> None:
    still = stopped((20, 40))
    action = still.columns[d.ACTION].copy()
    action[:, 7] = np.where(np.arange(COUNT) < 30, 1.0, 0.0)
    _, frames = clean(SCHEMA, episode(**{d.ACTION: action, d.TCP_POSE: still.columns[d.TCP_POSE]}))
    assert flagged(frames, d.IS_IDLE) == [*range(20, 30)]  # From 31 on the rest is of 9 frames.
    assert flagged(frames, d.IS_OUTLIER) == []


@pytest.mark.parametrize("place", [0, 7, 30, 59])
@pytest.mark.parametrize("name", [d.ACTION, d.TCP_POSE])
def test_value_far_from_its_neighbours_is_an_outlier(name: str, place: int) -> None:
    values = episode().columns[name].copy()
    values[place, 2] += 0.2
    _, frames = clean(SCHEMA, episode(**{name: values}))
    assert flagged(frames, d.IS_OUTLIER) == [place]


def test_steps_that_stay_are_motion_and_no_outliers() -> None:
    values = episode().columns[d.ACTION].copy()
    values[30:, 1] += 0.3
    _, frames = clean(SCHEMA, episode(**{d.ACTION: values}), CleaningOptions(outlier_sigmas=1e9))
    assert flagged(frames, d.IS_OUTLIER) == []


def test_values_past_given_limits_are_outliers() -> None:
    _, frames = clean(SCHEMA, episode(), CleaningOptions(limits={d.TCP_POSE: (-1.0, 1.001)}))
    assert flagged(frames, d.IS_OUTLIER) == []
    _, frames = clean(SCHEMA, episode(), CleaningOptions(limits={d.STAMP: (0, 5.75e9)}))
    assert flagged(frames, d.IS_OUTLIER) == [58, 59]
    with pytest.raises(DatasetError, match="'speed'"):
        clean(SCHEMA, episode(), CleaningOptions(limits={"speed": (0, 1)}))


def test_leaps_of_the_stamps_and_repeated_images_are_found() -> None:
    stamps = episode().columns[d.STAMP].copy()
    stamps[20:] += 150_000_000
    stamps[41] = stamps[40]
    _, frames = clean(SCHEMA, episode(**{d.STAMP: stamps}))
    assert flagged(frames, d.IS_JUMP) == [20]
    assert flagged(frames, d.IS_DUPLICATE) == [41]


def test_dropped_frames_take_their_images_and_tasks_along_and_leave_a_jump() -> None:
    _, frames = clean(SCHEMA, stopped((0, 3), (20, 32)), CleaningOptions(idle="drop"))
    left = [*range(3, 20), *range(32, 60)]
    assert frames.tasks == tuple(f"task {k}" for k in left)
    assert [(frame, int(image[0, 0, 0])) for _, frame, image in frames.read_images()] == list(enumerate(left))
    assert (frames.columns[d.STAMP][:, 0] / 1e8).round().astype(int).tolist() == left
    assert flagged(frames, d.IS_JUMP) == [left.index(32)]
    assert frames.attributes["cleaning"]["dropped"] == 15
    assert frames.attributes["cleaning"]["options"]["idle_speed"] == 0.002


def test_what_is_off_has_no_column_and_an_episode_of_nothing_but_rest_is_refused() -> None:
    schema, frames = clean(SCHEMA, episode(), CleaningOptions(idle="off", jumps="off"))
    assert schema.column(d.IS_IDLE) is None
    assert d.IS_JUMP not in frames.columns
    with pytest.raises(DatasetError, match="leaves nothing of 60 frames"):
        clean(SCHEMA, stopped((0, 60)), CleaningOptions(idle="drop"))


def test_dataset_without_stamps_is_cleaned_of_the_rest() -> None:
    plain = episode()
    columns = {name: values for name, values in plain.columns.items() if name != d.STAMP}
    frames = d.EpisodeFrames("one", columns, plain.tasks, plain.read_images)
    _, cleaned = clean(SCHEMA, frames)
    assert flagged(cleaned, d.IS_JUMP) == flagged(cleaned, d.IS_DUPLICATE) == []
