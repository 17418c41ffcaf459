"""A controller inside the simulated arm that takes poses of the tool and solves for the joints by itself."""

from __future__ import annotations

import mujoco
import numpy as np

from vla_ros.errors import ConfigError
from vla_ros.geometry.rotations import rotvec_to_matrix
from vla_ros.geometry.se3 import is_pose, pose_error
from vla_ros.sim.scene import TIMESTEP_S, Scene
from vla_ros.sim.servo import ArmServo
from vla_ros.types import FloatArray

TWIST_TIMEOUT_S = 0.1
"""Silence after which a servo of twists stands: MoveIt Servo's `incoming_command_timeout`."""

_GAIN_PER_S = 20.0
_DAMPING = 0.05


class ToolServo:
    """Moves an arm's commanded positions by damped least squares towards a pose of the tcp, and holds the last one; or
    towards one that goes on with a twist.

    Source: Wampler, "Manipulator Inverse Kinematic Solutions Based on Vector Formulations and Damped Least-Squares
    Methods", IEEE Trans. SMC 1986.
    """

    def __init__(self, scene: Scene, arm: ArmServo) -> None:
        self._scene, self._arm = scene, arm
        self._body = scene.model.body(scene.robot.tcp_frame).id
        self._jacobian = np.zeros((6, scene.model.nv))
        self._velocity_limit = np.array([joint.velocity_rad_s for joint in scene.robot.joints])
        self._bounds = np.array([joint.position_rad for joint in scene.robot.joints]).T
        self._T_world_target: FloatArray | None = None
        self._twist_in_world, self._until_s = np.zeros(6), 0.0

    def reset(self) -> None:
        """Leaves the arm to others."""
        self._T_world_target, self._until_s = None, 0.0

    def set_target(self, T_base_tcp: FloatArray) -> None:
        """Takes a pose, in force until the next one. A refused one changes nothing.

        Raises:
            ConfigError: if it is none.
        """
        if not is_pose(T_base_tcp):
            raise ConfigError("tool command", f"{T_base_tcp.tolist()} is no pose", "send a finite rigid motion")
        self._T_world_target, self._until_s = self._scene.T_world_base @ T_base_tcp, 0.0

    def set_twist(self, twist: FloatArray, until_s: float) -> None:
        """Takes a twist of the tcp in base axes, m/s and rad/s, in force until a simulated time or the next one.

        Raises:
            ConfigError: if it isn't finite.
        """
        if twist.shape != (6,) or not np.isfinite(twist).all():
            raise ConfigError("tool command", f"{twist.tolist()} is no twist", "send six finite numbers")
        R = self._scene.T_world_base[:3, :3]
        self._twist_in_world, self._until_s = np.concatenate([R @ twist[:3], R @ twist[3:]]), until_s

    def step(self, data: mujoco.MjData) -> None:
        """Advances the arm's commanded positions by a step. To be called between `mj_step1` and the arm's own step."""
        is_led_on = data.time < self._until_s
        if self._T_world_target is None and not is_led_on:
            return
        T_world_tcp = np.eye(4)
        T_world_tcp[:3, :3], T_world_tcp[:3, 3] = data.xmat[self._body].reshape(3, 3), data.xpos[self._body]
        if self._T_world_target is None:
            self._T_world_target = T_world_tcp.copy()
        if is_led_on:
            self._T_world_target[:3, 3] += TIMESTEP_S * self._twist_in_world[:3]
            turn = rotvec_to_matrix(TIMESTEP_S * self._twist_in_world[3:])
            self._T_world_target[:3, :3] = turn @ self._T_world_target[:3, :3]
        mujoco.mj_jacBody(self._scene.model, data, self._jacobian[:3], self._jacobian[3:], self._body)
        J = self._jacobian[:, self._scene.arm_dof]
        twist = _GAIN_PER_S * pose_error(T_world_tcp, self._T_world_target)
        velocities = J.T @ np.linalg.solve(J @ J.T + _DAMPING**2 * np.eye(6), twist)
        velocities = np.clip(velocities, -self._velocity_limit, self._velocity_limit)
        self._arm.set_command(np.clip(self._arm.command + TIMESTEP_S * velocities, *self._bounds))
