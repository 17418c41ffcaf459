"""pink and mink, the peers that PyPI has, set up for one arm as their documentation advises for speed.

Both get the arm's joints alone, without fingers and geometry, one configuration object that is updated in place, and
`daqp` as solver. Their targets are made beforehand.
"""

from __future__ import annotations

import abc
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pinocchio as pin

from vla_ros.control.stopping import GuardLimits
from vla_ros.errors import MissingDependencyError
from vla_ros.evaluation.versions import installed_version
from vla_ros.robots.config import RobotConfig
from vla_ros.robots.description import load_description
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray

# Beside a tracking cost of 1, this picks one of the redundant postures and no more.
_POSTURE_COST = 1e-3
_SOLVER = "daqp"
PIP = {"pink": "python -m pip install pin-pink qpsolvers daqp", "mink": "python -m pip install mink qpsolvers daqp"}
_DISTRIBUTIONS = {"pink": ("pin-pink", "qpsolvers", "daqp"), "mink": ("mink", "mujoco", "qpsolvers", "daqp")}


def missing(name: str) -> str:
    """What is missing for a peer, with the mend; empty if nothing is."""
    absent = [item for item in _DISTRIBUTIONS[name] if installed_version(item) is None]
    return f"{name} can't be compared with: {', '.join(absent)} not installed; mend: {PIP[name]}" if absent else ""


class PyPiPeer(abc.ABC):
    """A peer with a configuration of its own, from which it solves and moves on.

    Args:
        config: the arm.
        model: likewise; its home is the posture.
        limits: positions and velocities that are kept.

    Raises:
        MissingDependencyError: where it isn't installed.
    """

    name: str
    configuration: Any

    def __init__(self, config: RobotConfig, model: RobotModel, limits: GuardLimits) -> None:
        if missing(self.name):
            raise MissingDependencyError(self.name, "the comparison with it", PIP[self.name])
        self._set_up(config, model.home, limits)

    @abc.abstractmethod
    def _set_up(self, config: RobotConfig, home: FloatArray, limits: GuardLimits) -> None:
        """Makes configuration, tasks and limits."""

    @abc.abstractmethod
    def target(self, T_base_tcp: FloatArray) -> Any:
        """A pose (4, 4) in the peer's own type and frame."""

    @abc.abstractmethod
    def solve(self, target: Any, dt_s: float) -> FloatArray:
        """(n,) rad/s from where `configuration` is."""

    def tick(self, target: Any, dt_s: float) -> None:
        """Solves and moves on."""
        self.configuration.integrate_inplace(self.solve(target, dt_s), dt_s)

    def velocities(self, q: FloatArray, T_base_tcp: FloatArray, dt_s: float) -> FloatArray:
        """See `peers.Peer`."""
        self.configuration.update(q)
        return self.solve(self.target(T_base_tcp), dt_s)


class Pink(PyPiPeer):
    """pink's differential inverse kinematics."""

    name = "pink"

    def _set_up(self, config: RobotConfig, home: FloatArray, limits: GuardLimits) -> None:
        import pink
        from pink.limits import ConfigurationLimit, VelocityLimit
        from pink.tasks import FrameTask, PostureTask

        full = pin.buildModelFromXML(load_description(config))
        locked = [i for i, name in enumerate(full.names) if i and name not in config.joint_names]
        model = pin.buildReducedModel(full, locked, pin.neutral(full))
        if tuple(model.names)[1:] != config.joint_names:
            raise ValueError(f"{config.name}: the URDF's joints are in another order than the YAML's")
        model.lowerPositionLimit, model.upperPositionLimit = limits.lower, limits.upper
        model.velocityLimit = limits.velocity
        self.configuration = pink.Configuration(model, model.createData(), np.array(home), copy_data=False)
        self._frame = FrameTask(config.tcp_frame, position_cost=1.0, orientation_cost=1.0)
        posture = PostureTask(cost=_POSTURE_COST)
        posture.set_target(home)
        self._tasks = (self._frame, posture)
        self._limits = (ConfigurationLimit(model), VelocityLimit(model))
        self._solve: Any = pink.solve_ik
        base = model.frames[model.getFrameId(config.base_frame, pin.BODY)].placement
        self._M_root_base = base

    def target(self, T_base_tcp: FloatArray) -> pin.SE3:
        """See PyPiPeer."""
        return self._M_root_base * pin.SE3(T_base_tcp[:3, :3], T_base_tcp[:3, 3])

    def solve(self, target: pin.SE3, dt_s: float) -> FloatArray:
        """See PyPiPeer."""
        self._frame.transform_target_to_world = target
        return np.asarray(
            self._solve(self.configuration, self._tasks, dt_s, solver=_SOLVER, limits=self._limits, safety_break=False)
        )


class Mink(PyPiPeer):
    """mink's differential inverse kinematics."""

    name = "mink"

    def _set_up(self, config: RobotConfig, home: FloatArray, limits: GuardLimits) -> None:
        import mink

        model = _bare_mujoco_model(config)
        for name, low, high in zip(config.joint_names, limits.lower, limits.upper, strict=True):
            model.joint(name).range[:] = low, high
        self.configuration = mink.Configuration(model, q=np.array(home))
        self._frame = mink.FrameTask(config.tcp_frame, "body", position_cost=1.0, orientation_cost=1.0)
        posture = mink.PostureTask(model, cost=_POSTURE_COST)
        posture.set_target(home)
        speeds = dict(zip(config.joint_names, limits.velocity.tolist(), strict=True))
        self._tasks = (self._frame, posture)
        self._limits = (mink.ConfigurationLimit(model), mink.VelocityLimit(model, speeds))
        self._solve: Any = mink.solve_ik
        self._se3: Any = mink.SE3
        self._T_root_base = self.configuration.get_transform_frame_to_world(config.base_frame, "body")

    def target(self, T_base_tcp: FloatArray) -> Any:
        """See PyPiPeer."""
        return self._T_root_base.multiply(self._se3.from_matrix(T_base_tcp))

    def solve(self, target: Any, dt_s: float) -> FloatArray:
        """See PyPiPeer."""
        self._frame.transform_target_to_world = target
        return np.asarray(self._solve(self.configuration, self._tasks, dt_s, solver=_SOLVER, limits=self._limits))


def _bare_mujoco_model(config: RobotConfig) -> Any:
    """The arm in MuJoCo with its own joints and nothing to draw or to collide."""
    import mujoco

    robot = ET.fromstring(load_description(config))
    for link in robot.iter("link"):
        for tag in ("visual", "collision"):
            for element in link.findall(tag):
                link.remove(element)
    for joint in robot.iter("joint"):
        if joint.get("name") not in config.joint_names:
            joint.set("type", "fixed")
    spec = mujoco.MjSpec.from_string(ET.tostring(robot, encoding="unicode"))
    spec.compiler.fusestatic = False  # Else links without a joint vanish, the tcp's among them.
    return spec.compile()
