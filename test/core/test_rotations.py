"""Rotation forms against scipy, group axioms and numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
    np.testing.assert_allclose(back(there(R)), R, atol=1e-12)
    for R_one in R:
        np.testing.assert_allclose(back(there(R_one)), R_one, atol=1e-12)


def test_single_rotations_are_the_batched_ones() -> None:
    R = ALL.as_matrix()
    quats = ALL.as_quat() * np.random.default_rng(2).uniform(-2.0, 2.0, (len(R), 1))
    calls = {"matrix_to_quat_xyzw": R, "matrix_to_rotvec": R, "quat_xyzw_to_matrix": quats}
    for name, values in {**calls, "rotvec_to_matrix": ALL.as_rotvec()}.items():
        convert = getattr(rotations, name)
        for one, batched in zip(values, convert(values), strict=True):
            np.testing.assert_allclose(convert(one), batched, atol=2e-15, rtol=2e-15)


rotvecs = st.lists(st.floats(-4.0, 4.0, allow_subnormal=False), min_size=3, max_size=3).map(np.array)


@settings(deadline=None)
@given(rotvecs, rotvecs, rotvecs)
def test_rotations_are_a_group(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    R_a, R_b, R_c = (rotations.rotvec_to_matrix(rotvec) for rotvec in (a, b, c))
    for R in (R_a, R_a @ R_b, rotations.slerp(R_a, R_b, 0.4)):
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-13)
        assert np.linalg.det(R) == pytest.approx(1.0)
    np.testing.assert_allclose(R_a @ rotations.rotvec_to_matrix(-a), np.eye(3), atol=1e-13)
    # Conjugation turns the axis: exp(R a) = R exp(a) R^T.
    np.testing.assert_allclose(rotations.rotvec_to_matrix(R_b @ a), R_b @ R_a @ R_b.T, atol=1e-12)
    # The distance is a metric that turning both leaves alone.
    ab, bc, ac = (float(rotations.angle_between(*pair)) for pair in ((R_a, R_b), (R_b, R_c), (R_a, R_c)))
    assert ac <= ab + bc + 1e-12
    assert float(rotations.angle_between(R_c @ R_a, R_c @ R_b)) == pytest.approx(ab, abs=1e-7)  # a half turn is an edge


def test_exponential_is_as_exact_through_its_series_as_beside_it() -> None:
    # About z, where series and closed form meet and around it; 1 - cos is taken from the half angle.
    for angle in (1e-12, 1e-7, 1e-3, 0.0316, 0.03163, 0.5):
        sine, versine = math.sin(angle), 2.0 * math.sin(0.5 * angle) ** 2
        for R in (
            rotations.rotvec_to_matrix(np.array([0.0, 0.0, angle])),
            rotations.rotvec_to_matrix(np.array([[0.0, 0.0, angle]]))[0],
        ):
            np.testing.assert_allclose(R[1, 0], sine, rtol=4e-16)
            np.testing.assert_allclose(R[0, 0], 1.0 - versine, rtol=2e-16)


def test_logarithm_keeps_small_angles_whole() -> None:
    for angle in (1e-12, 1e-7, 1e-3, 0.0199, 0.0201):
        rotvec = np.array([0.48, -0.6, 0.64]) * angle
        R = Rotation.from_rotvec(rotvec).as_matrix()
        for found in (rotations.matrix_to_rotvec(R), rotations.matrix_to_rotvec(R[None])[0]):
            np.testing.assert_allclose(found, rotvec, rtol=1e-13)


def test_rotation_vector_is_never_longer_than_a_half_turn() -> None:
    assert np.all(np.linalg.norm(rotations.matrix_to_rotvec(ALL.as_matrix()), axis=-1) <= np.pi + 1e-15)


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


@settings(deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.floats(-0.999, 0.999))
def test_rot6d_knows_no_lengths_nor_what_is_parallel(length_a: float, length_b: float, lean: float) -> None:
    a, b = ALL.as_matrix()[7, :, 0], ALL.as_matrix()[7, :, 1]
    rot6d = np.concatenate([length_a * a, length_b * (np.sqrt(1.0 - lean**2) * b + lean * a)])
    np.testing.assert_allclose(rotations.rot6d_to_matrix(rot6d), ALL.as_matrix()[7], atol=1e-12)
    np.testing.assert_allclose(rotations.rot6d_rows_to_matrix(rot6d), ALL.as_matrix()[7].T, atol=1e-12)


@pytest.mark.parametrize("length", [1e-6, 1.0, 1e6])
def test_almost_parallel_rot6d_is_a_rotation_or_refused(length: float) -> None:
    for lean in 10.0 ** np.arange(-16.0, -3.0):
        rot6d = length * np.array([1.0, 2.0, 2.0, 1.0, 2.0, 2.0 + lean])
        try:
            R = rotations.rot6d_to_matrix(rot6d)
        except ValueError:
            assert lean <= 1e-8
            continue
        assert lean >= 1e-9
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-6)


@pytest.mark.parametrize("rot6d", [np.zeros(6), np.array([1.0, 0, 0, 2.0, 0, 0]), np.full(6, np.nan)])
def test_rot6d_that_is_no_rotation_is_refused(rot6d: np.ndarray) -> None:
    with pytest.raises(ValueError, match="isn't a rotation"):
        rotations.rot6d_to_matrix(rot6d)


@pytest.mark.parametrize("quat", [np.zeros(4), np.array([0, 0, 0, np.inf]), np.array([np.nan, 0, 0, 1.0])])
def test_quaternion_that_is_no_rotation_is_refused(quat: np.ndarray) -> None:
    identity = np.array([0, 0, 0, 1.0])
    # One, few one by one, and many together.
    for given_quat in (quat, np.stack([quat, identity]), np.stack([*[identity] * 40, quat])):
        with pytest.raises(ValueError, match="isn't a rotation"):
            rotations.quat_xyzw_to_matrix(given_quat)


def test_slerp_turns_evenly() -> None:
    R_a, R_b = ALL.as_matrix()[0], ALL.as_matrix()[1]
    total = float(rotations.angle_between(R_a, R_b))
    fractions = np.array([0.0, 0.25, 0.5, 1.0])
    for fraction, R in zip(fractions, rotations.slerp(R_a, R_b, fractions), strict=True):
        np.testing.assert_allclose(rotations.slerp(R_a, R_b, float(fraction)), R, atol=1e-14)
        assert float(rotations.angle_between(R_a, R)) == pytest.approx(fraction * total, abs=1e-9)


def test_slerp_takes_the_shorter_way_past_180_degrees() -> None:
    degrees = np.radians([[0.0, 0.0, 170.0], [0.0, 0.0, -170.0]])
    R = rotations.slerp(*rotations.rotvec_to_matrix(degrees), 0.25)
    np.testing.assert_allclose(R, rotations.rotvec_to_matrix(np.radians([0.0, 0.0, 175.0])), atol=1e-12)


def test_rpy_by_hand() -> None:
    # Roll 90 takes z to -y, yaw 90 then -y to x: fixed axes, in that order.
    R = rotations.rpy_to_matrix(np.radians([90.0, 0.0, 90.0]))
    np.testing.assert_allclose(R @ [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], atol=1e-15)
    np.testing.assert_allclose(rotations.matrix_to_rpy(R), np.radians([90.0, 0.0, 90.0]), atol=1e-12)
