"""recorder_node beside a process that publishes numbered messages: what is in the bag, and what it took."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_ros.nodes.bench_recording_feeder import ASKED_HZ, HEIGHT, IMAGES_HZ, WIDTH, number_of  # isort: skip # Before rclpy.

import rclpy
import yaml
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rosbags.rosbag2 import Reader
from std_srvs.srv import Trigger

from vla_ros.config import plain
from vla_ros.contract import load_rig
from vla_ros.errors import VlaRosError
from vla_ros.launching.environment import defaults_without_ros
from vla_ros.nodes.bench_processes import BenchProcess, environment
from vla_ros.recording.episode import read_info

_DOMAIN = "102"
_START_S, _ANSWER_S, _REPAIR_S = 60.0, 60.0, 8.0


@dataclass(frozen=True)
class Recorded:
    """What was found.

    Attributes:
        published: messages by topic.
        recorded: different ones of these in the bag.
        first_missing: numbers of the first that aren't there, by topic.
        recorded_twice: that are there more than once, or weren't published.
        asked_hz: rates by topic.
        published_s: how long it was published.
        wall_s: how long the processor times are of.
        cpu_s: of recorder_node.
        feeder_cpu_s: of the publisher.
        bag_bytes: size of the bag.
        recorder_says: what the recorder itself knows to be lost.
    """

    published: dict[str, int]
    recorded: dict[str, int]
    first_missing: dict[str, list[int]]
    recorded_twice: int
    asked_hz: dict[str, float]
    published_s: float
    wall_s: float
    cpu_s: float
    feeder_cpu_s: float
    bag_bytes: int
    recorder_says: str


def measure(folder: Path, seconds: float, on_progress: Callable[[float], None]) -> Recorded:
    """Records for some seconds.

    Args:
        folder: for the bag and logs.
        seconds: how long is published.
        on_progress: called with the part that is done.

    Raises:
        VlaRosError: if a process doesn't answer.
    """
    namespace = f"bench_{os.getpid()}"
    episodes = folder / "episodes"
    with ExitStack() as stack:
        changed = {"ROS_DOMAIN_ID": _DOMAIN, "XDG_STATE_HOME": str(folder), **defaults_without_ros(os.environ)}
        changed["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        # As the launch files have it for whoever publishes images.
        changed["RMW_FASTRTPS_PUBLICATION_MODE"] = "ASYNCHRONOUS"
        stack.enter_context(environment(changed))
        remap = ["--ros-args", "-r", f"__ns:=/{namespace}"]
        recorder_words = [*remap, "-p", "robot:=panda", "-p", f"rig:={_write_rig(folder)}", "-p", f"folder:={episodes}"]
        feeder_words = [*remap, "-p", f"folder:={folder}", "-p", f"seconds:='{seconds}'"]
        processes = []
        for words in (
            ["vla_ros.nodes", "recorder_node", *recorder_words],
            ["vla_ros.nodes.bench_recording_feeder", *feeder_words],
        ):
            log = folder / f"{words[0]}.log"
            processes.append(stack.enter_context(BenchProcess([sys.executable, "-m", *words], log)))
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.try_shutdown)
        caller = _Caller(namespace, processes)
        stack.callback(caller.node.destroy_node)
        caller.wait(lambda: _text(folder / "matched") == "True", _START_S, "the recorder to hear everything")
        caller.call("episode/start")
        before = [_cpu_s(process.pid) for process in processes]
        begin_s = time.monotonic()
        (folder / "go").touch()
        while time.monotonic() - begin_s < seconds:
            on_progress((time.monotonic() - begin_s) / (1.2 * seconds))
            time.sleep(0.1)
        caller.wait((folder / "published.json").exists, _ANSWER_S, "the publisher's end")
        wall_s = time.monotonic() - begin_s
        after = [_cpu_s(process.pid) for process in processes]
        # What was lost on the way is asked for with a heartbeat, every three seconds, and the rest waits for it.
        time.sleep(_REPAIR_S)
        caller.call("episode/success")
    said = json.loads(_text(folder / "published.json"))
    recorded, missing, twice = _read(episodes / "episode_000000", said["counts"])
    size = sum(path.stat().st_size for path in (episodes / "episode_000000").iterdir())
    says = read_info(episodes / "episode_000000").recovered
    cpu_s = [late - early for early, late in zip(before, after, strict=True)]
    return Recorded(
        said["counts"], recorded, missing, twice, ASKED_HZ, said["seconds"], wall_s, cpu_s[0], cpu_s[1], size, says
    )


def _write_rig(folder: Path) -> Path:
    """The Panda's rig with three cameras of the size that is measured."""
    rig = load_rig("panda_table")
    base = dataclasses.replace(rig.cameras["base"], width=WIDTH, height=HEIGHT, rate_hz=IMAGES_HZ)
    cameras = {name: dataclasses.replace(base, topic=f"camera/{name}/image") for name in ("base", "wrist", "side")}
    path = folder / "bench_rig.yaml"
    values: dict[str, Any] = plain(dataclasses.asdict(dataclasses.replace(rig, name="bench_rig", cameras=cameras)))
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def _read(folder: Path, published: dict[str, int]) -> tuple[dict[str, int], dict[str, list[int]], int]:
    """How many different messages there are of each topic, the first missing ones, and how many shouldn't be there."""
    seen: dict[str, set[int]] = {topic: set() for topic in published}
    wrong = 0
    with Reader(folder) as reader:
        for connection, _, data in reader.messages():
            topic = next((name for name in published if connection.topic.endswith(f"/{name}")), None)
            if topic is None:
                continue
            number = number_of(data)
            wrong += number in seen[topic] or number >= published[topic]
            seen[topic].add(number)
    missing = {topic: sorted(set(range(published[topic])) - numbers)[:100] for topic, numbers in seen.items()}
    return {topic: len(numbers) for topic, numbers in seen.items()}, missing, wrong


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Caller:
    """Calls the recorder's services."""

    def __init__(self, namespace: str, processes: list[BenchProcess]) -> None:
        self.node = rclpy.create_node("bench_recording", namespace=namespace)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._processes = processes

    def wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Raises VlaRosError when it takes too long, or a process has ended."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            ended = [process for process in self._processes if process.poll() is not None]
            if ended or time.monotonic() > deadline_s:
                logs = " | ".join(process.log.read_text(errors="replace")[-300:] for process in self._processes)
                raise VlaRosError(f"waited in vain for {what}: {logs}")
            time.sleep(0.05)

    def call(self, name: str) -> None:
        """Raises VlaRosError if the service refuses or doesn't answer."""
        client = self.node.create_client(Trigger, name)
        self.wait(client.service_is_ready, _START_S, f"service {name}")
        future = client.call_async(Trigger.Request())
        self._executor.spin_until_future_complete(future, timeout_sec=_ANSWER_S)
        answer = future.result() if future.done() else None
        if answer is None or not answer.success:
            raise VlaRosError(f"{name}: {answer.message if answer is not None else 'no answer'}")
