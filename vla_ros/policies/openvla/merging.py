"""A base checkpoint and an adapter made one: a folder in the hub's layout that needs neither of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vla_ros.errors import ConfigError
from vla_ros.files import whole_folder
from vla_ros.policies.openvla.checkpoint import Checkpoint
from vla_ros.policies.openvla.fine_tuned import copy_meaning, read_card
from vla_ros.policies.openvla.lora import add_to, for_checkpoint, read_adapter
from vla_ros.policies.openvla.quantisation import SCHEMES, Scheme, round_trip
from vla_ros.policies.openvla.weights import stored_linears, unused_modules

# What describes a checkpoint beside its weights; code of it (*.py) isn't taken along, since nothing here runs it.
_DESCRIPTIONS = (".json", ".model", ".txt", ".md")


def merge_adapter(
    checkpoint: Checkpoint, adapter: Path | str, target: Path | str, on_progress: Callable[[float], None] | None = None
) -> Path:
    """Writes a checkpoint in the hub's layout, with the same files, whose weights have an adapter added.

    A shard at a time is held in memory. Tensors that the adapter leaves alone are copied bit for bit, unless it was
    trained on quantised weights: it makes up for their errors, too, so it is added to those weights as the codes give
    them back (ours do exactly, those of a library but for how it rounds its scales). What an adapter trained here says
    of its actions (contract, statistics) becomes the checkpoint's.

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
    adapter = Path(adapter).expanduser()
    read = read_adapter(adapter, checkpoint.config)
    card = read_card(adapter)
    scheme = SCHEMES.get(card.quantisation) if card else None
    coded = _coded_rows(checkpoint) if scheme is not None else {}
    changes = for_checkpoint(read, checkpoint.config)
    with whole_folder(target) as folder:
        for path in sorted(checkpoint.folder.iterdir()):
            if path.is_file() and path.name not in checkpoint.shards and path.suffix in _DESCRIPTIONS:
                shutil.copy2(path, folder / path.name)
        for done, (file, names) in enumerate(checkpoint.shards.items(), start=1):
            with safe_open(checkpoint.folder / file, framework="pt") as shard:
                tensors = {name: shard.get_tensor(name) for name in names}
                metadata = shard.metadata() or {"format": "pt"}
            for name, value in tensors.items():
                if scheme is not None and name in coded:
                    value = _as_coded(value, coded[name], scheme)
                tensors[name] = add_to(value, changes[name], read.scale) if name in changes else value
            save_file(tensors, folder / file, metadata=metadata)
            if on_progress is not None:
                on_progress(done / len(checkpoint.shards))
        copy_meaning(adapter, folder)
    return target


def _coded_rows(checkpoint: Checkpoint) -> dict[str, list[tuple[int, int] | None]]:
    """For each stored weight that `quantise` would turn into codes: the rows that are one layer of ours."""
    unused = unused_modules(checkpoint.config)
    return {
        f"{stored}.weight": [rows for _, rows in parts]
        for stored, parts in stored_linears(checkpoint.config).items()
        if not stored.endswith("lm_head") and not any(ours.startswith(unused) for ours, _ in parts)
    }


def _as_coded(weight: Tensor, parts: list[tuple[int, int] | None], scheme: Scheme) -> Tensor:
    coded = weight.clone()
    for rows in parts:
        first, end = rows or (0, len(weight))
        coded[first:end] = round_trip(weight[first:end], scheme)
    return coded
