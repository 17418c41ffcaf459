"""The tool led out of reach or into joint limits and back: whether the arm comes back to where it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_ros.benchmarks.motion.arms import robot_names
from vla_ros.benchmarks.motion.tracking import OURS, Goal, bench_of, summary
from vla_ros.benchmarks.options import Options, Result
from vla_ros.geometry import se3
from vla_ros.geometry.rotations import rotvec_to_matrix
from vla_ros.types import FloatArray

_OUT_S, _STAY_S, _SETTLED_S = 2.0, 0.5, 1.0


@dataclass(frozen=True)
class Sweep:
    """A way out, from home: m and rad in base axes, and what it runs into."""

    name: str
    way: tuple[float, float, float, float, float, float]


SWEEPS = (
    Sweep("out_of_reach_x", (0.9, 0.0, 0.0, 0.0, 0.0, 0.0)),
    Sweep("out_of_reach_up", (0.2, 0.0, 1.1, 0.0, 0.0, 0.0)),
    Sweep("out_of_reach_side", (0.3, 1.0, 0.0, 0.0, 0.0, 0.0)),
    Sweep("into_the_base", (-0.6, 0.0, -0.1, 0.0, 0.0, 0.0)),
    Sweep("turned_about_z", (0.0, 0.0, 0.0, 0.0, 0.0, 2.8)),
    Sweep("tilted", (0.1, 0.0, 0.1, 0.0, -2.4, 0.0)),
)
_QUICK = ("out_of_reach_x", "tilted")
_QUICK_PEERS_ON = ("panda", "tilted")


def run(options: Options) -> Result:
    """Every sweep on every arm. A quick run has fewer, and peers in one of them only."""
    sweeps = [sweep for sweep in SWEEPS if not options.is_quick or sweep.name in _QUICK]
    given = [(robot, sweep, options.is_quick) for robot in robot_names() for sweep in sweeps]
    found = options.pool.spread(run_sweep, given, lambda part: options.progress("there_and_back", part))
    names = [f"{robot}_{sweep.name}" for robot, sweep, _ in given]
    details = {name: detail for name, (detail, _) in zip(names, found, strict=True)}
    ours = [detail["solvers"][OURS] for detail in details.values()]
    figures = {
        "there_and_back": {
            "position_mm": max(item["end_error_mm"] for item in ours),
            "angle_deg": max(item["end_error_deg"] for item in ours),
        },
        "there_and_back_violations": sum(item["violations"] for item in ours),
    }
    series = {name: errors for name, (_, errors) in zip(names, found, strict=True)}
    return Result(figures, details, series)


def run_sweep(given: tuple[str, Sweep, bool]) -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """One sweep: details, and errors over time by solver.

    Args:
        given: the robot's name, the sweep, and whether the run is quick.
    """
    robot, sweep, is_quick = given
    has_peers = not is_quick or (robot, sweep.name) == _QUICK_PEERS_ON
    bench = bench_of(robot, True, has_peers)
    model = bench.model
    goal = there_and_back(model.forward_kinematics(model.home), np.array(sweep.way))
    seconds = 2.0 * _OUT_S + _STAY_S + _SETTLED_S
    tracks = bench.tracks(model.home, goal, seconds)
    furthest_m = max(float(track.errors[:, 0].max()) for track in tracks if track.name == OURS)
    solvers = {track.name: summary(track) for track in tracks}
    return {"furthest_m": furthest_m, "solvers": solvers}, {track.name: track.errors for track in tracks}


def there_and_back(T_base_tcp: FloatArray, way: FloatArray) -> Goal:
    """Out along a way (6,), m and rad in base axes, a stay there, and back, by quintic polynomials; then at rest."""

    def goal(time_s: float) -> tuple[FloatArray, FloatArray]:
        out = min(time_s, _OUT_S) / _OUT_S
        back = min(max(time_s - _OUT_S - _STAY_S, 0.0), _OUT_S) / _OUT_S
        part = _blend(out) - _blend(back)
        rate = (_blend_rate(out) - _blend_rate(back)) / _OUT_S
        R = rotvec_to_matrix(part * way[3:]) @ T_base_tcp[:3, :3]
        return se3.make_pose(T_base_tcp[:3, 3] + part * way[:3], R), rate * way

    return goal


def _blend(s: float) -> float:
    return s**3 * (10.0 + s * (-15.0 + 6.0 * s))


def _blend_rate(s: float) -> float:
    return 30.0 * s**2 * (1.0 - s) ** 2
