"""Means on the manifold against their definition, scipy and numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_ros.geometry import averaging, rotations, se3


def scattered(count: int, n: int, angle_rad: float, seed: int) -> np.ndarray:
    """(count, n, 3, 3) rotations, each within an angle of its group's own centre."""
    rng = np.random.default_rng(seed)
    axes = rng.normal(size=(count, n, 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    turns = rotations.rotvec_to_matrix(angle_rad * rng.uniform(size=(count, n, 1)) * axes)
    return np.asarray(Rotation.random(count, random_state=seed).as_matrix()[:, None] @ turns)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
@pytest.mark.parametrize("angle_deg", [0.0, 1.0, 30.0, 89.0])
def test_weighted_rotation_vectors_from_the_mean_sum_to_zero(n: int, angle_deg: float) -> None:
    R = scattered(300, n, np.radians(angle_deg), n)
    weights = np.random.default_rng(n).uniform(0.01, 1.0, (300, n))
    mean = averaging.mean_rotation(R, weights)
    # scipy's logarithm, so that not even that is shared with what is tested.
    for R_mean, group, row in zip(mean, R, weights, strict=True):
        rotvecs = (Rotation.from_matrix(R_mean).inv() * Rotation.from_matrix(group)).as_rotvec()
        np.testing.assert_allclose(row @ rotvecs, np.zeros(3), atol=1e-11)


def test_close_rotations_have_scipys_mean() -> None:
    # scipy's is the chordal mean, which differs in the third power of the scatter: 1e-9 for 1e-3 rad.
    R, weights = scattered(50, 6, 1e-3, 4), np.array([1.0, 2.0, 0.5, 0.0, 3.0, 1.0])
    for group in R:
        expected = Rotation.from_matrix(group).mean(weights).as_matrix()
        np.testing.assert_allclose(averaging.mean_rotation(group, weights), expected, atol=2e-9)


def test_mirrored_rotations_have_scipys_mean_however_far() -> None:
    for half in scattered(50, 4, 1.5, 5):
        centre = half[0]
        group = np.concatenate([half, centre @ np.swapaxes(half, -1, -2) @ centre])  # each with its mirror image
        expected = Rotation.from_matrix(group).mean().as_matrix()
        np.testing.assert_allclose(averaging.mean_rotation(group), expected, atol=1e-9)
        np.testing.assert_allclose(averaging.mean_rotation(group), centre, atol=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_mean_of_two_is_the_interpolation(share: float) -> None:
    p = np.random.default_rng(6).normal(size=(20, 2, 3))
    T = se3.make_pose(p, scattered(20, 2, 1.5, 6))
    mean = averaging.mean_pose(T, np.array([1.0 - share, share]))
    np.testing.assert_allclose(mean, se3.interpolate(T[:, 0], T[:, 1], share), atol=1e-12)


def test_mean_turns_with_its_rotations() -> None:
    R, weights = scattered(20, 5, 1.2, 7), np.arange(5.0)
    left, right = Rotation.random(2, random_state=8).as_matrix()
    expected = left @ averaging.mean_rotation(R, weights) @ right
    np.testing.assert_allclose(averaging.mean_rotation(left @ R @ right, weights), expected, atol=1e-12)


def test_mean_knows_no_order() -> None:
    R, weights = scattered(20, 5, 1.2, 9), np.arange(5.0)
    order = [3, 0, 4, 2, 1]
    expected = averaging.mean_rotation(R, weights)
    np.testing.assert_allclose(averaging.mean_rotation(R[:, order], weights[order]), expected, atol=1e-12)


def test_mean_by_hand() -> None:
    # 10, 20 and 60 degrees about z, in metres 1, 2 and 6 along x, with weights 1, 1 and 2: 37.5.
    amounts = np.array([1.0, 2.0, 6.0])
    zero = np.zeros(3)
    T = se3.make_pose(
        np.column_stack([amounts, zero, zero]),
        rotations.rotvec_to_matrix(np.radians(10.0 * np.column_stack([zero, zero, amounts]))),
    )
    mean = averaging.mean_pose(T, np.array([1.0, 1.0, 2.0]))
    np.testing.assert_allclose(mean[:3, 3], [3.75, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(rotations.matrix_to_rotvec(mean[:3, :3]), np.radians([0, 0, 37.5]), atol=1e-12)


def test_weight_of_zero_is_no_vote() -> None:
    R = scattered(1, 3, 1.0, 10)[0]
    np.testing.assert_allclose(averaging.mean_rotation(R, np.array([0.0, 1.0, 0.0])), R[1], atol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_rotations_too_far_apart_still_give_a_rotation(n: int) -> None:
    """Opposite ones included, of which there is no one mean."""
    axes = np.random.default_rng(n).normal(size=(200, n, 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    for angle in (np.pi, 0.9 * np.pi):
        R = rotations.rotvec_to_matrix(angle * axes)
        R[:, 0] = np.eye(3)
        assert se3.is_pose(se3.make_pose(np.zeros((200, 3)), averaging.mean_rotation(R)), tolerance=1e-9)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -0.1], [1.0, np.nan], [1.0, np.inf], [1.0, 1.0, 1.0]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        averaging.mean_rotation(scattered(1, 2, 0.1, 0)[0], np.array(weights))


def test_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        averaging.mean_pose(np.zeros((0, 4, 4)))
    with pytest.raises(ValueError, match=r"\(\.\.\., n, 3, 3\)"):
        averaging.mean_rotation(np.eye(3))
