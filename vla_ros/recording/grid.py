"""Which images make up the frames of a regular grid, and where there are gaps in it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vla_ros.contract import Contract
from vla_ros.errors import DatasetError, SensorError
from vla_ros.observation.assembly import choose_companion
from vla_ros.observation.state_vector import write_state
from vla_ros.recording.arm import RecordedArm
from vla_ros.recording.recorded import Finding, RecordedEpisode, StampArray
from vla_ros.robots.state_buffer import StampOutsideBufferError

_ANYWHERE = np.eye(4)

NOBODY = -1
"""Stands for the index of an image that is absent and may be."""


@dataclass(frozen=True)
class Step:
    """A frame to be.

    Attributes:
        grid_ns: its time on the grid.
        stamp_ns: exposure of its reference image.
        images: contract's image name -> index in its camera's images, `NOBODY` for an absent one.
    """

    grid_ns: int
    stamp_ns: int
    images: Mapping[str, int]


@dataclass(frozen=True)
class Plan:
    """What of an episode can be frames.

    Attributes:
        pieces: runs of steps without a gap, by time.
        findings: the gaps between them, what is left out at the ends, images that stand for several steps.
        gaps: how many gaps lie between steps.
    """

    pieces: tuple[tuple[Step, ...], ...]
    findings: tuple[Finding, ...]
    gaps: int


def plan_grid(episode: RecordedEpisode, contract: Contract, arm: RecordedArm, tolerance_ns: int) -> Plan:
    """Lays a grid of the contract's period from the first complete observation on, and finds each step's images.

    Args:
        episode: what was recorded.
        contract: its period, images and the skew that it allows.
        arm: of the episode.
        tolerance_ns: how far the reference image may lie from its grid time.

    Raises:
        DatasetError: if not one observation is complete; the text says what was missing.
    """
    chooser = _Chooser(episode, contract, arm)
    stamps = chooser.reference_ns
    first, reason = None, "there is no image"
    for stamp_ns in stamps.tolist():
        found = chooser.choose(stamp_ns, stamp_ns, 0)
        if isinstance(found, Step):
            first = stamp_ns
            break
        reason = found
    if first is None:
        raise DatasetError(f"{episode.info.name}: no frame of contract {contract.name} is complete: {reason}")
    period_ns = contract.action.period_s * 1e9
    count = int((int(stamps[-1]) - first) / period_ns + 0.5) + 1
    grid = [first + round(k * period_ns) for k in range(count)]
    outcome = [chooser.choose(grid_ns, None, tolerance_ns) for grid_ns in grid]
    findings = []
    if first > stamps[0]:
        late_s = (first - int(stamps[0])) * 1e-9
        findings.append(Finding("start", "", f"begins {late_s:.3f} s after the first image: until then {reason}"))
    pieces, gaps = _split(outcome, grid, findings)
    repeated = sum(step.stamp_ns == before.stamp_ns for piece in pieces for before, step in pairwise(piece))
    if repeated:
        camera = contract.observation.images[contract.observation.reference].camera
        rate_hz = 1e9 / float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0
        text = (
            f"{repeated} of {count} frames repeat the image before: the camera gives {rate_hz:.3g} Hz, the grid asks "
            f"for {1e9 / period_ns:.3g} Hz"
        )
        findings.append(Finding("repeated", camera, text, None, repeated))
    return Plan(tuple(pieces), tuple(findings), gaps)


class _Chooser:
    def __init__(self, episode: RecordedEpisode, contract: Contract, arm: RecordedArm) -> None:
        self._spec, self._arm = contract.observation, arm
        cameras = episode.cameras
        reference = self._spec.images[self._spec.reference].camera
        if reference not in cameras:
            raise DatasetError(
                f"{episode.info.name}: contract {contract.name} looks through camera {reference}, which isn't in the "
                f"bag (cameras there: {sorted(cameras) or 'none'})"
            )
        self.reference_ns: StampArray = cameras[reference].stamps_ns
        self._reference_list = self.reference_ns.tolist()
        self._stamps = {
            name: cameras[image.camera].stamps_ns.tolist() if image.camera in cameras else []
            for name, image in self._spec.images.items()
        }

    def choose(self, grid_ns: int, stamp_ns: int | None, tolerance_ns: int) -> Step | str:
        """The step at a grid time, or what is missing for it."""
        after = bisect_left(self._reference_list, grid_ns if stamp_ns is None else stamp_ns)
        near = [index for index in (after - 1, after) if 0 <= index < len(self._reference_list)]
        index = min(near, key=lambda one: abs(self._reference_list[one] - grid_ns))
        found_ns = self._reference_list[index]
        camera = self._spec.images[self._spec.reference].camera
        off_ns = abs(found_ns - grid_ns)
        if off_ns > tolerance_ns:
            return f"camera {camera} has no image within {tolerance_ns * 1e-9:.3g} s"
        images = {self._spec.reference: index}
        for name, image in self._spec.images.items():
            if name == self._spec.reference:
                continue
            companion, _ = choose_companion(self._stamps[name], found_ns, self._spec.max_skew_s)
            if companion is None and image.if_absent == "refuse":
                return f"camera {image.camera} has no image within {self._spec.max_skew_s:g} s before the reference's"
            images[name] = NOBODY if companion is None else companion
        try:
            state = self._arm.state_at(found_ns)
            write_state(self._spec, state, _ANYWHERE, self._arm.commanded_opening(found_ns))
        except StampOutsideBufferError:
            return "there is no joint state near the image"
        except SensorError as error:
            return str(error)
        return Step(grid_ns, found_ns, images)


def _split(outcome: list[Step | str], grid: list[int], findings: list[Finding]) -> tuple[list[tuple[Step, ...]], int]:
    """Runs of steps, and the number of gaps between them."""
    pieces: list[list[Step]] = []
    gaps = 0
    begin: int | None = None
    for k, each in enumerate([*outcome, None]):
        if isinstance(each, Step):
            if begin is not None or not pieces:
                pieces.append([])
            pieces[-1].append(each)
        if not isinstance(each, str) and begin is not None:
            missing_s = (grid[k - 1] - grid[begin]) * 1e-9 + (grid[k - 1] - grid[k - 2]) * 1e-9
            kind = "end" if each is None else "gap"
            gaps += kind == "gap"
            since_s = (grid[begin] - grid[0]) * 1e-9
            text = f"{k - begin} frames, {missing_s:.3f} s from {since_s:.3f} s on: {outcome[begin]}"
            findings.append(Finding(kind, "", text, grid[begin], k - begin))
            begin = None
        elif isinstance(each, str) and begin is None:
            begin = k
    return [tuple(piece) for piece in pieces], gaps


def image_indices(piece: tuple[Step, ...], name: str) -> StampArray:
    """(frames,) index of the image of that name at each step."""
    return np.array([step.images[name] for step in piece], dtype=np.int64)
