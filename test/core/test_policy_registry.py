"""Kinds of policies: found, imported when they are made, reported when they can't be; and the rule about threads."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vla_ros.contract import load_contract
from vla_ros.errors import ConfigError, ContractError, MissingDependencyError, UnknownNameError
from vla_ros.policies import registry
from vla_ros.policies.base import InferenceContext, Policy
from vla_ros.policies.one_at_a_time import OneAtATime
from vla_ros.policies.packages import packages_for
from vla_ros.policies.registry import PolicyConfig, load_factory, load_policy_config, make_policy, policy_kinds
from vla_ros.types import ActionChunk, Observation

CONTRACT = load_contract("tool_delta_visual")


class Counting:
    """A policy that loses count when calls overlap."""

    def __init__(self, contract: Any = CONTRACT, parameters: dict[str, Any] | None = None) -> None:
        self.contract, self.parameters, self.count = contract, parameters, 0

    def reset(self, task: str, seed: int) -> None:
        self.count = 0

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        count = self.count
        time.sleep(0.002)
        self.count = count + 1
        return ActionChunk(np.full((1, 7), float(self.count)))


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Makes entry points of modules that are written on the spot: name -> source."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(**sources: str) -> None:
        points = []
        for name, source in sources.items():
            (tmp_path / f"installed_{name}.py").write_text(source)
            monkeypatch.delitem(sys.modules, f"installed_{name}", raising=False)
            points.append(EntryPoint(name, f"installed_{name}:make", registry.ENTRY_POINT_GROUP))
        monkeypatch.setattr(registry, "entry_points", lambda group: points if group == points[0].group else [])

    return make


def write_config(folder: Path, **values: Any) -> str:
    path = folder / "mine.yaml"
    data = {"name": "mine", "kind": "scripted_visual", "contract": "tool_delta_visual", "rate_hz": 5.0}
    path.write_text(yaml.safe_dump(data | values))
    return str(path)


def observation() -> Any:
    return None  # `Counting` doesn't look.


def test_overlapping_calls_wait_for_one_another() -> None:
    policy, calls = OneAtATime(Counting()), 8
    begin = threading.Barrier(calls)

    def call(_: int) -> float:
        begin.wait()
        return float(policy.infer(observation(), InferenceContext()).actions[0, 0])

    with ThreadPoolExecutor(max_workers=calls) as threads:
        assert sorted(threads.map(call, range(calls))) == [float(n) for n in range(1, calls + 1)]


def test_a_guarded_policy_is_a_policy_and_shows_what_else_it_has() -> None:
    policy = OneAtATime(Counting(parameters={"a": 1}))
    assert isinstance(policy, Policy)
    assert policy.contract is CONTRACT
    assert policy.parameters == {"a": 1}
    with pytest.raises(AttributeError, match="unheard_of"):
        _ = policy.unheard_of


def test_every_policy_that_is_made_is_guarded(install: Any, tmp_path: Path) -> None:
    install(mine="from vla_ros.policies.scripted_visual import ScriptedVisualPolicy\n\n"
                 "def make(contract, parameters):\n    return ScriptedVisualPolicy(contract)\n")  # fmt: skip
    policy, contract = make_policy(load_policy_config(write_config(tmp_path, kind="mine")))
    assert isinstance(policy, OneAtATime)
    assert policy.contract == contract == CONTRACT


def test_a_policy_of_another_contract_is_refused_with_the_lines(install: Any, tmp_path: Path) -> None:
    install(mine="import dataclasses\nfrom vla_ros.policies.scripted_visual import ScriptedVisualPolicy\n\n"
                 "def make(contract, parameters):\n    policy = ScriptedVisualPolicy(contract)\n"
                 "    action = dataclasses.replace(contract.action, period_s=0.2)\n"
                 "    policy.contract = dataclasses.replace(contract, action=action)\n    return policy\n")  # fmt: skip
    with pytest.raises(ContractError, match=r"action\.period_s: 0\.1 != 0\.2"):
        make_policy(load_policy_config(write_config(tmp_path, kind="mine")))


def test_unknown_kind_names_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown policy kind 'scripted'; did you mean 'scripted_visual'\?"):
        make_policy(load_policy_config(write_config(tmp_path, kind="scripted")))


def test_a_kind_whose_package_is_missing_says_how_to_install_it(install: Any) -> None:
    install(mine="import package_that_nobody_has\n")
    with pytest.raises(MissingDependencyError, match=r"package_that_nobody_has is missing.* -m pip install package_th"):
        load_factory("mine")


def test_a_kind_that_imports_late_what_is_missing_says_so_too(install: Any, tmp_path: Path) -> None:
    install(mine="def make(contract, parameters):\n    import package_that_nobody_has.inside\n")
    with pytest.raises(
        MissingDependencyError, match=r"needed for policy 'mine' of kind 'mine'; mend: .* install package_"
    ):
        make_policy(load_policy_config(write_config(tmp_path, kind="mine")))


@pytest.mark.parametrize("source", ["raise RuntimeError('broken inside')", "1 / 0", "def other(): pass"])
def test_an_entry_point_that_fails_to_import_is_named_and_breaks_no_other(install: Any, source: str) -> None:
    install(broken=source, sound="def make(contract, parameters): return None")
    with pytest.raises(ConfigError, match=r"policy kind 'broken' of .*installed_broken:make fails to import"):
        load_factory("broken")
    assert load_factory("sound")(CONTRACT, {}) is None


def test_a_fault_of_our_own_modules_is_no_missing_package() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"vla_ros\.nothing_like_it"), packages_for("a test"):
        import vla_ros.nothing_like_it  # noqa: F401


def test_an_entry_point_does_not_take_the_name_of_a_built_in_kind(install: Any) -> None:
    install(scripted_visual="raise RuntimeError('hostile')")
    assert policy_kinds()["scripted_visual"].target == registry.BUILT_IN["scripted_visual"]


def test_paths_are_relative_to_the_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "mine_contract.yaml").write_text("")
    name = write_config(tmp_path, contract="mine_contract.yaml", parameters={"checkpoint": "weights", "other": 1})
    monkeypatch.chdir("/")
    config = load_policy_config(name)
    assert config.parameters == {"checkpoint": str(tmp_path / "weights"), "other": 1}
    assert config.contract == str(tmp_path / "mine_contract.yaml")


@pytest.mark.parametrize("rate_hz", [0.0, float("nan"), float("inf")])
def test_a_rate_has_to_be_positive_and_finite(rate_hz: float) -> None:
    with pytest.raises(ValueError, match="rate_hz"):
        PolicyConfig("own", "learned", "libero", rate_hz)


def test_a_checkpoint_in_the_home_of_nobody_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("name: own\nkind: learned\ncontract: libero\nrate_hz: 5\nparameters: {checkpoint: ~no_such_user/a}")
    with pytest.raises(ConfigError, match="home folder of nobody"):
        load_policy_config(str(path))


def test_a_checkpoint_that_is_no_path_is_left_to_its_kind(tmp_path: Path) -> None:
    name = write_config(tmp_path, parameters={"checkpoint": "somebody/on-a-hub"})
    assert load_policy_config(name).parameters == {"checkpoint": "somebody/on-a-hub"}
