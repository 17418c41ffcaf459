"""What an answer of the shipped small VLA costs on one core."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from vla_ros.benchmarks.options import Options, Result
from vla_ros.benchmarks.policies.inference import time_runtimes
from vla_ros.benchmarks.training.made_up import make_examples
from vla_ros.config import config_names
from vla_ros.policies.packages import packages_for

NAME = "flow_vla"


def run(options: Options) -> Result:
    """Measures `infer_ms`: the time that one thread computes for an answer with ONNX Runtime.

    Of the policy in config/policies/flow_vla.yaml; before there is one, of a network of random weights, which costs
    what a trained one costs.
    """
    with packages_for("the benchmark of training"):
        from vla_ros.policies.export import export_onnx
    calls = options.count(60, 600)
    with tempfile.TemporaryDirectory(prefix="vla_ros_bench_") as name:
        folder = Path(name) / NAME
        shipped = _shipped()
        if shipped is None:
            _write_random(folder)
        else:
            folder.symlink_to(shipped)
        if not (folder / "model.onnx").is_file():
            export_onnx(folder)
        times = time_runtimes(folder, calls, options.seed, options)
    details: dict[str, Any] = {
        "calls": calls,
        "checkpoint": "random weights" if shipped is None else str(shipped),
        "onnx_ms": {key: 1e3 * value for key, value in times.onnx_s.as_json().items()},
        "torch_ms": {key: 1e3 * value for key, value in times.torch_s.as_json().items()},
    }
    return Result({"infer_ms": 1e3 * times.onnx_s.median}, details)


def _shipped() -> Path | None:
    """The checkpoint of the policy that comes with the package, None where there is none."""
    from vla_ros.policies.registry import load_policy_config

    if NAME not in config_names("policies"):
        return None
    checkpoint = Path(str(load_policy_config(NAME).parameters.get("checkpoint", "")))
    return checkpoint if (checkpoint / "policy.json").is_file() else None


def _write_random(folder: Path) -> None:
    import torch

    from vla_ros.benchmarks.training.made_up import make_network
    from vla_ros.policies.torch_model import save_policy

    examples = make_examples(folder.parent / "frames", frames=64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make_network(examples)
    save_policy(folder, network, examples.contract, examples.statistics())
