"""Observations out of what arrives: images of several cameras and joint states, aligned to one exposure; their past."""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping

from vla_ros.contract import Contract, ImageSpec
from vla_ros.errors import SensorError
from vla_ros.observation.assembly import (
    STATE_TOLERANCE_NS,
    Ingredients,
    assemble,
    choose_companion,
    choose_history,
    first_complete,
    with_history,
)
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.types import CameraFrame, FloatArray, Observation, RobotState

_NS_PER_S = 1_000_000_000
# At least; a history needs more. States may come at 1 kHz.
_FRAMES_KEPT, _STATES_KEPT, _STATES_HZ, _COMMANDS_KEPT = 8, 1024, 1000, 1024
# Stamps that run back further than this mean that a clock was set, not that messages overtook each other.
_CLOCK_JUMP_S = 1.0


class ObservationBuilder:
    """Keeps the newest frames and joint states and builds the observation that a contract asks for.

    Any thread may add and build. Stamps are ROS time throughout. For a history it keeps every frame as far back as that
    reaches, at the camera's size.

    Args:
        contract: what is asked for.
        forward_kinematics: (n,) joint positions to the (4, 4) T_base_tcp; called by whoever builds.
    """

    def __init__(self, contract: Contract, forward_kinematics: Callable[[FloatArray], FloatArray]) -> None:
        self._spec, self._forward_kinematics = contract.observation, forward_kinematics
        self._lock = threading.Lock()
        self._frames: dict[str, list[CameraFrame]] = {}
        self._commands: list[tuple[int, float]] = []
        self._reach_ns = round((self._spec.history_s + self._spec.max_age_s + self._spec.max_skew_s) * _NS_PER_S)
        states = _STATES_KEPT if self._spec.history_s == 0.0 else math.ceil(self._reach_ns / _NS_PER_S * _STATES_HZ)
        self._states = JointStateBuffer(max(_STATES_KEPT, states))

    def add_frame(self, camera: str, frame: CameraFrame) -> None:
        """Takes an image of a rig camera, in any order of stamps."""
        with self._lock:
            frames = self._frames.setdefault(camera, [])
            if frames and frame.stamp_ns < frames[-1].stamp_ns - _CLOCK_JUMP_S * _NS_PER_S:
                frames.clear()
            frames.append(frame)
            frames.sort(key=lambda kept: kept.stamp_ns)
            reach_ns = frames[-1].stamp_ns - self._reach_ns if self._spec.history_steps > 1 else frames[-1].stamp_ns
            while len(frames) > _FRAMES_KEPT and frames[0].stamp_ns < reach_ns:
                del frames[0]

    def add_state(self, state: RobotState) -> None:
        """Takes a joint state; one that is older than the last or not finite is left out."""
        newest = self._states.newest()
        if newest is not None and state.stamp_ns < newest.stamp_ns - _CLOCK_JUMP_S * _NS_PER_S:
            self._states.clear()
        self._states.append(state)

    def add_gripper_command(self, stamp_ns: int, opening: float) -> None:
        """Takes what the gripper was told at a time, an opening, clipped to [0, 1]; none that isn't finite."""
        if not math.isfinite(opening):
            return
        opening = min(1.0, max(0.0, opening))
        with self._lock:
            if self._commands and stamp_ns < self._commands[-1][0]:
                self._commands = [command for command in self._commands if command[0] <= stamp_ns]
            self._commands.append((stamp_ns, opening))
            del self._commands[:-_COMMANDS_KEPT]

    def clear(self) -> None:
        """Forgets all frames, states and commands."""
        with self._lock:
            self._frames.clear()
            self._commands.clear()
        self._states.clear()

    def build(self, now_ns: int, instruction: str) -> Observation:
        """The newest observation: as of the reference image's exposure, everything else aligned to it.

        A history reaches back in seconds from that exposure, each of its observations at the reference image nearest to
        its time. Before anything was seen, the first that was stands for it.

        Args:
            now_ns: the time against which ages are taken.
            instruction: the task in force.

        Raises:
            SensorError: if an image or the joint state is missing, older than `max_age_s` or further than `max_skew_s`
                from the reference or from its time in the history; the text names it, with its age, the limit and what
                to look at.
        """
        with self._lock:
            frames = {camera: tuple(kept) for camera, kept in self._frames.items()}
        camera = self._spec.images[self._spec.reference].camera
        reference = self._reference(frames.get(camera, ()), camera, now_ns)
        present = self._observe(frames, reference, instruction)
        if self._spec.history_steps == 1:
            return present
        return with_history(present, self._history(frames, present, instruction))

    def _observe(
        self, frames: Mapping[str, tuple[CameraFrame, ...]], reference: CameraFrame, instruction: str
    ) -> Observation:
        """The observation as of one frame of the reference camera."""
        chosen = {
            name: reference
            if name == self._spec.reference
            else self._companion(frames.get(spec.camera, ()), spec, reference)
            for name, spec in self._spec.images.items()
        }
        sizes = {
            name: (frames.get(spec.camera) or (reference,))[-1].image.shape[:2]
            for name, spec in self._spec.images.items()
        }
        stamp_ns = reference.stamp_ns
        parts = Ingredients(stamp_ns, chosen, sizes, self._states_around(stamp_ns), self._commanded(stamp_ns))
        return assemble(self._spec, parts, self._forward_kinematics, instruction)

    def _history(
        self, frames: Mapping[str, tuple[CameraFrame, ...]], present: Observation, instruction: str
    ) -> tuple[Observation, ...]:
        camera = self._spec.images[self._spec.reference].camera
        by_stamp = {frame.stamp_ns: frame for frame in reversed(frames[camera])}
        first_ns = min(self._first_ns(frames), present.stamp_ns)
        stamps = [frame.stamp_ns for frame in frames[camera]]
        built = {present.stamp_ns: present}
        found = []
        for stamp_ns in choose_history(self._spec, stamps, first_ns, present.stamp_ns):
            if stamp_ns not in built:
                built[stamp_ns] = self._observe(frames, by_stamp[stamp_ns], instruction)
            found.append(built[stamp_ns])
        return tuple(found)

    def _first_ns(self, frames: Mapping[str, tuple[CameraFrame, ...]]) -> int:
        """Time of the first reference image with everything beside it that an observation needs."""
        images = self._spec.images.values()
        needed = {spec.camera for spec in images if spec.if_absent == "refuse"}
        starts = [frames[camera][0].stamp_ns for camera in needed if frames.get(camera)]
        oldest = self._states.oldest()
        starts += [] if oldest is None else [oldest.stamp_ns]
        reference = [frame.stamp_ns for frame in frames[self._spec.images[self._spec.reference].camera]]
        return first_complete(reference, starts)

    def _commanded(self, stamp_ns: int) -> float | None:
        """What the gripper had been told at a time."""
        with self._lock:
            index = bisect_right(self._commands, (stamp_ns, math.inf))
            return self._commands[index - 1][1] if index else None

    def _reference(self, frames: tuple[CameraFrame, ...], camera: str, now_ns: int) -> CameraFrame:
        limit_s = self._spec.max_age_s
        mend = "is camera_node or the driver running?"
        if not frames:
            raise SensorError(f"no image from camera {camera} yet (limit {limit_s:g} s); {mend}")
        age_s = (now_ns - frames[-1].stamp_ns) / _NS_PER_S
        if age_s > limit_s:
            raise SensorError(f"no image from camera {camera} for {age_s:.2f} s (limit {limit_s:g} s); {mend}")
        if age_s < -limit_s:
            raise SensorError(
                f"image from camera {camera} is stamped {-age_s:.2f} s ahead of now (limit {limit_s:g} s); "
                "are the clocks in step, and is use_sim_time the same everywhere?"
            )
        return frames[-1]

    def _companion(
        self, frames: tuple[CameraFrame, ...], spec: ImageSpec, reference: CameraFrame
    ) -> CameraFrame | None:
        """The newest frame of another camera that isn't later than the reference, None where it may be absent."""
        limit_s = self._spec.max_skew_s
        index, skew_s = choose_companion([frame.stamp_ns for frame in frames], reference.stamp_ns, limit_s)
        if index is not None:
            return frames[index]
        if spec.if_absent == "black":
            return None
        since = "up to" if math.isinf(skew_s) else f"for {skew_s:.2f} s before"
        raise SensorError(
            f"no image from camera {spec.camera} {since} the reference image (limit {limit_s:g} s); is camera_node or "
            "the driver running, and do both cameras stamp with one clock?"
        )

    def _states_around(self, stamp_ns: int) -> tuple[RobotState, ...]:
        newest = self._states.newest()
        limit_s = self._spec.max_age_s
        if newest is None:
            raise SensorError("no joint state yet; is the arm's driver running, and joint_states remapped to it?")
        behind_s = (stamp_ns - newest.stamp_ns) / _NS_PER_S
        if behind_s > limit_s:
            raise SensorError(
                f"no joint state on joint_states for {behind_s:.2f} s before the image (limit {limit_s:g} s); "
                "is the arm's driver running?"
            )
        return self._states.around(stamp_ns, STATE_TOLERANCE_NS)
