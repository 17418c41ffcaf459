"""How much a picture moves from one image to the next: by optical flow, or by a board where one is seen."""

from __future__ import annotations

import itertools

import cv2
import numpy as np

from vla_ros.calibration.boards import Board, Sighting, find_board
from vla_ros.calibration.views import moved_px
from vla_ros.types import FloatArray, ImageArray

_WIDTH = 160
# Part of the picture that has to move, at most: an arm before a room fills little of it.
_MOVING = 0.05


def flow_motion(images: list[ImageArray]) -> FloatArray:
    """(n - 1,) mean flow of the twentieth of the picture that moves most, from each image to the next, pixels.

    Args:
        images: (h, w) uint8, gray, of one size.

    Source: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016, as OpenCV has it.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    small = [_small(image) for image in images]
    found = []
    for before, now in itertools.pairwise(small):
        still = np.zeros((*before.shape, 2), dtype=np.float32)
        sizes = np.linalg.norm(np.asarray(flow.calc(before, now, still)), axis=-1).ravel()
        count = max(1, round(_MOVING * sizes.size))
        found.append(float(np.partition(sizes, -count)[-count:].mean()))
    return np.array(found)


def board_motion(images: list[ImageArray], board: Board) -> FloatArray:
    """(n - 1,) by how much the board's points moved from each image to the next, pixels; NaN where it isn't seen."""
    seen: list[Sighting | None] = [find_board(board, image) for image in images]
    moved = [
        moved_px(before, now) if before is not None and now is not None else float("nan")
        for before, now in itertools.pairwise(seen)
    ]
    return np.array(moved)


def _small(image: ImageArray) -> ImageArray:
    height, width = image.shape
    if width <= _WIDTH:
        return image
    size = (_WIDTH, max(1, round(height * _WIDTH / width)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
