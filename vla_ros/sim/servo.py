"""The joint servos inside the simulated arm: from position commands, a point now and then, to torques every step."""

from __future__ import annotations

import mujoco
import numpy as np

from vla_ros.errors import ConfigError, LimitExceededError
from vla_ros.robots.config import GripperConfig
from vla_ros.sim.scene import TIMESTEP_S, Scene
from vla_ros.types import FloatArray

# Poles of the error dynamics and of the observer that turns a staircase of commands into a smooth reference, rad/s.
# A 250 Hz staircase is 25 dB down in the observer's velocity; its transient has died away 50 ms after the last change.
_SERVO_RAD_S, _OBSERVER_RAD_S = 60.0, 90.0
# How far past a limit a command may be by rounding.
_LIMIT_TOLERANCE_RAD, _OPENING_TOLERANCE = 1e-3, 1e-6
# How far, in units of the force limit, a finger's target may run ahead of the finger: full force, and little to unwind.
_FINGER_LEAD = 1.25


class ArmServo:
    """Computed torque towards the commanded positions, with the commands' velocity as feed-forward.

    The reference (position and velocity) comes from an observer of constant velocity: it has no lag behind steadily
    moving commands, whatever their rate, and when commands stop coming its velocity decays to zero at the last command.

    Source: Spong et al., "Robot Modeling and Control", 2nd ed., section 9.3 (inverse dynamics); Luenberger observer.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._joints = scene.robot.joints
        self._velocity_limit = np.array([joint.velocity_rad_s for joint in self._joints])
        self._acceleration = np.zeros(scene.model.nv)
        self._torque = np.zeros(scene.model.nv)
        self.reset(np.array([joint.home_rad for joint in self._joints]))

    def reset(self, positions: FloatArray) -> None:
        """Holds positions, (n,) rad, from rest."""
        self._command = positions.copy()
        self._position = positions.copy()
        self._velocity = np.zeros(len(positions))

    def set_command(self, positions: FloatArray) -> None:
        """Takes a command, (n,) rad, in force until the next one. A refused one changes nothing.

        Raises:
            ConfigError: if it has another length than the arm.
            LimitExceededError: if a position isn't finite or lies outside the joint's limits.
        """
        positions = np.array(positions, dtype=np.float64)
        if positions.shape != self._command.shape:
            raise ConfigError(
                "joint command",
                f"has shape {positions.shape}, the arm has {len(self._joints)} joints",
                f"send one position each, in the order {', '.join(self._scene.robot.joint_names)}",
            )
        for joint, value in zip(self._joints, positions.tolist(), strict=True):
            lower, upper = joint.position_rad
            # Written so that NaN is refused too.
            if not lower - _LIMIT_TOLERANCE_RAD <= value <= upper + _LIMIT_TOLERANCE_RAD:
                raise LimitExceededError(joint.name, "commanded position, rad,", value, lower, upper)
        self._command = positions

    def step(self, data: mujoco.MjData) -> None:
        """Advances the reference by a step and writes torques to `data.ctrl`, which the actuators limit to the efforts.

        To be called between `mj_step1` and `mj_step2`.
        """
        scene, dt = self._scene, TIMESTEP_S
        innovation = self._command - self._position
        limit = self._velocity_limit
        velocity = np.clip(self._velocity + _OBSERVER_RAD_S**2 * dt * innovation, -limit, limit)
        acceleration_ff = (velocity - self._velocity) / dt
        self._velocity = velocity
        self._position = self._position + dt * np.clip(velocity + 2.0 * _OBSERVER_RAD_S * innovation, -limit, limit)

        error = self._position - data.qpos[scene.arm_qpos]
        error_rate = self._velocity - data.qvel[scene.arm_dof]
        self._acceleration[scene.arm_dof] = acceleration_ff + _SERVO_RAD_S**2 * error + 2.0 * _SERVO_RAD_S * error_rate
        mujoco.mj_mulM(scene.model, data, self._torque, self._acceleration)
        torque = self._torque + data.qfrc_bias - data.qfrc_passive
        data.ctrl[scene.arm_ctrl] = torque[scene.arm_dof]


class GripperServo:
    """Moves the fingers' position targets at the gripper's speed; MuJoCo's actuators follow them within its force."""

    def __init__(self, scene: Scene, gripper: GripperConfig) -> None:
        self._scene = scene
        self._closed = np.array(gripper.closed)
        self._stroke = np.array(gripper.open) - self._closed
        self._step_limit = gripper.speed_per_s * TIMESTEP_S
        actuator = scene.finger_ctrl[0]
        force_limit, stiffness = scene.model.actuator_forcerange[actuator, 1], scene.model.actuator_gainprm[actuator, 0]
        self._lead_limit = float(_FINGER_LEAD * force_limit / stiffness / abs(self._stroke[0]))
        self.reset(1.0)

    def reset(self, opening: float) -> None:
        """Holds an opening."""
        self._command = self._target = opening

    def set_command(self, opening: float) -> None:
        """Takes an opening, in force until the next one. A refused one changes nothing.

        Raises:
            LimitExceededError: if it isn't in [0, 1].
        """
        if not -_OPENING_TOLERANCE <= opening <= 1.0 + _OPENING_TOLERANCE:
            raise LimitExceededError("gripper", "commanded opening", opening, 0.0, 1.0)
        self._command = min(max(float(opening), 0.0), 1.0)

    def positions(self, opening: float) -> FloatArray:
        """Finger positions at an opening."""
        return self._closed + opening * self._stroke

    def measure(self, data: mujoco.MjData) -> float:
        """Measured opening in [0, 1], the mean of the fingers."""
        opening = np.mean((data.qpos[self._scene.finger_qpos] - self._closed) / self._stroke)
        return float(min(max(opening, 0.0), 1.0))

    def step(self, data: mujoco.MjData) -> None:
        """Advances the target by a step and writes it to `data.ctrl`."""
        measured = self.measure(data)
        target = self._target + min(max(self._command - self._target, -self._step_limit), self._step_limit)
        self._target = min(max(target, measured - self._lead_limit), measured + self._lead_limit)
        data.ctrl[self._scene.finger_ctrl] = self.positions(self._target)
