"""From a camera's image to the one a policy's contract asks for: flip, cut, resize, the camera model along with it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from vla_ros.contract import WHOLE, ImageSpec
from vla_ros.errors import SensorError
from vla_ros.geometry.cameras import crop_and_resize
from vla_ros.geometry.se3 import make_pose
from vla_ros.types import CameraFrame, CameraModel, FloatArray, ImageArray

_INTERPOLATION = {
    "area": cv2.INTER_AREA,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}
Box = tuple[int, int, int, int]
_HALF_TURN = make_pose(np.zeros(3), np.diag([-1.0, -1.0, 1.0]))


def prepare_frame(frame: CameraFrame, spec: ImageSpec) -> CameraFrame:
    """The frame as the contract wants it.

    A point of the scene that `frame` shows at a pixel is at the pixel of the result to which the result's own camera
    model and pose project it; a half turn therefore turns the optical frame, too, and a mirrored image has neither.
    """
    height, width = frame.image.shape[:2]
    wanted_width, wanted_height = prepared_size(spec, width, height)
    image, camera, T_base_cam = frame.image, frame.camera, frame.T_base_cam
    if spec.flip == "half_turn":
        image = np.ascontiguousarray(image[::-1, ::-1])
        camera = None if camera is None else _turn_camera(camera)
        T_base_cam = None if T_base_cam is None else T_base_cam @ _HALF_TURN
    elif spec.flip == "mirror":
        image, camera, T_base_cam = np.ascontiguousarray(image[:, ::-1]), None, None
    if spec.jpeg_quality:
        image = _through_jpeg(image, spec.jpeg_quality)
    if (wanted_width, wanted_height) != (width, height) or spec.region_xywh != WHOLE:
        image, camera = _resize(image, camera, spec, wanted_width, wanted_height)
    return replace(frame, image=image, camera=camera, T_base_cam=T_base_cam)


def prepared_size(spec: ImageSpec, width: int, height: int) -> tuple[int, int]:
    """Width and height of what `prepare_frame` makes of an image of this size, pixels."""
    _, _, region_width, region_height = _region(spec, width, height)
    return spec.width or region_width, spec.height or region_height


def _region(spec: ImageSpec, width: int, height: int) -> Box:
    """The part of an image that the contract keeps, in whole pixels, at least one."""
    x, y, region_width, region_height = spec.region_xywh
    left, top = min(round(x * width), width - 1), min(round(y * height), height - 1)
    right, bottom = min(round((x + region_width) * width), width), min(round((y + region_height) * height), height)
    return left, top, max(1, right - left), max(1, bottom - top)


def black_frame(stamp_ns: int, width: int, height: int) -> CameraFrame:
    """What stands for an absent image: black, and without geometry, so that nobody takes it for a view."""
    return CameraFrame(stamp_ns, np.zeros((height, width, 3), dtype=np.uint8))


def _through_jpeg(image: ImageArray, quality: int) -> ImageArray:
    # OpenCV has the channels the other way round, which counts: JPEG keeps less of the colours than of brightness.
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    is_done, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if is_done else None
    if decoded is None:
        raise SensorError(f"an image of {image.shape} can't go through JPEG; set jpeg_quality 0 in the contract")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def prepare_points(points: FloatArray, spec: ImageSpec, width: int, height: int) -> FloatArray:
    """Where points of a camera's image are in what `prepare_frame` makes of it.

    Args:
        points: (..., 2) from (0, 0), the image's upper left corner, to (1, 1), its lower right one.
        spec: the contract's.
        width: of the camera's image, pixels.
        height: likewise.

    Returns:
        (..., 2) likewise in the result; outside of [0, 1] where that doesn't show the point.
    """
    points = np.asarray(points, dtype=np.float64)
    if spec.flip == "half_turn":
        points = 1.0 - points
    elif spec.flip == "mirror":
        points = np.stack([1.0 - points[..., 0], points[..., 1]], axis=-1)
    wanted = np.array(prepared_size(spec, width, height))
    (x, y, *cut), (left, top, *inner) = _placement(spec, width, height, *wanted.tolist())
    in_cut = (points * (width, height) - (x, y)) / cut
    return np.asarray((in_cut * inner + (left, top)) / wanted)


def _placement(spec: ImageSpec, source_width: int, source_height: int, width: int, height: int) -> tuple[Box, Box]:
    """Which part (x, y, width, height) of the source is shown, and where in the result."""
    region_x, region_y, region_width, region_height = _region(spec, source_width, source_height)
    cut_width, cut_height, inner_width, inner_height = region_width, region_height, width, height
    if spec.resize == "crop":
        scale = max(width / region_width, height / region_height)
        cut_width, cut_height = round(width / scale), round(height / scale)
    elif spec.resize == "pad":
        scale = min(width / region_width, height / region_height)
        inner_width, inner_height = max(1, round(region_width * scale)), max(1, round(region_height * scale))
    x, y = region_x + (region_width - cut_width) // 2, region_y + (region_height - cut_height) // 2
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    return (x, y, cut_width, cut_height), (left, top, inner_width, inner_height)


def _resize(
    image: ImageArray, camera: CameraModel | None, spec: ImageSpec, width: int, height: int
) -> tuple[ImageArray, CameraModel | None]:
    source_height, source_width = image.shape[:2]
    box, (left, top, inner_width, inner_height) = _placement(spec, source_width, source_height, width, height)
    x, y, cut_width, cut_height = box
    cut = image[y : y + cut_height, x : x + cut_width]
    inner = cv2.resize(cut, (inner_width, inner_height), interpolation=_INTERPOLATION[spec.interpolation])
    resized = np.zeros((height, width, 3), dtype=np.uint8)
    resized[top : top + inner_height, left : left + inner_width] = inner
    if camera is None:
        return resized, None
    moved = crop_and_resize(camera, box, inner_width, inner_height)
    return resized, CameraModel(width, height, _shift(moved.K, left, top), moved.distortion)


def _shift(K: FloatArray, left: int, top: int) -> FloatArray:
    shifted = K.copy()
    shifted[:2, 2] += (left, top)
    return shifted


def _turn_camera(camera: CameraModel) -> CameraModel:
    K = camera.K.copy()
    K[:2, 2] = (camera.width - 1 - K[0, 2], camera.height - 1 - K[1, 2])
    # Radial terms are even in (x, y); the tangential p1 and p2 change sign with the axes.
    sign = np.ones(len(camera.distortion))
    sign[2:4] = -1.0
    return CameraModel(camera.width, camera.height, K, tuple((sign * camera.distortion).tolist()))
