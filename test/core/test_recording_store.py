"""A folder of episodes, its lock, its recorder and its disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rosbags.rosbag2")

import yaml
from rosbags.rosbag2 import Reader

from vla_ros.contract import load_rig
from vla_ros.errors import RecordingError
from vla_ros.recording.bag_writer import BagWriter, Topic
from vla_ros.recording.disk import DiskLimits, DiskWatch
from vla_ros.recording.episode import EpisodeInfo, read_info
from vla_ros.recording.listing import list_episodes
from vla_ros.recording.recorder import Recorder, RecorderOptions
from vla_ros.recording.store import INFO_KEY, EpisodeStore
from vla_ros.recording.topics import EVENT_TOPIC, STRING, ends_with, fixed_topics, policy_topic
from vla_ros.recording.validation import validate

EVENTS = Topic(f"/{EVENT_TOPIC}", STRING)
STATES = Topic("/joint_states", "sensor_msgs/msg/JointState")
RIG = load_rig("panda_table")
MB = 1_000_000


def make_info(number: int) -> EpisodeInfo:
    return EpisodeInfo(number, "pick", "panda", RIG, started_ns=1000)


def make_recorder(folder: Path, **limits: float) -> Recorder:
    # The machine's disk may be small.
    return Recorder(folder, EVENTS, RecorderOptions(disk=DiskLimits(0, **limits)))


def test_episodes_are_numbered_and_a_discarded_one_leaves_nothing(tmp_path: Path):
    recorder = make_recorder(tmp_path / "episodes")
    for outcome in ("success", "failure", "unlabelled"):
        recorder.start(make_info)
        recorder.add(STATES, 2000, b"\0\1\0\0state")
        recorder.stop(outcome, 3000)
    recorder.start(make_info)
    recorder.discard(4000)
    names = [path.name for path in sorted((tmp_path / "episodes").iterdir()) if path.is_dir()]
    assert names == ["episode_000000", "episode_000001", "episode_000002"]
    rows = list_episodes(tmp_path / "episodes")
    assert [(row.number, row.state, row.task, row.messages) for row in rows] == [
        (0, "success", "pick", 3), (1, "failure", "pick", 3), (2, "unlabelled", "pick", 3),
    ]  # fmt: skip


def test_an_episode_begins_with_its_own_words_and_what_was_in_force(tmp_path: Path):
    recorder = make_recorder(tmp_path)
    said = recorder.start(make_info, [(Topic("/task", STRING), b"\0\1\0\0task")])
    recorder.add(STATES, 2000, b"\0\1\0\0state")
    _, folder = recorder.stop("success", 3000)
    with Reader(folder) as reader:
        messages = [(connection.topic, stamp, bytes(data)) for connection, stamp, data in reader.messages()]
    assert [topic for topic, _, _ in messages] == ["/episode/event", "/task", "/joint_states", "/episode/event"]
    assert messages[0][1] == 1000
    event = json.loads(said)
    assert event["event"] == "start"
    assert EpisodeInfo.from_json(json.dumps(event["episode"]), "event") == make_info(0)
    assert said.encode() in messages[0][2]
    info = make_info(0).ended("success", 3000)
    assert read_info(folder) == info
    custom = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]["custom_data"]
    assert EpisodeInfo.from_json(custom[INFO_KEY], "metadata") == info


def test_a_finished_episode_can_be_labelled_and_its_metadata_say_the_same(tmp_path: Path):
    recorder = make_recorder(tmp_path)
    recorder.start(make_info)
    _, folder = recorder.stop("unlabelled", 3000)
    recorder.store.label(folder, "failure")
    assert read_info(folder).outcome == "failure"
    with Reader(folder) as reader:
        assert reader.message_count == 2
    custom = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]["custom_data"]
    assert json.loads(custom[INFO_KEY])["outcome"] == "failure"


LOCKER = """
import sys, time
from pathlib import Path
from vla_ros.recording.store import EpisodeStore
store = EpisodeStore(Path(sys.argv[1]))
store.acquire("recording an episode")
print("locked", flush=True)
time.sleep(60)
"""


def test_of_two_processes_one_records_and_the_other_is_told_who_until_that_one_is_killed(tmp_path: Path):
    other = subprocess.Popen([sys.executable, "-c", LOCKER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        recorder = make_recorder(tmp_path)
        with pytest.raises(RecordingError, match=f"process {other.pid} .* is recording an episode"):
            recorder.start(make_info)
        assert EpisodeStore(tmp_path).unfinished() == []
    finally:
        other.kill()
        other.wait()
    recorder.start(make_info)
    with pytest.raises(RecordingError, match="episode 0 is being recorded"):
        recorder.start(make_info)
    with pytest.raises(RecordingError, match="is recording an episode"):
        make_recorder(tmp_path).start(make_info)
    recorder.stop("success", 2000)


def test_disk_is_announced_then_ends_the_episode_before_the_reserve_is_touched():
    watch = DiskWatch(DiskLimits(reserve_bytes=100 * MB, end_s=5.0, warn_s=60.0))
    # 10 MB/s into 1000 MB: by hand, 90 s to the reserve at first, 60 after 30 s, 5 after 85 s.
    levels = {second: watch.step(second, 1000 * MB - second * 10 * MB, second * 10 * MB) for second in range(91)}
    assert levels[20].rate_bytes_s == pytest.approx(10 * MB)
    assert levels[20].left_s == pytest.approx(70.0)
    assert [levels[second].level for second in (0, 29, 31, 84, 86)] == ["ok", "ok", "low", "low", "full"]
    assert levels[85].free_bytes > 100 * MB


def test_disk_below_its_reserve_is_full_whoever_filled_it():
    assert DiskWatch(DiskLimits(reserve_bytes=100 * MB)).step(0.0, 99 * MB, 0).level == "full"


def test_start_on_a_full_disk_is_refused_and_leaves_nothing(tmp_path: Path):
    recorder = Recorder(tmp_path / "episodes", EVENTS, RecorderOptions(disk=DiskLimits(reserve_bytes=2**62)))
    with pytest.raises(RecordingError, match="make room"):
        recorder.start(make_info)
    assert EpisodeStore(tmp_path / "episodes").unfinished() == []
    EpisodeStore(tmp_path / "episodes").acquire("testing")


def test_a_failed_write_ends_with_an_error_and_an_episode_of_what_was_written(tmp_path: Path, monkeypatch):
    recorder = make_recorder(tmp_path)
    recorder.start(make_info)
    for number in range(100):
        recorder.add(STATES, 2000 + number, bytes(20_000))
    write, count = BagWriter.write, 0

    def fail_later(self, connection, stamp, data):
        nonlocal count
        count += 1
        if count > 50:
            raise OSError(28, "No space left on device")
        write(self, connection, stamp, data)

    monkeypatch.setattr(BagWriter, "write", fail_later)
    for number in range(100):
        recorder.add(STATES, 3000 + number, bytes(20_000))
    with pytest.raises(RecordingError, match="No space left on device"):
        recorder.stop("success", 9000)
    monkeypatch.undo()
    folder = tmp_path / "episode_000000"
    assert "No space left" in read_info(folder).recovered
    # Nobody said that it succeeded before it was cut off.
    assert read_info(folder).outcome == "unlabelled"
    with Reader(folder) as reader:
        stamps = [stamp for connection, stamp, _ in reader.messages() if connection.topic == "/joint_states"]
    assert len(stamps) >= 50
    assert stamps == [*range(2000, 2100), *range(3000, 3100)][: len(stamps)]
    recorder.start(make_info)
    recorder.stop("success", 9000)


def test_topics_of_a_cell_are_its_cameras_and_what_the_stack_says():
    topics = {topic.name: topic for topic in fixed_topics(RIG)}
    assert topics["camera/wrist/image"].rate_hz == 20.0
    assert topics["camera/wrist/camera_info"].type == "sensor_msgs/msg/CameraInfo"
    assert {name for name, topic in topics.items() if topic.is_required} == {
        "camera/base/image", "camera/wrist/image", "joint_states",
    }  # fmt: skip
    assert policy_topic("policies/mine/joint_chunk") == ("mine", "trajectory_msgs/msg/JointTrajectory")
    assert policy_topic("policies/mine/other") is None
    assert ends_with("/cell/left/task", "task")
    assert not ends_with("/subtask", "task")
    assert not ends_with("/cell/tf", "/tf")


def header(stamp_ns: int) -> bytes:
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return b"\0\1\0\0" + seconds.to_bytes(4, "little") + nanoseconds.to_bytes(4, "little") + bytes(4)


def test_validation_names_missing_topics_gaps_rates_and_stamps_that_go_back(tmp_path: Path):
    recorder = make_recorder(tmp_path)
    recorder.start(lambda number: EpisodeInfo(number, "pick", "panda", RIG, started_ns=0))
    image = Topic("/cell/camera/base/image", "sensor_msgs/msg/Image")
    for number in range(100):
        at_ns = number * 4_000_000 + (300_000_000 if number >= 50 else 0)
        stamp_ns = at_ns if number != 70 else 0
        recorder.add(STATES, at_ns, header(stamp_ns))
        if number % 25 == 0:
            recorder.add(image, at_ns, header(at_ns))
    _, folder = recorder.stop("success", 800_000_000)
    found = validate(folder)
    assert not found.is_valid
    assert any("no camera/wrist/image" in text for text in found.errors)
    assert any("/joint_states go back 1 times" in text for text in found.errors)
    assert not any("camera/base/image" in text for text in found.errors)
    assert any("/joint_states has a gap of 0.304 s" in text for text in found.warnings)
    assert any("/cell/camera/base/image at 5.0 Hz, the rig says 20 Hz" in text for text in found.warnings)
    assert validate(folder.rename(tmp_path / "episode_000001.part")).errors == [
        "it isn't finished; `vla-ros episodes repair` finishes it"
    ]


def test_validation_of_a_bag_with_fewer_messages_than_its_metadata_say_is_an_error(tmp_path: Path):
    recorder = make_recorder(tmp_path)
    recorder.start(make_info)
    _, folder = recorder.stop("success", 2000)
    path = folder / "episode_000000.mcap"
    path.write_bytes(path.read_bytes()[:-50])
    assert any("can't be read" in text for text in validate(folder).errors)
