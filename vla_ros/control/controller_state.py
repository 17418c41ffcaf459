"""What the controller remembers from tick to tick, and what it says of one."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from vla_ros.control.catching_up import end_of_cubic
from vla_ros.control.guard import JointMotion
from vla_ros.types import FloatArray, Intervention, JointTarget, ToolTarget


class ControllerState(NamedTuple):
    """All that a controller remembers from one tick to the next.

    Attributes:
        reference: (n,) rad, joint positions that the inverse kinematics integrates, the last of `command.wanted` as an
            array. It runs ahead of the command when the guard acts; solving from the guard's own state instead lags by
            metres (docs/design.md).
        command: what was sent last.
        gripper_opening: commanded last.
        T_base_target: (4, 4) the tool's last target, None where there was none in the tick before.
        clearance_m: distance that the arm's links have at least; infinite where nothing is checked.
        dt_s: between the ticks of `command`.
    """

    reference: FloatArray
    command: JointMotion
    gripper_opening: float | None
    T_base_target: FloatArray | None
    clearance_m: float
    dt_s: float


class ControllerReport(NamedTuple):
    """What happened in a tick.

    Attributes:
        interventions: limits that acted.
        jacobian: (6, n) at the reference, of the joints that may move; None in joint space.
        is_clipped: whether the guard had to change what the inverse kinematics wanted.
    """

    interventions: tuple[Intervention, ...]
    jacobian: FloatArray | None
    is_clipped: bool

    @property
    def sigma_min(self) -> float:
        """Smallest singular value of the Jacobian, NaN in joint space. Computed when asked for: 6 us."""
        if self.jacobian is None:
            return math.nan
        return float(np.linalg.svd(self.jacobian, compute_uv=False)[-1])


def respaced(state: ControllerState, dt_s: float) -> ControllerState:
    """The state with the history that it would have had with ticks of another duration.

    The motion goes on as commanded; what is left of a gap to the reference is forgotten.
    """
    motion = state.command
    jerk = end_of_cubic(np.array(motion.history), state.dt_s)[2]
    back_s = dt_s * np.array([[3.0], [2.0], [1.0], [0.0]])
    v, a = np.array(motion.velocities), np.array(motion.accelerations)
    rows = motion.positions - back_s * (v - 0.5 * back_s * (a - back_s * jerk / 3.0))
    first, second, third, last = rows.tolist()
    history = (first, second, third, last)
    return state._replace(reference=rows[3], command=motion._replace(history=history, wanted=history), dt_s=dt_s)


def is_finite(target: ToolTarget | JointTarget) -> bool:
    """Whether all numbers of a target are numbers."""
    if isinstance(target, ToolTarget):
        arrays = (target.T_base_tcp, target.twist_tcp_in_base)
    else:
        arrays = (target.positions, target.velocities)
    opening = target.gripper_opening
    return all(np.isfinite(array).all() for array in arrays) and (opening is None or math.isfinite(opening))
