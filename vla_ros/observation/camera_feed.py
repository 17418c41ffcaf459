"""A source image to what the rig promises: cropped, rectified, at the rig's size, with intrinsics that follow."""

from __future__ import annotations

import cv2
import numpy as np

from vla_ros.contract import RigCamera
from vla_ros.errors import SensorError
from vla_ros.geometry.cameras import calibrated_camera, crop_and_resize, undistort
from vla_ros.types import CameraModel, ImageArray


class CameraFeed:
    """Prepares the images of one rig camera.

    The rig's calibration holds for the images that are published. A source that brings its own (a topic with
    CameraInfo) is cropped, rectified and resized together with it instead.

    Args:
        name: of the camera, for error texts.
        camera: what the rig says of it.
    """

    def __init__(self, name: str, camera: RigCamera) -> None:
        self._name, self._camera = name, camera

    def prepare(self, image: ImageArray, source: CameraModel | None) -> tuple[ImageArray, CameraModel]:
        """The image to publish and its intrinsics.

        Args:
            image: (h, w, 3) uint8, rgb, as it came.
            source: its intrinsics where the source has them.

        Raises:
            SensorError: if the crop doesn't fit the image, or the intrinsics belong to another size.
        """
        camera, height, width = self._camera, *image.shape[:2]
        if source is not None and (source.width, source.height) != (width, height):
            raise SensorError(
                f"camera {self._name}: CameraInfo is for {source.width}x{source.height}, the image is "
                f"{width}x{height}; do both come from one driver?"
            )
        if source is not None and camera.source.undistort:
            image, source = undistort(image, source), CameraModel(width, height, source.K)
        crop = camera.source.crop_xywh or (0, 0, width, height)
        x, y, crop_width, crop_height = crop
        if min(x, y) < 0 or min(crop_width, crop_height) < 1 or x + crop_width > width or y + crop_height > height:
            raise SensorError(
                f"camera {self._name}: crop_xywh {crop} doesn't fit an image of {width}x{height}; mend the rig"
            )
        image = image[y : y + crop_height, x : x + crop_width]
        if (crop_width, crop_height) != (camera.width, camera.height):
            smaller = crop_width > camera.width
            interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
            image = np.asarray(cv2.resize(image, (camera.width, camera.height), interpolation=interpolation), np.uint8)
        if source is not None:
            return image, crop_and_resize(source, crop, camera.width, camera.height)
        own = calibrated_camera(camera.width, camera.height, camera.fovy_rad, camera.K, camera.distortion)
        if camera.source.undistort:
            return undistort(image, own), CameraModel(own.width, own.height, own.K)
        return image, own


def open_capture(name: str, address: str) -> cv2.VideoCapture:
    """Opens a V4L2 device or a video file.

    Raises:
        SensorError: if it can't be opened or gives no image.
    """
    capture = cv2.VideoCapture(address)
    if not capture.isOpened():
        raise SensorError(
            f"camera {name}: {address} can't be opened; does it exist, may you read it (group video), and is no other "
            "program using it?"
        )
    return capture
