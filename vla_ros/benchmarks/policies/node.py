"""What policy_node costs around a network, with cameras and joint states coming in all the while."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from vla_ros.benchmarks.options import Options, Result
from vla_ros.benchmarks.timing import is_void, ratio_of_medians
from vla_ros.errors import VlaRosError
from vla_ros.launching.environment import ros_for
from vla_ros.policies.packages import packages_for

ARCHITECTURE = "act"
_LEAST_S = 0.02
_BLOCKS = 5


def run(options: Options) -> Result:
    """Measures `node_overhead`: policy_node's time from an observation to its chunk's publication over that of making
    the same observation and asking the network alone, in the same process while nothing else is asked of it."""
    with ros_for("node_overhead"):
        from vla_ros.nodes import bench_policy
    with packages_for("node_overhead"):
        from vla_ros.benchmarks.policies.inference import write_random_checkpoint
    trials = options.count(40, 300)
    with tempfile.TemporaryDirectory(prefix="vla_ros_bench_") as name:
        folder = Path(name)
        write_random_checkpoint(folder / ARCHITECTURE, ARCHITECTURE, options.seed)
        try:
            times = bench_policy.measure(
                folder, ARCHITECTURE, trials, options.seed, lambda trial: options.progress("node", trial / trials)
            )
        except VlaRosError as error:
            return Result({"node_overhead": None}, problems=(str(error),))
    ratio = ratio_of_medians(times["node"], times["bare"], _BLOCKS)
    control = ratio_of_medians(times["bare_again"], times["bare"], _BLOCKS)
    problems = []
    if is_void(control.median):
        problems.append(f"node_overhead is void: the A/A control was {control.median:.2f}; end what else runs")
    model_s = float(np.median(times["model"]))
    if model_s < _LEAST_S:
        problems.append(f"node_overhead is void: the network took {1e3 * model_s:.0f} ms, and counts from 20 ms on")
    details = {
        "trials": trials,
        "architecture": ARCHITECTURE,
        "node_overhead": ratio.as_json(),
        "a_a": control.as_json(),
        "ms": {name: 1e3 * float(np.median(values)) for name, values in times.items()},
    }
    series = {"times_ms": {name: 1e3 * values for name, values in times.items() if name != "model"}}
    return Result({"node_overhead": None if problems else ratio.median}, details, series, tuple(problems))
