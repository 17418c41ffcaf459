"""Adapters of one loaded model: several at once, switched by name in no time, or merged into a checkpoint on disk."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from vla_ros.errors import ConfigError, UnknownNameError
from vla_ros.policies.openvla.checkpoint import Checkpoint
from vla_ros.policies.openvla.lora import add_to, for_checkpoint, for_model, read_adapter
from vla_ros.policies.openvla.model import OpenVLA


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
        if name in self._names or "." in name or not name:
            raise ConfigError(str(folder), f"adapter name {name!r} is taken, empty or has a dot", "choose another one")
        adapter = read_adapter(folder, self._model.config)
        changes = for_model(adapter, self._model.config)
        if not all(isinstance(self._model.get_submodule(key), (nn.Linear, LoraLayer)) for key in changes):
            raise ConfigError(str(folder), "the model's weights are quantised", "load adapters first, then quantise")
        settings = LoraConfig(
            r=adapter.rank,
            # peft's annotation says int, its arithmetic takes any number, as its own files have.
            lora_alpha=cast("int", adapter.alpha),
            use_rslora=adapter.use_rslora,
            target_modules=sorted(changes),
            lora_dropout=0.0,
        )
        with warnings.catch_warnings():
            # peft warns of a second adapter, which is what is meant.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            inject_adapter_in_model(settings, self._model, adapter_name=name)
        wrapped = {key: layer for key, layer in self._layers().items() if name in layer.lora_A}
        if wrapped.keys() != changes.keys():
            differing = sorted(wrapped.keys() ^ changes.keys())
            raise ConfigError(str(folder), f"peft put it elsewhere: {', '.join(differing[:4])}", "report this as a bug")
        with torch.no_grad():
            for key, layer in wrapped.items():
                layer.lora_A.get_parameter(f"{name}.weight").copy_(changes[key].A)
                layer.lora_B.get_parameter(f"{name}.weight").copy_(changes[key].B)
        self._model.eval()
        self._names.append(name)
        self.use(self._active)

    def use(self, name: str | None) -> None:
        """Puts an adapter into use, or with None the base alone.

        Raises:
            UnknownNameError: for a name that wasn't loaded.
        """
        if name is not None and name not in self._names:
            raise UnknownNameError("adapter", name, self._names)
        for layer in self._layers().values():
            if name is not None:
                layer.set_adapter([name])
            layer.enable_adapters(name is not None)
        # peft makes what it switches on trainable.
        self._model.requires_grad_(False)
        self._active = name

    def _layers(self) -> dict[str, LoraLayer]:
        return {key: module for key, module in self._model.named_modules() if isinstance(module, LoraLayer)}


def merge_adapter(
    checkpoint: Checkpoint, adapter: Path | str, target: Path | str, on_progress: Callable[[float], None] | None = None
) -> Path:
    """Writes a checkpoint in the hub's layout, with the same files, whose weights have an adapter added.

    A shard at a time is held in memory. Tensors that the adapter leaves alone are copied bit for bit.

    Args:
        checkpoint: the base.
        adapter: folder of the adapter.
        target: folder to make; it must not exist or be empty.
        on_progress: called with the part that is done, up to 1.

    Raises:
        ConfigError: if the adapter doesn't fit, or the target has something in it.
    """
    target = Path(target).expanduser()
    if target.exists() and any(target.iterdir()):
        raise ConfigError(str(target), "isn't empty", "give a new folder")
    read = read_adapter(adapter, checkpoint.config)
    changes = for_checkpoint(read, checkpoint.config)
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(checkpoint.folder.iterdir()):
        if path.is_file() and path.name not in checkpoint.shards and path.suffix in _DESCRIPTIONS:
            shutil.copy2(path, target / path.name)
    for done, (file, names) in enumerate(checkpoint.shards.items(), start=1):
        with safe_open(checkpoint.folder / file, framework="pt") as shard:
            tensors = {name: shard.get_tensor(name) for name in names}
            metadata = shard.metadata() or {"format": "pt"}
        merged = {name: add_to(value, changes[name], read.scale) for name, value in tensors.items() if name in changes}
        save_file(tensors | merged, target / file, metadata=metadata)
        if on_progress is not None:
            on_progress(done / len(checkpoint.shards))
    return target


# What describes a checkpoint beside its weights; code of it (*.py) isn't taken along, since nothing here runs it.
_DESCRIPTIONS = (".json", ".model", ".txt", ".md")
