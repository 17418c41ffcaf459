"""LoRA adapters on disk (peft's adapter_config.json and adapter_model.safetensors), and what they do to weights.

An adapter may name layers as OpenVLA's own fine-tuning does (timm's names, queries, keys and values in one) or as
this model does (transformers' names). Both are understood; either can be put into this model or into a checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vla_ros.errors import ConfigError
from vla_ros.policies.openvla.checkpoint import read_json
from vla_ros.policies.openvla.config import ModelConfig
from vla_ros.policies.openvla.weights import stored_linears, stored_tensors

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Options of peft that change what an adapter computes, with the only value that is understood.
_PLAIN: dict[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "fan_in_fan_out": False,
    "modules_to_save": None,
    "layer_replication": None,
}
# Never computed by the model, so that an adapter's share there has no effect.
_POOL = "vision_backbone.fused_featurizer.head."


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to one layer's weight: `scale * B @ A`.

    Attributes:
        A: (rank, inputs).
        B: (outputs, rank).
    """

    A: Tensor
    B: Tensor

    def rows(self, rows: tuple[int, int] | None) -> LowRank:
        """The part that concerns some of the outputs."""
        return self if rows is None else LowRank(self.A, self.B[rows[0] : rows[1]])


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter as read.

    Attributes:
        rank: of every layer's change.
        alpha: as in adapter_config.json.
        use_rslora: whether the scale is alpha / sqrt(rank) and not alpha / rank.
        layers: by the layer's name, as the file has it.
    """

    rank: int
    alpha: float
    use_rslora: bool
    layers: dict[str, LowRank]

    @property
    def scale(self) -> float:
        return self.alpha / (self.rank**0.5 if self.use_rslora else self.rank)


def read_adapter(folder: Path | str, config: ModelConfig) -> LoraAdapter:
    """Reads an adapter and checks that each of its layers is the model's.

    Raises:
        ConfigError: for pickled weights, options that aren't plain LoRA, or layers that the model doesn't have.
    """
    rank, alpha, use_rslora = read_settings(folder)
    path = find_weights(folder)
    return LoraAdapter(rank, alpha, use_rslora, _pair(_read_tensors(path), rank, config, str(path)))


def read_settings(folder: Path | str) -> tuple[int, float, bool]:
    """An adapter's rank, alpha and `use_rslora`.

    Raises:
        ConfigError: for options that aren't plain LoRA.
    """
    path = Path(folder).expanduser() / CONFIG_FILE
    where, settings = str(path), read_json(path)
    for key, value in _PLAIN.items():
        if settings.get(key) not in (value, None):
            raise ConfigError(f"{where}: {key}", f"is {settings[key]!r}", f"only {value!r} is supported")
    for key in ("rank_pattern", "alpha_pattern"):
        if settings.get(key):
            raise ConfigError(f"{where}: {key}", "gives layers different values", "train with one rank and one alpha")
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, (int, float)):
        raise ConfigError(f"{where}: r, lora_alpha", f"are {rank!r} and {alpha!r}", "they have to be numbers")
    return rank, float(alpha), bool(settings.get("use_rslora"))


def write_adapter(folder: Path, adapter: LoraAdapter, base: str, dropout: float = 0.0) -> None:
    """Writes peft's two files, which peft itself and `read_adapter` read.

    Args:
        folder: which is there already.
        adapter: its layers by our names.
        base: the model that it is for, for people.
        dropout: with which it was trained.
    """
    sides = {f"{_PREFIX}{name}": change for name, change in adapter.layers.items()}
    tensors = {f"{at}.lora_A.weight": change.A for at, change in sides.items()}
    tensors |= {f"{at}.lora_B.weight": change.B for at, change in sides.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS_FILE, {"format": "pt"})
    settings = {"r": adapter.rank, "lora_alpha": adapter.alpha, "use_rslora": adapter.use_rslora, **_PLAIN}
    more = {"lora_dropout": dropout, "base_model_name_or_path": base, "target_modules": sorted(adapter.layers)}
    (folder / CONFIG_FILE).write_text(json.dumps(settings | more, indent=1) + "\n", encoding="utf-8")


def find_weights(folder: Path | str) -> Path:
    """The file of an adapter's weights. Raises ConfigError if there is none, also where there is a pickled one."""
    folder = Path(folder).expanduser()
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        pickled = " (adapter_model.bin is pickled and isn't read)" if (folder / "adapter_model.bin").is_file() else ""
        raise ConfigError(
            str(path), f"no such file{pickled}", "save the adapter as safetensors, as peft does by default"
        )
    return path


def for_model(adapter: LoraAdapter, config: ModelConfig) -> dict[str, LowRank]:
    """The adapter's changes by our layers' names; what would be put into the unused attention pool is left out."""
    linears = stored_linears(config)
    found = {}
    for name, change in adapter.layers.items():
        for target, rows in linears.get(name, ((name, None),)):
            found[target] = change.rows(rows)
    return {name: change for name, change in found.items() if not _is_pool(name)}


def for_checkpoint(
    adapter: LoraAdapter, config: ModelConfig
) -> dict[str, list[tuple[tuple[int, int] | None, LowRank]]]:
    """The adapter's changes by the stored weights' names, each with the rows that it concerns."""
    inverse = _our_linears(config)
    found: dict[str, list[tuple[tuple[int, int] | None, LowRank]]] = {}
    for name, change in adapter.layers.items():
        stored, rows = (name, None) if _is_stored_linear(name, config) else inverse[name]
        found.setdefault(f"{stored}.weight", []).append((rows, change))
    return found


def _is_pool(name: str) -> bool:
    return name.startswith((_POOL, "vision_backbone.fused_featurizer.attn_pool."))


def _is_stored_linear(name: str, config: ModelConfig) -> bool:
    stored = stored_tensors(config).get(f"{name}.weight")
    return stored is not None and len(stored.shape) == 2 and not name.endswith("embed_tokens")


def _our_linears(config: ModelConfig) -> dict[str, tuple[str, tuple[int, int] | None]]:
    return {ours: (stored, rows) for stored, parts in stored_linears(config).items() for ours, rows in parts}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(str(path), f"isn't safetensors ({error})", "fetch the file again, whole") from error


def _pair(tensors: dict[str, Tensor], rank: int, config: ModelConfig, where: str) -> dict[str, LowRank]:
    names, layers = set(tensors), {}
    shapes = {name: stored.shape for name, stored in stored_tensors(config).items()}
    ours = _our_linears(config)
    for name in sorted(tensors):
        if not name.endswith(".lora_A.weight"):
            continue
        other, layer = name.replace(".lora_A.", ".lora_B."), name.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        stored, rows = (layer, None) if _is_stored_linear(layer, config) else ours.get(layer, ("", None))
        if other not in names or not stored:
            problem = f"{layer} has no lora_B" if stored else f"{layer} is no linear layer of the model"
            raise ConfigError(where, problem, "was it trained on a model of this structure?")
        outputs, inputs = shapes[f"{stored}.weight"]
        outputs = outputs if rows is None else rows[1] - rows[0]
        if tensors[name].shape != (rank, inputs) or tensors[other].shape != (outputs, rank):
            found = (tuple(tensors[name].shape), tuple(tensors[other].shape))
            raise ConfigError(where, f"{layer} has {found}", f"rank {rank} needs {(rank, inputs), (outputs, rank)}")
        layers[layer] = LowRank(tensors[name], tensors[other])
        names -= {name, other}
    if names or not layers:
        problem = f"{', '.join(sorted(names)[:4])} aren't lora_A and lora_B of a layer" if names else "holds no layer"
        raise ConfigError(where, problem, "only plain LoRA of linear layers is supported")
    return layers


def add_to(weight: Tensor, changes: list[tuple[tuple[int, int] | None, LowRank]], scale: float) -> Tensor:
    """A stored weight with changes added, in its own dtype; the sum is in single precision."""
    merged = weight.to(torch.float32).clone()
    for rows, change in changes:
        first, end = rows or (0, len(merged))
        merged[first:end] += scale * (change.B.float() @ change.A.float())
    return merged.to(weight.dtype)
