"""What `config/teleop.yaml` says: how an operator leads the tool, and what the devices' keys, axes and buttons mean."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np

from vla_ros.teleop.operator_input import check_known
from vla_ros.types import FloatArray

DEVICES = ("keyboard", "gamepad", "spacemouse", "pose", "scripted")
"""What an operator leads the tool by."""

Frame = Literal["base", "tcp", "camera"]
FRAMES: tuple[Frame, ...] = ("base", "tcp", "camera")
AXES = ("x", "y", "z", "roll", "pitch", "yaw")
"""What a stick moves: along and about forward, left and up of the operator's frame."""


@dataclass(frozen=True)
class KeyboardConfig:
    """How long a key counts as held: terminals tell presses and repetitions, but no release.

    Attributes:
        press_hold_s: after its first press. The terminal's repetition begins some 0.25 to 0.6 s later: a time as long
            leaves no pause there, and lets a key that was only touched go on for so long.
        repeat_hold_s: after a repetition.
        repeat_gap_s: the longest time between two presses of a key that is being held.
    """

    press_hold_s: float = 0.15
    repeat_hold_s: float = 0.15
    repeat_gap_s: float = 0.7

    def __post_init__(self) -> None:
        for key in ("press_hold_s", "repeat_hold_s"):
            if not 0.05 <= getattr(self, key) <= 1.0:
                raise ValueError(f"{key} {getattr(self, key)} isn't in [0.05, 1]: it is the way of the dead-man switch")


@dataclass(frozen=True)
class AxisMapping:
    """One axis of a joystick.

    Attributes:
        axis: its index in sensor_msgs/Joy.
        sign: 1, or -1 to turn it round.
    """

    axis: int
    sign: float = 1.0

    def __post_init__(self) -> None:
        if self.axis < 0 or abs(self.sign) != 1.0:
            raise ValueError(f"axis {self.axis} with sign {self.sign}: needs an index from 0 on, and 1 or -1")


@dataclass(frozen=True)
class JoyMapping:
    """What a joystick's axes and buttons mean.

    Attributes:
        dead_man: button that has to be held; null for devices whose stick springs back and is its own dead-man switch.
        move: by x, y, z, roll, pitch, yaw.
        buttons: index by command.
        gripper_axis: analog trigger, 1 released .. -1 pressed, that closes the gripper; null for a button alone.
    """

    dead_man: int | None
    move: dict[str, AxisMapping]
    buttons: dict[str, int] = field(default_factory=dict)
    gripper_axis: int | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.move) - set(AXES))
        if unknown:
            raise ValueError(f"move: unknown {', '.join(unknown)}; there is: {', '.join(AXES)}")
        check_known("buttons", self.buttons)
        if self.dead_man is not None and self.dead_man in self.buttons.values():
            raise ValueError(f"button {self.dead_man} is the dead-man switch and something else besides")


@dataclass(frozen=True)
class GamepadConfig:
    """Gamepads on the topic `joy`.

    Attributes:
        mapping: which of `mappings` counts.
        mappings: by name.
        deadzone: part of an axis' way that is silent.
    """

    mapping: str
    mappings: dict[str, JoyMapping]
    deadzone: float = 0.1

    def __post_init__(self) -> None:
        if self.mapping not in self.mappings:
            raise ValueError(f"gamepad: no mapping {self.mapping!r}; there is: {', '.join(sorted(self.mappings))}")
        if not 0.0 <= self.deadzone < 0.9:
            raise ValueError(f"gamepad: deadzone {self.deadzone} isn't in [0, 0.9)")


@dataclass(frozen=True)
class SpaceMouseConfig:
    """3Dconnexion's devices with six axes.

    Attributes:
        source: topic `spacenav/joy`, or `spacenav/twist`, which tells no buttons, or /dev/hidraw* without a driver.
        mapping: axes are forward, left, up and the turns about them, as the spacenav driver has them.
        deadzone: part of an axis' way that is silent.
        full_scale: value of a HID report, or of the topics, that stands for 1.
    """

    mapping: JoyMapping
    source: Literal["joy", "twist", "hid"] = "joy"
    deadzone: float = 0.1
    full_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.source == "twist" and self.mapping.dead_man is not None:
            raise ValueError("spacemouse: spacenav/twist tells no buttons, so dead_man has to be null with it")
        if not self.full_scale > 0.0:
            raise ValueError(f"spacemouse: full_scale {self.full_scale} isn't positive")


@dataclass(frozen=True)
class PoseConfig:
    """A phone or a VR controller that tells its pose.

    Attributes:
        axes: which axis of the tracker is the operator's forward, left and up, e.g. [-z, -x, y] for OpenXR and ARKit.
        scale: of the way: 0.5 halves the hand's.
        rotation_scale: of the turn; 0 keeps the tool's direction.
        gain_per_s: how fast the tool follows: it is behind a steady hand by the inverse.
        timeout_s: silence of the poses that releases the clutch.
        clutch_timeout_s: silence of the clutch's topic that releases it; 0 where it tells only changes, and the poses'
            silence alone releases it.
        max_jump_m: a larger step from one pose to the next is the tracker's fault and releases the clutch.
    """

    axes: tuple[str, str, str] = ("-z", "-x", "y")
    scale: float = 1.0
    rotation_scale: float = 1.0
    gain_per_s: float = 8.0
    timeout_s: float = 0.2
    clutch_timeout_s: float = 0.5
    max_jump_m: float = 0.15

    def __post_init__(self) -> None:
        _ = self.R_view_track
        if not 0.0 < self.gain_per_s <= 15.0:
            raise ValueError(f"pose: gain_per_s {self.gain_per_s} isn't in (0, 15]")
        if not (self.scale > 0.0 and self.rotation_scale >= 0.0):
            raise ValueError(f"pose: scale {self.scale} isn't positive, or rotation_scale {self.rotation_scale} not 0")

    @property
    def R_view_track(self) -> FloatArray:
        """(3, 3) from the tracker's axes to forward, left, up."""
        R = np.zeros((3, 3))
        for row, word in enumerate(self.axes):
            if word.lstrip("+-") not in ("x", "y", "z") or len(word) > 2:
                raise ValueError(f"pose: axes {list(self.axes)}; each is x, y or z, with - to turn it round")
            R[row, "xyz".index(word[-1])] = -1.0 if word[0] == "-" else 1.0
        if abs(np.linalg.det(R) - 1.0) > 1e-9:
            raise ValueError(f"pose: axes {list(self.axes)} mirror, or name one axis twice; no hand can turn like that")
        return R


@dataclass(frozen=True)
class TeleopConfig:
    """How the tool is led. Limits of norms, in the robot's base frame; keep them below those of `safety.yaml`.

    Attributes:
        gamepad: see there.
        spacemouse: see there.
        keyboard: see there.
        pose: see there.
        rate_hz: chunks per second.
        linear_m_s: full speed of the tool.
        angular_rad_s: full speed of its rotation.
        speeds: parts of the full speed to choose from, rising.
        speed: the one at the start.
        acceleration_m_s2: of the tool.
        jerk_m_s3: of the tool.
        angular_acceleration_rad_s2: of its rotation.
        angular_jerk_rad_s3: of its rotation.
        soft_start_s: time after engaging in which acceleration and jerk grow to the whole of them; as long as the
            filter's, so that this has nothing to do.
        lead_s: how long a chunk goes on as the operator says before it brakes: silence longer than this stops the arm.
        windup_m: the target stays within this of the measured tool; below the filter's tracking tolerance.
        windup_rad: the same for its rotation.
        device_timeout_s: silence of a joystick's topic that releases its dead-man switch.
        state_timeout_s: age of the joint states past which nobody can engage.
    """

    gamepad: GamepadConfig
    spacemouse: SpaceMouseConfig
    keyboard: KeyboardConfig = field(default_factory=KeyboardConfig)
    pose: PoseConfig = field(default_factory=PoseConfig)
    rate_hz: float = 40.0
    linear_m_s: float = 0.25
    angular_rad_s: float = 0.8
    speeds: tuple[float, ...] = (0.1, 0.2, 0.4, 0.7, 1.0)
    speed: float = 0.4
    acceleration_m_s2: float = 1.2
    jerk_m_s3: float = 20.0
    angular_acceleration_rad_s2: float = 3.5
    angular_jerk_rad_s3: float = 60.0
    soft_start_s: float = 0.5
    lead_s: float = 0.15
    windup_m: float = 0.05
    windup_rad: float = 0.3
    device_timeout_s: float = 0.3
    state_timeout_s: float = 0.2

    def __post_init__(self) -> None:
        if not 20.0 <= self.rate_hz <= 50.0:
            raise ValueError(f"rate_hz {self.rate_hz} isn't in [20, 50]")
        rising = all(a < b for a, b in pairwise(self.speeds))
        if not (self.speeds and rising and self.speeds[0] > 0.0 and self.speeds[-1] <= 1.0):
            raise ValueError(f"speeds {list(self.speeds)} have to rise inside (0, 1]")
        if self.speed not in self.speeds:
            raise ValueError(f"speed {self.speed} isn't one of speeds {list(self.speeds)}")
        positive = ("linear_m_s", "angular_rad_s", "acceleration_m_s2", "jerk_m_s3", "windup_m", "windup_rad")
        for key in (*positive, "angular_acceleration_rad_s2", "angular_jerk_rad_s3", "lead_s", "device_timeout_s"):
            if not 0.0 < getattr(self, key) < math.inf:
                raise ValueError(f"{key} {getattr(self, key)} isn't positive")

    @property
    def period_ns(self) -> int:
        """Between two chunks, and two points of one."""
        return round(1e9 / self.rate_hz)
