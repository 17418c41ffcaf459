"""Every policy that the conformance suite holds to its rules: those of config/policies, and every kind and network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from vla_ros.config import config_names
from vla_ros.contract import save_contract
from vla_ros.policies.architectures.spec import ARCHITECTURES
from vla_ros.policies.registry import PolicyConfig, load_policy_config

RUNTIMES = ("torch", "onnx")
# What is tested -> its kind: the policies of config/policies, every network, and the kinds that take a checkpoint.
CASES: Mapping[str, str] = {
    **{name: load_policy_config(name).kind for name in config_names("policies")},
    **{f"{name}_{runtime}": "learned" for name in ARCHITECTURES for runtime in RUNTIMES},
    "openvla": "openvla",
    "pi0": "pi0",
    "lerobot": "lerobot",
}


@pytest.fixture(scope="session")
def cases() -> Mapping[str, str]:
    """What the suite tests, by the name of its parameter -> kind."""
    return CASES


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    """Where `vla-ros serve scripted_visual` would listen."""
    pytest.importorskip("msgpack")
    pytest.importorskip("websockets")
    from vla_ros.policies.remote.access import Access
    from vla_ros.policies.remote.hosting import HostedPolicy
    from vla_ros.policies.remote.server import PolicyServer

    server = PolicyServer([HostedPolicy.load(load_policy_config("scripted_visual"))], "scripted_visual", Access(port=0))
    with server.running() as port:
        yield f"ws://127.0.0.1:{port}"
    server.close()


@pytest.fixture(scope="session")
def openvla_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small OpenVLA with random weights."""
    for package in ("torch", "transformers", "peft", "tokenizers"):
        pytest.importorskip(package)
    from vla_ros.policies.openvla.small import make_small_checkpoint

    return make_small_checkpoint(tmp_path_factory.mktemp("openvla"))


@pytest.fixture(scope="session")
def pi0_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pi0 with random weights, its contract beside it."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers.models.pi0", reason="needs transformers 5.23 or newer")
    from vla_ros.policies.pi0_small import make_small_checkpoint, small_contract

    folder = make_small_checkpoint(tmp_path_factory.mktemp("pi0"))
    save_contract(small_contract(), folder / "contract.yaml")
    return folder


@pytest.fixture(params=CASES)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> PolicyConfig:
    """The config of one policy; a policy or a network is tested by being added."""
    name, kind = request.param, CASES[request.param]
    if name not in config_names("policies"):
        contract, parameters = _checkpoint(name, kind, request)
        data = {"name": name, "kind": kind, "contract": contract, "rate_hz": 10.0, "parameters": parameters}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(data))
        return load_policy_config(str(path))
    found = load_policy_config(name)
    if kind != "remote":
        return found
    # Its server, on whatever port is free. The deadline is a loaded machine's.
    there = {"url": request.getfixturevalue("server_url"), "deadline_s": 30.0}
    return dataclasses.replace(found, parameters={**found.parameters, **there})


def _checkpoint(name: str, kind: str, request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Contract and parameters of a case that has a checkpoint, which is made once a session."""
    if kind == "learned":
        architecture, _, runtime = name.rpartition("_")
        folder = request.getfixturevalue("tiny_checkpoints").get(architecture, is_exported=runtime == "onnx")
        return str(folder / "contract.yaml"), {"checkpoint": str(folder), "runtime": runtime}
    if kind == "lerobot":
        lerobot = request.getfixturevalue("lerobot_policies")
        # Of its policies, the one that takes language.
        folder = lerobot.folder / "smolvla"
        images = {"observation.images.hand": "wrist"}
        there = {"environment": str(lerobot.python), "deadline_s": 60.0}
        return str(folder / "contract.yaml"), {"checkpoint": str(folder), "images": images, **there}
    if kind == "pi0":
        folder = request.getfixturevalue("pi0_checkpoint")
        return str(folder / "contract.yaml"), {"checkpoint": str(folder)}
    assert kind == "openvla", f"say here how a checkpoint of kind {kind} is made"
    return "openvla_bridge", {"checkpoint": str(request.getfixturevalue("openvla_checkpoint"))}
