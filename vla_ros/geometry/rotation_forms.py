"""Rotation forms by their name in a contract, to matrices and back; and which of two rotation vectors is meant."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vla_ros.geometry import rotations
from vla_ros.types import FloatArray

TO_MATRIX: dict[str, Callable[[FloatArray], FloatArray]] = {
    "rotvec": rotations.rotvec_to_matrix,
    "rpy": rotations.rpy_to_matrix,
    "quat_xyzw": rotations.quat_xyzw_to_matrix,
    "rot6d": rotations.rot6d_to_matrix,
    "rot6d_rows": rotations.rot6d_rows_to_matrix,
}
FROM_MATRIX: dict[str, Callable[[FloatArray], FloatArray]] = {
    "rotvec": rotations.matrix_to_rotvec,
    "rpy": rotations.matrix_to_rpy,
    "quat_xyzw": rotations.matrix_to_quat_xyzw,
    "rot6d": rotations.matrix_to_rot6d,
    "rot6d_rows": rotations.matrix_to_rot6d_rows,
}


def nearest_rotvec(rotvec: FloatArray, to: FloatArray) -> FloatArray:
    """Of the (3,) rotation vectors that mean the same rotation, the one nearest to another rotation vector."""
    angle = float(np.linalg.norm(rotvec))
    # No rotation is whole turns about any axis: about the other's, then.
    axis = rotvec / angle if angle > 1e-9 else to / max(float(np.linalg.norm(to)), 1e-9)
    turns = round((float(to @ axis) - angle) / (2.0 * np.pi))
    return np.asarray(rotvec + 2.0 * np.pi * turns * axis)
