"""Adapters of one loaded model: several at once, switched by name in no time, one of them trained if need be."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from vla_ros.errors import ConfigError, UnknownNameError
from vla_ros.policies.openvla.lora import LoraAdapter, LowRank, for_model, read_adapter
from vla_ros.policies.openvla.model import OpenVLA
from vla_ros.policies.openvla.weights import stored_linears, unused_modules

ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class LoraShape:
    """What a new adapter is like; the defaults are those of OpenVLA's fine-tuning.

    Attributes:
        rank: of each layer's change.
        alpha: the change is multiplied by alpha / rank.
        dropout: part of a layer's inputs that the change doesn't see in training.
        targets: the layers: `all-linear` for all but the head, the beginning of a name (`language_model`), or its end
            (`q_proj`).
        use_rslora: alpha / sqrt(rank) instead.
    """

    rank: int = 32
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = (ALL_LINEAR,)
    use_rslora: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank {self.rank} isn't positive")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout {self.dropout} isn't in [0, 1)")
        if not 0.0 < self.alpha < math.inf:
            raise ValueError(f"alpha {self.alpha} isn't positive and finite")


def find_targets(model: OpenVLA, wanted: Iterable[str]) -> list[str]:
    """Names of the linear layers that are meant, of those whose output matters, without the head's.

    Args:
        model: whose layers.
        wanted: see `LoraShape.targets`.

    Raises:
        ConfigError: for one that means no layer.
    """
    known = [ours for parts in stored_linears(model.config).values() for ours, _ in parts]
    unused = unused_modules(model.config)
    names = sorted(name for name in known if name != "language_model.lm_head" and not name.startswith(unused))
    found: set[str] = set()
    for word in wanted:
        meant = [name for name in names if word == ALL_LINEAR or f".{name}".endswith(f".{word}")]
        meant += [name for name in names if name.startswith(f"{word}.")]
        if not meant:
            kinds = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
            raise ConfigError(f"lora targets: {word}", "is no linear layer", f"known: {ALL_LINEAR}, {kinds}")
        found |= set(meant)
    return sorted(found)


class Adapters:
    """The adapters of a model, at most one in use. Loading them leaves the base's weights as they are.

    Args:
        model: whose linear layers peft wraps; quantise it afterwards, not before.
    """

    def __init__(self, model: OpenVLA) -> None:
        self._model = model
        self._names: list[str] = []
        self._active: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    @property
    def active(self) -> str | None:
        """Name of the adapter in use, None for the base alone."""
        return self._active

    def load(self, name: str, folder: Path | str) -> None:
        """Loads an adapter under a name; what is in use stays in use.

        Raises:
            ConfigError: if it can't be read or isn't this model's, the name is taken or has a dot, or the model is
            quantised already.
        """
        self._check_name(name, str(folder))
        adapter = read_adapter(folder, self._model.config)
        changes = for_model(adapter, self._model.config)
        settings = LoraConfig(
            r=adapter.rank,
            # peft's annotation says int, its arithmetic takes any number, as its own files have.
            lora_alpha=cast("int", adapter.alpha),
            use_rslora=adapter.use_rslora,
            target_modules=sorted(changes),
            lora_dropout=0.0,
        )
        self._inject(name, settings, changes, str(folder))
        with torch.no_grad():
            for key, layer in self._layers_of(name).items():
                layer.lora_A.get_parameter(f"{name}.weight").copy_(changes[key].A)
                layer.lora_B.get_parameter(f"{name}.weight").copy_(changes[key].B)

    def add(self, name: str, shape: LoraShape, seed: int) -> None:
        """Makes a new adapter, which changes nothing yet (B is zero); what is in use stays in use.

        Args:
            name: of it.
            shape: of it.
            seed: of A, normal with standard deviation 1 / rank as in OpenVLA's fine-tuning.

        Raises:
            ConfigError: if the name is taken or has a dot, no layer is meant, or the model is quantised already.
        """
        self._check_name(name, f"adapter {name}")
        targets = find_targets(self._model, shape.targets)
        settings = LoraConfig(
            r=shape.rank,
            lora_alpha=cast("int", shape.alpha),
            use_rslora=shape.use_rslora,
            target_modules=targets,
            lora_dropout=shape.dropout,
            init_lora_weights="gaussian",
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._inject(name, settings, targets, f"adapter {name}")

    def train(self, name: str) -> list[nn.Parameter]:
        """Puts an adapter into use and makes its weights, in single precision, the model's only trainable ones.

        Returns:
            Those weights.

        Raises:
            UnknownNameError: for a name that wasn't loaded or added.
        """
        self.use(name)
        found = []
        for layer in self._layers_of(name).values():
            for side in _sides(layer):
                weight = side.to(torch.float32).get_parameter(f"{name}.weight")
                weight.requires_grad_(True)
                found.append(weight)
        return found

    def read(self, name: str) -> LoraAdapter:
        """An adapter as it is now, on the CPU.

        Raises:
            UnknownNameError: for a name that wasn't loaded or added.
        """
        self._check_known(name)
        layers = self._layers_of(name)
        one = next(iter(layers.values()))
        changes = {
            key: LowRank(*(side.get_parameter(f"{name}.weight").detach().cpu().clone() for side in _sides(layer)))
            for key, layer in layers.items()
        }
        return LoraAdapter(one.r[name], float(one.lora_alpha[name]), bool(one.use_rslora.get(name)), changes)

    def use(self, name: str | None) -> None:
        """Puts an adapter into use, or with None the base alone.

        Raises:
            UnknownNameError: for a name that wasn't loaded.
        """
        if name is not None:
            self._check_known(name)
        for layer in self._layers().values():
            if name is not None:
                layer.set_adapter([name])
            layer.enable_adapters(name is not None)
        # peft makes what it switches on trainable.
        self._model.requires_grad_(False)
        self._active = name

    def _inject(self, name: str, settings: LoraConfig, wanted: Iterable[str], where: str) -> None:
        wanted = set(wanted)
        if not all(isinstance(self._model.get_submodule(key), (nn.Linear, LoraLayer)) for key in wanted):
            raise ConfigError(where, "the model's weights are quantised", "load adapters first, then quantise")
        with warnings.catch_warnings():
            # peft warns of a second adapter, which is what is meant.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            inject_adapter_in_model(settings, self._model, adapter_name=name)
        differing = sorted(self._layers_of(name).keys() ^ wanted)
        if differing:
            raise ConfigError(where, f"peft put it elsewhere: {', '.join(differing[:4])}", "report this as a bug")
        self._model.eval()
        self._names.append(name)
        self.use(self._active)

    def _check_name(self, name: str, where: str) -> None:
        if name in self._names or "." in name or not name:
            raise ConfigError(where, f"adapter name {name!r} is taken, empty or has a dot", "choose another one")

    def _check_known(self, name: str) -> None:
        if name not in self._names:
            raise UnknownNameError("adapter", name, self._names)

    def _layers_of(self, name: str) -> dict[str, LoraLayer]:
        return {key: layer for key, layer in self._layers().items() if name in layer.lora_A}

    def _layers(self) -> dict[str, LoraLayer]:
        return {key: module for key, module in self._model.named_modules() if isinstance(module, LoraLayer)}


def _sides(layer: LoraLayer) -> tuple[nn.Module, nn.Module]:
    return layer.lora_A, layer.lora_B
