"""What a tick of the controller costs: over bare kinematics, and beside pink and mink on the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pinocchio as pin

from vla_ros.benchmarks.motion.arms import (
    SINGULARITIES,
    controller_config,
    joint_path,
    load_model,
    mixed_waypoints,
    singular_configuration,
    tool_targets,
)
from vla_ros.benchmarks.motion.peers_pypi import Mink, Pink, PyPiPeer, missing
from vla_ros.benchmarks.options import Options, Result
from vla_ros.benchmarks.timing import CLOCK, a_a, ratio_of_medians, time_interleaved
from vla_ros.control.cartesian_controller import CartesianController, ControllerReport
from vla_ros.robots.config import RobotConfig
from vla_ros.robots.description import load_description
from vla_ros.types import FloatArray

ROBOT = "panda"
_SECONDS_A_WAYPOINT = 1.2
_PEERS: dict[str, type[PyPiPeer]] = {"pink": Pink, "mink": Mink}
_WHOLE_FLOORS = ("local", "aligned")
# A peer that is further off the target in the median is no comparison.
_FOLLOWS_M = 1e-3
_LIMIT_NEAR_RAD, _SIGMA_NEAR = 0.1, 0.05


def run(options: Options) -> Result:
    """Times everything at each tick of a way through ordinary poses, beside a singularity and beside limits."""
    ticks = options.count(5000, 60_000)
    rng = np.random.default_rng(options.seed)
    config, model = load_model(ROBOT)
    settings = controller_config()
    controller = CartesianController(model, settings)
    dt_s = 1.0 / settings.rate_hz
    singular = next(item for item in SINGULARITIES if (item.robot, item.name) == (ROBOT, "elbow_wrist"))
    way = joint_path(mixed_waypoints(model, singular_configuration(model, singular), rng), _SECONDS_A_WAYPOINT, dt_s)
    targets = tool_targets(model, way, dt_s)
    length = len(targets)
    floors = _floors(config, list(way))
    problems = [problem for problem in map(missing, _PEERS) if problem]
    peers = {name: kind(config, model, controller.limits) for name, kind in _PEERS.items() if not missing(name)}
    wanted = {name: [peer.target(target.T_base_tcp) for target in targets] for name, peer in peers.items()}

    state = controller.init(way[0])
    seen: list[tuple[float, bool, FloatArray]] = []
    report: ControllerReport | None = None

    def ours(tick: int) -> None:
        nonlocal state, report
        state, _, report = controller.step(state, targets[tick % length], dt_s)

    # Once a tick, as in a controller: a second call would find its code and data where the first had put them.
    kinds = rng.choice(list(floors), ticks)
    drawn = [floors[kind] for kind in kinds.tolist()]
    calls: dict[str, Sequence[Callable[[int], object]]] = {"ours": [ours] * ticks, "floor": drawn}
    for name, peer in peers.items():
        calls[name] = [_tick_of(peer, wanted[name], dt_s)] * ticks
    errors: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}

    def look(tick: int) -> None:
        if tick % 500 == 0:
            options.progress("tick", tick / ticks)
        if report is not None:
            seen.append((report.sigma_min if tick % 5 == 0 else np.nan, report.is_clipped, state.command.positions))
        if tick % 20 == 0:
            p = targets[tick % length].T_base_tcp[:3, 3]
            errors["ours"].append(_distance(model.forward_kinematics(state.command.positions), p))
            for name, peer in peers.items():
                errors[name].append(_distance(model.forward_kinematics(np.array(peer.configuration.q)), p))

    times = time_interleaved(calls, rng, look)
    clock_us = 1e6 * float(np.median(times.pop(CLOCK)))
    floor_times = times.pop("floor")
    times |= {kind: floor_times[kinds == kind] for kind in floors}
    floor = min(_WHOLE_FLOORS, key=lambda kind: float(np.median(times[kind])))
    control = a_a(times[floor], rng)
    ratios = {"ik_over_floor": ratio_of_medians(times["ours"], times[floor])}
    ratios["over_jacobian_alone"] = ratio_of_medians(times["ours"], times["jacobian"])
    ratios |= {f"ik_over_{name}": ratio_of_medians(times["ours"], times[name]) for name in peers}
    figures: dict[str, Any] = dict.fromkeys(("ik_over_floor", "ik_over_pink", "ik_over_mink"))
    figures |= {key: ratio.median for key, ratio in ratios.items() if key in figures}
    for name in peers:
        error_m = float(np.median(errors[name]))
        if error_m > _FOLLOWS_M:
            figures[f"ik_over_{name}"] = None
            problems.append(f"{name} is {1e3 * error_m:.1f} mm from the target in the median: it isn't doing the task")
    details = {
        "ticks": ticks,
        "floor": floor,
        "a_a": control.as_json(),
        "ratios": {key: ratio.as_json() for key, ratio in ratios.items()},
        "clock_us_taken_off": clock_us,
        "median_us": {name: 1e6 * float(np.median(values)) for name, values in times.items()},
        "p99_us": {name: 1e6 * float(np.percentile(values, 99.0)) for name, values in times.items()},
        "error_mm": {
            name: {"median": 1e3 * float(np.median(values)), "last": 1e3 * values[-1]}
            for name, values in errors.items()
        },
        "mix": _mix(seen, model.lower, model.upper),
    }
    series = {"times_us": {name: 1e6 * values for name, values in times.items()}}
    return Result(figures, details, series, tuple(problems))


def _floors(config: RobotConfig, path: list[FloatArray]) -> dict[str, Callable[[int], object]]:
    """The tcp's pose and Jacobian as pinocchio gives them, in two ways, and the Jacobian alone."""
    full = pin.buildModelFromXML(load_description(config))
    locked = [i for i, name in enumerate(full.names) if i and name not in config.joint_names]
    model = pin.buildReducedModel(full, locked, pin.neutral(full))
    data = model.createData()
    frame = model.getFrameId(config.tcp_frame, pin.BODY)
    length = len(path)

    placements = data.iMf  # Of the tcp in each joint; in joint 0, the root, once the Jacobian is computed.

    def local(tick: int) -> object:
        J = pin.computeFrameJacobian(model, data, path[tick % length], frame, pin.LOCAL)
        return J, placements[0]

    def aligned(tick: int) -> object:
        pin.computeJointJacobians(model, data, path[tick % length])
        M_base_tcp = pin.updateFramePlacement(model, data, frame)
        return pin.getFrameJacobian(model, data, frame, pin.LOCAL_WORLD_ALIGNED), M_base_tcp

    def jacobian(tick: int) -> object:
        return pin.computeFrameJacobian(model, data, path[tick % length], frame, pin.LOCAL)

    return {"local": local, "aligned": aligned, "jacobian": jacobian}


def _tick_of(peer: PyPiPeer, wanted: list[Any], dt_s: float) -> Callable[[int], object]:
    length = len(wanted)
    return lambda tick: peer.tick(wanted[tick % length], dt_s)


def _distance(T_base_tcp: FloatArray, p: FloatArray) -> float:
    return float(np.linalg.norm(T_base_tcp[:3, 3] - p))


def _mix(seen: list[tuple[float, bool, FloatArray]], lower: FloatArray, upper: FloatArray) -> dict[str, float]:
    """What the ticks were like: parts of all that were near a singularity, near a limit, or acted on by the guard."""
    positions = np.array([item[2] for item in seen])
    room = np.minimum(positions - lower, upper - positions).min(axis=1)
    sigma = np.array([item[0] for item in seen])
    return {
        f"sigma_min_below_{_SIGMA_NEAR:g}": float(np.mean(sigma[~np.isnan(sigma)] < _SIGMA_NEAR)),
        f"within_{_LIMIT_NEAR_RAD:g}_rad_of_a_limit": float(np.mean(room < _LIMIT_NEAR_RAD)),
        "clipped": float(np.mean([item[1] for item in seen])),
    }
