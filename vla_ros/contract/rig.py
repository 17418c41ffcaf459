"""What a robot cell has: its robot and its cameras, from `config/rigs/<name>.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from vla_ros.config import find_config, load


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
        latency_s: time by which stamps are later than the exposure, and which camera_node subtracts: of those that it
            makes itself, and of a `topic`'s own. A `driver`'s images don't pass it (`vla-ros calibrate latency`).
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


def load_rig(name: str, prefix: str = "") -> Rig:
    """The rig of that name in `config/rigs`, or of that file.

    Args:
        name: of a rig, or path of its YAML.
        prefix: of the arm (`load_robot`), before the links that carry cameras and the cameras' frames.
    """
    rig = load(Rig, find_config("rigs", name))
    if not prefix:
        return rig
    cameras = {}
    for key, camera in rig.cameras.items():
        mount = replace(camera.mount, parent=prefix + camera.mount.parent, frame=prefix + camera.mount.frame)
        cameras[key] = replace(camera, mount=mount)
    return replace(rig, cameras=cameras)
