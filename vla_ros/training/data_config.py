"""The settings that say what is learned from, shared by everything that is trained on datasets, and their examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from vla_ros.config import expand_home
from vla_ros.contract import load_contract
from vla_ros.errors import ConfigError
from vla_ros.training.examples import ExampleSet, read_examples
from vla_ros.training.image_cache import CacheOptions
from vla_ros.training.recipe import Progress
from vla_ros.training.selection import Selection


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is learned from.

    Attributes:
        contract: name or YAML file of what is seen and done; null for the datasets' own.
        datasets: folders; the command's `--dataset` come in their place.
        columns: of datasets that aren't ours: the contract's image -> the dataset's image column.
        selection: which frames are learned from.
        is_cached: whether prepared images are kept in files, else in memory.
        cache: folder of these; null for one in each dataset's.
    """

    contract: str | None = None
    datasets: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    selection: Selection = field(default_factory=Selection)
    is_cached: bool = True
    cache: str | None = None


@dataclass(frozen=True, kw_only=True)
class PolicyDataConfig(DataConfig):
    """The same for a policy, of whose data a part is held out.

    Attributes:
        weights: how often each dataset is drawn from, relative to the others; null for all examples alike.
        held_out: share of the episodes that are examined and never trained on; 0 for none.
        held_out_examples: at most so many of their frames are examined each time.
    """

    weights: tuple[float, ...] | None = None
    held_out: float = 0.05
    held_out_examples: int = 512

    def __post_init__(self) -> None:
        if not 0.0 <= self.held_out < 1.0:
            raise ValueError(f"held_out {self.held_out} isn't in [0, 1)")
        if self.held_out_examples < 1:
            raise ValueError(f"held_out_examples {self.held_out_examples} is below 1")
        if self.weights is not None and self.datasets and len(self.weights) != len(self.datasets):
            raise ValueError(f"{len(self.weights)} weights of {len(self.datasets)} datasets; give one for each")

    def split(self, examples: ExampleSet, seed: int) -> tuple[ExampleSet, ExampleSet | None]:
        """What is learned, and what is held out."""
        return examples.split(self.held_out, seed) if self.held_out else (examples, None)


C = TypeVar("C", bound=DataConfig)


def read_data(
    config: C, datasets: Sequence[Path], horizon: int, where: str, progress: Progress
) -> tuple[C, ExampleSet]:
    """The examples that settings ask for.

    Args:
        config: the settings.
        datasets: in the place of theirs; none for those.
        horizon: steps of a chunk.
        where: the settings come from, for error texts.
        progress: told the part of the work and how far it is, from 0 to 1.

    Returns:
        The settings in force, whose paths hold from any folder, and the examples.

    Raises:
        VlaRosError: for settings or data that can't be used.
    """
    config = _settle(config, datasets, where)
    examples = read_examples(
        [Path(path) for path in config.datasets],
        horizon,
        None if config.contract is None else load_contract(config.contract),
        selection=config.selection,
        cache=CacheOptions(config.is_cached, None if config.cache is None else Path(config.cache)),
        columns=config.columns or None,
        progress=progress,
    )
    return config, examples


def _settle(config: C, datasets: Sequence[Path], where: str) -> C:
    folders = tuple(str(path) for path in datasets) or config.datasets
    if not folders:
        raise ConfigError(f"{where}: datasets", "there is none", "name one with --dataset")
    contract = config.contract
    if contract is not None and contract.endswith((".yaml", ".yml")):
        contract = _absolute(contract)
    try:
        return replace(
            config,
            datasets=tuple(_absolute(folder) for folder in folders),
            contract=contract,
            cache=None if config.cache is None else _absolute(config.cache),
        )
    except ValueError as error:
        raise ConfigError(where, str(error), "mend the value") from error


def _absolute(path: str) -> str:
    return str(expand_home(path).absolute())
