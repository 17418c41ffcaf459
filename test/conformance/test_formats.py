"""What every dataset format of the registry keeps to; a new one is tested by being registered."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for package in ("av", "h5py", "pyarrow"):
    pytest.importorskip(package)

from vla_ros.contract import load_contract
from vla_ros.errors import DatasetError
from vla_ros.recording import editing
from vla_ros.recording.dataset import Column, EpisodeFrames, Format, ImageColumn, Schema
from vla_ros.recording.formats.registry import FORMATS, load_format
from vla_ros.recording.opening import open_any
from vla_ros.types import ImageArray

HEIGHT, WIDTH = 24, 32
BASE, WRIST = "observation.images.base", "observation.images.wrist"
SCHEMA = Schema(
    1 / 0.15,
    "panda",
    (
        Column("observation.state", "float32", (3,), ("x", "y", "gripper")),
        Column("action", "float32", (2,), ("x", "y")),
        Column("policy_action", "float32", (2,), ("x", "y")),
        Column("has_policy_action", "bool"),
        Column("stamp_ns", "int64"),
        Column("joint_positions", "float64", (4,)),
        Column("source", "string"),
        Column("is_held", "bool"),
    ),
    (ImageColumn(BASE, HEIGHT, WIDTH, "base"), ImageColumn(WRIST, HEIGHT - 2, WIDTH + 2, "wrist")),
    load_contract("libero"),
)
# The largest difference of a byte that a format's encoding makes of smooth images; formats that aren't named make none.
IMAGE_BOUND = {"lerobot": 12}
TASKS = ("pick up the red block", "lege den Würfel ab", "把红色方块放进盒子 🤖", 'say "no"\nor not')
LENGTHS = (5, 1, 3)
NAMES = sorted(FORMATS)


def image(seed: int, frame: int, column: ImageColumn) -> ImageArray:
    """Smooth, and telling by its brightness which one it is."""
    y, x = np.mgrid[: column.height, : column.width]
    ramp = 30.0 + 25 * seed + 15 * frame + 0.4 * x + 0.2 * y + (20 if column.name == WRIST else 0)
    return np.stack([ramp, 240.0 - ramp, 60.0 + 0.3 * ramp], axis=-1).astype(np.uint8)


def make_episode(seed: int, frames: int, name: str | None = None) -> EpisodeFrames:
    rng = np.random.default_rng(seed)
    has_wanted = rng.random((frames, 1)) < 0.5
    columns: dict[str, Any] = {
        "observation.state": rng.normal(size=(frames, 3)).astype(np.float32),
        "action": rng.normal(size=(frames, 2)).astype(np.float32),
        "policy_action": np.where(has_wanted, rng.normal(size=(frames, 2)), np.nan).astype(np.float32),
        "has_policy_action": has_wanted,
        # Of today, which a float can't tell to the ns.
        "stamp_ns": 1_795_365_112_123_456_789 + 150_000_000 * np.arange(frames)[:, None] + rng.integers(0, 9999),
        "joint_positions": rng.normal(size=(frames, 4)),
        "source": np.array([[("", "teleop", "π0")[frame % 3]] for frame in range(frames)], dtype=object),
        "is_held": rng.random((frames, 1)) < 0.5,
    }

    def read_images() -> Iterator[tuple[str, int, ImageArray]]:
        # One column ahead of the other, as cameras are.
        for frame in range(frames + 1):
            if frame < frames:
                yield WRIST, frame, image(seed, frame, SCHEMA.images[1])
            if frame > 0:
                yield BASE, frame - 1, image(seed, frame - 1, SCHEMA.images[0])

    tasks = tuple(TASKS[(seed + (frame > 2)) % len(TASKS)] for frame in range(frames))
    attributes = {"outcome": "success", "note": "ß\u2028", "findings": [{"kind": "gap", "count": seed}], "none": None}
    return EpisodeFrames(name or f"episode_{seed:06d}@1795365112123456789", columns, tasks, read_images, attributes)


EPISODES = [make_episode(seed, length) for seed, length in enumerate(LENGTHS)]


def write(form: Format, folder: Path, episodes: list[EpisodeFrames], schema: Schema = SCHEMA) -> Path:
    writer = form.create(folder, schema, {})
    for episode in episodes:
        writer.add(episode)
    writer.close()
    return folder


def assert_same(read: EpisodeFrames, written: EpisodeFrames, bound: int) -> None:
    assert (read.name, read.tasks, dict(read.attributes)) == (written.name, written.tasks, dict(written.attributes))
    assert list(read.columns) == list(written.columns)
    for name, values in written.columns.items():
        assert read.columns[name].dtype == values.dtype, name
        np.testing.assert_array_equal(read.columns[name], values, name)
    found: dict[str, list[ImageArray]] = {column.name: [] for column in SCHEMA.images}
    for name, frame, picture in read.read_images():
        assert frame == len(found[name]), "out of order"
        found[name].append(picture)
    for column in SCHEMA.images:
        wanted = [picture for name, _, picture in written.read_images() if name == column.name]
        assert len(found[column.name]) == len(wanted)
        for frame, (one, other) in enumerate(zip(found[column.name], wanted, strict=True)):
            assert one.dtype == np.uint8
            assert np.abs(one.astype(int) - other).max() <= bound, (column.name, frame)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def form(name: str) -> Format:
    return load_format(name)


def test_what_was_written_is_read(name: str, form: Format, tmp_path: Path) -> None:
    dataset = form.open_dataset(write(form, tmp_path / "d", EPISODES))
    assert dataset.schema == SCHEMA
    assert dataset.names == tuple(episode.name for episode in EPISODES)
    for index, episode in enumerate(EPISODES):
        assert_same(dataset.read(index), episode, IMAGE_BOUND.get(name, 0))


def test_images_are_read_as_often_as_asked(form: Format, tmp_path: Path) -> None:
    episode = form.open_dataset(write(form, tmp_path / "d", EPISODES[:1])).read(0)
    once, again = list(episode.read_images()), list(episode.read_images())
    assert len(once) == 2 * LENGTHS[0]
    for (column, frame, picture), (same_column, same_frame, same) in zip(once, again, strict=True):
        assert (column, frame) == (same_column, same_frame)
        np.testing.assert_array_equal(picture, same)


def test_dataset_is_appended_to(name: str, form: Format, tmp_path: Path) -> None:
    write(form, tmp_path / "d", EPISODES[:2])
    writer = form.create(tmp_path / "d", SCHEMA, {})
    assert writer.names == tuple(episode.name for episode in EPISODES[:2])
    writer.add(EPISODES[2])
    writer.close()
    dataset = form.open_dataset(tmp_path / "d")
    for index, episode in enumerate(EPISODES):
        assert_same(dataset.read(index), episode, IMAGE_BOUND.get(name, 0))


DYING = """
import importlib.util, os, sys
from pathlib import Path
sys.path.insert(0, {checkout!r})
spec = importlib.util.spec_from_file_location("samples", {here!r})
samples = importlib.util.module_from_spec(spec)
spec.loader.exec_module(samples)
writer = samples.load_format({name!r}).create(Path({folder!r}), samples.SCHEMA, {{}})
for episode in samples.EPISODES[:2]:
    writer.add(episode)
os._exit(0)
"""


def test_episodes_that_were_added_outlive_the_writer(name: str, form: Format, tmp_path: Path) -> None:
    folder, here = tmp_path / "d", Path(__file__)
    code = DYING.format(checkout=str(here.parents[2]), here=str(here), name=name, folder=str(folder))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    writer = form.create(folder, SCHEMA, {})
    assert writer.names == tuple(episode.name for episode in EPISODES[:2])
    writer.add(EPISODES[2])
    writer.close()
    dataset = form.open_dataset(folder)
    assert dataset.names == tuple(episode.name for episode in EPISODES)
    for index, episode in enumerate(EPISODES):
        assert_same(dataset.read(index), episode, IMAGE_BOUND.get(name, 0))


def test_empty_dataset_is_one(form: Format, tmp_path: Path) -> None:
    dataset = form.open_dataset(write(form, tmp_path / "d", []))
    assert dataset.names == ()
    assert dataset.schema == SCHEMA


def test_dataset_without_images_or_contract_is_one(name: str, form: Format, tmp_path: Path) -> None:
    schema = Schema(10.0, "ur5e", (Column("action", "float32", (2,)),), ())
    plain = EpisodeFrames("a", {"action": np.ones((3, 2), dtype=np.float32)}, ("t",) * 3, lambda: iter(()), {})
    dataset = form.open_dataset(write(form, tmp_path / "d", [plain], schema))
    assert dataset.schema == schema
    np.testing.assert_array_equal(dataset.read(0).columns["action"], plain.columns["action"])
    assert list(dataset.read(0).read_images()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fps": 20.0}, "fps"),
        ({"robot": "ur5e"}, "ur5e"),
        ({"columns": SCHEMA.columns[:-1]}, "is_held"),
        ({"columns": (Column("observation.state", "float64", (3,)), *SCHEMA.columns[1:])}, "observation.state"),
        ({"images": SCHEMA.images[:1]}, "wrist"),
        ({"images": (ImageColumn(BASE, 48, 64, "base"), SCHEMA.images[1])}, "base"),
        ({"contract": load_contract("droid_tool")}, "contract"),
        ({"contract": None}, "contract"),
    ],
    ids=["fps", "robot", "column", "dtype", "image", "size", "contract", "no contract"],
)
def test_another_schema_is_refused_and_nothing_is_changed(
    form: Format, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    write(form, tmp_path / "d", EPISODES[1:2])
    with pytest.raises(DatasetError, match=words):
        form.create(tmp_path / "d", dataclasses.replace(SCHEMA, **changes), {})
    assert form.open_dataset(tmp_path / "d").names == (EPISODES[1].name,)


def _changed(**columns: Any) -> EpisodeFrames:
    episode = make_episode(7, 4, "wrong")
    return dataclasses.replace(episode, columns={**episode.columns, **columns})


def _without(name: str) -> EpisodeFrames:
    episode = make_episode(7, 4, "wrong")
    return dataclasses.replace(episode, columns={key: v for key, v in episode.columns.items() if key != name})


def _with_images(change: Any) -> EpisodeFrames:
    episode = make_episode(7, 4, "wrong")
    return dataclasses.replace(episode, read_images=lambda: iter(change(list(episode.read_images()))))


WRONG = {
    "shape": _changed(action=np.zeros((4, 3), dtype=np.float32)),
    "length": _changed(action=np.zeros((5, 2), dtype=np.float32)),
    "dtype": _changed(action=np.zeros((4, 2))),
    "text": _changed(source=np.array([[1], [2], [3], [4]], dtype=object)),
    "missing": _without("is_held"),
    "unknown": _changed(more=np.zeros((4, 1))),
    "no frame": EpisodeFrames("wrong", {c.name: np.zeros((0, *c.shape)) for c in SCHEMA.columns}, (), lambda: iter(())),
    "image missing": _with_images(lambda items: items[:-1]),
    "image left out": _with_images(lambda items: [*items[:2], *items[4:]]),
    "image size": _with_images(lambda items: [(key, frame, picture[:-2]) for key, frame, picture in items]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_episode_that_does_not_fit_is_refused_and_leaves_nothing(
    name: str, form: Format, tmp_path: Path, wrong: str
) -> None:
    writer = form.create(tmp_path / "d", SCHEMA, {})
    writer.add(EPISODES[1])
    with pytest.raises(DatasetError, match="wrong"):
        writer.add(WRONG[wrong])
    writer.add(EPISODES[2])
    writer.close()
    dataset = form.open_dataset(tmp_path / "d")
    assert dataset.names == (EPISODES[1].name, EPISODES[2].name)
    assert_same(dataset.read(1), EPISODES[2], IMAGE_BOUND.get(name, 0))


def test_episode_of_a_name_that_is_there_is_refused(form: Format, tmp_path: Path) -> None:
    writer = form.create(tmp_path / "d", SCHEMA, {})
    writer.add(EPISODES[1])
    with pytest.raises(DatasetError, match="episode_000001"):
        writer.add(EPISODES[1])
    writer.close()
    assert form.open_dataset(tmp_path / "d").names == (EPISODES[1].name,)


def test_options_that_are_not_known_are_refused(form: Format, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="kolour"):
        form.create(tmp_path / "d", SCHEMA, {"kolour": 3})


def test_what_is_no_dataset_is_refused(form: Format, tmp_path: Path) -> None:
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(DatasetError):
            form.open_dataset(folder)


def test_format_is_found_out(name: str, form: Format, tmp_path: Path) -> None:
    found, dataset = open_any(write(form, tmp_path / "d", EPISODES[1:2]))
    assert (found, dataset.names) == (name, (EPISODES[1].name,))


@pytest.mark.parametrize("target", NAMES)
def test_every_format_is_converted_into_every_other(name: str, form: Format, target: str, tmp_path: Path) -> None:
    source = form.open_dataset(write(form, tmp_path / "from", EPISODES))
    writer = load_format(target).create(tmp_path / "to", source.schema, {})
    assert editing.copy_episodes(source, writer, [2, 1]) == [EPISODES[2].name, EPISODES[1].name]
    writer.close()
    found, dataset = open_any(tmp_path / "to")
    assert (found, dataset.schema) == (target, SCHEMA)
    # Encoded twice at the most.
    bound = IMAGE_BOUND.get(name, 0) + IMAGE_BOUND.get(target, 0)
    for index, episode in enumerate((EPISODES[2], EPISODES[1])):
        assert_same(dataset.read(index), episode, bound)


def test_statistics_are_of_the_values_in_every_format(form: Format, tmp_path: Path) -> None:
    dataset = form.open_dataset(write(form, tmp_path / "d", EPISODES))
    found = editing.combined_statistics(editing.all_statistics(dataset))
    actions = np.concatenate([episode.columns["action"] for episode in EPISODES])
    np.testing.assert_allclose(found["action"]["mean"], actions.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(found["action"]["std"], actions.astype(np.float64).std(axis=0), rtol=1e-9)
    assert found["action"]["count"].tolist() == [sum(LENGTHS)]
    wanted = np.concatenate([episode.columns["policy_action"] for episode in EPISODES])
    assert found["policy_action"]["count"].tolist() == [int(np.isfinite(wanted).all(axis=1).sum())]
    assert found[BASE]["mean"].shape == (3, 1, 1)
    assert "source" not in found
