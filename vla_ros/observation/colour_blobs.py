"""Where an image shows a colour: hue windows and connected components."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vla_ros.errors import UnknownNameError
from vla_ros.types import FloatArray, ImageArray

# Hue windows in OpenCV's half degrees; a lower bound above the upper one passes through 0.
HUES = {"red": (172, 8), "green": (45, 80), "blue": (100, 130)}
# Arms, grippers, tables and their shadows are duller or darker than a painted block.
_LEAST_SATURATION = 110
_LEAST_VALUE = 35
_LEAST_PIXELS = 12


@dataclass(frozen=True)
class ColourBlob:
    """A connected patch of one colour.

    Attributes:
        mask: (height, width) bool, of the whole image.
        centroid_px: (2,) mean pixel (x, y).
        bounds_xywh: bounding box, pixels.
        pixels: how many.
        is_cut: whether it touches the edge of the image, so that a part of it may be out of view.
    """

    mask: NDArray[np.bool_]
    centroid_px: FloatArray
    bounds_xywh: tuple[int, int, int, int]
    pixels: int
    is_cut: bool


def colour_mask(image: ImageArray, colour: str) -> NDArray[np.bool_]:
    """(height, width) bool: which pixels of an rgb image have the colour.

    Raises:
        UnknownNameError: for a colour that isn't in `HUES`.
    """
    if colour not in HUES:
        raise UnknownNameError("colour", colour, HUES)
    lower, upper = HUES[colour]
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    is_hue = (hue >= lower) & (hue <= upper) if lower <= upper else (hue >= lower) | (hue <= upper)
    return np.asarray(is_hue & (saturation >= _LEAST_SATURATION) & (value >= _LEAST_VALUE))


def find_blobs(image: ImageArray, colour: str, most: int = 3) -> list[ColourBlob]:
    """The largest patches of a colour in an rgb image, largest first."""
    mask = colour_mask(image, colour)
    height, width = mask.shape
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:count, cv2.CC_STAT_AREA]
    blobs = []
    for label in 1 + np.argsort(-areas, kind="stable")[:most]:
        x, y, w, h, pixels = (int(entry) for entry in stats[label])
        if pixels < _LEAST_PIXELS:
            break
        is_cut = x == 0 or y == 0 or x + w == width or y + h == height
        blobs.append(ColourBlob(labels == label, np.asarray(centroids[label]), (x, y, w, h), pixels, is_cut))
    return blobs
