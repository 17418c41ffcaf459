"""How far a tool was from where it was wanted: at the same time, and from the path whatever the time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_ros.geometry import rotations
from vla_ros.types import FloatArray

# Of points that are compared with all segments at a time: some MB.
_BATCH = 256


@dataclass(frozen=True)
class PathError:
    """How far a tool was from where it was wanted.

    Attributes:
        max_m: largest distance at the same time.
        mean_m: mean of it.
        max_rad: largest angle at the same time.
        path_m: largest distance of the wanted path from the one gone, or of the one gone from the wanted, whatever the
            time (Hausdorff's distance).
        end_m: distance at the end.
    """

    max_m: float
    mean_m: float
    max_rad: float
    path_m: float
    end_m: float

    def values_mm(self) -> dict[str, float]:
        """For a table."""
        return {
            "tracking_error_max_mm": 1e3 * self.max_m,
            "tracking_error_mean_mm": 1e3 * self.mean_m,
            "tracking_error_max_deg": float(np.degrees(self.max_rad)),
            "path_error_mm": 1e3 * self.path_m,
            "end_error_mm": 1e3 * self.end_m,
        }


def path_error(wanted: FloatArray, gone: FloatArray, recorded: FloatArray) -> PathError:
    """Judges a run.

    Args:
        wanted: (n, 4, 4) poses, one for each moment.
        gone: (n, 4, 4) measured at the same moments.
        recorded: (m, 3) positions of the path that was to be repeated.
    """
    distances = np.linalg.norm(wanted[:, :3, 3] - gone[:, :3, 3], axis=1)
    angles = rotations.angle_between(wanted[:, :3, :3], gone[:, :3, :3])
    positions = gone[:, :3, 3]
    apart = max(farthest_m(recorded, positions), farthest_m(positions, recorded))
    return PathError(float(distances.max()), float(distances.mean()), float(angles.max()), apart, float(distances[-1]))


def farthest_m(points: FloatArray, path: FloatArray) -> float:
    """Largest distance of points (n, 3) from the line through a path's points (m, 3)."""
    if len(path) == 1:
        return float(np.linalg.norm(points - path[0], axis=1).max())
    start, way = path[:-1], np.diff(path, axis=0)
    lengths = np.maximum((way * way).sum(axis=1), 1e-18)
    farthest = 0.0
    for begin in range(0, len(points), _BATCH):
        gaps = points[begin : begin + _BATCH, None] - start
        share = np.clip((gaps * way).sum(axis=2) / lengths, 0.0, 1.0)
        nearest = np.linalg.norm(gaps - share[..., None] * way, axis=2).min(axis=1)
        farthest = max(farthest, float(nearest.max()))
    return farthest


def path_length_m(positions: FloatArray) -> float:
    """Length of the way through (n, 3) points."""
    return float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())
