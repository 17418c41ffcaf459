"""Rotation forms against scipy, group axioms and numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_ros.geometry import rotations

SAMPLES = Rotation.random(500, random_state=1)
# The corners: none, half turns about each axis and about a slanted one, and angles at the edge of the series.
CORNERS = Rotation.from_rotvec(
    np.vstack(
        [np.zeros(3), np.pi * np.eye(3), [np.pi / np.sqrt(3)] * 3, [1e-9, 0, 0], [0, 2e-7, 0], [0, 0, np.pi - 1e-9]]
    )
)
ALL = Rotation.concatenate([SAMPLES, CORNERS])


def test_every_form_is_scipys() -> None:
    R = ALL.as_matrix()
    np.testing.assert_allclose(rotations.rotvec_to_matrix(ALL.as_rotvec()), R, atol=1e-12)
    np.testing.assert_allclose(rotations.quat_xyzw_to_matrix(ALL.as_quat()), R, atol=1e-12)
    np.testing.assert_allclose(rotations.rpy_to_matrix(ALL.as_euler("xyz")), R, atol=1e-12)
    quats = rotations.matrix_to_quat_xyzw(R)
    np.testing.assert_allclose(np.abs(np.sum(quats * ALL.as_quat(), axis=-1)), 1.0, atol=1e-12)


@pytest.mark.parametrize("form", ["rotvec", "rpy", "rot6d", "rot6d_rows", "quat_xyzw"])
def test_every_form_goes_there_and_back(form: str) -> None:
    R = ALL.as_matrix()
    there, back = getattr(rotations, f"matrix_to_{form}"), getattr(rotations, f"{form}_to_matrix")
    # The logarithm loses half the digits next to a half turn, arccos-free as it is.
    np.testing.assert_allclose(back(there(R)), R, atol=1e-8)


def test_single_rotations_are_the_batched_ones() -> None:
    R = ALL.as_matrix()
    for name in ("matrix_to_quat_xyzw", "matrix_to_rotvec"):
        convert = getattr(rotations, name)
        for one, batched in zip(R, convert(R), strict=True):
            np.testing.assert_allclose(convert(one), batched, atol=1e-14)
    rotvecs = ALL.as_rotvec()
    for one, batched in zip(rotvecs, rotations.rotvec_to_matrix(rotvecs), strict=True):
        np.testing.assert_allclose(rotations.rotvec_to_matrix(one), batched, atol=1e-14)


def test_rotation_vector_is_never_longer_than_a_half_turn() -> None:
    assert np.all(np.linalg.norm(rotations.matrix_to_rotvec(ALL.as_matrix()), axis=-1) <= np.pi + 1e-12)


def test_gimbal_lock_gives_back_the_rotation() -> None:
    rpy = np.array([[0.3, np.pi / 2, -0.4], [0.3, -np.pi / 2, 1.0]])
    R = rotations.rpy_to_matrix(rpy)
    np.testing.assert_allclose(rotations.rpy_to_matrix(rotations.matrix_to_rpy(R)), R, atol=1e-12)


def test_rot6d_is_the_first_two_columns_and_rows_the_rows() -> None:
    quarter_turn_z = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(rotations.matrix_to_rot6d(quarter_turn_z), [0, 1, 0, -1, 0, 0])
    np.testing.assert_array_equal(rotations.matrix_to_rot6d_rows(quarter_turn_z), [0, -1, 0, 1, 0, 0])


def test_rot6d_of_skewed_vectors_is_a_rotation() -> None:
    rot6d = np.random.default_rng(0).normal(size=(200, 6))
    R = rotations.rot6d_to_matrix(rot6d)
    np.testing.assert_allclose(R @ np.swapaxes(R, -1, -2), np.broadcast_to(np.eye(3), R.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(R), 1.0)
    # Gram-Schmidt keeps the direction of the first vector.
    first = rot6d[:, :3] / np.linalg.norm(rot6d[:, :3], axis=1, keepdims=True)
    np.testing.assert_allclose(R[:, :, 0], first, atol=1e-12)


@pytest.mark.parametrize("rot6d", [np.zeros(6), np.array([1.0, 0, 0, 2.0, 0, 0]), np.full(6, np.nan)])
def test_rot6d_that_is_no_rotation_is_refused(rot6d: np.ndarray) -> None:
    with pytest.raises(ValueError, match="isn't a rotation"):
        rotations.rot6d_to_matrix(rot6d)


@pytest.mark.parametrize("quat", [np.zeros(4), np.array([0, 0, 0, np.inf])])
def test_quaternion_that_is_no_rotation_is_refused(quat: np.ndarray) -> None:
    with pytest.raises(ValueError, match="isn't a rotation"):
        rotations.quat_xyzw_to_matrix(quat)


def test_slerp_turns_evenly() -> None:
    R_a, R_b = ALL.as_matrix()[0], ALL.as_matrix()[1]
    total = float(rotations.angle_between(R_a, R_b))
    for fraction in (0.0, 0.25, 0.5, 1.0):
        R = rotations.slerp(R_a, R_b, fraction)
        assert float(rotations.angle_between(R_a, R)) == pytest.approx(fraction * total, abs=1e-9)
