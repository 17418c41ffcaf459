"""The arms that are measured, where they are singular, and paths for them to follow."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import minimize

from vla_ros.config import load, package_share
from vla_ros.control.config import ControllerConfig
from vla_ros.robots.config import RobotConfig, load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray, ToolTarget


@dataclass(frozen=True)
class Singularity:
    """A configuration at which the tool can't move one way.

    Attributes:
        robot: name.
        name: what is singular.
        q: (n,) rad, nearly there.
    """

    robot: str
    name: str
    q: tuple[float, ...]


# UR5e: wrist axes parallel, arm stretched, wrist centre over the base's axis. Panda: one of each family that
# a search over random configurations found, at least 0.3 rad away from every joint limit and with links 4 cm apart.
SINGULARITIES = (
    Singularity("ur5e", "wrist", (-0.29, -1.66, 1.55, -1.46, 0.0, -1.86)),
    Singularity("ur5e", "elbow", (-0.29, -1.10, 0.0, -0.80, -1.57, -1.86)),
    Singularity("ur5e", "shoulder", (-0.29, -2.40, 1.40, -0.57, -1.57, -1.86)),
    Singularity("panda", "shoulder", (0.314, 0.0, -1.569, -2.237, -1.595, 2.62, 1.273)),
    Singularity("panda", "elbow_wrist", (0.5, 0.9, 0.7, -0.426, 1.5708, 1.2, -0.3)),
    Singularity("panda", "wrist", (-0.6, 0.6, -0.5, -0.467, 0.0, 1.5, 0.6)),
)


def controller_config() -> ControllerConfig:
    """The controller as it is shipped."""
    return load(ControllerConfig, package_share() / "config" / "controller.yaml")


def robot_names() -> tuple[str, ...]:
    """Every robot that comes with the package."""
    return tuple(sorted(path.stem for path in (package_share() / "config" / "robots").glob("*.yaml")))


def load_model(name: str) -> tuple[RobotConfig, RobotModel]:
    """A robot's settings and model."""
    config = load_robot(name)
    return config, RobotModel.from_config(config)


def singular_configuration(model: RobotModel, singularity: Singularity) -> FloatArray:
    """(n,) rad: where, close to the configuration named, the Jacobian's smallest singular value is nothing."""

    def sigma_min(q: FloatArray) -> float:
        return float(np.linalg.svd(model.jacobian(q), compute_uv=False)[-1])

    start = np.array(singularity.q)
    simplex = np.vstack([start, start + 0.02 * np.eye(len(start))])
    options = {"initial_simplex": simplex, "xatol": 1e-9, "fatol": 1e-9, "maxiter": 4000}
    return np.asarray(minimize(sigma_min, start, method="Nelder-Mead", options=options).x)


def lost_direction(model: RobotModel, q: FloatArray) -> FloatArray:
    """(6,) unit twist of the tcp in base axes, m/s and rad/s, that the joints at q produce worst."""
    return np.asarray(np.linalg.svd(model.jacobian(q))[0][:, -1])


def joint_path(waypoints: FloatArray, seconds_each: float, dt_s: float) -> FloatArray:
    """(ticks, n) rad: from waypoint to waypoint (m, n), at rest in each, by quintic polynomials."""
    s = np.arange(round(seconds_each / dt_s)) * dt_s / seconds_each
    blend = s**3 * (10.0 + s * (-15.0 + 6.0 * s))
    return np.concatenate([a + np.outer(blend, b - a) for a, b in pairwise(waypoints)])


def mixed_waypoints(model: RobotModel, singular: FloatArray, rng: np.random.Generator, ordinary: int = 6) -> FloatArray:
    """(m, n) rad: a round of home, ordinary poses, one beside a singularity and one beside position limits."""
    width = model.upper - model.lower
    reach = np.minimum(0.12 * width, 0.5)
    poses = [model.home]
    poses += [model.home + rng.uniform(-1.0, 1.0, len(model.home)) * reach for _ in range(ordinary)]
    beside_limits = model.home.copy()
    nearest = np.where(model.home - model.lower < model.upper - model.home, model.lower + 0.03, model.upper - 0.03)
    joint = int(np.argmin(np.minimum(model.home - model.lower, model.upper - model.home)))
    beside_limits[joint] = nearest[joint]
    poses += [beside_limits, model.home, 0.5 * (model.home + singular), singular, 0.5 * (model.home + singular)]
    return np.clip(np.array([*poses, model.home]), model.lower + 0.02, model.upper - 0.02)


def tool_targets(model: RobotModel, path: FloatArray, dt_s: float) -> list[ToolTarget]:
    """The tool's pose and twist along a joint path (ticks, n), one target a tick."""
    speeds = np.gradient(path, dt_s, axis=0)
    targets = []
    for tick, (q, dq) in enumerate(zip(path, speeds, strict=True)):
        T_base_tcp, J = model.tcp_pose_and_jacobian(q)
        targets.append(ToolTarget(round(tick * dt_s * 1e9), np.array(T_base_tcp), np.asarray(J @ dq)))
    return targets
