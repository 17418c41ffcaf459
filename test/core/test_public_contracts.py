"""Contracts of public conventions, against numbers worked by hand from their sources (named in each YAML file)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_ros.actions.decode import anchored_poses, decode_joint_chunk, decode_tool_chunk, place_in_time
from vla_ros.actions.encode import encode_joint_positions, encode_tool_poses
from vla_ros.config import config_names
from vla_ros.contract import action_width, find_mismatches, load_contract, load_rig, save_contract, state_width
from vla_ros.geometry.se3 import make_pose
from vla_ros.observation.image import prepare_frame
from vla_ros.observation.state_vector import write_state
from vla_ros.types import ActionChunk, CameraFrame, FloatArray, JointChunk, RobotState, ToolChunk

PUBLIC = ("openvla_bridge", "libero", "droid_tool", "droid_joint", "aloha_joints")
# A tool that points straight down, and one turned by a quarter about base z besides.
DOWN = make_pose(np.array([0.4, 0.1, 0.3]), np.diag([1.0, -1.0, -1.0]))


def rpy(*angles_rad: float) -> FloatArray:
    return Rotation.from_euler("xyz", angles_rad).as_matrix()


def decode_tool(name: str, actions: Any, anchor: FloatArray = DOWN) -> tuple[ToolChunk, FloatArray]:
    chunk = decode_tool_chunk(ActionChunk(np.array(actions, float)), load_contract(name).action, 0, anchor, "test")
    return chunk, anchored_poses(chunk, anchor)


def decode_joints(name: str, actions: Any, q: FloatArray) -> JointChunk:
    return decode_joint_chunk(ActionChunk(np.array(actions, float)), load_contract(name).action, 0, q, "test")


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("rig", config_names("rigs"))
def test_public_contracts_fit_the_shipped_rigs(name: str, rig: str) -> None:
    assert find_mismatches(load_rig(rig), load_contract(name)) == []


def test_a_contract_is_called_what_its_file_is_called_and_no_two_are_the_same() -> None:
    contracts = [load_contract(name) for name in config_names("contracts")]
    assert [contract.name for contract in contracts] == config_names("contracts")
    assert len({contract.interface_hash for contract in contracts}) == len(contracts)
    assert set(PUBLIC) <= set(config_names("contracts"))


@pytest.mark.parametrize(
    ("name", "state", "action"),
    [("openvla_bridge", 0, 7), ("libero", 8, 7), ("droid_tool", 7, 7), ("droid_joint", 8, 8), ("aloha_joints", 7, 7)],
)
def test_widths_are_those_of_the_published_policies(name: str, state: int, action: int) -> None:
    # DROID has seven joints, an ALOHA arm six.
    contract, joints = load_contract(name), 6 if name == "aloha_joints" else 7
    assert (state_width(contract.observation, joints), action_width(contract.action, joints)) == (state, action)


@pytest.mark.parametrize("name", config_names("contracts"))
def test_contract_that_is_saved_is_the_same_when_it_is_loaded(name: str, tmp_path: Path) -> None:
    contract = load_contract(name)
    save_contract(contract, tmp_path / "contract.yaml")
    assert load_contract(str(tmp_path / "contract.yaml")) == contract


# OpenVLA on Bridge


def test_bridge_adds_euler_angles_one_by_one_and_1_is_open() -> None:
    anchor = make_pose(np.array([0.3, 0.1, 0.2]), rpy(0.1, 0.2, 3.1))
    chunk, poses = decode_tool("openvla_bridge", [[0.01, -0.02, 0.005, 0.05, -0.02, 0.08, 1.0]], anchor)
    np.testing.assert_allclose(poses[0], make_pose(np.array([0.31, 0.08, 0.205]), rpy(0.15, 0.18, 3.18)), atol=1e-12)
    np.testing.assert_array_equal(chunk.openings, [1.0])


def test_bridge_labels_are_differences_of_measured_states() -> None:
    spec = load_contract("openvla_bridge").action
    assert spec.label == "measured_next"
    states = np.array([[0.30, 0.10, 0.20, 0.1, 0.2, 0.3], [0.31, 0.08, 0.205, 0.15, 0.18, 0.38],
                       [0.31, 0.07, 0.210, 0.10, 0.20, 0.40]])  # fmt: skip
    poses = make_pose(states[:, :3], Rotation.from_euler("xyz", states[:, 3:]).as_matrix())
    actions = encode_tool_poses(poses[1:], np.array([1.0, 0.0]), spec, poses[0])
    # state[t+1, :6] - state[t, :6], as in relabel_bridge_actions.
    np.testing.assert_allclose(actions[:, :6], states[1:] - states[:-1], atol=1e-12)
    np.testing.assert_array_equal(actions[:, 6], [1.0, 0.0])


def test_bridge_step_is_carried_out_in_the_fifth_of_a_second_after_it_arrives() -> None:
    chunk, _ = decode_tool("openvla_bridge", np.zeros((1, 7)), make_pose(np.zeros(3), rpy(0.0, 0.2, 0.0)))
    arrived = place_in_time(chunk, load_contract("openvla_bridge").action, 170_000_000)
    np.testing.assert_allclose(arrived.time_from_start_s, [0.37])


# LIBERO


def test_libero_one_is_5_cm_and_half_a_radian_along_base_axes_and_minus_one_is_open() -> None:
    chunk, poses = decode_tool("libero", [[1.0, 0.0, -1.0, 0.0, 0.0, 1.0, -1.0], [0.0] * 6 + [1.0]])
    # R = Rz(0.5) Rx(pi): base z, though the tool points down.
    expected = make_pose(np.array([0.45, 0.1, 0.25]), Rotation.from_rotvec([0, 0, 0.5]).as_matrix() @ DOWN[:3, :3])
    np.testing.assert_allclose(poses, [expected, expected], atol=1e-12)
    np.testing.assert_array_equal(chunk.openings, [1.0, 0.0])
    np.testing.assert_allclose(chunk.time_from_start_s, [0.05, 0.1])


def test_libero_clips_entries_to_one_as_robosuite_does() -> None:
    _, poses = decode_tool("libero", [[3.0, -0.5, 0.0, 0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(poses[0, :3, 3], [0.45, 0.075, 0.3], atol=1e-12)


@pytest.mark.parametrize("tilt_rad", [-0.2, 0.2])
def test_libero_state_is_position_axis_angle_and_two_fingers(tilt_rad: float) -> None:
    T = make_pose(np.array([0.4, 0.1, 0.3]), Rotation.from_rotvec([np.pi + tilt_rad, 0.0, 0.0]).as_matrix())
    measured = RobotState(0, np.zeros(7), np.zeros(7), 0.75)
    state, _ = write_state(load_contract("libero").observation, measured, T, None)
    np.testing.assert_allclose(state, [0.4, 0.1, 0.3, np.pi + tilt_rad, 0.0, 0.0, 0.03, -0.03], atol=1e-9)


def test_libero_images_are_turned_by_half_a_turn() -> None:
    image = np.arange(256 * 256 * 3, dtype=np.int64).reshape(256, 256, 3) % 251
    spec = load_contract("libero").observation.images["image"]
    got = prepare_frame(CameraFrame(0, image.astype(np.uint8)), spec).image
    plain = prepare_frame(
        CameraFrame(0, np.ascontiguousarray(image.astype(np.uint8)[::-1, ::-1])), type(spec)("base", 224, 224)
    )
    np.testing.assert_array_equal(got, plain.image)


# DROID


def test_droid_tool_velocity_is_a_step_shortened_to_length_one() -> None:
    chunk, poses = decode_tool(
        "droid_tool",
        [[0.3, 0.4, 0.0, 0.0, 0.0, 0.0, 1.0], [3.0, 4.0, 0.0, 0.0, 0.0, 2.0, 0.25]],
    )
    # Half of 0.075 m along (0.6, 0.8), then all of it and 0.15 rad about base z.
    np.testing.assert_allclose(poses[0], make_pose(np.array([0.4225, 0.13, 0.3]), DOWN[:3, :3]), atol=1e-12)
    expected = make_pose(np.array([0.4675, 0.19, 0.3]), rpy(0.0, 0.0, 0.15) @ DOWN[:3, :3])
    np.testing.assert_allclose(poses[1], expected, atol=1e-12)
    np.testing.assert_allclose(chunk.openings, [0.0, 0.75])
    np.testing.assert_allclose(chunk.time_from_start_s, [1 / 15, 2 / 15])


def test_droid_rotation_is_in_euler_angles_composed_from_the_left() -> None:
    anchor = make_pose(np.zeros(3), rpy(0.4, -0.3, 1.0))
    _, poses = decode_tool("droid_tool", [[0.0, 0.0, 0.0, 0.5, -0.4, 0.6, 0.0]], anchor)
    # As in add_angles: Euler angles to a rotation, times the one before.
    expected = Rotation.from_euler("xyz", [0.075, -0.06, 0.09]) * Rotation.from_euler("xyz", [0.4, -0.3, 1.0])
    np.testing.assert_allclose(poses[0, :3, :3], expected.as_matrix(), atol=1e-12)


def test_droid_joint_velocity_is_a_step_scaled_by_its_largest() -> None:
    q = np.array([0.1, 0.2, 0.3, -1.0, 0.5, 1.5, 0.7])
    chunk = decode_joints("droid_joint", [[0.5, -1.0, 0.0, 0, 0, 0, 0.1, 1.0], [0.5, -2.0, 1.0, 0, 0, 0, 0.0, 0.0]], q)
    steps = np.array([[0.1, -0.2, 0.0, 0, 0, 0, 0.02], [0.15, -0.4, 0.1, 0, 0, 0, 0.02]])
    np.testing.assert_allclose(chunk.positions, q + steps, atol=1e-12)
    np.testing.assert_array_equal(chunk.openings, [0.0, 1.0])
    again = encode_joint_positions(chunk.positions, chunk.openings, load_contract("droid_joint").action, q)
    np.testing.assert_allclose(again[1], [0.25, -1.0, 0.5, 0, 0, 0, 0.0, 0.0], atol=1e-12)


@pytest.mark.parametrize("name", ["droid_tool", "droid_joint"])
def test_droid_gripper_state_is_1_when_closed(name: str) -> None:
    measured = RobotState(0, np.arange(7.0), np.zeros(7), 0.25)
    state, layout = write_state(load_contract(name).observation, measured, DOWN, None)
    np.testing.assert_allclose(state[layout["gripper"]], [0.75])
    expected = [0.4, 0.1, 0.3, np.pi, 0.0, 0.0] if name == "droid_tool" else np.arange(7.0)
    np.testing.assert_allclose(state[:-1], expected, atol=1e-12)


# ALOHA


def test_aloha_joints_are_absolute_at_50_hz_from_the_observation_on() -> None:
    chunk = decode_joints(
        "aloha_joints", [[0, -0.96, 1.16, 0, -0.3, 0, 0.2], [0.1, -0.9, 1.1, 0, -0.2, 0, 1.0]], np.full(6, 9.0)
    )
    np.testing.assert_array_equal(chunk.positions, [[0, -0.96, 1.16, 0, -0.3, 0], [0.1, -0.9, 1.1, 0, -0.2, 0]])
    np.testing.assert_allclose(chunk.openings, [0.2, 1.0])
    np.testing.assert_allclose(chunk.time_from_start_s, [0.0, 0.02])
