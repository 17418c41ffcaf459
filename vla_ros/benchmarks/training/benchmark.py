"""The parts of `vla-ros bench training` and what they have to show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vla_ros.benchmarks.options import Result
from vla_ros.benchmarks.parts import Benchmark, Part
from vla_ros.benchmarks.requirement import Requirement

PARTS: dict[str, Part] = {
    "throughput": Part(
        "throughput",
        "the trainer with its loader, from prepared frames in page cache, over the bare torch step of the same network",
        (
            Requirement(
                "samples_per_s_over_bare", 0.9, 0.95, "trainer over bare step on tensors in memory", is_least=True
            ),
        ),
    ),
    "inference": Part(
        "inference",
        "the flow_vla that comes with the package, on one core with ONNX Runtime",
        (Requirement("infer_ms", 20.0, 10.0, "one answer", "ms"),),
    ),
}
BENCHMARK = Benchmark("training", __package__, PARTS, ("numpy", "torch", "accelerate", "onnxruntime"))
chosen_parts, requirements, run = BENCHMARK.chosen, BENCHMARK.requirements, BENCHMARK.run


def draw(_found: Mapping[str, Result], _out: Path) -> list[Path]:
    """Nothing: the figures are two numbers."""
    return []
