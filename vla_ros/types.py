"""The values that travel between the parts. Frozen, with units in their names; poses are 4x4 matrices named T_a_b.

Arrays are float64 unless said otherwise; who receives one doesn't write to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
ImageArray = NDArray[np.uint8]


@dataclass(frozen=True)
class RobotState:
    """What the arm measures.

    Attributes:
        stamp_ns: ROS time of the measurement.
        positions: (n,) joint positions, rad, in the robot YAML's order.
        velocities: (n,) joint velocities, rad/s.
        gripper_opening: 0 closed .. 1 open, None while unknown.
    """

    stamp_ns: int
    positions: FloatArray
    velocities: FloatArray
    gripper_opening: float | None = None


@dataclass(frozen=True)
class CameraModel:
    """A calibrated pinhole camera (sensor_msgs/CameraInfo's K and D).

    Attributes:
        width: pixels.
        height: pixels.
        K: (3, 3) intrinsic matrix, pixels.
        distortion: k1, k2, p1, p2[, k3[, k4, k5, k6]] (plumb_bob, rational_polynomial), empty for none.
    """

    width: int
    height: int
    K: FloatArray
    distortion: tuple[float, ...] = ()


@dataclass(frozen=True)
class CameraFrame:
    """One image with what is known of its camera at the exposure.

    Attributes:
        stamp_ns: ROS time of the exposure.
        image: (height, width, 3) uint8, rgb.
        camera: intrinsics, None where nobody published them.
        T_base_cam: pose of the camera's optical frame (z forward, x right, y down) in base, None where TF lacks it.
    """

    stamp_ns: int
    image: ImageArray
    camera: CameraModel | None = None
    T_base_cam: FloatArray | None = None


@dataclass(frozen=True)
class ObservedStamps:
    """What an observation was made of, by its stamps: enough to make the same one again out of a recording.

    Attributes:
        stamp_ns: exposure of the reference camera.
        images: the contract's image name -> exposure of the frame behind it, None where a black one stands for it.
        states: (stamp, gripper opening known then or None) of the one joint state, or the two between which it lies.
        commanded_opening: what the gripper had been told last, None before the first command.
        history: of the earlier observations, oldest first.
    """

    stamp_ns: int
    images: Mapping[str, int | None]
    states: tuple[tuple[int, float | None], ...]
    commanded_opening: float | None
    history: tuple[ObservedStamps, ...] = ()


@dataclass(frozen=True)
class Observation:
    """What a policy sees, aligned to one stamp as its contract says.

    Attributes:
        stamp_ns: exposure of the reference camera.
        images: by the contract's image name.
        state: (d,) the contract's state items one after the other.
        state_layout: name of each state item -> slice into `state`.
        T_base_tcp: (4, 4) measured tcp pose at the stamp.
        gripper_opening: measured opening at the stamp, None while unknown.
        instruction: the task in force.
        history: earlier observations as far as the contract asks for them, oldest first, each without a history.
        made_of: which frames and states it was made of, None where nobody kept them.
    """

    stamp_ns: int
    images: Mapping[str, CameraFrame]
    state: FloatArray
    state_layout: Mapping[str, slice]
    T_base_tcp: FloatArray
    gripper_opening: float | None
    instruction: str
    history: tuple[Observation, ...] = ()
    made_of: ObservedStamps | None = None


@dataclass(frozen=True)
class ActionChunk:
    """What a policy says, in the form of its own contract, before `vla_ros.actions` decodes it.

    Attributes:
        actions: (horizon, d): position (3), rotation (3, 4 or 6), gripper (1); in joint space joints, gripper.
        is_idle: the arm is to stay where it is (task done, or nothing can be done); `actions` is then empty.
        note: for a person: what the policy is at, or why it is idle.
    """

    actions: FloatArray
    is_idle: bool = False
    note: str = ""


@dataclass(frozen=True)
class ToolChunk:
    """A stretch of tool motion in the wire form of design.md, section 4.

    Attributes:
        stamp_ns: time of the observation that it answers; point k is due at stamp + time_from_start_s[k].
        frame: `tcp` or `base`: transforms are relative to the anchor in that frame; `absolute`: poses in base.
        transforms: (n, 4, 4) relative to the anchor, or absolute.
        openings: (n,) gripper opening in [0, 1], None to leave the gripper alone.
        time_from_start_s: (n,) strictly increasing.
        source: name of the policy or teleop device.
        T_base_anchor: (4, 4) where the sender knows the anchor better than the stamp does, else None.
    """

    stamp_ns: int
    frame: str
    transforms: FloatArray
    openings: FloatArray | None
    time_from_start_s: FloatArray
    source: str
    T_base_anchor: FloatArray | None = None


@dataclass(frozen=True)
class JointChunk:
    """A stretch of joint motion.

    Attributes:
        stamp_ns: as in ToolChunk.
        positions: (n, joints) rad, in the robot YAML's order.
        openings: (n,) gripper opening or None.
        time_from_start_s: (n,) strictly increasing.
        source: name of the policy or teleop device.
    """

    stamp_ns: int
    positions: FloatArray
    openings: FloatArray | None
    time_from_start_s: FloatArray
    source: str


@dataclass(frozen=True)
class ToolTarget:
    """Where the tcp is wanted at a time.

    Attributes:
        stamp_ns: time for which it holds.
        T_base_tcp: (4, 4) wanted pose.
        twist_tcp_in_base: (6,) wanted velocity, linear m/s first, angular rad/s, both in base axes.
        gripper_opening: wanted opening, None to leave the gripper alone.
    """

    stamp_ns: int
    T_base_tcp: FloatArray
    twist_tcp_in_base: FloatArray
    gripper_opening: float | None = None


@dataclass(frozen=True)
class JointTarget:
    """Where the joints are wanted at a time: (n,) rad and rad/s in the robot YAML's order."""

    stamp_ns: int
    positions: FloatArray
    velocities: FloatArray
    gripper_opening: float | None = None


class JointCommand(NamedTuple):
    """What is sent to the arm.

    Attributes:
        positions: (n,) rad.
        velocities: (n,) rad/s.
        accelerations: (n,) rad/s^2.
        gripper_opening: commanded opening, None before the first.
    """

    positions: FloatArray
    velocities: FloatArray
    accelerations: FloatArray
    gripper_opening: float | None = None


class MotionState(Enum):
    """State of the safety filter."""

    IDLE = "idle"
    RUNNING = "running"
    HOLDING = "holding"
    STOPPED = "stopped"
    FAULT = "fault"


@dataclass(frozen=True)
class Intervention:
    """One thing that a limit did.

    Attributes:
        limit: the limit's name, e.g. `workspace`.
        reason: for a person, with value, limit and unit.
    """

    limit: str
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What a safety stage did in one tick.

    Attributes:
        state: state after the tick.
        interventions: every limit that acted, in order; empty when the motion passed untouched.
    """

    state: MotionState
    interventions: tuple[Intervention, ...] = field(default=())

    @property
    def is_clean(self) -> bool:
        return not self.interventions
