"""Every policy that the conformance suite holds to its rules: those of config/policies, and every own network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from vla_ros.config import config_names
from vla_ros.policies.architectures.spec import ARCHITECTURES
from vla_ros.policies.registry import PolicyConfig, load_policy_config

RUNTIMES = ("torch", "onnx")


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


@pytest.fixture(
    params=[*config_names("policies"), *(f"{name}-{runtime}" for name in ARCHITECTURES for runtime in RUNTIMES)]
)
def config(request: pytest.FixtureRequest, tmp_path: Path, tiny_checkpoints: Any) -> PolicyConfig:
    """The config of one policy; a policy or a network is tested by being added."""
    if request.param in config_names("policies"):
        found = load_policy_config(request.param)
        if found.kind != "remote":
            return found
        # Its server, on whatever port is free. The deadline is a loaded machine's.
        there = {"url": request.getfixturevalue("server_url"), "deadline_s": 30.0}
        return dataclasses.replace(found, parameters={**found.parameters, **there})
    architecture, _, runtime = request.param.partition("-")
    folder = tiny_checkpoints.get(architecture, is_exported=runtime == "onnx")
    parameters = {"checkpoint": str(folder), "runtime": runtime}
    data = {
        "name": request.param, "kind": "learned", "contract": str(folder / "contract.yaml"), "rate_hz": 10.0,
        "parameters": parameters,
    }  # fmt: skip
    path = tmp_path / f"{request.param}.yaml"
    path.write_text(yaml.safe_dump(data))
    return load_policy_config(str(path))
