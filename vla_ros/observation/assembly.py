"""What an observation is made of, and its making: the same for a policy at work and out of a recording.

The rules choose by stamps alone, so that they don't need to know where frames are kept.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vla_ros.contract import ImageSpec, ObservationSpec
from vla_ros.errors import SensorError
from vla_ros.observation.image import black_frame, prepare_frame, prepared_size
from vla_ros.observation.state_vector import write_state
from vla_ros.robots.state_buffer import state_between
from vla_ros.types import CameraFrame, FloatArray, Observation, ObservedStamps, RobotState

_NS_PER_S = 1_000_000_000

STATE_TOLERANCE_NS = 50_000_000
"""The exposure may lie this far past the newest joint state, which arrives on a topic of its own."""


@dataclass(frozen=True)
class Ingredients:
    """What one observation is made of.

    Attributes:
        stamp_ns: exposure of the reference camera.
        frames: by the contract's image name, as the cameras gave them; None where one is absent.
        sizes: by image name, (height, width) of what stands for an absent one.
        states: the one joint state, or the two between which the stamp lies.
        commanded_opening: what the gripper had been told by then.
    """

    stamp_ns: int
    frames: Mapping[str, CameraFrame | None]
    sizes: Mapping[str, tuple[int, int]]
    states: tuple[RobotState, ...]
    commanded_opening: float | None


def assemble(
    spec: ObservationSpec,
    parts: Ingredients,
    forward_kinematics: Callable[[FloatArray], FloatArray],
    instruction: str,
) -> Observation:
    """The observation as the contract wants it, without a history.

    Raises:
        SensorError: if something is missing that it can't do without; the text names it.
    """
    images = {name: _prepare(parts.frames[name], image, parts, name) for name, image in spec.images.items()}
    state = state_between(parts.stamp_ns, parts.states)
    T_base_tcp = forward_kinematics(state.positions)
    vector, layout = write_state(spec, state, T_base_tcp, parts.commanded_opening)
    stamps = {name: None if frame is None else frame.stamp_ns for name, frame in parts.frames.items()}
    made_of = ObservedStamps(
        parts.stamp_ns,
        stamps,
        tuple((each.stamp_ns, each.gripper_opening) for each in parts.states),
        parts.commanded_opening,
    )
    return Observation(
        stamp_ns=parts.stamp_ns,
        images=images,
        state=vector,
        state_layout=layout,
        T_base_tcp=T_base_tcp,
        gripper_opening=state.gripper_opening,
        instruction=instruction,
        made_of=made_of,
    )


def with_history(present: Observation, history: Sequence[Observation]) -> Observation:
    """The same observation with its past, oldest first."""
    made_of = present.made_of
    if made_of is not None:
        made_of = replace(made_of, history=tuple(each.made_of for each in history if each.made_of is not None))
    return replace(present, history=tuple(history), made_of=made_of)


def choose_companion(stamps_ns: Sequence[int], reference_ns: int, limit_s: float) -> tuple[int | None, float]:
    """Index of another camera's newest frame that isn't later than the reference, None where that is too old; and how
    much older it is, s.

    Args:
        stamps_ns: of its frames, rising.
        reference_ns: exposure of the reference.
        limit_s: the contract's max_skew_s.
    """
    index = bisect_right(stamps_ns, reference_ns) - 1
    skew_s = (reference_ns - stamps_ns[index]) / _NS_PER_S if index >= 0 else float("inf")
    return (index if skew_s <= limit_s else None), skew_s


def choose_history(spec: ObservationSpec, stamps_ns: Sequence[int], first_ns: int, present_ns: int) -> list[int]:
    """Stamps of the reference's frames that make up the past, oldest first: each the nearest to its time.

    Args:
        spec: asks for them.
        stamps_ns: of the reference camera's frames, rising.
        first_ns: the earliest that counts; what lies before it is stood for by it.
        present_ns: exposure of the present one.

    Raises:
        SensorError: where the nearest is further off than max_skew_s.
    """
    camera, spacing_s = spec.images[spec.reference].camera, spec.history_spacing_s
    candidates = [stamp_ns for stamp_ns in stamps_ns if first_ns <= stamp_ns <= present_ns]
    found = []
    for step in range(spec.history_steps - 1, 0, -1):
        wanted_ns = max(first_ns, present_ns - round(step * spacing_s * _NS_PER_S))
        nearest_ns = min(candidates, key=lambda stamp_ns: abs(stamp_ns - wanted_ns))
        off_s = abs(nearest_ns - wanted_ns) / _NS_PER_S
        if off_s > spec.max_skew_s:
            raise SensorError(
                f"no image from camera {camera} of {step * spacing_s:.2f} s before the newest: the nearest is "
                f"{off_s:.2f} s off (limit {spec.max_skew_s:g} s); does the camera stall?"
            )
        found.append(nearest_ns)
    return found


def first_complete(reference_ns: Sequence[int], starts_ns: Iterable[int]) -> int:
    """Stamp of the first reference frame with everything beside it, the last one where there is none."""
    begin_ns = max(starts_ns)
    return next((stamp_ns for stamp_ns in reference_ns if stamp_ns >= begin_ns), reference_ns[-1])


def _prepare(frame: CameraFrame | None, spec: ImageSpec, parts: Ingredients, name: str) -> CameraFrame:
    if frame is None:
        height, width = parts.sizes[name]
        return black_frame(parts.stamp_ns, *prepared_size(spec, width, height))
    if spec.with_geometry and frame.camera is None:
        raise SensorError(
            f"camera {spec.camera} has no intrinsics; is its camera_info published? `vla-ros calibrate` makes one"
        )
    if spec.with_geometry and frame.T_base_cam is None:
        raise SensorError(
            f"the pose of camera {spec.camera} in base is unknown at its exposure; is TF running, its mount in it?"
        )
    return prepare_frame(frame, spec)
