"""LeRobot datasets: what lerobot itself reads from ours, what we read from its, and writers that die."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("pyarrow")

import av
import cv2
import pyarrow as pa
import pyarrow.parquet as pq

from vla_ros.contract import load_contract
from vla_ros.errors import DatasetError
from vla_ros.policies.environment import child_environ
from vla_ros.recording import editing
from vla_ros.recording.dataset import Column, EpisodeFrames, ImageColumn, Schema
from vla_ros.recording.encoding import VideoEncoder, VideoSettings, frame_rate
from vla_ros.recording.formats import lerobot
from vla_ros.recording.formats.lerobot.writer import STAGED_FOLDER, replace_statistics
from vla_ros.recording.statistics import column_statistics, combine
from vla_ros.recording.videos import VideoPart, join_videos, read_video
from vla_ros.types import ImageArray

CHECKOUT = Path(__file__).parents[2]
HEIGHT, WIDTH = 32, 48
BASE, WRIST = "observation.images.base", "observation.images.wrist"
SCHEMA = Schema(
    10.0,
    "panda",
    (
        Column("observation.state", "float32", (3,), ("x", "y", "z")),
        Column("action", "float64", (2,)),
        Column("policy_action", "float32", (2,)),
        Column("stamp_ns", "int64"),
        Column("source", "string"),
        Column("is_held", "bool"),
    ),
    (ImageColumn(BASE, HEIGHT, WIDTH, "base"), ImageColumn(WRIST, HEIGHT + 2, WIDTH, "wrist")),
    load_contract("libero"),
)
LENGTHS = (6, 1, 4)
# 8-bit colours, halved in resolution and quantised at crf 23: smooth images come back within a few steps.
CODEC_BOUND = 12


def image(seed: int, frame: int, height: int, width: int) -> ImageArray:
    """Smooth, and of a brightness that tells episode and frame."""
    y, x = np.mgrid[:height, :width]
    ramp = 40.0 + 20 * (seed % 4) + 12 * frame + 0.5 * x + 0.3 * y
    return np.stack([ramp, ramp * 0.9, 220.0 - ramp * 0.5], axis=-1).astype(np.uint8)


def make_episode(seed: int, frames: int, name: str | None = None) -> EpisodeFrames:
    rng = np.random.default_rng(seed)
    wanted = rng.normal(size=(frames, 2)).astype(np.float32)
    wanted[:: 2 if seed != 1 else 1] = np.nan
    columns: dict[str, Any] = {
        "observation.state": rng.normal(size=(frames, 3)).astype(np.float32),
        "action": rng.normal(size=(frames, 2)),
        "policy_action": wanted,
        "stamp_ns": 1_700_000_000_123_456_789 + np.arange(frames)[:, None] * 100_000_000 + rng.integers(0, 999),
        "source": np.array([["teleop"] if frame % 3 else [""] for frame in range(frames)], dtype=object),
        "is_held": rng.random((frames, 1)) < 0.5,
    }
    tasks = tuple(
        "pick up the red block" if frame < frames // 2 else f"lege Würfel {seed} ab" for frame in range(frames)
    )

    def read_images() -> Iterator[tuple[str, int, ImageArray]]:
        for frame in range(frames):
            yield WRIST, frame, image(seed + 1, frame, HEIGHT + 2, WIDTH)
            yield BASE, frame, image(seed, frame, HEIGHT, WIDTH)

    return EpisodeFrames(
        name or f"take {seed}", columns, tasks, read_images, {"outcome": "success", "note": f"ß{seed}"}
    )


def write(folder: Path, seeds: range, schema: Schema = SCHEMA, **options: Any) -> Path:
    with lerobot.create(folder, schema, options) as writer:
        for seed in seeds:
            writer.add(make_episode(seed, LENGTHS[seed % len(LENGTHS)]))
    return folder


def assert_equal(read: EpisodeFrames, written: EpisodeFrames) -> None:
    assert (read.name, read.tasks, read.attributes) == (written.name, written.tasks, written.attributes)
    for name, values in written.columns.items():
        np.testing.assert_array_equal(read.columns[name], values)
    images = {(name, frame): image for name, frame, image in read.read_images()}
    for name, frame, original in written.read_images():
        difference = np.abs(images.pop((name, frame)).astype(int) - original)
        assert difference.max() <= CODEC_BOUND, (name, frame)
    assert not images


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("ours") / "dataset", range(3))


@pytest.fixture(scope="module")
def by_lerobot(ours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lerobot, in its own environment, made of ours; and a dataset by its own writer, in `theirs`."""
    python = os.environ.get("VLA_ROS_LEROBOT_PYTHON")
    if not python:
        pytest.skip("VLA_ROS_LEROBOT_PYTHON isn't set: scripts/make_lerobot_environment.sh FOLDER; FOLDER/bin/python")
    out = tmp_path_factory.mktemp("by_lerobot")
    originals = {
        f"{name}/{seed}": np.stack([image for key, _, image in make_episode(seed, frames).read_images() if key == name])
        for seed, frames in enumerate(LENGTHS)
        for name in (BASE, WRIST)
    }
    np.savez(out / "images.npz", **originals)
    program = CHECKOUT / "test" / "data" / "lerobot" / "read_dataset.py"
    environ = {**child_environ(CHECKOUT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(out / "hf")}
    words = [python, "-W", "ignore", str(program), str(ours), str(out / "theirs"), str(out)]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_lerobot_reads_every_frame_as_it_was_written(by_lerobot: Path) -> None:
    frames, info = np.load(by_lerobot / "frames.npz"), json.loads((by_lerobot / "frames.json").read_text())
    episodes = [make_episode(seed, length) for seed, length in enumerate(LENGTHS)]
    assert (info["episodes"], info["robot"], info["fps"]) == (3, "panda", 10)
    assert info["task"] == [task for episode in episodes for task in episode.tasks]
    assert info["source"] == [text for episode in episodes for text in episode.columns["source"].ravel()]
    for column in SCHEMA.columns:
        if column.dtype == "string":
            continue
        wanted = np.concatenate([episode.columns[column.name] for episode in episodes])
        # lerobot makes float32 tensors of its lists, whatever they were stored as.
        wanted = wanted.astype(np.float32) if column.dtype == "float64" else wanted
        np.testing.assert_array_equal(frames[column.name].reshape(wanted.shape), wanted, column.name)
    np.testing.assert_array_equal(frames["index"], np.arange(sum(LENGTHS)))
    np.testing.assert_array_equal(frames["frame_index"], np.concatenate([np.arange(length) for length in LENGTHS]))


def test_lerobot_decodes_the_image_of_each_frame_across_episodes(by_lerobot: Path) -> None:
    frames, index = np.load(by_lerobot / "frames.npz"), 0
    for seed, length in enumerate(LENGTHS):
        originals = {(name, frame): original for name, frame, original in make_episode(seed, length).read_images()}
        for frame in range(length):
            for name in (BASE, WRIST):
                read = 255.0 * frames[f"{name}/{index}"].transpose(1, 2, 0)
                assert np.abs(read - originals[name, frame]).max() <= CODEC_BOUND, (name, index)
            index += 1


def test_lerobots_windows_stop_at_the_ends_of_an_episode(by_lerobot: Path) -> None:
    frames, first = np.load(by_lerobot / "frames.npz"), 0
    for seed, length in enumerate(LENGTHS):
        actions = make_episode(seed, length).columns["action"].astype(np.float32)
        for frame in range(length):
            around = np.arange(frame - 1, frame + 3)
            inside = np.clip(around, 0, length - 1)
            np.testing.assert_array_equal(frames[f"window/action/{first + frame}"], actions[inside])
            np.testing.assert_array_equal(frames[f"window/pad/{first + frame}"], around != inside)
            before = image(seed, max(0, frame - 1), HEIGHT, WIDTH)
            read = 255.0 * frames[f"window/base/{first + frame}"][0].transpose(1, 2, 0)
            assert np.abs(read - before).max() <= CODEC_BOUND
        first += length


def test_statistics_are_lerobots_own(by_lerobot: Path) -> None:
    found = json.loads((by_lerobot / "statistics.json").read_text())
    assert set(found) >= {"observation.state", "action", "stamp_ns", "timestamp", "index", "task_index", BASE, WRIST}
    for column, values in found.items():
        span = np.subtract(values["max"][0], values["min"][0])
        for name, (theirs, written) in values.items():
            # Its quantiles come from 5000 bins, its deviations from float32 sums of squares; stamps of 1.7e18 have
            # no digits left for a deviation there.
            if column == "stamp_ns" and name == "std":
                continue
            tolerance = np.maximum(3.0 * span / 5000.0, 1e-4) if name.startswith("q") else np.maximum(1e-5 * span, 1e-5)
            tolerance = np.maximum(tolerance, 1e-9 * np.abs(theirs))
            assert (np.abs(np.subtract(theirs, written)) <= tolerance).all(), (column, name, theirs, written)


def test_we_read_what_lerobot_writes(by_lerobot: Path) -> None:
    dataset = lerobot.open_dataset(by_lerobot / "theirs")
    assert (dataset.schema.fps, dataset.schema.robot, dataset.schema.contract) == (20.0, "so100", None)
    assert [len(dataset.read(index)) for index in range(2)] == [7, 4]
    second = dataset.read(1)
    assert second.tasks == ("task 1",) * 4
    np.testing.assert_array_equal(second.columns["observation.state"], [[frame, 1.0] for frame in range(4)])
    np.testing.assert_array_equal(second.columns["next.done"].ravel(), [False, False, False, True])
    for name, frame, read in second.read_images():
        bound = 0 if name.endswith("still") else CODEC_BOUND
        assert np.abs(read.astype(int) - (100 + 10 * frame)).max() <= bound, (name, frame)


def test_lerobots_videos_go_into_ours_as_they_are(by_lerobot: Path, tmp_path: Path) -> None:
    theirs = lerobot.open_dataset(by_lerobot / "theirs")
    only_video = Schema(theirs.schema.fps, theirs.schema.robot, (), theirs.schema.images[:1])
    with lerobot.create(tmp_path / "copy", only_video, {}) as writer:
        for index in (1, 0):
            episode: Any = theirs.read(index)
            writer.add(type(episode)(f"from {index}", {}, episode.tasks, _never, {}, episode.videos, {}))
    copy = lerobot.open_dataset(tmp_path / "copy")
    for place, index in enumerate((1, 0)):
        for (_, _, read), (_, _, there) in zip(
            copy.read(place).read_images(),
            [item for item in theirs.read(index).read_images() if "top" in item[0]],
            strict=True,
        ):
            np.testing.assert_array_equal(read, there)


def _never() -> Iterator[tuple[str, int, ImageArray]]:
    raise AssertionError("images were decoded")


def test_ours_is_read_back_and_appended_to(ours: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "dataset", range(2))
    before = {path: path.read_bytes() for path in folder.glob("*/*/*/*.*")}
    write(folder, range(2, 5))
    for path in [*folder.glob("data/**/*.parquet"), *folder.glob("videos/**/*.mp4")]:
        assert before.get(path, path.read_bytes()) == path.read_bytes(), f"{path} was written to again"
    dataset = lerobot.open_dataset(folder)
    assert dataset.schema == SCHEMA
    for seed in range(5):
        assert_equal(dataset.read(seed), make_episode(seed, LENGTHS[seed % 3]))


def test_same_episodes_give_the_same_bytes_but_for_videos(ours: Path, tmp_path: Path) -> None:
    again = write(tmp_path / "dataset", range(3))
    for path in ours.rglob("*.*"):
        if path.is_file() and path.suffix != ".mp4":
            assert (again / path.relative_to(ours)).read_bytes() == path.read_bytes(), path


def test_files_end_at_their_limit(tmp_path: Path) -> None:
    folder = write(tmp_path / "dataset", range(6), data_file_mb=0.001, video_file_mb=0.001, chunk_files=2)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.glob("data/*/*"))
    assert names[:3] == [
        "data/chunk-000/file-000.parquet",
        "data/chunk-000/file-001.parquet",
        "data/chunk-001/file-000.parquet",
    ]
    dataset = lerobot.open_dataset(folder)
    for seed in range(6):
        assert_equal(dataset.read(seed), make_episode(seed, LENGTHS[seed % 3]))


def test_odd_sides_and_other_rates_are_encoded(tmp_path: Path) -> None:
    schema = Schema(1 / 0.0667, "", (), (ImageColumn(BASE, 31, 47),))
    images = [image(0, frame, 31, 47) for frame in range(5)]
    with lerobot.create(tmp_path / "odd", schema, {}) as writer:
        for name in ("a", "b"):
            frames = ((BASE, frame, picture) for frame, picture in enumerate(images))
            writer.add(EpisodeFrames(name, {}, ("t",) * 5, lambda frames=frames: frames))
    read = [picture for _, _, picture in lerobot.open_dataset(tmp_path / "odd").read(1).read_images()]
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(read, images, strict=True)) <= CODEC_BOUND
    with pytest.raises(DatasetError, match="even sides"):
        VideoEncoder(tmp_path / "x.mp4", 10.0, 47, 31, VideoSettings("av1"))


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_packets_are_cut_and_joined_to_the_frame(tmp_path: Path, codec: str) -> None:
    rate, parts = frame_rate(10.0), []
    for number, count in enumerate((5, 3)):
        path = tmp_path / f"{number}.mp4"
        with VideoEncoder(path, 10.0, WIDTH, HEIGHT, VideoSettings(codec)) as encoder:
            for frame in range(count):
                encoder.write(image(3 * number, frame, HEIGHT, WIDTH))
        parts.append(VideoPart(path, 0, count, rate))
    joined, swapped = tmp_path / "joined.mp4", tmp_path / "swapped.mp4"
    assert join_videos(parts, joined, rate)
    assert join_videos([VideoPart(joined, 5, 3, rate), VideoPart(joined, 2, 3, rate)], swapped, rate)
    frames = list(read_video(VideoPart(swapped, 0, 6, rate)))
    wanted = [*read_video(parts[1]), *list(read_video(parts[0]))[2:]]
    np.testing.assert_array_equal(frames, wanted)
    with av.open(str(swapped)) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert not join_videos([VideoPart(joined, 1, 2, rate)], tmp_path / "none.mp4", rate), "1 isn't a keyframe"
    with pytest.raises(DatasetError, match="no frame 8"):
        list(read_video(VideoPart(joined, 6, 3, rate)))


WRITER = """
import sys
sys.path[:0] = [{tests!r}, {checkout!r}]
import test_format_lerobot as samples
from vla_ros.recording.formats import lerobot
writer = lerobot.create(samples.Path({folder!r}), samples.SCHEMA, {{"video_file_mb": 0.003}})
for seed in range(40):
    name = f"take {{seed}}"
    if name not in writer.names:
        writer.add(samples.make_episode(seed, samples.LENGTHS[seed % 3]))
        print(seed, flush=True)
writer.close()
"""


def test_killed_writer_loses_no_episode_that_was_added(tmp_path: Path) -> None:
    folder, rng = tmp_path / "dataset", np.random.default_rng(4)
    code = WRITER.format(tests=str(Path(__file__).parent), checkout=str(CHECKOUT), folder=str(folder))
    added: list[int] = []
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            added.append(int(line))
            if len(added) % 5 == 0:
                time.sleep(rng.uniform(0.0, 0.03))
                process.send_signal(signal.SIGKILL)
                break
        added += [int(line) for line in process.stdout]
        process.wait()
    with lerobot.create(folder, SCHEMA, {}) as writer:
        names = writer.names
    assert {f"take {seed}" for seed in added} <= set(names)
    assert len(names) <= len(added) + 3
    assert names == tuple(f"take {seed}" for seed in range(len(names))), "none twice, none left out"
    dataset = lerobot.open_dataset(folder)
    for seed in range(len(names)):
        assert_equal(dataset.read(seed), make_episode(seed, LENGTHS[seed % 3]))
    rows = pq.ParquetDataset(str(folder / "data")).read().num_rows
    assert rows == sum(len(dataset.read(index)) for index in range(len(names))), "files that no episode is in"


def test_commit_that_dies_midway_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "dataset", range(1))
    # The very last file of a lot: data, videos, tasks and names are there by then.
    monkeypatch.setattr(lerobot.lot, "write_episodes", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
    writer = lerobot.create(folder, SCHEMA, {})
    writer.add(make_episode(1, 1))
    with pytest.raises(DatasetError, match="disk full"):
        writer.close()
    monkeypatch.undo()
    with pytest.raises(DatasetError, match="isn't finished: 1 of its episodes"):
        lerobot.open_dataset(folder)
    write(folder, range(2, 3))
    dataset = lerobot.open_dataset(folder)
    assert dataset.names == ("take 0", "take 1", "take 2")
    for seed in range(3):
        assert_equal(dataset.read(seed), make_episode(seed, LENGTHS[seed]))


def test_full_disk_is_no_success(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    writer = lerobot.create(tmp_path / "dataset", SCHEMA, {})
    writer.add(make_episode(0, 6))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limit[1]))
    try:
        with pytest.raises(DatasetError, match=r"can't be written|isn't a whole"):
            writer.add(make_episode(2, 4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    writer.close()
    assert lerobot.open_dataset(tmp_path / "dataset").names == ("take 0",)


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    with (
        lerobot.create(tmp_path / "dataset", SCHEMA, {}),
        pytest.raises(DatasetError, match="somebody else writes it"),
    ):
        lerobot.create(tmp_path / "dataset", SCHEMA, {})
    lerobot.create(tmp_path / "dataset", SCHEMA, {}).close()


def test_damaged_video_is_an_error_of_that_episode(tmp_path: Path) -> None:
    folder = write(tmp_path / "dataset", range(2))
    (path,) = folder.glob(f"videos/{BASE}/*/*.mp4")
    path.write_bytes(path.read_bytes()[:200])
    episode = lerobot.open_dataset(folder).read(0)
    with pytest.raises(DatasetError, match=str(path)):
        list(episode.read_images())


def test_images_that_are_left_out_or_mixed_up_are_refused(tmp_path: Path) -> None:
    whole = make_episode(0, 6)
    items = list(whole.read_images())
    with lerobot.create(tmp_path / "dataset", SCHEMA, {}) as writer:
        for wrong in (items[:-1], items[2:], [*items, items[-1]], [items[0], *items[2:]]):
            episode = EpisodeFrames("wrong", whole.columns, whole.tasks, lambda wrong=wrong: iter(wrong))
            with pytest.raises(DatasetError, match="wrong: image"):
                writer.add(episode)
        assert writer.names == ()


def test_version_2_is_read(ours: Path, tmp_path: Path) -> None:
    folder, source = tmp_path / "v2", lerobot.open_dataset(ours)
    info = json.loads((ours / "meta/info.json").read_text())
    info |= {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    table = pq.ParquetDataset(str(ours / "data")).read()
    for index in range(len(LENGTHS)):
        for key in (BASE, WRIST):
            video = folder / f"videos/chunk-000/{key}/episode_{index:06d}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            episode: Any = source.read(index)
            assert join_videos([episode.videos[key]], video, frame_rate(10.0))
        data = folder / f"data/chunk-000/episode_{index:06d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.filter(pa.compute.equal(table["episode_index"], index)), data)
    (folder / "meta").mkdir()
    (folder / "meta/info.json").write_text(json.dumps(info))
    rows = [json.dumps({"episode_index": i, "tasks": [], "length": n}) for i, n in enumerate(LENGTHS)]
    (folder / "meta/episodes.jsonl").write_text("\n".join(rows) + "\n")
    tasks = pq.read_table(ours / "meta/tasks.parquet").to_pydict()
    lines = [json.dumps({"task_index": k, "task": t}) for k, t in zip(*tasks.values(), strict=True)]
    (folder / "meta/tasks.jsonl").write_text("\n".join(lines))
    dataset = lerobot.open_dataset(folder)
    for index, length in enumerate(LENGTHS):
        wanted = make_episode(index, length)
        assert_equal(
            dataset.read(index), EpisodeFrames(f"episode_{index:06d}", wanted.columns, wanted.tasks, wanted.read_images)
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"codebase_version": "v9.0"}, "v9.0"),
        ({"data_path": "../../{chunk_index}/{file_index}.parquet"}, "leads out"),
        ({"features": {"a": {"dtype": "complex64", "shape": [1]}}}, "complex64"),
        ({"features": {"d": {"dtype": "video", "shape": [4, 4, 1], "names": None}}}, "three channels"),
    ],
)
def test_what_is_not_understood_is_refused(ours: Path, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    (tmp_path / "d/meta").mkdir(parents=True)
    for path in (ours / "meta").rglob("*.parquet"):
        place = tmp_path / "d/meta" / path.relative_to(ours / "meta")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    info = json.loads((ours / "meta/info.json").read_text()) | change
    (tmp_path / "d/meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match=words):
        lerobot.open_dataset(tmp_path / "d")


def test_merged_datasets_copy_videos_and_keep_every_frame(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write(tmp_path / "other", range(2, 5))
    monkeypatch.setattr(lerobot.staging, "VideoEncoder", lambda *_: pytest.fail("a video was encoded anew"))
    sources = {"ours": lerobot.open_dataset(ours), "other": lerobot.open_dataset(other)}
    with lerobot.create(tmp_path / "both", editing.merged_schema(sources), {}) as writer:
        editing.merge(sources, writer)
    both = lerobot.open_dataset(tmp_path / "both")
    assert both.names == ("take 0", "take 1", "take 2", "other/take 2", "take 3", "take 4")
    for index, (seed, name) in enumerate(zip((0, 1, 2, 2, 3, 4), both.names, strict=True)):
        assert_equal(both.read(index), make_episode(seed, LENGTHS[seed % 3], name))
    for index, source in enumerate((ours, ours, ours, other, other, other)):
        original = lerobot.open_dataset(source).read(index % 3)
        for (_, _, a), (_, _, b) in zip(both.read(index).read_images(), original.read_images(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_merge_is_gone_on_with_after_an_interruption(ours: Path, tmp_path: Path) -> None:
    sources = {"ours": lerobot.open_dataset(ours)}
    for _ in range(2):
        with lerobot.create(tmp_path / "copy", SCHEMA, {}) as writer:
            editing.copy_episodes(sources["ours"], writer, [0])
    with lerobot.create(tmp_path / "copy", SCHEMA, {}) as writer:
        assert editing.merge(sources, writer) == {"ours": ["take 1", "take 2"]}


def test_other_schemas_are_not_merged(ours: Path, tmp_path: Path) -> None:
    schema = Schema(20.0, "ur5e", SCHEMA.columns, SCHEMA.images[:1], load_contract("droid_tool"))
    lerobot.create(tmp_path / "other", schema, {}).close()
    sources = {"ours": lerobot.open_dataset(ours), "other": lerobot.open_dataset(tmp_path / "other")}
    with pytest.raises(DatasetError, match=r"fps: 10.0 != 20.0; robot: panda != ur5e; .*wrist: .* != absent"):
        editing.merged_schema(sources)


def test_split_puts_every_episode_into_one_part() -> None:
    parts = editing.split_indices(11, [0.8, 0.1, 0.1], seed=3)
    assert sorted(index for part in parts for index in part) == list(range(11))
    assert [len(part) for part in parts] == [9, 1, 1]
    assert editing.split_indices(10, [0.5, 0.5], None) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    with pytest.raises(DatasetError, match="would be empty"):
        editing.split_indices(2, [0.9, 0.05, 0.05], None)


def test_dropped_episodes_are_named_or_numbered(ours: Path) -> None:
    dataset = lerobot.open_dataset(ours)
    assert editing.remaining(dataset, ["take 1", "2"]) == [0]
    with pytest.raises(DatasetError, match="no episode 'take 7'"):
        editing.remaining(dataset, ["take 7"])


def test_statistics_anew_equal_those_of_the_values(tmp_path: Path) -> None:
    folder = write(tmp_path / "dataset", range(3))
    wanted = (folder / "meta/stats.json").read_text()
    dataset = lerobot.open_dataset(folder)
    zeros = {
        "observation.state": {
            "min": np.zeros(3),
            "max": np.zeros(3),
            "mean": np.zeros(3),
            "std": np.zeros(3),
            "count": np.array([1]),
        }
    }
    replace_statistics(folder, SCHEMA, [zeros] * 3)
    assert (folder / "meta/stats.json").read_text() != wanted
    replace_statistics(folder, SCHEMA, editing.all_statistics(dataset))
    state = json.loads((folder / "meta/stats.json").read_text())["observation.state"]
    values = np.concatenate(
        [make_episode(seed, length).columns["observation.state"] for seed, length in enumerate(LENGTHS)]
    )
    np.testing.assert_allclose(state["mean"], values.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(state["std"], values.std(axis=0), rtol=1e-5)
    assert lerobot.open_dataset(folder).names == dataset.names


def test_nan_counts_in_no_statistic() -> None:
    values = np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, 6.0]])
    found = column_statistics(values)
    assert found is not None
    assert [found[name].tolist() for name in ("count", "mean", "std")] == [[2], [2.0, 4.0], [1.0, 2.0]]
    assert column_statistics(np.full((3, 2), np.nan)) is None
    # By hand: means 1 and 4 of 1 and 3 rows, squares about the common mean 3.25.
    both = combine(
        [found | {"mean": np.array([m]), "std": np.array([0.0]), "count": np.array([c])} for m, c in ((1, 1), (4, 3))]
    )
    assert both is not None
    assert both["mean"] == pytest.approx([3.25])
    assert both["std"] == pytest.approx([np.sqrt((2.25**2 + 3 * 0.75**2) / 4)])


def test_dataset_of_somebody_elses_folder_is_not_begun(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(DatasetError, match="isn't empty"):
        lerobot.create(tmp_path, SCHEMA, {})
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["thesis.tex"]


@pytest.mark.parametrize(
    "options", [{"colour": 1}, {"codec": "vhs"}, {"group": 0}, {"crf": "good"}, {"chunk_files": 0}]
)
def test_options_that_mean_nothing_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(DatasetError):
        lerobot.create(tmp_path / "dataset", SCHEMA, options)


def test_staged_episode_of_another_process_takes_its_place_in_order(tmp_path: Path) -> None:
    writer = lerobot.create(tmp_path / "dataset", SCHEMA, {})
    second, first = (writer.stager(make_episode(seed, 4), seed) for seed in (1, 0))
    writer.adopt(first)
    writer.adopt(second)
    writer.close()
    assert not (tmp_path / "dataset" / STAGED_FOLDER).exists()
    assert lerobot.open_dataset(tmp_path / "dataset").names == ("take 0", "take 1")


def test_opencv_and_swscale_agree_on_the_colours(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (128, 64, 192), (250, 250, 250)]
    path = tmp_path / "x.mp4"
    with VideoEncoder(path, 10.0, 32, 32, VideoSettings(crf=1)) as encoder:
        for colour in colours:
            encoder.write(np.full((32, 32, 3), colour, dtype=np.uint8))
    with av.open(str(path)) as container:
        independent = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    ours = read_video(VideoPart(path, 0, len(colours), frame_rate(10.0)))
    for colour, read, by_swscale in zip(colours, ours, independent, strict=True):
        # Rounded to 8 bits twice, in a range of 219 steps.
        assert np.abs(read.astype(int) - colour).max() <= 4
        assert np.abs(by_swscale.astype(int) - colour).max() <= 4
    assert cv2.PSNR(independent[0], independent[1]) < 20
