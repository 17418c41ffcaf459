"""A camera's intrinsics in the file that ROS drivers read (`camera_info_url`)."""

from __future__ import annotations

import numpy as np
import yaml

from vla_ros.types import CameraModel


def camera_info_text(camera: CameraModel, name: str) -> str:
    """The YAML of ROS's camera_calibration_parsers.

    Args:
        camera: intrinsics and lens.
        name: that the driver gives it.
    """
    K = [float(value) for value in camera.K.flatten()]
    D = [*camera.distortion, *[0.0] * (5 - len(camera.distortion))]
    return yaml.safe_dump(
        {
            "image_width": camera.width,
            "image_height": camera.height,
            "camera_name": name,
            "camera_matrix": _matrix(3, 3, K),
            "distortion_model": "rational_polynomial" if len(D) > 5 else "plumb_bob",
            "distortion_coefficients": _matrix(1, len(D), D),
            "rectification_matrix": _matrix(3, 3, np.eye(3).flatten().tolist()),
            "projection_matrix": _matrix(3, 4, [*K[:3], 0.0, *K[3:6], 0.0, *K[6:], 0.0]),
        },
        sort_keys=False,
        default_flow_style=None,
        width=120,
    )


def _matrix(rows: int, columns: int, data: list[float]) -> dict[str, object]:
    return {"rows": rows, "cols": columns, "data": data}
