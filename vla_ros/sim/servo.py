"""The joint servos inside the simulated arm: from commands, one now and then, to torques every step."""

from __future__ import annotations

import mujoco
import numpy as np

from vla_ros.errors import ConfigError, LimitExceededError
from vla_ros.robots.config import GripperConfig
from vla_ros.sim.scene import TIMESTEP_S, Scene
from vla_ros.sim.trajectory import DesiredState, TrajectoryFollower
from vla_ros.types import FloatArray

# Poles of the error dynamics and of the observer that turns a staircase of commands into a smooth reference, rad/s.
# A 250 Hz staircase is 25 dB down in the observer's velocity; its transient has died away 50 ms after the last change.
_SERVO_RAD_S, _OBSERVER_RAD_S = 60.0, 90.0
# How far past a limit a command may be by rounding.
_LIMIT_TOLERANCE_RAD, _OPENING_TOLERANCE = 1e-3, 1e-6
# How far, in units of the force limit, a finger's target may run ahead of the finger: full force, and little to unwind.
_FINGER_LEAD = 1.25


class ArmServo:
    """Computed torque towards a reference made of what is commanded: positions, velocities or trajectories.

    Of positions, the reference (position and velocity) comes from an observer of constant velocity: it has no lag
    behind steadily moving commands, whatever their rate, and when commands stop coming its velocity decays to zero at
    the last command. Velocities are integrated to positions; a trajectory is the reference itself.

    Source: Spong et al., "Robot Modeling and Control", 2nd ed., section 9.3 (inverse dynamics); Luenberger observer.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._joints = scene.robot.joints
        self._velocity_limit = np.array([joint.velocity_rad_s for joint in self._joints])
        self._lower, self._upper = np.array([joint.position_rad for joint in self._joints]).T
        self._acceleration = np.zeros(scene.model.nv)
        self._torque = np.zeros(scene.model.nv)
        self.reset(np.array([joint.home_rad for joint in self._joints]))

    def reset(self, positions: FloatArray, stiffness_scale: float = 1.0) -> None:
        """Holds positions, (n,) rad, from rest, with so many times the usual stiffness."""
        self._servo_rad_s = _SERVO_RAD_S * stiffness_scale**0.5
        self._command = positions.copy()
        self._position = positions.copy()
        self._velocity = np.zeros(len(positions))
        self._commanded_velocity: FloatArray | None = None
        self._moves_until_s = 0.0
        self._trajectory: TrajectoryFollower | None = None

    @property
    def command(self) -> FloatArray:
        """(n,) rad, the positions in force."""
        return self._command

    def set_command(self, positions: FloatArray) -> None:
        """Takes a command, (n,) rad, in force until the next one. A refused one changes nothing.

        Raises:
            ConfigError: if it has another length than the arm.
            LimitExceededError: if a position isn't finite or lies outside the joint's limits.
        """
        positions = self._checked_shape(positions)
        self._check_range("commanded position, rad,", positions[None])
        self._trajectory = self._commanded_velocity = None
        self._command = positions

    def set_velocities(self, velocities: FloatArray, until_s: float) -> None:
        """Moves with velocities, (n,) rad/s, at most until a simulated time. A refused one changes nothing.

        Raises:
            ConfigError: if it has another length than the arm.
            LimitExceededError: if a velocity isn't finite or past the joint's limit.
        """
        velocities = self._checked_shape(velocities)
        for joint, value in zip(self._joints, velocities.tolist(), strict=True):
            limit = joint.velocity_rad_s + _LIMIT_TOLERANCE_RAD
            if not -limit <= value <= limit:
                raise LimitExceededError(joint.name, "commanded velocity, rad/s,", value, -limit, limit)
        self._trajectory, self._commanded_velocity, self._moves_until_s = None, velocities, until_s

    def set_trajectory(self, now_s: float, times_s: list[float], points: DesiredState) -> float:
        """Follows a trajectory from now on, as `TrajectoryFollower.replace` has it. A refused one changes nothing.

        Raises:
            ConfigError: if it can't be followed.
            LimitExceededError: if a position isn't finite or lies outside the joint's limits.
        """
        if points.positions.shape[1:] != self._command.shape:
            self._checked_shape(points.positions)
        self._check_range("position of a trajectory, rad,", points.positions)
        trajectory = self._trajectory or TrajectoryFollower(self._command)
        jump_rad = trajectory.replace(now_s, times_s, points)
        self._trajectory, self._commanded_velocity = trajectory, None
        return jump_rad

    def step(self, data: mujoco.MjData) -> None:
        """Advances the reference by a step and writes torques to `data.ctrl`, which the actuators limit to the efforts.

        To be called between `mj_step1` and `mj_step2`.
        """
        scene = self._scene
        acceleration_ff = self._observe() if self._trajectory is None else self._follow(self._trajectory, data.time)
        error = self._position - data.qpos[scene.arm_qpos]
        error_rate = self._velocity - data.qvel[scene.arm_dof]
        pole = self._servo_rad_s
        self._acceleration[scene.arm_dof] = acceleration_ff + pole**2 * error + 2.0 * pole * error_rate
        mujoco.mj_mulM(scene.model, data, self._torque, self._acceleration)
        torque = self._torque + data.qfrc_bias - data.qfrc_passive
        data.ctrl[scene.arm_ctrl] = torque[scene.arm_dof]
        if self._commanded_velocity is not None:
            moved = self._command + TIMESTEP_S * self._commanded_velocity * (data.time < self._moves_until_s)
            self._command = np.clip(moved, self._lower, self._upper)

    def _observe(self) -> FloatArray:
        """Advances the reference towards the commanded positions; returns its acceleration."""
        dt, limit = TIMESTEP_S, self._velocity_limit
        innovation = self._command - self._position
        # Twice `np.clip`, without its overhead: this is every step.
        velocity = np.minimum(np.maximum(self._velocity + _OBSERVER_RAD_S**2 * dt * innovation, -limit), limit)
        acceleration = (velocity - self._velocity) / dt
        self._velocity = velocity
        rate = np.minimum(np.maximum(velocity + 2.0 * _OBSERVER_RAD_S * innovation, -limit), limit)
        self._position = self._position + dt * rate
        return np.asarray(acceleration)

    def _follow(self, trajectory: TrajectoryFollower, time_s: float) -> FloatArray:
        """Takes the reference from a trajectory; returns its acceleration."""
        desired = trajectory.sample(time_s)
        zero = np.zeros_like(desired.positions)
        self._position = self._command = desired.positions
        self._velocity = zero if desired.velocities is None else desired.velocities
        return zero if desired.accelerations is None else desired.accelerations

    def _checked_shape(self, values: FloatArray) -> FloatArray:
        values = np.array(values, dtype=np.float64)
        if values.shape != self._command.shape:
            raise ConfigError(
                "joint command",
                f"has shape {values.shape}, the arm has {len(self._joints)} joints",
                f"send one value each, in the order {', '.join(self._scene.robot.joint_names)}",
            )
        return values

    def _check_range(self, what: str, positions: FloatArray) -> None:
        for joint, column in zip(self._joints, positions.T.tolist(), strict=True):
            lower, upper = joint.position_rad
            for value in column:
                # Written so that NaN is refused too.
                if not lower - _LIMIT_TOLERANCE_RAD <= value <= upper + _LIMIT_TOLERANCE_RAD:
                    raise LimitExceededError(joint.name, what, value, lower, upper)


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
        self._damping = scene.model.actuator_biasprm[scene.finger_ctrl, 2].copy()
        self.reset(1.0)

    def reset(self, opening: float, damping_scale: float = 1.0) -> None:
        """Holds an opening, with so many times the usual damping."""
        self._scene.model.actuator_biasprm[self._scene.finger_ctrl, 2] = damping_scale * self._damping
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
