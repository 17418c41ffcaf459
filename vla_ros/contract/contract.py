"""A contract as a whole: its hash, whether a rig fits it, and where two of them differ."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vla_ros.config import find_config, load, plain
from vla_ros.contract.action import ActionSpec
from vla_ros.contract.canonical import canonical_hash
from vla_ros.contract.normalisation import Normalisation
from vla_ros.contract.observation import ObservationSpec
from vla_ros.contract.rig import Rig


@dataclass(frozen=True)
class Contract:
    """What a policy needs and means; several contracts fit one rig.

    Attributes:
        name: the file's stem.
        observation: what it sees.
        action: what its actions mean.
        normalisation: how its vectors are normalised inside; no part of the interface.
    """

    name: str
    observation: ObservationSpec
    action: ActionSpec
    normalisation: Normalisation = field(default_factory=Normalisation)

    @property
    def interface_hash(self) -> str:
        """Sixteen hex digits over observation and action, the same on every machine."""
        return canonical_hash({"observation": self.observation, "action": self.action})


def load_contract(name: str) -> Contract:
    """The contract of that name in `config/contracts`, or of that file."""
    return load(Contract, find_config("contracts", name))


def save_contract(contract: Contract, path: Path) -> None:
    """Writes a contract as the YAML file that `load_contract` reads, every value written out."""
    path.write_text(yaml.safe_dump(plain(dataclasses.asdict(contract)), sort_keys=False), encoding="utf-8")


def find_mismatches(rig: Rig, contract: Contract) -> list[str]:
    """Where a rig doesn't give what a contract asks for: one sentence each, empty if it fits."""
    found = []
    for name, image in contract.observation.images.items():
        if image.camera not in rig.cameras:
            # Without its reference, which says when, there is no observation.
            if image.if_absent == "refuse" or name == contract.observation.reference:
                found.append(
                    f"contract {contract.name}: image {name!r} comes from camera {image.camera!r}, "
                    f"rig {rig.name} has {sorted(rig.cameras)}"
                )
            continue
        spacing_s, rate_hz = contract.observation.history_spacing_s, rig.cameras[image.camera].rate_hz
        if spacing_s > 0.0 and spacing_s * rate_hz < 1.0 - 1e-6:
            found.append(
                f"contract {contract.name}: history_spacing_s {spacing_s:g} asks for images at {1.0 / spacing_s:g} Hz, "
                f"camera {image.camera!r} of rig {rig.name} gives {rate_hz:g} Hz"
            )
    return found


def find_differences(a: Contract, b: Contract) -> list[str]:
    """Where the interfaces of two contracts differ: `key: value in a != value in b`, empty if they are the same.

    The name and what happens inside a policy (normalisation) don't count.
    """
    lines_a, lines_b = ({**_flatten("observation", c.observation), **_flatten("action", c.action)} for c in (a, b))
    # By value, as the hash has it: 1 and 1.0 are the same number, and so are 0 and -0.
    return [
        f"{key}: {lines_a.get(key, 'absent')} != {lines_b.get(key, 'absent')}"
        for key in sorted(lines_a.keys() | lines_b.keys())
        if lines_a.get(key, "absent") != lines_b.get(key, "absent")
    ]


def describe(value: Any) -> str:
    """A contract or rig as sorted `key: value` lines, for diffs and for people."""
    return "\n".join(f"{key}: {text}" for key, text in _flatten("", value).items())


def _flatten(prefix: str, value: Any) -> dict[str, Any]:
    lines: dict[str, Any] = {}

    def walk(path: str, item: Any) -> None:
        if isinstance(item, dict):
            for key in sorted(item):
                walk(f"{path}.{key}" if path else str(key), item[key])
        elif isinstance(item, (list, tuple)) and any(isinstance(entry, dict) for entry in item):
            for index, entry in enumerate(item):
                walk(f"{path}[{index}]", entry)
        else:
            lines[path] = tuple(item) if isinstance(item, list) else item

    walk(prefix, dataclasses.asdict(value))
    return lines
