"""Numbers of the scripted policy, as `parameters` of its YAML may set them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScriptedVisualParameters:
    """Sizes, heights and speeds.

    Attributes:
        block_side_m: edge of the cubes.
        table_height_m: z of the table in base.
        horizon_steps: actions in a chunk.
        transit_speed_m_s: peak speed far from the table.
        near_speed_m_s: peak speed beside the blocks and while pushing.
        lift_speed_m_s: peak speed with a block in the gripper.
        acceleration_m_s2: peak on every stretch.
        angular_speed_rad_s: peak of the tool's turning.
        angular_acceleration_rad_s2: its peak.
        hover_m: height of the tcp over a block's centre for looking at it; the wrist camera then sees it whole.
        reach_m: height of the tcp over a block's centre when it has been reached.
        lift_m: how far a picked block is lifted.
        push_m: how far a block is pushed.
        least_push_m: how far it has to have gone, or it is pushed again.
        pusher_half_m: half thickness of the fingers along the tcp's x.
        finger_travel_m: way of one finger from closed to open.
        finger_half_m: half thickness of a finger along the tcp's y.
        grasp_opening: opening for going down around a block; less than 1 spares its neighbours.
        grasp_sigma_m: how well a block has to be known before the hand goes down.
        missed_opening: opening after closing at or below which nothing was grasped.
        moved_m: a reached block that moves by this much is followed.
        neutral_yaw_rad: yaw of the tcp's x in base that the wrist likes best.
        look_position_m: where the wrist camera looks for a block that isn't seen from elsewhere.
        attempts: tries of a push or pick before it gives up.
    """

    block_side_m: float = 0.04
    table_height_m: float = 0.0
    horizon_steps: int = 16
    transit_speed_m_s: float = 0.25
    near_speed_m_s: float = 0.12
    lift_speed_m_s: float = 0.2
    acceleration_m_s2: float = 0.8
    angular_speed_rad_s: float = 1.0
    angular_acceleration_rad_s2: float = 3.0
    hover_m: float = 0.13
    reach_m: float = 0.037
    lift_m: float = 0.18
    push_m: float = 0.095
    least_push_m: float = 0.07
    pusher_half_m: float = 0.01
    finger_travel_m: float = 0.04
    finger_half_m: float = 0.012
    grasp_opening: float = 0.85
    grasp_sigma_m: float = 0.0012
    missed_opening: float = 0.08
    moved_m: float = 0.025
    neutral_yaw_rad: float = 0.0
    look_position_m: tuple[float, float, float] = (0.42, 0.0, 0.34)
    attempts: int = 4

    def __post_init__(self) -> None:
        positive = (
            "block_side_m", "transit_speed_m_s", "near_speed_m_s", "lift_speed_m_s", "acceleration_m_s2",
            "angular_speed_rad_s", "angular_acceleration_rad_s2", "horizon_steps", "attempts",
        )  # fmt: skip
        for key in positive:
            if not getattr(self, key) > 0:
                raise ValueError(f"{key} {getattr(self, key)} isn't positive")
        for key in ("grasp_opening", "missed_opening"):
            if not 0.0 <= getattr(self, key) <= 1.0:
                raise ValueError(f"{key} {getattr(self, key)} isn't in [0, 1]")
