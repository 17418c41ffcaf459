"""Who is to be evaluated: policies by name, and checkpoints of a training run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from vla_ros.errors import ConfigError
from vla_ros.policies.checkpoint import read_checkpoint
from vla_ros.policies.fit import CONTRACT_FILE
from vla_ros.policies.registry import PolicyConfig, load_policy_config

_RATE_HZ = 8.0


def policy_of_checkpoint(folder: Path, like: PolicyConfig | None = None) -> PolicyConfig:
    """A learned policy out of a checkpoint's folder.

    Args:
        folder: with policy.json in it.
        like: whose rate, seed and other parameters to take; None for the usual ones.

    Raises:
        ConfigError: if it is no checkpoint.
    """
    folder = folder.resolve()
    read_checkpoint(folder, with_weights=False)
    name = re.sub(r"\W", "_", folder.name, flags=re.ASCII)
    base = like or PolicyConfig("checkpoint", "learned", "", _RATE_HZ)
    return replace(
        base,
        name=name if name[:1].isalpha() else f"checkpoint_{name}",
        kind="learned",
        contract=str(folder / CONTRACT_FILE),
        parameters={**base.parameters, "checkpoint": str(folder)},
    )


def find_candidate(word: str) -> PolicyConfig:
    """A policy by its name or YAML file, or a checkpoint by its folder.

    Raises:
        VlaRosError: if it is none of them.
    """
    return policy_of_checkpoint(Path(word)) if Path(word).is_dir() else load_policy_config(word)


def find_checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Step and folder of each checkpoint of a training run, by step.

    Raises:
        ConfigError: if there are none.
    """
    matches = ((re.fullmatch(r"step-(\d+)", path.name), path) for path in (run / "checkpoints").glob("step-*"))
    found = sorted((int(match[1]), path) for match, path in matches if match)
    if not found:
        raise ConfigError(f"--checkpoints {run}", "holds no checkpoints/step-*", "give the folder of a training run")
    return found
