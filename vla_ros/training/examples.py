"""Datasets as examples to learn from: what was seen at a frame, and what was done from there on.

Every frame of every episode has a row in the arrays; `rows` says which are examples. Nothing is normalised here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.contract import Contract, action_width, state_width
from vla_ros.errors import ContractError, DatasetError
from vla_ros.policies.architectures.spec import ModelSpec, split_words
from vla_ros.policies.statistics_file import CheckpointStatistics
from vla_ros.recording.dataset import Dataset, EpisodeFrames
from vla_ros.recording.opening import open_any
from vla_ros.training.example_statistics import example_statistics
from vla_ros.training.fitting import Fit, common_contract, fit_dataset
from vla_ros.training.image_cache import CacheOptions, Progress, prepare_images
from vla_ros.training.labels import label_chunks
from vla_ros.training.selection import BoolArray, RowArray, Selection, explain, select_steps
from vla_ros.training.states import read_poses, read_states
from vla_ros.training.truth import Truth, read_truth
from vla_ros.types import FloatArray, ImageArray


@dataclass(frozen=True)
class ExampleEpisode:
    """One episode.

    Attributes:
        name: of it.
        part: number of its dataset.
        first: its first row.
        length: of its rows.
        attributes: see `EpisodeFrames`.
    """

    name: str
    part: int
    first: int
    length: int
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ExamplePart:
    """One dataset.

    Attributes:
        path: of it.
        first: its first row.
        images: the contract's image -> (its rows, 3, h, w) uint8.
    """

    path: Path
    first: int
    images: Mapping[str, ImageArray]


@dataclass(frozen=True, eq=False)
class ExampleSet:
    """Examples of one contract, out of one or several datasets.

    Attributes:
        contract: what the state, the images and the actions mean.
        joints: of the arm; of the last dataset's where the contract names no joints.
        parts: the datasets.
        episodes: all of them, in the order of the rows.
        tasks: instructions, each once.
        task_of: (n,) index into tasks.
        states: (n, s) state vectors.
        actions: (n, H, d) float32 chunks, in the contract's form; 0 in steps that aren't valid.
        is_valid: (n, H) steps to be learned from, the first ones of each chunk.
        truth: where things are, None where no dataset says.
        rows: (examples,) which rows are examples, rising.
        left_out: how many frames are none, by the reason.
    """

    contract: Contract
    joints: int
    parts: tuple[ExamplePart, ...]
    episodes: tuple[ExampleEpisode, ...]
    tasks: tuple[str, ...]
    task_of: RowArray
    states: FloatArray
    actions: NDArray[np.float32]
    is_valid: BoolArray
    truth: Truth | None
    rows: RowArray
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def horizon(self) -> int:
        """Steps of a chunk."""
        return self.actions.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image."""
        height, width = next(iter(self.parts[0].images.values())).shape[2:]
        return int(height), int(width)

    @property
    def episode_of(self) -> RowArray:
        """(n,) the episode of each row."""
        return np.repeat(np.arange(len(self.episodes)), [episode.length for episode in self.episodes])

    @property
    def part_of(self) -> RowArray:
        """(n,) the dataset of each row."""
        return np.array([episode.part for episode in self.episodes], dtype=np.int64)[self.episode_of]

    def find_task(self, task: int) -> str:
        """Where an instruction is said first, for error texts."""
        row = self.rows[int(np.argmax(self.task_of[self.rows] == task))]
        episode = self.episodes[int(self.episode_of[row])]
        return f"{self.parts[episode.part].path}, episode {episode.name}"

    def words(self) -> tuple[str, ...]:
        """All words of the examples' instructions, sorted."""
        used = {self.tasks[index] for index in np.unique(self.task_of[self.rows]).tolist()}
        return tuple(sorted({word for task in used for word in split_words(task)}))

    def model_spec(self, vocabulary: Sequence[str] = (), max_words: int = 1) -> ModelSpec:
        """What a network for these examples is told of its task; without a vocabulary it takes no language."""
        return ModelSpec(
            images=tuple(self.contract.observation.images),
            image_size=self.image_size,
            state_width=max(1, self.states.shape[1]),
            action_width=self.actions.shape[2],
            horizon=self.horizon,
            vocabulary=tuple(vocabulary),
            max_words=max_words,
        )

    def statistics(self) -> CheckpointStatistics:
        """Of the examples' states and valid steps, as they go into a checkpoint."""
        steps = self.actions[self.rows][self.is_valid[self.rows]]
        name = ", ".join(part.path.name for part in self.parts)
        return example_statistics(
            self.states[self.rows],
            steps.astype(np.float64),
            self.contract,
            self.joints,
            f"{name}: {len(self)} examples",
        )

    def of_episodes(self, episodes: Sequence[int]) -> ExampleSet:
        """The examples of some of the episodes.

        Raises:
            DatasetError: if there is none.
        """
        rows = self.rows[np.isin(self.episode_of[self.rows], np.asarray(episodes, dtype=np.int64))]
        if len(rows) == 0:
            raise DatasetError(f"no example in {len(episodes)} of {len(self.episodes)} episodes; take others")
        return replace(self, rows=rows)

    def split(self, part: float, seed: int) -> tuple[ExampleSet, ExampleSet]:
        """Two sets that share no episode: the rest, and about `part` of the episodes with examples, at least one."""
        known = np.unique(self.episode_of[self.rows])
        if len(known) < 2:
            raise DatasetError(
                f"{len(known)} episode can't be split in two; give datasets with more of them, or hold none out "
                "(`held_out: 0`)"
            )
        count = min(len(known) - 1, max(1, round(part * len(known))))
        drawn = np.random.default_rng([seed, 0x5EED]).permutation(known)
        return self.of_episodes(drawn[count:].tolist()), self.of_episodes(drawn[:count].tolist())


def read_examples(
    paths: Sequence[Path],
    horizon: int,
    contract: Contract | None = None,
    *,
    selection: Selection | None = None,
    cache: CacheOptions | None = None,
    columns: Mapping[str, str] | None = None,
    progress: Progress = lambda part, fraction: None,
) -> ExampleSet:
    """Makes the examples of some datasets.

    Args:
        paths: of the datasets, of any format that is known.
        horizon: steps of a chunk.
        contract: under which; None for the datasets' own.
        selection: what is learned from.
        cache: where prepared images are kept.
        columns: see `fit_dataset`.
        progress: told the part of the work and how far it is, from 0 to 1.

    Raises:
        ContractError: if a dataset doesn't fit the contract, or none is known.
        DatasetError: for a damaged dataset, values that aren't finite, or if no example is left, with the reasons.
    """
    if not paths or horizon < 1:
        raise DatasetError(f"{len(paths)} datasets and chunks of {horizon} steps: at least one of each is needed")
    datasets = [open_any(path)[1] for path in paths]
    contract = contract or common_contract(
        [(str(path), dataset.schema) for path, dataset in zip(paths, datasets, strict=True)]
    )
    builder = _Builder(contract, horizon, selection or Selection())
    for path, dataset in zip(paths, datasets, strict=True):
        builder.add(path, dataset, fit_dataset(dataset.schema, contract, str(path), columns), cache, progress)
    return builder.finish()


class _Builder:
    def __init__(self, contract: Contract, horizon: int, selection: Selection) -> None:
        self._contract, self._horizon, self._selection = contract, horizon, selection
        self._parts: list[ExamplePart] = []
        self._episodes: list[ExampleEpisode] = []
        self._columns: dict[str, list[Any]] = {"states": [], "actions": [], "is_valid": [], "task_of": [], "truth": []}
        self._tasks: dict[str, int] = {}
        self._left_out: Counter[str] = Counter()
        self._joints, self._count, self._widths = 0, 0, (0, 0)

    def add(self, path: Path, dataset: Dataset, fit: Fit, cache: CacheOptions | None, progress: Progress) -> None:
        widths = state_width(self._contract.observation, fit.joints), action_width(self._contract.action, fit.joints)
        if self._parts and widths != self._widths:
            (state, action), (first_state, first_action) = widths, self._widths
            raise ContractError(
                f"{path} is of an arm with {fit.joints} joints, {self._parts[0].path} of {self._joints}: {state} and "
                f"{first_state} numbers a state, {action} and {first_action} an action; name no joints in the contract"
            )
        self._joints, self._widths = fit.joints, widths
        first, lengths, names = self._count, [], dataset.names
        for index, name in enumerate(names):
            frames = dataset.read(index)
            lengths.append(len(frames))
            try:
                self._read(frames, fit)
            except DatasetError as error:
                raise DatasetError(f"{path}, {error}") from error
            self._episodes.append(ExampleEpisode(name, len(self._parts), self._count, len(frames), frames.attributes))
            self._count += len(frames)
            progress("frames", (index + 1) / len(names))
        if not any(is_valid.any() for is_valid in self._columns["is_valid"][len(self._episodes) - len(names) :]):
            reasons = explain(self._left_out) or "it has no frame"
            raise DatasetError(f"{path}: no example is left of {self._count - first} frames: {reasons}")
        images = prepare_images(path, dataset, fit, lengths, cache or CacheOptions(), progress)
        self._parts.append(ExamplePart(path, first, images))

    def _read(self, frames: EpisodeFrames, fit: Fit) -> None:
        is_valid, left_out = select_steps(frames, self._selection, self._horizon, fit.shift)
        self._left_out.update(left_out)
        found = self._columns
        found["is_valid"].append(is_valid)
        found["actions"].append(label_chunks(frames, fit, is_valid).astype(np.float32))
        found["states"].append(read_states(frames, fit))
        found["task_of"] += [self._tasks.setdefault(task, len(self._tasks)) for task in frames.tasks]
        found["truth"].append(read_truth(frames, fit, read_poses(frames, fit)))

    def finish(self) -> ExampleSet:
        sizes = {name: array.shape[2:] for part in self._parts for name, array in part.images.items()}
        shapes = {array.shape[2:] for part in self._parts for array in part.images.values()}
        if len(shapes) != 1:
            found = ", ".join(f"{name} {width}x{height}" for name, (height, width) in sizes.items())
            raise ContractError(
                f"contract {self._contract.name}: a network takes images of one size, these are {found}; give the "
                "images of the contract one width and height"
            )
        is_valid = np.concatenate(self._columns["is_valid"])
        return ExampleSet(
            contract=self._contract,
            joints=self._joints,
            parts=tuple(self._parts),
            episodes=tuple(self._episodes),
            tasks=tuple(self._tasks),
            task_of=np.array(self._columns["task_of"], dtype=np.int64),
            states=np.concatenate(self._columns["states"]),
            actions=np.concatenate(self._columns["actions"]),
            is_valid=is_valid,
            truth=self._truth(),
            rows=np.flatnonzero(is_valid[:, 0]),
            left_out=dict(self._left_out),
        )

    def _truth(self) -> Truth | None:
        known: list[Truth | None] = self._columns["truth"]
        shapes = next((each for each in known if each is not None), None)
        if shapes is None:
            return None
        filled = [
            each or Truth(*(np.zeros((episode.length, *values.shape[1:]), values.dtype) for values in shapes.arrays))
            for each, episode in zip(known, self._episodes, strict=True)
        ]
        return Truth(*(np.concatenate(arrays) for arrays in zip(*(each.arrays for each in filled), strict=True)))
