"""Where the things that an instruction names are, for auxiliary losses; a dataset out of the simulator knows.

Two things: the object that the instruction names, and where it is to go. Columns hold NaN where there is none or nobody
knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_ros.geometry import rotations
from vla_ros.observation.image import prepare_points
from vla_ros.recording.dataset import EpisodeFrames
from vla_ros.training.fitting import Fit
from vla_ros.training.selection import BoolArray
from vla_ros.types import FloatArray

THINGS = ("object", "destination")
POSE_WIDTH = 5
# Decimetres: positions relative to the tool are of the size of 1.
_PER_M = 10.0
# A block looks the same after a quarter turn.
_FOLD = 4.0


@dataclass(frozen=True, eq=False)
class Truth:
    """Of some frames. What isn't known is 0.

    Attributes:
        xy: (n, cameras, 2 things, 2) in the prepared image, from its upper left corner (0, 0) to the lower right one
            (1, 1).
        is_visible: (n, cameras, 2) where xy is known, and in the image.
        pose: (n, 2, 5) position relative to the measured tcp in base axes, decimetres; sine and cosine of four times
            the turn about base's z from the tool to the thing.
        is_known: (n, 2) where pose is.
    """

    xy: FloatArray
    is_visible: BoolArray
    pose: FloatArray
    is_known: BoolArray

    @property
    def arrays(self) -> tuple[FloatArray, BoolArray, FloatArray, BoolArray]:
        """All of them, in order."""
        return self.xy, self.is_visible, self.pose, self.is_known


def read_truth(frames: EpisodeFrames, fit: Fit, poses: FloatArray | None) -> Truth | None:
    """What an episode's frames say of the things; None where they have no such column.

    Args:
        frames: the episode.
        fit: its columns under the contract.
        poses: (n, 4, 4) T_base_tcp as measured; None where nobody knows, and then no relative pose, either.
    """
    names = {f"{thing}_pose" for thing in THINGS}
    names |= {f"{thing}_xy.{image}" for thing in THINGS for image in _columns(fit).values()}
    if not names & frames.columns.keys():
        return None
    count, cameras = len(frames), len(fit.images)
    xy, pose = np.full((count, cameras, 2, 2), np.nan), np.full((count, 2, POSE_WIDTH), np.nan)
    for index, thing in enumerate(THINGS):
        for camera, (name, own_name) in enumerate(_columns(fit).items()):
            image, found = fit.images[name], frames.columns.get(f"{thing}_xy.{own_name}")
            if image is not None and found is not None:
                spec = fit.contract.observation.images[name]
                points = np.asarray(found, dtype=np.float64).reshape(count, 2)
                xy[:, camera, index] = prepare_points(points, spec, image.width, image.height)
        if poses is not None and f"{thing}_pose" in frames.columns:
            values = np.asarray(frames.columns[f"{thing}_pose"], dtype=np.float64).reshape(count, 7)
            pose[:, index] = relative_pose(values, poses)
    is_visible = np.isfinite(xy).all(axis=-1) & (np.nan_to_num(xy) >= 0.0).all(-1) & (np.nan_to_num(xy) <= 1.0).all(-1)
    is_known = np.isfinite(pose).all(axis=-1)
    return Truth(
        np.where(is_visible[..., None], xy, 0.0), is_visible, np.where(is_known[..., None], pose, 0.0), is_known
    )


def relative_pose(poses_of_things: FloatArray, T_base_tcp: FloatArray) -> FloatArray:
    """(n, 5) as `Truth.pose`, NaN where the thing's is.

    Args:
        poses_of_things: (n, 7) position and quat_xyzw in base.
        T_base_tcp: (n, 4, 4).
    """
    out = np.full((len(poses_of_things), POSE_WIDTH), np.nan)
    known = np.isfinite(poses_of_things).all(axis=1)
    if not known.any():
        return out
    things, tools = poses_of_things[known], T_base_tcp[known]
    turn = _FOLD * (_yaw(rotations.quat_xyzw_to_matrix(things[:, 3:])) - _yaw(tools[:, :3, :3]))
    out[known, :3] = _PER_M * (things[:, :3] - tools[:, :3, 3])
    out[known, 3], out[known, 4] = np.sin(turn), np.cos(turn)
    return out


def _yaw(R: FloatArray) -> FloatArray:
    """(n,) of the x axis about base's z, rad."""
    return np.asarray(np.arctan2(R[:, 1, 0], R[:, 0, 0]))


def _columns(fit: Fit) -> dict[str, str]:
    """The contract's image -> what the dataset calls it, where it has it."""
    prefix = "observation.images."
    return {name: "" if image is None else image.name.removeprefix(prefix) for name, image in fit.images.items()}
