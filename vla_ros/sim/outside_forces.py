"""What the arm feels of contacts: as torques in its joints, and as the force at the tcp that would cause them."""

from __future__ import annotations

import mujoco
import numpy as np

from vla_ros.sim.scene import Scene
from vla_ros.types import FloatArray


class OutsideForces:
    """Reads contact forces off the physics.

    Args:
        scene: the cell.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._tcp = scene.model.body(scene.robot.tcp_frame).id
        self._R_base_world = scene.T_world_base[:3, :3].T
        self._jacobian = np.zeros((2, 3, scene.model.nv))

    def torques(self, data: mujoco.MjData) -> FloatArray:
        """(n,) N m, what constraints (contacts, ends of joints) exert on the arm."""
        return np.array(data.qfrc_constraint[self._scene.arm_dof])

    def wrench(self, data: mujoco.MjData) -> FloatArray:
        """(6,) force, N, and torque, N m, at the tcp and in base, that explains the torques best."""
        linear, angular = self._jacobian
        mujoco.mj_jacBody(self._scene.model, data, linear, angular, self._tcp)
        columns = [self._R_base_world @ part[:, self._scene.arm_dof] for part in (linear, angular)]
        return np.asarray(np.linalg.lstsq(np.concatenate(columns).T, self.torques(data), rcond=None)[0])
