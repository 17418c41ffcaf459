"""Looks at one kind of policy and its policies. Importing other people's code may do anything: run it in a process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vla_ros.contract import load_contract
from vla_ros.errors import ConfigError, MissingDependencyError, VlaRosError
from vla_ros.policies.packages import packages_for
from vla_ros.policies.registry import Factory, PolicyConfig, load_factory, load_policy_config, make_policy

# Begins the one line that is the answer.
MARK = "vla-ros-policies:"


@dataclass(frozen=True)
class Finding:
    """Why something can't be run.

    Attributes:
        problem: what is wrong, empty if nothing is.
        mend: what to do about it.
    """

    problem: str = ""
    mend: str = ""

    @property
    def is_available(self) -> bool:
        return not self.problem

    @classmethod
    def of_error(cls, error: Exception) -> Finding:
        """What an error says, its mend apart where it has one."""
        if isinstance(error, MissingDependencyError):
            return cls(f"{error.what} is missing, needed for {error.needed_for}", error.mend)
        if isinstance(error, ConfigError):
            return cls(f"{error.where}: {error.problem}", error.mend)
        if isinstance(error, VlaRosError):
            return cls(str(error))
        return cls(f"{type(error).__name__}: {error}", "mend or uninstall what has it")


def examine(kind: str, names: list[str], *, is_loading: bool) -> tuple[Finding, dict[str, Finding]]:
    """Whether a kind can be imported, and whether each of its policies can be made."""
    try:
        factory = load_factory(kind)
    except VlaRosError as error:
        finding = Finding.of_error(error)
        return finding, dict.fromkeys(names, finding)
    found = {}
    for name in names:
        try:
            _examine_policy(factory, load_policy_config(name), is_loading)
            found[name] = Finding()
        except Exception as error:
            found[name] = Finding.of_error(error)
    return Finding(), found


def _examine_policy(factory: Factory, config: PolicyConfig, is_loading: bool) -> None:
    if is_loading:
        make_policy(config)
        return
    contract = load_contract(config.contract)
    # A method `check_parameters` beside the factory finds what it would refuse, without loading weights.
    owner: Any = getattr(factory, "__self__", factory)
    check = getattr(owner, "check_parameters", None)
    if check is not None:
        with packages_for(f"policy {config.name!r} of kind {config.kind!r}"):
            check(contract, config.parameters)
        return
    checkpoint = config.parameters.get("checkpoint")
    if isinstance(checkpoint, str) and checkpoint.startswith((".", "/", "~")) and not Path(checkpoint).exists():
        raise ConfigError(f"policy {config.name}: checkpoint", f"{checkpoint} doesn't exist", "give one that does")


def main(request: str) -> None:
    """Prints the answer to a request, both JSON, as one line that begins with `MARK`."""
    asked = json.loads(request)
    kind, policies = examine(asked["kind"], asked["names"], is_loading=asked["is_loading"])
    answer = {"kind": asdict(kind), "policies": {name: asdict(finding) for name, finding in policies.items()}}
    print(f"\n{MARK}{json.dumps(answer)}", flush=True)
