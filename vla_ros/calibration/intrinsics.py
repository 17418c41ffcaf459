"""Focal lengths, centre and lens of a camera from views of a board, judged by views that were left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vla_ros.calibration.verdict import CalibrateError, Check, at_most
from vla_ros.calibration.views import MIN_VIEWS, View, missing, spread_deg
from vla_ros.geometry.hand_eye import CalibrationError, locate_target
from vla_ros.types import CameraModel, FloatArray

LENSES = (0, 4, 5, 8)
"""Numbers of distortion coefficients to choose from."""

_FLAGS = {
    0: cv2.CALIB_FIX_K1 | cv2.CALIB_FIX_K2 | cv2.CALIB_FIX_K3 | cv2.CALIB_ZERO_TANGENT_DIST,
    4: cv2.CALIB_FIX_K3,
    5: 0,
    8: cv2.CALIB_RATIONAL_MODEL,
}
_REFUSED_VIEWS, _REFUSED_SPREAD_DEG = 6, 10.0
_SPREAD_DEG = 25.0
# Every so many views are left out.
_EVERY = 4
# A lens with more coefficients has to be so much better on what was left out.
_WORTH = 0.95
RMS_LIMIT_PX = 0.5
_FOCAL_LIMIT = 0.005


@dataclass(frozen=True)
class Intrinsics:
    """A calibrated camera, and how well the views agree with it.

    Attributes:
        camera: intrinsics and lens, from all views.
        rms_px: root mean square distance of the points from where the camera has them, all views.
        view_rms_px: name of each view -> the same of that one.
        left_out_rms_px: of views that a calibration from the others didn't know, by that calibration.
        left_out: names of those.
        focal_std: standard deviation of the focal lengths, as a part of them, the larger of both.
        checks: the verdict.
    """

    camera: CameraModel
    rms_px: float
    view_rms_px: dict[str, float]
    left_out_rms_px: float
    left_out: tuple[str, ...]
    focal_std: float
    checks: tuple[Check, ...]


def calibrate_intrinsics(views: Sequence[View], width: int, height: int, lens: int | None = None) -> Intrinsics:
    """Calibrates a camera.

    Args:
        views: of the board.
        width: of the images, pixels.
        height: of the images, pixels.
        lens: number of distortion coefficients; None for the fewest that do.

    Raises:
        CalibrateError: for too few views, boards that are all parallel, or views that no camera fits.

    Source: Zhang, "A flexible new technique for camera calibration", PAMI 2000, as OpenCV's calibrateCamera has it.
    """
    _refuse(views)
    choices = LENSES if lens is None else (lens,)
    known = [view for index, view in enumerate(views) if index % _EVERY != _EVERY - 1]
    unknown = [view for index, view in enumerate(views) if index % _EVERY == _EVERY - 1]
    errors: dict[int, float] = {}
    for choice in choices:
        if _unknowns(choice, len(known)) < sum(2 * len(view.sighting.ids) for view in known):
            errors[choice] = _rms(_residuals(_fit(known, width, height, choice)[0], unknown))
    if not errors:
        raise CalibrateError("camera", "the views show fewer points than there are unknowns", "take more views")
    chosen = next(choice for choice in sorted(errors) if _WORTH * errors[choice] <= min(errors.values()))
    camera, focal_std, rms_px = _fit(views, width, height, chosen)
    per_view = {view.name: _rms(residuals) for view, residuals in zip(views, _residuals(camera, views), strict=True)}
    result = Intrinsics(camera, rms_px, per_view, errors[chosen], tuple(view.name for view in unknown), focal_std, ())
    checks = (*_coverage_checks(views, width, height), *_quality_checks(result))
    return Intrinsics(camera, rms_px, per_view, errors[chosen], result.left_out, focal_std, checks)


def _refuse(views: Sequence[View]) -> None:
    if len(views) < _REFUSED_VIEWS:
        problem = f"{len(views)} good views (limit {_REFUSED_VIEWS})"
        raise CalibrateError("camera", problem, f"take {MIN_VIEWS} and more, each from elsewhere")
    spread = spread_deg(views)
    if spread < _REFUSED_SPREAD_DEG:
        problem = f"the boards of all views are parallel within {spread:.1f} degrees (limit {_REFUSED_SPREAD_DEG:g})"
        raise CalibrateError("camera", f"{problem}, so that no focal length can be told", "tilt it every way")


def _unknowns(lens: int, views: int) -> int:
    return 4 + lens + 6 * views


def _fit(views: Sequence[View], width: int, height: int, lens: int) -> tuple[CameraModel, float, float]:
    """The camera, its focal lengths' relative standard deviation, and the root mean square residual in pixels."""
    points = [view.sighting.points_m.astype(np.float32).reshape(-1, 1, 3) for view in views]
    pixels = [view.sighting.pixels.astype(np.float32).reshape(-1, 1, 2) for view in views]
    try:
        rms_px, K, D, _, _, std, _, _ = cv2.calibrateCameraExtended(
            points, pixels, (width, height), np.eye(3), np.zeros(5), flags=_FLAGS[lens]
        )
    except cv2.error as error:
        raise CalibrateError("camera", f"no camera fits the views ({error})", "take others") from error
    found = np.array(K, dtype=np.float64)
    if not (np.isfinite(found).all() and np.isfinite(D).all()):
        raise CalibrateError("camera", "no camera fits the views", "take others, with the board tilted every way")
    camera = CameraModel(width, height, found, tuple(float(value) for value in np.ravel(D)[:lens]))
    focal_std = float(np.max(np.ravel(std)[:2] / found[[0, 1], [0, 1]]))
    return camera, focal_std, float(rms_px)


def _residuals(camera: CameraModel, views: Sequence[View]) -> list[FloatArray]:
    """Distance of each view's points from where the camera has them, the board where it fits best, pixels."""
    found = []
    for view in views:
        try:
            _, rms = locate_target(camera, view.sighting.points_m, view.sighting.pixels)
        except CalibrationError:
            rms = float("inf")
        found.append(np.full(len(view.sighting.ids), rms))
    return found


def _rms(residuals: Sequence[FloatArray] | FloatArray) -> float:
    return float(np.sqrt(np.mean(np.concatenate([np.ravel(part) for part in residuals]) ** 2)))


def _coverage_checks(views: Sequence[View], width: int, height: int) -> list[Check]:
    left = missing(views, width, height)
    spread = spread_deg(views)
    tilted = Check("tilt", spread >= _SPREAD_DEG, f"boards up to {spread:.0f} degrees apart (least {_SPREAD_DEG:g})")
    text = f"missing: {'; '.join(left)}" if left else f"{len(views)} views, in all parts of the image and tilts"
    return [Check("coverage", not left, text), tilted]


def _quality_checks(found: Intrinsics) -> list[Check]:
    typical = float(np.median(list(found.view_rms_px.values())))
    worst = max(found.view_rms_px, key=lambda name: found.view_rms_px[name])
    limit_px = max(3.0 * typical, 0.1)
    flat = "is the board flat, and its size as measured? hold it still"
    return [
        at_most("rms", found.rms_px, RMS_LIMIT_PX, "reprojection error", "px", flat),
        at_most("left_out_rms", found.left_out_rms_px, RMS_LIMIT_PX, "error on views left out", "px", "take more"),
        at_most("focal_std", 100 * found.focal_std, 100 * _FOCAL_LIMIT, "focal length known to", "%", "tilt it more"),
        at_most("worst_view", found.view_rms_px[worst], limit_px, f"worst view {worst}:", "px", "leave it out"),
    ]
