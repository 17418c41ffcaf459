"""A stream of poses from a phone or a VR controller, and its clutch: whether they can be relied upon."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vla_ros.geometry import se3
from vla_ros.teleop.config import PoseConfig
from vla_ros.teleop.operator_input import OperatorInput
from vla_ros.types import FloatArray


@dataclass(frozen=True)
class PoseStreamState:
    """What came last; times are of any steady clock.

    Attributes:
        T_track_hand: (4, 4), None before the first.
        pose_s: when it came.
        is_clutched: what the clutch says.
        clutch_s: when it said so; None where it is a parameter, which doesn't grow old.
        fault: what was wrong with the stream; nothing is held until the clutch is let go.
    """

    T_track_hand: FloatArray | None = None
    pose_s: float = 0.0
    is_clutched: bool = False
    clutch_s: float | None = None
    fault: str = ""


def take_pose(state: PoseStreamState, T_track_hand: FloatArray, now_s: float, config: PoseConfig) -> PoseStreamState:
    """Takes a pose; one that leaps, or is none, is the tracker's fault while the clutch is held."""
    if not se3.is_pose(T_track_hand):
        return replace(state, fault="a pose isn't a finite rigid motion")
    fault, before = state.fault, state.T_track_hand
    if before is not None and now_s - state.pose_s <= config.timeout_s:
        leap_m = float(np.linalg.norm(T_track_hand[:3, 3] - before[:3, 3]))
        if leap_m > config.max_jump_m:
            fault = f"the pose leapt by {leap_m:.2f} m (limit {config.max_jump_m} m)"
    if not state.is_clutched:
        fault = ""
    return replace(state, T_track_hand=T_track_hand, pose_s=now_s, fault=fault)


def take_clutch(state: PoseStreamState, is_clutched: bool, now_s: float | None) -> PoseStreamState:
    """Takes what the clutch says; `now_s` is None for a parameter."""
    return replace(state, is_clutched=is_clutched, clutch_s=now_s, fault=state.fault if is_clutched else "")


def read(
    state: PoseStreamState, now_s: float, config: PoseConfig, topic: str, commands: tuple[str, ...] = ()
) -> OperatorInput:
    """What the operator says by the hand.

    Args:
        state: of the two above.
        now_s: on the same clock.
        config: time-outs.
        topic: of the poses, for the text.
        commands: pressed since the last time.
    """
    if state.T_track_hand is None:
        return OperatorInput(commands=commands, problem=f"nothing on {topic} yet; does the phone or headset stream?")
    silence_s = now_s - state.pose_s
    if silence_s > config.timeout_s:
        problem = f"nothing on {topic} for {silence_s:.1f} s (limit {config.timeout_s:g} s)"
        return OperatorInput(commands=commands, problem=problem)
    if state.fault:
        problem = f"{topic}: {state.fault}; let go of the clutch and take hold anew"
        return OperatorInput(commands=commands, problem=problem)
    clutch_age_s = 0.0 if state.clutch_s is None else now_s - state.clutch_s
    is_old = 0.0 < config.clutch_timeout_s < clutch_age_s
    is_held = state.is_clutched and not is_old
    return OperatorInput(is_held=is_held, T_track_hand=state.T_track_hand, commands=commands)
