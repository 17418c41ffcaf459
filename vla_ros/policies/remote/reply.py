"""Whether actions that came over a wire may be executed. What fails here never leaves the policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_ros.actions.units import units
from vla_ros.contract import ROTATION_WIDTH, ActionSpec
from vla_ros.policies.remote.errors import Fault, RemoteReplyError
from vla_ros.policies.remote.fields import as_float64
from vla_ros.types import FloatArray

_TURN = 2.0 * math.pi
# Rotations in other forms have entries of at most 1; a network's are near it.
_ROTATION_ENTRY = 2.0
# A gripper's command may overshoot its range by so much of it, as regressed ones do; it is clipped when it is decoded.
_GRIPPER_SLACK = 0.5


@dataclass(frozen=True)
class ReplyLimits:
    """What actions a reply may hold.

    Attributes:
        horizon_min: fewest steps.
        horizon_max: most steps.
        action_width: numbers a step; null: as the contract says, which for joints is what the first reply has.
        max_move_m: longest position or displacement of the tool in one entry.
        max_joint_rad: largest entry of a joint action.
    """

    horizon_min: int = 1
    horizon_max: int = 200
    action_width: int | None = None
    max_move_m: float = 2.0
    max_joint_rad: float = 2.0 * _TURN

    def __post_init__(self) -> None:
        if not 1 <= self.horizon_min <= self.horizon_max:
            raise ValueError(f"horizon_min {self.horizon_min} and horizon_max {self.horizon_max}: 1 <= min <= max")


class ReplyChecker:
    """Checks replies against a contract.

    Args:
        spec: what the actions mean.
        limits: of the user's.
    """

    def __init__(self, spec: ActionSpec, limits: ReplyLimits) -> None:
        self._limits = limits
        self._width = limits.action_width
        if spec.space == "tool":
            self._width = 3 + ROTATION_WIDTH[spec.rotation] + (spec.gripper != "none")
        self._spec = spec
        self._bounds: FloatArray | None = None

    def check(self, actions: Any) -> FloatArray:
        """The actions as float64, once they are what the contract means.

        Args:
            actions: whatever the reply held.

        Raises:
            RemoteReplyError: named `type`, `dtype`, `shape`, `horizon`, `not_finite` or `magnitude`.
        """
        if not isinstance(actions, np.ndarray):
            raise RemoteReplyError("type", f"actions are a {type(actions).__name__}, not an array")
        if actions.dtype.kind != "f":
            raise RemoteReplyError("dtype", f"actions are {actions.dtype}, needs floats")
        if actions.ndim != 2 or self._width not in (None, actions.shape[1]) or actions.shape[1] == 0:
            width = "any" if self._width is None else self._width
            raise RemoteReplyError("shape", f"actions have shape {actions.shape}, the contract means (steps, {width})")
        if not self._limits.horizon_min <= len(actions) <= self._limits.horizon_max:
            allowed = f"{self._limits.horizon_min} to {self._limits.horizon_max}"
            raise RemoteReplyError("horizon", f"actions have {len(actions)} steps, allowed {allowed}")
        values = as_float64(actions)
        bounds = self._entry_bounds(values.shape[1])
        sizes = np.abs(values)
        # What isn't a number is within no bounds either.
        if not (sizes <= bounds).all():
            is_finite = np.isfinite(values)
            if not is_finite.all():
                raise _refusal(~is_finite, values, "not_finite", "finite numbers")
            raise _refusal(sizes > bounds, values, "magnitude", f"at most {bounds.round(3).tolist()} in size")
        self._width = values.shape[1]
        return values

    def _entry_bounds(self, width: int) -> FloatArray:
        if self._bounds is None or len(self._bounds) != width:
            self._bounds = _entry_bounds(self._spec, self._limits, width)
        return self._bounds


def _refusal(is_wrong: Any, values: FloatArray, fault: Fault, needed: str) -> RemoteReplyError:
    step, entry = np.argwhere(is_wrong)[0]
    text = f"actions: step {step}, entry {entry} is {values[step, entry]:.6g}, needs {needed}"
    return RemoteReplyError(fault, text)


def _entry_bounds(spec: ActionSpec, limits: ReplyLimits, width: int) -> FloatArray:
    """(width,) largest size of each entry of a step.

    Raises:
        ContractError: if the contract's scales don't fit that many entries.
    """
    arm = width - spec.has_gripper
    bounds = np.full(width, limits.max_joint_rad)
    scaled = arm
    if spec.space == "tool":
        bounds[:3] = limits.max_move_m
        bounds[3:] = _TURN if spec.has_scaled_rotation else _ROTATION_ENTRY
        scaled = arm if spec.has_scaled_rotation else 3
    # What the contract bounds itself is none the less nonsense beyond all measure.
    bounds[:scaled] = bounds[:scaled] / np.abs(units(spec, scaled))
    if spec.has_gripper:
        ends = np.abs(spec.gripper_ends)
        bounds[-1] = ends.max() + _GRIPPER_SLACK * abs(spec.gripper_ends[1] - spec.gripper_ends[0])
    return bounds
