"""Decoding of every action form to the wire form, against numbers worked by hand and against each other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_ros.actions.decode import anchored_poses, decode_gripper, decode_joint_chunk, decode_tool_chunk, place_in_time
from vla_ros.contract import ActionSpec
from vla_ros.errors import ChunkError
from vla_ros.geometry import rotations, se3
from vla_ros.types import ActionChunk

SPEC = ActionSpec(space="tool", relative_to="observation", period_s=0.1, rotation="rotvec")
# The design's example: an anchor turned by a quarter about z.
ANCHOR = se3.make_pose(np.array([0.4, 0.0, 0.3]), Rotation.from_euler("z", 90, degrees=True).as_matrix())


def decoded_poses(actions: np.ndarray, **changes: object) -> np.ndarray:
    spec = dataclasses.replace(SPEC, **changes)
    chunk = decode_tool_chunk(ActionChunk(np.atleast_2d(actions)), spec, 0, ANCHOR, "test")
    return anchored_poses(chunk, ANCHOR)


@pytest.mark.parametrize(("composition", "p"), [("tcp", [0.4, 0.01, 0.3]), ("base", [0.41, 0.0, 0.3])])
def test_design_example_decodes_to_its_pose(composition: str, p: list[float]) -> None:
    T = decoded_poses(np.array([0.01, 0, 0, 0, 0, np.radians(10), 1.0]), composition=composition)[0]
    np.testing.assert_allclose(T[:3, 3], p, atol=1e-15)
    np.testing.assert_allclose(rotations.matrix_to_rotvec(T[:3, :3]), [0, 0, np.radians(100)], atol=1e-12)


def test_euler_angles_are_added_componentwise() -> None:
    action = np.array([0.0, 0, 0, 0.1, 0.2, 0.3, 1.0])
    T = decoded_poses(action, composition="base_euler", rotation="rpy")[0]
    expected = Rotation.from_euler("xyz", [0.1, 0.2, np.pi / 2 + 0.3]).as_matrix()
    np.testing.assert_allclose(T[:3, :3], expected, atol=1e-12)
    # Which isn't what composing the rotations gives.
    assert not np.allclose(decoded_poses(action, composition="base", rotation="rpy")[0][:3, :3], expected)


@pytest.mark.parametrize("composition", ["tcp", "base"])
def test_step_deltas_accumulate_like_single_steps(composition: str) -> None:
    rng = np.random.default_rng(0)
    steps = np.hstack([rng.normal(0, 0.02, (6, 3)), rng.normal(0, 0.2, (6, 3)), np.ones((6, 1))])
    got = decoded_poses(steps, composition=composition, relative_to="previous_step")
    T = ANCHOR
    compose = se3.compose_tcp if composition == "tcp" else se3.compose_base
    for step, pose in zip(steps, got, strict=True):
        T = compose(T, se3.make_pose(step[:3], Rotation.from_rotvec(step[3:6]).as_matrix()))
        np.testing.assert_allclose(pose, T, atol=1e-12)


@pytest.mark.parametrize(
    ("rotation", "write"),
    [
        ("rotvec", lambda r: r.as_rotvec()),
        ("rpy", lambda r: r.as_euler("xyz")),
        ("quat_xyzw", lambda r: -r.as_quat()),
        ("rot6d", lambda r: r.as_matrix()[:, :2].T.ravel()),
        ("rot6d_rows", lambda r: r.as_matrix()[:2].ravel()),
    ],
)
def test_rotation_forms_mean_the_same(rotation: str, write: object) -> None:
    R = Rotation.from_euler("xyz", [0.3, -0.5, 2.0])
    action = np.concatenate([[0.1, 0.2, 0.3], write(R), [0.5]])  # type: ignore[operator]
    T = decoded_poses(action, rotation=rotation, relative_to="nothing")[0]
    np.testing.assert_allclose(T, se3.make_pose(np.array([0.1, 0.2, 0.3]), R.as_matrix()), atol=1e-12)


def test_scales_are_libero_s() -> None:
    # LIBERO: 1 is 0.05 m and 0.5 rad.
    T = decoded_poses(np.array([1.0, 0, -1, 0, 0, 1, 1]), position_scale_m=0.05, rotation_scale_rad=0.5)[0]
    np.testing.assert_allclose(T[:3, 3] - ANCHOR[:3, 3], [0.05, 0, -0.05], atol=1e-15)
    np.testing.assert_allclose(rotations.matrix_to_rotvec(T[:3, :3]), [0, 0, np.pi / 2 + 0.5], atol=1e-12)


@pytest.mark.parametrize(
    ("gripper", "value", "opening"),
    [
        ("opening", 1.0, 1.0),
        ("opening", 0.25, 0.25),
        ("closing", 1.0, 0.0),
        ("signed_opening", -1.0, 0.0),
        ("signed_opening", 0.0, 0.5),
        ("signed_closing", -1.0, 1.0),
        ("opening", 1.7, 1.0),
        ("closing", 1.7, 0.0),
    ],
)
def test_gripper_senses(gripper: str, value: float, opening: float) -> None:
    spec = dataclasses.replace(SPEC, gripper=gripper)
    assert decode_gripper(np.array([value]), spec)[0] == opening


@pytest.mark.parametrize("offset", [0, 1])
def test_first_action_is_due_where_the_contract_says(offset: int) -> None:
    spec = dataclasses.replace(SPEC, first_action_offset_steps=offset)
    chunk = decode_tool_chunk(ActionChunk(np.zeros((3, 7))), spec, 5, ANCHOR, "test")
    np.testing.assert_allclose(chunk.time_from_start_s, 0.1 * np.arange(offset, offset + 3))
    assert chunk.stamp_ns == 5


@pytest.mark.parametrize(
    ("actions", "text"),
    [
        (np.zeros((4, 6)), r"shape \(4, 6\); the contract means \(steps, 7\)"),
        (np.zeros((0, 7)), r"shape \(0, 7\)"),
        (np.zeros(7), r"shape \(7,\)"),
        (np.array([[0, 0, np.nan, 0, 0, 0, 1.0]]), "step 0, entry 2 is nan"),
        (np.array([[0, 0, 0, 0, np.inf, 0, 1.0]]), "step 0, entry 4 is inf"),
    ],
)
def test_bad_actions_are_refused_by_name(actions: np.ndarray, text: str) -> None:
    with pytest.raises(ChunkError, match=text):
        decode_tool_chunk(ActionChunk(actions), SPEC, 0, ANCHOR, "test")


def test_six_numbers_that_are_no_rotation_are_refused() -> None:
    with pytest.raises(ChunkError, match="isn't a rotation"):
        decoded_poses(np.zeros(10), rotation="rot6d")


def test_joint_chunk_forms() -> None:
    q = np.array([0.1, -0.2])
    actions = np.array([[0.1, 0.0, 1.0], [0.1, 0.1, 0.0]])
    spec = ActionSpec(space="joint", relative_to="observation", period_s=0.05)
    for relative_to, expected in (
        ("observation", [[0.2, -0.2], [0.2, -0.1]]),
        ("previous_step", [[0.2, -0.2], [0.3, -0.1]]),
        ("nothing", [[0.1, 0.0], [0.1, 0.1]]),
    ):
        chunk = decode_joint_chunk(
            ActionChunk(actions), dataclasses.replace(spec, relative_to=relative_to), 0, q, "test"
        )
        np.testing.assert_allclose(chunk.positions, expected, atol=1e-15)
        np.testing.assert_array_equal(chunk.openings, [1.0, 0.0])


def test_points_stay_at_their_times_or_wait_for_the_answer() -> None:
    chunk = decode_tool_chunk(ActionChunk(np.zeros((3, 7))), SPEC, 1_000_000_000, ANCHOR, "test")
    late_ns = 1_250_000_000
    np.testing.assert_allclose(place_in_time(chunk, SPEC, late_ns).time_from_start_s, [0.1, 0.2, 0.3])
    on_arrival = dataclasses.replace(SPEC, timing="on_arrival")
    np.testing.assert_allclose(place_in_time(chunk, on_arrival, late_ns).time_from_start_s, [0.35, 0.45, 0.55])
    with pytest.raises(ChunkError, match=r"an observation 1\.500 s old \(limit 1\.0 s"):
        place_in_time(chunk, SPEC, 2_500_000_000)
