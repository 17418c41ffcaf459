"""Rotation forms against the libraries beside ours: pinocchio everywhere, tf_transformations where it is installed."""

from __future__ import annotations

import numpy as np
import pinocchio as pin
import pytest
from scipy.spatial.transform import Rotation

from vla_ros.geometry import rotations, se3

RPY = np.random.default_rng(0).uniform([-np.pi, -1.5, -np.pi], [np.pi, 1.5, np.pi], (100, 3))
LOCKED_RPY = np.array([[0.3, np.pi / 2, 0.0], [-2.0, np.pi / 2, 0.0], [1.2, -np.pi / 2, 0.0]])
R = Rotation.from_euler("xyz", np.vstack([RPY, LOCKED_RPY])).as_matrix()
QUATS = Rotation.from_matrix(R).as_quat()


def assert_same_rotations(quat_a: np.ndarray, quat_b: np.ndarray) -> None:
    """q and -q are one rotation."""
    nearer = np.minimum(np.abs(quat_a - quat_b).max(axis=-1), np.abs(quat_a + quat_b).max(axis=-1))
    np.testing.assert_array_less(nearer, 1e-9)


def test_comparer_knows_the_double_cover_and_nothing_more() -> None:
    assert_same_rotations(QUATS, -QUATS)
    with pytest.raises(AssertionError):
        assert_same_rotations(QUATS, QUATS * [1.0, 1.0, 1.0, -1.0])


def test_both_quaternions_of_a_rotation_give_it() -> None:
    for sign in (1.0, -1.0):
        np.testing.assert_allclose(rotations.quat_xyzw_to_matrix(sign * QUATS), R, atol=1e-12)
        for quat, R_one in zip(QUATS, R, strict=True):
            np.testing.assert_allclose(rotations.quat_xyzw_to_matrix(sign * quat), R_one, atol=1e-12)


def test_quaternion_of_any_length_is_taken() -> None:
    np.testing.assert_allclose(rotations.quat_xyzw_to_matrix(7.5 * QUATS), R, atol=1e-12)
    np.testing.assert_allclose(rotations.quat_xyzw_to_matrix(1e-6 * QUATS[0]), R[0], atol=1e-12)


def test_largest_component_of_a_quaternion_is_positive() -> None:
    for quats in (rotations.matrix_to_quat_xyzw(R), np.array([rotations.matrix_to_quat_xyzw(one) for one in R])):
        largest = np.take_along_axis(quats, np.argmax(np.abs(quats), axis=-1)[:, None], axis=-1)
        assert np.all(largest > 0.0)
        assert_same_rotations(quats, QUATS)


def test_forms_are_pinocchios() -> None:
    for R_one, quat, rpy in zip(R, QUATS, rotations.matrix_to_rpy(R), strict=True):
        np.testing.assert_allclose(rotations.rpy_to_matrix(rpy), pin.rpy.rpyToMatrix(rpy), atol=1e-12)
        assert_same_rotations(rotations.matrix_to_quat_xyzw(R_one), pin.Quaternion(R_one).coeffs())
        np.testing.assert_allclose(
            rotations.quat_xyzw_to_matrix(quat), pin.Quaternion(*np.roll(quat, 1)).toRotationMatrix(), atol=1e-12
        )
        np.testing.assert_allclose(rotations.matrix_to_rotvec(R_one), pin.log3(R_one), atol=1e-9)
    for R_one, rpy in zip(R[:100], RPY, strict=True):
        np.testing.assert_allclose(rotations.matrix_to_rpy(R_one), rpy, atol=1e-9)
        np.testing.assert_allclose(pin.rpy.matrixToRpy(R_one), rpy, atol=1e-9)


def test_poses_are_pinocchios() -> None:
    p = np.random.default_rng(1).normal(size=(len(R), 3))
    T = se3.make_pose(p, R)
    for index in range(1, len(R)):
        a, b = (pin.SE3(R[place], p[place]) for place in (index - 1, index))
        np.testing.assert_allclose(se3.relative_tcp(T[index - 1], T[index]), a.actInv(b).homogeneous, atol=1e-12)
        np.testing.assert_allclose(se3.compose_tcp(T[index - 1], T[index]), (a * b).homogeneous, atol=1e-12)
        np.testing.assert_allclose(se3.invert(T[index]), b.inverse().homogeneous, atol=1e-12)


def test_forms_are_those_of_tf_transformations() -> None:
    tf = pytest.importorskip(
        "tf_transformations", reason="needs tf_transformations: apt install ros-$ROS_DISTRO-tf-transformations"
    )
    for R_one, quat in zip(R, QUATS, strict=True):
        T = se3.make_pose(np.zeros(3), R_one)
        rpy = rotations.matrix_to_rpy(R_one)
        np.testing.assert_allclose(rpy, tf.euler_from_matrix(T), atol=1e-9)
        np.testing.assert_allclose(rotations.rpy_to_matrix(rpy), tf.euler_matrix(*rpy)[:3, :3], atol=1e-12)
        assert_same_rotations(rotations.matrix_to_quat_xyzw(R_one), np.array(tf.quaternion_from_euler(*rpy)))
        assert_same_rotations(rotations.matrix_to_quat_xyzw(R_one), np.array(tf.quaternion_from_matrix(T)))
        for sign in (1.0, -1.0):
            R_tf = tf.quaternion_matrix(sign * quat)[:3, :3]
            np.testing.assert_allclose(rotations.quat_xyzw_to_matrix(sign * quat), R_tf, atol=1e-9)


def test_slerp_is_that_of_tf_transformations() -> None:
    tf = pytest.importorskip(
        "tf_transformations", reason="needs tf_transformations: apt install ros-$ROS_DISTRO-tf-transformations"
    )
    for index in range(1, len(RPY)):
        quat = np.array(tf.quaternion_slerp(QUATS[index - 1], -QUATS[index], 0.3))
        assert_same_rotations(rotations.matrix_to_quat_xyzw(rotations.slerp(R[index - 1], R[index], 0.3)), quat)
