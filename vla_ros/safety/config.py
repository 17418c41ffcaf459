"""What `config/safety.yaml` says: how far, how fast and how long the arm may move for a policy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SafetyConfig:
    """Limits of the Cartesian filter, all in the robot's base frame.

    Attributes:
        workspace_lower_m: lower corner of the box that the tcp may not leave.
        workspace_upper_m: upper corner.
        velocity_m_s: speed of the tcp; the robot YAML's limit wins where it is tighter, here and below.
        acceleration_m_s2: of the tcp.
        angular_velocity_rad_s: of the tool's rotation.
        angular_acceleration_rad_s2: of the tool's rotation.
        soft_start_s: time after every engage in which the limits grow from a fifth to all of themselves.
        blend_s: time in which a small correction goes over from one chunk to the next; large ones take as long as the
            limits need. 0 switches at once.
        chunk_max_age_s: oldest chunk, by its observation's stamp, that is begun.
        state_timeout_s: silence of `joint_states` after which the filter faults.
        tracking_tolerance_m: distance of commanded and measured tcp past which the filter faults.
    """

    workspace_lower_m: tuple[float, float, float]
    workspace_upper_m: tuple[float, float, float]
    velocity_m_s: float
    acceleration_m_s2: float
    angular_velocity_rad_s: float
    angular_acceleration_rad_s2: float
    soft_start_s: float = 0.5
    blend_s: float = 0.15
    chunk_max_age_s: float = 1.0
    state_timeout_s: float = 0.1
    tracking_tolerance_m: float = 0.08

    def __post_init__(self) -> None:
        for axis, lower, upper in zip("xyz", self.workspace_lower_m, self.workspace_upper_m, strict=True):
            if not lower < upper:
                raise ValueError(f"workspace along {axis}: lower {lower} m isn't below upper {upper} m")
        for key in ("velocity_m_s", "acceleration_m_s2", "angular_velocity_rad_s", "angular_acceleration_rad_s2"):
            if getattr(self, key) < 0.0:
                raise ValueError(f"{key} {getattr(self, key)} is negative")
