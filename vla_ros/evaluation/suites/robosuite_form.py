"""What robosuite's environments have in common with LIBERO's, which are made of them: observations and actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vla_ros.contract import Contract, StateItem, load_contract
from vla_ros.errors import ContractError, VlaRosError
from vla_ros.evaluation.suites.protocol import Moment
from vla_ros.geometry.rotations import quat_xyzw_to_matrix
from vla_ros.geometry.se3 import make_pose
from vla_ros.types import FloatArray

CAMERAS = {"base": "agentview", "wrist": "robot0_eye_in_hand"}
"""Camera of a contract -> of the environment."""

_KEYS = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")


def native_contract() -> Contract:
    """The contract of what these environments give and take."""
    return load_contract("libero")


def read_moment(observation: Mapping[str, Any], contract: Contract, is_success: bool, is_over: bool) -> Moment:
    """A moment out of an environment's observation.

    Args:
        observation: with `agentview_image` and `robot0_eye_in_hand_image` (h, w, 3), lowest row first as OpenGL has
            them; `robot0_eef_pos` (3,), m; `robot0_eef_quat` (4,), xyzw; `robot0_gripper_qpos` (2,), m.
        contract: says where the gripper's joints are closed and open.
        is_success: whether the task is done.
        is_over: whether it is the last.

    Raises:
        VlaRosError: if something is missing.
    """
    images = {name: f"{camera}_image" for name, camera in CAMERAS.items()}
    missing = sorted({*_KEYS, *images.values()} - observation.keys())
    if missing:
        raise VlaRosError(f"the environment's observation lacks {', '.join(missing)}; it has {sorted(observation)}")
    quat_xyzw = np.asarray(observation["robot0_eef_quat"], dtype=np.float64)
    R = quat_xyzw_to_matrix(quat_xyzw / np.linalg.norm(quat_xyzw))
    closed, opened = _gripper(contract).gripper_entries[0]
    finger = float(np.asarray(observation["robot0_gripper_qpos"], dtype=np.float64)[0])
    return Moment(
        images={name: np.asarray(observation[key], dtype=np.uint8) for name, key in images.items()},
        T_base_tcp=make_pose(np.asarray(observation["robot0_eef_pos"], dtype=np.float64), R),
        gripper_opening=min(1.0, max(0.0, (finger - closed) / (opened - closed))),
        is_success=is_success,
        is_over=is_over,
    )


def check_action(action: FloatArray) -> FloatArray:
    """(7,) an action that the environment takes, each entry clipped to [-1, 1] as the environment would.

    Raises:
        VlaRosError: for another shape, or numbers that aren't finite.
    """
    if np.shape(action) != (7,) or not np.isfinite(action).all():
        raise VlaRosError(f"action {np.shape(action)} isn't seven finite numbers")
    return np.asarray(np.clip(action, -1.0, 1.0))


def _gripper(contract: Contract) -> StateItem:
    for item in contract.observation.state:
        if item.kind == "gripper":
            return item
    raise ContractError(f"contract {contract.name} has no gripper in its state")
