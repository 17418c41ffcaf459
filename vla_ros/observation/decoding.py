"""Images and intrinsics out of a message's fields, wherever the message is from."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from vla_ros.errors import SensorError
from vla_ros.types import CameraModel, ImageArray

CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC3": 3, "8UC1": 1}
"""Encodings of sensor_msgs/Image that are read here, and their bytes a pixel."""

LENSES = ("plumb_bob", "rational_polynomial")
"""Those that geometry/cameras.py knows, by CameraInfo's names."""


def decode_image(data: Any, height: int, width: int, step: int, encoding: str, where: str) -> ImageArray:
    """Raw pixels to (height, width, 3) rgb uint8; a view of them where the encoding allows it.

    Args:
        data: a buffer of height * step bytes.
        height: rows.
        width: pixels in a row.
        step: bytes from row to row.
        encoding: one of `CHANNELS`.
        where: for the error text.

    Raises:
        SensorError: for another encoding, or a size that doesn't fit.
    """
    channels = CHANNELS.get(encoding)
    if channels is None:
        raise SensorError(f"{where} has encoding {encoding!r}, which isn't known; known: {', '.join(CHANNELS)}")
    rows = np.frombuffer(data, np.uint8)
    if len(rows) != height * step or step < width * channels:
        raise SensorError(
            f"{where} holds {len(rows)} bytes for {width}x{height} {encoding} with step {step}; is its driver broken?"
        )
    image = rows.reshape(height, step)[:, : width * channels].reshape(height, width, channels)
    if channels == 1:
        return np.repeat(image, 3, axis=2)
    return image[:, :, :3] if encoding.startswith("rgb") else image[:, :, 2::-1]


def decode_compressed(data: Any, where: str) -> ImageArray:
    """A JPEG or PNG file's bytes, as sensor_msgs/CompressedImage has them, to (height, width, 3) rgb uint8.

    Raises:
        SensorError: if it is neither, or damaged.
    """
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if len(data) else None
    if decoded is None:
        raise SensorError(f"{where} can't be decoded: {len(data)} bytes that are no JPEG or PNG, or damaged")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def from_camera_info(message: Any) -> CameraModel:
    """CameraInfo to intrinsics; all-zero coefficients mean no distortion.

    Raises:
        SensorError: for a lens of another kind, such as a fisheye.
    """
    if message.distortion_model not in ("", *LENSES):
        raise SensorError(
            f"camera_info of {message.header.frame_id} has the distortion model {message.distortion_model!r} (known: "
            f"{', '.join(LENSES)}); publish rectified images, with a camera_info without distortion"
        )
    distortion = tuple(float(value) for value in message.d)
    has_lens = any(value != 0.0 for value in distortion)
    K = np.array(message.k, dtype=np.float64).reshape(3, 3)
    return CameraModel(message.width, message.height, K, distortion if has_lens else ())
