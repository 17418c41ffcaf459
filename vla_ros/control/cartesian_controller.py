"""From a target to a joint command, tick by tick: reference by inverse kinematics, then the guard."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vla_ros.control.config import ControllerConfig
from vla_ros.control.guard import JointGuard, JointMotion, at_rest
from vla_ros.control.ik import damped_velocities
from vla_ros.control.stopping import GuardLimits
from vla_ros.geometry import se3
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray, Intervention, JointCommand, JointTarget, ToolTarget


@dataclass(frozen=True)
class ControllerState:
    """All that a controller remembers from one tick to the next.

    Attributes:
        reference: (n,) rad, joint positions that the inverse kinematics integrates. It runs ahead of the command
            when the guard acts; solving from the guard's own state instead lags by metres (docs/design.md).
        command: what was sent last.
        gripper_opening: commanded last.
    """

    reference: FloatArray
    command: JointMotion
    gripper_opening: float | None = None


@dataclass(frozen=True)
class ControllerReport:
    """What happened in a tick.

    Attributes:
        interventions: limits that acted.
        sigma_min: smallest singular value of the Jacobian at the reference, NaN in joint space.
        is_clipped: whether a limit changed the motion that the target asked for.
    """

    interventions: tuple[Intervention, ...]
    sigma_min: float
    is_clipped: bool


class CartesianController:
    """Differential IK and the joint guard. Pure: `init -> state`, `step(state, ...) -> state`.

    Args:
        model: the robot.
        config: settings.
    """

    def __init__(self, model: RobotModel, config: ControllerConfig) -> None:
        self.model, self.config = model, config
        self.dt_s = 1.0 / config.rate_hz
        margin = np.minimum(config.position_margin_rad, 0.25 * (model.upper - model.lower))
        self.limits = GuardLimits(
            model.lower + margin,
            model.upper - margin,
            config.velocity_fraction * model.velocity,
            config.acceleration_fraction * model.acceleration,
            config.jerk_fraction * model.jerk,
        )
        self.guard = JointGuard(self.limits, self.dt_s)
        self._home = np.array(model.home)
        self._is_free = self.limits.velocity > 0.0
        self._divisors = np.where(self._is_free, self.limits.velocity, 1.0)

    def init(self, positions: FloatArray, gripper_opening: float | None = None) -> ControllerState:
        """A state at rest at measured joint positions, (n,) rad."""
        positions = np.array(positions, dtype=np.float64)
        return ControllerState(positions, at_rest(positions), gripper_opening)

    def step(
        self, state: ControllerState, target: ToolTarget | JointTarget | None, dt_s: float
    ) -> tuple[ControllerState, JointCommand, ControllerReport]:
        """One tick.

        Args:
            state: of the tick before.
            target: where to be at the end of this tick; None to brake and hold.
            dt_s: duration of the tick; the one that `config.rate_hz` makes.
        """
        interventions: list[Intervention] = []
        wanted, sigma_min = self._wanted(state, target, interventions)
        if target is None or wanted is None:
            command = self.guard.brake(state.command)
            state = ControllerState(command.positions, command, state.gripper_opening)
            return state, _sent(state), ControllerReport(tuple(interventions), sigma_min, False)
        reference = np.clip(wanted, self.limits.lower, self.limits.upper)
        if np.any(np.abs(reference - wanted) > 1e-9):
            joint = int(np.argmax(np.abs(reference - wanted)))
            interventions.append(
                Intervention(
                    "joint_position",
                    f"{self.model.names[joint]} wanted at {wanted[joint]:.3f} rad, "
                    f"limit [{self.limits.lower[joint]:.3f}, {self.limits.upper[joint]:.3f}] rad",
                )
            )
        command, is_wanted = self.guard.step(state.command, reference)
        if not is_wanted:
            lag = np.abs(command.positions - reference)
            joint = int(np.argmax(lag))
            interventions.append(
                Intervention("joint_guard", f"{self.model.names[joint]} is {lag[joint]:.4f} rad behind what was wanted")
            )
        opening = state.gripper_opening if target.gripper_opening is None else target.gripper_opening
        state = ControllerState(reference, command, opening)
        return state, _sent(state), ControllerReport(tuple(interventions), sigma_min, not is_wanted)

    def _wanted(
        self, state: ControllerState, target: ToolTarget | JointTarget | None, interventions: list[Intervention]
    ) -> tuple[FloatArray | None, float]:
        """(n,) rad that the target asks for, None where it asks for nothing that can be done; and sigma_min."""
        if target is None:
            return None, math.nan
        if isinstance(target, JointTarget):
            wanted, sigma_min = target.positions, math.nan
        else:
            wanted, sigma_min = self._solve(state, target, interventions)
        if _is_finite(target) and np.isfinite(wanted).all():
            return wanted, sigma_min
        interventions[:] = [Intervention("finite", "the target leads to numbers that aren't finite; braking")]
        return None, sigma_min

    def _solve(
        self, state: ControllerState, target: ToolTarget, interventions: list[Intervention]
    ) -> tuple[FloatArray, float]:
        T_base_tcp, J = self.model.tcp_pose_and_jacobian(state.reference)
        twist = self._reached_for(se3.pose_error(T_base_tcp, target.T_base_tcp) / self.dt_s)
        # While the tool rests the whole arm does: no elbow wanders back to its posture after a stop.
        gain_per_s = self.config.posture_gain_per_s if np.any(target.twist_tcp_in_base) else 0.0
        posture = gain_per_s * (self._home - state.reference)
        if not self._is_free.all():
            J, posture = J * self._is_free, posture * self._is_free
        velocities, sigma_min = damped_velocities(J, twist, posture, self.config.damping, self.config.sigma_threshold)
        velocities = np.where(self._is_free, velocities, 0.0)
        ratios = np.abs(velocities) / self._divisors
        joint = int(np.argmax(ratios))
        if ratios[joint] > 1.0:
            interventions.append(
                Intervention(
                    "joint_velocity",
                    f"{self.model.names[joint]} wanted at {abs(velocities[joint]):.2f} rad/s, "
                    f"limit {self.limits.velocity[joint]:.2f} rad/s",
                )
            )
            velocities = velocities / ratios[joint]
        return state.reference + self.dt_s * velocities, sigma_min

    def _reached_for(self, twist: FloatArray) -> FloatArray:
        """No faster than the tool may ever be: at full length, a pose out of reach makes a singular arm hunt.

        Source: Buss and Kim, "Selectively Damped Least Squares for Inverse Kinematics", J. Graphics Tools 2005, 3 (the
        clamping of targets).
        """
        linear, angular = math.hypot(*twist[:3]), math.hypot(*twist[3:])
        tool = self.model.config.tool
        if linear <= tool.velocity_m_s and angular <= tool.angular_velocity_rad_s:
            return twist
        twist = twist.copy()
        twist[:3] *= min(1.0, tool.velocity_m_s / linear) if linear > 0.0 else 1.0
        twist[3:] *= min(1.0, tool.angular_velocity_rad_s / angular) if angular > 0.0 else 1.0
        return twist


def _sent(state: ControllerState) -> JointCommand:
    motion = state.command
    return JointCommand(motion.positions, motion.velocities, motion.accelerations, state.gripper_opening)


def _is_finite(target: ToolTarget | JointTarget) -> bool:
    if isinstance(target, ToolTarget):
        arrays = (target.T_base_tcp, target.twist_tcp_in_base)
    else:
        arrays = (target.positions, target.velocities)
    opening = target.gripper_opening
    return all(np.isfinite(array).all() for array in arrays) and (opening is None or math.isfinite(opening))
