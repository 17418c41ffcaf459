"""The controllers of an arm's bringup, listed and switched as ros2_control's controller manager does.

Source: ros2_control (kilted), controller_manager.cpp (switch_controller_cb), and srv/SwitchController.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Follows = Literal["", "position", "velocity", "trajectory"]


@dataclass(frozen=True)
class Controller:
    """A controller that is loaded and configured.

    Attributes:
        name: as the manager lists it, and the first part of its topics.
        type: the class, as `package/Class`.
        follows: which commands move the arm by it; empty for a broadcaster.
        interface: that it claims of each joint, when it follows commands.
    """

    name: str
    type: str
    follows: Follows = ""
    interface: str = ""

    @property
    def topic(self) -> str:
        """Where it hears its commands."""
        return f"{self.name}/joint_trajectory" if self.follows == "trajectory" else f"{self.name}/commands"


class SwitchError(Exception):
    """A switch that isn't made; the text is the service's message."""


class ControllerManager:
    """Which controllers are active. At most one that moves the arm: two can't claim the same joints.

    Args:
        controllers: all of them.
        active: names of those that are active at start.
        may_move: raises SwitchError where the arm takes no motion now.
    """

    def __init__(
        self, controllers: Sequence[Controller], active: Iterable[str], may_move: Callable[[], None] = lambda: None
    ) -> None:
        self.controllers = {controller.name: controller for controller in controllers}
        self._active = dict.fromkeys(active)
        self._may_move = may_move
        self.activations = 0
        """Of controllers that move the arm: one that is deactivated and activated at once begins anew."""

    def is_active(self, name: str) -> bool:
        """Whether a controller is active."""
        return name in self._active

    @property
    def mover(self) -> Controller | None:
        """The active controller that moves the arm."""
        return next((self.controllers[name] for name in self._active if self.controllers[name].follows), None)

    def switch(self, activate: Sequence[str], deactivate: Sequence[str], is_strict: bool) -> None:
        """Deactivates some controllers and activates others at once.

        Args:
            activate: names.
            deactivate: names.
            is_strict: whether one that can't be switched keeps all as they are; else it is left out.

        Raises:
            SwitchError: if nothing was switched that should have been.
        """
        off = self._known(deactivate, "deactivate", is_strict)
        on = self._known(activate, "activate", is_strict)
        for name in [name for name in off if name not in self._active]:
            _refuse(f"Could not deactivate controller '{name}' since it is not active", is_strict)
            off.remove(name)
        for name in [name for name in on if name in self._active and name not in off]:
            _refuse(f"Could not activate controller '{name}' since it is already active", is_strict)
            on.remove(name)
        self._check_claims(on, off)
        if any(self.controllers[name].follows for name in on):
            self._may_move()
        for name in off:
            del self._active[name]
        self._active.update(dict.fromkeys(on))
        self.activations += any(self.controllers[name].follows for name in on)

    def stop_all_but(self, kept: Iterable[str]) -> list[str]:
        """Deactivates all active controllers but some, and returns which."""
        stopped = [name for name in self._active if name not in set(kept)]
        for name in stopped:
            del self._active[name]
        return stopped

    def _known(self, names: Sequence[str], action: str, is_strict: bool) -> list[str]:
        known = [name for name in dict.fromkeys(names) if name in self.controllers]
        for name in names:
            if name not in self.controllers:
                text = f"Could not {action} controller with name '{name}' because no controller with this name exists"
                _refuse(text, is_strict or not known)
        return known

    def _check_claims(self, on: Sequence[str], off: Sequence[str]) -> None:
        movers = [name for name in on if self.controllers[name].follows]
        claimed = [name for name in self._active if self.controllers[name].follows and name not in off]
        for name in movers[1:] if not claimed else movers:
            holder = claimed[0] if claimed else movers[0]
            raise SwitchError(f"Resource conflict for controller '{name}'. The joints are claimed by '{holder}'.")


def _refuse(text: str, is_refused: bool) -> None:
    if is_refused:
        raise SwitchError(text)


_BROADCASTER = "joint_state_broadcaster/JointStateBroadcaster"
_TRAJECTORY = "joint_trajectory_controller/JointTrajectoryController"
_POSITION = Controller(
    "forward_position_controller", "position_controllers/JointGroupPositionController", "position", "position"
)
_VELOCITY = Controller(
    "forward_velocity_controller", "velocity_controllers/JointGroupVelocityController", "velocity", "velocity"
)

# franka_ros2's bringup has none that moves the arm; the three come with this project (docs/hardware.md).
FRANKA = (
    Controller("joint_state_broadcaster", _BROADCASTER),
    Controller("franka_robot_state_broadcaster", "franka_robot_state_broadcaster/FrankaRobotStateBroadcaster"),
    Controller("joint_trajectory_controller", _TRAJECTORY, "trajectory", "effort"),
    _POSITION,
    _VELOCITY,
)
FRANKA_ACTIVE = ("joint_state_broadcaster", "franka_robot_state_broadcaster")

# ur_robot_driver (kilted), launch/ur_control.launch.py.
UR = (
    Controller("joint_state_broadcaster", _BROADCASTER),
    Controller("io_and_status_controller", "ur_controllers/GPIOController"),
    Controller("speed_scaling_state_broadcaster", "ur_controllers/SpeedScalingStateBroadcaster"),
    Controller("force_torque_sensor_broadcaster", "force_torque_sensor_broadcaster/ForceTorqueSensorBroadcaster"),
    Controller(
        "scaled_joint_trajectory_controller", "ur_controllers/ScaledJointTrajectoryController", "trajectory", "position"
    ),
    Controller("joint_trajectory_controller", _TRAJECTORY, "trajectory", "position"),
    # Ours, beside the driver's (config/controllers/ur.yaml).
    Controller("streaming_trajectory_controller", _TRAJECTORY, "trajectory", "position"),
    _POSITION,
    _VELOCITY,
)
# What the driver's controller_stopper leaves active when the program on the robot stops.
UR_CONSISTENT = (
    "joint_state_broadcaster",
    "io_and_status_controller",
    "speed_scaling_state_broadcaster",
    "force_torque_sensor_broadcaster",
)
UR_ACTIVE = (*UR_CONSISTENT, "scaled_joint_trajectory_controller")
