"""From a policy's numbers to SI units and openings, and back: bounds, scales, velocities, the gripper's ends."""

from __future__ import annotations

import numpy as np

from vla_ros.contract import ActionSpec
from vla_ros.errors import ContractError
from vla_ros.types import FloatArray

# At half a turn the direction of a step can't be told; nearer than this, rounding decides it.
_HALF_TURN_MARGIN_RAD = 1e-3


def apply_bound(actions: FloatArray, spec: ActionSpec) -> FloatArray:
    """(h, d) entries of the arm's part that scales apply to, as the contract bounds them before it scales them.

    Source: DROID, `RobotIKSolver.cartesian_velocity_to_delta` and `joint_velocity_to_delta`, for `norm` and `largest`.
    """
    if spec.bound == "componentwise":
        return np.clip(actions, -1.0, 1.0)
    if spec.bound == "norm":
        return np.concatenate([_shortened(actions[:, :3]), _shortened(actions[:, 3:])], axis=1)
    if spec.bound == "largest":
        return actions / np.maximum(1.0, np.abs(actions).max(axis=1, keepdims=True))
    return actions


def units(spec: ActionSpec, entries: int) -> FloatArray:
    """(entries,) metres or rad that 1 means in each scaled entry of the arm's part; of a velocity, in one period.

    Raises:
        ContractError: if `spec.scales` has another length.
    """
    if spec.scales and len(spec.scales) != entries:
        raise ContractError(f"the contract's scales has {len(spec.scales)} entries, the action has {entries}; mend it")
    if spec.space == "joint":
        values = np.full(entries, spec.joint_scale_rad)
    else:
        values = np.array([spec.position_scale_m] * 3 + [spec.rotation_scale_rad] * (entries - 3))
    if spec.scales:
        values = values * np.array(spec.scales)
    return values * spec.period_s if spec.quantity == "velocity" else values


def decode_gripper(values: FloatArray, spec: ActionSpec) -> FloatArray:
    """A gripper column in the contract's sense and range to openings in [0, 1].

    Raises:
        ContractError: if the contract leaves the gripper alone.
    """
    closed, opened = _ends(spec)
    return np.clip((values - closed) / (opened - closed), 0.0, 1.0)


def encode_gripper(openings: FloatArray, spec: ActionSpec) -> FloatArray:
    """Openings in [0, 1] to a gripper column: the inverse of `decode_gripper`."""
    closed, opened = _ends(spec)
    return closed + np.clip(openings, 0.0, 1.0) * (opened - closed)


def find_half_turn(angles_rad: FloatArray) -> int | None:
    """Index of the first step of half a turn or more, whose direction can't be told; None if there is none."""
    found = np.flatnonzero(angles_rad > np.pi - _HALF_TURN_MARGIN_RAD)
    return int(found[0]) if found.size else None


def _ends(spec: ActionSpec) -> tuple[float, float]:
    if not spec.has_gripper:
        raise ContractError("the contract leaves the gripper alone (gripper none): there is no column to read or write")
    return spec.gripper_ends


def _shortened(vectors: FloatArray) -> FloatArray:
    return vectors / np.maximum(1.0, np.linalg.norm(vectors, axis=1, keepdims=True))
