"""What a robot's YAML says of its real driver, beside the topic of the command interface (docs/hardware.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

DriverKind = Literal["franka", "ur"]
GripperKind = Literal["franka", "gripper_command", "parallel_gripper_command", "position"]


@dataclass(frozen=True)
class GripperDriver:
    """How the gripper is driven, behind `gripper/command` and `gripper/state`.

    Attributes:
        kind: `franka`: the actions of a franka_gripper node. `gripper_command`: an action of
            control_msgs/action/GripperCommand (Robotiq and most others), `parallel_gripper_command`: of
            control_msgs/action/ParallelGripperCommand. `position`: std_msgs/Float64MultiArray to a forward controller.
        name: of the franka_gripper node, of the action, or of the topic; relative to the robot's namespace.
        states: topic of sensor_msgs/JointState that has `joint`.
        joint: whose position says how far the gripper is open.
        closed: position of `joint`, m or rad, at opening 0; commands of the kinds other than `franka` are in it too.
        open: the same at opening 1.
    """

    kind: GripperKind
    name: str
    states: str
    joint: str
    closed: float
    open: float

    def __post_init__(self) -> None:
        if not abs(self.open - self.closed) > 0.0:
            raise ValueError(f"driver: gripper: open and closed are both {self.open}")

    def opening(self, position: float) -> float:
        """The opening in [0, 1] at which `joint` has a position, m or rad."""
        return min(max((position - self.closed) / (self.open - self.closed), 0.0), 1.0)

    def position(self, opening: float) -> float:
        """The position of `joint`, m or rad, at an opening."""
        return self.closed + opening * (self.open - self.closed)


@dataclass(frozen=True)
class Payload:
    """What hangs on the flange beside what the arm knows of.

    Attributes:
        mass_kg: of all of it.
        centre_of_mass_m: in the flange's frame.
        inertia_kg_m2: the diagonal of its inertia about the centre of mass, in the flange's axes. A UR doesn't take it.
    """

    mass_kg: float
    centre_of_mass_m: tuple[float, float, float]
    inertia_kg_m2: tuple[float, float, float] = (0.001, 0.001, 0.001)

    def __post_init__(self) -> None:
        if not self.mass_kg >= 0.0 or not all(value >= 0.0 for value in self.inertia_kg_m2):
            raise ValueError(f"driver: payload: mass_kg {self.mass_kg} and inertia_kg_m2 have to be 0 or more")


@dataclass(frozen=True)
class WrenchLimit:
    """Forces at which the arm holds, where the driver publishes them.

    Attributes:
        topic: geometry_msgs/WrenchStamped.
        force_n: norm of the force.
        torque_nm: norm of the torque.
    """

    topic: str
    force_n: float
    torque_nm: float

    def __post_init__(self) -> None:
        for name, value in (("force_n", self.force_n), ("torque_nm", self.torque_nm)):
            if not 0.0 < value < math.inf:
                raise ValueError(f"driver: wrench: {name} is {value}, it has to be more than 0 and finite")

    def problem(self, force_n: Sequence[float], torque_nm: Sequence[float]) -> str:
        """Which limit a wrench is past, empty for none; what isn't a number is past every limit.

        Args:
            force_n: (3,) measured.
            torque_nm: (3,) measured.
        """
        for what, values, most, unit in (
            ("force", force_n, self.force_n, "N"),
            ("torque", torque_nm, self.torque_nm, "N m"),
        ):
            size = math.hypot(*values)
            if not size <= most:
                return f"{what} of {size:.1f} {unit} at the tool (limit {most:g})"
        return ""


@dataclass(frozen=True)
class DriverConfig:
    """A real arm's driver. Names are relative to the robot's namespace.

    Attributes:
        kind: `franka` (franka_ros2) or `ur` (ur_robot_driver).
        interface: command interface of the real arm, where it isn't the one of the simulated (`command.interface`).
        joint_states: topic with the arm's raw joint states at the driver's own rate.
        controller_manager: node name of ros2_control's controller manager.
        gripper: how the gripper is driven, where the robot has one; null where somebody else serves `gripper/command`
            and `gripper/state`.
        payload: told to the arm before it moves; null leaves the arm's own.
        collision_torque_nm: Franka: torque of each joint at which its reflex stops it, N m; empty leaves the arm's own.
        collision_force_n: Franka: force (three, N) and torque (three, N m) in the base at which its reflex stops it.
        joint_stiffness_nm_rad: Franka: stiffness of its internal joint impedance; empty leaves the arm's own.
        wrench: forces at which the arm holds; null watches none.
    """

    kind: DriverKind
    interface: str = ""
    joint_states: str = "joint_states"
    controller_manager: str = "controller_manager"
    gripper: GripperDriver | None = None
    payload: Payload | None = None
    collision_torque_nm: tuple[float, ...] = ()
    collision_force_n: tuple[float, ...] = ()
    joint_stiffness_nm_rad: tuple[float, ...] = ()
    wrench: WrenchLimit | None = None

    def __post_init__(self) -> None:
        for name, lengths in (
            ("collision_torque_nm", (0, 7)),
            ("collision_force_n", (0, 6)),
            ("joint_stiffness_nm_rad", (0, 7)),
        ):
            values = getattr(self, name)
            if len(values) not in lengths:
                raise ValueError(f"driver: {name} has {len(values)} values, it takes {lengths[1]} or none")
            if values and self.kind != "franka":
                raise ValueError(f"driver: {name} is Franka's; a driver of kind {self.kind} has no such setting")
            if not all(0.0 < value < math.inf for value in values):
                raise ValueError(f"driver: {name} {list(values)} have to be more than 0 and finite")
