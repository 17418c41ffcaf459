"""Images of a board as a camera of known intrinsics and lens takes them; OpenCV undoes the lens, not vla_ros."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from vla_ros.calibration.boards import Board, draw_board
from vla_ros.geometry import rotations, se3
from vla_ros.types import CameraModel, FloatArray, ImageArray

_SQUARE_PX = 100
_MARGIN_PX = 60

# Where the board's middle is, m, and how it is tilted about the image's x and y, rad: as somebody is guided.
SHOWN = [
    ((-0.16, -0.11, 0.55), (0.4, 0.0)),
    ((0.16, -0.11, 0.55), (-0.4, 0.1)),
    ((-0.16, 0.11, 0.55), (0.0, 0.5)),
    ((0.16, 0.11, 0.55), (0.0, -0.5)),
    ((0.0, 0.0, 0.30), (0.1, 0.1)),
    ((0.0, -0.12, 0.5), (0.35, 0.35)),
    ((0.0, 0.12, 0.5), (-0.35, 0.35)),
    ((-0.17, 0.0, 0.5), (0.35, -0.35)),
    ((0.17, 0.0, 0.5), (-0.35, -0.35)),
    ((0.02, 0.01, 0.4), (0.6, 0.0)),
    ((-0.02, 0.02, 0.4), (-0.6, 0.0)),
    ((0.01, -0.02, 0.4), (0.0, 0.7)),
    ((-0.01, 0.0, 0.7), (0.2, -0.6)),
]


class BoardCamera:
    """Draws, with so many samples a pixel side."""

    def __init__(self, camera: CameraModel, samples: int = 3) -> None:
        self.camera, self._samples = camera, samples
        offsets = (np.arange(samples) - (samples - 1) / 2) / samples
        u = (np.arange(camera.width)[:, None] + offsets).ravel()
        v = (np.arange(camera.height)[:, None] + offsets).ravel()
        pixels = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 1, 2)
        ideal = (pixels[:, 0] - camera.K[:2, 2]) / camera.K[[0, 1], [0, 1]]
        if camera.distortion:
            end = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-9)
            lens = np.array(camera.distortion)
            ideal = cv2.undistortPoints(pixels, camera.K, lens, R=np.eye(3), P=np.eye(3), criteria=end).reshape(-1, 2)
        self._rays = np.column_stack((ideal, np.ones(len(ideal))))
        self._size = (len(v), len(u))

    def take(
        self,
        board: Board,
        T_cam_board: FloatArray,
        rng: np.random.Generator | None = None,
        noise: float = 2.0,
        blur_px: float = 0.5,
    ) -> ImageArray:
        """(h, w, 3) uint8 of the board on white before gray; noise in gray values, blur as a standard deviation."""
        T_board_cam = se3.invert(T_cam_board)
        rays = self._rays @ T_board_cam[:3, :3].T
        with np.errstate(divide="ignore", invalid="ignore"):
            far = -T_board_cam[2, 3] / rays[:, 2]
        points = T_board_cam[:2, 3] + far[:, None] * rays[:, :2]
        points[~(far > 0.0)] = -10.0
        sheet = _sheet(board)
        at = points * _SQUARE_PX / board.square_m + _MARGIN_PX - 0.5
        x, y = (np.clip(at[:, i], -1e4, 1e4).reshape(self._size).astype(np.float32) for i in (0, 1))
        fine = cv2.remap(sheet, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=110)
        size = (self.camera.width, self.camera.height)
        gray = cv2.resize(fine, size, interpolation=cv2.INTER_AREA).astype(np.float64)
        if blur_px:
            gray = cv2.GaussianBlur(gray, (0, 0), blur_px)
        if rng is not None:
            gray = gray + rng.normal(scale=noise, size=gray.shape)
        return np.repeat(np.clip(np.round(gray), 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def look_at(board: Board, where_m: FloatArray, tilt_rad: FloatArray, roll_rad: float = 0.0) -> FloatArray:
    """(4, 4) T_cam_board with the board's middle at a place, tilted about the image's x and y, then rolled."""
    tilt = rotations.rotvec_to_matrix(np.array([tilt_rad[0], tilt_rad[1], 0.0]))
    R = np.asarray(tilt @ rotations.rotvec_to_matrix(np.array([0.0, 0.0, roll_rad])))
    return se3.make_pose(np.asarray(where_m - R @ board.middle_m), R)


@functools.lru_cache(maxsize=4)
def _sheet(board: Board) -> ImageArray:
    pattern = np.pad(draw_board(board, _SQUARE_PX), _MARGIN_PX, constant_values=255)
    return np.asarray(np.round(30.0 + pattern.astype(np.float64) * (190.0 / 255.0)), dtype=np.uint8)
