"""What `config/controller.yaml` says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ControllerConfig:
    """Settings of the joint controller.

    Attributes:
        rate_hz: ticks per second of the motion loop.
        solver: `qp` keeps the joints' limits while it solves, so that the other joints take over at one; `damped` is
            damped least squares with everything scaled down at a limit.
        damping: of the inverse, m per rad: of `qp` always, of `damped` the largest, used at a singularity.
        sigma_threshold: singular value of the Jacobian, m per rad, below which a direction is weak: `damped` damps it,
            `qp` takes it to second order.
        posture_gain_per_s: pull of the null space towards the home posture.
        centring_gain_per_s: pull of the null space towards the middle of the joints' ranges.
        position_margin_rad: distance that is kept from every position limit.
        collision_margin_m: distance that is kept between links of the arm.
        velocity_fraction: part of every joint's velocity limit that is used.
        acceleration_fraction: part of every joint's acceleration limit that is used.
        jerk_fraction: part of every joint's jerk limit that is used.
        target_timeout_s: silence of the target after which the arm brakes.
        state_timeout_s: silence of `joint_states` after which the arm brakes.
        engage_tolerance_rad: largest distance between a command and the measured joint; past it the controller
            re-seeds from the measurement.
    """

    rate_hz: float = 250.0
    solver: Literal["qp", "damped"] = "qp"
    damping: float = 0.0001
    sigma_threshold: float = 0.05
    posture_gain_per_s: float = 0.5
    centring_gain_per_s: float = 0.0
    position_margin_rad: float = 0.01
    collision_margin_m: float = 0.005
    velocity_fraction: float = 0.95
    acceleration_fraction: float = 0.9
    jerk_fraction: float = 0.9
    target_timeout_s: float = 0.1
    state_timeout_s: float = 0.1
    engage_tolerance_rad: float = 0.3

    def __post_init__(self) -> None:
        if not 10.0 <= self.rate_hz <= 1000.0:
            raise ValueError(f"rate_hz {self.rate_hz} isn't in [10, 1000]")
        if not self.sigma_threshold > 0.0:
            raise ValueError(f"sigma_threshold {self.sigma_threshold} isn't positive")
        for key in ("velocity_fraction", "acceleration_fraction", "jerk_fraction"):
            if not 0.0 < getattr(self, key) <= 1.0:
                raise ValueError(f"{key} {getattr(self, key)} isn't in (0, 1]")
