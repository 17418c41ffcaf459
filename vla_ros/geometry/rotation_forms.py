"""Rotation forms by their name in a contract, to matrices and back."""

from __future__ import annotations

from collections.abc import Callable

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
