"""Images and intrinsics as ROS messages and back; numpy first, cv_bridge only for encodings not known here."""

from __future__ import annotations

import array

import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from vla_ros.errors import SensorError
from vla_ros.nodes.messages import header
from vla_ros.types import CameraModel, ImageArray

# Lenses that geometry/cameras.py knows, by CameraInfo's names.
_LENSES = ("plumb_bob", "rational_polynomial")


def to_image(image: ImageArray, stamp_ns: int, frame_id: str) -> Image:
    """(h, w, 3) rgb uint8 to sensor_msgs/Image; through array.array, since assigning numpy takes 50 ms."""
    height, width, _ = image.shape
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(image).data.cast("B"))
    message = Image(header=header(stamp_ns, frame_id), height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = data
    return message


def from_image(message: Image) -> ImageArray:
    """sensor_msgs/Image in rgb8, bgr8, rgba8, bgra8 or mono8 to (h, w, 3) rgb uint8.

    Raises:
        SensorError: for another encoding, where cv_bridge isn't installed to read it, or a size that doesn't fit.
    """
    channels = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC3": 3, "8UC1": 1}.get(message.encoding)
    if channels is None:
        return _from_unknown_image(message)
    rows = np.frombuffer(message.data, np.uint8)
    if len(rows) != message.height * message.step or message.step < message.width * channels:
        raise SensorError(
            f"image in {message.header.frame_id} holds {len(rows)} bytes for {message.width}x{message.height} "
            f"{message.encoding} with step {message.step}; is its driver broken?"
        )
    image = rows.reshape(message.height, message.step)[:, : message.width * channels]
    image = image.reshape(message.height, message.width, channels)
    if channels == 1:
        return np.repeat(image, 3, axis=2)
    return image[:, :, :3] if message.encoding.startswith("rgb") else image[:, :, 2::-1]


def _from_unknown_image(message: Image) -> ImageArray:
    try:
        from cv_bridge import CvBridge
    except ImportError as error:
        raise SensorError(
            f"image in {message.header.frame_id} has encoding {message.encoding!r}; publish rgb8, bgr8, "
            "rgba8, bgra8 or mono8, or install cv_bridge"
        ) from error
    return np.asarray(CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8"), dtype=np.uint8)


def to_camera_info(camera: CameraModel, stamp_ns: int, frame_id: str) -> CameraInfo:
    """Intrinsics as sensor_msgs/CameraInfo; eight coefficients are the rational_polynomial model, fewer plumb_bob."""
    K = [float(value) for value in camera.K.flatten()]
    P = [*K[:3], 0.0, *K[3:6], 0.0, *K[6:], 0.0]
    return CameraInfo(
        header=header(stamp_ns, frame_id),
        width=camera.width,
        height=camera.height,
        distortion_model=_LENSES[len(camera.distortion) > 5],
        d=[*camera.distortion, *[0.0] * (5 - len(camera.distortion))],
        k=K,
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=P,
    )


def from_camera_info(message: CameraInfo) -> CameraModel:
    """CameraInfo to intrinsics; all-zero coefficients mean no distortion.

    Raises:
        SensorError: for a lens of another kind, such as a fisheye.
    """
    if message.distortion_model not in ("", *_LENSES):
        raise SensorError(
            f"camera_info of {message.header.frame_id} has the distortion model {message.distortion_model!r} (known: "
            f"{', '.join(_LENSES)}); publish rectified images, with a camera_info without distortion"
        )
    distortion = tuple(float(value) for value in message.d)
    has_lens = any(value != 0.0 for value in distortion)
    K = np.array(message.k, dtype=np.float64).reshape(3, 3)
    return CameraModel(message.width, message.height, K, distortion if has_lens else ())
