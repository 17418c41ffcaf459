"""`vla-ros record` beside publishers: by the clock, by keys in a terminal, and without a stack."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
rosbags = pytest.importorskip("rosbags.rosbag2")

from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from vla_ros.recording.episode import read_info

pytestmark = pytest.mark.ros

COMMON = ("record", "--robot", "panda", "--task", "pick: 1", "--json")


@pytest.fixture
def stack(make_peer):
    """Publishes what the rig promises."""
    peer = make_peer("stack")
    publishers = [peer.speak(JointState, "joint_states")]
    publishers += [peer.speak(Image, f"camera/{name}/image") for name in ("base", "wrist")]
    peer.speak(String, "task", is_latched=True).publish(String(data="what a policy was told"))
    is_over = threading.Event()

    def publish() -> None:
        while not is_over.wait(0.02):
            publishers[0].publish(JointState(name=["joint"], position=[1.0]))

    thread = threading.Thread(target=publish)
    thread.start()
    yield peer
    is_over.set()
    thread.join()


def result(text: str) -> dict:
    return json.loads(text.strip().splitlines()[-1])


def test_clock_records_as_many_as_wanted_and_resume_the_rest(processes, stack, patience, tmp_path: Path):
    words = (*COMMON, "--folder", str(tmp_path), "--seconds", "0.5", "--outcome", "success")
    first = processes.start_command(*words, "--episodes", "1")
    assert first.wait(60) == 0, first.text
    second = processes.start_command(*words, "--episodes", "2", "--resume")
    assert second.wait(60) == 0, second.text
    found = result(second.text)
    assert (found["were_there"], found["wanted"], found["is_complete"]) == (1, 1, True)
    assert [episode["number"] for episode in found["episodes"]] == [1]
    for number in range(2):
        folder = tmp_path / f"episode_{number:06d}"
        info = read_info(folder)
        assert (info.task, info.outcome, info.rig.name) == ("pick: 1", "success", "panda_table")
        assert 0.4e9 < info.ended_ns - info.started_ns < 5e9
        with rosbags.Reader(folder) as reader:
            assert {"/joint_states", "/episode/event"} <= reader.topics.keys()
            # What the episode is said to be is the task of its frames.
            assert "/task" not in reader.topics


def test_keys_start_label_and_discard(processes, stack, patience, tmp_path: Path):
    master, slave = pty.openpty()
    words = [sys.executable, "-m", "vla_ros.cli", *COMMON, "--folder", str(tmp_path), "--episodes", "2"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdin=slave, stdout=output, stderr=subprocess.STDOUT, env={**os.environ})

    def press(key: str, heard: str) -> None:
        os.write(master, key.encode())
        patience(lambda: heard in log.read_text(), f"{heard!r} after {key!r}")
        time.sleep(0.1)

    patience(lambda: "space or enter" in log.read_text(), "the keys' names")
    press(" s", "1 of 2 episodes")  # As fast as a terminal passes them on.
    press(" d", "the episode is discarded")
    press("d", "no episode to discard")  # The one before that has nothing to do with it.
    for service in ("start", "stop"):
        assert stack.call(Trigger, f"episode/{service}").success
    patience(lambda: "2 of 2 episodes" in log.read_text(), "the episode that somebody else recorded")
    press("f", "is labelled failure")
    os.write(master, b"q")
    assert process.wait(60) == 0, log.read_text()
    os.close(master)
    os.close(slave)
    assert [read_info(path).outcome for path in sorted(tmp_path.glob("episode_*"))] == ["success", "failure"]


def test_without_a_stack_nothing_is_recorded_and_the_topics_are_named(processes, ros_domain, tmp_path: Path):
    process = processes.start_command(
        *COMMON, "--folder", str(tmp_path / "episodes"), "--seconds", "1", "--timeout", "0.5"
    )
    assert process.wait(60) == 2
    assert "nobody publishes /camera/base/image, /camera/wrist/image, /joint_states" in process.text
    assert list(tmp_path.glob("episodes/episode_*")) == []
