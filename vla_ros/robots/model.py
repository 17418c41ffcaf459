"""Kinematics and limits of an arm, from its URDF by pinocchio and its YAML: the one place that knows joint indices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pinocchio as pin

from vla_ros.errors import ConfigError, did_you_mean
from vla_ros.robots.config import RobotConfig
from vla_ros.robots.description import check_urdf, load_description
from vla_ros.types import FloatArray


@dataclass(frozen=True)
class LinkPose:
    """Pose (4, 4) of a link in its parent link, as TF wants it."""

    parent: str
    child: str
    T_parent_child: FloatArray


class RobotModel:
    """An arm reduced to the joints of its YAML, in the YAML's order; every other joint is locked.

    It computes in buffers of its own: give each thread its own model.

    Attributes:
        config: what the YAML says.
        names: the n joints.
        home: (n,) rad.
        lower: (n,) rad, the tighter of YAML and URDF.
        upper: (n,) rad, the tighter of YAML and URDF.
        velocity: (n,) rad/s, both ways, the tighter of YAML and URDF.
        acceleration: (n,) rad/s^2, both ways.
        jerk: (n,) rad/s^3, both ways.
        static_link_poses: poses of the links that no joint moves, in their parents.
    """

    def __init__(self, config: RobotConfig, description: str, opening: float = 0.0) -> None:
        """Builds the model from a URDF text, which may be a live `/robot_description` with calibrated kinematics.

        Args:
            config: its joint and frame names have to be in the URDF.
            description: URDF.
            opening: gripper opening at which the fingers are locked. It counts only where the tcp hangs on a finger.

        Raises:
            ConfigError: for a joint or frame that isn't in the URDF or can't serve, or limits that leave no room.
        """
        self.config = config
        self.names = config.joint_names
        self._full = _build(config, description)
        self._fingers = _finger_indices(self._full, config)
        self._full_data = self._full.createData()
        self._full_arm = [_joint(self._full, name, "joints", config).idx_q for name in self.names]

        locked = [i for i, name in enumerate(self._full.names) if i and name not in self.names]
        self._model = pin.buildReducedModel(self._full, locked, self._full_configuration(None, opening))
        self._data = self._model.createData()
        index = [self._model.joints[self._model.getJointId(name)].idx_v for name in self.names]
        self._order = None if index == list(range(len(index))) else np.array(index)
        self._set_limits(index)

        base = _frame_id(self._model, config.base_frame, "base_frame", config)
        self._tcp = _frame_id(self._model, config.tcp_frame, "tcp_frame", config)
        _check_chain(self._model, base, self._tcp, config)
        base_in_root = self._model.frames[base].placement
        self._root_is_base = base_in_root.isIdentity(0.0)
        self._M_base_root = base_in_root.inverse()
        self._R_base_root = np.array(self._M_base_root.rotation)
        self._moving, self.static_link_poses = _link_tree(self._full)

    @classmethod
    def from_config(cls, config: RobotConfig, opening: float = 0.0) -> RobotModel:
        """The model of `config` with the URDF it names. See `__init__` and `load_description` for the errors."""
        return cls(config, load_description(config), opening)

    def forward_kinematics(self, q: FloatArray) -> FloatArray:
        """T_base_tcp (4, 4) at q (n,) rad."""
        pin.forwardKinematics(self._model, self._data, self._to_model(q))
        return self._tcp_in_base()

    def jacobian(self, q: FloatArray) -> FloatArray:
        """(6, n) at q (n,) rad: joint velocities to the twist of the tcp's point, linear first, in base axes."""
        return self.tcp_pose_and_jacobian(q)[1]

    def tcp_pose_and_jacobian(self, q: FloatArray) -> tuple[FloatArray, FloatArray]:
        """`forward_kinematics` and `jacobian` in one pass over the chain."""
        pin.computeJointJacobians(self._model, self._data, self._to_model(q))
        T_base_tcp = self._tcp_in_base()
        J: FloatArray = pin.getFrameJacobian(self._model, self._data, self._tcp, pin.LOCAL_WORLD_ALIGNED)
        if not self._root_is_base:
            J = np.vstack((self._R_base_root @ J[:3], self._R_base_root @ J[3:]))
        return T_base_tcp, J if self._order is None else J[:, self._order]

    def _tcp_in_base(self) -> FloatArray:
        placement = pin.updateFramePlacement(self._model, self._data, self._tcp)
        T_base_tcp: FloatArray = (placement if self._root_is_base else self._M_base_root * placement).homogeneous
        return T_base_tcp

    def link_poses(self, q: FloatArray, opening: float = 0.0) -> list[LinkPose]:
        """Poses of the links that joints move, fingers included; the fixed ones are in `static_link_poses`.

        Args:
            q: (n,) rad.
            opening: gripper opening.
        """
        pin.forwardKinematics(self._full, self._full_data, self._full_configuration(q, opening))
        return [
            LinkPose(parent, child, (M_link_parent * self._full_data.liMi[joint]).homogeneous)
            for parent, child, joint, M_link_parent in self._moving
        ]

    def link_pose(self, q: FloatArray, link: str) -> FloatArray:
        """T_base_link (4, 4) at q (n,) rad of any link of the description, fingers as in `__init__`.

        Raises:
            ConfigError: for a link that isn't in the URDF.
        """
        frame = _frame_id(self._model, link, "link", self.config)
        pin.forwardKinematics(self._model, self._data, self._to_model(q))
        T_base_link: FloatArray = (
            self._M_base_root * pin.updateFramePlacement(self._model, self._data, frame)
        ).homogeneous
        return T_base_link

    def _to_model(self, q: FloatArray) -> FloatArray:
        if self._order is None:
            return q
        q_model = np.empty(len(self._order))
        q_model[self._order] = q
        return q_model

    def _full_configuration(self, q: FloatArray | None, opening: float) -> FloatArray:
        """Configuration of all the URDF's joints: arm at q (or zero), fingers at the opening, the rest at zero."""
        q_full: FloatArray = pin.neutral(self._full)
        if self.config.gripper is not None:
            q_full[self._fingers] = self.config.gripper.positions(opening)
        if q is not None:
            q_full[self._full_arm] = q
        return q_full

    def _set_limits(self, index: list[int]) -> None:
        joints, urdf = self.config.joints, self._model
        self.home = np.array([joint.home_rad for joint in joints])
        self.lower = np.maximum([joint.position_rad[0] for joint in joints], urdf.lowerPositionLimit[index])
        self.upper = np.minimum([joint.position_rad[1] for joint in joints], urdf.upperPositionLimit[index])
        self.velocity = np.minimum([joint.velocity_rad_s for joint in joints], urdf.velocityLimit[index])
        self.acceleration = np.array([joint.acceleration_rad_s2 for joint in joints])
        self.jerk = np.array([joint.jerk_rad_s3 for joint in joints])
        for name, home, lower, upper in zip(self.names, self.home, self.lower, self.upper, strict=True):
            if not lower <= home <= upper:
                problem = f"home_rad {home:g} is outside the [{lower:g}, {upper:g}] that YAML and URDF leave together"
                raise ConfigError(f"robot {self.config.name}: {name}", problem, "bring position_rad and URDF into line")


def _build(config: RobotConfig, description: str) -> pin.Model:
    check_urdf(description, f"URDF of robot {config.name}")
    try:
        return pin.buildModelFromXML(description)
    except ValueError as error:
        problem = f"pinocchio can't read it ({' '.join(str(error).split())})"
        raise ConfigError(str(config.description_file), problem, "check it with check_urdf or a viewer") from error


def _joint(model: pin.Model, name: str, key: str, config: RobotConfig) -> pin.JointModel:
    names = list(model.names)[1:]
    if name not in names:
        problem = f"no movable joint {name!r} in the URDF ({config.description})"
        raise ConfigError(f"robot {config.name}: {key}", problem, did_you_mean(name, names))
    joint = model.joints[model.getJointId(name)]
    if joint.nq != 1:
        problem = f"joint {name!r} isn't revolute or prismatic"
        raise ConfigError(f"robot {config.name}: {key}", problem, "make a continuous joint revolute, with limits")
    return joint


def _finger_indices(model: pin.Model, config: RobotConfig) -> list[int]:
    """Where in the model's q the finger joints are."""
    if config.gripper is None:
        return []
    both = sorted(set(config.gripper.joints) & set(config.joint_names))
    if both:
        problem = f"{', '.join(both)} both in the arm's joints and in the gripper's"
        raise ConfigError(f"robot {config.name}: gripper.joints", problem, "keep each in one")
    return [_joint(model, name, "gripper.joints", config).idx_q for name in config.gripper.joints]


def _frame_id(model: pin.Model, name: str, key: str, config: RobotConfig) -> int:
    if not model.existFrame(name, pin.BODY):
        links = [frame.name for frame in model.frames if frame.type == pin.BODY]
        problem = f"no link {name!r} in the URDF ({config.description})"
        raise ConfigError(f"robot {config.name}: {key}", problem, did_you_mean(name, links))
    return int(model.getFrameId(name, pin.BODY))


def _check_chain(model: pin.Model, base: int, tcp: int, config: RobotConfig) -> None:
    """Refuses a base that the arm's joints move, and a joint that doesn't move the tcp."""
    base_joint = model.frames[base].parentJoint
    if base_joint != 0:
        problem = f"{config.base_frame!r} is moved by joint {model.names[base_joint]!r}"
        raise ConfigError(f"robot {config.name}: base_frame", problem, "choose a link before the arm's first joint")
    support = {model.names[joint] for joint in model.supports[model.frames[tcp].parentJoint]}
    idle = [name for name in config.joint_names if name not in support]
    if idle:
        problem = f"{config.tcp_frame!r} isn't moved by {', '.join(idle)}"
        raise ConfigError(f"robot {config.name}: tcp_frame", problem, "choose a link behind the arm's last joint")


def _link_tree(model: pin.Model) -> tuple[list[tuple[str, str, int, pin.SE3]], tuple[LinkPose, ...]]:
    """Moving links as (parent, child, joint, what takes the joint's placement into the parent link), and fixed ones."""
    moving: list[tuple[str, str, int, pin.SE3]] = []
    fixed: list[LinkPose] = []
    for frame in model.frames:
        joint_frame = model.frames[frame.parentFrame]
        parent = model.frames[joint_frame.parentFrame]
        if frame.type != pin.BODY or parent.type != pin.BODY:
            continue
        if joint_frame.type == pin.JOINT:
            moving.append((parent.name, frame.name, frame.parentJoint, parent.placement.inverse()))
        else:
            fixed.append(LinkPose(parent.name, frame.name, parent.placement.actInv(frame.placement).homogeneous))
    return moving, tuple(fixed)
