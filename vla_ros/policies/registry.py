"""Which policies there are, and how one is made. A policy's module is imported when it is made and not before."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from vla_ros.config import expand_home, find_config, load, package_share
from vla_ros.contract import Contract, find_differences, load_contract
from vla_ros.errors import ConfigError, ContractError, UnknownNameError
from vla_ros.policies.base import Policy
from vla_ros.policies.one_at_a_time import OneAtATime
from vla_ros.policies.packages import packages_for

ENTRY_POINT_GROUP = "vla_ros.policies"

# kind -> "module:factory"; a factory is called with the contract and the YAML's parameters.
BUILT_IN = {
    "learned": "vla_ros.policies.learned:LearnedPolicy.from_parameters",
    "lerobot": "vla_ros.policies.lerobot_policy:LeRobotPolicy.from_parameters",
    "openvla": "vla_ros.policies.openvla.policy:OpenVLAPolicy.from_parameters",
    "pi0": "vla_ros.policies.pi0:Pi0Policy.from_parameters",
    "remote": "vla_ros.policies.remote.policy:RemotePolicy.from_parameters",
    "scripted_visual": "vla_ros.policies.scripted_visual:ScriptedVisualPolicy.from_parameters",
}

Factory = Callable[[Contract, dict[str, Any]], Policy]


@dataclass(frozen=True)
class PolicyConfig:
    """What `config/policies/<name>.yaml` says.

    Attributes:
        name: the file's stem; its chunks are published on `policies/<name>/...`.
        kind: a built-in kind, or the name of an entry point in the group `vla_ros.policies`.
        contract: name or path of its contract; paths here may be relative to the file's folder or to the one that holds
            `config`.
        rate_hz: how often it is asked for a chunk.
        seed: of its own randomness.
        parameters: given to its factory. A `checkpoint` and `adapters` among them are paths as above, or what its kind
            makes of them.
    """

    name: str
    kind: str
    contract: str
    rate_hz: float
    seed: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z]\w*", self.name, re.ASCII):
            raise ValueError(f"name {self.name!r} can't be part of a topic's; use letters, digits and underscores")
        if not 0.0 < self.rate_hz < math.inf:
            raise ValueError(f"rate_hz {self.rate_hz} isn't positive and finite")


@dataclass(frozen=True)
class PolicyKind:
    """A kind of policy.

    Attributes:
        name: as in a policy's YAML.
        target: `module:factory`.
        origin: the distribution it comes from, with its version; empty if it is built in.
    """

    name: str
    target: str
    origin: str = ""


def load_policy_config(name: str) -> PolicyConfig:
    """The policy of that name in `config/policies`, or of that file, its paths as they are from here."""
    path = find_config("policies", name)
    config = load(PolicyConfig, path)
    parameters = dict(config.parameters)
    if isinstance(parameters.get("checkpoint"), str):
        parameters["checkpoint"] = _place(parameters["checkpoint"], path.parent)
    if isinstance(parameters.get("adapters"), dict):
        adapters = parameters["adapters"].items()
        parameters["adapters"] = {name: _place(str(given), path.parent) for name, given in adapters}
    contract = _place(config.contract, path.parent) if config.contract.endswith((".yaml", ".yml")) else config.contract
    return replace(config, contract=contract, parameters=parameters)


def _place(given: str, folder: Path) -> str:
    """Where a path in a file of that folder leads. What leads nowhere stays: it may mean something else."""
    found = (place / expand_home(given) for place in (folder, package_share()))
    return next((str(path.resolve()) for path in found if path.exists()), given)


def policy_name(name_or_path: str) -> str:
    """The name under which a policy publishes, of a name or of a policy's YAML file."""
    return load_policy_config(name_or_path).name if name_or_path.endswith((".yaml", ".yml")) else name_or_path


def listed_policies(text: str) -> tuple[str, ...]:
    """Names and YAML files of policies out of a text that has commas between them."""
    return tuple(filter(None, map(str.strip, text.split(","))))


def policies_by_name(words: Sequence[str]) -> dict[str, str]:
    """Each policy's name and the word that asks for it, a name or a file, in order.

    Raises:
        VlaRosError: for one that isn't known, and for two files whose policies have one name.
    """
    found: dict[str, str] = {}
    for word in words:
        name = load_policy_config(word).name
        other = found.setdefault(name, word)
        if find_config("policies", other).resolve() != find_config("policies", word).resolve():
            raise ConfigError(f"policies {other} and {word}", f"are both called {name!r}", "rename one")
    return found


def policy_kinds() -> dict[str, PolicyKind]:
    """Every kind that is known here, by name; whether it can be imported is another question."""
    kinds = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        origin = f"{point.dist.name} {point.dist.version}" if point.dist else "an entry point"
        kinds[point.name] = PolicyKind(point.name, point.value, origin)
    return kinds | {name: PolicyKind(name, target) for name, target in BUILT_IN.items()}


def load_factory(kind: str) -> Factory:
    """Imports what makes policies of a kind.

    Raises:
        UnknownNameError: for a kind that is neither built in nor installed.
        MissingDependencyError: if its module needs a package that isn't installed.
        ConfigError: if its module fails to import for another reason, or doesn't hold the factory.
    """
    kinds = policy_kinds()
    if kind not in kinds:
        raise UnknownNameError("policy kind", kind, kinds)
    module_name, _, attribute = kinds[kind].target.partition(":")
    with packages_for(f"policy kind {kind!r}"):
        try:
            factory: Any = importlib.import_module(module_name)
            for part in attribute.split("."):
                factory = getattr(factory, part)
        except ModuleNotFoundError:
            raise
        except Exception as error:
            # An entry point is other people's code, which may raise anything.
            whose = kinds[kind].origin or "vla_ros"
            problem = f"{kinds[kind].target} fails to import ({type(error).__name__}: {error})"
            raise ConfigError(f"policy kind {kind!r} of {whose}", problem, "mend or uninstall that package") from error
    found: Factory = factory
    return found


def make_policy(config: PolicyConfig) -> tuple[Policy, Contract]:
    """Makes the policy that a config describes, with its contract.

    Raises:
        ContractError: if the policy sees or does something else than the config's contract says, with the lines that
            differ.
        VlaRosError: see `load_factory`; and what the factory refuses.
    """
    factory = load_factory(config.kind)
    contract = load_contract(config.contract)
    with packages_for(f"policy {config.name!r} of kind {config.kind!r}"):
        policy = factory(contract, config.parameters)
    differences = find_differences(contract, policy.contract)
    if differences:
        raise ContractError(
            f"policy {config.name} asks for contract {contract.name} {contract.interface_hash}, and what was loaded is "
            f"made for {policy.contract.name} {policy.contract.interface_hash}: {'; '.join(differences)}"
        )
    return OneAtATime(policy), contract
