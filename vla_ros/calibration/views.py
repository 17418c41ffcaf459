"""Views of a board: which are good, which repeat others, and which are missing for intrinsics."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vla_ros.calibration.boards import Board, Sighting, find_board
from vla_ros.geometry.hand_eye import CalibrationError, locate_target
from vla_ros.types import CameraModel, FloatArray, ImageArray

MIN_VIEWS = 10
"""With fewer, what is left out says little."""

BLUR_LIMIT_PX = 2.0
TILT_DEG = 15.0
_GRID = 3
_LEAST_POINTS = 8
# Part of the image's diagonal by which points have to have moved for a view to be another one.
_NEW = 0.04
# Part of the image's width or height that the board has to fill in one view: the lens bends most at the edges.
_NEAR = 0.5
_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "middle", "right")


@dataclass(frozen=True)
class View:
    """One image of the board.

    Attributes:
        name: of the image, for a person.
        sighting: the board's points.
        blur_px: width of its edges, as the standard deviation of a blur.
        T_cam_board: (4, 4) pose of the board, by intrinsics that needn't be good yet.
    """

    name: str
    sighting: Sighting
    blur_px: float
    T_cam_board: FloatArray

    @property
    def normal(self) -> FloatArray:
        """(3,) into the board, in the optical frame."""
        return self.T_cam_board[:3, 2]


def look(board: Board, image: ImageArray, name: str, guess: CameraModel) -> View | str:
    """The board in an image, or why the image is of no use.

    Args:
        board: what to look for.
        image: (h, w[, 3]) uint8, rgb.
        name: of the image.
        guess: intrinsics to judge tilts by.
    """
    sighting = find_board(board, image)
    if sighting is None:
        return "no board is seen"
    count = len(sighting.ids)
    if count < _LEAST_POINTS:
        return f"only {count} of the board's points are seen (limit {_LEAST_POINTS})"
    blur_px = edge_width_px(image, sighting.pixels)
    if not blur_px <= BLUR_LIMIT_PX:
        return f"blurred: edges are {blur_px:.1f} px wide (limit {BLUR_LIMIT_PX:g}); hold still, focus, more light"
    try:
        T_cam_board, _ = locate_target(guess, sighting.points_m, sighting.pixels)
    except CalibrationError as error:
        return error.problem
    return View(name, sighting, blur_px, T_cam_board)


def edge_width_px(image: ImageArray, pixels: FloatArray) -> float:
    """How wide the edges around some points are, as the standard deviation of a Gaussian blur, pixels.

    A step of height c, blurred by sigma, is c / (sigma sqrt(2 pi)) steep; central differences make it 0.8 at least.

    Args:
        image: (h, w[, 3]) uint8.
        pixels: (n, 2) points of a black and white pattern.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    low = np.maximum(np.floor(pixels.min(axis=0)).astype(int) - 2, 0)
    high = np.ceil(pixels.max(axis=0)).astype(int) + 3
    patch = gray[low[1] : high[1], low[0] : high[0]].astype(np.float64)
    if min(patch.shape) < 5:
        return float("inf")
    down, across = np.gradient(patch)
    gradient = np.hypot(down, across)[1:-1, 1:-1]
    contrast = float(np.percentile(patch, 95) - np.percentile(patch, 5))
    steepest = float(np.percentile(gradient, 98))
    return contrast / (steepest * np.sqrt(2.0 * np.pi)) if steepest > 0.0 and contrast > 10.0 else float("inf")


def same_as(view: View, views: Sequence[View], width: int, height: int) -> View | None:
    """The view that another one repeats, None for a new one."""
    for other in views:
        pairs = _common(view.sighting, other.sighting)
        if len(pairs) < 4:
            continue
        moved = view.sighting.pixels[pairs[:, 0]] - other.sighting.pixels[pairs[:, 1]]
        if float(np.linalg.norm(moved, axis=1).max()) < _NEW * np.hypot(width, height):
            return other
    return None


def moved_px(before: Sighting, now: Sighting) -> float:
    """Mean distance by which the points that two images share have moved, pixels; NaN where they share none."""
    pairs = _common(now, before)
    if not len(pairs):
        return float("nan")
    return float(np.linalg.norm(now.pixels[pairs[:, 0]] - before.pixels[pairs[:, 1]], axis=1).mean())


def spread_deg(views: Sequence[View]) -> float:
    """The largest angle between two views' boards: 0 where all are parallel, and then no focal length can be had."""
    angles = [np.arccos(np.clip(a.normal @ b.normal, -1.0, 1.0)) for a, b in itertools.combinations(views, 2)]
    return float(np.degrees(max(angles, default=0.0)))


def missing(views: Sequence[View], width: int, height: int, wanted: int = MIN_VIEWS) -> list[str]:
    """What a person has to show the camera yet, in words; empty when there is enough.

    Args:
        views: so far.
        width: of the image, pixels.
        height: of the image, pixels.
        wanted: how many views there have to be.
    """
    left = []
    if len(views) < wanted:
        left.append(f"{wanted - len(views)} more views")
    places = [f"{_ROWS[row]} {_COLUMNS[column]}" for row, column in _uncovered(views, width, height)]
    if places:
        left.append(f"the board in the image's {', '.join(places)}")
    tilts: dict[str, Callable[[FloatArray], float]] = {
        "right": lambda n: float(n[0]),
        "left": lambda n: float(-n[0]),
        "lower": lambda n: float(n[1]),
        "upper": lambda n: float(-n[1]),
    }
    enough = np.sin(np.radians(TILT_DEG))
    sides = [side for side, part in tilts.items() if not any(part(view.normal) >= enough for view in views)]
    if sides:
        which = ", ".join(sides)
        left.append(f"the board tilted by {TILT_DEG:g} degrees and more, its {which} side towards the camera")
    extents = [np.ptp(view.sighting.pixels, axis=0) / (width, height) for view in views]
    if not any(float(extent.max()) >= _NEAR for extent in extents):
        left.append(f"the board nearer, until it fills {100 * _NEAR:.0f} % of the image's width or height")
    return left


def _uncovered(views: Sequence[View], width: int, height: int) -> list[tuple[int, int]]:
    count = np.zeros((_GRID, _GRID), dtype=int)
    for view in views:
        cells = np.clip((view.sighting.pixels * _GRID / (width, height)).astype(int), 0, _GRID - 1)
        np.add.at(count, (cells[:, 1], cells[:, 0]), 1)
    return [(row, column) for row in range(_GRID) for column in range(_GRID) if count[row, column] < 2]


def _common(a: Sighting, b: Sighting) -> NDArray[np.intp]:
    """(m, 2) indices of the points that two sightings share."""
    place = {number: index for index, number in enumerate(b.ids)}
    pairs = [(index, place[number]) for index, number in enumerate(a.ids) if number in place]
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)
