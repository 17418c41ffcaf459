"""What a tick of filter and controller takes on the clock on the wall, paced as on an arm."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.actions.path import OffsetLimits
from vla_ros.benchmarks.motion.arms import controller_config, load_model
from vla_ros.benchmarks.options import Options, Result
from vla_ros.config import load, package_share
from vla_ros.control.cartesian_controller import CartesianController
from vla_ros.geometry import se3
from vla_ros.geometry.rotations import rotvec_to_matrix
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.safety.config import SafetyConfig
from vla_ros.safety.filter import SafetyFilter
from vla_ros.types import FloatArray, RobotState, ToolChunk

ROBOT = "panda"
_CHUNKS_HZ = 5.0
_POINTS, _STEP_S = 10, 0.05
_SOURCE = "bench"
_WARM_UP_TICKS = 200


def run(options: Options) -> Result:
    """250 Hz, which is what counts, then 500 Hz."""
    details: dict[str, Any] = {}
    series: dict[str, Any] = {}
    rates = {250.0: options.count(1250, 15_000), 500.0: options.count(500, 10_000)}
    whole_s = sum(ticks / rate for rate, ticks in rates.items())
    done_s = 0.0
    for rate_hz, ticks in rates.items():
        options.progress("tick_p99", done_s / whole_s)
        wall_s, cpu_s, offer_s, has_chunk = paced(rate_hz, ticks, options.seed)
        done_s += ticks / rate_hz
        name = f"{rate_hz:.0f}_hz"
        details[name] = {
            "ticks": ticks,
            "p50_ms": _percentile_ms(wall_s, 50.0),
            "p99_ms": _percentile_ms(wall_s, 99.0),
            "p99_ms_of_the_first_half": _percentile_ms(wall_s[: ticks // 2], 99.0),
            "p99_ms_of_the_second_half": _percentile_ms(wall_s[ticks // 2 :], 99.0),
            "p99_ms_cpu": _percentile_ms(cpu_s, 99.0),
            "p50_ms_with_a_new_chunk": _percentile_ms(wall_s[has_chunk], 50.0),
            "p99_ms_without": _percentile_ms(wall_s[~has_chunk], 99.0),
            "p50_ms_to_take_a_chunk": _percentile_ms(offer_s, 50.0),
            "p99_ms_to_take_a_chunk": _percentile_ms(offer_s, 99.0),
        }
        series[name] = 1e3 * wall_s
    return Result({"tick_p99_ms": details["250_hz"]["p99_ms"]}, {**details, "chunks_hz": _CHUNKS_HZ}, series)


def paced(rate_hz: float, ticks: int, seed: int) -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.bool_]]:
    """Runs the loop on its time grid with a chunk five times a second and an arm that follows at once.

    Returns:
        (ticks,) wall time and thread CPU time of each tick in s; wall time of taking each chunk; and which ticks come
        after one.
    """
    config, model = load_model(ROBOT)
    controller = CartesianController(model, replace(controller_config(), rate_hz=rate_hz))
    safety = load(SafetyConfig, package_share() / "config" / "safety.yaml")
    limits = OffsetLimits(model.velocity, model.acceleration, model.jerk)
    filter_ = SafetyFilter(safety, config.tool, model.forward_kinematics, limits)
    states = JointStateBuffer(512)
    rng = np.random.default_rng(seed)
    period_ns = round(1e9 / rate_hz)
    dt_s = 1.0 / rate_hz
    count = ticks + _WARM_UP_TICKS
    every = round(rate_hz / _CHUNKS_HZ)
    home = model.forward_kinematics(model.home)
    wall_ns, cpu_ns, offer_ns = (np.zeros(count, dtype=np.int64) for _ in range(3))
    has_chunk = np.zeros(count, dtype=bool)
    state = controller.init(model.home)
    positions = np.array(model.home)
    filter_.select_source(_SOURCE, 0)
    gc.collect()
    gc.freeze()
    try:
        due_ns = time.monotonic_ns() + period_ns
        for tick in range(count):
            chunk = None
            states.append(RobotState(due_ns, positions, np.zeros_like(positions), 0.5))
            if tick % every == every - 1:
                chunk = _chunk(due_ns - 100_000_000, home, rng)
                has_chunk[tick] = True
            if chunk is not None:
                # Before the tick is due, as in the motion process, where a thread of its own takes what arrives.
                start_ns = time.monotonic_ns()
                filter_.offer(chunk, due_ns, states)
                offer_ns[tick] = time.monotonic_ns() - start_ns
            wait_ns = due_ns - time.monotonic_ns()
            if wait_ns > 0:
                time.sleep(1e-9 * wait_ns)
            start_ns, start_cpu_ns = time.monotonic_ns(), time.thread_time_ns()
            target, _ = filter_.step(due_ns, dt_s, states.newest())
            state, command, _ = controller.step(state, target, dt_s)
            cpu_ns[tick] = time.thread_time_ns() - start_cpu_ns
            wall_ns[tick] = time.monotonic_ns() - start_ns
            positions = command.positions
            due_ns += period_ns
    finally:
        gc.unfreeze()
    measured = slice(_WARM_UP_TICKS, None)
    wall_s, cpu_s, offer_s = (1e-9 * values[measured].astype(np.float64) for values in (wall_ns, cpu_ns, offer_ns))
    has_chunk = has_chunk[measured]
    return wall_s, cpu_s, offer_s[has_chunk], has_chunk


def _chunk(stamp_ns: int, T_base_tcp: FloatArray, rng: np.random.Generator) -> ToolChunk:
    """A walk of some centimetres around a pose (4, 4), as a policy sends it: 100 ms old when it comes."""
    goal = rng.normal(0.0, 0.03, 3)
    turn = rng.normal(0.0, 0.1, 3)
    times_s = np.linspace(_STEP_S, _POINTS * _STEP_S, _POINTS)
    parts = np.linspace(0.1, 1.0, _POINTS)
    poses = [
        se3.make_pose(T_base_tcp[:3, 3] + part * goal, rotvec_to_matrix(part * turn) @ T_base_tcp[:3, :3])
        for part in parts
    ]
    return ToolChunk(stamp_ns, "absolute", np.stack(poses), np.full(_POINTS, 0.5), times_s, _SOURCE)


def _percentile_ms(values_s: FloatArray, percentile: float) -> float:
    return 1e3 * float(np.percentile(values_s, percentile)) if len(values_s) else float("nan")
