"""The parts of `vla-ros bench policies` and what they have to show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_ros.benchmarks.options import Result
from vla_ros.benchmarks.parts import Benchmark, Part
from vla_ros.benchmarks.requirement import Requirement
from vla_ros.evaluation.drawing import figure_file

PARTS: dict[str, Part] = {
    "node": Part(
        "node",
        "policy_node around a network of over 20 ms, over the bare call",
        (Requirement("node_overhead", 1.1, 1.05, "policy_node's time a chunk over preprocessing and model alone"),),
    ),
    "inference": Part(
        "inference",
        "flow_vla on one thread: ONNX Runtime, over eager torch and over the time its answer lasts",
        (
            Requirement("infer_over_period", 0.1, 0.03, "inference over the time its answer is executed"),
            Requirement("ort_speedup", 1.0, 2.0, "eager torch's time over ONNX Runtime's", is_least=True),
        ),
    ),
    "remote": Part(
        "remote",
        "a round trip to a policy elsewhere with two images of 224x224, over a bare echo",
        (Requirement("remote_over_echo", 2.0, 1.5, "client and server over a bare WebSocket echo of the same bytes"),),
    ),
    "tokens": Part(
        "tokens",
        "FAST tokens of smooth chunks of 50 steps, beside 256 bins",
        (
            Requirement("fast_compression", 5.0, 10.0, "bins' tokens a chunk over FAST's", is_least=True),
            Requirement("fast_rmse", 0.02, 0.01, "FAST's error, of a range of 2"),
        ),
    ),
    "quantisation": Part(
        "quantisation",
        "OpenVLA's weights in fewer bits, on small random models of its structure",
        (
            Requirement("int8_logit_error", 0.05, 0.02, "error of 8 bits in groups, of the logits' own size"),
            Requirement("nf4_over_int4_tensor", 1.0, 0.6, "NF4's error over that of 4 bits a tensor"),
        ),
    ),
}
BENCHMARK = Benchmark(
    "policies", __package__, PARTS, ("numpy", "torch", "onnxruntime", "tokenizers", "websockets", "msgpack")
)
chosen_parts, requirements, run = BENCHMARK.chosen, BENCHMARK.requirements, BENCHMARK.run


def draw(found: Mapping[str, Result], out: Path) -> list[Path]:
    """Draws how long everything took that was compared, a PNG a part.

    Raises:
        MissingDependencyError: without matplotlib.
    """
    paths = []
    for name, result in found.items():
        times: dict[str, Any] = result.series.get("times_ms", {})
        if not times:
            continue
        with figure_file(out / f"{name}.png", 8.0, 4.0, layout="constrained") as figure:
            axes = figure.subplots()
            axes.boxplot(list(times.values()), tick_labels=list(times), whis=(1.0, 99.0), showfliers=False)
            axes.set(title=PARTS[name].meaning, ylabel="ms (box: quartiles, whiskers: 1 and 99 %)", ylim=(0.0, None))
        paths.append(out / f"{name}.png")
    return paths
