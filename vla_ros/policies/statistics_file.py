"""The file of statistics beside a checkpoint: what was normalised with which numbers, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_ros.contract import Contract, action_width, canonical_hash, state_width
from vla_ros.errors import ConfigError, ContractError
from vla_ros.policies.normalisation import Normaliser, Statistics

STATISTICS_FILE = "statistics.json"
_KEYS = ("state", "action", "dataset", "interface_hash", "stats_hash")


@dataclass(frozen=True)
class CheckpointStatistics:
    """The statistics that a checkpoint was trained with; they travel with it.

    Attributes:
        state: of the state vector, None for a policy that sees none.
        action: of the actions after the contract's relative transform, None where they aren't normalised.
        dataset: which data they are of, for people.
        interface_hash: of the contract under which they were computed, empty where unknown.
    """

    state: Statistics | None
    action: Statistics | None
    dataset: str
    interface_hash: str

    @property
    def stats_hash(self) -> str:
        """Sixteen hex digits over the statistics of both vectors."""
        vectors = {"state": self.state, "action": self.action}
        return canonical_hash({name: vector.stats_hash() for name, vector in vectors.items() if vector is not None})

    def state_normaliser(self, contract: Contract) -> Normaliser:
        """For the state vector, by the contract's formula. Raises ContractError as `Normaliser` does."""
        return Normaliser(contract.normalisation.state, self.state)

    def action_normaliser(self, contract: Contract) -> Normaliser:
        """For the actions, by the contract's formula. Raises ContractError as `Normaliser` does."""
        return Normaliser(contract.normalisation.action, self.action)

    def find_mismatches(self, contract: Contract, joints: int | None = None) -> list[str]:
        """Where they don't fit a contract: one sentence each.

        Args:
            contract: with which they are to be used.
            joints: of the arm; None leaves out what depends on it.
        """
        found = []
        if self.interface_hash and self.interface_hash != contract.interface_hash:
            found.append(
                f"statistics of dataset {self.dataset!r} were computed under interface {self.interface_hash}, "
                f"contract {contract.name} is {contract.interface_hash}"
            )
        for name, statistics, spec in (
            ("state", self.state, contract.normalisation.state),
            ("action", self.action, contract.normalisation.action),
        ):
            try:
                Normaliser(spec, statistics)
            except ContractError as error:
                found.append(f"{name}: {error}")
            if statistics is None or joints is None:
                continue
            count = (
                state_width(contract.observation, joints) if name == "state" else action_width(contract.action, joints)
            )
            if statistics.width != count:
                found.append(
                    f"statistics of {name} have {statistics.width} entries, contract {contract.name} has {count} "
                    f"with {joints} joints"
                )
        return found

    def save(self, path: Path) -> None:
        """Writes the JSON file."""
        data: dict[str, Any] = {
            "dataset": self.dataset,
            "interface_hash": self.interface_hash,
            "stats_hash": self.stats_hash,
        }
        for name, statistics in (("state", self.state), ("action", self.action)):
            if statistics is not None:
                data[name] = statistics.to_json()
        path.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> CheckpointStatistics:
        """Reads the JSON file.

        Raises:
            ConfigError: if it can't be read, holds something else, or the numbers don't have the hash that it names.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(str(path), f"can't be read ({error.strerror})", "check the path") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(str(path), f"isn't JSON ({error})", "copy it anew from beside its checkpoint") from error
        if not isinstance(data, Mapping):
            raise ConfigError(str(path), f"holds {type(data).__name__}", "it has to be an object with state and action")
        unknown = sorted(data.keys() - set(_KEYS))
        if unknown:
            raise ConfigError(str(path), f"unknown keys {unknown}", f"it has: {', '.join(_KEYS)}")
        try:
            state, action = (
                None if data.get(name) is None else Statistics.from_json(data[name]) for name in ("state", "action")
            )
        except ContractError as error:
            raise ConfigError(str(path), str(error), "compute them anew from the dataset") from error
        loaded = cls(state, action, str(data.get("dataset", "")), str(data.get("interface_hash", "")))
        named = data.get("stats_hash")
        if named is not None and named != loaded.stats_hash:
            raise ConfigError(
                str(path), f"its numbers have the hash {loaded.stats_hash}, not {named}", "it was changed: copy it anew"
            )
        return loaded
