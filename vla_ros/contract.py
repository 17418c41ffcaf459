"""Rig and contract (docs/design.md, section 4): what a robot cell has, and what a policy needs and means.

Both are YAML files read into frozen types. `interface_hash` names what a policy observes and does, and nothing else:
two contracts with the same hash are interchangeable for a checkpoint.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from vla_ros.config import find_config, load

RotationForm = Literal["rotvec", "rpy", "quat_xyzw", "rot6d", "rot6d_rows"]


@dataclass(frozen=True)
class CameraSource:
    """Where a camera's images come from.

    Attributes:
        kind: `driver` publishes on the rig's topic by itself (a camera driver, the simulator); the others are opened by
            camera_node: a V4L2 `device`, a `video` file, or another image `topic` that is processed and republished.
        address: device path, file path or topic; empty for `driver`.
        crop_xywh: part of the source image to keep, pixels, or null for all of it.
        undistort: whether to rectify with the distortion below.
        restamp: whether to replace the source's stamp by the time of arrival.
        latency_s: time from exposure to arrival, subtracted from stamps made here.
    """

    kind: Literal["driver", "device", "video", "topic"] = "driver"
    address: str = ""
    crop_xywh: tuple[int, int, int, int] | None = None
    undistort: bool = False
    restamp: bool = False
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        if (self.kind == "driver") != (self.address == ""):
            raise ValueError(
                f"source kind {self.kind!r} with address {self.address!r}: all kinds but `driver` need one"
            )


@dataclass(frozen=True)
class CameraMount:
    """Where a camera sits.

    Attributes:
        parent: robot link that carries it.
        frame: name of its optical frame (z forward, x right, y down), the images' frame_id.
        position_m: origin of the optical frame in the parent.
        rpy_rad: rotation of the optical frame in the parent.
    """

    parent: str
    frame: str
    position_m: tuple[float, float, float]
    rpy_rad: tuple[float, float, float]


@dataclass(frozen=True)
class RigCamera:
    """One camera of a cell.

    Attributes:
        topic: relative topic of the images; CameraInfo is beside it, on `camera_info`.
        width: pixels.
        height: pixels.
        fovy_rad: vertical field of view of the ideal camera, used where nothing was calibrated and by the simulator.
        rate_hz: images per second.
        mount: where it sits.
        K: nine numbers, row by row, from calibration; null for the ideal camera.
        distortion: plumb_bob coefficients.
        source: where the images come from.
    """

    topic: str
    width: int
    height: int
    fovy_rad: float
    rate_hz: float
    mount: CameraMount
    K: tuple[float, ...] | None = None
    distortion: tuple[float, ...] = ()
    source: CameraSource = field(default_factory=CameraSource)

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"size {self.width}x{self.height} holds no pixel")
        if not 0.0 < self.fovy_rad < 3.1:
            raise ValueError(f"fovy_rad {self.fovy_rad} isn't in (0, 3.1)")
        if not self.rate_hz > 0.0:
            raise ValueError(f"rate_hz {self.rate_hz} isn't positive")
        if self.K is not None and len(self.K) != 9:
            raise ValueError(f"K has {len(self.K)} numbers, needs 9, row by row")
        if len(self.distortion) not in (0, 4, 5, 8):
            raise ValueError(f"distortion has {len(self.distortion)} coefficients, OpenCV takes 0, 4, 5 or 8")

    @property
    def info_topic(self) -> str:
        return f"{self.topic.rpartition('/')[0]}/camera_info"


@dataclass(frozen=True)
class Rig:
    """What a robot cell has.

    Attributes:
        name: the file's stem.
        robot: name of the robot, or path of its YAML.
        cameras: by name.
        table_height_m: height of the work surface in the robot's base frame.
    """

    name: str
    robot: str
    cameras: dict[str, RigCamera]
    table_height_m: float = 0.0


@dataclass(frozen=True)
class ImageSpec:
    """An image of the observation.

    Attributes:
        camera: the rig camera it comes from.
        width: pixels given to the policy; 0 keeps the camera's size.
        height: likewise.
        resize: `squash` ignores the aspect ratio, `pad` keeps it with black bars, `crop` keeps it and cuts the rest.
        interpolation: OpenCV's name.
        flip: `half_turn` for data recorded upside down.
        with_geometry: whether the policy needs intrinsics and the camera's pose in base.
        if_absent: `refuse` to infer, or give it a `black` image.
    """

    camera: str
    width: int = 0
    height: int = 0
    resize: Literal["squash", "pad", "crop"] = "squash"
    interpolation: Literal["area", "linear", "cubic", "lanczos"] = "area"
    flip: Literal["none", "half_turn"] = "none"
    with_geometry: bool = False
    if_absent: Literal["refuse", "black"] = "refuse"


@dataclass(frozen=True)
class StateItem:
    """One stretch of the state vector: `tcp_pose` (position and rotation in base), `joint_positions` or `gripper`."""

    kind: Literal["tcp_pose", "joint_positions", "gripper"]
    rotation: RotationForm = "quat_xyzw"


@dataclass(frozen=True)
class ObservationSpec:
    """What a policy sees.

    Attributes:
        images: by the name that the policy uses.
        state: items of the state vector, in order.
        reference: the image whose exposure is the observation's stamp.
        max_age_s: oldest observation that may be acted on.
        max_skew_s: how much older than the reference another image may be.
    """

    images: dict[str, ImageSpec]
    state: tuple[StateItem, ...]
    reference: str
    max_age_s: float = 0.3
    max_skew_s: float = 0.1

    def __post_init__(self) -> None:
        if self.reference not in self.images:
            raise ValueError(f"reference {self.reference!r} isn't one of the images {sorted(self.images)}")


@dataclass(frozen=True)
class ActionSpec:
    """What a policy's action means.

    Attributes:
        space: `tool` moves the tcp, `joint` the joints.
        composition: `tcp` or `base` (design.md); `base_euler` adds Euler angles componentwise.
        rotation: how the rotation of a tool action is written.
        relative_to: `observation`, the tcp pose at its stamp; `previous_step`, each to the one before; `nothing`.
        period_s: time between two steps of a chunk.
        first_action_offset_steps: step at which the first action is due, 0 or 1.
        gripper: `opening` (1 open), `closing` (1 closed), `signed_opening` (-1 closed, 1 open),
            `signed_closing` or `none`.
        position_scale_m: metres per unit of a position entry.
        rotation_scale_rad: rad per unit of a rotvec or rpy entry.
        timing: `absolute` or `on_arrival` (design.md).
        max_age_s: oldest chunk, by its observation's stamp, that is still begun.
    """

    space: Literal["tool", "joint"]
    relative_to: Literal["observation", "previous_step", "nothing"]
    period_s: float
    composition: Literal["tcp", "base", "base_euler"] = "base"
    rotation: RotationForm = "quat_xyzw"
    first_action_offset_steps: Literal[0, 1] = 1
    gripper: Literal["opening", "closing", "signed_opening", "signed_closing", "none"] = "opening"
    position_scale_m: float = 1.0
    rotation_scale_rad: float = 1.0
    timing: Literal["absolute", "on_arrival"] = "absolute"
    max_age_s: float = 1.0

    def __post_init__(self) -> None:
        if not self.period_s > 0.0:
            raise ValueError(f"period_s {self.period_s} isn't positive")


@dataclass(frozen=True)
class Contract:
    """What a policy needs and means; several contracts fit one rig."""

    name: str
    observation: ObservationSpec
    action: ActionSpec

    @property
    def interface_hash(self) -> str:
        """Sixteen hex digits over observation and action, the same on every machine."""
        canonical = json.dumps(
            {"observation": dataclasses.asdict(self.observation), "action": dataclasses.asdict(self.action)},
            sort_keys=True,
            separators=(",", ":"),
        )
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def load_rig(name: str) -> Rig:
    """The rig of that name in `config/rigs`, or of that file."""
    return load(Rig, find_config("rigs", name))


def load_contract(name: str) -> Contract:
    """The contract of that name in `config/contracts`, or of that file."""
    return load(Contract, find_config("contracts", name))


def find_mismatches(rig: Rig, contract: Contract) -> list[str]:
    """Where a rig doesn't give what a contract asks for: one sentence each, empty if it fits."""
    found = []
    for name, image in contract.observation.images.items():
        if image.camera not in rig.cameras and image.if_absent == "refuse":
            found.append(
                f"contract {contract.name}: image {name!r} comes from camera {image.camera!r}, "
                f"rig {rig.name} has {sorted(rig.cameras)}"
            )
    return found


def describe(value: Any) -> str:
    """A contract or rig as sorted `key: value` lines, for diffs and for people."""
    lines: list[str] = []

    def walk(prefix: str, item: Any) -> None:
        if isinstance(item, dict):
            for key in sorted(item):
                walk(f"{prefix}.{key}" if prefix else str(key), item[key])
        elif isinstance(item, (list, tuple)) and any(isinstance(entry, dict) for entry in item):
            for index, entry in enumerate(item):
                walk(f"{prefix}[{index}]", entry)
        else:
            lines.append(f"{prefix}: {item}")

    walk("", dataclasses.asdict(value))
    return "\n".join(lines)
