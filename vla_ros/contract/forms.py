"""The names of rotation forms, and how many numbers each takes."""

from __future__ import annotations

from typing import Literal

RotationForm = Literal["rotvec", "rpy", "quat_xyzw", "rot6d", "rot6d_rows"]

ROTATION_WIDTH: dict[RotationForm, int] = {"rotvec": 3, "rpy": 3, "quat_xyzw": 4, "rot6d": 6, "rot6d_rows": 6}
