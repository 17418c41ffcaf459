"""Where the thing that an instruction names really was, and its destination, in base and in each image.

Only a simulator knows (`sim/ground_truth`); a policy is helped by it while it learns and never sees it at work.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from vla_ros.contract import Contract
from vla_ros.errors import InstructionError, SensorError
from vla_ros.geometry import se3
from vla_ros.geometry.cameras import project
from vla_ros.instruction import Instruction, parse_instruction
from vla_ros.recording import dataset as d
from vla_ros.recording.arm import RecordedArm
from vla_ros.recording.executed import pose_vector
from vla_ros.recording.grid import NOBODY, Step
from vla_ros.recording.recorded import RecordedEpisode, Series
from vla_ros.types import FloatArray

# Between samples further apart than this nobody knows: the newest stands.
_APART_NS = 200_000_000
_POSE_NAMES = ("x", "y", "z", "qx", "qy", "qz", "qw")


def truth_columns(episode: RecordedEpisode, contract: Contract) -> tuple[d.Column, ...]:
    """The columns of an episode whose truth was recorded; none of another's."""
    if not episode.truth:
        return ()
    images = contract.observation.images
    return (
        d.Column(d.OBJECT_POSE, "float32", (7,), _POSE_NAMES),
        d.Column(d.DESTINATION_POSE, "float32", (7,), _POSE_NAMES),
        *(d.Column(f"{prefix}{name}", "float32", (2,), ("x", "y")) for name in images for prefix in _PLACES),
    )


_PLACES = {d.OBJECT_XY: d.OBJECT_POSE, d.DESTINATION_XY: d.DESTINATION_POSE}


class Truth:
    """Asks an episode's truth by frame.

    Args:
        episode: what was recorded.
        contract: whose images are meant.
        arm: of the episode.
    """

    def __init__(self, episode: RecordedEpisode, contract: Contract, arm: RecordedArm) -> None:
        self._episode, self._images, self._arm = episode, contract.observation.images, arm

    def row(self, step: Step, task: str) -> Mapping[str, FloatArray]:
        """The columns of `truth_columns` for a frame.

        Args:
            step: the frame.
            task: the instruction that it is of; one that isn't understood names nothing.
        """
        if not self._episode.truth:
            return {}
        names = _names(task)
        row = {}
        for column, name in names.items():
            T = pose_at(self._episode.truth.get(name), step.stamp_ns)
            row[column] = np.full(7, np.nan) if T is None else pose_vector(T)
        for image, index in step.images.items():
            row |= self._places(image, index, names)
        return row

    def _places(self, image: str, index: int, names: Mapping[str, str]) -> dict[str, FloatArray]:
        """In the camera's full image, (0, 0) its upper left corner and (1, 1) its lower right one."""
        found = {f"{prefix}{image}": np.full(2, np.nan) for prefix in _PLACES}
        camera = self._episode.cameras.get(self._images[image].camera)
        if camera is None or index == NOBODY or camera.camera is None:
            return found
        stamp_ns = int(camera.stamps_ns[index])
        T_base_cam = self._camera_pose(camera.name, stamp_ns)
        for prefix, column in _PLACES.items():
            T = pose_at(self._episode.truth.get(names[column]), stamp_ns)
            if T is None or T_base_cam is None:
                continue
            p_cam = T_base_cam[:3, :3].T @ (T[:3, 3] - T_base_cam[:3, 3])
            place = (project(camera.camera, p_cam[None])[0] + 0.5) / [camera.camera.width, camera.camera.height]
            if np.isfinite(place).all() and ((place >= 0.0) & (place <= 1.0)).all():
                found[f"{prefix}{image}"] = place
        return found

    def _camera_pose(self, camera: str, stamp_ns: int) -> FloatArray | None:
        """T_base_cam: the true one where it was recorded, else by the rig's mount."""
        T_base_cam = pose_at(self._episode.truth.get(f"{CAMERA_PREFIX}{camera}"), stamp_ns)
        if T_base_cam is not None:
            return T_base_cam
        try:
            positions = self._arm.state_at(stamp_ns).positions
        except SensorError:
            return None
        link = self._episode.info.rig.cameras[camera].mount.parent
        return np.asarray(self._arm.model.link_pose(positions, link) @ self._episode.cameras[camera].T_parent_cam)


CAMERA_PREFIX = "camera/"
"""Begins the name of a camera's optical frame in the truth; the rest is the rig's name of it."""


def pose_at(series: Series | None, stamp_ns: int) -> FloatArray | None:
    """(4, 4) at a time, between its neighbours; None before the first."""
    if series is None or (index := series.last_index(stamp_ns)) is None:
        return None
    begin_ns = int(series.stamps_ns[index])
    if begin_ns == stamp_ns or index + 1 == len(series):
        return np.asarray(series.values[index])
    apart_ns = int(series.stamps_ns[index + 1]) - begin_ns
    if apart_ns > _APART_NS:
        return np.asarray(series.values[index])
    fraction = (stamp_ns - begin_ns) / apart_ns
    return np.asarray(se3.interpolate(series.values[index], series.values[index + 1], fraction))


def _names(task: str) -> dict[str, str]:
    """What the instruction names, by column; an empty name for nothing."""
    instruction = _understood(task)
    destination = None if instruction is None else instruction.destination
    return {
        d.OBJECT_POSE: "" if instruction is None else instruction.thing.name,
        d.DESTINATION_POSE: "" if destination is None else destination.name,
    }


@lru_cache(maxsize=256)
def _understood(task: str) -> Instruction | None:
    try:
        return parse_instruction(task)
    except InstructionError:
        return None
