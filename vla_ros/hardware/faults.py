"""What a driver says of its arm, as the reason for which it can't be led, and who has to do what about it.

Sources: franka_ros2, franka_msgs/msg (FrankaRobotState, Errors); ur_robot_driver, ur_dashboard_msgs/msg (SafetyMode,
RobotMode).
"""

from __future__ import annotations

from collections.abc import Sequence

FRANKA_IDLE, FRANKA_MOVE, FRANKA_REFLEX = 1, 2, 4
_FRANKA_MODES = {
    0: "is in a mode that its driver doesn't know; look at Franka Desk",
    3: "is guided by hand; let go of the guiding button",
    5: "is stopped by its user stop; release the button",
    6: "recovers from an error",
}

UR_NORMAL, UR_REDUCED, UR_PROTECTIVE_STOP = 1, 2, 3
UR_RUNNING = 7
_UR_SAFETY = {
    4: "recovery mode: a joint is past a safety limit; move it back by hand on the teach pendant",
    5: "safeguard stop: somebody is where the arm moves, or the safeguard isn't reset",
    6: "emergency stop of the system; release it, and switch the arm on again on the teach pendant",
    7: "emergency stop on the teach pendant; release it, and switch the arm on again there",
    8: "violation of a safety limit; see the teach pendant",
    9: "safety fault; the controller has to be started anew",
    10: "wait for a joint's identity to be confirmed on the teach pendant",
    11: "a safety mode that its driver doesn't know; see the teach pendant",
    12: "safeguard stop of the automatic mode",
    13: "stop by the three-position switch; hold it in its middle",
}
_UR_MODES = {
    -1: "'s controller doesn't run",
    0: " is disconnected",
    1: " waits for its safety configuration to be confirmed",
    2: " is booting",
    3: " is switched off",
    4: " is switched on, its brakes aren't released",
    5: " is idle, its brakes aren't released",
    6: " is in backdrive",
    8: " updates its firmware",
}
RECOVERABLE = "when it is safe, call hardware/recover"
"""Ends the reason of a fault from which an operator may lead out by one call."""


def franka_reason(mode: int, errors: Sequence[str]) -> str:
    """Why a Franka can't be led, empty if it can.

    Args:
        mode: `robot_mode` of franka_msgs/FrankaRobotState.
        errors: names of the fields of `current_errors` that are set.
    """
    named = ", ".join(errors)
    if mode in (FRANKA_IDLE, FRANKA_MOVE) and not errors:
        return ""
    if mode in (FRANKA_IDLE, FRANKA_MOVE, FRANKA_REFLEX):
        return f"the arm stopped by a reflex ({named or 'without a name'}); {RECOVERABLE}"
    return f"the arm {_FRANKA_MODES.get(mode, f'is in mode {mode}')}{f' ({named})' if named else ''}"


def ur_reason(safety_mode: int, robot_mode: int, is_program_running: bool) -> str:
    """Why a UR can't be led, empty if it can.

    Args:
        safety_mode: `mode` of ur_dashboard_msgs/SafetyMode.
        robot_mode: `mode` of ur_dashboard_msgs/RobotMode.
        is_program_running: whether External Control runs on it.
    """
    if safety_mode == UR_PROTECTIVE_STOP:
        return f"the arm is in a protective stop; {RECOVERABLE}"
    if safety_mode not in (UR_NORMAL, UR_REDUCED):
        return f"the arm is in {_UR_SAFETY.get(safety_mode, f'safety mode {safety_mode}')}"
    if robot_mode != UR_RUNNING:
        return f"the arm{_UR_MODES.get(robot_mode, f' is in mode {robot_mode}')}; see the teach pendant"
    if not is_program_running:
        return f"External Control doesn't run on the arm; press Play on the teach pendant, or, {RECOVERABLE}"
    return ""
