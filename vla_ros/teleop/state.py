"""What teleoperation knows of the arm, and what it keeps from step to step."""

from __future__ import annotations

from dataclasses import dataclass

from vla_ros.teleop.clutch import Clutch
from vla_ros.teleop.motion import Path
from vla_ros.types import FloatArray


@dataclass(frozen=True)
class ArmView:
    """What is known of the arm.

    Attributes:
        T_base_tcp: (4, 4) measured.
        twist: (6,) measured velocity of the tcp in base axes.
        commanded_opening: of the gripper, None while unknown.
        measured_opening: of the gripper, None while unknown.
        T_base_cam: (4, 4) of the chosen camera, None for none.
        is_others: whether somebody else has had the arm since teleoperation led it last.
        problem: why nobody can lead it now, empty if it can be.
    """

    T_base_tcp: FloatArray
    twist: FloatArray
    commanded_opening: float | None = None
    measured_opening: float | None = None
    T_base_cam: FloatArray | None = None
    is_others: bool = False
    problem: str = ""


@dataclass(frozen=True)
class TeleopState:
    """What is kept from step to step.

    Attributes:
        frame: of the operator.
        level: index of the speed in force.
        is_engaged: whether the operator leads the arm.
        is_armed: whether the dead-man switch was seen released since it last failed: one that is held when its link
            comes back moves nothing.
        engaged_ns: when it was engaged.
        path: what was said last; None before the first time.
        past: (time, pose) of the points before `path`, newest last.
        point_ns: where on the grid of points `path` begins.
        opening: of the gripper as commanded here, None to leave it alone.
        lever: where the operator's trigger stood when the arm was taken hold of; None once it was moved.
        clutch: of a hand that leads.
        notice: for the operator: why it doesn't move, or what was done.
    """

    frame: str
    level: int
    is_engaged: bool = False
    is_armed: bool = False
    engaged_ns: int = 0
    path: Path | None = None
    past: tuple[tuple[int, FloatArray], ...] = ()
    point_ns: int = 0
    opening: float | None = None
    lever: float | None = None
    clutch: Clutch | None = None
    notice: str = ""
