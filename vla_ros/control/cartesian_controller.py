"""From a target to a joint command, tick by tick: reference by inverse kinematics, then the guard."""

from __future__ import annotations

import math

import numpy as np

from vla_ros.control.bounds import VelocityBounds, guard_limits
from vla_ros.control.clearance import Clearance, Rows
from vla_ros.control.config import ControllerConfig
from vla_ros.control.controller_state import ControllerReport, ControllerState, is_finite, respaced
from vla_ros.control.guard import JointGuard, JointMotion, at_rest
from vla_ros.control.ik import DampedSolver, QpSolver, VelocitySolver
from vla_ros.control.way_back import Lead, ShortenedTwist, WayBack
from vla_ros.geometry import se3
from vla_ros.robots.model import RobotModel
from vla_ros.robots.self_collision import SelfCollision
from vla_ros.types import FloatArray, Intervention, JointCommand, JointTarget, ToolTarget

__all__ = ["CartesianController", "ControllerReport", "ControllerState"]

# Share of the joints' acceleration that a way back is braked with; six directions may be braked at once.
_LEAD_SHARE = 0.4
# A target that has run ahead by what these accelerations make of a tick is reached in the next one.
_NEAR_M_S2, _NEAR_RAD_S2 = 8.0, 16.0
# Of what a joint can change of its velocity in a tick.
_SLIGHTLY = 0.5
# Durations of ticks, besides its own, that a controller is kept ready for; to make one ready takes milliseconds.
_MOST_OTHER_TICKS = 8


class CartesianController:
    """Differential IK and the joint guard. Pure: `init -> state`, `step(state, ...) -> state`.

    Args:
        model: the robot.
        config: settings.
        dt_s: duration of a tick; None: what `config.rate_hz` makes it.
    """

    def __init__(self, model: RobotModel, config: ControllerConfig, dt_s: float | None = None) -> None:
        self.model, self.config = model, config
        self.dt_s = 1.0 / config.rate_hz if dt_s is None else dt_s
        if not 1e-4 <= self.dt_s <= 0.1:
            raise ValueError(f"a tick of {self.dt_s} s isn't in [0.0001, 0.1] s")
        self._of_other_ticks: dict[float, CartesianController] = {}
        self.limits = guard_limits(model, config)
        self.guard = JointGuard(self.limits, self.dt_s)
        self._bounds = VelocityBounds(self.limits, self.dt_s, model.names)
        limits, joints = self.limits, len(model.names)
        self._is_free = (limits.velocity > 0.0) & (limits.acceleration > 0.0) & (limits.jerk > 0.0)
        self._are_all_free = bool(self._is_free.all())
        self._solver: VelocitySolver
        self._lead: Lead
        if config.solver == "qp":
            self._solver = QpSolver(joints, config.damping)
            # A joint that doesn't move has nothing to brake.
            braking = np.where(self._is_free, _LEAD_SHARE * limits.acceleration, np.inf)
            jerk = np.where(self._is_free, limits.jerk, np.inf)
            tool = model.config.tool
            self._lead = WayBack(model.tcp_jacobian, config.sigma_threshold, braking, jerk, tool, self.dt_s)
        else:
            self._solver = DampedSolver(config.damping, config.sigma_threshold)
            self._lead = ShortenedTwist(model.config.tool, self.dt_s)
        collision = SelfCollision(model)
        self._clearance = (
            Clearance(collision, self.limits, config.collision_margin_m, self.dt_s) if collision.pairs else None
        )
        # Asked for no more than this past a bound, a joint is bounded there, and what is left is the next tick's. Where
        # building up an acceleration takes several ticks, that would swing.
        is_prompt = limits.acceleration <= limits.jerk * self.dt_s
        self._slightly = np.where(is_prompt, _SLIGHTLY * self.dt_s * limits.acceleration, 0.0)
        self._near_m, self._near_rad = _NEAR_M_S2 * self.dt_s**2, _NEAR_RAD_S2 * self.dt_s**2
        # Home and the middle of the range pull alike, so one pull towards a point between them is both; rad a tick.
        gain = config.posture_gain_per_s + config.centring_gain_per_s
        middle = 0.5 * (self.limits.lower + self.limits.upper)
        self._pull = self.dt_s * gain * self._is_free
        self._pull_offset = (self.dt_s * self._is_free) * (
            config.posture_gain_per_s * np.array(model.home) + config.centring_gain_per_s * middle
        )
        weight = self._solver.posture_weight
        self._weighted_pull, self._weighted_offset = weight * self._pull, weight * self._pull_offset
        self._no_pull = np.zeros(joints)
        self._no_rows: Rows = (np.zeros((0, joints)), np.zeros(0), ())

    def init(self, positions: FloatArray, gripper_opening: float | None = None) -> ControllerState:
        """A state at rest at measured joint positions, (n,) rad."""
        positions = np.array(positions, dtype=np.float64)
        clearance_m = math.inf if self._clearance is None else self._clearance.at(positions)
        return ControllerState(positions, at_rest(positions), gripper_opening, None, clearance_m, self.dt_s)

    def step(
        self, state: ControllerState, target: ToolTarget | JointTarget | None, dt_s: float
    ) -> tuple[ControllerState, JointCommand, ControllerReport]:
        """One tick.

        Args:
            state: of the tick before.
            target: where to be at the end of this tick; None to brake and hold.
            dt_s: duration of the tick.

        Raises:
            ValueError: for a duration that isn't one of a control loop.
        """
        if dt_s != self.dt_s:
            if dt_s not in self._of_other_ticks:
                if len(self._of_other_ticks) == _MOST_OTHER_TICKS:
                    self._of_other_ticks.pop(next(iter(self._of_other_ticks)))
                self._of_other_ticks[dt_s] = CartesianController(self.model, self.config, dt_s)
            return self._of_other_ticks[dt_s].step(state, target, dt_s)
        if dt_s != state.dt_s:
            state = respaced(state, dt_s)
        if target is None:
            return self._brake(state, ())
        if isinstance(target, JointTarget):
            wanted = np.array(target.positions, dtype=np.float64)
            motion = self.guard.granted(state.command, wanted.tolist())
            if motion is not None and is_finite(target):
                return self._sent(state, target, wanted, motion, ControllerReport((), None, False))
            return self._follow_joints(state, target, wanted)

        q, dt = state.reference, self.dt_s
        error, J = self.model.pose_error_and_jacobian(q, target.T_base_tcp)
        if not self._are_all_free:
            J = J * self._is_free
        x, y, z, rx, ry, rz = error.tolist()
        vx, vy, vz, wx, wy, wz = target.twist_tcp_in_base.tolist()
        speed, turn = math.hypot(vx, vy, vz), math.hypot(wx, wy, wz)
        is_near = (
            math.hypot(x, y, z) <= dt * speed + self._near_m and math.hypot(rx, ry, rz) <= dt * turn + self._near_rad
        )
        # While the tool rests the whole arm does: no elbow wanders back to its posture after a stop.
        is_at_rest = is_near and speed == turn == 0.0
        pulled = self._no_pull if is_at_rest else self._weighted_offset - self._weighted_pull * q
        way: FloatArray | None = None
        if is_near:
            # What is solved for is the way of this tick, not a velocity: the same problem, times the tick.
            way = self._solver.free(J, error, pulled)
            wanted = q + way
            motion = self.guard.granted(state.command, wanted.tolist())
            opening = target.gripper_opening
            if (
                motion is not None
                and (opening is None or math.isfinite(opening))
                and (self._clearance is None or self._clearance.permits(state.clearance_m, q, way))
            ):
                return self._sent(state, target, wanted, motion, ControllerReport((), J, False))
        posture = self._no_pull if is_at_rest else (self._pull_offset - self._pull * q) / dt
        return self._follow_tool(state, target, J, way, posture)

    def _follow_tool(
        self, state: ControllerState, target: ToolTarget, J: FloatArray, way: FloatArray | None, posture: FloatArray
    ) -> tuple[ControllerState, JointCommand, ControllerReport]:
        """The rest of a tick that can't bring the tool onto its target as it is.

        Args:
            way: (n,) rad, what would, for the problem that the solver was asked last; None where the tool is far away.
        """
        if not is_finite(target):
            return self._brake_for_numbers(state)
        q, dt = state.reference, self.dt_s
        lower, upper, names = self._bounds.at(state.command.wanted)
        rows, least, pairs = self._half_spaces(state, q)
        velocities = None if way is None else way / dt
        if velocities is None or not (_past(velocities, lower, upper) <= self._slightly).all():
            T_base_tcp = self.model.forward_kinematics(q)
            R = T_base_tcp[:3, :3]
            # A straight line, while the logarithm is a screw; near the target they are the same.
            error = (se3.pose_error(T_base_tcp, target.T_base_tcp).reshape(2, 3) @ R).reshape(6)
            twist = (self._twist_of(target, state.T_base_target).reshape(2, 3) @ R).reshape(6)
            now = np.array(state.command.velocities)
            J_led, twist = self._lead.problem(q, J, error, twist, posture, now)
            weighted = self._solver.posture_weight * dt * posture
            velocities = self._solver.free(J_led, dt * twist, weighted) / dt
        if not np.isfinite(velocities).all():
            return self._brake_for_numbers(state)
        interventions: list[Intervention] = []
        past = _past(velocities, lower, upper)
        joint = int(np.argmax(past))
        is_too_near = rows @ velocities < least
        if past[joint] > 0.0 or is_too_near.any():
            if past[joint] > 0.0:
                interventions.append(self._bounds.intervention(joint, float(velocities[joint]), lower, upper, names))
            for pair in sorted({pairs[i] for i in np.flatnonzero(is_too_near)}):
                interventions.append(
                    Intervention("self_collision", f"{pair[0]} and {pair[1]} slow down for each other")
                )
            velocities = self._solver.bounded(dt * lower, dt * upper, rows, dt * least) / dt
        elif way is None:
            gap = se3.pose_error(self.model.forward_kinematics(q), target.T_base_tcp)
            linear, angular = math.hypot(*gap[:3]), math.hypot(*gap[3:])
            interventions.append(
                Intervention("reach", f"tcp is {linear:.4f} m and {angular:.4f} rad from its target; coming back to it")
            )
        reference = q + self.dt_s * np.where(self._is_free, velocities, 0.0)
        return self._guard(state, target, np.clip(reference, self.limits.lower, self.limits.upper), J, interventions)

    def _half_spaces(self, state: ControllerState, q: FloatArray) -> Rows:
        if self._clearance is None or not self._clearance.is_near(state.clearance_m):
            return self._no_rows
        return self._clearance.half_spaces(q)

    def _twist_of(self, target: ToolTarget, T_base_before: FloatArray | None) -> FloatArray:
        """(6,) how the target moves, in base axes: by its last two poses, whatever its sender says of its twist."""
        twist = target.twist_tcp_in_base
        if T_base_before is None:
            return twist
        moved = se3.pose_error(T_base_before, target.T_base_tcp) / self.dt_s
        tool = self.model.config.tool
        is_jump = math.hypot(*moved[:3]) > tool.velocity_m_s or math.hypot(*moved[3:]) > tool.angular_velocity_rad_s
        return np.zeros(6) if is_jump else moved

    def _follow_joints(
        self, state: ControllerState, target: JointTarget, wanted: FloatArray
    ) -> tuple[ControllerState, JointCommand, ControllerReport]:
        if not is_finite(target):
            return self._brake_for_numbers(state)
        interventions: list[Intervention] = []
        reference = np.clip(wanted, self.limits.lower, self.limits.upper)
        joint = int(np.argmax(np.abs(reference - wanted)))
        if abs(reference[joint] - wanted[joint]) > 1e-9:
            interventions.append(
                Intervention(
                    "joint_position",
                    f"{self.model.names[joint]} wanted at {wanted[joint]:.3f} rad, "
                    f"limit [{self.limits.lower[joint]:.3f}, {self.limits.upper[joint]:.3f}] rad",
                )
            )
        return self._guard(state, target, reference, None, interventions)

    def _guard(
        self,
        state: ControllerState,
        target: ToolTarget | JointTarget,
        reference: FloatArray,
        J: FloatArray | None,
        interventions: list[Intervention],
    ) -> tuple[ControllerState, JointCommand, ControllerReport]:
        motion, is_wanted = self.guard.step(state.command, reference)
        if not is_wanted:
            lag = np.abs(motion.positions - reference)
            joint = int(np.argmax(lag))
            interventions.append(
                Intervention("joint_guard", f"{self.model.names[joint]} is {lag[joint]:.4f} rad behind what was wanted")
            )
        report = ControllerReport(tuple(interventions), J, not is_wanted)
        return self._sent(state, target, reference, motion, report)

    def _brake_for_numbers(self, state: ControllerState) -> tuple[ControllerState, JointCommand, ControllerReport]:
        reason = "the target leads to numbers that aren't finite; braking"
        return self._brake(state, (Intervention("finite", reason),))

    def _brake(
        self, state: ControllerState, interventions: tuple[Intervention, ...]
    ) -> tuple[ControllerState, JointCommand, ControllerReport]:
        motion, opening = self.guard.brake(state.command), state.gripper_opening
        positions = motion.positions
        clearance_m = math.inf if self._clearance is None else self._clearance.at(positions)
        state = ControllerState(positions, motion, opening, None, clearance_m, self.dt_s)
        return state, _command(positions, motion, opening), ControllerReport(interventions, None, False)

    def _sent(
        self,
        state: ControllerState,
        target: ToolTarget | JointTarget,
        reference: FloatArray,
        motion: JointMotion,
        report: ControllerReport,
    ) -> tuple[ControllerState, JointCommand, ControllerReport]:
        """The end of a tick, unless its command couldn't be stopped before links of the arm meet."""
        clearance_m = state.clearance_m
        if self._clearance is not None:
            clearance_m, is_safe = self._clearance.check(clearance_m, motion)
            if not is_safe:
                reason = f"links of the arm would come nearer than {self._clearance.margin_m} m; braking"
                return self._brake(state, (*report.interventions, Intervention("self_collision", reason)))
        opening = target.gripper_opening
        if opening is None:
            opening = state.gripper_opening
        T_base_target = target.T_base_tcp if isinstance(target, ToolTarget) else None
        history, velocities, accelerations, wanted = motion
        command = JointCommand(
            reference if wanted is history else motion.positions,
            np.array(velocities),
            np.array(accelerations),
            opening,
        )
        return ControllerState(reference, motion, opening, T_base_target, clearance_m, self.dt_s), command, report


def _past(velocities: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    return np.maximum(np.maximum(lower - velocities, velocities - upper), 0.0)


def _command(positions: FloatArray, motion: JointMotion, opening: float | None) -> JointCommand:
    return JointCommand(positions, np.array(motion.velocities), np.array(motion.accelerations), opening)
