"""The folder of a learned policy's checkpoint: what it is, what it was trained under, and its weights.

    policy.json         architecture, its configuration and sizes, hashes of all the rest, versions
    contract.yaml       the contract of its training data
    statistics.json     of state and action, as they were normalised
    model.safetensors   weights
    model.onnx          optional: the exported sampler (`vla-ros policies export`)

Reading needs neither torch nor safetensors, so that an exported model runs without them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_ros import __version__
from vla_ros.config import build, load, plain
from vla_ros.contract import Contract, canonical_hash, find_differences, save_contract
from vla_ros.errors import ConfigError, ContractError
from vla_ros.files import whole_folder
from vla_ros.policies.architectures.spec import ModelSpec
from vla_ros.policies.fit import CONTRACT_FILE as CONTRACT
from vla_ros.policies.statistics_file import STATISTICS_FILE as STATISTICS
from vla_ros.policies.statistics_file import CheckpointStatistics

POLICY, WEIGHTS, ONNX = "policy.json", "model.safetensors", "model.onnx"
FORMAT = 1
_CHUNK_BYTES = 1 << 20
_COPY = "copy it again, whole, from where it was trained"


@dataclass(frozen=True)
class ModelCard:
    """What `policy.json` says.

    Attributes:
        format: of the folder; another one is refused.
        architecture: name in `vla_ros.policies.architectures`.
        config: the architecture's own configuration.
        spec: what goes in and comes out.
        interface_hash: of the contract.
        normalisation_hash: of the contract's normalisation, which the interface doesn't cover.
        stats_hash: of the statistics.
        weights_hash: of model.safetensors, SHA-256 in hex.
        vla_ros: version that wrote it.
        git: commit that wrote it, with `-dirty` where the tree had changes; null where that isn't known.
    """

    format: int
    architecture: str
    config: dict[str, Any]
    spec: ModelSpec
    interface_hash: str
    normalisation_hash: str
    stats_hash: str
    weights_hash: str
    vla_ros: str
    git: str | None = None

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format {self.format} isn't {FORMAT}, which vla_ros {__version__} reads")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found whole.

    Attributes:
        folder: where it lies.
        card: what it is.
        contract: what it was trained under.
        statistics: with which its training data was normalised.
    """

    folder: Path
    card: ModelCard
    contract: Contract
    statistics: CheckpointStatistics

    @property
    def description(self) -> dict[str, Any]:
        """What `architectures.base.make_architecture` makes the network from."""
        spec = plain(dataclasses.asdict(self.card.spec))
        return {"architecture": self.card.architecture, "config": self.card.config, "spec": spec}

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    @property
    def onnx(self) -> Path | None:
        """The exported model, None where there is none."""
        return self.folder / ONNX if (self.folder / ONNX).is_file() else None

    def check_contract(self, contract: Contract) -> None:
        """Refuses a contract that means something else than the one it was trained under.

        Raises:
            ContractError: with every line that differs.
        """
        if contract.interface_hash == self.card.interface_hash:
            return
        differences = "\n  ".join(find_differences(self.contract, contract))
        raise ContractError(
            f"contract {contract.name} ({contract.interface_hash}) isn't what checkpoint {self.folder} was trained "
            f"under ({self.card.interface_hash}); use its own, {self.folder / CONTRACT}, or train anew. "
            f"Where they differ, the checkpoint's first:\n  {differences}"
        )


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def write_checkpoint(
    folder: Path,
    *,
    architecture: str,
    config: Mapping[str, Any],
    spec: ModelSpec,
    contract: Contract,
    statistics: CheckpointStatistics,
    write_weights: Callable[[Path], None],
) -> Checkpoint:
    """Writes a checkpoint, whole or not at all; what was at `folder` is replaced.

    Args:
        folder: where to; folders above it are made.
        architecture: its registered name.
        config: the architecture's configuration, as JSON has it.
        spec: what goes in and comes out.
        contract: of the training data.
        statistics: of the training data.
        write_weights: writes model.safetensors at the path it is given.
    """
    with whole_folder(folder) as partial:
        write_weights(partial / WEIGHTS)
        save_contract(contract, partial / CONTRACT)
        statistics.save(partial / STATISTICS)
        card = ModelCard(
            format=FORMAT,
            architecture=architecture,
            config=plain(config),
            spec=spec,
            interface_hash=contract.interface_hash,
            normalisation_hash=canonical_hash(contract.normalisation),
            stats_hash=statistics.stats_hash,
            weights_hash=file_hash(partial / WEIGHTS),
            vla_ros=__version__,
            git=git_version(),
        )
        (partial / POLICY).write_text(json.dumps(dataclasses.asdict(card), indent=1), encoding="utf-8")
        read_checkpoint(partial)
    return Checkpoint(folder, card, contract, statistics)


def read_checkpoint(folder: Path, *, with_weights: bool = True) -> Checkpoint:
    """Reads all but the weights, and holds everything against its hash.

    Args:
        folder: where it lies.
        with_weights: whether to hold the weights against their hash, too, which takes a second a gigabyte or so.

    Raises:
        ConfigError: for a missing or broken file, an unknown key, or a hash that doesn't match.
    """
    if not folder.is_dir():
        raise ConfigError(f"checkpoint {folder}", "no such folder", "give one with policy.json in it")
    for name in (POLICY, CONTRACT, STATISTICS, WEIGHTS):
        if not (folder / name).is_file():
            raise ConfigError(f"checkpoint {folder}", f"{name} is missing", _COPY)
    card = build(ModelCard, _read_json(folder / POLICY), str(folder / POLICY))
    contract = load(Contract, folder / CONTRACT)
    statistics = CheckpointStatistics.load(folder / STATISTICS)
    _check_hash(folder / CONTRACT, contract.interface_hash, card.interface_hash)
    _check_hash(folder / CONTRACT, canonical_hash(contract.normalisation), card.normalisation_hash)
    _check_hash(folder / STATISTICS, statistics.stats_hash, card.stats_hash)
    if with_weights:
        _check_hash(folder / WEIGHTS, file_hash(folder / WEIGHTS), card.weights_hash)
    return Checkpoint(folder, card, contract, statistics)


def git_version() -> str | None:
    """The commit of the checkout that runs, `-dirty` with changes; None where it isn't one or git is missing."""
    package = Path(__file__).resolve().parents[1]
    if not (package.parent / ".git").exists():
        return None
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10.0, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(str(path), f"isn't JSON ({error})", _COPY) from error
    if not isinstance(data, dict):
        raise ConfigError(str(path), f"holds {type(data).__name__}", "it has to be an object of keys and values")
    return data


def _check_hash(path: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise ConfigError(
            str(path), f"has the hash {found[:16]}, {POLICY} says {wanted[:16]}: they aren't of one checkpoint", _COPY
        )
