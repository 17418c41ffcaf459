"""Pose of a cube on a table from its silhouette in one calibrated image.

A patch's centroid mixes the top and the side faces, so its ray misses the cube's centre by up to a centimetre. Here the
whole silhouette is explained instead: the convex hull of the cube's projected corners is laid over the patch, and
position and yaw are those with the least difference (Gauss-Newton on the softened silhouette).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vla_ros.geometry.cameras import intersect_plane, project
from vla_ros.geometry.se3 import invert
from vla_ros.observation.colour_blobs import ColourBlob, find_blobs
from vla_ros.types import CameraFrame, CameraModel, FloatArray

_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_YAW_GRID_RAD = np.deg2rad([-37.5, -22.5, -7.5, 7.5, 22.5, 37.5])
_MOST_SAMPLES = 40
_ITERATIONS = 6
# Of a fit from a hint; below it the hint may have been wrong.
_HINT_OVERLAP = 0.85


@dataclass(frozen=True)
class CubeView:
    """A cube as one image shows it.

    Attributes:
        p_base: (3,) its centre in base, m.
        yaw_rad: about base z, in [-pi/4, pi/4): a cube looks the same every quarter turn.
        overlap: intersection over union of patch and explained silhouette; low when something hides a part of the cube.
        is_cut: whether the patch touches the image's edge.
        centroid_px: (2,) of the patch.
        range_m: from the camera.
    """

    p_base: FloatArray
    yaw_rad: float
    overlap: float
    is_cut: bool
    centroid_px: FloatArray
    range_m: float


def locate_cube(
    frame: CameraFrame, colour: str, side_m: float, table_height_m: float, yaw_hint_rad: float | None = None
) -> CubeView | None:
    """The cube of a colour that stands on the table, or None where the image shows none or lacks its geometry.

    Args:
        frame: an image with intrinsics and pose.
        colour: a key of `colour_blobs.HUES`.
        side_m: edge of the cube.
        table_height_m: z of the table in base.
        yaw_hint_rad: the cube's yaw as far as it is known; the search is shorter where it fits.
    """
    if frame.camera is None or frame.T_base_cam is None:
        return None
    views = []
    for blob in find_blobs(frame.image, colour):
        view = fit_cube(blob, frame.camera, frame.T_base_cam, side_m, table_height_m, yaw_hint_rad)
        if view is not None:
            views.append(view)
    return max(views, key=lambda view: view.overlap, default=None)


def fit_cube(
    blob: ColourBlob,
    camera: CameraModel,
    T_base_cam: FloatArray,
    side_m: float,
    table_height_m: float,
    yaw_hint_rad: float | None = None,
) -> CubeView | None:
    """The upright cube on the table whose silhouette is nearest to the patch, None if the patch isn't on the table."""
    silhouette = _Silhouette(blob, camera, T_base_cam, side_m, table_height_m + side_m / 2)
    centre = intersect_plane(camera, T_base_cam, blob.centroid_px[None], silhouette.z_m)[0]
    if not np.all(np.isfinite(centre)):
        return None

    def explain(yaws_rad: FloatArray) -> FloatArray:
        starts = [silhouette.centre_at(np.array([centre[0], centre[1], yaw])) for yaw in yaws_rad]
        return silhouette.refine(min(starts, key=silhouette.cost) if len(starts) > 1 else starts[0])

    pose = explain(_YAW_GRID_RAD if yaw_hint_rad is None else np.array([yaw_hint_rad]))
    if yaw_hint_rad is not None and silhouette.overlap(pose) < _HINT_OVERLAP:
        pose = explain(_YAW_GRID_RAD)
    p_base = np.array([pose[0], pose[1], silhouette.z_m])
    range_m = float(np.linalg.norm(p_base - T_base_cam[:3, 3]))
    yaw_rad, overlap = wrap_quarter_turn(float(pose[2])), silhouette.overlap(pose)
    return CubeView(p_base, yaw_rad, overlap, blob.is_cut, blob.centroid_px, range_m)


def wrap_quarter_turn(angle_rad: float) -> float:
    """The equivalent of a cube's yaw in [-pi/4, pi/4)."""
    return float((angle_rad + np.pi / 4) % (np.pi / 2) - np.pi / 4)


class _Silhouette:
    """One patch, and how well a pose (x m, y m, yaw rad) of the cube explains it."""

    def __init__(
        self, blob: ColourBlob, camera: CameraModel, T_base_cam: FloatArray, side_m: float, z_m: float
    ) -> None:
        self._camera, self._T_base_cam, self._T_cam_base = camera, T_base_cam, invert(T_base_cam)
        self._side_m, self.z_m = side_m, z_m
        self._centroid_px = blob.centroid_px
        height, width = blob.mask.shape
        x, y, w, h = blob.bounds_xywh
        margin = 4 + max(w, h) // 3
        columns = slice(max(0, x - margin), min(width, x + w + margin))
        rows = slice(max(0, y - margin), min(height, y + h + margin))
        self._stride = 1 + (max(w, h) + 2 * margin) // _MOST_SAMPLES
        self._observed = blob.mask[rows, columns][:: self._stride, :: self._stride].astype(np.float64).ravel()
        grid_x, grid_y = np.meshgrid(
            np.arange(columns.start, columns.stop, self._stride), np.arange(rows.start, rows.stop, self._stride)
        )
        self._grid_px = np.column_stack([grid_x.ravel(), grid_y.ravel()]).astype(np.float64)

    def hull(self, pose: FloatArray) -> FloatArray | None:
        """(n, 2) convex outline of the cube in the image, pixels; None if it reaches behind the camera."""
        cosine, sine = np.cos(pose[2]), np.sin(pose[2])
        corners = self._side_m * _CORNERS @ np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])
        corners_base = corners + np.array([pose[0], pose[1], self.z_m])
        pixels = project(self._camera, corners_base @ self._T_cam_base[:3, :3].T + self._T_cam_base[:3, 3])
        if not np.all(np.isfinite(pixels)):
            return None
        return np.asarray(cv2.convexHull(pixels.astype(np.float32)), dtype=np.float64).reshape(-1, 2)

    def centre_at(self, pose: FloatArray) -> FloatArray:
        """The pose moved so that outline and patch have one centroid."""
        for _ in range(2):
            hull = self.hull(pose)
            if hull is None:
                return pose
            pixels = np.stack([self._centroid_px, _polygon_centroid(hull)])
            seen, explained = intersect_plane(self._camera, self._T_base_cam, pixels, self.z_m)
            if not np.all(np.isfinite(seen - explained)):
                return pose
            pose = pose + np.array([*(seen - explained)[:2], 0.0])
        return pose

    def cover(self, pose: FloatArray) -> FloatArray:
        """(samples,) 1 inside the outline, 0 outside, with a ramp one sample wide."""
        hull = self.hull(pose)
        if hull is None:
            return np.zeros(len(self._grid_px))
        edges = np.roll(hull, -1, axis=0) - hull
        lengths = np.linalg.norm(edges, axis=1)
        hull, edges, lengths = hull[lengths > 0.0], edges[lengths > 0.0], lengths[lengths > 0.0]
        normals = np.column_stack([-edges[:, 1], edges[:, 0]]) / lengths[:, None]
        normals *= np.sign(np.sum(normals * (hull.mean(axis=0) - hull)))
        inside_px = np.min(self._grid_px @ normals.T - np.sum(normals * hull, axis=1), axis=1)
        return np.asarray(np.clip(inside_px / self._stride + 0.5, 0.0, 1.0))

    def cost(self, pose: FloatArray) -> float:
        return float(np.sum((self.cover(pose) - self._observed) ** 2))

    def overlap(self, pose: FloatArray) -> float:
        cover = self.cover(pose)
        union = float(np.sum(np.maximum(cover, self._observed)))
        return float(np.sum(np.minimum(cover, self._observed))) / union if union > 0.0 else 0.0

    def refine(self, pose: FloatArray) -> FloatArray:
        """Gauss-Newton with steps of half a sample for the differences; a step that doesn't help ends it."""
        depth_m = float((self._T_cam_base @ [pose[0], pose[1], self.z_m, 1.0])[2])
        step_m = 0.5 * self._stride * depth_m / float(self._camera.K[0, 0])
        steps = np.array([step_m, step_m, step_m / (0.7 * self._side_m)])
        residual = self.cover(pose) - self._observed
        for _ in range(_ITERATIONS):
            moved = [
                (self.cover(pose + steps * axis) - self.cover(pose - steps * axis)) / (2.0 * step)
                for axis, step in zip(np.eye(3), steps, strict=True)
            ]
            jacobian = np.column_stack(moved)
            hessian = jacobian.T @ jacobian
            damping = 1e-3 * np.diag(hessian) + 1e-9
            change = np.linalg.solve(hessian + np.diag(damping), -jacobian.T @ residual)
            change = np.clip(change, -8.0 * steps, 8.0 * steps)
            candidate = pose + change
            new_residual = self.cover(candidate) - self._observed
            if np.sum(new_residual**2) >= np.sum(residual**2):
                break
            pose, residual = candidate, new_residual
            if np.all(np.abs(change) < 0.1 * steps):
                break
        return pose


def _polygon_centroid(polygon: FloatArray) -> FloatArray:
    """Centre of area of a simple polygon. Source: shoelace formula."""
    following = np.roll(polygon, -1, axis=0)
    cross = polygon[:, 0] * following[:, 1] - following[:, 0] * polygon[:, 1]
    return np.asarray((polygon + following).T @ cross / (3.0 * np.sum(cross)))
