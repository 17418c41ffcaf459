"""What a policy sees: images, the items of the state vector, and how far back."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from vla_ros.contract.forms import ROTATION_WIDTH, RotationForm

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The region of an image that is all of it."""

# Fractions that were written with a few decimals may sum to a little more than 1.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class ImageSpec:
    """An image of the observation.

    Attributes:
        camera: the rig camera it comes from.
        width: pixels given to the policy; 0 keeps the camera's size.
        height: likewise.
        resize: `squash` ignores the aspect ratio, `pad` keeps it with black bars, `crop` keeps it and cuts the rest.
        region_xywh: left, top, width and height of the part that is kept, of an image from (0, 0) to (1, 1), after the
            flip: where the work is done, say, which a small image then shows larger.
        interpolation: OpenCV's name.
        flip: `half_turn` for data recorded upside down; `mirror` exchanges left and right, as in data that was recorded
            bottom row first and then turned; no camera sees like that, so it has no geometry.
        with_geometry: whether the policy needs intrinsics and the camera's pose in base.
        if_absent: `refuse` to infer, or give it a `black` image.
        jpeg_quality: 1 to 100: the image goes once through JPEG after the flip and before it is resized, as those that
            the policy was trained on did; 0 for none.
    """

    camera: str
    width: int = 0
    height: int = 0
    resize: Literal["squash", "pad", "crop"] = "squash"
    region_xywh: tuple[float, float, float, float] = WHOLE
    interpolation: Literal["area", "linear", "cubic", "lanczos"] = "area"
    flip: Literal["none", "half_turn", "mirror"] = "none"
    with_geometry: bool = False
    if_absent: Literal["refuse", "black"] = "refuse"
    jpeg_quality: int = 0

    def __post_init__(self) -> None:
        if self.width < 0 or self.height < 0:
            raise ValueError(f"size {self.width}x{self.height} is negative; 0 keeps the camera's")
        x, y, width, height = self.region_xywh
        # Also refuses NaN, with which every comparison is false.
        if not (min(x, y) >= 0.0 and min(width, height) > 0.0 and max(x + width, y + height) <= 1.0 + _ROUNDING):
            raise ValueError(f"region_xywh {list(self.region_xywh)} isn't a part of an image from (0, 0) to (1, 1)")
        if self.flip == "mirror" and self.with_geometry:
            raise ValueError("flip mirror with with_geometry: a mirrored image has no camera pose")
        if not 0 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality {self.jpeg_quality} isn't in 0 (no JPEG) to 100")


@dataclass(frozen=True)
class StateItem:
    """One stretch of the state vector.

    Attributes:
        kind: `tcp_pose`, position and rotation in base; `joint_positions`, rad; `joint_velocities`, rad/s; `gripper`,
            the measured opening; `gripper_command`, the one commanded last (measured until there is a command).
        rotation: how the rotation of a tcp pose is written.
        origin_m: of a tcp pose: where in base the point lies from which the position counts, along base axes.
        near_rotvec_rad: of a tcp pose in rotvec: of the rotation vectors that mean the same, the one nearest to this is
            given, so that it doesn't leap where the tool points down; null gives the shorter one.
        gripper_entries: of a gripper: for each entry that it has in the vector, its values closed and open.
    """

    kind: Literal["tcp_pose", "joint_positions", "joint_velocities", "gripper", "gripper_command"]
    rotation: RotationForm = "quat_xyzw"
    origin_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    near_rotvec_rad: tuple[float, float, float] | None = None
    gripper_entries: tuple[tuple[float, float], ...] = ((0.0, 1.0),)

    def __post_init__(self) -> None:
        if self.near_rotvec_rad is not None and self.rotation != "rotvec":
            raise ValueError(f"near_rotvec_rad chooses between rotation vectors, rotation is {self.rotation!r}")
        if not self.gripper_entries:
            raise ValueError("gripper_entries is empty; give [closed, open] for each entry, or leave the item out")
        numbers = (*self.origin_m, *(self.near_rotvec_rad or ()), *(x for pair in self.gripper_entries for x in pair))
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"state item {self.kind}: {numbers} aren't all finite")


@dataclass(frozen=True)
class ObservationSpec:
    """What a policy sees.

    Attributes:
        images: by the name that the policy uses.
        state: items of the state vector, in order, each kind once.
        reference: the image whose exposure is the observation's stamp.
        max_age_s: oldest observation that may be acted on.
        max_skew_s: how much older than the reference another image may be.
        history_steps: observations that the policy is given, the present one among them.
        history_spacing_s: time from each to the one before it: seconds on the clock of the stamps, never inferences.
    """

    images: dict[str, ImageSpec]
    state: tuple[StateItem, ...]
    reference: str
    max_age_s: float = 0.3
    max_skew_s: float = 0.1
    history_steps: int = 1
    history_spacing_s: float = 0.0

    def __post_init__(self) -> None:
        if self.reference not in self.images:
            raise ValueError(f"reference {self.reference!r} isn't one of the images {sorted(self.images)}")
        repeated = [kind for kind, count in Counter(item.kind for item in self.state).items() if count > 1]
        if repeated:
            raise ValueError(f"state lists {repeated} twice; keep one of each")
        if not (self.max_age_s > 0.0 and math.isfinite(self.max_age_s)):
            raise ValueError(f"max_age_s {self.max_age_s} isn't positive and finite")
        if not (self.max_skew_s >= 0.0 and math.isfinite(self.max_skew_s)):
            raise ValueError(f"max_skew_s {self.max_skew_s} is negative or not finite")
        if self.history_steps < 1:
            raise ValueError(f"history_steps {self.history_steps} is below 1, which is the present observation alone")
        has_past = self.history_steps > 1
        if not math.isfinite(self.history_spacing_s) or (self.history_spacing_s > 0.0) != has_past:
            raise ValueError(
                f"history_spacing_s {self.history_spacing_s} with history_steps {self.history_steps}: a past needs its "
                "spacing in seconds, and one observation alone has none"
            )

    @property
    def history_s(self) -> float:
        """How far back the oldest observation lies."""
        return (self.history_steps - 1) * self.history_spacing_s


def state_layout(spec: ObservationSpec, joints: int) -> dict[str, slice]:
    """Where each item lies in the state vector of an arm with that many joints."""
    layout: dict[str, slice] = {}
    start = 0
    for item in spec.state:
        layout[item.kind] = slice(start, start + item_width(item, joints))
        start = layout[item.kind].stop
    return layout


def state_width(spec: ObservationSpec, joints: int) -> int:
    """Length of the state vector of an arm with that many joints."""
    return sum(item_width(item, joints) for item in spec.state)


def item_width(item: StateItem, joints: int) -> int:
    """Entries of one item of the state vector."""
    if item.kind == "tcp_pose":
        return 3 + ROTATION_WIDTH[item.rotation]
    return joints if item.kind in ("joint_positions", "joint_velocities") else len(item.gripper_entries)
