"""What is known of the coloured blocks: views of several cameras fused over time, kept while a block is hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vla_ros.geometry.cameras import project
from vla_ros.geometry.se3 import invert
from vla_ros.observation.cube_pose import CubeView, locate_cube, wrap_quarter_turn
from vla_ros.types import CameraFrame, FloatArray

_NS = 1e-9
# An edge of the silhouette is found to about half a pixel; below the floor, calibration is what is left.
_EDGE_ERROR_PX = 0.5
_LEAST_SIGMA_M = 0.0005
_LEAST_OVERLAP = 0.55
GOOD_OVERLAP = 0.8
# What an estimate loses while nobody looks: the block may have been touched.
_DRIFT_M_S = 0.0002
# A view this much vaguer than the estimate only checks it, so that a badly calibrated camera can't drag it away.
_VAGUE_RATIO = 2.0
_GATE_SIGMAS, _GATE_M = 4.0, 0.003
_VIEWS_TO_MOVE = 3
# A patch within this many sides of the tcp is in the hand.
_HELD_SIDES = 1.0


@dataclass(frozen=True)
class BlockEstimate:
    """Where a block is thought to stand.

    Attributes:
        p_base: (3,) centre in base, m.
        yaw_rad: about base z, in [-pi/4, pi/4).
        sigma_m: standard error of each horizontal coordinate.
        seen_ns: exposure of the last good view that agreed with it.
        good_views: how many good views there were.
    """

    p_base: FloatArray
    yaw_rad: float
    sigma_m: float
    seen_ns: int
    good_views: int


class BlockTracker:
    """Estimates of the blocks by colour, fed with camera frames in order of time."""

    def __init__(self, colours: Sequence[str], side_m: float, table_height_m: float) -> None:
        self._colours, self._side_m, self._table_height_m = tuple(colours), side_m, table_height_m
        self._estimates: dict[str, BlockEstimate] = {}
        self._strays: dict[str, list[CubeView]] = {}
        self._last_stamp_ns: dict[str, int] = {}

    @property
    def estimates(self) -> Mapping[str, BlockEstimate]:
        return dict(self._estimates)

    def update(self, frames: Mapping[str, CameraFrame], p_base_tcp: FloatArray) -> None:
        """Takes in every frame that is new and has geometry.

        A patch seen where a raised hand is counts as held: it says nothing of where the block stands.

        Args:
            frames: by the name of the image.
            p_base_tcp: (3,) of the tcp at about that time.
        """
        for name, frame in frames.items():
            if frame.camera is None or self._last_stamp_ns.get(name) == frame.stamp_ns:
                continue
            self._last_stamp_ns[name] = frame.stamp_ns
            for colour in self._colours:
                known = self._estimates.get(colour)
                hint = known.yaw_rad if known is not None else None
                view = locate_cube(frame, colour, self._side_m, self._table_height_m, hint)
                if view is None or view.overlap < _LEAST_OVERLAP:
                    continue
                if not self._is_held(view, frame, p_base_tcp):
                    sigma_m = _view_sigma(view, float(frame.camera.K[0, 0]))
                    self._take(colour, view, sigma_m, frame.stamp_ns)

    def _is_held(self, view: CubeView, frame: CameraFrame, p_base_tcp: FloatArray) -> bool:
        if (
            frame.camera is None
            or frame.T_base_cam is None
            or p_base_tcp[2] < self._table_height_m + 2.0 * self._side_m
        ):
            return False
        p_cam = invert(frame.T_base_cam)[:3] @ np.array([*p_base_tcp, 1.0])
        if p_cam[2] <= 0.0:
            return False
        side_px = self._side_m * float(frame.camera.K[0, 0]) / float(p_cam[2])
        return bool(np.linalg.norm(view.centroid_px - project(frame.camera, p_cam)[0]) < _HELD_SIDES * side_px)

    def _take(self, colour: str, view: CubeView, sigma_m: float, stamp_ns: int) -> None:
        is_good = view.overlap >= GOOD_OVERLAP
        known = self._estimates.get(colour)
        if known is None:
            self._estimates[colour] = BlockEstimate(view.p_base, view.yaw_rad, sigma_m, stamp_ns, int(is_good))
            return
        aged_m = known.sigma_m + _DRIFT_M_S * max(0.0, (stamp_ns - known.seen_ns) * _NS)
        innovation = view.p_base - known.p_base
        if np.linalg.norm(innovation) > _GATE_M + _GATE_SIGMAS * float(np.hypot(aged_m, sigma_m)):
            self._stray(colour, view, sigma_m, stamp_ns)
            return
        if is_good:
            self._strays[colour] = []
            known = replace(known, seen_ns=stamp_ns, good_views=known.good_views + 1)
        if sigma_m <= _VAGUE_RATIO * aged_m:
            gain = aged_m**2 / (aged_m**2 + sigma_m**2)
            turn = wrap_quarter_turn(view.yaw_rad - known.yaw_rad)
            known = replace(
                known,
                p_base=known.p_base + gain * innovation,
                yaw_rad=wrap_quarter_turn(known.yaw_rad + gain * turn),
                sigma_m=max(_LEAST_SIGMA_M, float(np.sqrt(1.0 - gain)) * aged_m),
            )
        self._estimates[colour] = known

    def _stray(self, colour: str, view: CubeView, sigma_m: float, stamp_ns: int) -> None:
        """A view far from the estimate: believed once several good ones agree, for then the block has moved."""
        if view.overlap < GOOD_OVERLAP:
            return
        near = [
            stray
            for stray in self._strays.get(colour, [])
            if np.linalg.norm(stray.p_base - view.p_base) < _GATE_M + 2.0 * _GATE_SIGMAS * sigma_m
        ]
        self._strays[colour] = [*near, view]
        if len(near) + 1 >= _VIEWS_TO_MOVE:
            self._strays[colour] = []
            count = self._estimates[colour].good_views + len(near) + 1
            self._estimates[colour] = BlockEstimate(view.p_base, view.yaw_rad, sigma_m, stamp_ns, count)


def _view_sigma(view: CubeView, focal_px: float) -> float:
    sigma_m = _EDGE_ERROR_PX * view.range_m / focal_px
    if view.overlap < GOOD_OVERLAP or view.is_cut:
        sigma_m = 4.0 * sigma_m + 0.003
    return max(_LEAST_SIGMA_M, sigma_m)
