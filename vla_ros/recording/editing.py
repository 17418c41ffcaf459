"""Datasets merged, split, and with episodes dropped; their statistics anew. Of any format, into any format.

Everything is copied an episode at a time into another dataset, and what is there already is left out, so that a copy
that was interrupted is gone on with. From LeRobot to LeRobot videos go over as they are; see `LeRobotFrames`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vla_ros.errors import DatasetError, did_you_mean
from vla_ros.recording.dataset import Dataset, DatasetWriter, EpisodeFrames, Schema
from vla_ros.recording.formats.fitting import fitting_images
from vla_ros.recording.formats.schema import find_schema_differences
from vla_ros.recording.statistics import ImageStatistics, Statistics, column_statistics, combine, sampled_frames

OnEpisode = Callable[[int, int], None]
"""Called with how many episodes are done, and how many there are."""


def _say_nothing(_done: int, _all: int) -> None:
    return


def copy_episodes(
    source: Dataset,
    writer: DatasetWriter,
    indices: Iterable[int] | None = None,
    names: Mapping[int, str] | None = None,
    on_episode: OnEpisode = _say_nothing,
) -> list[str]:
    """Copies episodes that the writer doesn't have yet.

    Args:
        source: where they are.
        writer: of a dataset of the same schema.
        indices: which, in this order; None for all.
        names: what they are called there, where that isn't their name.
        on_episode: see `OnEpisode`.

    Returns:
        Names of those that were copied.

    Raises:
        DatasetError: if one can't be read or written; those before it are there.
    """
    wanted = list(range(len(source.names)) if indices is None else indices)
    there, copied = set(writer.names), []
    for number, index in enumerate(wanted):
        name = (names or {}).get(index, source.names[index])
        if name not in there:
            episode = source.read(index)
            writer.add(episode if episode.name == name else dataclasses.replace(episode, name=name))
            there.add(name)
            copied.append(name)
        on_episode(number + 1, len(wanted))
    return copied


def merged_schema(sources: Mapping[str, Dataset]) -> Schema:
    """The schema of datasets that can be merged.

    Args:
        sources: by what they are called in the error.

    Raises:
        DatasetError: naming where two of them differ.
    """
    (first, dataset), *others = sources.items()
    for other, another in others:
        found = find_schema_differences(dataset.schema, another.schema)
        if found:
            raise DatasetError(
                f"{first} and {other} can't be merged: {'; '.join(found)} (the first != the other); export both under "
                "one contract"
            )
    return dataset.schema


def merge(
    sources: Mapping[str, Dataset], writer: DatasetWriter, on_episode: OnEpisode = _say_nothing
) -> dict[str, list[str]]:
    """Puts all episodes of several datasets into one, in order.

    Args:
        sources: by a label, which comes before the name of an episode that another dataset has, too.
        writer: of a dataset of their schema, see `merged_schema`.
        on_episode: see `OnEpisode`.

    Returns:
        Names of those that were copied, by label.
    """
    total = sum(len(dataset.names) for dataset in sources.values())
    taken: set[str] = set()
    done, copied = 0, {}
    for label, dataset in sources.items():
        names = {}
        for index, name in enumerate(dataset.names):
            names[index] = f"{label}/{name}" if name in taken else name
            if names[index] in taken:
                raise DatasetError(f"two datasets are called {label} and have an episode {name}; rename one's folder")
            taken.add(names[index])

        def on_part(part: int, _all: int, before: int = done) -> None:
            on_episode(before + part, total)

        copied[label] = copy_episodes(dataset, writer, None, names, on_part)
        done += len(names)
    return copied


def split_indices(episodes: int, fractions: Sequence[float], seed: int | None) -> list[list[int]]:
    """Which episodes go into which part.

    Args:
        episodes: how many there are.
        fractions: of each part, summing to 1.
        seed: to draw them by; None to take them as they come.

    Returns:
        The parts' episodes, each in order. Sizes are rounded so that all episodes are in one.

    Raises:
        DatasetError: if the fractions aren't positive or don't sum to 1, or a part would be empty.
    """
    if len(fractions) < 2 or min(fractions) <= 0.0 or abs(sum(fractions) - 1.0) > 1e-6:
        raise DatasetError(f"fractions {list(fractions)}: two or more positive ones that sum to 1")
    order = np.arange(episodes) if seed is None else np.random.default_rng(seed).permutation(episodes)
    ends = np.rint(np.cumsum(fractions) * episodes).astype(int)
    parts = [sorted(part.tolist()) for part in np.split(order, ends[:-1])]
    if not all(parts):
        raise DatasetError(f"{episodes} episodes in parts of {list(fractions)}: one would be empty")
    return parts


def remaining(dataset: Dataset, dropped: Sequence[str]) -> list[int]:
    """The episodes without those that are named, by name or number.

    Raises:
        DatasetError: for one that isn't there.
    """
    gone = set()
    for word in dropped:
        if word in dataset.names:
            gone.add(dataset.names.index(word))
        elif word.isdigit() and int(word) < len(dataset.names):
            gone.add(int(word))
        else:
            raise DatasetError(f"no episode {word!r}; {did_you_mean(word, dataset.names[:20])}, or a number from 0 on")
    return [index for index in range(len(dataset.names)) if index not in gone]


def episode_statistics(schema: Schema, episode: EpisodeFrames) -> dict[str, Statistics]:
    """Of all columns and images of an episode, from the values themselves."""
    found: dict[str, Statistics] = {}
    for column in schema.columns:
        known = None if column.dtype == "string" else column_statistics(np.asarray(episode.columns[column.name]))
        if known is not None:
            found[column.name] = known
    if schema.images:
        wanted = set(sampled_frames(len(episode)).tolist())
        images = {image.name: ImageStatistics() for image in schema.images}
        for name, frame, image in fitting_images(schema, episode):
            if frame in wanted:
                images[name].add(image)
        found |= {name: known for name, counted in images.items() if (known := counted.result()) is not None}
    return found


def all_statistics(dataset: Dataset, on_episode: OnEpisode = _say_nothing) -> list[dict[str, Statistics]]:
    """Of each episode, from the values themselves."""
    found = []
    for index in range(len(dataset.names)):
        found.append(episode_statistics(dataset.schema, dataset.read(index)))
        on_episode(index + 1, len(dataset.names))
    return found


def combined_statistics(episodes: Sequence[Mapping[str, Statistics]]) -> dict[str, Statistics]:
    """A dataset's by column, from its episodes'."""
    names = list(dict.fromkeys(name for episode in episodes for name in episode))
    found = {name: combine([episode[name] for episode in episodes if name in episode]) for name in names}
    return {name: statistics for name, statistics in found.items() if statistics is not None}


def label_of(folder: Path) -> str:
    """What a dataset is called: the name of its folder or file."""
    return folder.resolve().stem
