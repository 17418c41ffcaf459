"""What a policy's YAML says of an OpenVLA, and what the actions of known datasets mean."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from vla_ros.contract import Contract
from vla_ros.errors import ContractError

Convention = Literal["auto", "bridge", "libero", "contract"]

# Whatever the dataset: OpenVLA's data has the gripper's last entry as 1 open, 0 closed.
_ALWAYS: dict[str, Any] = {"space": "tool", "gripper": "opening", "quantity": "position", "scales": ()}
# Sources: BridgeData V2's deltas of measured states, Euler angles subtracted componentwise, metres and rad; LIBERO's
# controller, where 1 is 0.05 m and 0.5 rad of rotation vector in world axes.
_MEANINGS: dict[str, dict[str, Any]] = {
    "bridge": {"composition": "base_euler", "rotation": "rpy", "position_scale_m": 1.0, "rotation_scale_rad": 1.0},
    "libero": {"composition": "base", "rotation": "rotvec", "position_scale_m": 0.05, "rotation_scale_rad": 0.5},
}


@dataclass(frozen=True)
class OpenVLAParameters:
    """`parameters` of a policy of kind `openvla`.

    Attributes:
        checkpoint: folder in the hub's layout, or of an adapter that was fine-tuned here: then its base is the one that
            its fine_tuned.json names, it is the adapter in use, and weights are quantised as they were in training.
        unnorm_key: dataset whose statistics the actions are read with; empty where the checkpoint has one only.
        convention: what the actions mean: `bridge`, `libero`, `contract` for whatever the contract says, or `auto`:
            `libero` where the dataset's name begins so, else `bridge`.
        image: the contract's image that it sees; empty for the reference.
        centre_area: part of the image's area that is kept, 0.9 for models fine-tuned on random crops; 1 for all, and
            null for what the checkpoint's fine_tuned.json says, else 1.
        device: as torch names it.
        dtype: `float32`, `bfloat16`, `float16`; empty for the checkpoint's own.
        quantisation: `none` or a name of `quantisation.SCHEMES`.
        adapters: LoRA folders by name.
        adapter: the one in use; empty for the base.
    """

    checkpoint: str
    unnorm_key: str = ""
    convention: Convention = "auto"
    image: str = ""
    centre_area: float | None = None
    device: str = "cpu"
    dtype: str = ""
    quantisation: str = "none"
    adapters: dict[str, str] = field(default_factory=dict)
    adapter: str = ""

    def __post_init__(self) -> None:
        if self.centre_area is not None and not 0.0 < self.centre_area <= 1.0:
            raise ValueError(f"centre_area {self.centre_area} isn't in (0, 1]")
        if self.adapter and self.adapter not in self.adapters:
            raise ValueError(f"adapter {self.adapter!r} isn't one of the adapters {sorted(self.adapters)}")


def check_contract(contract: Contract, convention: Convention, dataset: str) -> None:
    """Holds a contract against what the actions of a dataset mean.

    Raises:
        ContractError: naming every line that differs.
    """
    if convention == "auto":
        convention = "libero" if dataset.startswith("libero") else "bridge"
    meaning = _ALWAYS | _MEANINGS.get(convention, {})
    action = dataclasses.asdict(contract.action)
    differing = [
        f"{key} {action[key]!r} instead of {value!r}" for key, value in meaning.items() if action[key] != value
    ]
    if action["relative_to"] == "nothing":
        differing.append("relative_to 'nothing' instead of 'observation' or 'previous_step'")
    if convention == "contract" and action["rotation"] not in ("rpy", "rotvec"):
        differing.append(f"rotation {action['rotation']!r} instead of 'rpy' or 'rotvec'")
    if differing:
        raise ContractError(
            f"contract {contract.name} isn't what OpenVLA's actions of dataset {dataset!r} mean ({convention}): "
            f"{', '.join(differing)}; mend the contract, or set the parameter `convention`"
        )
