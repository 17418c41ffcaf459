"""Encoding is the inverse of decoding, in every form that a contract can declare; refusals say why."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vla_ros.actions.decode import anchored_poses, decode_joint_chunk, decode_tool_chunk
from vla_ros.actions.encode import (
    encode_joint_chunk,
    encode_joint_positions,
    encode_tool_chunk,
    encode_tool_poses,
)
from vla_ros.actions.units import decode_gripper, encode_gripper
from vla_ros.contract import ActionSpec, action_width
from vla_ros.errors import ChunkError, ContractError
from vla_ros.geometry import se3
from vla_ros.types import ActionChunk, FloatArray, JointChunk, ToolChunk

ROTATIONS = ("rotvec", "rpy", "quat_xyzw", "rot6d", "rot6d_rows")
GRIPPERS = ("opening", "closing", "signed_opening", "signed_closing", "none")
# Poses and actions are of size one; matrices, arctangents and a cumulated chunk of eight cost some digits.
TOLERANCE = 1e-9


def tool_specs() -> list[ActionSpec]:
    """Every tool form that a contract may declare."""
    found = []
    for composition, rotation, relative_to, quantity in itertools.product(
        ("tcp", "base", "base_euler"), ROTATIONS, ("observation", "previous_step", "nothing"), ("position", "velocity")
    ):
        try:
            found.append(
                ActionSpec(
                    space="tool", composition=composition, rotation=rotation, relative_to=relative_to,
                    quantity=quantity, period_s=0.25,
                )
            )  # fmt: skip
        except ValueError:
            continue
    return found


TOOL_SPECS = tool_specs()


def random_poses(rng: np.random.Generator, count: int, turn_rad: float) -> tuple[FloatArray, FloatArray]:
    """An anchor anywhere, and poses of which each turns by at most so much from the one before."""
    R = Rotation.random(random_state=np.random.RandomState(rng.integers(2**31)))
    poses = []
    for _ in range(count + 1):
        poses.append(se3.make_pose(rng.normal(0.0, 0.5, 3), R.as_matrix()))
        axis = rng.normal(size=3)
        R = Rotation.from_rotvec(rng.uniform(0.0, turn_rad) * axis / np.linalg.norm(axis)) * R
    return poses[0], np.array(poses[1:])


@st.composite
def dressed(draw: Any, specs: list[ActionSpec], entries: int | None = None) -> ActionSpec:
    """A form with scales, gripper sense and range drawn."""
    spec = draw(st.sampled_from(specs))
    scale = st.floats(0.01, 20.0)
    changes: dict[str, Any] = {"gripper": draw(st.sampled_from(GRIPPERS))}
    if spec.space == "tool":
        changes["position_scale_m"] = draw(scale)
        changes["rotation_scale_rad"] = draw(scale) if spec.has_scaled_rotation else 1.0
    else:
        changes["joint_scale_rad"] = draw(scale)
    count = entries or (6 if spec.has_scaled_rotation else 3)
    signed = st.tuples(scale, st.sampled_from((-1.0, 1.0))).map(lambda pair: pair[0] * pair[1])
    changes["scales"] = draw(st.one_of(st.just(()), st.tuples(*[signed] * count)))
    if changes["gripper"] != "none":
        low = draw(st.floats(-2.0, 2.0))
        changes["gripper_range"] = draw(st.one_of(st.none(), scale.map(lambda width: (low, low + width))))
    return dataclasses.replace(spec, **changes)


def decode(actions: FloatArray, spec: ActionSpec, anchor: FloatArray) -> ToolChunk:
    return decode_tool_chunk(ActionChunk(actions), spec, 0, anchor, "test")


def pitch_is_far_from_a_right_angle(poses: FloatArray) -> bool:
    return bool(np.hypot(poses[:, 0, 0], poses[:, 1, 0]).min() > 0.05)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(spec=dressed(TOOL_SPECS), seed=st.integers(0, 2**32 - 1), turn_rad=st.sampled_from((0.05, 1.0, 3.0)))
def test_poses_come_back_from_their_actions_in_every_tool_form(spec: ActionSpec, seed: int, turn_rad: float) -> None:
    rng = np.random.default_rng(seed)
    anchor, poses = random_poses(rng, 8, turn_rad)
    openings = rng.uniform(0.0, 1.0, 8)
    if spec.rotation == "rpy" and not pitch_is_far_from_a_right_angle(np.concatenate([anchor[None], poses])):
        return
    if spec.rotation == "rpy" and spec.relative_to == "observation":
        deltas = se3.relative_tcp(anchor, poses) if spec.composition == "tcp" else se3.relative_base(anchor, poses)
        if spec.composition != "base_euler" and not pitch_is_far_from_a_right_angle(deltas):
            return
    try:
        actions = encode_tool_poses(poses, openings, spec, anchor)
        chunk = decode(actions, spec, anchor)
    except ChunkError as error:
        # Euler angles may leap by half a turn in a step where the pitch passes near a right angle.
        is_euler_step = spec.rotation == "rpy" and spec.relative_to == "previous_step"
        if is_euler_step and "half a turn" in str(error):
            return
        raise
    assert actions.shape == (8, action_width(spec, 0))
    np.testing.assert_allclose(anchored_poses(chunk, anchor), poses, atol=TOLERANCE)
    if spec.gripper == "none":
        assert chunk.openings is None
    else:
        np.testing.assert_allclose(chunk.openings, openings, atol=TOLERANCE)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(spec=dressed(TOOL_SPECS), seed=st.integers(0, 2**32 - 1))
def test_actions_come_back_from_their_poses_in_every_tool_form(spec: ActionSpec, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # The tool's pitch stays moderate, and turns small, so that each pose is written in one way only.
    anchor = se3.make_pose(
        rng.normal(0.0, 0.5, 3), Rotation.from_euler("xyz", [*rng.uniform(-0.5, 0.5, 2), 2.0]).as_matrix()
    )
    turns = Rotation.from_rotvec(rng.uniform(-0.05, 0.05, (8, 3)))
    written = {
        "rotvec": turns.as_rotvec(), "rpy": turns.as_euler("xyz"), "quat_xyzw": turns.as_quat(canonical=True),
        "rot6d": turns.as_matrix()[:, :, :2].swapaxes(1, 2).reshape(8, 6),
        "rot6d_rows": turns.as_matrix()[:, :2].reshape(8, 6),
    }[spec.rotation]  # fmt: skip
    entries = 6 if spec.has_scaled_rotation else 3
    units = np.array([spec.position_scale_m] * 3 + [spec.rotation_scale_rad] * (entries - 3))
    units = units * np.array(spec.scales or [1.0] * entries) * (0.25 if spec.quantity == "velocity" else 1.0)
    arm = np.concatenate([rng.normal(0.0, 0.1, (8, 3)), written], axis=1)
    arm[:, :entries] /= units
    gripper = np.zeros((8, 0)) if spec.gripper == "none" else encode_gripper(rng.uniform(0.0, 1.0, (8, 1)), spec)
    actions = np.concatenate([arm, gripper], axis=1)
    again = encode_tool_chunk(decode(actions, spec, anchor), spec, anchor).actions
    # In units of the action: 1e-9 m may be 1e-5 of an action whose unit is a tenth of a millimetre.
    np.testing.assert_allclose(again[:, :entries] * units, actions[:, :entries] * units, atol=TOLERANCE)
    np.testing.assert_allclose(again[:, entries:], actions[:, entries:], atol=1e-7)


JOINT_SPECS = [
    ActionSpec(space="joint", relative_to=relative_to, period_s=0.25, quantity=quantity)
    for relative_to, quantity in (
        ("observation", "position"), ("previous_step", "position"), ("nothing", "position"),
        ("previous_step", "velocity"),
    )
]  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(spec=dressed(JOINT_SPECS, entries=6), seed=st.integers(0, 2**32 - 1))
def test_joint_positions_and_their_actions_come_back_from_each_other(spec: ActionSpec, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, targets, openings = rng.normal(size=6), rng.normal(size=(5, 6)), rng.uniform(0.0, 1.0, 5)
    actions = encode_joint_positions(targets, openings, spec, q)
    chunk = decode_joint_chunk(ActionChunk(actions), spec, 0, q, "test")
    np.testing.assert_allclose(chunk.positions, targets, atol=TOLERANCE)
    again = encode_joint_chunk(chunk, spec, q).actions
    assert again.shape == (5, 6 + spec.has_gripper)
    np.testing.assert_allclose(again, actions, rtol=1e-9, atol=1e-7)


def test_joint_velocity_moves_by_itself_times_the_period() -> None:
    spec = ActionSpec(space="joint", relative_to="previous_step", period_s=0.2, quantity="velocity", gripper="none")
    chunk = decode_joint_chunk(ActionChunk(np.array([[1.0, -2.0], [0.5, 0.0]])), spec, 0, np.array([0.1, 0.2]), "test")
    np.testing.assert_allclose(chunk.positions, [[0.3, -0.2], [0.4, -0.2]], atol=1e-15)


def test_tool_velocity_moves_by_itself_times_the_period() -> None:
    spec = ActionSpec(
        space="tool", relative_to="previous_step", period_s=0.2, quantity="velocity", rotation="rotvec", gripper="none"
    )
    chunk = decode(np.array([[0.1, 0, 0, 0, 0, 0.5], [0.1, 0, 0, 0, 0, 0.5]]), spec, np.eye(4))
    np.testing.assert_allclose(chunk.transforms[1, :3, 3], [0.04, 0.0, 0.0], atol=1e-15)
    np.testing.assert_allclose(chunk.transforms[1, :3, :3], Rotation.from_rotvec([0, 0, 0.2]).as_matrix(), atol=1e-12)


@pytest.mark.parametrize(
    ("gripper", "ends", "value", "opening"),
    [
        ("opening", (0.0, 0.08), 0.02, 0.25),
        ("closing", (0.0, 0.8), 0.8, 0.0),
        ("closing", (0.0, 0.8), 0.2, 0.75),
        ("signed_closing", None, -1.0, 1.0),
        ("signed_closing", (-2.0, 2.0), 1.0, 0.25),
    ],
)
def test_gripper_range_has_its_ends_where_the_sense_says(
    gripper: Any, ends: tuple[float, float] | None, value: float, opening: float
) -> None:
    spec = ActionSpec(space="tool", relative_to="nothing", period_s=0.1, gripper=gripper, gripper_range=ends)
    assert decode_gripper(np.array([value]), spec)[0] == pytest.approx(opening, abs=1e-12)
    assert encode_gripper(np.array([opening]), spec)[0] == pytest.approx(value, abs=1e-12)


def test_gripper_of_a_contract_without_one_is_refused() -> None:
    spec = ActionSpec(space="tool", relative_to="nothing", period_s=0.1, gripper="none")
    with pytest.raises(ContractError, match="gripper none"):
        decode_gripper(np.zeros(1), spec)


def turning_about_x(angles_rad: FloatArray) -> FloatArray:
    return se3.make_pose(np.zeros((len(angles_rad), 3)), Rotation.from_euler("x", angles_rad[:, None]).as_matrix())


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [
        ("rotvec", lambda x: [x, 0.0, 0.0]),
        ("rpy", lambda x: [x, 0.0, 0.0]),
        ("quat_xyzw", lambda x: [np.sin(x / 2), 0.0, 0.0, np.cos(x / 2)]),
    ],
)
def test_labels_go_on_past_half_a_turn_without_a_leap(rotation: Any, expected: Any) -> None:
    spec = ActionSpec(space="tool", relative_to="observation", period_s=0.1, rotation=rotation, gripper="none")
    angles_rad = np.linspace(2.8, 5.6, 9)
    actions = encode_tool_poses(turning_about_x(angles_rad), None, spec, np.eye(4))
    np.testing.assert_allclose(actions[:, 3:], [expected(x) for x in angles_rad], atol=1e-12)


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("angle_rad", [np.pi, np.pi - 1e-4, 3.5])
def test_steps_of_half_a_turn_are_refused_both_ways(rotation: Any, angle_rad: float) -> None:
    spec = ActionSpec(space="tool", relative_to="previous_step", period_s=0.1, rotation=rotation, gripper="none")
    if angle_rad <= np.pi:
        with pytest.raises(ChunkError, match="which way can't be told"):
            encode_tool_poses(turning_about_x(np.array([0.1, 0.1 + angle_rad])), None, spec, np.eye(4))
    R = Rotation.from_euler("x", angle_rad)
    written = {
        "rotvec": [angle_rad, 0.0, 0.0], "rpy": [angle_rad, 0.0, 0.0], "quat_xyzw": R.as_quat(),
        "rot6d": R.as_matrix()[:, :2].T.ravel(), "rot6d_rows": R.as_matrix()[:2].ravel(),
    }[rotation]  # fmt: skip
    if angle_rad > np.pi and rotation not in ("rotvec", "rpy"):
        return  # Such a rotation is written as a shorter one the other way round, and nobody can tell.
    still = {"quat_xyzw": [0.0, 0, 0, 1], "rot6d": [1.0, 0, 0, 0, 1, 0], "rot6d_rows": [1.0, 0, 0, 0, 1, 0]}
    actions = np.array([[0.0, 0.0, 0.0, *turn] for turn in (still.get(rotation, [0.0] * 3), written)])
    with pytest.raises(ChunkError, match=r"step 1 turns by .* which way can't be told"):
        decode(actions, spec, np.eye(4))


def test_euler_angles_at_a_right_angle_are_refused_both_ways() -> None:
    spec = ActionSpec(
        space="tool", relative_to="observation", period_s=0.1, rotation="rpy", composition="base_euler", gripper="none"
    )
    upright = se3.make_pose(np.zeros(3), Rotation.from_euler("y", 90, degrees=True).as_matrix())
    with pytest.raises(ChunkError, match="pitch is a right angle"):
        decode(np.zeros((1, 6)), spec, upright)
    with pytest.raises(ChunkError, match="pitch is a right angle"):
        encode_tool_poses(upright[None], None, spec, np.eye(4))


def test_bounds_are_droid_s_and_robosuite_s() -> None:
    spec = ActionSpec(space="tool", relative_to="observation", period_s=0.1, rotation="rotvec", gripper="none")
    actions = np.array([[3.0, 4.0, 0.0, 0.0, 0.0, 0.5]])
    norm = decode(actions, dataclasses.replace(spec, bound="norm"), np.eye(4)).transforms[0]
    np.testing.assert_allclose(norm[:3, 3], [0.6, 0.8, 0.0], atol=1e-15)
    np.testing.assert_allclose(norm[:3, :3], Rotation.from_rotvec([0, 0, 0.5]).as_matrix(), atol=1e-12)
    each = decode(actions, dataclasses.replace(spec, bound="componentwise"), np.eye(4)).transforms[0]
    np.testing.assert_allclose(each[:3, 3], [1.0, 1.0, 0.0], atol=1e-15)
    joints = ActionSpec(space="joint", relative_to="observation", period_s=0.1, gripper="none", bound="largest")
    chunk = decode_joint_chunk(ActionChunk(np.array([[2.0, -4.0], [0.5, 0.1]])), joints, 0, np.zeros(2), "test")
    np.testing.assert_allclose(chunk.positions, [[0.5, -1.0], [0.5, 0.1]], atol=1e-15)


def test_what_cannot_be_encoded_is_refused_with_the_reason() -> None:
    tool = ActionSpec(space="tool", relative_to="nothing", period_s=0.1)
    joint = ActionSpec(space="joint", relative_to="nothing", period_s=0.1)
    poses, q = np.eye(4)[None], np.zeros(2)
    broken = 2.0 * poses
    for call, error, text in (
        (lambda: encode_tool_poses(poses, None, tool, np.eye(4)), ChunkError, "need 1 finite openings"),
        (lambda: encode_tool_poses(poses, np.full(1, np.nan), tool, np.eye(4)), ChunkError, "finite openings"),
        (lambda: encode_tool_poses(broken, np.ones(1), tool, np.eye(4)), ChunkError, "finite rigid motions"),
        (lambda: encode_tool_poses(poses[:0], np.ones(0), tool, np.eye(4)), ChunkError, "there is none"),
        (lambda: encode_tool_poses(poses, np.ones(1), joint, np.eye(4)), ContractError, "acts in joint space"),
        (lambda: encode_joint_positions(np.zeros((1, 2)), np.ones(1), tool, q), ContractError, "acts in tool space"),
        (lambda: encode_joint_positions(np.zeros((1, 3)), np.ones(1), joint, q), ChunkError, r"need \(steps, 2\)"),
        (lambda: encode_joint_positions(np.full((1, 2), np.inf), np.ones(1), joint, q), ChunkError, "aren't finite"),
        (
            lambda: encode_joint_positions(
                np.zeros((1, 2)), np.ones(1), dataclasses.replace(joint, scales=(1.0,) * 3), q
            ),
            ContractError,
            "scales has 3 entries, the action has 2",
        ),
        (lambda: decode_tool_chunk(ActionChunk(np.zeros((1, 3))), joint, 0, np.eye(4), "x"), ContractError, "joint"),
        (lambda: decode_joint_chunk(ActionChunk(np.zeros((1, 3))), tool, 0, q, "x"), ContractError, "tool"),
    ):
        with pytest.raises(error, match=text):
            call()


def test_chunk_is_encoded_against_another_anchor_than_its_own() -> None:
    spec = ActionSpec(space="tool", relative_to="observation", period_s=0.1, rotation="rotvec", gripper="none")
    own = se3.make_pose(np.array([0.4, 0.0, 0.3]))
    chunk = ToolChunk(0, "base", se3.make_pose(np.array([[0.02, 0.0, 0.0]])), None, np.array([0.1]), "test", own)
    later = se3.make_pose(np.array([0.41, 0.0, 0.3]))
    np.testing.assert_allclose(encode_tool_chunk(chunk, spec, later).actions, [[0.01, 0, 0, 0, 0, 0]], atol=1e-12)
    joints = JointChunk(0, np.array([[0.3]]), None, np.array([0.1]), "test")
    bare = ActionSpec(space="joint", relative_to="observation", period_s=0.1, gripper="none")
    np.testing.assert_allclose(encode_joint_chunk(joints, bare, np.array([0.1])).actions, [[0.2]], atol=1e-15)
