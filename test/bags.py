"""Small bags for tests, written by rosbags: an episode whose motion, images and words are known in closed form.

Nothing of vla_ros's reading is used here, so that what is read can be held against it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from vla_ros.contract import Rig, load_rig
from vla_ros.recording.episode import EpisodeInfo, write_info
from vla_ros.robots.config import RobotConfig, load_robot
from vla_ros.robots.model import RobotModel

S = 1_000_000_000
START_NS = 1_700_000_000 * S
TYPES = get_typestore(Stores.ROS2_HUMBLE)
_LATEST = get_typestore(Stores.LATEST)


def make(kind: str, **fields: Any) -> Any:
    """A message of rosbags' own types."""
    return _LATEST.types[kind](**fields)


def time(stamp_ns: int) -> Any:
    return make("builtin_interfaces/msg/Time", sec=int(stamp_ns // S), nanosec=int(stamp_ns % S))


def duration(ns: int) -> Any:
    return make("builtin_interfaces/msg/Duration", sec=int(ns // S), nanosec=int(ns % S))


def header(stamp_ns: int, frame: str = "") -> Any:
    return make("std_msgs/msg/Header", stamp=time(stamp_ns), frame_id=frame)


def string(text: str) -> Any:
    return make("std_msgs/msg/String", data=text)


def joint_state(stamp_ns: int, names: Any, positions: Any, velocities: Any = ()) -> Any:
    arrays = {"position": np.array(positions, float), "velocity": np.array(velocities, float), "effort": np.zeros(0)}
    return make("sensor_msgs/msg/JointState", header=header(stamp_ns), name=list(names), **arrays)


def image(stamp_ns: int, pixels: Any, encoding: str = "rgb8", padding: int = 0) -> Any:
    """Pixels (h, w, channels) uint8, rows with some bytes more than they need."""
    rows = pixels.reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return make(
        "sensor_msgs/msg/Image",
        header=header(stamp_ns, "camera"),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=rows.shape[1],
        data=rows.reshape(-1),
    )


def quat_xyzw(R: Any) -> Any:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(R).as_quat()


def transform(T: Any) -> Any:
    x, y, z, w = (float(value) for value in quat_xyzw(T[:3, :3]))
    p = [float(value) for value in T[:3, 3]]
    return make(
        "geometry_msgs/msg/Transform",
        translation=make("geometry_msgs/msg/Vector3", x=p[0], y=p[1], z=p[2]),
        rotation=make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
    )


def opening_transform(opening: float) -> Any:
    T = np.eye(4)
    T[0, 3] = opening
    return transform(T)


def tool_chunk(stamp_ns: int, frame: str, names: Any, points: Any, times_ns: Any) -> Any:
    """Points: lists of (4, 4), one for each name."""
    kind = "trajectory_msgs/msg/MultiDOFJointTrajectoryPoint"
    made = [
        make(
            kind,
            transforms=[transform(T) for T in point],
            velocities=[],
            accelerations=[],
            time_from_start=duration(ns),
        )
        for point, ns in zip(points, times_ns, strict=True)
    ]
    return make(
        "trajectory_msgs/msg/MultiDOFJointTrajectory",
        header=header(stamp_ns, frame),
        joint_names=list(names),
        points=made,
    )


def joint_chunk(stamp_ns: int, names: Any, rows: Any, times_ns: Any) -> Any:
    empty = np.zeros(0)
    made = [
        make(
            "trajectory_msgs/msg/JointTrajectoryPoint",
            positions=np.array(row, float),
            velocities=np.zeros(len(names)),
            accelerations=empty,
            effort=empty,
            time_from_start=duration(ns),
        )
        for row, ns in zip(rows, times_ns, strict=True)
    ]
    return make("trajectory_msgs/msg/JointTrajectory", header=header(stamp_ns), joint_names=list(names), points=made)


def verdict(stamp_ns: int, state: str, source: str, **limits: str) -> Any:
    values = [
        make("diagnostic_msgs/msg/KeyValue", key=key, value=value)
        for key, value in {"source": source, **limits}.items()
    ]
    status = make(
        "diagnostic_msgs/msg/DiagnosticStatus",
        level=0,
        name="safety_node",
        message=state,
        hardware_id="vla_ros",
        values=values,
    )
    return make("diagnostic_msgs/msg/DiagnosticArray", header=header(stamp_ns), status=[status])


@dataclasses.dataclass(frozen=True)
class Message:
    """One message of a bag."""

    topic: str
    received_ns: int
    message: Any


def write_bag(
    folder: Path,
    messages: list[Message],
    *,
    storage: str = "mcap",
    version: int = 8,
    compression: str = "",
    custom: dict[str, str] | None = None,
    types: Any = TYPES,
) -> Path:
    """A bag with these messages, by time of reception.

    Args:
        folder: is made.
        messages: in any order.
        storage: `mcap` or `sqlite3`.
        version: of the metadata.
        compression: `file` or `message`, empty for none.
        custom: for the metadata.
        types: rosbags typestore whose definitions are written.
    """
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    writer = Writer(folder, version=version, storage_plugin=plugin)
    if compression:
        mode = {"file": CompressionMode.FILE, "message": CompressionMode.MESSAGE, "storage": CompressionMode.STORAGE}
        writer.set_compression(mode[compression], CompressionFormat.ZSTD)
    for key, value in (custom or {}).items():
        writer.set_custom_data(key, value)
    with writer:
        connections: dict[str, Any] = {}
        for each in sorted(messages, key=lambda message: message.received_ns):
            kind = each.message.__msgtype__
            if each.topic not in connections:
                connections[each.topic] = writer.add_connection(each.topic, kind, typestore=types)
            data = types.serialize_cdr(each.message, kind)
            writer.write(connections[each.topic], each.received_ns, bytes(data))
    return folder


_MADE: dict[str, list[Message]] = {}


def _as_it_is(messages: list[Message]) -> list[Message]:
    return messages


@dataclasses.dataclass
class EpisodeBag:
    """An episode in closed form; change what a test is about, then `write`.

    Attributes:
        duration_s: from the first joint state to the last.
        rig: two small cameras.
        robot: the arm.
        source: who has the arm.
        task: the instruction.
        camera_hz: by camera; the wrist's exposures come `offset_ns` after the base's.
        delay_ns: from a stamp to its reception.
        states_hz: joint states, targets and commands.
        lead_ns: how far ahead of the measured motion the target is.
        chunk_s: between two chunks of the source; 0 for none.
        size: (height, width) of the images.
        mend: changes the list of messages before it is written.
    """

    duration_s: float = 2.0
    rig: Rig = dataclasses.field(default_factory=lambda: tiny_rig())
    robot: RobotConfig = dataclasses.field(default_factory=lambda: load_robot("panda"))
    source: str = "scripted"
    task: str = "reach the red block"
    camera_hz: float = 20.0
    offset_ns: int = 7_000_000
    delay_ns: int = 2_000_000
    states_hz: float = 100.0
    lead_ns: int = 50_000_000
    chunk_s: float = 0.1
    size: tuple[int, int] = (6, 8)
    namespace: str = ""
    contracts: dict[str, Any] = dataclasses.field(default_factory=dict)
    outcome: Any = "success"
    number: int = 12
    mend: Callable[[list[Message]], list[Message]] = _as_it_is

    def __post_init__(self) -> None:
        self.model = _model(self.robot.name)

    @property
    def info(self) -> EpisodeInfo:
        return EpisodeInfo(
            self.number,
            self.task,
            self.robot.name,
            self.rig,
            START_NS,
            contracts=self.contracts,
            outcome=self.outcome,
            ended_ns=START_NS + round(self.duration_s * S),
            source=self.source,
        )

    def q(self, stamp_ns: int) -> Any:
        """(joints,) rad, measured at a time: slow sines about home, each joint its own."""
        t = (stamp_ns - START_NS) / S
        return self.model.home + 0.1 * np.sin(0.7 * t + np.arange(len(self.model.home)))

    def q_wanted(self, stamp_ns: int) -> Any:
        """Where the joints were sent."""
        return self.q(stamp_ns + self.lead_ns)

    def opening(self, stamp_ns: int) -> float:
        """Measured opening."""
        return 0.5 + 0.4 * float(np.cos((stamp_ns - START_NS) / S))

    def opening_wanted(self, stamp_ns: int) -> float:
        return 1.0 if (stamp_ns - START_NS) < 0.5 * self.duration_s * S else 0.0

    def pixels(self, camera: str, index: int) -> Any:
        """(h, w, 3) of a camera's image: its index in the first pixel, noise of its own beside."""
        rng = np.random.default_rng([index, len(camera)])
        made = rng.integers(0, 255, (*self.size, 3), dtype=np.uint8)
        made[0, 0] = (index % 256, index // 256, len(camera))
        return made

    def image_stamps(self, camera: str) -> list[int]:
        first = START_NS + 20_000_000 + (0 if camera == "base" else self.offset_ns)
        count = int((self.duration_s - 0.04) * self.camera_hz)
        return [first + round(index * S / self.camera_hz) for index in range(count)]

    def state_stamps(self) -> list[int]:
        return [START_NS + round(k * S / self.states_hz) for k in range(round(self.duration_s * self.states_hz) + 1)]

    def messages(self) -> list[Message]:
        """All of them, before `mend`; not to be written into, since they are kept."""
        key = repr(dataclasses.replace(self, mend=_as_it_is))
        if key not in _MADE:
            _MADE[key] = self._make_messages()
        return list(_MADE[key])

    def _make_messages(self) -> list[Message]:
        space = f"/{self.namespace}" if self.namespace else ""
        found: list[Message] = []

        def say(topic: str, stamp_ns: int, message: Any, delay_ns: int = self.delay_ns) -> None:
            found.append(Message(topic if topic.startswith("/") else f"{space}/{topic}", stamp_ns + delay_ns, message))

        start = {"event": "start", "episode": json.loads(self.info.to_json()), "stamp_ns": START_NS}
        say("episode/event", START_NS - S // 10, string(json.dumps(start)))
        say("task", START_NS - S // 20, string(self.task))
        self._say_arm(say)
        for name, camera in self.rig.cameras.items():
            for index, stamp_ns in enumerate(self.image_stamps(name)):
                say(camera.topic, stamp_ns, image(stamp_ns, self.pixels(name, index)), 5_000_000)
        for k in range(round(10 * self.duration_s) + 1):
            stamp_ns = START_NS + k * S // 10
            say("safety/verdict", stamp_ns, verdict(stamp_ns, "running", self.source))
        if self.chunk_s and self.source:
            self._say_chunks(say)
        say("episode/event", START_NS + round(self.duration_s * S), string(json.dumps({"event": self.outcome})))
        return found

    def _say_arm(self, say: Callable[..., None]) -> None:
        names, base = self.robot.joint_names, self.robot.base_frame
        for k, stamp_ns in enumerate(self.state_stamps()):
            if k % 4 == 0:
                say("gripper/state", stamp_ns, joint_state(stamp_ns, ["gripper"], [self.opening(stamp_ns)]), 1_000_000)
            say("joint_states", stamp_ns, joint_state(stamp_ns, names, self.q(stamp_ns), np.zeros(len(names))))
            wanted, opening = self.q_wanted(stamp_ns), self.opening_wanted(stamp_ns)
            pose = self.model.forward_kinematics(wanted)
            grip = np.eye(4)
            grip[0, 3] = opening
            say("target", stamp_ns, tool_chunk(stamp_ns, base, ["tcp", "gripper"], [[pose, grip]], [0]))
            say("joint_command", stamp_ns, joint_state(stamp_ns, names, wanted, np.zeros(len(names))))
            if k == 0 or opening != self.opening_wanted(stamp_ns - round(S / self.states_hz)):
                say("gripper/command", stamp_ns, make("std_msgs/msg/Float64", data=opening))

    def _say_chunks(self, say: Callable[..., None]) -> None:
        """Eight absolute poses 0.1 s apart, 3 cm above where the arm is sent, 30 ms after the observation."""
        period_ns, base = round(self.chunk_s * S), self.robot.base_frame
        for stamp_ns in range(START_NS + period_ns, START_NS + round(self.duration_s * S), period_ns):
            times = [(step + 1) * S // 10 for step in range(8)]
            points = [[self.wish(stamp_ns + ns), _grip(0.25)] for ns in times]
            topic = "teleop/action_chunk" if self.source == "teleop" else f"policies/{self.source}/action_chunk"
            say(topic, stamp_ns, tool_chunk(stamp_ns, base, ["tcp", "gripper"], points, times), 30_000_000)

    def wish(self, stamp_ns: int) -> Any:
        """(4, 4) where the policy wanted the tcp."""
        T = self.model.forward_kinematics(self.q_wanted(stamp_ns)).copy()
        T[2, 3] += 0.03
        return T

    def write(self, folder: Path, **options: Any) -> Path:
        """The episode's folder: the bag, and `episode.json` beside it."""
        write_bag(folder, self.mend(self.messages()), **options)
        write_info(self.info, folder)
        return folder


@functools.lru_cache
def _model(robot: str) -> RobotModel:
    return RobotModel.from_config(load_robot(robot))


def _grip(opening: float) -> Any:
    T = np.eye(4)
    T[0, 3] = opening
    return T


def tiny_rig() -> Rig:
    """The panda's table with cameras of 8x6 pixels."""
    rig = load_rig("panda_table")
    cameras = {name: dataclasses.replace(camera, width=8, height=6) for name, camera in rig.cameras.items()}
    return dataclasses.replace(rig, cameras=cameras)
