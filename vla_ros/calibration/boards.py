"""Boards to calibrate with: ChArUco boards and grids of AprilTags; drawn, and found in images."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np

from vla_ros.calibration.verdict import CalibrateError
from vla_ros.errors import UnknownNameError
from vla_ros.types import FloatArray, ImageArray

BoardKind = Literal["charuco", "apriltag"]
FORM = "KIND:COLUMNSxROWS:SQUARE_MM:MARKER_MM[:DICTIONARY]"
"""How a board is written, such as charuco:7x5:35:26."""

DEFAULT = "charuco:7x5:35:26"
"""On A4 and US letter."""

_DICTIONARIES: dict[BoardKind, str] = {"charuco": "DICT_4X4_50", "apriltag": "DICT_APRILTAG_36H11"}


@dataclass(frozen=True)
class Board:
    """A flat board. Its frame: x right, y down as printed, z into the paper, origin at the upper left of the pattern.

    Attributes:
        kind: `charuco`: a chessboard with markers in its white squares; `apriltag`: a grid of tags.
        columns: squares, or tags, side by side.
        rows: the same from top to bottom.
        square_m: side of a square; of a grid of tags, from one tag's edge to the same edge of the next.
        marker_m: side of a marker, its black edge included.
        dictionary: of the markers, as OpenCV names it.
    """

    kind: BoardKind
    columns: int
    rows: int
    square_m: float
    marker_m: float
    dictionary: str

    def __post_init__(self) -> None:
        if self.kind not in get_args(BoardKind):
            raise UnknownNameError("kind of board", self.kind, get_args(BoardKind))
        if not hasattr(cv2.aruco, self.dictionary) or not self.dictionary.startswith("DICT_"):
            raise UnknownNameError("dictionary", self.dictionary, [w for w in dir(cv2.aruco) if w.startswith("DICT_")])
        least = 3 if self.kind == "charuco" else 2
        if self.columns < least or self.rows < least:
            problem = f"{self.columns}x{self.rows} is too few"
            raise CalibrateError("board", problem, f"it takes {least}x{least} and more")
        if not 0.0 < self.marker_m < self.square_m:
            problem = f"markers of {1e3 * self.marker_m:g} mm in squares of {1e3 * self.square_m:g} mm"
            raise CalibrateError("board", problem, "a marker is smaller than its square")
        if _dictionary(self.dictionary).bytesList.shape[0] < self.markers:
            problem = f"{self.markers} markers, more than {self.dictionary} has"
            raise CalibrateError("board", problem, "take another one")

    @property
    def markers(self) -> int:
        """How many it has."""
        count = self.columns * self.rows
        return count // 2 if self.kind == "charuco" else count

    @property
    def points(self) -> int:
        """How many points it has that can be found."""
        return (self.columns - 1) * (self.rows - 1) if self.kind == "charuco" else 4 * self.markers

    @property
    def size_m(self) -> tuple[float, float]:
        """Width and height of the pattern."""
        gap_m = self.square_m - self.marker_m if self.kind == "apriltag" else 0.0
        return self.columns * self.square_m - gap_m, self.rows * self.square_m - gap_m

    @property
    def middle_m(self) -> FloatArray:
        """(3,) the pattern's middle in the board's frame."""
        return np.array([*self.size_m, 0.0]) / 2.0

    def __str__(self) -> str:
        size = f"{self.columns}x{self.rows}:{1e3 * self.square_m:g}:{1e3 * self.marker_m:g}"
        return f"{self.kind}:{size}:{self.dictionary}"


@dataclass(frozen=True)
class Sighting:
    """A board's points as an image shows them.

    Attributes:
        ids: (n,) of the points, the same in every image.
        points_m: (n, 3) in the board's frame.
        pixels: (n, 2).
    """

    ids: tuple[int, ...]
    points_m: FloatArray
    pixels: FloatArray


def parse_board(text: str) -> Board:
    """The board that a text of FORM stands for.

    Raises:
        CalibrateError: if it is none.
        UnknownNameError: for a kind or dictionary that there isn't.
    """
    parts = text.split(":")
    try:
        kind, size, square, marker, *rest = parts
        columns, rows = (int(word) for word in size.split("x"))
        square_m, marker_m = float(square) / 1e3, float(marker) / 1e3
        (dictionary,) = rest or (_DICTIONARIES.get(kind, "DICT_4X4_50"),)  # type: ignore[call-overload]
    except ValueError as error:
        raise CalibrateError(f"board {text!r}", "isn't one", f"write {FORM}, such as {DEFAULT}") from error
    return Board(kind, columns, rows, square_m, marker_m, dictionary)  # type: ignore[arg-type]


def draw_board(board: Board, square_px: int) -> ImageArray:
    """The pattern alone, without a margin: (h, w) uint8, as large as the board at so many pixels a square.

    OpenCV draws boards, too, but refuses many sizes (5.0.0: `generateImage` without a margin).
    """
    per_m = square_px / board.square_m
    width, height = (round(side * per_m) for side in board.size_m)
    sheet = np.full((height, width), 255, dtype=np.uint8)
    if board.kind == "charuco":
        for row in range(board.rows):
            for column in range(row % 2, board.columns, 2):
                y, x = row * square_px, column * square_px
                sheet[y : y + square_px, x : x + square_px] = 0
    markers, side_px = _dictionary(board.dictionary), round(board.marker_m * per_m)
    for number, corners in enumerate(_pattern(board).getObjPoints()):
        x, y = (round(float(value) * per_m) for value in corners[0][:2])
        sheet[y : y + side_px, x : x + side_px] = cv2.aruco.generateImageMarker(markers, number, side_px)
    return sheet


def find_board(board: Board, image: ImageArray) -> Sighting | None:
    """The board's points in an image (h, w[, 3]) uint8, rgb; None where it shows too few for a pose."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    if board.kind == "charuco":
        corners, ids, _, _ = _detector(board).detectBoard(gray)
        if ids is None or len(ids) < 6:
            return None
        found = [int(number) for number in np.ravel(ids)]
        points = np.asarray(_pattern(board).getChessboardCorners(), dtype=np.float64)[found]
        return _spread(Sighting(tuple(found), points, np.asarray(corners, dtype=np.float64).reshape(-1, 2)))
    markers, ids, _ = _detector(board).detectMarkers(gray)
    if ids is None:
        return None
    corners_of = _pattern(board).getObjPoints()
    shown = [(int(number), seen) for number, seen in zip(np.ravel(ids), markers, strict=True) if number < board.markers]
    if len(shown) < 2:
        return None
    return Sighting(
        tuple(4 * number + corner for number, _ in shown for corner in range(4)),
        np.concatenate([np.asarray(corners_of[number], dtype=np.float64).reshape(4, 3) for number, _ in shown]),
        np.concatenate([np.asarray(seen, dtype=np.float64).reshape(4, 2) for _, seen in shown]),
    )


def _spread(sighting: Sighting) -> Sighting | None:
    """None for points on a line, which tell no pose."""
    spread = np.linalg.svd(sighting.points_m - sighting.points_m.mean(axis=0), compute_uv=False)
    return sighting if spread[1] > 0.1 * spread[0] else None


def _dictionary(name: str) -> Any:
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name))


@functools.lru_cache(maxsize=8)
def _pattern(board: Board) -> Any:
    size, markers = (board.columns, board.rows), _dictionary(board.dictionary)
    if board.kind == "charuco":
        return cv2.aruco.CharucoBoard(size, board.square_m, board.marker_m, markers)
    return cv2.aruco.GridBoard(size, board.marker_m, board.square_m - board.marker_m, markers)


@functools.lru_cache(maxsize=8)
def _detector(board: Board) -> Any:
    if board.kind == "charuco":
        return cv2.aruco.CharucoDetector(_pattern(board))
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    return cv2.aruco.ArucoDetector(_dictionary(board.dictionary), parameters)
