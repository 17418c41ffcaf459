"""From datasets to examples: labels, what counts, states under other contracts, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("pyarrow")

from example_datasets import (
    CONTRACT,
    JOINTS,
    PERIOD_S,
    make_episode,
    make_poses,
    with_action,
    write_dataset,
)  # fmt: skip

from vla_ros.actions.encode import encode_joint_positions, encode_tool_poses
from vla_ros.contract import ActionSpec, Contract, ImageSpec, NormalisationSpec, ObservationSpec, StateItem
from vla_ros.errors import ContractError, DatasetError
from vla_ros.geometry import rotations
from vla_ros.geometry.rotation_forms import FROM_MATRIX
from vla_ros.policies.normalisation import Normaliser
from vla_ros.recording.dataset import EpisodeFrames
from vla_ros.recording.foreign_actions import decode_foreign
from vla_ros.training.examples import ExampleSet, read_examples
from vla_ros.training.image_cache import CacheOptions
from vla_ros.training.selection import Selection, select_steps

HORIZON, LENGTHS = 4, (7, 5)
IN_MEMORY = CacheOptions(is_kept=False)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    episodes = [make_episode(seed, length) for seed, length in enumerate(LENGTHS)]
    return write_dataset(tmp_path_factory.mktemp("ours") / "little", episodes)


def read(path: Path, contract: Contract | None = None, **options: Any) -> ExampleSet:
    return read_examples([path], HORIZON, contract, **{"cache": IN_MEMORY, **options})


def flags(length: int, at: tuple[int, ...]) -> np.ndarray:
    return np.isin(np.arange(length), at)[:, None]


def targets(episode: EpisodeFrames) -> tuple[np.ndarray, np.ndarray]:
    action = np.asarray(episode.columns["action"], dtype=np.float64)
    poses = np.tile(np.eye(4), (len(action), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = rotations.quat_xyzw_to_matrix(action[:, 3:7]), action[:, :3]
    return poses, action[:, 7]


@pytest.mark.parametrize("relative", ["observation", "previous_step", "nothing"])
def test_labels_are_the_recorded_targets_about_each_frame(ours, relative):
    examples = read(ours, with_action(CONTRACT, relative_to=relative))
    assert len(examples) == sum(LENGTHS)
    for episode, length in enumerate(LENGTHS):
        poses, openings = targets(make_episode(episode, length))
        for frame in range(length):
            row, end = examples.episodes[episode].first + frame, min(length, frame + HORIZON)
            spec = examples.contract.action
            anchor = make_poses(episode, length)[frame]
            expected = encode_tool_poses(poses[frame:end], openings[frame:end], spec, anchor)
            np.testing.assert_array_equal(examples.is_valid[row], np.arange(HORIZON) < end - frame)
            np.testing.assert_allclose(examples.actions[row, : end - frame], expected, atol=1e-6)
            assert (examples.actions[row, end - frame :] == 0.0).all()


def test_an_offset_of_0_takes_the_target_of_the_frame_itself(ours):
    examples = read(ours, with_action(CONTRACT, first_action_offset_steps=0))
    # Nobody recorded the target of an episode's first frame.
    assert examples.rows.tolist() == [*range(1, 7), *range(8, 12)]
    poses, openings = targets(make_episode(0, 7))
    expected = encode_tool_poses(poses[2:6], openings[2:6], examples.contract.action, make_poses(0, 7)[3])
    np.testing.assert_allclose(examples.actions[3], expected, atol=1e-6)
    # For the last frame two recorded targets are left: at its stamp and a period later.
    assert examples.is_valid[[5, 6]].sum(axis=1).tolist() == [3, 2]


def test_a_contract_in_joint_space_takes_joints(tmp_path):
    spec = ActionSpec("joint", "observation", PERIOD_S)
    contract = dataclasses.replace(CONTRACT, action=spec)
    rng = np.random.default_rng(4)
    action = np.concatenate([rng.normal(size=(6, JOINTS)), rng.random((6, 1))], axis=1).astype(np.float32)
    episode = make_episode(0, 6, changes={"action": action})
    examples = read(write_dataset(tmp_path / "joints", [episode], contract))
    measured = episode.columns["joint_positions"]
    for frame in range(6):
        left = min(HORIZON, 6 - frame)
        rows = action[frame : frame + left].astype(np.float64)
        expected = encode_joint_positions(rows[:, :JOINTS], rows[:, JOINTS], spec, measured[frame])
        np.testing.assert_allclose(examples.actions[frame, :left], expected, atol=1e-6)


def test_states_of_another_contract_are_made_of_what_was_measured(ours):
    items = (
        StateItem("gripper", gripper_entries=((0.04, 0.0), (-0.04, 0.0))),
        StateItem("joint_positions"),
        StateItem("tcp_pose", "rotvec", origin_m=(0.1, 0.0, 0.0), near_rotvec_rad=(3.14, 0.0, 0.0)),
    )
    contract = dataclasses.replace(CONTRACT, observation=dataclasses.replace(CONTRACT.observation, state=items))
    states = read(ours, contract).states[:7]
    episode, poses = make_episode(0, 7), make_poses(0, 7)
    opening = episode.columns["observation.state"][:, 9]
    np.testing.assert_allclose(states[:, 0], 0.04 * (1.0 - opening), atol=1e-7)
    np.testing.assert_allclose(states[:, 1], -states[:, 0], atol=1e-12)
    np.testing.assert_allclose(states[:, 2:9], episode.columns["joint_positions"], atol=1e-12)
    np.testing.assert_allclose(states[:, 9:12], poses[:, :3, 3] - (0.1, 0.0, 0.0), atol=1e-12)
    np.testing.assert_allclose(rotations.rotvec_to_matrix(states[:, 12:]), poses[:, :3, :3], atol=1e-9)
    assert (states[:, 12] > 2.0).all()  # Near (pi, 0, 0) throughout, on neither side of the half turn.


def test_the_own_state_is_taken_as_it_is(ours):
    np.testing.assert_array_equal(
        read(ours).states[7:], make_episode(1, 5).columns["observation.state"].astype(np.float64)
    )


def test_what_a_dataset_lacks_is_told_line_by_line(ours):
    observation = ObservationSpec(
        {"side": ImageSpec("side", 8, 8)}, (StateItem("joint_velocities"),), "side", history_steps=2,
        history_spacing_s=0.1,
    )  # fmt: skip
    wrong = Contract("wrong", observation, ActionSpec("joint", "nothing", 0.05, label="measured_next"))
    with pytest.raises(ContractError) as caught:
        read(ours, wrong)
    lines = str(caught.value)
    for part in (
        "observation.images.side: camera side isn't there; images are observation.images.base (camera base)",
        "name one, as in --set columns.side=front",
        "action.period_s: a frame every 0.1 s in the dataset != 0.05",
        "observation.history_steps: 2",
        "action.space: tool in the dataset != joint",
        "action.label: executed_target in the dataset != measured_next",
        "observation.state: joint_velocities is neither in the dataset's state (tcp_pose, gripper, gripper_command)",
    ):
        assert part in lines


SELECTIONS = {
    "nothing special": ({}, Selection(), [4, 4, 4, 3, 2, 1]),
    "held": ({"is_held": (2,)}, Selection(), [2, 1, 0, 3, 2, 1]),
    "held, wanted": ({"is_held": (2,)}, Selection(with_held=True), [4, 4, 4, 3, 2, 1]),
    "padding": ({"is_padding": (4, 5)}, Selection(), [4, 3, 2, 1, 0, 0]),
    "jump": ({"is_jump": (2,)}, Selection(), [2, 1, 4, 3, 2, 1]),
    "outlier": ({"is_outlier": (1,)}, Selection(), [1, 0, 4, 3, 2, 1]),
    "outlier, wanted": ({"is_outlier": (1,)}, Selection(with_outliers=True), [4, 4, 4, 3, 2, 1]),
    "idle": ({"is_idle": (0, 1)}, Selection(with_idle=False), [0, 0, 4, 3, 2, 1]),
    "interventions": ({"is_intervention": (2, 3)}, Selection(interventions_only=True), [0, 0, 2, 1, 0, 0]),
    "outcome": ({}, Selection(outcomes=("failure",)), [0, 0, 0, 0, 0, 0]),
}


@pytest.mark.parametrize("case", SELECTIONS)
def test_steps_that_count(case):
    changes, selection, counts = SELECTIONS[case]
    frames = make_episode(0, 6, changes={name: flags(6, at) for name, at in changes.items()})
    is_valid, left_out = select_steps(frames, selection, 4, 0)
    # The first ones of each chunk, and no other.
    np.testing.assert_array_equal(is_valid, np.arange(4)[None] < np.array(counts)[:, None])
    assert sum(left_out.values()) == counts.count(0)


def test_a_chunk_ends_where_another_takes_over():
    source = np.array([["act"]] * 2 + [["teleop"]] * 2 + [["act"]] * 2, dtype=object)
    frames = make_episode(0, 6, changes={"source": source})
    assert select_steps(frames, Selection(), 4, 0)[0].sum(axis=1).tolist() == [2, 1, 2, 1, 2, 1]
    only, left_out = select_steps(frames, Selection(sources=("teleop",)), 4, 0)
    assert only.sum(axis=1).tolist() == [0, 0, 2, 1, 0, 0]
    assert left_out == {"source isn't teleop": 4}
    # With an offset of 0 a frame's first action is the row before, which another did.
    assert select_steps(frames, Selection(), 4, -1)[0].sum(axis=1).tolist() == [0, 2, 1, 2, 1, 2]


def test_a_chunk_ends_where_another_task_begins():
    tasks = ["pick up the red block"] * 2 + ["reach the blue block"] * 4
    frames = make_episode(0, 6, tasks=tasks)
    assert select_steps(frames, Selection(), 4, 0)[0].sum(axis=1).tolist() == [2, 1, 4, 3, 2, 1]


def test_a_leap_in_time_is_crossed_by_no_chunk_whatever_the_offset():
    frames = make_episode(0, 6, changes={"is_jump": flags(6, (3,))})
    assert select_steps(frames, Selection(), 4, -1)[0].sum(axis=1).tolist() == [0, 3, 2, 0, 3, 2]


def test_no_example_is_refused_with_the_reasons(tmp_path):
    held = make_episode(0, 6, changes={"is_held": flags(6, (0, 1, 2, 3)), "is_padding": flags(6, (4, 5))})
    path = write_dataset(tmp_path / "held", [held])
    with pytest.raises(DatasetError, match=r"no example is left of 6 frames: 4 nobody moved the arm, 2 past the rec"):
        read(path)


@pytest.mark.parametrize("name", ["action", "observation.state", "tcp_pose"])
def test_a_value_that_is_not_finite_is_named(tmp_path, name):
    values = np.array(make_episode(0, 6).columns[name])
    values[4, 1] = np.nan
    path = write_dataset(tmp_path / "nan", [make_episode(0, 6, changes={name: values})])
    with pytest.raises(DatasetError, match=rf"episode take 0: {name} of frame 4, entry 1 is nan"):
        read(path)


def test_actions_that_nobody_learns_from_may_be_anything(tmp_path):
    values = np.array(make_episode(0, 6).columns["action"])
    values[5] = np.nan
    episode = make_episode(0, 6, changes={"action": values, "is_padding": flags(6, (5,))})
    examples = read(write_dataset(tmp_path / "nan", [episode]))
    assert examples.is_valid.sum(axis=1).tolist() == [4, 4, 3, 2, 1, 0]
    assert np.isfinite(examples.actions).all()


@pytest.mark.parametrize("relative", ["observation", "previous_step"])
def test_a_public_dataset_is_in_the_contracts_own_form(tmp_path, relative):
    """Each action of such a dataset is about its own frame, so a chunk is put together from absolute ones."""
    contract = with_action(CONTRACT, relative_to=relative)
    rng = np.random.default_rng(3)
    action = np.concatenate([0.05 * rng.normal(size=(6, 6)), rng.random((6, 1))], axis=1).astype(np.float32)
    whole = make_episode(0, 6, changes={"action": action})
    kept = ("action", "observation.state")
    foreign = dataclasses.replace(whole, columns={name: whole.columns[name] for name in kept})
    path = write_dataset(tmp_path / "public", [foreign], None)
    with pytest.raises(ContractError, match="doesn't say what its actions mean"):
        read(path)
    examples = read(path, contract)
    assert examples.is_valid.sum(axis=1).tolist() == [4, 4, 4, 3, 2, 1]
    if relative == "previous_step":
        np.testing.assert_allclose(examples.actions[1], action[1:5], atol=1e-7)
        return
    absolute = decode_foreign(foreign, contract, 0)
    poses = np.tile(np.eye(4), (6, 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = rotations.quat_xyzw_to_matrix(absolute[:, 3:7]), absolute[:, :3]
    expected = encode_tool_poses(poses[1:5], absolute[1:5, 7], contract.action, make_poses(0, 6)[1])
    np.testing.assert_allclose(examples.actions[1], expected, atol=1e-5)
    np.testing.assert_allclose(examples.actions[1, 0], action[1], atol=1e-5)


def test_a_public_dataset_of_other_widths_is_refused(tmp_path):
    whole = make_episode(0, 6)
    foreign = dataclasses.replace(whole, columns={"action": whole.columns["action"]})
    path = write_dataset(tmp_path / "public", [foreign], None)
    with pytest.raises(ContractError, match=r"action: 8 numbers in the dataset != 7(.|\n)*observation.state: there is"):
        read(path, CONTRACT)


def test_several_datasets_are_one_set(ours, tmp_path):
    other = write_dataset(tmp_path / "other", [make_episode(9, 6)])
    both = read_examples([ours, other], HORIZON, cache=IN_MEMORY)
    alone = read(other)
    assert len(both) == sum(LENGTHS) + 6
    np.testing.assert_array_equal(both.actions[12:], alone.actions)
    assert both.part_of.tolist() == [0] * 12 + [1] * 6
    different = write_dataset(tmp_path / "different", [make_episode(9, 6)], with_action(CONTRACT, max_age_s=0.5))
    with pytest.raises(ContractError, match=r"name one for both(.|\n)*action.max_age_s: 1.0 != 0.5"):
        read_examples([ours, different], HORIZON, cache=IN_MEMORY)


def test_parts_share_no_episode(tmp_path):
    path = write_dataset(tmp_path / "many", [make_episode(seed, 4) for seed in range(8)])
    train, held_out = read(path).split(0.25, seed=3)
    used, tested = ({*each.episode_of[each.rows].tolist()} for each in (train, held_out))
    assert len(tested) == 2
    assert not used & tested
    assert len(used | tested) == 8
    assert {*read(path).split(0.25, seed=3)[1].rows.tolist()} == {*held_out.rows.tolist()}


def test_statistics_are_of_the_relative_actions_over_valid_steps(ours):
    examples = read(ours)
    steps = np.concatenate([examples.actions[row][examples.is_valid[row]] for row in range(12)]).astype(np.float64)
    statistics = examples.statistics()
    assert statistics.action is not None
    assert statistics.state is not None
    np.testing.assert_allclose(statistics.action.mean, steps.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(statistics.action.std, steps.std(axis=0), atol=1e-12)
    assert statistics.action.count == len(steps) == 4 * 4 + 3 + 2 + 1 + 2 * 4 + 3 + 2 + 1
    np.testing.assert_allclose(statistics.state.mean, examples.states.mean(axis=0), atol=1e-12)
    assert statistics.find_mismatches(CONTRACT, JOINTS) == []


@pytest.mark.parametrize("formula", ["mean_std", "min_max", "quantile"])
def test_what_hardly_varies_makes_no_noise_large(tmp_path, formula):
    """A tool that always points down but for a hair, and a gripper that closes once in 250 steps."""
    frames = 250
    episode = make_episode(0, frames)
    action, rng = np.array(episode.columns["action"]), np.random.default_rng(0)
    action[:, 3:7] = (1.0, 0.0, 0.0, 0.0)
    action[:, 7] = 1.0
    action[100, 7] = 0.0
    pose = np.array(episode.columns["tcp_pose"])
    wobble = rotations.rotvec_to_matrix(rng.normal(scale=1e-6, size=(frames, 3))) @ np.diag([1.0, -1.0, -1.0])
    pose[:, 3:] = FROM_MATRIX["quat_xyzw"](wobble)
    path = write_dataset(tmp_path / "down", [make_episode(0, frames, changes={"action": action, "tcp_pose": pose})])
    statistics = read(path).statistics().action
    assert statistics is not None
    normaliser = Normaliser(NormalisationSpec(formula), statistics)
    # A millirad off what was ever seen is small, and comes back; the gripper does close.
    off = statistics.mean + np.array([0.0, 0.0, 0.0, 0.001, 0.001, 0.001, 0.0])
    assert np.abs(normaliser.normalise(off) - normaliser.normalise(statistics.mean))[3:6].max() <= 0.5
    np.testing.assert_allclose(normaliser.unnormalise(normaliser.normalise(off)), off, atol=1e-12)
    closed = np.array([*statistics.mean[:6], 0.0])
    np.testing.assert_allclose(normaliser.unnormalise(normaliser.normalise(closed))[6], 0.0, atol=1e-12)
    if formula != "mean_std":
        np.testing.assert_allclose(normaliser.normalise(closed)[6], -1.0, atol=1e-9)
