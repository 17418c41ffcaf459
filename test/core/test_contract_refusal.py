"""A policy that was made for another contract than the one it is asked to keep is refused, with the differing lines."""

from __future__ import annotations

import dataclasses
import sys
import types
from typing import Any

import pytest

from vla_ros.contract import Contract, load_contract
from vla_ros.errors import ContractError
from vla_ros.policies import registry
from vla_ros.policies.registry import PolicyConfig, make_policy


class Trained:
    """Stands for a policy whose checkpoint has a contract of its own."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract


def register(monkeypatch: pytest.MonkeyPatch, trained_under: Contract) -> PolicyConfig:
    module = types.ModuleType("made_for_a_test")
    module.make = lambda contract, parameters: Trained(trained_under)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(registry.BUILT_IN, "trained", f"{module.__name__}:make")
    return PolicyConfig(name="mine", kind="trained", contract="libero", rate_hz=5.0)


@pytest.mark.parametrize(
    ("part", "changes", "line"),
    [
        ("action", {"gripper": "signed_opening"}, "action.gripper: signed_closing != signed_opening"),
        ("observation", {"max_age_s": 9.0}, r"observation.max_age_s: 0\.3 != 9\.0"),
    ],
)
def test_policy_of_another_contract_is_refused(
    monkeypatch: pytest.MonkeyPatch, part: str, changes: dict[str, Any], line: str
) -> None:
    contract = load_contract("libero")
    other = dataclasses.replace(contract, **{part: dataclasses.replace(getattr(contract, part), **changes)})
    config = register(monkeypatch, other)
    with pytest.raises(ContractError, match=rf"{contract.interface_hash}.*{other.interface_hash}: {line}$"):
        make_policy(config)


def test_policy_of_the_same_contract_under_another_name_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    contract = load_contract("libero")
    config = register(monkeypatch, dataclasses.replace(contract, name="other"))
    policy, found = make_policy(config)
    assert policy.contract.name == "other"
    assert found == contract
