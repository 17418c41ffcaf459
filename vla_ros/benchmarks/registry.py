"""The benchmarks by name; each is a package here with a `benchmark` module, imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import Any

from vla_ros.errors import UnknownNameError

BENCHMARKS = {
    "motion": "the motion path: cost of a tick, limits under adversity, singularities, seams, ROS",
    "policies": "policies: the node around them, inference, the way to another process, tokens",
    "recording": "episodes: what is lost by a recorder, by a crash and by a loss of power",
    "training": "training: what the loop and its data cost over the bare step, and an answer of the shipped network",
}


def load_benchmark(name: str) -> Any:
    """The module of a benchmark: `chosen_parts`, `requirements`, `run` and `draw`.

    Raises:
        UnknownNameError: for a name that isn't in `BENCHMARKS`.
    """
    if name not in BENCHMARKS:
        raise UnknownNameError("benchmark", name, BENCHMARKS)
    return importlib.import_module(f"vla_ros.benchmarks.{name}.benchmark")
