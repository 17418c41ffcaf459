"""Exponential maps and their derivatives against pinocchio, group axioms and finite differences."""

from __future__ import annotations

import numpy as np
import pinocchio as pin
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from vla_ros.geometry import lie, rotations, se3

RNG = np.random.default_rng(11)
AXES = RNG.normal(size=(40, 3))
AXES /= np.linalg.norm(AXES, axis=1, keepdims=True)
ANGLES = np.concatenate([RNG.uniform(0.0, 3.1, 30), [0.0, 1e-12, 1e-7, 1e-5, 1e-3, 0.0316, 0.0317, 3.14, 1.0, 2.0]])
ROTVECS = ANGLES[:, None] * AXES
TWISTS = np.hstack([RNG.normal(size=(40, 3)), ROTVECS])

coordinates = st.floats(-2.0, 2.0, allow_subnormal=False)
twists = st.lists(coordinates, min_size=6, max_size=6).map(np.array)


def test_maps_are_pinocchios() -> None:
    for twist in TWISTS:
        T = pin.exp6(twist)
        np.testing.assert_allclose(lie.exp_se3(twist), T.homogeneous, atol=1e-12)
        np.testing.assert_allclose(rotations.rotvec_to_matrix(twist[3:]), pin.exp3(twist[3:]), atol=1e-12)
        np.testing.assert_allclose(lie.log_se3(T.homogeneous), twist, atol=1e-9)
        # pinocchio's Jacobians are the right ones.
        np.testing.assert_allclose(lie.left_jacobian(twist[3:]), pin.Jexp3(-twist[3:]), atol=1e-7)
        np.testing.assert_allclose(
            lie.left_jacobian_inverse(twist[3:]), np.linalg.inv(pin.Jexp3(-twist[3:])), atol=1e-7
        )


def test_exponential_is_the_matrix_exponential() -> None:
    for twist in TWISTS:
        generator = np.zeros((4, 4))
        generator[:3, :3], generator[:3, 3] = pin.skew(twist[3:]), twist[:3]
        np.testing.assert_allclose(lie.exp_se3(twist), expm(generator), atol=1e-12)


@settings(deadline=None)
@given(twists)
def test_logarithm_undoes_the_exponential(twist: np.ndarray) -> None:
    if np.linalg.norm(twist[3:]) < np.pi - 1e-3:
        np.testing.assert_allclose(lie.log_se3(lie.exp_se3(twist)), twist, atol=1e-9)
    T = lie.exp_se3(twist)
    assert se3.is_pose(T, tolerance=1e-12)
    np.testing.assert_allclose(lie.exp_se3(lie.log_se3(T)), T, atol=1e-9)


@settings(deadline=None)
@given(twists, st.floats(-1.0, 1.0), st.floats(-1.0, 1.0))
def test_multiples_of_a_twist_add(twist: np.ndarray, s: float, t: float) -> None:
    np.testing.assert_allclose(
        lie.exp_se3(s * twist) @ lie.exp_se3(t * twist), lie.exp_se3((s + t) * twist), atol=1e-12
    )


def test_jacobian_is_the_slope_of_the_exponential() -> None:
    step = 1e-6
    for rotvec in ROTVECS:
        J = np.empty((3, 3))
        for axis in range(3):
            d = step * np.eye(3)[axis]
            turn = rotations.rotvec_to_matrix(rotvec + d) @ rotations.rotvec_to_matrix(rotvec - d).T
            J[:, axis] = rotations.matrix_to_rotvec(turn) / (2.0 * step)
        np.testing.assert_allclose(lie.left_jacobian(rotvec), J, atol=1e-9)


def test_inverse_jacobian_is_the_inverse() -> None:
    product = lie.left_jacobian(ROTVECS) @ lie.left_jacobian_inverse(ROTVECS)
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), product.shape), atol=1e-12)
