"""The observations that a policy had, or would have had, out of a recording: made by the code that works online."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vla_ros.contract import Contract, find_mismatches
from vla_ros.errors import ContractError, RecordingError, SensorError
from vla_ros.observation.assembly import (
    Ingredients,
    assemble,
    choose_companion,
    choose_history,
    first_complete,
    with_history,
)
from vla_ros.recording.arm import RecordedArm
from vla_ros.recording.recorded import RecordedCamera, RecordedEpisode, Series
from vla_ros.recording.spans import Spans
from vla_ros.types import CameraFrame, FloatArray, ImageArray, Observation, ObservedStamps, RobotState

NOBODY = -1
# A message may be on its way for so long, so that a node had another one than the bag says for that time.
_ON_ITS_WAY_NS = 1_000_000_000


@dataclass(frozen=True)
class _Part:
    """One observation to be, present or past; images by the contract's name, `NOBODY` for an absent one."""

    stamp_ns: int
    images: Mapping[str, int]
    states: tuple[RobotState, ...]
    commanded_opening: float | None


class RecordedObservations:
    """Makes observations under a contract. One thread's.

    Args:
        episode: what was recorded.
        contract: what is observed.

    Raises:
        ContractError: if the episode's rig doesn't give it.
    """

    def __init__(self, episode: RecordedEpisode, contract: Contract) -> None:
        mismatches = find_mismatches(episode.info.rig, contract)
        if mismatches:
            raise ContractError(f"{episode.info.name}: {'; '.join(mismatches)}")
        self._episode, self._spec = episode, contract.observation
        self._arm, self._spans = RecordedArm(episode), Spans(episode)
        cameras = {name: episode.cameras.get(image.camera) for name, image in self._spec.images.items()}
        self._cameras = cameras
        self._stamps = {name: [] if camera is None else camera.stamps_ns.tolist() for name, camera in cameras.items()}
        self._places = {
            name: {stamp_ns: index for index, stamp_ns in enumerate(stamps)} for name, stamps in self._stamps.items()
        }

    def at(self, stamps_ns: Sequence[int]) -> Iterator[Observation]:
        """What a policy is shown that sees everything in time: the contract's rules over all that was recorded.

        Args:
            stamps_ns: exposures of the reference camera, rising.

        Raises:
            RecordingError: for a stamp of which there is no reference image.
            SensorError: where something is missing that a policy would have waited for.
        """
        return self._make([self._by_rule(int(stamp_ns)) for stamp_ns in stamps_ns])

    def of(self, observed: Sequence[ObservedStamps]) -> Iterator[Observation]:
        """What a policy was shown, by what `policies/<policy>/observed` says of it: to the bit, of raw images.

        A camera's pose (`with_geometry`) is taken from all recorded joint states; the node may have had fewer of them.

        Args:
            observed: rising by their stamps.

        Raises:
            RecordingError: if an image or a state isn't in the bag, or the bag has another gripper opening.
        """
        return self._make([[self._as_used(each) for each in (*one.history, one)] for one in observed])

    def _by_rule(self, stamp_ns: int) -> list[_Part]:
        """The past, oldest first, then the present."""
        spec, reference = self._spec, self._spec.reference
        stamps = self._stamps[reference]
        if stamp_ns not in self._places[reference]:
            raise RecordingError(f"{self._episode.info.name}: no image of {reference!r} is stamped {stamp_ns} ns")
        if spec.history_steps == 1:
            return [self._observe(stamp_ns)]
        needed = {name for name, image in spec.images.items() if image.if_absent == "refuse"}
        starts = [self._stamps[name][0] for name in needed | {reference} if self._stamps[name]]
        starts.append(int(self._episode.joint_positions.stamps_ns[0]))
        first_ns = min(first_complete(stamps, starts), stamp_ns)
        return [self._observe(each) for each in (*choose_history(spec, stamps, first_ns, stamp_ns), stamp_ns)]

    def _observe(self, stamp_ns: int) -> _Part:
        images = {}
        for name, image in self._spec.images.items():
            index: int | None
            if name == self._spec.reference:
                index = self._places[name][stamp_ns]
            else:
                index, skew_s = choose_companion(self._stamps[name], stamp_ns, self._spec.max_skew_s)
                if index is None and image.if_absent == "refuse":
                    raise SensorError(
                        f"{self._episode.info.name}: no image from camera {image.camera} for {skew_s:.2f} s before "
                        f"{stamp_ns} ns (limit {self._spec.max_skew_s:g} s)"
                    )
            images[name] = NOBODY if index is None else index
        return _Part(stamp_ns, images, self._arm.states_around(stamp_ns), self._arm.commanded_opening(stamp_ns))

    def _as_used(self, observed: ObservedStamps) -> _Part:
        images = {}
        for name in self._spec.images:
            if name not in observed.images:
                raise RecordingError(f"image {name!r} wasn't observed; was it under another contract?")
            used_ns = observed.images[name]
            if used_ns is not None and used_ns not in self._places[name]:
                raise RecordingError(f"the image {name!r} of {used_ns} ns was observed and isn't in the bag")
            images[name] = NOBODY if used_ns is None else self._places[name][used_ns]
        states = tuple(self._state(stamp_ns, opening) for stamp_ns, opening in observed.states)
        self._check(self._episode.gripper_commands, observed.stamp_ns, observed.commanded_opening, "gripper/command")
        return _Part(observed.stamp_ns, images, states, observed.commanded_opening)

    def _state(self, stamp_ns: int, opening: float | None) -> RobotState:
        state = self._arm.by_stamp.get(stamp_ns)
        if state is None:
            raise RecordingError(f"the joint state of {stamp_ns} ns was observed and isn't in the bag")
        if state.gripper_opening != opening:
            # Which message of the gripper came before which of the arm's is the node's own experience.
            self._check(self._episode.gripper_openings, stamp_ns, opening, "gripper/state")
            state = replace(state, gripper_opening=opening)
        return state

    def _check(self, series: Series, stamp_ns: int, value: float | None, topic: str) -> None:
        """What a node had of an unordered topic has to be one of the values that the bag has for about that time."""
        begin = series.last_index(stamp_ns - _ON_ITS_WAY_NS)
        end = series.last_index(stamp_ns + _ON_ITS_WAY_NS)
        if begin is None:
            return  # What was said before the recording began isn't in it.
        if value not in series.values[begin : (begin if end is None else end) + 1].tolist():
            raise RecordingError(f"the opening {value} of {topic} was observed at {stamp_ns} ns and isn't in the bag")

    def _make(self, requests: Sequence[list[_Part]]) -> Iterator[Observation]:
        """One pass over the bag; an image is kept from its first use to its last."""
        needs = [{key for part in parts for key in self._keys(part)} for parts in requests]
        left = Counter(key for keys in needs for key in keys)
        wanted: dict[str, list[int]] = {}
        for camera, index in left:
            wanted.setdefault(camera, []).append(index)
        kept: dict[tuple[str, int], ImageArray] = {}
        done = 0
        for camera, index, image in self._episode.read_images(wanted):
            kept[camera, index] = image
            while done < len(requests) and needs[done] <= kept.keys():
                yield self._finish(requests[done], kept)
                left.subtract(needs[done])
                for key in needs[done]:
                    if not left[key]:
                        del kept[key]
                done += 1

    def _keys(self, part: _Part) -> Iterator[tuple[str, int]]:
        for name, index in part.images.items():
            if index != NOBODY:
                yield self._spec.images[name].camera, index

    def _finish(self, parts: list[_Part], kept: Mapping[tuple[str, int], ImageArray]) -> Observation:
        made: dict[int, Observation] = {}
        for part in parts:
            if part.stamp_ns not in made:
                made[part.stamp_ns] = self._assemble(part, kept)
        *past, present = (made[part.stamp_ns] for part in parts)
        return with_history(present, past) if past else present

    def _assemble(self, part: _Part, kept: Mapping[tuple[str, int], ImageArray]) -> Observation:
        frames: dict[str, CameraFrame | None] = {}
        sizes = {}
        reference = self._cameras[self._spec.reference]
        for name, image in self._spec.images.items():
            camera, index = self._cameras[name], part.images[name]
            sized = camera or reference
            sizes[name] = (0, 0) if sized is None else (sized.height, sized.width)
            if camera is None or index == NOBODY:
                frames[name] = None
                continue
            stamp_ns = self._stamps[name][index]
            pose = self._camera_pose(camera, stamp_ns) if image.with_geometry else None
            frames[name] = CameraFrame(stamp_ns, kept[image.camera, index], camera.camera, pose)
        ingredients = Ingredients(part.stamp_ns, frames, sizes, part.states, part.commanded_opening)
        return assemble(self._spec, ingredients, self._arm.tcp, self._spans.task(part.stamp_ns))

    def _camera_pose(self, camera: RecordedCamera, stamp_ns: int) -> FloatArray | None:
        """T_base_cam at an exposure, as a node makes it: the link that carries the camera, and its mount there."""
        try:
            positions = self._arm.state_at(stamp_ns).positions
        except SensorError:
            return None
        link = self._episode.info.rig.cameras[camera.name].mount.parent
        return np.asarray(self._arm.model.link_pose(positions, link) @ camera.T_parent_cam)
