"""The policy kind `learned`: what reaches the network, what becomes of its answer, and how an answer begins.

Own networks run in the conformance suite; here a stand-in says what it was given.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vla_ros.actions.decode import decode_tool_chunk
from vla_ros.config import package_share
from vla_ros.contract import (
    ActionSpec,
    Contract,
    ImageSpec,
    Normalisation,
    NormalisationSpec,
    ObservationSpec,
    StateItem,
)  # fmt: skip
from vla_ros.errors import ConfigError, ContractError, InstructionError, MissingDependencyError
from vla_ros.geometry.rotations import rotvec_to_matrix
from vla_ros.geometry.se3 import make_pose, relative_base
from vla_ros.policies.architectures.spec import ARCHITECTURES, ModelSpec
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.checkpoint import Checkpoint, write_checkpoint
from vla_ros.policies.learned import LearnedPolicy
from vla_ros.policies.model_runtime import ModelInputs, ModelPrefix
from vla_ros.policies.normalisation import Statistics
from vla_ros.policies.statistics_file import CheckpointStatistics
from vla_ros.types import ActionChunk, CameraFrame, Observation, ToolChunk

SECOND = 1_000_000_000
RNG = np.random.default_rng(0)
CONTRACT = Contract(
    "tiny",
    ObservationSpec(
        {"wrist": ImageSpec("wrist", 12, 8), "base": ImageSpec("base", 12, 8)},
        (StateItem("tcp_pose", "rotvec"), StateItem("gripper")),
        "base",
    ),
    ActionSpec("tool", "observation", 0.1, rotation="rotvec"),
    Normalisation(NormalisationSpec("mean_std"), NormalisationSpec("min_max")),
)
STATE, ACTION = (Statistics.from_samples(scale * RNG.standard_normal((30, 7))) for scale in (1.0, 0.05))
STATISTICS = CheckpointStatistics(STATE, ACTION, "test", "")
NO_STATISTICS = CheckpointStatistics(None, None, "test", "")
# The network's order of images isn't the contract's.
SPEC = ModelSpec(("base", "wrist"), (8, 12), 7, 7, 5, ("block", "red", "the", "touch"), 4)
HOME = make_pose(np.array([0.4, 0.0, 0.3]), np.diag([1.0, -1.0, -1.0]))


class Echo:
    """A network that keeps what it is given and answers what it is told to."""

    name = "torch"

    def __init__(self, prefix_way: str = "none") -> None:
        self.prefix_way: Any = prefix_way
        self.answer: np.ndarray | None = None
        self.seen: list[tuple[ModelInputs, Any, ModelPrefix | None]] = []

    def sample(self, inputs: ModelInputs, noise: Any, prefix: ModelPrefix | None) -> Any:
        self.seen.append((inputs, noise, prefix))
        return noise if self.answer is None else self.answer[None].astype(np.float32)


def checkpoint(folder: Path, **changes: Any) -> Checkpoint:
    given: dict[str, Any] = {
        "architecture": "act", "config": {}, "spec": SPEC, "contract": CONTRACT, "statistics": STATISTICS,
        "write_weights": lambda path: path.write_bytes(b""),
    }  # fmt: skip
    return write_checkpoint(folder / "checkpoint", **(given | changes))


def make(folder: Path, prefix_way: str = "none", **changes: Any) -> tuple[LearnedPolicy, Echo]:
    network = Echo(prefix_way)
    found = checkpoint(folder, **changes)
    policy = LearnedPolicy(found.contract, found, network)
    policy.reset("touch the red block", 3)
    return policy, network


def observe(stamp_ns: int = SECOND, T_base_tcp: Any = HOME, **changes: Any) -> Observation:
    rng = np.random.default_rng(5)
    images = {name: rng.integers(0, 256, (8, 12, 3), dtype=np.uint8) for name in CONTRACT.observation.images}
    state = np.arange(7.0)
    given: dict[str, Any] = {
        "stamp_ns": stamp_ns, "images": {name: CameraFrame(stamp_ns, image) for name, image in images.items()},
        "state": state, "state_layout": {"tcp_pose": slice(0, 6), "gripper": slice(6, 7)},
        "T_base_tcp": T_base_tcp, "gripper_opening": 1.0, "instruction": "touch the red block",
    }  # fmt: skip
    return Observation(**(given | changes))


def test_images_come_in_the_networks_order_channels_first_between_0_and_1(tmp_path: Path) -> None:
    policy, network = make(tmp_path)
    observation = observe()
    policy.infer(observation, InferenceContext())
    images = network.seen[0][0].images
    assert images.shape == (1, 2, 3, 8, 12)
    assert images.dtype == np.float32
    for index, name in enumerate(SPEC.images):
        for row, column, channel in ((0, 0, 0), (7, 11, 2), (3, 5, 1)):
            value = observation.images[name].image[row, column, channel] / 255
            assert images[0, index, channel, row, column] == pytest.approx(value, abs=1e-6)


def test_state_is_normalised_and_actions_are_unnormalised_by_the_checkpoints_statistics(tmp_path: Path) -> None:
    policy, network = make(tmp_path)
    network.answer = RNG.uniform(-1.0, 1.0, (5, 7))
    chunk = policy.infer(observe(), InferenceContext())
    np.testing.assert_allclose(network.seen[0][0].state[0], (np.arange(7.0) - STATE.mean) / STATE.std, rtol=1e-6)
    wanted = ACTION.minimum + 0.5 * (network.answer + 1.0) * (ACTION.maximum - ACTION.minimum)
    # What the network says is float32.
    np.testing.assert_allclose(chunk.actions, wanted, atol=1e-7)
    assert chunk.actions.dtype == np.float64


def test_words_are_the_vocabularys_numbers_and_a_strange_word_is_reported(tmp_path: Path) -> None:
    policy, network = make(tmp_path)
    policy.reset("Touch the RED block!", 0)
    policy.infer(observe(), InferenceContext())
    assert network.seen[0][0].words.tolist() == [[4, 3, 2, 1]]
    with pytest.raises(InstructionError, match=r"'bloc'.*did you mean 'block'"):
        policy.reset("touch the red bloc", 0)
    assert policy.infer(observe(), InferenceContext()).is_idle


def test_a_policy_without_language_takes_every_task_but_none_and_says_so(tmp_path: Path) -> None:
    policy, network = make(tmp_path, spec=dataclasses.replace(SPEC, vocabulary=()))
    policy.reset("whatever you like", 0)
    assert "one task" in policy.infer(observe(), InferenceContext()).note
    assert network.seen[0][0].words.tolist() == [[0, 0, 0, 0]]
    with pytest.raises(InstructionError):
        policy.reset(" ", 0)


def test_noise_is_the_seeds_and_new_each_time(tmp_path: Path) -> None:
    policy, network = make(tmp_path)
    for seed in (1, 1, 2):
        policy.reset("touch the red block", seed)
        for _ in range(2):
            policy.infer(observe(), InferenceContext())
    noise = [seen[1] for seen in network.seen]
    assert noise[0].shape == (1, 5, 7)
    np.testing.assert_array_equal(noise[0], noise[2])
    np.testing.assert_array_equal(noise[1], noise[3])
    assert not np.allclose(noise[0], noise[1])
    assert not np.allclose(noise[0], noise[4])


def test_an_image_of_another_size_is_refused_with_both(tmp_path: Path) -> None:
    policy, _ = make(tmp_path)
    images = {name: CameraFrame(0, np.zeros((16, 24, 3), np.uint8)) for name in ("base", "wrist")}
    with pytest.raises(ContractError, match="image 'base' is 24x16, the network takes 12x8"):
        policy.infer(observe(images=images), InferenceContext())


def test_a_state_of_another_arm_is_refused(tmp_path: Path) -> None:
    policy, _ = make(tmp_path)
    with pytest.raises(ContractError, match="the state has 9 numbers, the network takes 7"):
        policy.infer(observe(state=np.zeros(9)), InferenceContext())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": ("base", "side")}, "images are .*'base', 'wrist'.*takes .*'base', 'side'"),
        ({"image_size": (12, 8)}, "image 'base' is 12x8, the network takes 8x12"),
        ({"state_width": 8}, "state: checkpoint 8, contract 7"),
        ({"action_width": 8}, "action: checkpoint 8, contract 7"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_network_that_does_not_fit_its_contract_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        make(tmp_path, spec=dataclasses.replace(SPEC, **changes))


def test_joints_may_be_any_number_that_the_network_has(tmp_path: Path) -> None:
    observation = dataclasses.replace(CONTRACT.observation, state=(StateItem("joint_positions"), StateItem("gripper")))
    contract = Contract("joints", observation, ActionSpec("joint", "observation", 0.1), Normalisation())
    spec = dataclasses.replace(SPEC, state_width=8, action_width=8)
    make(tmp_path, contract=contract, spec=spec, statistics=NO_STATISTICS)
    contract = dataclasses.replace(contract, action=ActionSpec("joint", "observation", 0.1, gripper="none"))
    with pytest.raises(ContractError, match="state: checkpoint 1, contract 1 and 1 for each joint"):
        make(tmp_path, contract=contract, spec=dataclasses.replace(spec, state_width=1), statistics=NO_STATISTICS)


def test_state_and_action_of_different_arms_are_refused(tmp_path: Path) -> None:
    observation = dataclasses.replace(CONTRACT.observation, state=(StateItem("joint_positions"), StateItem("gripper")))
    contract = Contract("joints", observation, ActionSpec("joint", "observation", 0.1), Normalisation())
    spec = dataclasses.replace(SPEC, state_width=8, action_width=7)
    with pytest.raises(ContractError, match=r"action: checkpoint has 6 joints.*state: checkpoint has 7 joints"):
        make(tmp_path, contract=contract, spec=spec, statistics=NO_STATISTICS)


def test_history_that_the_network_does_not_take_is_refused(tmp_path: Path) -> None:
    observation = dataclasses.replace(CONTRACT.observation, history_steps=2, history_spacing_s=0.1)
    with pytest.raises(ContractError, match="history_steps is 2, the network takes 1"):
        make(tmp_path, contract=dataclasses.replace(CONTRACT, observation=observation))


def answer_as(policy: LearnedPolicy, chunk: ActionChunk, stamp_ns: int, T_base_tcp: Any) -> ToolChunk:
    """The chunk as policy_node sends it: without its anchor."""
    return decode_tool_chunk(chunk, policy.contract.action, stamp_ns, T_base_tcp, "test")


@pytest.mark.parametrize("prefix_way", ["trained", "guided"])
def test_an_answer_begins_where_the_chunk_being_executed_goes_on(tmp_path: Path, prefix_way: str) -> None:
    # Straight motion, 1 cm a step, turning about z by 0.1 rad a step; the second observation is 0.2 s later, with the
    # arm half a step behind: absolute targets stay what they were.
    policy, network = make(tmp_path, prefix_way)
    steps = np.arange(1, 6)[:, None]
    moves = np.concatenate([steps * [0.01, 0.0, 0.0], steps * [0.0, 0.0, 0.1], np.full((5, 1), 0.25)], axis=1)
    network.answer = np.asarray(policy._action.normalise(moves))
    committed = answer_as(policy, policy.infer(observe(), InferenceContext()), SECOND, HOME)
    assert committed.T_base_anchor is None

    T_later = make_pose(np.array([0.415, 0.002, 0.3]), rotvec_to_matrix(np.array([0.0, 0.0, 0.15])) @ HOME[:3, :3])
    context = InferenceContext(expected_delay_s=0.25, execution_horizon_steps=2, committed=committed)
    policy.infer(observe(SECOND + SECOND // 5, T_later), context)
    prefix = network.seen[-1][2]
    assert prefix is not None
    # Steps are due after 0.1, 0.2, .. s: two of them before the answer takes effect; the old chunk has three left.
    assert prefix.count == 2
    np.testing.assert_allclose(prefix.weights[:2], 1.0)
    assert prefix.weights[2] > 0.0
    np.testing.assert_allclose(prefix.weights[3:], 0.0)
    found = np.asarray(policy._action.unnormalise(prefix.actions[0].astype(np.float64)))[:3]
    for row, step in zip(found, (3, 4, 5), strict=True):
        T_target = make_pose(
            np.array([0.4 + 0.01 * step, 0.0, 0.3]), rotvec_to_matrix(np.array([0.0, 0.0, 0.1 * step])) @ HOME[:3, :3]
        )
        delta = relative_base(T_later, T_target)
        # The spline goes through its points; float32 and the network's range leave 1e-6.
        np.testing.assert_allclose(row[:3], delta[:3, 3], atol=1e-6)
        np.testing.assert_allclose(rotvec_to_matrix(row[3:6]), delta[:3, :3], atol=1e-6)
        assert row[6] == pytest.approx(0.25, abs=1e-6)


def test_a_prefix_is_no_longer_than_those_of_training(tmp_path: Path) -> None:
    policy, network = make(tmp_path, "trained", config={"prefix_steps": 1})
    committed = answer_as(policy, policy.infer(observe(), InferenceContext()), SECOND, HOME)
    policy.infer(observe(SECOND + SECOND // 10), InferenceContext(0.35, 2, committed))
    prefix = network.seen[-1][2]
    assert prefix is not None
    assert prefix.count == 1


def test_an_answer_begins_anew_where_nothing_is_committed_or_known(tmp_path: Path) -> None:
    policy, network = make(tmp_path, "trained")
    committed = answer_as(policy, policy.infer(observe(), InferenceContext()), SECOND, HOME)
    later = SECOND + SECOND // 5
    forgotten = dataclasses.replace(committed, stamp_ns=SECOND + 1)
    long_over = dataclasses.replace(committed, stamp_ns=SECOND, time_from_start_s=committed.time_from_start_s * 1e-3)
    for chunk in (None, forgotten, long_over):
        policy.infer(observe(later), InferenceContext(0.0, 2, chunk))
        assert network.seen[-1][2] is None, chunk
    policy.reset("touch the red block", 3)
    policy.infer(observe(later), InferenceContext(0.2, 2, committed))
    assert network.seen[-1][2] is None  # A reset forgets where that chunk was anchored.


def test_a_network_that_can_not_continue_is_never_asked_to(tmp_path: Path) -> None:
    policy, network = make(tmp_path, "none")
    committed = answer_as(policy, policy.infer(observe(), InferenceContext()), SECOND, HOME)
    policy.infer(observe(SECOND + SECOND // 5), InferenceContext(0.2, 2, committed))
    assert network.seen[-1][2] is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"runtime": "tensorrt"}, "choose from: auto, onnx, torch"),
        ({"threads": -1}, "threads -1"),
        ({"steps": 0}, "steps 0"),
        ({"runtime": "onnx", "device": "cuda"}, "use runtime torch"),
        ({"runtime": "onnx", "steps": 3}, "steps with runtime onnx"),
        ({"runtime": "onnx", "prefix": "guided"}, "prefix guided with runtime onnx"),
        ({"step": 3}, "unknown key 'step'; did you mean 'steps'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_parameters_that_mean_nothing_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LearnedPolicy.from_parameters(CONTRACT, {"checkpoint": "nowhere", **parameters})


# With torch, on tiny networks.


def run(folder: Path, **parameters: Any) -> list[np.ndarray]:
    policy = LearnedPolicy.from_parameters(_contract(folder), {"checkpoint": str(folder), **parameters})
    policy.reset("reach the red block", 7)
    return [policy.infer(_observe(k), InferenceContext()).actions for k in range(3)]


def _contract(folder: Path) -> Contract:
    from vla_ros.policies.checkpoint import read_checkpoint

    return read_checkpoint(folder, with_weights=False).contract


def _observe(k: int) -> Observation:
    rng = np.random.default_rng(k)
    stamp_ns = SECOND + k * SECOND // 10
    images = {
        name: CameraFrame(stamp_ns, rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for name in ("base", "wrist")
    }
    layout = {"tcp_pose": slice(0, 7), "gripper": slice(7, 8)}
    return Observation(stamp_ns, images, rng.standard_normal(8), layout, HOME, 1.0, "reach the red block")


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_saved_and_loaded_it_answers_the_same(tiny_checkpoints: Any, tmp_path: Path, architecture: str) -> None:
    pytest.importorskip("torch")
    from vla_ros.policies.checkpoint import read_checkpoint
    from vla_ros.policies.torch_model import load_model, save_policy

    folder = tiny_checkpoints.get(architecture)
    read = read_checkpoint(folder)
    save_policy(tmp_path / "again", load_model(read), read.contract, read.statistics)
    again = read_checkpoint(tmp_path / "again").card
    # Somebody may commit meanwhile.
    assert dataclasses.replace(again, git=None) == dataclasses.replace(read.card, git=None)
    for one, other in zip(run(folder), run(tmp_path / "again"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_both_runtimes_answer_alike_and_auto_takes_the_export(tiny_checkpoints: Any) -> None:
    folder = tiny_checkpoints.get("flow_vla", is_exported=True)
    parameters = {"checkpoint": str(folder)}
    assert LearnedPolicy.from_parameters(_contract(folder), parameters).runtime == "onnx"
    assert LearnedPolicy.from_parameters(_contract(folder), parameters | {"steps": 1}).runtime == "torch"
    for one, other in zip(run(folder, runtime="torch"), run(folder, runtime="onnx"), strict=True):
        # Actions are some centimetres; the runtimes add float32 numbers in another order.
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_more_steps_answer_otherwise_and_a_network_without_steps_refuses_them(tiny_checkpoints: Any) -> None:
    folder = tiny_checkpoints.get("flow_vla")
    assert not np.allclose(run(folder)[0], run(folder, steps=7)[0])
    with pytest.raises(ConfigError, match="act samples in one step"):
        run(tiny_checkpoints.get("act"), steps=2)


def test_a_device_that_is_not_there_is_refused(tiny_checkpoints: Any) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("it is there")
    with pytest.raises(ConfigError, match="device 'cuda': isn't a device that torch can use here"):
        run(tiny_checkpoints.get("bc"), device="cuda")


@pytest.mark.parametrize("architecture", ["flow_vla", "diffusion"])
def test_guided_answers_come_near_the_prefix_where_unguided_ones_do_not(
    tiny_checkpoints: Any, architecture: str, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from vla_ros.policies.checkpoint import read_checkpoint
    from vla_ros.policies.representations.diffusion import Diffusion
    from vla_ros.policies.torch_model import TorchModel, load_model

    # An untrained network that predicts the noise says nothing of the actions at full noise; velocities always do.
    velocity = {"diffusion": Diffusion(prediction_type="v_prediction", clip_sample_range=5.0)}
    folder = tiny_checkpoints.write(tmp_path / "checkpoint", architecture, **velocity)
    # Many steps: guidance is a flow, and coarse steps follow it only roughly.
    network = TorchModel(load_model(read_checkpoint(folder), 50), "cpu", 1, "guided")
    rng = np.random.default_rng(0)
    inputs = ModelInputs(
        rng.random((1, 2, 3, 32, 32), dtype=np.float32), rng.standard_normal((1, 8), dtype=np.float32),
        np.array([[1, 2, 0, 0, 0, 0, 0, 0]]),
    )  # fmt: skip
    noise = rng.standard_normal((1, 6, 7), dtype=np.float32)
    wanted = rng.standard_normal((1, 6, 7), dtype=np.float32)
    weights = np.array([1, 1, 0, 0, 0, 0], dtype=np.float32)
    led = network.sample(inputs, noise, ModelPrefix(wanted, 2, weights))
    free = network.sample(inputs, noise, None)
    assert np.abs(led - wanted)[0, :2].max() < 0.1 * np.abs(free - wanted)[0, :2].max()


def test_a_trained_prefix_is_kept_exactly_by_both_runtimes(tiny_checkpoints: Any) -> None:
    from vla_ros.policies.checkpoint import read_checkpoint
    from vla_ros.policies.export import examples
    from vla_ros.policies.onnx_model import OnnxModel
    from vla_ros.policies.torch_model import TorchModel, load_model

    read = read_checkpoint(tiny_checkpoints.get("flow_vla", is_exported=True))
    model = load_model(read)
    asked = next(example for example in examples(model) if example.prefix is not None)
    assert asked.prefix is not None
    for network in (TorchModel(model, "cpu", 1, "auto"), OnnxModel.of_checkpoint(read, 1)):
        assert network.prefix_way == "trained"
        answer = network.sample(asked.inputs, asked.noise, asked.prefix)
        np.testing.assert_array_equal(answer[0, : asked.prefix.count], asked.prefix.actions[0, : asked.prefix.count])


@pytest.mark.parametrize("prefix", ["trained", "guided"])
def test_a_way_to_continue_that_the_network_lacks_is_refused(tiny_checkpoints: Any, prefix: str) -> None:
    with pytest.raises(ConfigError, match=f"prefix is {prefix}, which bc can't do"):
        run(tiny_checkpoints.get("bc"), prefix=prefix)


BLOCKED = """
import sys
sys.modules["torch"] = None
sys.modules["safetensors"] = None
import json, numpy as np
sys.path.insert(0, "test/core")
import test_learned
answers = test_learned.run(test_learned.Path(sys.argv[1]), **json.loads(sys.argv[2]))
print(json.dumps([answer.tolist() for answer in answers]))
"""


def _without_torch(folder: Path, **parameters: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED, str(folder), json.dumps(parameters)]
    environment = {**os.environ, "PYTHONPATH": str(package_share())}
    return subprocess.run(command, capture_output=True, text=True, cwd=package_share(), env=environment, check=False)


@pytest.mark.parametrize("runtime", ["onnx", "auto"])
def test_an_exported_policy_runs_where_torch_can_not_be_imported(tiny_checkpoints: Any, runtime: str) -> None:
    folder = tiny_checkpoints.get("flow_vla", is_exported=True)
    reply = _without_torch(folder, runtime=runtime)
    assert reply.returncode == 0, reply.stderr
    for one, other in zip(json.loads(reply.stdout), run(folder, runtime="onnx"), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_a_policy_that_is_not_exported_says_what_is_missing_without_torch(tiny_checkpoints: Any) -> None:
    reply = _without_torch(tiny_checkpoints.get("bc"))
    assert MissingDependencyError.__name__ in reply.stderr
    assert "torch is missing" in reply.stderr
    assert "-m pip install torch" in reply.stderr
