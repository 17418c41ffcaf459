"""Images and intrinsics as ROS messages and back; numpy first, cv_bridge only for encodings not known here."""

from __future__ import annotations

import array

import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from vla_ros.errors import SensorError
from vla_ros.nodes.messages import header
from vla_ros.observation.decoding import CHANNELS, LENSES, decode_image
from vla_ros.observation.decoding import from_camera_info as from_camera_info
from vla_ros.types import CameraModel, ImageArray


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
    if message.encoding not in CHANNELS:
        return _from_unknown_image(message)
    where = f"image in {message.header.frame_id}"
    return decode_image(message.data, message.height, message.width, message.step, message.encoding, where)


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
        distortion_model=LENSES[len(camera.distortion) > 5],
        d=[*camera.distortion, *[0.0] * (5 - len(camera.distortion))],
        k=K,
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=P,
    )
