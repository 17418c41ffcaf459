"""Which way is forward: the axes of the operator's frame in base."""

from __future__ import annotations

import numpy as np

from vla_ros.errors import ConfigError
from vla_ros.types import FloatArray

R_CAM_VIEW = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
"""Forward, left and up of who looks at an image, in the camera's optical frame (z into the image, x right, y down)."""


def frame_axes(frame: str, T_base_tcp: FloatArray, T_base_cam: FloatArray | None) -> FloatArray:
    """(3, 3) R_base_frame, whose columns are the operator's forward, left and up.

    Args:
        frame: `base`: the robot's x, y, z. `tcp`: the tool's x, y, z, moving with it. `camera`: forward is into the
            image, left and up are the image's.
        T_base_tcp: (4, 4).
        T_base_cam: (4, 4) of the camera's optical frame, None where it isn't known.

    Raises:
        ConfigError: for the frame `camera` without a camera.
    """
    if frame == "base":
        return np.eye(3)
    if frame == "tcp":
        return T_base_tcp[:3, :3]
    if T_base_cam is None:
        raise ConfigError("frame camera", "the camera's pose isn't known", "name a rig and one of its cameras")
    return np.asarray(T_base_cam[:3, :3] @ R_CAM_VIEW)


def in_base(vector: FloatArray, R_base_frame: FloatArray) -> FloatArray:
    """(6,) linear and angular entries of a frame, in base axes."""
    return np.asarray((R_base_frame @ vector.reshape(2, 3).T).T.reshape(6))
