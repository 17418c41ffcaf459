"""Observations out of what arrives: images of several cameras and joint states, aligned to one exposure."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import numpy as np

from vla_ros.contract import Contract, ImageSpec, StateItem
from vla_ros.errors import ContractError, SensorError
from vla_ros.geometry import rotations
from vla_ros.observation.image import black_frame, prepare_frame
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.types import CameraFrame, FloatArray, Observation, RobotState

_NS_PER_S = 1_000_000_000
_FRAMES_KEPT, _STATES_KEPT = 8, 1024
# The exposure may lie this far past the newest joint state, which arrives on a topic of its own.
_STATE_TOLERANCE_S = 0.05
# Stamps that run back further than this mean that a clock was set, not that messages overtook each other.
_CLOCK_JUMP_S = 1.0
_ROTATION_FORMS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "rotvec": rotations.matrix_to_rotvec,
    "rpy": rotations.matrix_to_rpy,
    "quat_xyzw": rotations.matrix_to_quat_xyzw,
    "rot6d": rotations.matrix_to_rot6d,
    "rot6d_rows": rotations.matrix_to_rot6d_rows,
}


class ObservationBuilder:
    """Keeps the newest frames and joint states and builds the observation that a contract asks for.

    Any thread may add and build. Stamps are ROS time throughout.

    Args:
        contract: what is asked for.
        forward_kinematics: (n,) joint positions to the (4, 4) T_base_tcp; called by whoever builds.

    Raises:
        ContractError: if the state vector lists one kind of item twice.
    """

    def __init__(self, contract: Contract, forward_kinematics: Callable[[FloatArray], FloatArray]) -> None:
        twice = [kind for kind, n in Counter(item.kind for item in contract.observation.state).items() if n > 1]
        if twice:
            raise ContractError(f"contract {contract.name}: observation.state lists {twice} twice; keep one of each")
        self._spec, self._forward_kinematics = contract.observation, forward_kinematics
        self._lock = threading.Lock()
        self._frames: dict[str, list[CameraFrame]] = {}
        self._states = JointStateBuffer(_STATES_KEPT)

    def add_frame(self, camera: str, frame: CameraFrame) -> None:
        """Takes an image of a rig camera, in any order of stamps."""
        with self._lock:
            frames = self._frames.setdefault(camera, [])
            if frames and frame.stamp_ns < frames[-1].stamp_ns - _CLOCK_JUMP_S * _NS_PER_S:
                frames.clear()
            frames.append(frame)
            frames.sort(key=lambda kept: kept.stamp_ns)
            del frames[:-_FRAMES_KEPT]

    def add_state(self, state: RobotState) -> None:
        """Takes a joint state; one that is older than the last or not finite is left out."""
        newest = self._states.newest()
        if newest is not None and state.stamp_ns < newest.stamp_ns - _CLOCK_JUMP_S * _NS_PER_S:
            self._states.clear()
        self._states.append(state)

    def clear(self) -> None:
        """Forgets all frames and states."""
        with self._lock:
            self._frames.clear()
        self._states.clear()

    def build(self, now_ns: int, instruction: str) -> Observation:
        """The newest observation: as of the reference image's exposure, everything else aligned to it.

        Args:
            now_ns: the time against which ages are taken.
            instruction: the task in force.

        Raises:
            SensorError: if an image or the joint state is missing, older than `max_age_s` or further than `max_skew_s`
                from the reference; the text names it, with its age, the limit and what to look at.
        """
        with self._lock:
            frames = {camera: tuple(kept) for camera, kept in self._frames.items()}
        reference_spec = self._spec.images[self._spec.reference]
        reference = self._reference(frames.get(reference_spec.camera, ()), reference_spec.camera, now_ns)
        images = {self._spec.reference: _prepare(reference, reference_spec)}
        for name, spec in self._spec.images.items():
            if name != self._spec.reference:
                images[name] = self._companion(frames.get(spec.camera, ()), spec, reference)
        state = self._state_at(reference.stamp_ns)
        T_base_tcp = self._forward_kinematics(state.positions)
        parts: dict[str, FloatArray] = {item.kind: _state_part(item, state, T_base_tcp) for item in self._spec.state}
        return Observation(
            stamp_ns=reference.stamp_ns,
            images={name: images[name] for name in self._spec.images},
            state=np.concatenate([np.zeros(0), *parts.values()]),
            state_layout=_layout(parts),
            T_base_tcp=T_base_tcp,
            gripper_opening=state.gripper_opening,
            instruction=instruction,
        )

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

    def _companion(self, frames: tuple[CameraFrame, ...], spec: ImageSpec, reference: CameraFrame) -> CameraFrame:
        """The newest frame of another camera that isn't later than the reference, or what stands for it."""
        limit_s = self._spec.max_skew_s
        earlier = [frame for frame in frames if frame.stamp_ns <= reference.stamp_ns]
        skew_s = (reference.stamp_ns - earlier[-1].stamp_ns) / _NS_PER_S if earlier else float("inf")
        if skew_s <= limit_s:
            return _prepare(earlier[-1], spec)
        if spec.if_absent == "black":
            height, width = (frames[-1] if frames else reference).image.shape[:2]
            return black_frame(reference.stamp_ns, spec.width or width, spec.height or height)
        since = f"for {skew_s:.2f} s before the reference image" if earlier else "up to the reference image"
        raise SensorError(
            f"no image from camera {spec.camera} {since} (limit {limit_s:g} s); is camera_node or the driver running, "
            "and do both cameras stamp with one clock?"
        )

    def _state_at(self, stamp_ns: int) -> RobotState:
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
        return self._states.at(stamp_ns, round(_STATE_TOLERANCE_S * _NS_PER_S))


def _prepare(frame: CameraFrame, spec: ImageSpec) -> CameraFrame:
    if spec.with_geometry and frame.camera is None:
        raise SensorError(
            f"camera {spec.camera} has no intrinsics; is its camera_info published? `vla-ros calibrate` makes one"
        )
    if spec.with_geometry and frame.T_base_cam is None:
        raise SensorError(
            f"the pose of camera {spec.camera} in base is unknown at its exposure; is TF running, its mount in it?"
        )
    return prepare_frame(frame, spec)


def _state_part(item: StateItem, state: RobotState, T_base_tcp: FloatArray) -> FloatArray:
    if item.kind == "tcp_pose":
        return np.concatenate([T_base_tcp[:3, 3], _ROTATION_FORMS[item.rotation](T_base_tcp[:3, :3])])
    if item.kind == "joint_positions":
        return state.positions
    if state.gripper_opening is None:
        raise SensorError("the gripper's opening is unknown; is gripper/state published?")
    return np.array([state.gripper_opening])


def _layout(parts: dict[str, FloatArray]) -> dict[str, slice]:
    layout, start = {}, 0
    for kind, part in parts.items():
        layout[kind] = slice(start, start + len(part))
        start += len(part)
    return layout
