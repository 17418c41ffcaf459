"""From a target to a joint command, tick by tick: reference by inverse kinematics, then the guard."""

from __future__ import annotations

from dataclasses import dataclass, replace

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

    def init(self, positions: FloatArray, gripper_opening: float | None = None) -> ControllerState:
        """A state at rest at measured joint positions, (n,) rad."""
        positions = np.array(positions, dtype=np.float64)
        return ControllerState(positions, at_rest(positions), gripper_opening)

    def step(
        self, state: ControllerState, target: ToolTarget | JointTarget | None, stamp_ns: int
    ) -> tuple[ControllerState, JointCommand, ControllerReport]:
        """One tick.

        Args:
            state: of the tick before.
            target: where to be at the end of this tick; None to brake and hold.
            stamp_ns: nominal time of the tick.
        """
        interventions: list[Intervention] = []
        sigma_min = float("nan")
        if target is None:
            state = replace(state, reference=self._resting_point(state.command))
            wanted = state.reference
        elif isinstance(target, JointTarget):
            wanted = target.positions
        else:
            wanted, sigma_min = self._solve(state, target, interventions)
        reference = np.clip(wanted, self.limits.lower, self.limits.upper)
        if target is not None and np.any(np.abs(reference - wanted) > 1e-9):
            joint = int(np.argmax(np.abs(reference - wanted)))
            interventions.append(
                Intervention(
                    "joint_position",
                    f"{self.model.names[joint]} wanted at {wanted[joint]:.3f} rad, "
                    f"limit [{self.limits.lower[joint]:.3f}, {self.limits.upper[joint]:.3f}] rad",
                )
            )
        command, is_wanted = self.guard.step(state.command, reference)
        if target is not None and not is_wanted:
            lag = np.abs(command.positions - reference)
            joint = int(np.argmax(lag))
            interventions.append(
                Intervention("joint_guard", f"{self.model.names[joint]} is {lag[joint]:.4f} rad behind what was wanted")
            )
        opening = state.gripper_opening
        if target is not None and target.gripper_opening is not None:
            opening = target.gripper_opening
        sent = JointCommand(stamp_ns, command.positions, command.velocities, command.accelerations, opening)
        report = ControllerReport(tuple(interventions), sigma_min, target is not None and not is_wanted)
        return ControllerState(reference, command, opening), sent, report

    def _solve(
        self, state: ControllerState, target: ToolTarget, interventions: list[Intervention]
    ) -> tuple[FloatArray, float]:
        T_base_tcp, J = self.model.tcp_pose_and_jacobian(state.reference)
        twist = se3.pose_error(T_base_tcp, target.T_base_tcp) / self.dt_s
        # While the tool rests the whole arm does: no elbow wanders back to its posture after a stop.
        gain_per_s = self.config.posture_gain_per_s if np.any(target.twist_tcp_in_base) else 0.0
        posture = gain_per_s * (self._home - state.reference)
        velocities, sigma_min = damped_velocities(J, twist, posture, self.config.damping, self.config.sigma_threshold)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(velocities == 0.0, 0.0, np.abs(velocities) / self.limits.velocity)
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

    def _resting_point(self, command: JointMotion) -> FloatArray:
        """About where the joints come to rest when they brake now, so that holding isn't swinging back."""
        v, a, j = command.velocities, self.limits.acceleration, self.limits.jerk
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.where(a > 0.0, 0.5 * np.abs(v) * (np.abs(v) / a + a / j), 0.0)
        distance = np.where(np.isfinite(distance), distance, 0.0)
        return np.clip(command.positions + np.sign(v) * distance, self.limits.lower, self.limits.upper)
