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
    np.testing.assert_allclose(tcp[:3, 3], [0.4, 0.01, 0.3], atol=1e-15)
    np.testing.assert_allclose(base[:3, 3], [0.41, 0.0, 0.3], atol=1e-15)
    for T in (tcp, base):
        np.testing.assert_allclose(rotations.matrix_to_rotvec(T[:3, :3]), np.radians([0.0, 0.0, 100.0]), atol=1e-12)


def test_inverse_undoes() -> None:
    T = random_poses(100, 0)
    np.testing.assert_allclose(T @ se3.invert(T), np.broadcast_to(np.eye(4), T.shape), atol=1e-12)


@pytest.mark.parametrize("frame", ["tcp", "base"])
def test_relative_is_undone_by_compose(frame: str) -> None:
    anchor, target = random_poses(100, 1), random_poses(100, 2)
    relative, compose = getattr(se3, f"relative_{frame}"), getattr(se3, f"compose_{frame}")
    np.testing.assert_allclose(compose(anchor, relative(anchor, target)), target, atol=1e-12)


def test_base_composition_is_not_a_left_product() -> None:
    anchor, delta = random_poses(1, 3)[0], random_poses(1, 4)[0]
    assert not np.allclose(se3.compose_base(anchor, delta)[:3, 3], (delta @ anchor)[:3, 3])
    np.testing.assert_allclose(se3.compose_base(anchor, delta)[:3, :3], (delta @ anchor)[:3, :3])


def test_pose_error_followed_for_unit_time_arrives() -> None:
    start, end = random_poses(50, 5), random_poses(50, 6)
    error = se3.pose_error(start, end)
    np.testing.assert_allclose(start[:, :3, 3] + error[:, :3], end[:, :3, 3], atol=1e-12)
    np.testing.assert_allclose(rotations.rotvec_to_matrix(error[:, 3:]) @ start[:, :3, :3], end[:, :3, :3], atol=1e-9)


def test_interpolation_has_its_ends() -> None:
    start, end = random_poses(20, 7), random_poses(20, 8)
    np.testing.assert_allclose(se3.interpolate(start, end, np.zeros(20)), start, atol=1e-12)
    np.testing.assert_allclose(se3.interpolate(start, end, np.ones(20)), end, atol=1e-9)


def test_is_pose_refuses_what_is_none() -> None:
    T = random_poses(3, 9)
    assert se3.is_pose(T)
    for spoil in (lambda X: X * 2.0, lambda X: X * np.nan, lambda X: X * [-1, 1, 1, 1], lambda X: X[:3, :3]):
        assert not se3.is_pose(spoil(T[0]))
