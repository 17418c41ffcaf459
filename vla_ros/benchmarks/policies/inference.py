"""What an own network's inference costs: over the time that its answer is executed for, and beside torch's.

Weights are random, which costs what trained ones cost. Everything runs on one thread, call by call in random order, and
what is counted is the time that this thread computes, so that other work on the machine doesn't count.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.benchmarks.options import Options, Result
from vla_ros.benchmarks.timing import CLOCK, Spread, a_a, is_void, ratio_of_medians, time_interleaved
from vla_ros.contract import (
    ActionSpec,
    Contract,
    ImageSpec,
    Normalisation,
    NormalisationSpec,
    ObservationSpec,
    StateItem,
)
from vla_ros.policies.packages import packages_for
from vla_ros.types import FloatArray

ARCHITECTURE = "flow_vla"
# Two cameras, and chunks of 8 at 10 Hz of which half is executed before the next answer takes over.
IMAGE_SIZE, CAMERAS, HORIZON, EXECUTION_STEPS, PERIOD_S = (96, 96), ("base", "wrist"), 8, 4, 0.1
VOCABULARY = ("block", "blue", "green", "pick", "reach", "red", "the", "up")
_WARM_UP = 5


@dataclass(frozen=True)
class RuntimeTimes:
    """One inference with each runtime, on one thread.

    Attributes:
        torch_s: eager torch.
        onnx_s: ONNX Runtime.
        speedup: torch over ONNX Runtime, by blocks.
        control: torch over itself, which says how even the machine was.
    """

    torch_s: Spread
    onnx_s: Spread
    speedup: Spread
    control: Spread


def run(options: Options) -> Result:
    """Measures `infer_over_period` and `ort_speedup` of the default flow_vla.

    `infer_over_period` is the median time of one inference with ONNX Runtime on one thread over the time for which its
    answer is executed, `PERIOD_S * EXECUTION_STEPS`: the part of one core that inference takes.
    """
    calls = options.count(60, 600)
    with tempfile.TemporaryDirectory(prefix="vla_ros_bench_") as name:
        folder = Path(name) / ARCHITECTURE
        with packages_for("the benchmark of inference"):
            from vla_ros.policies.export import export_onnx
        options.progress("inference", 0.0)
        write_random_checkpoint(folder, ARCHITECTURE, options.seed)
        export_onnx(folder)
        options.progress("inference", 0.3)
        times = time_runtimes(folder, calls, options.seed, options)
    execution_s = PERIOD_S * EXECUTION_STEPS
    figures: dict[str, Any] = {
        "infer_over_period": times.onnx_s.median / execution_s,
        "ort_speedup": times.speedup.median,
    }
    problems = []
    if is_void(times.control.median):
        figures["ort_speedup"] = None
        problems.append(f"torch over itself is {times.control.median:.2f}: the machine was too uneven, run it again")
    details = {
        "calls": calls,
        "images": f"{len(CAMERAS)} of {IMAGE_SIZE[1]}x{IMAGE_SIZE[0]}",
        "execution_s": execution_s,
        "torch_ms": _milliseconds(times.torch_s),
        "onnx_ms": _milliseconds(times.onnx_s),
        "ort_speedup": times.speedup.as_json(),
        "a_a": times.control.as_json(),
    }
    return Result(figures, details, problems=tuple(problems))


def time_runtimes(folder: Path, calls: int, seed: int, options: Options | None = None) -> RuntimeTimes:
    """Times a checkpoint's network with torch and with ONNX Runtime, interleaved, on one thread each.

    Args:
        folder: the checkpoint's, with an exported model.
        calls: of each.
        seed: of the inputs and the order.
        options: who is told of the progress.
    """
    import torch

    from vla_ros.policies.checkpoint import read_checkpoint
    from vla_ros.policies.export import examples
    from vla_ros.policies.onnx_model import OnnxModel
    from vla_ros.policies.torch_model import TorchModel, load_model

    rng = np.random.default_rng(seed)
    checkpoint = read_checkpoint(folder)
    network = load_model(checkpoint)
    asked = examples(network, count=8, seed=seed)
    before = torch.get_num_threads()
    models = {"torch": TorchModel(network, "cpu", threads=1), "onnx": OnnxModel.of_checkpoint(checkpoint, threads=1)}

    def call_of(model: Any) -> Any:
        return lambda tick: model.sample(*_arguments(asked[tick % len(asked)]))

    def tell(tick: int) -> None:
        if options is not None:
            options.progress("inference", 0.3 + 0.7 * tick / calls)

    try:
        for model in models.values():
            for tick in range(_WARM_UP):
                call_of(model)(tick)
        times = time_interleaved({name: [call_of(model)] * calls for name, model in models.items()}, rng, tell)
    finally:
        torch.set_num_threads(before)
    times.pop(CLOCK)
    speedup, control = ratio_of_medians(times["torch"], times["onnx"]), a_a(times["torch"], rng)
    return RuntimeTimes(_spread(times["torch"]), _spread(times["onnx"]), speedup, control)


def write_random_checkpoint(folder: Path, architecture: str, seed: int) -> None:
    """A checkpoint of an architecture's default configuration and random weights, of the sizes above."""
    import torch

    from vla_ros.policies.architectures.base import architecture_class
    from vla_ros.policies.architectures.spec import ModelSpec
    from vla_ros.policies.normalisation import Statistics
    from vla_ros.policies.statistics_file import CheckpointStatistics
    from vla_ros.policies.torch_model import save_policy

    rng = np.random.default_rng(seed)
    state_width, width = 8, 7
    spec = ModelSpec(CAMERAS, IMAGE_SIZE, state_width, width, HORIZON, VOCABULARY, max_words=8)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind = architecture_class(architecture)
        model = kind(spec, kind.config_class())
    contract = _contract()
    state, action = rng.standard_normal((100, state_width)), 0.02 * rng.standard_normal((100, width))
    statistics = CheckpointStatistics(
        Statistics.from_samples(state), Statistics.from_samples(action), "random", contract.interface_hash
    )
    save_policy(folder, model, contract, statistics)


def _contract() -> Contract:
    height, width = IMAGE_SIZE
    return Contract(
        "random",
        ObservationSpec(
            {name: ImageSpec(name, width, height) for name in CAMERAS},
            (StateItem("tcp_pose"), StateItem("gripper")),
            CAMERAS[0],
        ),
        ActionSpec("tool", "observation", PERIOD_S, rotation="rotvec"),
        Normalisation(NormalisationSpec("mean_std"), NormalisationSpec("mean_std")),
    )


def _arguments(example: Any) -> tuple[Any, Any, Any]:
    return example.inputs, example.noise, example.prefix


def _spread(values: FloatArray) -> Spread:
    low, median, high = np.percentile(values, [25.0, 50.0, 75.0])
    return Spread(float(median), float(low), float(high))


def _milliseconds(spread: Spread) -> dict[str, float]:
    return {key: 1e3 * value for key, value in spread.as_json().items()}
