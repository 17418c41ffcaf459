"""A cell for the recorder's benchmark: numbered messages at a cell's rates, already serialised."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from vla_ros.nodes.runtime import IMAGES, RELIABLE, required_parameter  # isort: skip # Settles the environment before rclpy.

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Transform, Twist
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import MultiDOFJointTrajectory, MultiDOFJointTrajectoryPoint

from vla_ros.nodes import image_messages
from vla_ros.nodes.messages import header

MARK = b"number:"
_DIGITS = 9
CAMERAS = ("base", "wrist", "side")
WIDTH, HEIGHT, IMAGES_HZ = 640, 480, 30.0
_START_S = 60.0


def number_of(data: bytes | memoryview) -> int:
    """The number in a message's frame_id, which is near its beginning."""
    begin = bytes(data[:400]).index(MARK) + len(MARK)
    return int(bytes(data[begin : begin + _DIGITS]))


def _templates() -> dict[str, tuple[type, float, bytearray]]:
    """By topic: type, rate in Hz, and a serialised message."""
    frame = (MARK + b"0" * _DIGITS).decode()
    rng = np.random.default_rng(0)
    made: dict[str, tuple[float, object]] = {}
    for camera in CAMERAS:
        noise = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        made[f"camera/{camera}/image"] = (IMAGES_HZ, image_messages.to_image(noise, 0, frame))
    names = [f"panda_joint{joint}" for joint in range(1, 8)]
    state = JointState(header=header(0, frame), name=names, position=[0.1] * 7, velocity=[0.0] * 7)
    made["joint_states"] = (250.0, state)
    verdict = DiagnosticStatus(name="safety_node", message="running", values=[KeyValue(key="source", value="bench")])
    made["safety/verdict"] = (250.0, DiagnosticArray(header=header(0, frame), status=[verdict]))
    chunk = MultiDOFJointTrajectory(header=header(0, frame), joint_names=["tcp_delta", "gripper"])
    chunk.points = [
        MultiDOFJointTrajectoryPoint(transforms=[Transform()] * 2, velocities=[Twist()] * 2) for _ in range(16)
    ]
    made["policies/bench/action_chunk"] = (25.0, chunk)
    return {topic: (type(item), hz, bytearray(serialize_message(item))) for topic, (hz, item) in made.items()}


ASKED_HZ = {**{f"camera/{name}/image": IMAGES_HZ for name in CAMERAS}, "joint_states": 250.0, "safety/verdict": 250.0}


def publish(node: Node, folder: Path, seconds: float) -> None:
    """Waits for the recorder and for the file `go`, publishes, and says how much of what in `published.json`."""
    streams = []
    for topic, (kind, hz, data) in _templates().items():
        streams.append(
            (
                topic,
                node.create_publisher(kind, topic, IMAGES if kind is Image else RELIABLE),
                1.0 / hz,
                data,
                data.index(MARK) + len(MARK),
            )
        )
    deadline_s = time.monotonic() + _START_S
    while any(publisher.get_subscription_count() == 0 for _, publisher, *_ in streams) or not (folder / "go").exists():
        if time.monotonic() > deadline_s:
            raise TimeoutError("nobody records")
        (folder / "matched").write_text(str(all(item[1].get_subscription_count() for item in streams)))
        time.sleep(0.05)
    counts = dict.fromkeys((topic for topic, *_ in streams), 0)
    begin_s = time.monotonic()
    while (now_s := time.monotonic() - begin_s) < seconds:
        next_s = seconds
        for topic, publisher, period_s, data, place in streams:
            if counts[topic] * period_s <= now_s:
                data[place : place + _DIGITS] = b"%0*d" % (_DIGITS, counts[topic])
                publisher.publish(bytes(data))
                counts[topic] += 1
            next_s = min(next_s, counts[topic] * period_s)
        time.sleep(max(0.0, next_s - (time.monotonic() - begin_s)))
    result = {"counts": counts, "seconds": time.monotonic() - begin_s}
    (folder / "published.tmp").write_text(json.dumps(result))
    (folder / "published.tmp").rename(folder / "published.json")
    # What is on its way still needs its publisher.
    time.sleep(12.0)


def main() -> int:
    """Publishes once."""
    rclpy.init()
    node = Node("bench_recording_feeder")
    folder = Path(required_parameter(node, "folder", "for signals and results"))
    publish(node, folder, float(required_parameter(node, "seconds", "how long, as text")))
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
