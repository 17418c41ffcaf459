"""Which policies there are, and how one is made. A policy's module is imported when it is made and not before."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from vla_ros.config import find_config, load
from vla_ros.contract import Contract, find_differences, load_contract
from vla_ros.errors import ContractError, UnknownNameError
from vla_ros.policies.base import Policy

ENTRY_POINT_GROUP = "vla_ros.policies"

# kind -> "module:factory"; a factory is called with the contract and the YAML's parameters.
BUILT_IN = {
    "scripted_visual": "vla_ros.policies.scripted_visual:ScriptedVisualPolicy.from_parameters",
}


@dataclass(frozen=True)
class PolicyConfig:
    """What `config/policies/<name>.yaml` says.

    Attributes:
        name: the file's stem; its chunks are published on `policies/<name>/...`.
        kind: a built-in kind, or the name of an entry point in the group `vla_ros.policies`.
        contract: name or path of its contract.
        rate_hz: how often it is asked for a chunk.
        seed: of its own randomness.
        parameters: given to its factory.
    """

    name: str
    kind: str
    contract: str
    rate_hz: float
    seed: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.rate_hz > 0.0:
            raise ValueError(f"rate_hz {self.rate_hz} isn't positive")


def load_policy_config(name: str) -> PolicyConfig:
    """The policy of that name in `config/policies`, or of that file."""
    return load(PolicyConfig, find_config("policies", name))


def policy_name(name_or_path: str) -> str:
    """The name under which a policy publishes, of a name or of a policy's YAML file."""
    return load_policy_config(name_or_path).name if name_or_path.endswith((".yaml", ".yml")) else name_or_path


def policy_kinds() -> dict[str, str]:
    """Every kind that can be made here, with the `module:factory` behind it."""
    return {**{point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}, **BUILT_IN}


def make_policy(config: PolicyConfig) -> tuple[Policy, Contract]:
    """Makes the policy that a config describes, with its contract.

    Raises:
        UnknownNameError: for a kind that is neither built in nor installed.
        ContractError: if the policy sees or does something else than the config's contract says, with the lines that
            differ.
    """
    kinds = policy_kinds()
    if config.kind not in kinds:
        raise UnknownNameError("policy kind", config.kind, kinds)
    contract = load_contract(config.contract)
    module_name, _, attribute = kinds[config.kind].partition(":")
    factory: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        factory = getattr(factory, part)
    policy: Policy = factory(contract, config.parameters)
    differences = find_differences(contract, policy.contract)
    if differences:
        raise ContractError(
            f"policy {config.name} asks for contract {contract.name} {contract.interface_hash}, and what was loaded is "
            f"made for {policy.contract.name} {policy.contract.interface_hash}: {'; '.join(differences)}"
        )
    return policy, contract
