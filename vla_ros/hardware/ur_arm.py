"""A UR behind its driver: the program on the robot, protective stops, and the controllers that stop and start with it.

A protective stop pauses the program; the driver says that none runs, and its controller_stopper deactivates what moves.
When the program runs again, the same controllers become active again: whoever streamed goes on moving the arm then.

Source: ur_robot_driver (kilted), src/controller_stopper.cpp; doc/usage/startup.rst, "Continuation after interruptions".
"""

from __future__ import annotations

from enum import IntEnum

from vla_ros.hardware.controllers import UR, UR_ACTIVE, UR_CONSISTENT, ControllerManager
from vla_ros.hardware.servoj import CYCLE_S, Servoj
from vla_ros.robots.config import RobotConfig
from vla_ros.types import FloatArray

# UR's dashboard server refuses to unlock earlier ("Cannot unlock protective stop until 5s after occurrence").
UNLOCK_AFTER_S = 5.0


class SafetyMode(IntEnum):
    """As in ur_dashboard_msgs/SafetyMode."""

    NORMAL = 1
    PROTECTIVE_STOP = 3


class UrArm:
    """The robot's side of the driver.

    Args:
        robot: the arm.
    """

    cycle_s = CYCLE_S

    def __init__(self, robot: RobotConfig) -> None:
        self.controllers = ControllerManager(UR, UR_ACTIVE)
        self._servoj = Servoj(robot.joints)
        self.limits = self._servoj.limits
        self.safety_mode = SafetyMode.NORMAL
        self.is_program_running = True
        self.slider = 1.0
        """The teach pendant's speed slider, 0..1."""

        self.throttle = 1.0
        """By what the robot itself is slower, 0..1, near its safety limits."""

        self.reason = ""
        """Why it is in a protective stop."""

        self._stopped: list[str] = []
        self._stopped_s = 0.0
        self._now_s = 0.0

    @property
    def speed(self) -> float:
        """The speed scaling that the driver publishes (as a percentage) and trajectory controllers keep."""
        return self.slider * self.throttle if self.is_program_running else 0.0

    @property
    def ignored(self) -> int:
        """Targets that the script on the robot left out, as too far from the one before."""
        return self._servoj.ignored

    def begin(self, positions: FloatArray) -> None:
        """A controller has become active, at rest at positions, (n,) rad."""
        self._servoj.begin(positions)

    def follow(self, wanted: FloatArray, measured: FloatArray) -> FloatArray | None:
        """Where the arm goes in a cycle, (n,) rad; None when a protective stop ends it.

        Args:
            wanted: (n,) rad, by the active controller.
            measured: (n,) rad.
        """
        reason = self._servoj.step(wanted, measured)
        if reason is not None:
            self.protective_stop(reason)
            return None
        return self._servoj.positions

    def pass_time(self, dt_s: float) -> None:
        """A while later."""
        self._now_s += dt_s

    def protective_stop(self, reason: str) -> None:
        """The arm brakes, and its program pauses."""
        if self.safety_mode is SafetyMode.NORMAL:
            self.safety_mode, self.reason, self._stopped_s = SafetyMode.PROTECTIVE_STOP, reason, self._now_s
        self.stop_program()

    def unlock(self) -> tuple[bool, str]:
        """Ends a protective stop, once it is old enough; whether it did, and the dashboard's answer."""
        if self.safety_mode is SafetyMode.PROTECTIVE_STOP:
            if self._now_s - self._stopped_s < UNLOCK_AFTER_S:
                return False, "Cannot unlock protective stop until 5s after occurrence. Always inspect cause first"
            self.safety_mode, self.reason = SafetyMode.NORMAL, ""
        return True, "Protective stop releasing"

    def stop_program(self) -> None:
        """The program on the robot ends, and what moves the arm becomes inactive."""
        if self.is_program_running:
            self.is_program_running = False
            self._stopped = self.controllers.stop_all_but(UR_CONSISTENT)

    def start_program(self) -> tuple[bool, str]:
        """The program runs again, and what was active when it ended becomes active; whether it does, and an answer."""
        if self.safety_mode is not SafetyMode.NORMAL:
            return False, f"the robot is in {self.safety_mode.name} ({self.reason}); unlock it first"
        if not self.is_program_running:
            self.is_program_running = True
            names = [name for name in self._stopped if not self.controllers.is_active(name)]
            if self.controllers.mover is None:
                self.controllers.switch(names, [], is_strict=False)
            self._stopped = []
        return True, "program running"
