"""Kinematics and limits of an arm, from its URDF by pinocchio and its YAML: the one place that knows joint indices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pinocchio as pin

from vla_ros.errors import ConfigError
from vla_ros.robots.config import RobotConfig
from vla_ros.robots.description import load_description
from vla_ros.robots.urdf_tree import (
    build_tree,
    check_chain,
    find_followers,
    find_joint,
    find_link,
    finger_indices,
)
from vla_ros.robots.velocity_limits import VelocityLimits
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
        velocity: (n,) rad/s, both ways, the tighter of YAML and URDF; less at some positions, see `velocity_bounds`.
        acceleration: (n,) rad/s^2, both ways.
        jerk: (n,) rad/s^3, both ways.
        static_link_poses: poses of the links that no joint moves, in their parents.
        description: the URDF.
        reduced: pinocchio's model of the arm alone; it is a chain.
        order: (n,) index of each joint in `reduced`.
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
        self.config, self.description = config, description
        self.names = config.joint_names
        self._full = build_tree(config, description)
        self._fingers = finger_indices(self._full, config)
        self._followers = find_followers(self._full, description, config)
        self._full_data = self._full.createData()
        self._full_arm = [find_joint(self._full, name, "joints", config).idx_q for name in self.names]

        locked = [i for i, name in enumerate(self._full.names) if i and name not in self.names]
        self.reduced = self._model = pin.buildReducedModel(self._full, locked, self._full_configuration(None, opening))
        self._data = self._model.createData()
        index = [self._model.joints[self._model.getJointId(name)].idx_v for name in self.names]
        self._order = None if index == list(range(len(index))) else np.array(index)
        self.order = np.array(index)
        self._set_limits(index)

        base = find_link(self._model, config.base_frame, "base_frame", config)
        self._tcp = find_link(self._model, config.tcp_frame, "tcp_frame", config)
        check_chain(self._model, base, self._tcp, config)
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

    def velocity_bounds(self, q: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Lower (at most 0) and upper (at least 0) limits of the joint velocities, rad/s, at positions.

        Args:
            q: (n,) rad, or (m, n) for m positions at once; the limits have the same shape.
        """
        return self._velocity_limits.bounds(q)

    def pose_error_and_jacobian(self, q: FloatArray, T_base_target: FloatArray) -> tuple[FloatArray, FloatArray]:
        """What is left to a pose, and how the joints move the tcp, both in the tcp's own axes; the control loop's call.

        Args:
            q: (n,) rad.
            T_base_target: (4, 4).

        Returns:
            (6,) twist, m and rad, that leads there in unit time, the logarithm of what is left; (6, n) Jacobian.
        """
        model, data, tcp = self._model, self._data, self._tcp
        pin.computeJointJacobians(model, data, q if self._order is None else self._to_model(q))
        placement = pin.updateFramePlacement(model, data, tcp)
        J: FloatArray = pin.getFrameJacobian(model, data, tcp, pin.LOCAL)
        if not self._root_is_base:
            placement = self._M_base_root * placement
        error: FloatArray = pin.log6(placement.actInv(pin.SE3(T_base_target))).vector
        return error, J if self._order is None else J[:, self._order]

    def tcp_jacobian(self, q: FloatArray) -> FloatArray:
        """(6, n) at q (n,) rad: joint velocities to the twist of the tcp's point, linear first, in tcp axes."""
        pin.computeJointJacobians(self._model, self._data, self._to_model(q))
        J: FloatArray = pin.getFrameJacobian(self._model, self._data, self._tcp, pin.LOCAL)
        return J if self._order is None else J[:, self._order]

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
        frame = find_link(self._model, link, "link", self.config)
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
        """Configuration of all the URDF's joints: arm at q (or zero), fingers at the opening, the rest at zero.

        Joints that mimic others follow them.
        """
        q_full: FloatArray = pin.neutral(self._full)
        if self.config.gripper is not None:
            q_full[self._fingers] = self.config.gripper.positions(opening)
        if q is not None:
            q_full[self._full_arm] = q
        for follower in self._followers:
            q_full[follower.index] = follower.multiplier * q_full[follower.leader] + follower.offset
        return q_full

    def _set_limits(self, index: list[int]) -> None:
        joints, urdf = self.config.joints, self._model
        self.home = np.array([joint.home_rad for joint in joints])
        self.lower = np.maximum([joint.position_rad[0] for joint in joints], urdf.lowerPositionLimit[index])
        self.upper = np.minimum([joint.position_rad[1] for joint in joints], urdf.upperPositionLimit[index])
        self.velocity = np.minimum([joint.velocity_rad_s for joint in joints], urdf.velocityLimit[index])
        self.acceleration = np.array([joint.acceleration_rad_s2 for joint in joints])
        self.jerk = np.array([joint.jerk_rad_s3 for joint in joints])
        self._velocity_limits = VelocityLimits(self.velocity, [joint.velocity_by_position for joint in joints])
        for name, home, lower, upper in zip(self.names, self.home, self.lower, self.upper, strict=True):
            if not lower <= home <= upper:
                problem = f"home_rad {home:g} is outside the [{lower:g}, {upper:g}] that YAML and URDF leave together"
                raise ConfigError(f"robot {self.config.name}: {name}", problem, "bring position_rad and URDF into line")


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
