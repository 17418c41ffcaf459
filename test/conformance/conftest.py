"""Every policy that the conformance suite holds to its rules: those of config/policies, and every own network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vla_ros.config import config_names
from vla_ros.policies.architectures.spec import ARCHITECTURES
from vla_ros.policies.registry import PolicyConfig, load_policy_config

RUNTIMES = ("torch", "onnx")


@pytest.fixture(
    params=[*config_names("policies"), *(f"{name}-{runtime}" for name in ARCHITECTURES for runtime in RUNTIMES)]
)
def config(request: pytest.FixtureRequest, tmp_path: Path, tiny_checkpoints: Any) -> PolicyConfig:
    """The config of one policy; a policy or a network is tested by being added."""
    if request.param in config_names("policies"):
        return load_policy_config(request.param)
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
