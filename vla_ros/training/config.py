"""How anything is trained, and where the settings of a run come from: docs/training.md has them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vla_ros.config import find_config, load_yaml, parse_yaml
from vla_ros.errors import ConfigError


@dataclass(frozen=True)
class LoopConfig:
    """How anything is trained, whatever it is.

    Attributes:
        steps: of gradient descent.
        minutes: of training, after which it ends all the same; null for no limit.
        batch_size: examples a step, of each process.
        learning_rate: highest one, of AdamW.
        warm_up_steps: in which the learning rate rises from 0.
        floor: share of the learning rate that is left at the end of the cosine.
        weight_decay: of matrices and convolutions; biases, norms' factors and other vectors have none.
        betas: of AdamW.
        gradient_norm: the gradient is shortened to this length.
        ema_decay: of the moving average of the weights, which is what the policy gets; 0 for the newest ones. Step n
            uses at most (1 + n) / (10 + n).
        precision: `bf16` computes what bears it in bfloat16; weights are float32 always.
        seed: of the order, the noise, dropout and augmentation.
        checkpoint_every: steps between two checkpoints; there is one at the end besides.
        keep: newest checkpoints to keep, the best one besides; 0 keeps all.
        open_loop_every: steps between two examinations on held-out episodes, each at a checkpoint; 0 for none but the
            last, and null for every checkpoint.
        threads: of the CPU; 0 for torch's own choice.
    """

    steps: int = 2000
    minutes: float | None = None
    batch_size: int = 64
    learning_rate: float = 1e-3
    warm_up_steps: int = 100
    floor: float = 0.02
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    gradient_norm: float = 1.0
    ema_decay: float = 0.995
    precision: Literal["fp32", "bf16"] = "bf16"
    seed: int = 0
    checkpoint_every: int = 500
    keep: int = 3
    open_loop_every: int | None = None
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is below 1")
        for name in ("warm_up_steps", "weight_decay", "seed", "keep", "threads"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)} is negative or not finite")
        for name in ("learning_rate", "gradient_norm", "minutes"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise ValueError(f"{name} {value} isn't positive and finite")
        shares = {
            "floor": self.floor,
            "ema_decay": self.ema_decay,
            "betas[0]": self.betas[0],
            "betas[1]": self.betas[1],
        }
        for name, share in shares.items():
            if not 0.0 <= share < 1.0:
                raise ValueError(f"{name} {share} isn't in [0, 1)")
        if self.open_loop_every is not None and (
            self.open_loop_every < 0 or self.open_loop_every % self.checkpoint_every
        ):
            raise ValueError(
                f"open_loop_every {self.open_loop_every} isn't a multiple of checkpoint_every {self.checkpoint_every}: "
                "what is examined is kept"
            )


def read_settings(policy: str, path: Path | None, changes: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The settings of a run as plain data, and where they come from for error texts.

    Args:
        policy: name of a file in `config/training`, used where there is no path.
        path: of a YAML file that comes in its place.
        changes: `key=value` each, the value as YAML has it; dots lead into mappings, as in `loop.steps=100`.

    Raises:
        ConfigError: for a file that can't be read, or a change that isn't one.
        UnknownNameError: for a name without a file.
    """
    file = find_config("training", policy) if path is None else path
    settings = load_yaml(file)
    change_settings(settings, changes)
    return settings, str(file)


def change_settings(settings: dict[str, Any], changes: Sequence[str]) -> None:
    """Makes changes as `read_settings` has them, in place. Raises ConfigError likewise."""
    for change in changes:
        where = f"--set {change}"
        key, sign, text = change.partition("=")
        if not sign or not key:
            raise ConfigError(where, "isn't key=value", "write e.g. loop.steps=100")
        put(settings, key, parse_yaml(text, where), where)


def put(settings: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Sets a value in nested mappings, which are made if need be.

    Args:
        settings: is changed.
        key: dots lead into mappings.
        value: plain data.
        where: the value comes from, for the error text.

    Raises:
        ConfigError: if the key leads into what isn't a mapping.
    """
    *above, last = key.split(".")
    for name in above:
        settings = settings.setdefault(name, {})
        if not isinstance(settings, dict):
            raise ConfigError(where, f"{name} isn't a mapping", "leave out what follows its dot")
    settings[last] = value
