"""What `config/safety.yaml` says: how far, how fast and how long the arm may move for a policy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from vla_ros.actions.gripper import GripperHysteresis
from vla_ros.actions.seams import make_seam
from vla_ros.actions.timeline import ChunkTimeline
from vla_ros.robots.config import ToolLimits
from vla_ros.safety.rate import ToolRate
from vla_ros.safety.regions import HalfSpace, Region, Regions, Sphere
from vla_ros.safety.stopping import RateLimits

_RATES = (
    "velocity_m_s",
    "acceleration_m_s2",
    "jerk_m_s3",
    "angular_velocity_rad_s",
    "angular_acceleration_rad_s2",
    "angular_jerk_rad_s3",
)


@dataclass(frozen=True)
class KeepOutPlane:
    """A plane that the tcp stays in front of: normal . p is at least offset_m.

    Attributes:
        name: for the verdict.
        normal: points to where the tcp may be; of any length but zero.
        offset_m: distance of the plane from the base's origin, along the normal.
    """

    name: str
    normal: tuple[float, float, float]
    offset_m: float

    def __post_init__(self) -> None:
        if not 0.0 < math.hypot(*self.normal) < math.inf or not math.isfinite(self.offset_m):
            raise ValueError(f"keep-out plane {self.name}: normal {self.normal} and offset_m {self.offset_m} make none")

    def region(self) -> Region:
        """What is behind it."""
        length = math.hypot(*self.normal)
        x, y, z = self.normal
        name = f"keep_out_plane {self.name}"
        return HalfSpace(name, f"the plane {self.name}", (x / length, y / length, z / length), self.offset_m)


@dataclass(frozen=True)
class KeepOutSphere:
    """A sphere that the tcp stays out of.

    Attributes:
        name: for the verdict.
        centre_m: in base.
        radius_m: of the sphere.
    """

    name: str
    centre_m: tuple[float, float, float]
    radius_m: float

    def __post_init__(self) -> None:
        if not 0.0 < self.radius_m < math.inf or not all(map(math.isfinite, self.centre_m)):
            raise ValueError(
                f"keep-out sphere {self.name}: centre_m {self.centre_m}, radius_m {self.radius_m} make none"
            )

    def region(self) -> Region:
        """What is inside."""
        return Sphere(f"keep_out_sphere {self.name}", f"the sphere {self.name}", self.centre_m, self.radius_m)


@dataclass(frozen=True)
class EmergencyStopConfig:
    """An emergency stop that is told by topic.

    Attributes:
        topic: std_msgs/Bool, true while it is pressed; relative to the robot's namespace.
        heartbeat_s: silence after which it counts as pressed.
    """

    topic: str
    heartbeat_s: float

    def __post_init__(self) -> None:
        if not 0.0 < self.heartbeat_s < math.inf:
            raise ValueError(f"emergency_stop: heartbeat_s is {self.heartbeat_s}, it has to be positive and finite")


@dataclass(frozen=True)
class SafetyConfig:
    """Limits of the Cartesian filter, all in the robot's base frame.

    Attributes:
        workspace_lower_m: lower corner of the box that the tcp may not leave.
        workspace_upper_m: upper corner.
        velocity_m_s: speed of the tcp; the robot YAML's limit wins where it is tighter, here and below.
        acceleration_m_s2: of the tcp.
        jerk_m_s3: of the tcp.
        angular_velocity_rad_s: of the tool's rotation.
        angular_acceleration_rad_s2: of the tool's rotation.
        angular_jerk_rad_s3: of the tool's rotation.
        keep_out_planes: planes that the tcp stays in front of, whatever comes next.
        keep_out_spheres: spheres that it stays out of.
        soft_start_s: time after every engage in which the limits grow from a fifth to all of themselves.
        seam: what happens where a chunk takes over from another: `blend` leads over smoothly, `ensemble` averages all
            chunks (ACT), `switch` jumps to the newest and leaves the rest to the limits.
        blend_half_s: time in which `blend` closes half of a small gap; what is too large for the limits takes as long
            as they need. The jerk grows with its inverse cube.
        blend_rotation_half_s: the same for the tool's rotation, whose gaps move all joints.
        gripper: when a gripper that was open closes, and back.
        observation_latency_s: time by which the chunks' stamps are later than the exposure, where whoever stamps the
            images doesn't know of it (`vla-ros calibrate latency`).
        actuation_latency_s: time from a command until the arm is there, beside what the robot's YAML knows of it
            (`command.latency_s`, `vla-ros calibrate latency`); points are commanded that much earlier.
        chunk_max_age_s: oldest chunk, by its observation's stamp, that is begun.
        state_timeout_s: silence of `joint_states` after which the filter faults.
        tracking_tolerance_m: distance of commanded and measured tcp past which the filter faults.
        tracking_tolerance_rad: angle of commanded and measured tool, or of any joint, past which the filter faults.
        emergency_stop: the topic of a button that has to say all the time that it isn't pressed; null for none.
    """

    workspace_lower_m: tuple[float, float, float]
    workspace_upper_m: tuple[float, float, float]
    velocity_m_s: float
    acceleration_m_s2: float
    jerk_m_s3: float
    angular_velocity_rad_s: float
    angular_acceleration_rad_s2: float
    angular_jerk_rad_s3: float
    keep_out_planes: tuple[KeepOutPlane, ...] = ()
    keep_out_spheres: tuple[KeepOutSphere, ...] = ()
    soft_start_s: float = 0.5
    seam: Literal["blend", "switch", "ensemble"] = "blend"
    blend_half_s: float = 0.115
    blend_rotation_half_s: float = 0.25
    gripper: GripperHysteresis = field(default_factory=GripperHysteresis)
    observation_latency_s: float = 0.0
    actuation_latency_s: float = 0.0
    chunk_max_age_s: float = 1.0
    state_timeout_s: float = 0.1
    tracking_tolerance_m: float = 0.08
    tracking_tolerance_rad: float = 0.5
    emergency_stop: EmergencyStopConfig | None = None

    def __post_init__(self) -> None:
        for axis, lower, upper in zip("xyz", self.workspace_lower_m, self.workspace_upper_m, strict=True):
            if not lower < upper:
                raise ValueError(f"workspace along {axis}: lower {lower} m isn't below upper {upper} m")
        for key in _RATES:
            if not getattr(self, key) >= 0.0:
                raise ValueError(f"{key} {getattr(self, key)} isn't 0 or more")
        names = [zone.name for zone in self._zones]
        if len(set(names)) != len(names):
            raise ValueError(f"keep-out planes and spheres need names of their own, found {names}")
        for key in ("blend_half_s", "blend_rotation_half_s"):
            if not getattr(self, key) > 0.0:
                raise ValueError(f"{key} {getattr(self, key)} isn't positive; to do without, seam: switch")
        for key in ("observation_latency_s", "actuation_latency_s"):
            if not 0.0 <= getattr(self, key) < self.chunk_max_age_s:
                raise ValueError(f"{key} {getattr(self, key)} isn't in [0, chunk_max_age_s)")

    @property
    def _zones(self) -> tuple[KeepOutPlane | KeepOutSphere, ...]:
        return self.keep_out_planes + self.keep_out_spheres

    def make_rate(self, tool: ToolLimits) -> ToolRate:
        """The tighter of these limits of the tool's motion and the robot's own."""
        v, a, j, angular_v, angular_a, angular_j = (min(getattr(self, key), getattr(tool, key)) for key in _RATES)
        return ToolRate(RateLimits(v, a, j), RateLimits(angular_v, angular_a, angular_j))

    def make_regions(self) -> Regions:
        """Where the tcp may not be."""
        keep_out = [zone.region() for zone in self._zones]
        return Regions(self.workspace_lower_m, self.workspace_upper_m, keep_out)

    def make_timeline(self) -> ChunkTimeline:
        """The chunk timeline that these keys describe."""
        seam = make_seam(self.seam, self.blend_half_s, self.blend_rotation_half_s)
        return ChunkTimeline(self.chunk_max_age_s, seam, self.gripper, self.actuation_latency_s)
