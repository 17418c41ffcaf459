"""Poses: group axioms and the compositions of docs/design.md, section 4."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_ros.geometry import rotations, se3


def random_poses(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return se3.make_pose(rng.normal(size=(count, 3)), Rotation.random(count, random_state=seed).as_matrix())


def test_worked_example_of_the_design() -> None:
    anchor = se3.make_pose(np.array([0.4, 0.0, 0.3]), rotations.rotvec_to_matrix(np.array([0.0, 0.0, np.pi / 2])))
    delta = se3.make_pose(np.array([0.01, 0.0, 0.0]), rotations.rotvec_to_matrix(np.radians([0.0, 0.0, 10.0])))
    tcp, base = se3.compose_tcp(anchor, delta), se3.compose_base(anchor, delta)
    euler = se3.compose_base_euler(anchor, np.array([0.01, 0.0, 0.0, 0.0, 0.0, np.radians(10.0)]))
    np.testing.assert_allclose(tcp[:3, 3], [0.4, 0.01, 0.3], atol=1e-15)
    np.testing.assert_allclose(base[:3, 3], [0.41, 0.0, 0.3], atol=1e-15)
    np.testing.assert_allclose(euler[:3, 3], [0.41, 0.0, 0.3], atol=1e-15)
    for T in (tcp, base, euler):
        np.testing.assert_allclose(rotations.matrix_to_rotvec(T[:3, :3]), np.radians([0.0, 0.0, 100.0]), atol=1e-12)


def test_inverse_undoes() -> None:
    T = random_poses(100, 0)
    np.testing.assert_allclose(T @ se3.invert(T), np.broadcast_to(np.eye(4), T.shape), atol=1e-12)


@pytest.mark.parametrize("frame", ["tcp", "base"])
def test_relative_is_undone_by_compose(frame: str) -> None:
    anchor, target = random_poses(100, 1), random_poses(100, 2)
    relative, compose = getattr(se3, f"relative_{frame}"), getattr(se3, f"compose_{frame}")
    np.testing.assert_allclose(compose(anchor, relative(anchor, target)), target, atol=1e-12)


def test_compositions_part_where_axes_do() -> None:
    """By hand: the tool looks along base's y (yaw 90), and the delta tilts by 90 about x and moves 1 m along it."""
    anchor = se3.make_pose(np.zeros(3), rotations.rpy_to_matrix(np.radians([0.0, 0.0, 90.0])))
    delta = se3.make_pose(np.array([1.0, 0.0, 0.0]), rotations.rpy_to_matrix(np.radians([90.0, 0.0, 0.0])))
    tcp, base = se3.compose_tcp(anchor, delta), se3.compose_base(anchor, delta)
    euler = se3.compose_base_euler(anchor, np.array([1.0, 0.0, 0.0, 0.5 * np.pi, 0.0, 0.0]))
    np.testing.assert_allclose(tcp[:3], [[0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 0]], atol=1e-15)
    np.testing.assert_allclose(base[:3], [[0, -1, 0, 1], [0, 0, -1, 0], [1, 0, 0, 0]], atol=1e-15)
    # Roll 90, yaw 90: about fixed axes the roll comes first, which is the tcp's turn and base's move.
    np.testing.assert_allclose(euler[:3, :3], tcp[:3, :3], atol=1e-15)
    np.testing.assert_allclose(euler[:3, 3], [1.0, 0.0, 0.0], atol=1e-15)


@pytest.mark.parametrize("delta_rpy_deg", [[10.0, -20.0, 30.0], [170.0, 10.0, -175.0], [0.0, 0.0, 0.0]])
def test_euler_delta_is_added_angle_by_angle(delta_rpy_deg: list[float]) -> None:
    rpy = np.radians([[20.0, 30.0, 170.0], [-170.0, -40.0, -10.0]])
    anchor = se3.make_pose(np.ones((2, 3)), Rotation.from_euler("xyz", rpy).as_matrix())
    delta = np.concatenate([[0.1, 0.2, 0.3], np.radians(delta_rpy_deg)])
    target = se3.compose_base_euler(anchor, delta)
    expected = Rotation.from_euler("xyz", rpy + delta[3:]).as_matrix()
    np.testing.assert_allclose(target[:, :3, :3], expected, atol=1e-12)
    np.testing.assert_allclose(target[:, :3, 3], [[1.1, 1.2, 1.3]] * 2, atol=1e-15)


def test_relative_euler_is_undone_by_compose() -> None:
    anchor, target = random_poses(100, 12), random_poses(100, 13)
    delta = se3.relative_base_euler(anchor, target)
    np.testing.assert_allclose(se3.compose_base_euler(anchor, delta), target, atol=1e-12)
    assert np.all(np.abs(delta[:, 3:]) <= np.pi)
    np.testing.assert_allclose(se3.relative_base_euler(anchor[0], target[0]), delta[0], atol=1e-12)


def test_poses_are_a_group() -> None:
    a, b, c = (random_poses(100, seed) for seed in (14, 15, 16))
    np.testing.assert_allclose((a @ b) @ c, a @ (b @ c), atol=1e-12)
    np.testing.assert_allclose(se3.invert(a @ b), se3.invert(b) @ se3.invert(a), atol=1e-12)
    np.testing.assert_allclose(se3.invert(a), np.linalg.inv(a), atol=1e-12)
    assert se3.is_pose(a @ b, tolerance=1e-12)


def test_pose_without_a_rotation_is_not_turned() -> None:
    np.testing.assert_array_equal(se3.make_pose([1, 2, 3]), [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])


def test_base_composition_is_not_a_left_product() -> None:
    anchor, delta = random_poses(1, 3)[0], random_poses(1, 4)[0]
    assert not np.allclose(se3.compose_base(anchor, delta)[:3, 3], (delta @ anchor)[:3, 3])
    np.testing.assert_allclose(se3.compose_base(anchor, delta)[:3, :3], (delta @ anchor)[:3, :3])


def test_pose_error_followed_for_unit_time_arrives() -> None:
    start, end = random_poses(50, 5), random_poses(50, 6)
    error = se3.pose_error(start, end)
    np.testing.assert_allclose(start[:, :3, 3] + error[:, :3], end[:, :3, 3], atol=1e-12)
    np.testing.assert_allclose(rotations.rotvec_to_matrix(error[:, 3:]) @ start[:, :3, :3], end[:, :3, :3], atol=1e-12)
    np.testing.assert_allclose(se3.pose_error(start[0], end[0]), error[0], atol=1e-14)


def test_interpolation_has_its_ends() -> None:
    start, end = random_poses(20, 7), random_poses(20, 8)
    np.testing.assert_allclose(se3.interpolate(start, end, np.zeros(20)), start, atol=1e-12)
    np.testing.assert_allclose(se3.interpolate(start, end, np.ones(20)), end, atol=1e-12)


def test_interpolation_moves_and_turns_evenly() -> None:
    start, end = random_poses(2, 17)
    steps = se3.interpolate(start, end, np.linspace(0.0, 1.0, 6))
    moves = se3.pose_error(steps[:-1], steps[1:])
    np.testing.assert_allclose(moves, np.broadcast_to(se3.pose_error(start, end) / 5.0, moves.shape), atol=1e-12)


@pytest.mark.parametrize("count", [3, 40])
def test_is_pose_refuses_what_is_none(count: int) -> None:
    # Few are looked at one by one, many together.
    T = random_poses(count, 9)
    assert se3.is_pose(T)
    assert se3.is_pose(T[0])
    almost = T[0].copy()
    almost[:3, 0] *= 1.0 + 1e-5
    assert not se3.is_pose(almost)
    assert se3.is_pose(almost, tolerance=1e-4)
    assert not se3.is_pose(np.concatenate([T, np.full((1, 4, 4), np.inf)]))
    for spoil in (lambda X: X * 2.0, lambda X: X * np.nan, lambda X: X * [-1, 1, 1, 1], lambda X: X[:3, :3]):
        assert not se3.is_pose(spoil(T[0]))
        spoilt = T.copy()
        if spoil(T[0]).shape == (4, 4):
            spoilt[count - 1] = spoil(T[0])
            assert not se3.is_pose(spoilt)
