"""Batches: what the policy would see of the same frame, and what it would have to answer; images, order, truth."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("pyarrow")
torch = pytest.importorskip("torch")

from example_datasets import CONTRACT, HEIGHT, WIDTH, make_episode, make_poses, pose_values, red_dot, write_dataset

from vla_ros.actions.decode import anchored_poses, decode_tool_chunk
from vla_ros.contract import WHOLE, ImageSpec
from vla_ros.errors import ContractError, DatasetError
from vla_ros.geometry import rotations, se3
from vla_ros.observation.image import prepare_frame, prepare_points
from vla_ros.policies.architectures.base import architecture_class
from vla_ros.policies.architectures.spec import ModelSpec
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.checkpoint import write_checkpoint
from vla_ros.policies.learned import LearnedPolicy
from vla_ros.recording.opening import open_any
from vla_ros.training.augmentation import Augmentation, augment
from vla_ros.training.batches import ExampleBatches
from vla_ros.training.examples import ExampleSet, read_examples
from vla_ros.training.image_cache import CACHE_FOLDER, CacheOptions, Rows
from vla_ros.training.order import ExampleOrder
from vla_ros.training.truth import relative_pose
from vla_ros.types import ActionChunk, CameraFrame, Observation

HORIZON = 4
IN_MEMORY = CacheOptions(is_kept=False)
TASKS = ["pick up the red block"] * 3 + ["touch the blue block"] * 4
VOCABULARY = ("block", "blue", "pick", "red", "the", "touch", "up")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    episodes = [make_episode(0, 7, tasks=TASKS), make_episode(1, 5)]
    return write_dataset(tmp_path_factory.mktemp("ours") / "little", episodes)


@pytest.fixture(scope="module")
def examples(ours: Path) -> ExampleSet:
    return read_examples([ours], HORIZON, cache=IN_MEMORY)


class Echo:
    """A network that keeps what it is given, and answers with noise."""

    name, prefix_way = "torch", "none"

    def sample(self, inputs: Any, noise: Any, prefix: Any) -> Any:
        self.seen = inputs
        return noise


def batches_of(examples: ExampleSet, **options: Any) -> ExampleBatches:
    # Another order of images than the contract's.
    spec = dataclasses.replace(examples.model_spec(VOCABULARY, 6), images=("wrist", "base"))
    return ExampleBatches(examples, spec, examples.statistics(), **options)


def test_an_example_is_what_the_policy_is_shown_of_that_frame(ours, examples, tmp_path):
    batches = batches_of(examples)
    checkpoint = write_checkpoint(
        tmp_path / "checkpoint", architecture="act", config={}, spec=batches.spec, contract=CONTRACT,
        statistics=batches.statistics, write_weights=lambda path: path.write_bytes(b""),
    )  # fmt: skip
    network = Echo()
    policy = LearnedPolicy(CONTRACT, checkpoint, network)  # type: ignore[arg-type]
    frames = open_any(ours)[1].read(0)
    images = {(name, frame): image for name, frame, image in frames.read_images()}
    batch = batches.examples_at(np.arange(7))
    for frame in range(7):
        seen = {
            name: prepare_frame(CameraFrame(0, images[f"observation.images.{name}", frame]), spec)
            for name, spec in CONTRACT.observation.images.items()
        }
        state = np.asarray(frames.columns["observation.state"][frame], dtype=np.float64)
        policy.reset(frames.tasks[frame], 0)
        policy.infer(
            Observation(0, seen, state, {}, make_poses(0, 7)[frame], 0.5, frames.tasks[frame]), InferenceContext()
        )
        np.testing.assert_array_equal(batch.inputs.images[frame].numpy(), network.seen.images[0])
        np.testing.assert_array_equal(batch.inputs.state[frame].numpy(), network.seen.state[0])
        np.testing.assert_array_equal(batch.inputs.words[frame].numpy(), network.seen.words[0])


def test_the_policys_way_back_from_a_batch_is_the_recorded_targets(examples):
    batches = batches_of(examples)
    batch = batches.examples_at(np.arange(len(examples)))
    unnormalise = batches.statistics.action_normaliser(CONTRACT).unnormalise
    action = np.asarray(make_episode(1, 5).columns["action"], dtype=np.float64)
    for frame in range(5):
        count = min(HORIZON, 5 - frame)
        assert batch.is_valid[7 + frame].tolist() == [step < count for step in range(HORIZON)]
        chunk = unnormalise(batch.actions[7 + frame].numpy().astype(np.float64))[:count]
        anchor = make_poses(1, 5)[frame]
        decoded = decode_tool_chunk(ActionChunk(chunk), CONTRACT.action, 0, anchor, "test")
        poses = anchored_poses(decoded, anchor)
        rows = action[frame : frame + count]
        np.testing.assert_allclose(poses[:, :3, 3], rows[:, :3], atol=1e-6)
        np.testing.assert_allclose(poses[:, :3, :3], rotations.quat_xyzw_to_matrix(rows[:, 3:7]), atol=1e-5)
        np.testing.assert_allclose(decoded.openings, rows[:, 7], atol=1e-5)


def test_a_word_that_the_network_does_not_know_is_named_with_its_episode(examples):
    spec = examples.model_spec(("block", "pick", "red", "the", "up"), 6)
    with pytest.raises(DatasetError, match=r"episode take 0: instruction 'touch the blue block'.*'touch'"):
        ExampleBatches(examples, spec, examples.statistics())
    assert examples.words() == VOCABULARY


def test_a_network_of_another_size_is_refused(examples):
    spec = ModelSpec(("base", "wrist"), (16, 24), 11, 7, 5)
    with pytest.raises(ContractError, match="horizon is 4, the network's 5"):
        ExampleBatches(examples, spec, examples.statistics())


def test_batches_are_a_function_of_seed_and_step(examples):
    how = Augmentation(shift=0.1)
    first, again, other = (batches_of(examples, seed=seed, augmentation=how) for seed in (3, 3, 4))
    late = first.batch(5, 4)
    for step in range(5):
        first.batch(step, 4)
    for a, b in ((late, first.batch(5, 4)), (late, again.batch(5, 4))):
        assert torch.equal(a.inputs.images, b.inputs.images)
        assert torch.equal(a.actions, b.actions)
    assert not torch.equal(late.inputs.images, other.batch(5, 4).inputs.images)
    # Two epochs of 12 examples in six batches of 4: each example twice.
    seen = torch.cat([first.batch(step, 4).inputs.state for step in range(6)])
    _, counts = torch.unique(seen, dim=0, return_counts=True)
    assert counts.tolist() == [2] * 12


def test_weights_share_every_epoch_and_use_all_of_a_dataset():
    part_of = np.array([0] * 90 + [1] * 10)
    order = ExampleOrder(part_of, 0, (1.0, 3.0))
    drawn = order.places(0, 200)
    assert (part_of[drawn[:100]] == 1).sum() == (part_of[drawn[100:]] == 1).sum() == 75
    # 150 draws of ten examples are 15 of each; 50 of ninety are fifty different ones.
    assert np.bincount(drawn[part_of[drawn] == 1])[90:].tolist() == [15] * 10
    assert len(np.unique(drawn[part_of[drawn] == 0])) == 50
    np.testing.assert_array_equal(order.places(130, 20), drawn[130:150])
    with pytest.raises(DatasetError, match="one for each of the 2"):
        ExampleOrder(part_of, 0, (1.0,))


def test_a_cache_is_made_once_and_anew_when_rule_or_data_change(tmp_path):
    path = write_dataset(tmp_path / "little", [make_episode(0, 7)])
    options = CacheOptions(processes=1)

    def read(**rule: Any) -> ExampleSet:
        images = {name: dataclasses.replace(spec, **rule) for name, spec in CONTRACT.observation.images.items()}
        observation = dataclasses.replace(CONTRACT.observation, images=images)
        return read_examples([path], 2, dataclasses.replace(CONTRACT, observation=observation), cache=options)

    def files() -> dict[str, int]:
        return {file.name: file.stat().st_mtime_ns for file in (path / CACHE_FOLDER).iterdir()}

    first = {name: np.array(images) for name, images in read().parts[0].images.items()}
    made = files()
    assert len(made) == 2
    np.testing.assert_array_equal(first["base"], read_examples([path], 2, cache=IN_MEMORY).parts[0].images["base"])
    read()
    assert files() == made
    turned = read(flip="half_turn")
    assert len(files()) == 4
    np.testing.assert_allclose(turned.parts[0].images["base"].astype(int), first["base"][:, :, ::-1, ::-1], atol=1)
    # Another dataset in the same folder leaves them alone.
    shared = CacheOptions(folder=tmp_path / "shared", processes=1)
    for other in (path, write_dataset(tmp_path / "other", [make_episode(1, 4)])):
        read_examples([other], 2, cache=shared)
    assert len(list((tmp_path / "shared").iterdir())) == 4
    # A file that was cut off is no cache.
    broken = next(file for file in (path / CACHE_FOLDER).iterdir() if file.name in made)
    with broken.open("r+b") as stream:
        stream.truncate(5000)
    np.testing.assert_array_equal(read().parts[0].images["wrist"], first["wrist"])
    # A dataset that was changed has its images prepared anew, and its old ones are gone.
    video = next(path.rglob("*.mp4"))
    os.utime(video, ns=(0, 0))
    read()
    assert len(files()) == 4
    assert not made.keys() & files().keys()


def test_several_processes_prepare_what_one_does(tmp_path, monkeypatch):
    pytest.importorskip("joblib")
    monkeypatch.setattr("vla_ros.training.image_cache._FRAMES_A_GROUP", 5)
    path = write_dataset(tmp_path / "little", [make_episode(seed, 5) for seed in range(4)])
    told: list[tuple[str, float]] = []
    made = read_examples(
        [path], 2, cache=CacheOptions(processes=2), progress=lambda part, fraction: told.append((part, fraction))
    )
    alone = read_examples([path], 2, cache=IN_MEMORY)
    for name in ("base", "wrist"):
        np.testing.assert_array_equal(made.parts[0].images[name], alone.parts[0].images[name])
    assert told[-1] == ("images", 1.0)


def test_a_missing_or_damaged_video_is_named(tmp_path):
    path = write_dataset(tmp_path / "little", [make_episode(0, 7)])
    video = next(path.rglob("*.mp4"))
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"video .*\.mp4"):
        read_examples([path], 2, cache=CacheOptions(processes=1))
    video.unlink()
    with pytest.raises(DatasetError, match=r"video .*\.mp4 can't be read"):
        read_examples([path], 2, cache=CacheOptions(processes=1))
    assert not list((path / CACHE_FOLDER).glob("*"))


@pytest.mark.parametrize("flip", ["none", "half_turn", "mirror"])
@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize(("width", "height"), [(96, 96), (128, 64), (0, 0)])
@pytest.mark.parametrize("region", [WHOLE, (0.15, 0.1, 0.7, 0.8)])
def test_points_move_as_the_image_does(flip, resize, width, height, region):
    """A red dot is drawn, the image prepared, and the dot looked for."""
    spec = ImageSpec("base", width, height, resize, region, "linear", flip)
    for point in ((0.4, 0.3), (0.5, 0.6)):
        image = red_dot(*point)
        prepared = prepare_frame(CameraFrame(0, image), spec).image
        weight = prepared[..., 0].astype(float)
        y, x = np.mgrid[: prepared.shape[0], : prepared.shape[1]] + 0.5
        centre = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
        found = prepare_points(np.array(point), spec, image.shape[1], image.shape[0])
        # Half a pixel of the drawn dot's centre, and what cutting whole pixels leaves.
        np.testing.assert_allclose(found * (prepared.shape[1], prepared.shape[0]), centre, atol=0.8)


def test_truth_is_relative_to_the_tool_and_moves_with_the_image(tmp_path):
    frames, rng = 6, np.random.default_rng(2)
    things = se3.make_pose(rng.normal(size=(frames, 3)), rotations.rotvec_to_matrix([[0.0, 0.0, 0.3]] * frames))
    poses = pose_values(things)
    poses[3] = np.nan
    xy = np.tile([0.25, 0.5], (frames, 1)).astype(np.float32)
    xy[4], xy[5] = np.nan, (0.98, 0.5)
    changes = {
        "object_pose": poses,
        "destination_pose": np.full((frames, 7), np.nan),
        "object_xy.base": xy,
        "destination_xy.wrist": xy[::-1].copy(),
    }
    path = write_dataset(tmp_path / "truth", [make_episode(0, frames, changes=changes)])
    examples = read_examples([path], HORIZON, cache=IN_MEMORY)
    batches = ExampleBatches(
        examples, dataclasses.replace(examples.model_spec(), images=("wrist", "base")), examples.statistics(),
        augmentation=Augmentation(shift=0.1),
    )  # fmt: skip
    batch = batches.examples_at(np.arange(frames))
    assert batch.target_xy is not None
    assert batch.target_visible is not None
    assert batch.target_pose is not None
    assert batch.target_xy.shape == (frames, 2, 2, 2)
    assert batch.target_pose.shape == (frames, 2, 5)
    np.testing.assert_allclose(batch.target_xy[:4, 1, 0], xy[:4], atol=1e-6)
    # In base the object, in wrist the destination; not where nobody knows.
    assert batch.target_visible[:, 1].tolist() == [[True, False]] * 4 + [[False, False], [True, False]]
    assert batch.target_visible[:, 0].tolist() == [[False, True], [False, False]] + [[False, True]] * 4
    assert batch.target_pose_valid is not None
    assert batch.target_pose_valid.tolist() == [[frame != 3, False] for frame in range(frames)]
    tool = make_poses(0, frames)[1]
    yaw = np.arctan2(tool[1, 0], tool[0, 0])
    expected = [*(10.0 * (things[1, :3, 3] - tool[:3, 3])), np.sin(4 * (0.3 - yaw)), np.cos(4 * (0.3 - yaw))]
    np.testing.assert_allclose(batch.target_pose[1, 0], expected, atol=1e-5)
    # Shifted with the image, and out of view where it leaves it.
    shifted = batches.examples_at(np.arange(frames), torch.Generator().manual_seed(1))
    assert shifted.target_xy is not None
    assert shifted.target_visible is not None
    moved = (shifted.target_xy - batch.target_xy)[:, 1, 0] * torch.tensor([24.0, 16.0])
    np.testing.assert_allclose(moved, moved.round(), atol=1e-4)
    assert moved.abs().max() > 0
    inside = ((shifted.target_xy[:, 1, 0] <= 1.0) & (shifted.target_xy[:, 1, 0] >= 0.0)).all(dim=-1)
    assert torch.equal(shifted.target_visible[:, 1, 0], inside & batch.target_visible[:, 1, 0])


def test_a_block_turned_by_a_quarter_is_where_it_was():
    tool = make_poses(0, 2)[:1]
    quarter = rotations.matrix_to_quat_xyzw(rotations.rotvec_to_matrix(np.array([[0.0, 0.0, 0.5 * np.pi]])))
    still = np.array([[0.4, 0.0, 0.02, 0.0, 0.0, 0.0, 1.0]])
    turned = np.concatenate([still[:, :3], quarter], axis=1)
    np.testing.assert_allclose(relative_pose(turned, tool), relative_pose(still, tool), atol=1e-9)


def test_a_shifted_image_is_the_image_elsewhere_with_its_edge_repeated():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (5, 3, 20, 30), dtype=np.uint8))
    how = Augmentation(0.2, 0.0, 0.0, 0.0, 0.0)
    moved, shift = augment(images, how, torch.Generator().manual_seed(0))
    assert len({tuple(row) for row in shift.tolist()}) > 1
    for image, result, (right, down) in zip(images.numpy(), moved.numpy(), shift.tolist(), strict=True):
        x = np.clip(np.arange(30) - round(right * 30), 0, 29)
        y = np.clip(np.arange(20) - round(down * 20), 0, 19)
        np.testing.assert_allclose(result, image[:, y][:, :, x] / 255.0, atol=1e-6)


def test_colours_change_and_keep_their_names():
    import colorsys

    named = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (40, 60, 200), "yellow": (220, 200, 40)}
    images = torch.tensor(list(named.values()), dtype=torch.uint8).repeat(50, 1)[:, :, None, None].expand(-1, 3, 8, 8)
    how = Augmentation(0.0)
    changed, _ = augment(images, how, torch.Generator().manual_seed(0))
    hues = np.array([colorsys.rgb_to_hsv(*rgb)[0] for rgb in changed[:, :, 0, 0].tolist()]) * 360.0
    before = np.tile([colorsys.rgb_to_hsv(*(v / 255 for v in rgb))[0] * 360.0 for rgb in named.values()], 50)
    off = (hues - before + 180.0) % 360.0 - 180.0
    assert 1.0 < np.abs(off).max() < 15.0
    greys = torch.full((40, 3, 8, 8), 120, dtype=torch.uint8)
    grey, _ = augment(greys, how, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(grey[:, 0], grey[:, 1], atol=1e-5)
    assert (grey[:, 0, 0, 0] * 255.0).std() > 5.0
    with pytest.raises(ValueError, match="keep their names"):
        Augmentation(hue_rad=0.5)


def test_no_augmentation_is_the_image_itself(examples):
    with_it, without = batches_of(examples, augmentation=Augmentation()), batches_of(examples)
    # Who evaluates gives no generator.
    assert torch.equal(
        with_it.examples_at([3]).inputs.images, without.batch(0, 12).inputs.images[[list(without.order(0)).index(3)]]
    )
    assert examples.parts[0].images["base"].shape == (12, 3, 16, 24) != (12, 3, HEIGHT, WIDTH)


def test_an_image_that_may_be_absent_is_black(tmp_path):
    path = write_dataset(tmp_path / "little", [make_episode(0, 4)])
    images = {**CONTRACT.observation.images, "side": ImageSpec("side", 24, 16, if_absent="black")}
    observation = dataclasses.replace(CONTRACT.observation, images=images)
    contract = dataclasses.replace(CONTRACT, observation=observation)
    examples = read_examples([path], 2, contract, cache=IN_MEMORY)
    seen = ExampleBatches(examples, examples.model_spec(), examples.statistics()).examples_at([0, 1]).inputs.images
    assert not seen[:, 2].any()
    assert seen[:, :2].flatten(2).any(dim=-1).all()


def test_datasets_of_other_formats_give_the_same_examples(tmp_path, ours, examples):
    pytest.importorskip("h5py")
    hdf5 = importlib.import_module("vla_ros.recording.formats.hdf5")
    source = open_any(ours)[1]
    with contextlib.closing(hdf5.create(tmp_path / "little.hdf5", source.schema, {})) as writer:
        for index in range(2):
            writer.add(source.read(index))
    other = read_examples([tmp_path / "little.hdf5"], HORIZON, cache=CacheOptions(processes=1))
    np.testing.assert_array_equal(other.actions, examples.actions)
    np.testing.assert_array_equal(other.states, examples.states)
    np.testing.assert_array_equal(other.parts[0].images["base"], examples.parts[0].images["base"])
    assert list((tmp_path / CACHE_FOLDER).iterdir())


def test_the_small_vla_learns_from_a_batch_with_truth(tmp_path):
    frames = 8
    poses = pose_values(make_poses(5, frames))
    changes = {"object_pose": poses, "object_xy.base": np.full((frames, 2), 0.5, dtype=np.float32)}
    path = write_dataset(tmp_path / "truth", [make_episode(0, frames, changes=changes)])
    examples = read_examples([path], HORIZON, cache=IN_MEMORY)
    kind = architecture_class("flow_vla")
    network = kind(examples.model_spec(examples.words(), 6), kind.config_class())
    batch = ExampleBatches(examples, network.spec, examples.statistics(), augmentation=Augmentation()).batch(0, 8)
    losses = network.losses(batch, torch.Generator().manual_seed(0))
    assert all(torch.isfinite(loss) for loss in losses.values())
    # What the truth is for: where things are counts in the loss.
    assert len(losses) > len(
        network.losses(dataclasses.replace(batch, target_xy=None, target_pose=None), torch.Generator())
    )


@pytest.mark.parametrize("is_mapped", [True, False])
def test_rows_of_a_file_are_those_of_the_array(is_mapped, tmp_path):
    # Rows that begin and end anywhere in a page of memory.
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 37, 41), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    rows = Rows(np.lib.format.open_memmap(tmp_path / "images.npy", mode="r") if is_mapped else images)
    for row in (49, 0, 17):
        rows.bring(row)
        np.testing.assert_array_equal(rows[row], images[row])
