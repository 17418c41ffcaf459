"""HDF5 in robomimic's layout: nothing lost on the way, whole after any crash, public files read for what they say."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")

from vla_ros.contract import load_contract
from vla_ros.errors import DatasetError
from vla_ros.recording.dataset import Column, EpisodeFrames, ImageColumn, Schema
from vla_ros.recording.formats import hdf5
from vla_ros.recording.formats.hdf5.committed import CommittedFile
from vla_ros.recording.formats.hdf5.journal import end_of_hdf5, finish_commit, journal_of

SCHEMA = Schema(
    fps=10.0,
    robot="panda",
    columns=(
        Column("observation.state", "float32", (3,), ("x", "y", "z")),
        Column("action", "float32", (4,)),
        Column("policy_action", "float32", (4,)),
        Column("has_policy_action", "bool"),
        Column("tcp_pose", "float64", (7,)),
        Column("stamp_ns", "int64"),
        Column("source", "string"),
        Column("jacobian", "float64", (2, 3)),
    ),
    images=(ImageColumn("observation.images.base", 6, 8, "cam0"), ImageColumn("observation.images.wrist", 4, 4)),
    contract=load_contract("droid_joint"),
)


def make_episode(seed: int, frames: int = 5, schema: Schema = SCHEMA, **attributes: object) -> EpisodeFrames:
    rng = np.random.default_rng(seed)
    columns = {}
    for column in schema.columns:
        shape = (frames, *column.shape)
        if column.dtype == "string":
            columns[column.name] = np.array([["teleop", "", "Rück"][i % 3] for i in range(frames)], object)[:, None]
        elif column.dtype == "int64":
            columns[column.name] = rng.integers(-(2**62), 2**62, shape)
        else:
            columns[column.name] = rng.normal(size=shape).astype(column.dtype)
    columns["policy_action"][0] = np.nan
    images = {
        image.name: rng.integers(0, 256, (frames, image.height, image.width, 3), np.uint8) for image in schema.images
    }

    def read_images():
        for name, pixels in images.items():
            yield from ((name, frame, pixels[frame]) for frame in range(frames))

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


@pytest.mark.parametrize("compression", ["none", "lzf", "gzip"])
def test_what_is_written_is_read_to_the_bit(tmp_path, compression):
    episodes = [make_episode(seed, frames=1 + seed, outcome="success") for seed in range(3)]
    writer = hdf5.create(tmp_path / "set", SCHEMA, {"compression": compression})
    for episode in episodes:
        writer.add(episode)
    writer.close()
    dataset = hdf5.open_dataset(tmp_path / "set")
    assert dataset.schema == SCHEMA
    assert dataset.names == tuple(episode.name for episode in episodes)
    for index, episode in enumerate(episodes):
        assert_same(dataset.read(index), episode)


def test_h5py_finds_robomimics_layout(tmp_path):
    episodes = [make_episode(0, 5, outcome="success"), make_episode(1, 3, outcome="failure"), make_episode(2, 2)]
    writer = hdf5.create(tmp_path, SCHEMA, {})
    for episode in episodes:
        writer.add(episode)
    writer.close()
    with h5py.File(tmp_path / "demo.hdf5", "r", swmr=True, libver="latest") as file:
        assert file["data"].attrs["total"] == 10
        assert json.loads(file["data"].attrs["env_args"])["env_kwargs"]["control_freq"] == 10.0
        assert list(file["data"]) == ["demo_0", "demo_1", "demo_2"]
        demo = file["data/demo_0"]
        assert demo.attrs["num_samples"] == 5
        assert json.loads(demo.attrs["ep_meta"])["lang"] == "pick it up"
        np.testing.assert_array_equal(demo["actions"][()], episodes[0].columns["action"])
        np.testing.assert_array_equal(demo["obs/state"][()], episodes[0].columns["observation.state"])
        assert demo["obs/base_image"].shape == (5, 6, 8, 3)
        assert demo["obs/base_image"].dtype == np.uint8
        assert demo["obs/base_image"].chunks == (1, 6, 8, 3)
        assert demo["rewards"][()].tolist() == [0, 0, 0, 0, 1]
        assert demo["dones"][()].tolist() == [0, 0, 0, 0, 1]
        assert file["data/demo_1/rewards"][()].tolist() == [0, 0, 0]
        # As SequenceDataset.load_demo_info reads a filter key.
        assert [item.decode("utf-8") for item in np.array(file["mask/success"][:])] == ["demo_0"]
        assert [item.decode("utf-8") for item in np.array(file["mask/failure"][:])] == ["demo_1"]


def test_dataset_goes_on_after_close(tmp_path):
    for seed in range(3):
        writer = hdf5.create(tmp_path, SCHEMA, {})
        assert writer.names == tuple(f"episode_{i:06d}" for i in range(seed))
        writer.add(make_episode(seed, outcome="success"))
        writer.close()
    dataset = hdf5.open_dataset(tmp_path)
    for seed in range(3):
        assert_same(dataset.read(seed), make_episode(seed, outcome="success"))


def failing(episode: EpisodeFrames, after: int) -> EpisodeFrames:
    def read_images():
        for count, item in enumerate(episode.read_images()):
            if count == after:
                raise RuntimeError("the bag is damaged here")
            yield item

    return dataclasses.replace(episode, read_images=read_images)


def test_episode_that_fails_halfway_leaves_nothing(tmp_path):
    writer = hdf5.create(tmp_path, SCHEMA, {})
    writer.add(make_episode(0))
    size = (tmp_path / "demo.hdf5").stat().st_size
    with pytest.raises(DatasetError, match="the bag is damaged here"):
        writer.add(failing(make_episode(1, outcome="success"), after=3))
    assert (tmp_path / "demo.hdf5").stat().st_size == size
    writer.add(make_episode(2))
    writer.close()
    dataset = hdf5.open_dataset(tmp_path)
    assert dataset.names == ("episode_000000", "episode_000002")
    assert_same(dataset.read(1), make_episode(2))
    with h5py.File(tmp_path / "demo.hdf5") as file:
        assert list(file["mask"]) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: {"columns": {k: v for k, v in e.columns.items() if k != "action"}}, "lacks column 'action'"),
        (lambda e: {"columns": {**e.columns, "more": e.columns["action"]}}, "has column 'more'"),
        (lambda e: {"columns": {**e.columns, "action": e.columns["action"][:, :3]}}, "'action' is of shape"),
        (lambda e: {"columns": {**e.columns, "action": e.columns["action"].astype(float)}}, "'action' is float64"),
        (lambda e: {"columns": {**e.columns, "source": np.full((5, 1), 3, object)}}, "'source', frame 0: isn't text"),
        (lambda e: {"tasks": ()}, "has no frames"),
        (lambda e: {"attributes": {"a": object()}}, "attributes aren't"),
        (lambda e: {"read_images": lambda: list(e.read_images())[:-1]}, "wrist': ends after 4 of 5"),
        (lambda e: {"read_images": lambda: list(e.read_images())[1:]}, "frame 0 of 5 was to come"),
        (lambda e: {"read_images": lambda: [*e.read_images()] * 2}, "frame 5 of 5 was to come"),
        (lambda e: {"read_images": lambda: [(n, i, p[1:]) for n, i, p in e.read_images()]}, "frame 0: is uint8"),
        (lambda e: {"read_images": lambda: [("other", 0, None)]}, "other', frame 0: isn't in"),
    ],
)
def test_episode_against_the_schema_is_refused(tmp_path, change, words):
    writer = hdf5.create(tmp_path, SCHEMA, {})
    episode = make_episode(0)
    with pytest.raises(DatasetError, match=words):
        writer.add(dataclasses.replace(episode, **change(episode)))
    writer.add(episode)
    writer.close()
    assert_same(hdf5.open_dataset(tmp_path).read(0), episode)


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


def test_file_is_whole_after_a_crash_at_any_system_call(tmp_path, monkeypatch):
    """A child dies before its k-th write, truncation, flush, rename or removal, for every k of an `add`."""
    start = tmp_path / "start"
    writer = hdf5.create(start, SCHEMA, {})
    # With the ninth, HDF5 has to split the node that holds the demos' names.
    for seed in range(8):
        writer.add(make_episode(seed, 1, outcome="success"))
    writer.close()
    content, counts = (start / "demo.hdf5").read_bytes(), []
    for k in range(10_000):
        folder = tmp_path / str(k)
        folder.mkdir()
        (folder / "demo.hdf5").write_bytes(content)

        def add_and_die(folder=folder, k=k):
            writer = hdf5.create(folder, SCHEMA, {})
            left = [k]

            def counted(call):
                def wrapper(*arguments, **keywords):
                    left[0] -= 1
                    if left[0] < 0:
                        os._exit(9)
                    return call(*arguments, **keywords)

                return wrapper

            for name in ("pwrite", "ftruncate", "fsync", "rename", "replace", "unlink"):
                setattr(os, name, counted(getattr(os, name)))
            writer.add(make_episode(8, 1, outcome="success"))

        status = run_in_fork(add_and_die)
        assert os.waitstatus_to_exitcode(status) in (0, 9)
        dataset = hdf5.open_dataset(folder)
        counts.append(len(dataset.names))
        for index in (0, 7, 8)[: counts[-1] - 6]:
            assert_same(dataset.read(index), make_episode(index, 1, outcome="success"))
        assert not journal_of(folder / "demo.hdf5").exists()
        if status == 0:
            break
    # Once it is there it stays, and between the first and the last of the calls it comes to be there.
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (8, 9)
    assert len(counts) > 30


def test_episodes_that_were_added_survive_kills_at_random_moments(tmp_path):
    rng = random.Random(7)
    added = 0
    for _ in range(12):
        reader, sender = os.pipe()
        child = os.fork()
        if child == 0:
            writer = hdf5.create(tmp_path, SCHEMA, {})
            for seed in range(len(writer.names), 1000):
                writer.add(make_episode(seed))
                os.write(sender, b".")
        os.close(sender)
        time.sleep(rng.uniform(0.01, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        reported = len(os.read(reader, 1000))
        os.close(reader)
        if (tmp_path / "demo.hdf5").exists():
            names = hdf5.open_dataset(tmp_path).names
            assert len(names) in (added + reported, added + reported + 1)
            added = len(names)
    dataset = hdf5.open_dataset(tmp_path)
    for index in range(added):
        assert_same(dataset.read(index), make_episode(index))


def test_full_disk_is_an_error_and_leaves_the_file_whole(tmp_path):
    writer = hdf5.create(tmp_path, SCHEMA, {})
    writer.add(make_episode(0))

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "demo.hdf5").stat().st_size + 3000,) * 2)
        with pytest.raises(DatasetError, match=r"can't be given episode episode_000001.*File too large"):
            writer.add(make_episode(1, frames=40))
        assert writer.names == ("episode_000000",)

    assert run_in_fork(fill) == 0
    writer.close()
    dataset = hdf5.open_dataset(tmp_path)
    assert dataset.names == ("episode_000000",)
    assert_same(dataset.read(0), make_episode(0))


def test_one_writer_at_a_time(tmp_path):
    writer = hdf5.create(tmp_path, SCHEMA, {})
    with pytest.raises(DatasetError, match="somebody else"):
        hdf5.create(tmp_path, SCHEMA, {})
    with pytest.raises(DatasetError, match="wait for who writes it"):
        hdf5.open_dataset(tmp_path)
    writer.close()
    hdf5.create(tmp_path, SCHEMA, {}).close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fps": 20.0}, "fps: 10.0 != 20.0"),
        ({"robot": "ur5e"}, "robot: panda != ur5e"),
        ({"columns": SCHEMA.columns[1:]}, "observation.state: .* != absent"),
        ({"contract": None}, "contract: droid_joint != none"),
        ({"contract": load_contract("droid_tool")}, "contract, action.space: joint != tool"),
    ],
)
def test_other_schema_is_refused_and_says_where(tmp_path, change, words):
    hdf5.create(tmp_path, SCHEMA, {}).close()
    with pytest.raises(DatasetError, match=words):
        hdf5.create(tmp_path, dataclasses.replace(SCHEMA, **change), {})


def test_unknown_option_and_clashing_names_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="did you mean 'compression'"):
        hdf5.create(tmp_path, SCHEMA, {"compresion": "gzip"})
    clash = dataclasses.replace(SCHEMA, columns=(*SCHEMA.columns, Column("observation.base_image", "float32")))
    with pytest.raises(DatasetError, match=r"obs/base_image, the place of"):
        hdf5.create(tmp_path, clash, {})
    assert list(tmp_path.iterdir()) == []


def test_file_of_another_program_is_left_alone(tmp_path):
    with h5py.File(tmp_path / "demo.hdf5", "w") as file:
        file.create_group("data/demo_0")
    before = (tmp_path / "demo.hdf5").read_bytes()
    with pytest.raises(DatasetError, match="of another program"):
        hdf5.create(tmp_path, SCHEMA, {})
    assert (tmp_path / "demo.hdf5").read_bytes() == before


def write_libero(path: Path, frames: int = 4) -> dict[str, np.ndarray]:
    """As LIBERO's files are: no schema, the instruction at the file."""
    rng = np.random.default_rng(3)
    values = {
        "actions": rng.normal(size=(frames, 7)),
        "dones": np.eye(frames, dtype=np.uint8)[-1],
        "rewards": np.eye(frames, dtype=np.uint8)[-1],
        "robot_states": rng.normal(size=(frames, 9)),
        "states": rng.normal(size=(frames, 20)),
        "obs/ee_pos": rng.normal(size=(frames, 3)),
        "obs/agentview_rgb": rng.integers(0, 256, (frames, 5, 6, 3), np.uint8),
        "obs/wrist_image": rng.integers(0, 256, (frames, 4, 4, 3), np.uint8),
        "obs/depth": rng.normal(size=(frames, 5, 6, 1)).astype(np.float32),
        "next_obs/ee_pos": rng.normal(size=(frames, 3)),
    }
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "x", "env_kwargs": {"robots": ["Panda"], "control_freq": 20}})
        data.attrs["problem_info"] = json.dumps({"language_instruction": ['"put it', ' there"']})
        for number in (10, 2):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = frames
            demo.attrs["model_file"] = "<mujoco/>"
            for key, array in values.items():
                demo[key] = array
        file["mask/train"] = np.array(["demo_10"], dtype="S")
    return values


def test_public_file_gives_what_is_there(tmp_path):
    values = write_libero(tmp_path / "task_a.hdf5")
    dataset = hdf5.open_dataset(tmp_path / "task_a.hdf5")
    assert dataset.names == ("demo_2", "demo_10")
    assert (dataset.schema.fps, dataset.schema.robot, dataset.schema.contract) == (20.0, "Panda", None)
    assert set(dataset.schema.images) == {
        ImageColumn("observation.images.agentview_rgb", 5, 6),
        ImageColumn("observation.images.wrist", 4, 4),
    }
    assert set(dataset.schema.columns) == {
        Column("action", "float64", (7,)),
        Column("done", "int64"),
        Column("reward", "int64"),
        Column("robot_states", "float64", (9,)),
        Column("states", "float64", (20,)),
        Column("observation.ee_pos", "float64", (3,)),
    }
    episode = dataset.read(1)
    np.testing.assert_array_equal(episode.columns["action"], values["actions"])
    np.testing.assert_array_equal(episode.columns["done"][:, 0], values["dones"])
    assert episode.tasks == ("put it there",) * 4
    assert episode.attributes["filter_keys"] == ["train"]
    assert episode.attributes["left_out"] == [
        "attribute model_file",
        "next_obs/ee_pos: float64 (4, 3)",
        "obs/depth: float32 (4, 5, 6, 1)",
    ]
    images = {(name, frame): image for name, frame, image in episode.read_images()}
    assert len(images) == 8
    np.testing.assert_array_equal(images["observation.images.agentview_rgb", 3], values["obs/agentview_rgb"][3])
    np.testing.assert_array_equal(images["observation.images.wrist", 1], values["obs/wrist_image"][1])


def test_public_files_of_a_folder_are_one_dataset_and_can_be_written_again(tmp_path):
    (tmp_path / "in").mkdir()
    values = write_libero(tmp_path / "in" / "a.hdf5")
    write_libero(tmp_path / "in" / "b.hdf5")
    dataset = hdf5.open_dataset(tmp_path / "in")
    assert dataset.names == ("a/demo_2", "a/demo_10", "b/demo_2", "b/demo_10")
    writer = hdf5.create(tmp_path / "out.hdf5", dataset.schema, {})
    for index in range(4):
        writer.add(dataset.read(index))
    writer.close()
    with h5py.File(tmp_path / "out.hdf5") as file:
        for key in ("actions", "obs/ee_pos", "obs/agentview_rgb_image", "obs/wrist_image", "states"):
            original = values[key if key in values else "obs/agentview_rgb"]
            np.testing.assert_array_equal(file[f"data/demo_3/{key}"][()], original)
        np.testing.assert_array_equal(file["data/demo_3/rewards"][:, 0], values["rewards"])
        np.testing.assert_array_equal(file["data/demo_3/dones"][:, 0], values["dones"])


def test_files_of_a_folder_keep_what_they_have_in_common(tmp_path):
    """LIBERO's simulator states differ in width from scene to scene; actions and images mayn't."""
    for name in ("a", "b"):
        write_libero(tmp_path / f"{name}.hdf5")

    def replace(path: str, array: np.ndarray) -> None:
        with h5py.File(tmp_path / "b.hdf5", "r+") as file:
            for demo in file["data"].values():
                del demo[path]
                demo[path] = array

    replace("states", np.zeros((4, 25)))
    dataset = hdf5.open_dataset(tmp_path)
    assert dataset.schema.column("states") is None
    assert dataset.schema.column("robot_states") is not None
    assert "states: float64 (4, 25)" in dataset.read(3).attributes["left_out"]
    assert "states: float64 (4, 20)" in dataset.read(0).attributes["left_out"]
    replace("obs/agentview_rgb", np.zeros((4, 9, 9, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"aren't one dataset \(observation\.images\.agentview_rgb"):
        hdf5.open_dataset(tmp_path)
    write_libero(tmp_path / "b.hdf5")
    replace("actions", np.zeros((4, 8)))
    with pytest.raises(DatasetError, match=r"aren't one dataset \(action: "):
        hdf5.open_dataset(tmp_path)
    (tmp_path / "b.hdf5").unlink()
    hdf5.create(tmp_path / "c.hdf5", SCHEMA, {}).close()
    with pytest.raises(DatasetError, match="of vla_ros and of others"):
        hdf5.open_dataset(tmp_path)
    (tmp_path / "a.hdf5").unlink()
    hdf5.create(tmp_path / "d.hdf5", dataclasses.replace(SCHEMA, fps=5.0), {}).close()
    with pytest.raises(DatasetError, match=r"fps: 10\.0 != 5\.0"):
        hdf5.open_dataset(tmp_path)


def test_differing_demo_is_an_error_that_names_it(tmp_path):
    write_libero(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        del file["data/demo_10/actions"]
        file["data/demo_10/actions"] = np.zeros((4, 8))
        del file["data/demo_2/states"]
    dataset = hdf5.open_dataset(tmp_path / "a.hdf5")
    with pytest.raises(DatasetError, match=r"demo_10/action: is of shape \(4, 8\)"):
        dataset.read(1)
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        del file["data/demo_10/actions"]
    with pytest.raises(DatasetError, match="demo_10: lacks actions"):
        dataset.read(1)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n" + bytes(200)])
def test_no_dataset_is_an_error(tmp_path, content):
    (tmp_path / "demo.hdf5").write_bytes(content)
    with pytest.raises(DatasetError, match="can't be read"):
        hdf5.open_dataset(tmp_path)
    with pytest.raises(DatasetError, match=r"demo\.hdf5"):
        hdf5.create(tmp_path, SCHEMA, {})
    with pytest.raises(DatasetError, match="no HDF5 file is there"):
        hdf5.open_dataset(tmp_path / "nowhere")


def test_file_cut_at_any_byte_is_an_error_never_a_shorter_dataset(tmp_path):
    writer = hdf5.create(tmp_path / "whole", SCHEMA, {})
    for seed in range(2):
        writer.add(make_episode(seed))
    writer.close()
    content = (tmp_path / "whole" / "demo.hdf5").read_bytes()
    rng = random.Random(1)
    for _ in range(25):
        (tmp_path / "demo.hdf5").write_bytes(content[: rng.randrange(len(content))])
        with pytest.raises(DatasetError):
            hdf5.open_dataset(tmp_path)


def test_damaged_image_is_an_error(tmp_path):
    writer = hdf5.create(tmp_path, SCHEMA, {})
    writer.add(make_episode(0))
    writer.close()
    path = tmp_path / "demo.hdf5"
    pixels = next(iter(make_episode(0).read_images()))[2].tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(pixels) + 50] ^= 4
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="can't be read"):
        list(hdf5.open_dataset(tmp_path).read(0).read_images())


def test_committed_file_is_what_a_plain_one_would_be(tmp_path):
    """Against a bytearray: random writes, reads and truncations, then a commit, a rollback or a crash in a commit."""
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w", libver="earliest") as file:
        file["a"] = np.arange(3000)
    rng = random.Random(5)
    committed = CommittedFile(path)
    kept = bytearray(path.read_bytes())
    for _ in range(60):
        twin = bytearray(kept)
        for _ in range(rng.randrange(6)):
            start, size = rng.randrange(len(twin) + 1), rng.choice([0, 1, 100, 5000, 20_000])
            data = rng.randbytes(size)
            committed.seek(start)
            committed.write(data)
            twin[start : start + size] = data
            found = bytearray(rng.randrange(1, 9000))
            at = rng.randrange(len(twin))
            committed.seek(at)
            committed.readinto(found)
            assert found == twin[at : at + len(found)].ljust(len(found), b"\0")
            assert committed.seek(0, os.SEEK_END) == len(twin)
        if rng.random() < 0.3:
            # HDF5 truncates behind what it has in use, and never the head of the file.
            size = rng.randrange(64, len(twin))
            committed.truncate(size)
            del twin[size:]
        if rng.random() < 0.5:
            committed.commit()
            kept = twin
            assert path.read_bytes() == kept
        else:
            committed.rollback()
            assert path.read_bytes() == kept
    committed.close()


def test_journal_that_is_damaged_is_an_error_and_nothing_is_applied(tmp_path):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w", libver="earliest") as file:
        file["a"] = np.arange(3)
    before = path.read_bytes()
    assert end_of_hdf5(path) == len(before)
    journal_of(path).write_bytes(b"vlarosJ1" + bytes(30))
    with pytest.raises(DatasetError, match="is damaged"):
        finish_commit(path)
    assert path.read_bytes() == before
