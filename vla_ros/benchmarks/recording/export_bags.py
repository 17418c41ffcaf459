"""Episodes for the benchmark of the export, as recorder_node writes them: full images, joint states at 250 Hz."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from vla_ros.commands.export_source import Source
from vla_ros.contract import Rig, load_contract, load_rig
from vla_ros.recording.episode import EpisodeInfo, write_info
from vla_ros.recording.synchronise import FrameOptions
from vla_ros.robots.config import load_robot
from vla_ros.types import ImageArray

WIDTH, HEIGHT = 640, 480
_RIG, _CONTRACT, _TASK = "panda_table", "libero", "pick up the red block"
_STATES_HZ, _VERDICTS_HZ = 250.0, 10.0
_PICTURES = 60
_NOISE = 4  # Of 255: a small sensor's in daylight.
_S = 1_000_000_000
_START_NS = 1_700_000_000 * _S
_TYPES = get_typestore(Stores.ROS2_HUMBLE)


def pictures(camera: str, seed: int) -> list[ImageArray]:
    """What a camera that moves slowly over a table sees, with noise; shown over and over."""
    rng = np.random.default_rng([seed, len(camera)])
    coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    scene = cv2.resize(coarse, (WIDTH + 2 * _PICTURES, HEIGHT + _PICTURES), interpolation=cv2.INTER_CUBIC)
    found = []
    for number in range(_PICTURES):
        # There and back, so that no cut is in it.
        place = min(number, _PICTURES - number)
        seen = scene[place : place + HEIGHT, 2 * place : 2 * place + WIDTH]
        noise = rng.integers(0, _NOISE, seen.shape, dtype=np.uint8)
        found.append(np.asarray(cv2.add(seen, noise), dtype=np.uint8))
    return found


def source(rate_hz: float) -> Source:
    """How the episodes are read: every image is a frame."""
    contract = load_contract(_CONTRACT)
    action = dataclasses.replace(contract.action, period_s=1.0 / rate_hz)
    return Source(dataclasses.replace(contract, action=action), FrameOptions())


def write_episode(
    folder: Path, number: int, frames: int, rate_hz: float, shown: Mapping[str, Sequence[ImageArray]]
) -> Path:
    """Writes one episode with that many images of each camera; its folder."""
    rig, robot = _rig(rate_hz), load_robot(load_rig(_RIG).robot)
    end_ns = _START_NS + round((frames + 2) * _S / rate_hz)
    info = EpisodeInfo(number, _TASK, rig.robot, rig, _START_NS + number, outcome="success", ended_ns=end_ns)
    path = folder / info.name
    path.parent.mkdir(parents=True, exist_ok=True)
    start = json.dumps({"event": "start", "episode": json.loads(info.to_json()), "stamp_ns": _START_NS})
    messages: list[tuple[int, str, Any]] = [(_START_NS, "/episode/event", _make("std_msgs/msg/String", data=start))]
    for index in range(round((frames + 2) / rate_hz * _STATES_HZ)):
        stamp_ns = _START_NS + round(index * _S / _STATES_HZ)
        joints = 0.1 * np.sin(stamp_ns / _S + np.arange(len(robot.joint_names)))
        messages += [
            (stamp_ns, "/joint_states", _joints(stamp_ns, robot.joint_names, joints)),
            (stamp_ns, "/gripper/state", _joints(stamp_ns, ("gripper",), np.array([0.5]))),
            (stamp_ns, "/joint_command", _joints(stamp_ns, robot.joint_names, joints)),
            (stamp_ns, "/target", _target(stamp_ns, robot.base_frame, index)),
        ]
        if index % round(_STATES_HZ / _VERDICTS_HZ) == 0:
            messages.append((stamp_ns, "/safety/verdict", _verdict(stamp_ns)))
    for name, images in shown.items():
        for index in range(frames):
            stamp_ns = _START_NS + round((index + 1) * _S / rate_hz)
            messages.append((stamp_ns, f"/{rig.cameras[name].topic}", (stamp_ns, images[index % len(images)])))
    writer = Writer(path, version=8, storage_plugin=StoragePlugin.MCAP)
    with writer:
        connections: dict[str, Any] = {}
        for stamp_ns, topic, message in sorted(messages, key=lambda each: each[0]):
            made = _image(*message) if isinstance(message, tuple) else message
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, made.__msgtype__, typestore=_TYPES)
            writer.write(connections[topic], stamp_ns, bytes(_TYPES.serialize_cdr(made, made.__msgtype__)))
    write_info(info, path)
    return path


def _rig(rate_hz: float) -> Rig:
    rig = load_rig(_RIG)
    cameras = {
        name: dataclasses.replace(camera, width=WIDTH, height=HEIGHT, rate_hz=rate_hz)
        for name, camera in rig.cameras.items()
    }
    return dataclasses.replace(rig, cameras=cameras)


def _make(kind: str, **fields: Any) -> Any:
    return _TYPES.types[kind](**fields)


def _header(stamp_ns: int, frame: str = "") -> Any:
    stamp = _make("builtin_interfaces/msg/Time", sec=stamp_ns // _S, nanosec=stamp_ns % _S)
    return _make("std_msgs/msg/Header", stamp=stamp, frame_id=frame)


def _joints(stamp_ns: int, names: Sequence[str], positions: Any) -> Any:
    values = {"position": positions, "velocity": np.zeros(len(names)), "effort": np.zeros(0)}
    return _make("sensor_msgs/msg/JointState", header=_header(stamp_ns), name=list(names), **values)


def _image(stamp_ns: int, image: ImageArray) -> Any:
    return _make(
        "sensor_msgs/msg/Image",
        header=_header(stamp_ns, "camera"),
        height=HEIGHT,
        width=WIDTH,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * WIDTH,
        data=image.reshape(-1),
    )


def _target(stamp_ns: int, frame: str, index: int) -> Any:
    """The tool half a metre before the arm, and the gripper half open, as the controller is told."""
    point = _make(
        "trajectory_msgs/msg/MultiDOFJointTrajectoryPoint",
        transforms=[_transform(0.5 + 1e-4 * (index % 1000)), _transform(0.5)],
        velocities=[],
        accelerations=[],
        time_from_start=_make("builtin_interfaces/msg/Duration", sec=0, nanosec=0),
    )
    names = ["tcp", "gripper"]
    kind = "trajectory_msgs/msg/MultiDOFJointTrajectory"
    return _make(kind, header=_header(stamp_ns, frame), joint_names=names, points=[point])


def _transform(x_m: float) -> Any:
    return _make(
        "geometry_msgs/msg/Transform",
        translation=_make("geometry_msgs/msg/Vector3", x=x_m, y=0.0, z=0.0),
        rotation=_make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
    )


def _verdict(stamp_ns: int) -> Any:
    status = _make(
        "diagnostic_msgs/msg/DiagnosticStatus",
        level=0,
        name="safety_node",
        message="running",
        hardware_id="vla_ros",
        values=[_make("diagnostic_msgs/msg/KeyValue", key="source", value="teleop")],
    )
    return _make("diagnostic_msgs/msg/DiagnosticArray", header=_header(stamp_ns), status=[status])
