"""A checkpoint folder in the hub's layout: read, checked tensor by tensor against the model, and loaded whole.

The folder has config.json, model-0000x-of-0000y.safetensors with model.safetensors.index.json (or one
model.safetensors), tokenizer.json, preprocessor_config.json, and statistics of the actions in dataset_statistics.json
(fine-tuned) or in the config's norm_stats.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open

from vla_ros.errors import ConfigError, MissingDependencyError
from vla_ros.policies.openvla.config import ModelConfig, parse_config
from vla_ros.policies.openvla.model import OpenVLA, build_empty
from vla_ros.policies.openvla.weights import fill, fill_zeros, stored_tensors

INDEX_FILE, SINGLE_FILE = "model.safetensors.index.json", "model.safetensors"
STATISTICS_FILE = "dataset_statistics.json"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# How many names of each kind an error text gives.
_NAMED = 6


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds, before any weight is read.

    Attributes:
        folder: where it is.
        config: the model's structure.
        norm_stats: statistics by dataset, as stored.
        shards: file -> names of the tensors in it.
    """

    folder: Path
    config: ModelConfig
    norm_stats: dict[str, Any]
    shards: dict[str, tuple[str, ...]]


def read_checkpoint(folder: Path | str) -> Checkpoint:
    """Reads a folder's description and checks that its tensors are exactly the model's.

    Raises:
        ConfigError: for what is missing, unknown, misshapen or not safetensors; the text names it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ConfigError(str(folder), "no such folder", "give the folder of a downloaded OpenVLA checkpoint")
    raw = read_json(folder / "config.json")
    config = parse_config(raw, str(folder / "config.json"))
    if config.dtype not in DTYPES:
        raise ConfigError(
            f"{folder / 'config.json'}: torch_dtype", f"is {config.dtype!r}", f"known: {', '.join(DTYPES)}"
        )
    shapes: dict[str, tuple[int, ...]] = {}
    shards: dict[str, tuple[str, ...]] = {}
    for file in find_shards(folder):
        found = tensor_shapes(folder / file)
        twice = sorted(shapes.keys() & found.keys())
        if twice:
            raise ConfigError(str(folder / file), f"holds {_list(twice)} once more", "fetch the checkpoint again")
        shapes |= found
        shards[file] = tuple(found)
    _check_index(folder, shards)
    check_tensors(shapes, {name: stored.shape for name, stored in stored_tensors(config).items()}, str(folder))
    statistics = folder / STATISTICS_FILE
    norm_stats = read_json(statistics) if statistics.is_file() else raw.get("norm_stats") or {}
    return Checkpoint(folder, config, norm_stats, shards)


def load_model(
    checkpoint: Checkpoint,
    dtype: str = "",
    device: str = "cpu",
    on_progress: Callable[[float], None] | None = None,
) -> OpenVLA:
    """The model with the checkpoint's weights, for inference.

    Args:
        checkpoint: as read and checked.
        dtype: `float32`, `bfloat16` or `float16`; empty for the checkpoint's own.
        device: as torch names it.
        on_progress: called with the part that is loaded, up to 1.

    Raises:
        ConfigError: for an unknown dtype.
        MissingDependencyError: for a transformers whose modules have other names.
    """
    model = build_empty(checkpoint.config, find_dtype(checkpoint, dtype), device)
    parameters = model.state_dict()
    stored = stored_tensors(checkpoint.config)
    strange = {piece.target for tensor in stored.values() for piece in tensor.pieces} - parameters.keys()
    if strange:
        what = f"a transformers with layers named as {sorted(strange)[0]} (here is {transformers.__version__})"
        raise MissingDependencyError(what, "OpenVLA", "pip install 'transformers>=5.20'")
    done, total = 0, len(stored)
    for file, names in checkpoint.shards.items():
        with safe_open(checkpoint.folder / file, framework="pt") as shard, torch.no_grad():
            for name in names:
                fill(parameters, shard.get_tensor(name), stored[name])
                done += 1
                if on_progress is not None:
                    on_progress(done / total)
    with torch.no_grad():
        fill_zeros(parameters)
    return model


def find_dtype(checkpoint: Checkpoint, name: str) -> torch.dtype:
    """The type of that name, or with an empty one the checkpoint's own. Raises ConfigError for an unknown one."""
    if (name or checkpoint.config.dtype) not in DTYPES:
        raise ConfigError(str(checkpoint.folder), f"dtype {name!r}", f"known: {', '.join(DTYPES)}")
    return DTYPES[name or checkpoint.config.dtype]


def find_shards(folder: Path) -> list[str]:
    """Names of the folder's safetensors files.

    Raises:
        ConfigError: if there are none, also where there are pickled weights instead.
    """
    if (folder / INDEX_FILE).is_file():
        files = sorted(set(_weight_map(folder).values()))
        for file in files:
            if Path(file).name != file or not file.endswith(".safetensors"):
                raise ConfigError(
                    str(folder / INDEX_FILE), f"names {file!r}", "a shard lies beside it and is .safetensors"
                )
            if not (folder / file).is_file():
                raise ConfigError(
                    str(folder / file), "no such file", f"{INDEX_FILE} names it; fetch the checkpoint again"
                )
        return files
    if (folder / SINGLE_FILE).is_file():
        return [SINGLE_FILE]
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    problem = (
        f"has pickled weights only ({_list(pickled)}), which can run code and aren't read"
        if pickled
        else "has no weights"
    )
    raise ConfigError(str(folder), problem, "save them as safetensors (safe_serialization=True) where they come from")


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file; the tensors aren't read.

    Raises:
        ConfigError: for a damaged file, or numbers of a type that weights don't have.
    """
    try:
        with safe_open(path, framework="pt") as shard:
            slices = {name: shard.get_slice(name) for name in shard.keys()}  # noqa: SIM118, it is no dict
            odd = sorted(name for name, part in slices.items() if part.get_dtype() not in ("F32", "BF16", "F16"))
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise ConfigError(str(path), f"isn't safetensors ({error})", "fetch the file again, whole") from error
    if odd:
        raise ConfigError(str(path), f"{_list(odd)} aren't F32, BF16 or F16", "give the unquantised checkpoint")
    return shapes


def check_tensors(found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]], where: str) -> None:
    """Holds names and shapes against each other.

    Raises:
        ConfigError: naming what is missing, unknown or misshapen.
    """
    missing = sorted(wanted.keys() - found.keys())
    unknown = sorted(found.keys() - wanted.keys())
    odd = [
        f"{n} {found[n]} instead of {wanted[n]}" for n in sorted(wanted.keys() & found.keys()) if found[n] != wanted[n]
    ]
    problems = [("missing", missing), ("unknown", unknown), ("misshapen", odd)]
    texts = [f"{len(names)} tensors {kind}: {_list(names)}" for kind, names in problems if names]
    if texts:
        raise ConfigError(where, ", ".join(texts), "is it whole, and does its config.json belong to it?")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ConfigError: if there is none.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), f"can't be read ({error})", "fetch the checkpoint's file again") from error
    if not isinstance(data, dict):
        raise ConfigError(str(path), f"holds {type(data).__name__}", "it has to be an object")
    return data


def _weight_map(folder: Path) -> dict[str, str]:
    names = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
        raise ConfigError(f"{folder / INDEX_FILE}: weight_map", "isn't tensor -> file", "fetch the file again")
    return names


def _check_index(folder: Path, shards: dict[str, tuple[str, ...]]) -> None:
    if not (folder / INDEX_FILE).is_file():
        return
    indexed = _weight_map(folder)
    held = {name: file for file, names in shards.items() for name in names}
    differing = sorted(name for name in indexed.keys() | held.keys() if indexed.get(name) != held.get(name))
    if differing:
        raise ConfigError(
            str(folder / INDEX_FILE),
            f"and the shards differ on where {_list(differing)} are",
            "fetch the checkpoint again",
        )


def _list(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
