"""The state vector that a contract asks for, out of what the arm measures."""

from __future__ import annotations

import numpy as np

from vla_ros.contract import ObservationSpec, StateItem
from vla_ros.errors import SensorError
from vla_ros.geometry.rotation_forms import FROM_MATRIX, nearest_rotvec
from vla_ros.types import FloatArray, RobotState


def write_state(
    spec: ObservationSpec, state: RobotState, T_base_tcp: FloatArray, commanded_opening: float | None
) -> tuple[FloatArray, dict[str, slice]]:
    """The state vector and where its items lie.

    Args:
        spec: the items, in order.
        state: of the arm.
        T_base_tcp: (4, 4) pose of the tcp in that state.
        commanded_opening: what the gripper was told last, None where it hasn't been told anything.

    Raises:
        SensorError: if an item needs the gripper's opening and nobody knows it.
    """
    parts: list[FloatArray] = []
    layout, start = {}, 0
    for item in spec.state:
        part = _write_item(item, state, T_base_tcp, commanded_opening)
        layout[str(item.kind)] = slice(start, start + len(part))
        start += len(part)
        parts.append(part)
    return np.concatenate([np.zeros(0), *parts]), layout


def _write_item(
    item: StateItem, state: RobotState, T_base_tcp: FloatArray, commanded_opening: float | None
) -> FloatArray:
    if item.kind == "tcp_pose":
        rotation = FROM_MATRIX[item.rotation](T_base_tcp[:3, :3])
        if item.near_rotvec_rad is not None:
            rotation = nearest_rotvec(rotation, np.array(item.near_rotvec_rad))
        return np.concatenate([T_base_tcp[:3, 3] - item.origin_m, rotation])
    if item.kind == "joint_positions":
        return state.positions
    if item.kind == "joint_velocities":
        return state.velocities
    is_commanded = item.kind == "gripper_command" and commanded_opening is not None
    opening = commanded_opening if is_commanded else state.gripper_opening
    if opening is None:
        raise SensorError("the gripper's opening is unknown; is gripper/state published?")
    return np.array([closed + opening * (opened - closed) for closed, opened in item.gripper_entries])
