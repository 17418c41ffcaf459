"""Who is to be evaluated: policies by name, and checkpoints of a training run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from vla_ros.contract import Rig, find_mismatches, load_contract
from vla_ros.errors import ConfigError, ContractError, UnknownNameError
from vla_ros.policies.checkpoint import POLICY, read_checkpoint
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
    folder = Path(word)
    if (folder / POLICY).is_file():
        return policy_of_checkpoint(folder)
    try:
        return load_policy_config(word)
    except UnknownNameError:
        # A folder that is called as a policy is stands in nobody's way; one that isn't says what it lacks.
        if not folder.is_dir():
            raise
    if (folder / "checkpoints").is_dir():
        raise ConfigError(
            f"checkpoint {folder}", "is a training run", "give one of its checkpoints/step-*, or all by --checkpoints"
        )
    return policy_of_checkpoint(folder)


def check_fit(config: PolicyConfig, rig: Rig) -> None:
    """Holds a policy's contract against a cell.

    Raises:
        ContractError: naming what the rig doesn't give.
    """
    mismatches = find_mismatches(rig, load_contract(config.contract))
    if mismatches:
        raise ContractError("; ".join(mismatches))


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
