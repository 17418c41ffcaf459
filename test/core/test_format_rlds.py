"""RLDS in TFRecord: as TFDS itself writes and reads it, whole after any crash, public datasets read for what they say.

`test/data/rlds/arm_demos` was written by TFDS (write_with_tfds.py beside it).
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("google_crc32c")

from vla_ros.contract import load_contract
from vla_ros.errors import DatasetError
from vla_ros.recording.dataset import Column, EpisodeFrames, ImageColumn, Schema
from vla_ros.recording.formats import rlds
from vla_ros.recording.formats.rlds import example
from vla_ros.recording.formats.rlds.tfrecord import RecordFile, masked

DATA = Path(__file__).resolve().parents[1] / "data" / "rlds"
SCHEMA = Schema(
    fps=10.0,
    robot="panda",
    columns=(
        Column("observation.state", "float32", (3,), ("x", "y", "z")),
        Column("action", "float32", (4,)),
        Column("has_policy_action", "bool"),
        Column("tcp_pose", "float64", (7,)),
        Column("stamp_ns", "int64"),
        Column("source", "string"),
        Column("jacobian", "float64", (2, 3)),
        Column("flags", "bool", (2,)),
        Column("labels", "string", (2,)),
    ),
    images=(ImageColumn("observation.images.base", 6, 8, "cam0"), ImageColumn("observation.images.wrist", 16, 16)),
    contract=load_contract("droid_joint"),
)


def make_episode(seed: int, frames: int = 5, **attributes: object) -> EpisodeFrames:
    rng = np.random.default_rng(seed)
    columns = {}
    for column in SCHEMA.columns:
        shape = (frames, *column.shape)
        if column.dtype == "string":
            columns[column.name] = rng.choice(np.array(["teleop", "", "Rück"], object), shape)
        elif column.dtype == "int64":
            columns[column.name] = rng.integers(-(2**63), 2**63 - 1, shape)
        elif column.dtype == "bool":
            columns[column.name] = rng.random(shape) < 0.5
        else:
            columns[column.name] = rng.normal(size=shape).astype(column.dtype)
    columns["action"][0, 0] = np.nan
    images = {
        image.name: rng.integers(0, 256, (frames, image.height, image.width, 3), np.uint8) for image in SCHEMA.images
    }

    def read_images():
        for frame in range(frames):
            yield from ((name, frame, pixels[frame]) for name, pixels in images.items())

    tasks = tuple("pick it up" if i < frames // 2 else "légé it down" for i in range(frames))
    return EpisodeFrames(f"episode_{seed:06d}", columns, tasks, read_images, {"seed": seed, **attributes})


def assert_same(found: EpisodeFrames, wanted: EpisodeFrames) -> None:
    assert (found.name, found.tasks, found.attributes) == (wanted.name, wanted.tasks, wanted.attributes)
    assert list(found.columns) == list(wanted.columns)
    for name, values in wanted.columns.items():
        assert found.columns[name].dtype == values.dtype, name
        np.testing.assert_array_equal(found.columns[name], values, err_msg=name)
    images, expected = ({(n, i): image for n, i, image in episode.read_images()} for episode in (found, wanted))
    assert images.keys() == expected.keys()
    assert all(np.array_equal(images[key], expected[key]) for key in expected)


def write(folder: Path, count: int, **options: object) -> Path:
    writer = rlds.create(folder, SCHEMA, options)
    for seed in range(len(writer.names), count):
        writer.add(make_episode(seed, 1 + seed, outcome="success"))
    writer.close()
    return folder / "1.0.0"


def test_what_is_written_is_read_to_the_bit(tmp_path):
    write(tmp_path / "set", 3)
    dataset = rlds.open_dataset(tmp_path / "set")
    assert dataset.schema == SCHEMA
    assert dataset.names == ("episode_000000", "episode_000001", "episode_000002")
    for seed in range(3):
        assert_same(dataset.read(seed), make_episode(seed, 1 + seed, outcome="success"))


def slow_crc32c(data: bytes) -> int:
    """A bit at a time, by the polynomial (RFC 3720, appendix B.4 has its test vectors)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def records_of(path: Path) -> list[bytes]:
    """A TFRecord file by its description alone."""
    assert slow_crc32c(bytes(32)) == 0x8A9136AA
    assert slow_crc32c(bytes(range(32))) == 0x46DD794E
    content, records = path.read_bytes(), []

    def check(data: bytes) -> bytes:
        crc = slow_crc32c(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    while content:
        (length,) = struct.unpack("<Q", content[:8])
        assert content[8:12] == check(content[:8])
        assert content[12 + length : 16 + length] == check(content[12 : 12 + length])
        records.append(content[12 : 12 + length])
        content = content[16 + length :]
    return records


def example_class():
    """tf.train.Example as protobuf's own library has it, from the messages' published definition."""
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tf", syntax="proto3")
    single, repeated = 1, 3
    kinds = {"float": 2, "int64": 3, "message": 11, "bytes": 12, "string": 9}
    messages = {
        "BytesList": [("value", 1, repeated, "bytes", "")],
        "FloatList": [("value", 1, repeated, "float", "")],
        "Int64List": [("value", 1, repeated, "int64", "")],
        "Feature": [
            ("bytes_list", 1, single, "message", "BytesList"),
            ("float_list", 2, single, "message", "FloatList"),
            ("int64_list", 3, single, "message", "Int64List"),
        ],
        "Entry": [("key", 1, single, "string", ""), ("value", 2, single, "message", "Feature")],
        # A map is a list of entries on the wire.
        "Features": [("feature", 1, repeated, "message", "Entry")],
        "Example": [("features", 1, single, "message", "Features")],
    }
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, number, label, kind, of in fields:
            message.field.add(
                name=field, number=number, label=label, type=kinds[kind], type_name=f".tf.{of}" if of else None
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tf.Example"))


def test_protobuf_and_a_naive_reader_find_what_tfds_would_write(tmp_path):
    folder = write(tmp_path / "my-set", 2)
    shard = folder / "my_set-train.tfrecord-00000-of-00001"
    records = records_of(shard)
    assert len(records) == 2
    parsed = example_class().FromString(records[1])
    features = {entry.key: entry.value for entry in parsed.features.feature}
    assert len(features) == len(parsed.features.feature)
    episode = make_episode(1, 2, outcome="success")
    flat = episode.columns["action"].reshape(-1).tolist()
    np.testing.assert_array_equal(features["steps/action"].float_list.value, flat)
    assert features["steps/stamp_ns"].int64_list.value == episode.columns["stamp_ns"].reshape(-1).tolist()
    assert features["steps/flags"].int64_list.value == episode.columns["flags"].reshape(-1).tolist()
    poses = [frame.tobytes() for frame in episode.columns["tcp_pose"]]
    assert features["steps/observation/tcp_pose"].bytes_list.value == poses
    assert features["steps/language_instruction"].bytes_list.value == [text.encode() for text in episode.tasks]
    assert features["steps/is_first"].int64_list.value == [1, 0]
    assert features["steps/is_last"].int64_list.value == [0, 1]
    assert features["steps/is_terminal"].int64_list.value == [0, 1]
    assert features["steps/reward"].float_list.value == [0, 1]
    assert features["steps/discount"].float_list.value == [1, 1]
    assert features["episode_metadata/file_path"].bytes_list.value == [b"episode_000001"]
    assert all(data.startswith(b"\x89PNG") for data in features["steps/observation/base"].bytes_list.value)
    # The same words as TFDS's own files.
    info, theirs = (
        json.loads((path / "dataset_info.json").read_text()) for path in (folder, DATA / "arm_demos" / "1.0.0")
    )
    assert {*theirs, "description"} - {"moduleName"} == {*info}
    assert info["splits"][0].keys() == theirs["splits"][0].keys()
    assert info["splits"][0]["shardLengths"] == ["2"]
    assert info["splits"][0]["numBytes"] == str(sum(map(len, records)))


@pytest.mark.parametrize(
    ("outcome", "reward", "is_terminal"), [("success", 1, 1), ("failure", 0, 1), ("unlabelled", 0, 0)]
)
def test_outcome_is_the_last_steps(tmp_path, outcome, reward, is_terminal):
    writer = rlds.create(tmp_path, SCHEMA, {})
    writer.add(make_episode(0, 3, outcome=outcome))
    writer.close()
    found = example.read_example(RecordFile(next((tmp_path / "1.0.0").glob("*tfrecord*"))).read(0))
    assert found["steps/reward"].numbers().tolist() == [0, 0, reward]
    assert found["steps/is_terminal"].numbers().tolist() == [0, 0, is_terminal]
    assert found["steps/is_last"].numbers().tolist() == [0, 0, 1]


def expected_arm_demo(number: int) -> tuple[dict[str, np.ndarray], dict[tuple[str, int], np.ndarray]]:
    """As write_with_tfds.py made it."""
    count = 2 + number
    frames = np.arange(count)
    columns = {
        "observation.state": np.stack([np.full(count, number), frames, np.full(count, 0.1)], 1).astype(np.float32),
        "observation.velocity": np.array([[[i, 0.1], [-1e-9, np.pi]] for i in frames]),
        "action.world_vector": np.stack([frames, -frames, np.full(count, 0.5)], 1).astype(np.float32),
        "action.terminate": np.array([[-1, 300, i] for i in frames]),
        "is_first": (frames == 0)[:, None],
        "is_last": (frames == count - 1)[:, None],
        "reward": (frames == count - 1).astype(np.float32)[:, None],
    }
    wrist = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    images = {("observation.images.wrist.image", i): wrist + np.uint8(i) for i in frames}
    images |= {("observation.images.image", i): np.full((16, 24, 3), (200, 40 * number, 10 * i)) for i in frames}
    return columns, images


def test_dataset_that_tfds_wrote_gives_what_went_in():
    dataset = rlds.open_dataset(DATA / "arm_demos")
    assert dataset.names == ("train/000000", "train/000001", "train/000002", "val/000000")
    assert (dataset.schema.fps, dataset.schema.contract) == (0.0, None)
    assert set(dataset.schema.images) == {
        ImageColumn("observation.images.image", 16, 24),
        ImageColumn("observation.images.wrist.image", 5, 7),
    }
    numbers = []
    for index in range(4):
        episode = dataset.read(index)
        number = episode.attributes["number"]
        columns, images = expected_arm_demo(number)
        numbers.append(number)
        assert episode.columns.keys() == columns.keys()
        for name, values in columns.items():
            assert episode.columns[name].dtype == values.dtype
            np.testing.assert_array_equal(episode.columns[name], values)
        assert episode.tasks == (f"pick n° {number}",) * len(episode)
        assert episode.attributes["file_path"] == f"/raw/{number}.npy"
        assert episode.attributes["left_out"] == ["steps/observation/depth: image uint16 (4, 6, 1)"]
        found = {(name, frame): image for name, frame, image in episode.read_images()}
        assert found.keys() == images.keys()
        for key, image in images.items():
            # JPEG's way to YCbCr and back rounds a plain colour by up to two.
            tolerance = 2 if key[0].endswith("images.image") else 0
            np.testing.assert_allclose(found[key].astype(int), image.astype(int), atol=tolerance)
    assert sorted(numbers[:3]) == [0, 1, 2]
    assert numbers[3] == 3


def test_public_dataset_can_be_written_again(tmp_path):
    dataset = rlds.open_dataset(DATA / "arm_demos" / "1.0.0")
    writer = rlds.create(tmp_path, dataset.schema, {})
    for index in range(4):
        writer.add(dataset.read(index))
    writer.close()
    again = rlds.open_dataset(tmp_path)
    for index in range(4):
        assert_same(again.read(index), dataset.read(index))


@pytest.fixture(scope="module")
def tensorflow_python() -> str:
    python = os.environ.get("VLA_ROS_TENSORFLOW_PYTHON")
    if not python:
        pytest.skip("VLA_ROS_TENSORFLOW_PYTHON isn't set: docs/formats.md makes an environment with TFDS")
    return python


@pytest.mark.parametrize("images", ["png", "jpeg"])
def test_tfds_itself_reads_what_is_written(tmp_path, tensorflow_python, images):
    write(tmp_path / "set", 2, images=images)
    folder = write(tmp_path / "set", 3, images=images) if images == "png" else tmp_path / "set" / "1.0.0"
    result = tmp_path / "result.npz"
    words = [tensorflow_python, str(DATA / "read_with_tfds.py"), str(folder), str(result)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found, dataset = np.load(result), rlds.open_dataset(folder)
    assert found["total"] == len(dataset.names)
    for index in range(len(dataset.names)):
        episode = dataset.read(index)
        for name, values in episode.columns.items():
            inside = {"observation.state": "observation/state", "tcp_pose": "observation/tcp_pose"}.get(name, name)
            theirs = found[f"{index}/steps/{inside}"].reshape(values.shape)
            expected = np.char.encode(values.astype(str)) if values.dtype == object else values
            np.testing.assert_array_equal(theirs, expected)
            assert theirs.dtype == expected.dtype or expected.dtype.kind == "S"
        ours: dict[str, list] = {}
        for name, _, image in episode.read_images():
            ours.setdefault(name.rsplit(".", 1)[-1], []).append(image)
        for name, pixels in ours.items():
            difference = np.abs(found[f"{index}/steps/observation/{name}"].astype(int) - np.array(pixels))
            # TensorFlow takes the faster of libjpeg's transforms, and this is noise.
            assert difference.max() <= (0 if images == "png" else 12)
        assert found[f"{index}/episode_metadata/file_path"] == episode.name.encode()
        assert [t.decode() for t in found[f"{index}/steps/language_instruction"]] == list(episode.tasks)


def test_jpeg_is_near_and_its_options_are_checked(tmp_path):
    writer = rlds.create(tmp_path, SCHEMA, {"images": "jpeg", "quality": 100})
    smooth = np.broadcast_to(np.linspace(0, 255, 16, dtype=np.uint8)[:, None, None], (16, 16, 3))
    episode = dataclasses.replace(
        make_episode(0, 1),
        read_images=lambda: [("observation.images.base", 0, smooth[:6, :8]), ("observation.images.wrist", 0, smooth)],
    )
    writer.add(episode)
    writer.close()
    images = {name: image for name, _, image in rlds.open_dataset(tmp_path).read(0).read_images()}
    # At quality 100 the steps of the quantisation are 1, and rounding is all that is lost.
    np.testing.assert_allclose(images["observation.images.wrist"].astype(int), smooth.astype(int), atol=3)
    for options, words in [
        ({"images": "gif"}, "choose from: png, jpeg"),
        ({"quality": 0}, "quality is 0"),
        ({"shard_mb": 0}, "shard_mb is 0"),
        ({"sharding": 1}, "unknown key 'sharding'"),
        ({"images": "png"}, "images aren't png"),
    ]:
        with pytest.raises(DatasetError, match=words):
            rlds.create(tmp_path, SCHEMA, options)


def test_dataset_goes_on_after_close_and_counts_its_shards_anew(tmp_path):
    for count in (2, 3):
        writer = rlds.create(tmp_path / "set", SCHEMA, {})
        start = len(writer.names)
        for seed in range(start, count):
            writer.add(make_episode(seed))
        writer.close()
    names = sorted(path.name for path in (tmp_path / "set" / "1.0.0").iterdir())
    assert names == [
        "dataset_info.json",
        "features.json",
        "set-train.tfrecord-00000-of-00002",
        "set-train.tfrecord-00001-of-00002",
        "vla_ros.json",
    ]
    info = json.loads((tmp_path / "set" / "1.0.0" / "dataset_info.json").read_text())
    assert info["splits"][0]["shardLengths"] == ["2", "1"]
    dataset = rlds.open_dataset(tmp_path)
    for seed in range(3):
        assert_same(dataset.read(seed), make_episode(seed))


def test_shard_that_is_large_is_followed_by_another(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    big = dataclasses.replace(SCHEMA, images=(ImageColumn("observation.images.base", 600, 800),))
    writer = rlds.create(tmp_path / "big", big, {"shard_mb": 1})
    for seed in range(3):
        writer.add(
            dataclasses.replace(make_episode(seed, 1), read_images=lambda: [("observation.images.base", 0, noise)])
        )
    writer.close()
    shards = sorted((tmp_path / "big" / "1.0.0").glob("*tfrecord*"))
    assert [shard.name[-14:] for shard in shards] == ["00000-of-00003", "00001-of-00003", "00002-of-00003"]
    assert rlds.open_dataset(tmp_path / "big").names == tuple(f"episode_{seed:06d}" for seed in range(3))


def failing(episode: EpisodeFrames, after: int) -> EpisodeFrames:
    def read_images():
        for count, item in enumerate(episode.read_images()):
            if count == after:
                raise RuntimeError("the bag is damaged here")
            yield item

    return dataclasses.replace(episode, read_images=read_images)


def test_episode_that_fails_halfway_leaves_nothing(tmp_path):
    writer = rlds.create(tmp_path, SCHEMA, {})
    writer.add(make_episode(0))
    with pytest.raises(DatasetError, match="the bag is damaged here"):
        writer.add(failing(make_episode(1), after=3))
    with pytest.raises(DatasetError, match="attributes aren't"):
        writer.add(make_episode(1, more=object()))
    with pytest.raises(DatasetError, match="lacks column 'action'"):
        writer.add(
            dataclasses.replace(
                make_episode(1), columns={n: v for n, v in make_episode(1).columns.items() if n != "action"}
            )
        )
    writer.add(make_episode(2))
    assert writer.names == ("episode_000000", "episode_000002")
    writer.close()
    dataset = rlds.open_dataset(tmp_path)
    assert_same(dataset.read(0), make_episode(0))
    assert_same(dataset.read(1), make_episode(2))
    assert len(dataset.names) == 2


def run_in_fork(work) -> int:
    """Runs `work` in a child and gives its wait status; a child that returns exits with 0."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def test_full_disk_is_an_error_and_leaves_what_was_there(tmp_path):
    writer = rlds.create(tmp_path, SCHEMA, {})
    writer.add(make_episode(0))
    size = next((tmp_path / "1.0.0").glob("*.part")).stat().st_size

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 9000,) * 2)
        with pytest.raises(DatasetError, match=r"can't be given episode episode_000001.*File too large"):
            writer.add(make_episode(1, frames=20))
        writer.add(make_episode(2))
        writer.close()

    assert run_in_fork(fill) == 0
    dataset = rlds.open_dataset(tmp_path)
    assert dataset.names == ("episode_000000", "episode_000002")
    assert_same(dataset.read(0), make_episode(0))
    assert_same(dataset.read(1), make_episode(2))


def test_episodes_that_were_added_survive_kills_at_random_moments(tmp_path):
    rng = random.Random(7)
    added = 0
    for _ in range(12):
        reader, sender = os.pipe()
        child = os.fork()
        if child == 0:
            writer = rlds.create(tmp_path, SCHEMA, {})
            for seed in range(len(writer.names), 1000):
                writer.add(make_episode(seed))
                os.write(sender, b".")
                if seed % 7 == 6:
                    writer.close()
                    writer = rlds.create(tmp_path, SCHEMA, {})
        os.close(sender)
        time.sleep(rng.uniform(0.01, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        reported = len(os.read(reader, 1000))
        os.close(reader)
        if (tmp_path / "1.0.0" / "features.json").exists():
            names = rlds.open_dataset(tmp_path).names
            assert len(names) in (added + reported, added + reported + 1)
            added = len(names)
    writer = rlds.create(tmp_path, SCHEMA, {})
    writer.add(make_episode(added))
    writer.close()
    dataset = rlds.open_dataset(tmp_path)
    assert len(dataset.names) == added + 1
    for index in range(added + 1):
        assert_same(dataset.read(index), make_episode(index))


def test_shard_torn_at_any_byte_keeps_its_whole_episodes(tmp_path):
    """What a loss of power leaves of an episode: fewer bytes, or zeros for some."""
    writer = rlds.create(tmp_path / "start", SCHEMA, {})
    writer.add(make_episode(0))
    (part,) = (tmp_path / "start" / "1.0.0").glob("*.part")
    whole = part.stat().st_size
    writer.add(make_episode(1))
    content = part.read_bytes()
    rng = random.Random(3)
    for trial in range(30):
        folder = tmp_path / str(trial)
        shutil.copytree(tmp_path / "start", folder)
        torn = content[: rng.randrange(whole, len(content))]
        if trial % 2:
            torn = torn.ljust(len(content), b"\0")
        (folder / "1.0.0" / part.name).write_bytes(torn)
        writer = rlds.create(folder, SCHEMA, {})
        assert writer.names == ("episode_000000",)
        writer.add(make_episode(2))
        writer.close()
        dataset = rlds.open_dataset(folder)
        assert dataset.names == ("episode_000000", "episode_000002")
        assert_same(dataset.read(1), make_episode(2))


def test_close_that_was_cut_off_is_completed_by_the_next(tmp_path, monkeypatch):
    for seed in range(2):
        writer = rlds.create(tmp_path, SCHEMA, {})
        writer.add(make_episode(seed))
        if seed:
            rename, count = Path.rename, []

            def rename_once(path, target, rename=rename, count=count):
                count.append(path)
                if len(count) > 1:
                    raise KeyboardInterrupt
                return rename(path, target)

            monkeypatch.setattr(Path, "rename", rename_once)
            with pytest.raises(KeyboardInterrupt):
                writer.close()
            monkeypatch.undo()
        else:
            writer.close()
    assert rlds.open_dataset(tmp_path).names == ("episode_000000", "episode_000001")
    rlds.create(tmp_path, SCHEMA, {}).close()
    assert sorted(path.name[-14:] for path in (tmp_path / "1.0.0").glob("*tfrecord*")) == [
        "00000-of-00002",
        "00001-of-00002",
    ]
    assert rlds.open_dataset(tmp_path).names == ("episode_000000", "episode_000001")


def test_one_writer_at_a_time_and_one_schema(tmp_path):
    writer = rlds.create(tmp_path, SCHEMA, {})
    with pytest.raises(DatasetError, match="somebody else writes it"):
        rlds.create(tmp_path, SCHEMA, {})
    writer.close()
    with pytest.raises(DatasetError, match=r"fps: 10\.0 != 20\.0"):
        rlds.create(tmp_path, dataclasses.replace(SCHEMA, fps=20.0), {})
    shutil.copytree(DATA / "arm_demos", tmp_path / "theirs")
    with pytest.raises(DatasetError, match="of another program"):
        rlds.create(tmp_path / "theirs", SCHEMA, {})
    clash = dataclasses.replace(SCHEMA, columns=(Column("observation.base", "float32"),))
    with pytest.raises(DatasetError, match="would stand in steps/observation/base"):
        rlds.create(tmp_path / "other", clash, {})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "features.json").unlink(), "no features.json"),
        (lambda f: (f / "features.json").write_text("{}"), "has no feature `steps`|isn't a features.json"),
        (lambda f: (f / "features.json").write_text("["), "isn't a features.json"),
        (lambda f: (f / "dataset_info.json").write_text("["), "can't be read"),
        (lambda f: (f / "dataset_info.json").write_text('{"fileFormat": "array_record"}'), "array_record"),
        (lambda f: next(f.glob("*train*")).unlink(), "'train' has 0 of 1 shards"),
        (lambda f: next(f.glob("*train*")).rename(f / "a-train.tfrecord-00001-of-00002"), "lacks shard 0 of 2"),
        (lambda f: flip(next(f.glob("*train*")), 9000), r"record 2 is damaged \(checksum\)"),
        (lambda f: flip(next(f.glob("*train*")), 2), "no TFRecord"),
        (lambda f: cut(next(f.glob("*train*"))), "is cut off after 2 records"),
        (lambda f: cut(next(f.glob("*train*")), to_records=2), "has 2 records, dataset_info.json says 3"),
    ],
)
def test_damaged_dataset_is_an_error_that_says_what(tmp_path, change, words):
    folder = tmp_path / "1.0.0"
    shutil.copytree(DATA / "arm_demos" / "1.0.0", folder)
    change(folder)
    with pytest.raises(DatasetError, match=words):
        [list(rlds.open_dataset(tmp_path).read(index).read_images()) for index in range(4)]


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def cut(path: Path, to_records: int | None = None) -> None:
    content = path.read_bytes()
    end = RecordFile(path).records[to_records][0] - 12 if to_records else len(content) - 5
    path.write_bytes(content[:end])


def test_empty_image_is_an_error_never_black(tmp_path, monkeypatch):
    monkeypatch.setattr("vla_ros.recording.formats.rlds.pictures.encode", lambda image, encoding, quality: b"")
    folder = write(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(DatasetError, match=r"steps/observation/base, frame 0: holds no image \(0 bytes\)"):
        list(rlds.open_dataset(folder).read(0).read_images())


def test_several_datasets_in_a_folder_are_told_apart_and_versions_chosen(tmp_path):
    write(tmp_path / "a", 1)
    write(tmp_path / "b", 1)
    with pytest.raises(DatasetError, match=r"holds 2 datasets \(a, b\)"):
        rlds.open_dataset(tmp_path)
    shutil.copytree(tmp_path / "a" / "1.0.0", tmp_path / "a" / "0.10.0")
    write(tmp_path / "a", 2)
    assert len(rlds.open_dataset(tmp_path / "a").names) == 2


def test_varints_are_those_of_a_loop():
    rng = np.random.default_rng(2)
    values = np.concatenate([[0, 1, 127, 128, 300, -1, 2**63 - 1, -(2**63)], rng.integers(-(2**63), 2**63 - 1, 50)])
    values = np.concatenate([values, rng.integers(0, 2**20, 50)]).astype(np.int64)
    expected = b"".join(example.varint(int(value) % 2**64) for value in values)
    assert example.varint(300) == b"\xac\x02"
    assert example.pack_varints(values) == expected
    np.testing.assert_array_equal(example.unpack_varints(memoryview(expected)), values)
    with pytest.raises(DatasetError, match="damaged"):
        example.unpack_varints(memoryview(expected[:-1]))
    assert len(example.unpack_varints(memoryview(b""))) == 0


def test_random_bytes_are_never_an_example_by_accident():
    rng = random.Random(4)
    record = records_of(next((DATA / "arm_demos" / "1.0.0").glob("*train*")))[0]
    for _ in range(300):
        damaged = bytearray(record[:400])
        damaged[rng.randrange(60)] = rng.randrange(256)
        try:
            found = example.read_example(memoryview(bytes(damaged)))
        except DatasetError:
            continue
        assert all(isinstance(name, str) for name in found)


def test_mask_of_a_checksum_is_tensorflows():
    # tensorflow/core/lib/hash/crc32c_test.cc: the mask of a mask is another, and TFDS's file above has the value.
    head = (DATA / "arm_demos" / "1.0.0" / "arm_demos-train.tfrecord-00000-of-00001").read_bytes()[:12]
    assert masked(slow_crc32c(head[:8])) == struct.unpack("<I", head[8:])[0]
