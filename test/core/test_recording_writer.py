"""Bags of the recorder's writer: read back with other libraries, after a full disk, a slow one, and in two storages."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("rosbags.rosbag2")

import yaml
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import Reader

from vla_ros.errors import RecordingError
from vla_ros.recording.bag_writer import STORAGES, BagWriter, Topic, storage_path
from vla_ros.recording.writer import EpisodeWriter

NEVER = QosTime(9223372036, 854775807)
LATCHED = Qos(
    QosHistory.KEEP_LAST, 10, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
    NEVER, NEVER, QosLiveliness.AUTOMATIC, NEVER, False,
)  # fmt: skip
STATES = Topic("/joint_states", "sensor_msgs/msg/JointState")
TASK = Topic("/task", "std_msgs/msg/String", (LATCHED,))


def fill(writer: EpisodeWriter, count: int, size: int = 1000) -> None:
    for number in range(count):
        assert writer.add(STATES, 1000 + number, number.to_bytes(4, "little") + bytes(size))


def read(folder: Path) -> list[tuple[str, int, bytes]]:
    with Reader(folder) as reader:
        return [(connection.topic, stamp, bytes(data)) for connection, stamp, data in reader.messages()]


@pytest.mark.parametrize("storage", STORAGES)
def test_what_is_added_is_read_back_by_rosbags_with_types_hashes_and_quality_of_service(storage, tmp_path: Path):
    folder = tmp_path / "episode_000007.part"
    writer = EpisodeWriter(folder, storage)
    writer.add(TASK, 5, b"\0\1\0\0task")
    fill(writer, 50)
    writer.close({"key": "value"})
    messages = read(folder)
    assert messages[0] == ("/task", 5, b"\0\1\0\0task")
    assert [(stamp, int.from_bytes(data[:4], "little")) for _, stamp, data in messages[1:]] == [
        (1000 + number, number) for number in range(50)
    ]
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert metadata["version"] == 8
    assert metadata["relative_file_paths"] == [storage_path(folder, storage).name]
    assert storage_path(folder, storage).name.startswith("episode_000007.")
    assert metadata["custom_data"] == {"key": "value"}
    topics = {item["topic_metadata"]["name"]: item["topic_metadata"] for item in metadata["topics_with_message_count"]}
    # As rclpy has it for this type.
    expected = "RIHS01_a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c5882bc9179260e"
    assert topics["/joint_states"]["type_description_hash"] == expected
    assert yaml.safe_load(topics["/task"]["offered_qos_profiles"])[0]["durability"] == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["metadata.yaml", storage_path(folder, storage).name]
    )


def test_mcap_is_read_by_the_mcap_library_with_checksums_and_message_definitions(tmp_path: Path):
    reader = pytest.importorskip("mcap.reader")
    writer = EpisodeWriter(tmp_path / "bag", "mcap")
    # Several chunks: 3 MB and more.
    fill(writer, 3000)
    writer.add(TASK, 9_000_000, b"\0\1\0\0later")
    writer.close({})
    with (tmp_path / "bag" / "bag.mcap").open("rb") as file:
        made = reader.make_reader(file, validate_crcs=True)
        numbers = [
            int.from_bytes(message.data[:4], "little") for _, channel, message in made.iter_messages("/joint_states")
        ]
        summary = made.get_summary()
    assert numbers == list(range(3000))
    assert summary.statistics.message_count == 3001
    assert len(summary.chunk_indexes) >= 3
    schemas = {schema.name: schema for schema in summary.schemas.values()}
    assert schemas["sensor_msgs/msg/JointState"].encoding == "ros2msg"
    assert b"float64[] position" in schemas["sensor_msgs/msg/JointState"].data
    with (tmp_path / "bag" / "bag.mcap").open("rb") as file:
        chunks = [
            record
            for record in pytest.importorskip("mcap.stream_reader").StreamReader(file, emit_chunks=True).records
            if type(record).__name__ == "Chunk"
        ]
    assert all(chunk.uncompressed_crc for chunk in chunks)


def test_compressed_chunks_are_smaller_and_say_the_same(tmp_path: Path):
    for name, is_compressed in (("plain", False), ("small", True)):
        writer = EpisodeWriter(tmp_path / name, "mcap", is_compressed=is_compressed)
        fill(writer, 500)
        writer.close({})
    assert read(tmp_path / "plain") == read(tmp_path / "small")
    sizes = [(tmp_path / name / f"{name}.mcap").stat().st_size for name in ("plain", "small")]
    assert sizes[1] < 0.2 * sizes[0]


def test_a_disk_that_stands_still_costs_no_message_while_the_queue_has_room(tmp_path: Path, monkeypatch):
    is_standing, goes_on = threading.Event(), threading.Event()
    write = BagWriter.write

    def slow(self, connection, stamp, data):
        is_standing.set()
        goes_on.wait(30.0)
        write(self, connection, stamp, data)

    monkeypatch.setattr(BagWriter, "write", slow)
    writer = EpisodeWriter(tmp_path / "bag", "mcap", max_queue_bytes=10 * 1004)
    fill(writer, 1)
    assert is_standing.wait(30.0)
    fill_up = [writer.add(STATES, 2000 + number, bytes(1004)) for number in range(12)]
    # Nine beside the one that is being written, and the rest is counted.
    assert fill_up == [True] * 9 + [False] * 3
    figures = writer.figures()
    assert figures.dropped == {"/joint_states": 3}
    assert figures.queue_bytes == 10 * 1004
    goes_on.set()
    writer.close({})
    assert len(read(tmp_path / "bag")) == 10


# Files may not grow past this: the kernel refuses as it does on a full disk.
FULL = """
import resource, sys, time
from pathlib import Path
from vla_ros.recording.writer import EpisodeWriter
from vla_ros.recording.bag_writer import Topic
from vla_ros.errors import RecordingError
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
writer = EpisodeWriter(Path(sys.argv[1]), sys.argv[2])
topic = Topic("/joint_states", "sensor_msgs/msg/JointState")
for number in range(1000):
    writer.add(topic, number, bytes(10_000))
try:
    writer.close({})
except RecordingError as error:
    print(error)
    sys.exit(42)
"""


@pytest.mark.parametrize("storage", STORAGES)
def test_a_write_that_fails_is_never_a_success(storage, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "bag"), storage], capture_output=True, text=True, check=False
    )
    assert done.returncode == 42, done.stderr
    assert "a write failed" in done.stdout
    assert not (tmp_path / "bag" / "metadata.yaml").exists()


def test_a_failure_is_told_and_nothing_more_is_taken(tmp_path: Path, monkeypatch):
    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    writer = EpisodeWriter(tmp_path / "bag", "mcap")
    fill(writer, 1)
    writer.wait_begun()
    monkeypatch.setattr(BagWriter, "write", fail)
    writer.add(STATES, 1, b"1")
    deadline_s = time.monotonic() + 30.0
    while not writer.figures().failure:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert writer.figures().failure == "No space left on device"
    assert not writer.add(STATES, 2, b"2")
    with pytest.raises(RecordingError, match="No space left on device"):
        writer.close({})


def test_a_folder_that_is_there_is_not_written_over(tmp_path: Path):
    (tmp_path / "bag").mkdir()
    with pytest.raises(RecordingError, match="can't be made"):
        EpisodeWriter(tmp_path / "bag", "mcap")
