"""policy_node's policies come and go beside the one that is active, and none of them can end it."""

from __future__ import annotations

import json
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from vla_ros.config import package_share
from vla_ros.contract import Contract
from vla_ros.errors import ConfigError
from vla_ros.nodes.policy_node import PolicyNode
from vla_ros.policies import registry
from vla_ros.policies.base import InferenceContext
from vla_ros.types import ActionChunk, Observation

pytestmark = pytest.mark.ros

BUILT_IN_FILE = package_share() / "config" / "policies" / "scripted_visual.yaml"


class Own:
    """A policy that isn't asked here; it is made as a test says."""

    made: list[str]
    act: Callable[[], None]

    def __init__(self, contract: Contract, parameters: dict[str, Any]) -> None:
        Own.made.append(parameters.get("who", ""))
        self.contract, self.is_closed = contract, False
        Own.act()

    def reset(self, task: str, seed: int) -> None:
        return

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        return ActionChunk(np.zeros((1, 7)))


class Stage:
    """A policy_node in this process, configured, and what it tells."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.node = folder, None
        self.events: list[dict[str, Any]] = []

    def write(self, name: str, contract: str = "tool_delta_visual", folder: str = "") -> str:
        path = self.folder / folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"name: {name}\nkind: own\ncontract: {contract}\nrate_hz: 5.0\nparameters: {{who: {name}}}\n")
        return str(path)

    def start(self, policy: str, resident: str = "") -> PolicyNode:
        given = {"robot": "panda", "rig": "panda_table", "policy": policy, "resident": f"'{resident}'"}
        rclpy.init(args=["--ros-args", *[word for key, value in given.items() for word in ("-p", f"{key}:={value}")]])
        self.node = node = PolicyNode()
        publish = node._publish_event

        def hear(event: Any) -> None:
            self.events.append(json.loads(json.dumps(event)))
            publish(event)

        node._publish_event = hear  # type: ignore[method-assign]
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(node)
        node.start()
        return node

    def keep(self, *words: str) -> Any:
        return self.node.set_parameters([Parameter("resident", value=",".join(words))])[0]

    def await_event(self, kind: str, patience: Any) -> dict[str, Any]:
        def found() -> Any:
            self.executor.spin_once(timeout_sec=0.02)
            return [event for event in self.events if event["event"] == kind]

        return patience(found, kind)[-1]

    @property
    def resident(self) -> str:
        return self.node.get_parameter("resident").value


@pytest.fixture
def stage(ros_domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    module = types.ModuleType("own_policies")
    module.Own = Own  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_policies", module)
    monkeypatch.setitem(registry.BUILT_IN, "own", "own_policies:Own")
    Own.made, Own.act = [], staticmethod(lambda: None)
    stage = Stage(tmp_path)
    yield stage
    if stage.node is not None:
        stage.node.close()
        stage.node.destroy_node()
    rclpy.try_shutdown()


def test_policy_named_twice_by_name_and_by_file_is_loaded_once(stage: Stage) -> None:
    node = stage.start("scripted_visual", str(BUILT_IN_FILE))
    assert list(node.residents.by_name) == ["scripted_visual"]
    assert [p.topic for p in node.publishers].count("policies/scripted_visual/action_chunk") == 1


def test_two_files_with_policies_of_one_name_are_refused(stage: Stage) -> None:
    files = stage.write("mine", folder="one"), stage.write("mine", folder="two")
    with pytest.raises(ConfigError, match="both called 'mine'"):
        stage.start("scripted_visual", ",".join(files))
    assert not Own.made


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [RuntimeError("no such layer"), SystemExit(3)])
def test_policy_that_fails_to_load_in_any_way_is_refused_and_loads_once_it_is_mended(
    stage: Stage, patience, error: BaseException
) -> None:
    Own.act = staticmethod(lambda: _raise(error))
    stage.start("scripted_visual")
    word = stage.write("mine")
    assert stage.keep(word).successful
    refused = stage.await_event("policy_refused", patience)
    assert refused["policy"] == word
    assert type(error).__name__ in refused["reason"]
    assert "test_residents.py" in refused["reason"]
    # What is resident is what `vla-ros swap` looks at.
    assert stage.resident == ""
    Own.act = staticmethod(lambda: None)
    assert stage.keep(word).successful
    assert stage.await_event("policy_loaded", patience)["policy"] == "mine"
    assert stage.resident == word


def test_policy_that_cannot_be_shown_what_its_contract_says_is_refused_and_the_other_goes_on(
    stage: Stage, patience
) -> None:
    contract = (package_share() / "config" / "contracts" / "tool_delta_visual.yaml").read_text()
    (stage.folder / "twice.yaml").write_text(
        contract.replace("  state:", "  state:\n    - kind: gripper\n    - kind: gripper")
    )
    node = stage.start("scripted_visual")
    assert stage.keep(stage.write("mine", str(stage.folder / "twice.yaml"))).successful
    assert "twice" in stage.await_event("policy_refused", patience)["reason"]
    assert list(node.residents.by_name) == ["scripted_visual"]
    assert node.inference.is_active


def test_policy_asked_for_again_while_it_loads_is_loaded_once(stage: Stage, patience) -> None:
    is_loading, may_load = threading.Event(), threading.Event()

    def wait() -> None:
        is_loading.set()
        may_load.wait(30.0)

    Own.act = staticmethod(wait)
    stage.start("scripted_visual")
    word, last = stage.write("mine"), stage.write("last")
    assert stage.keep(word).successful
    assert is_loading.wait(30.0)
    assert stage.keep(word, last).successful
    may_load.set()
    patience(lambda: stage.await_event("policy_loaded", patience)["policy"] == "last", "the last")
    assert Own.made == ["mine", "last"]


def test_name_that_no_topic_can_have_is_refused_when_it_is_read(stage: Stage) -> None:
    stage.start("scripted_visual")
    result = stage.keep(stage.write("my-act"))
    assert not result.successful
    assert "'my-act' can't be part of a topic's" in result.reason


def test_shutdown_ends_the_chunks_whatever_the_state_was(stage: Stage) -> None:
    node = stage.start("scripted_visual")
    assert node.inference.is_active
    assert node.trigger_shutdown() is TransitionCallbackReturn.SUCCESS
    assert not node.inference.is_active
