"""A controller inside the simulated arm that takes poses of the tool and solves for the joints by itself."""

from __future__ import annotations

import mujoco
import numpy as np

from vla_ros.errors import ConfigError
from vla_ros.geometry.se3 import is_pose, pose_error
from vla_ros.sim.scene import TIMESTEP_S, Scene
from vla_ros.sim.servo import ArmServo
from vla_ros.types import FloatArray

_GAIN_PER_S = 20.0
_DAMPING = 0.05


class ToolServo:
    """Moves an arm's commanded positions by damped least squares towards a pose of the tcp, and holds the last one.

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

    def reset(self) -> None:
        """Leaves the arm to others."""
        self._T_world_target = None

    def set_target(self, T_base_tcp: FloatArray) -> None:
        """Takes a pose, in force until the next one. A refused one changes nothing.

        Raises:
            ConfigError: if it is none.
        """
        if not is_pose(T_base_tcp):
            raise ConfigError("tool command", f"{T_base_tcp.tolist()} is no pose", "send a finite rigid motion")
        self._T_world_target = self._scene.T_world_base @ T_base_tcp

    def step(self, data: mujoco.MjData) -> None:
        """Advances the arm's commanded positions by a step. To be called between `mj_step1` and the arm's own step."""
        if self._T_world_target is None:
            return
        T_world_tcp = np.eye(4)
        T_world_tcp[:3, :3], T_world_tcp[:3, 3] = data.xmat[self._body].reshape(3, 3), data.xpos[self._body]
        mujoco.mj_jacBody(self._scene.model, data, self._jacobian[:3], self._jacobian[3:], self._body)
        J = self._jacobian[:, self._scene.arm_dof]
        twist = _GAIN_PER_S * pose_error(T_world_tcp, self._T_world_target)
        velocities = J.T @ np.linalg.solve(J @ J.T + _DAMPING**2 * np.eye(6), twist)
        velocities = np.clip(velocities, -self._velocity_limit, self._velocity_limit)
        self._arm.set_command(np.clip(self._arm.command + TIMESTEP_S * velocities, *self._bounds))
