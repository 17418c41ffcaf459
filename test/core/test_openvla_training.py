"""Fine-tuning OpenVLA on a small random checkpoint: tokens, losses, mixing, and that what was learned can be done."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("tokenizers")
pytest.importorskip("accelerate")
safetensors_torch = pytest.importorskip("safetensors.torch")

from PIL import Image

from vla_ros.cli import main
from vla_ros.commands.policies.merging import merge
from vla_ros.contract import load_contract
from vla_ros.errors import ConfigError, ContractError, DatasetError, InstructionError
from vla_ros.geometry import rotations
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.openvla.adapters import LoraShape
from vla_ros.policies.openvla.checkpoint import read_checkpoint
from vla_ros.policies.openvla.fine_tuned import POLICY_FILE
from vla_ros.policies.openvla.merging import merge_adapter
from vla_ros.policies.openvla.preprocessing import crop_area
from vla_ros.policies.openvla.small import make_small_checkpoint
from vla_ros.policies.registry import load_policy_config, make_policy
from vla_ros.recording.dataset import Column, EpisodeFrames, ImageColumn, Schema
from vla_ros.recording.formats import lerobot
from vla_ros.training.config import LoopConfig
from vla_ros.training.examples import ExampleSet, read_examples
from vla_ros.training.image_cache import CacheOptions
from vla_ros.training.openvla.augmentation import NO_VARIATION, ImageVariation
from vla_ros.training.openvla.image_text import read_image_text
from vla_ros.training.openvla.learner import OpenVLALearner
from vla_ros.training.openvla.losses import SpokenTokens, speak, token_losses
from vla_ros.training.openvla.mixture import Mixture
from vla_ros.training.openvla.recipe import answer_examples, make_examination
from vla_ros.training.openvla.settings import FineTuning
from vla_ros.training.openvla.teacher import with_teacher
from vla_ros.training.openvla.tokens import IGNORED, TokenBatch
from vla_ros.training.options import Distillation
from vla_ros.training.recipe import prepare
from vla_ros.training.trainer import Trainer
from vla_ros.types import CameraFrame, ImageArray, Observation

CONTRACT = load_contract("openvla_bridge")
HEIGHT, WIDTH = 64, 96
EPISODES, FRAMES = 4, 2
TASKS = ("lift the cup", "open the drawer")
GENERATOR = torch.Generator()


def make_image(seed: int, frame: int) -> ImageArray:
    squares = np.random.default_rng([seed, frame]).integers(0, 256, (4, 6, 3))
    return np.kron(squares, np.ones((16, 16, 1))).astype(np.uint8)


def make_episode(seed: int) -> EpisodeFrames:
    """Measured states that wander about; the action is where the next one is, as in Bridge."""
    rng = np.random.default_rng(seed)
    positions = np.cumsum(rng.normal(scale=0.01, size=(FRAMES + 1, 3)), axis=0) + np.array([0.4, 0.0, 0.3])
    rpy = np.cumsum(rng.normal(scale=0.05, size=(FRAMES + 1, 3)), axis=0)
    poses = np.concatenate([positions, rotations.matrix_to_quat_xyzw(rotations.rpy_to_matrix(rpy))], axis=1)
    openings = rng.integers(0, 2, (FRAMES, 1))
    columns = {"action": np.concatenate([poses[1:], openings], 1).astype(np.float32), "tcp_pose": poses[:-1]}

    def read_images() -> Iterator[tuple[str, int, ImageArray]]:
        for frame in range(FRAMES):
            yield "observation.images.image", frame, make_image(seed, frame)

    return EpisodeFrames(f"take {seed}", columns, (TASKS[seed % 2],) * FRAMES, read_images)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "few"
    columns = (Column("action", "float32", (8,)), Column("tcp_pose", "float64", (7,)))
    schema = Schema(5.0, "panda", columns, (ImageColumn("observation.images.image", HEIGHT, WIDTH, "base"),), CONTRACT)
    with lerobot.create(folder, schema, {"crf": 12}) as writer:
        for seed in range(EPISODES):
            writer.add(make_episode(seed))
    return folder


@pytest.fixture(scope="module")
def examples(dataset: Path) -> ExampleSet:
    return read_examples([dataset], 1, CONTRACT, cache=CacheOptions(is_kept=False))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_checkpoint(tmp_path_factory.mktemp("base"), 1)


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    lines = []
    for number, (question, answer) in enumerate([("What is it?", "a cup"), ("Which colour?", "red"), ("In?", "on it")]):
        Image.fromarray(make_image(100, number)).save(folder / f"{number}.png")
        key = "prompt" if number else "question"
        lines.append(json.dumps({"image": f"{number}.png", key: question, "answer": answer}))
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n\n")
    return folder


@pytest.fixture(scope="module")
def learner(checkpoint: Path, examples: ExampleSet, questions: Path) -> OpenVLALearner:
    """For looking at; nobody trains it."""
    settings = FineTuning(str(checkpoint), lora=LoraShape(4, 8.0), questions=str(questions))
    learner = OpenVLALearner(settings, examples)
    with torch.no_grad():
        for parameter in learner.module.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return learner


def gradients(learner: OpenVLALearner, batch: TokenBatch) -> list[torch.Tensor]:
    weights = [parameter for parameter in learner.module.parameters() if parameter.requires_grad]
    return list(torch.autograd.grad(learner.losses(batch, GENERATOR)["total"], weights))


def test_tokens_of_an_action_by_the_published_formula(learner: OpenVLALearner, examples: ExampleSet) -> None:
    """q01 and q99 become -1 and 1; 256 edges from -1 to 1; ids count down from 32000. The gripper isn't normalised."""
    maker = learner.batches()._maker
    statistics = learner.normaliser.statistics
    q01, q99 = statistics.q01, statistics.q99
    action = np.concatenate([(q01 + 0.25 * np.arange(7) * (q99 - q01))[:6], [1.0]])
    said = maker.say_action("Lift the cup", action)
    edges = np.linspace(-1.0, 1.0, 256)
    # A millionth of a bin is what the epsilon in the divisor moves; none of these lies at an edge but the outermost.
    values = np.array([-1.0 + 1e-9, -0.5, 0.0, 0.5, 1.0, 1.5, 1.0])
    wanted = 32000 - np.digitize(np.clip(values, -1.0, 1.0), edges)
    assert list(said.said[:4]) == wanted[:4].tolist()
    # Quantile 1 is within 1e-6 below the last edge: its bin, or the edge's own.
    assert said.said[4] in (31744, 31745)
    assert list(said.said[5:]) == [31744, 31744, 2], "clipped, gripper open, EOS"
    text = "In: What action should the robot take to lift the cup?\nOut:"
    assert list(said.prompt) == [*maker.encoder._tokenizer.encode(text).ids, 29871]
    assert said.labels == (IGNORED,) * len(said.prompt) + said.said[:7] + (IGNORED,)
    ending = dataclasses.replace(maker, learn_stop=True).say_action("Lift the cup", action)
    assert ending.labels[-1] == 2


def test_answer_is_learnt_with_its_end_and_the_question_is_not(learner: OpenVLALearner) -> None:
    maker = learner.batches()._maker
    asked = maker.answer(" What is it? ", "a cup")
    tokenizer = maker.encoder._tokenizer
    assert list(asked.prompt) == tokenizer.encode("In: What is it?\nOut:").ids
    assert asked.said[-1] == 2
    assert tokenizer.decode(list(asked.said[:-1])).strip() == "a cup"
    assert asked.labels == (IGNORED,) * len(asked.prompt) + asked.said
    with pytest.raises(InstructionError, match="is empty"):
        maker.answer("What is it?", "  ")
    with pytest.raises(InstructionError, match="room for"):
        maker.answer("What is it?", "so " * 2100)


def test_losses_of_a_batch_worked_by_hand() -> None:
    """Three examples, two of them actions, four tokens that count in a vocabulary of three.

    The first action's tokens have probabilities 1/2 and 1/4, the second's 1/4; the answer's 1/8. So the actions' mean
    is (ln 2 + ln 4 + ln 4) / 3, the answer's ln 8, and the total 2/3 of the one and 1/3 of the other.
    """
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.125, 0.375, 0.5]])
    spoken = SpokenTokens(probabilities.log() + 3.0, torch.tensor([0, 1, 0, 0]), torch.tensor([0, 0, 2, 1]))
    losses = token_losses(spoken, torch.tensor([True, False, True]))
    action, answer = 5.0 * math.log(2.0) / 3.0, 3.0 * math.log(2.0)
    assert float(losses["action"]) == pytest.approx(action)
    assert float(losses["answer"]) == pytest.approx(answer)
    assert float(losses["total"]) == pytest.approx((2.0 * action + answer) / 3.0)
    assert float(losses["action_accuracy"]) == pytest.approx(1.0 / 3.0)
    alone = token_losses(spoken, torch.tensor([True, True, True]))
    assert float(alone["answer"]) == 0.0
    assert float(alone["total"]) == pytest.approx(8.0 * math.log(2.0) / 4.0)


def test_every_token_is_told_from_all_that_is_before_it_and_nothing_else(learner: OpenVLALearner) -> None:
    """One by one: the model is shown each example alone, cut off before the token, and asked for the next one."""
    batch = learner.batches(seed=3).batch(0, 4)
    assert len(set(batch.is_action.tolist())) == 2, "both kinds, of different lengths"
    with torch.no_grad():
        found = speak(learner.model, batch)
        places = torch.nonzero(batch.labels != IGNORED).tolist()
        assert len(places) == len(found.labels)
        for index, (row, place) in enumerate(places):
            alone = learner.model(batch.pixel_values[row : row + 1], batch.input_ids[row : row + 1, :place])[0, -1]
            # float32, sums in another order.
            torch.testing.assert_close(found.logits[index], alone, rtol=1e-4, atol=1e-3)
            assert int(found.labels[index]) == int(batch.input_ids[row, place])


def test_what_is_masked_has_no_gradient(learner: OpenVLALearner) -> None:
    """EOS after an action and the filling behind it may be anything; a token that counts may not."""
    batch = learner.batches(seed=3).batch(0, 4)
    wanted = gradients(learner, batch)
    action = int(torch.nonzero(batch.is_action)[0])
    last = int(torch.nonzero(batch.labels[action] != IGNORED)[-1])
    ids = batch.input_ids.clone()
    ids[action, last + 1 :] = 777
    found = gradients(learner, dataclasses.replace(batch, input_ids=ids))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    labels = batch.labels.clone()
    labels[action, last] = IGNORED
    unlearnt = gradients(learner, dataclasses.replace(batch, labels=labels))
    labels[action, last] = 31744 + (int(batch.labels[action, last]) + 7) % 256
    other = gradients(learner, dataclasses.replace(batch, labels=labels))
    for changed in (unlearnt, other):
        assert not all(torch.equal(a, b) for a, b in zip(changed, wanted, strict=True))


def test_recomputed_activations_give_the_same_gradients(
    checkpoint: Path, examples: ExampleSet, questions: Path
) -> None:
    found, kept = [], []
    for checkpointing in (False, True):
        settings = FineTuning(str(checkpoint), lora=LoraShape(4, 8.0), checkpointing=checkpointing)
        learner = OpenVLALearner(settings, examples)
        learner.module.train()
        weights = {parameter.data_ptr() for parameter in learner.module.parameters()}
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            # Logits are of the loss, and not of a block.
            if tensor.shape[-1:] != (32064,):
                sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        batch = learner.batches().batch(0, 3)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            learner.losses(batch, GENERATOR)
        kept.append(sum(size for place, size in sizes.items() if place not in weights))
        found.append(gradients(learner, batch))
        learner.module.eval()
        assert make_examination(learner, learner.batches(), 2)().score > 0.0
    assert kept[1] < 0.5 * kept[0]
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-4, atol=1e-6)


def test_mixture_is_exact_at_every_place() -> None:
    mixture = Mixture()
    kinds = [mixture.place(n) for n in range(1000)]
    # By hand: floor(0.7 n) for n = 0 .. 10 is 0 0 1 2 2 3 4 4 5 6 7.
    assert [is_action for is_action, _ in kinds[:10]] == [False, True, True, False, True, True, False, True, True, True]
    counts = {True: 0, False: 0}
    for n, (is_action, index) in enumerate(kinds):
        assert index == counts[is_action], "each kind goes through its own order"
        counts[is_action] += 1
        assert abs(counts[True] - 0.7 * (n + 1)) < 1.0
    assert counts[True] == 700
    assert mixture.place(10**15)[1] == 3 * 10**14
    assert Mixture(1.0).place(12345) == (True, 12345)
    with pytest.raises(ValueError, match="share 0"):
        Mixture(0.0)


def test_batches_follow_from_seed_and_step(learner: OpenVLALearner) -> None:
    batches, again = learner.batches(seed=5), learner.batches(seed=5)
    again.batch(7, 3)
    for step in (4, 0):
        one, other = batches.batch(step, 10), again.batch(step, 10)
        assert torch.equal(one.pixel_values, other.pixel_values)
        assert torch.equal(one.input_ids, other.input_ids)
        assert int(one.is_action.sum()) == 7
    # A batch is a stretch of one order, whatever its size: two processes see what one would.
    halves = [batches.batch(step, 5) for step in (0, 1)]
    assert torch.equal(torch.cat([half.pixel_values for half in halves]), batches.batch(0, 10).pixel_values)
    assert not torch.equal(batches.batch(0, 10).pixel_values, learner.batches(seed=6).batch(0, 10).pixel_values)
    assert len(batches) == 11, "8 actions are 70 % of them"


def test_images_are_shown_as_the_policy_shows_them(learner: OpenVLALearner, examples: ExampleSet) -> None:
    shown = learner.batches().actions_at([5]).pixel_values[0].numpy()
    raw = np.ascontiguousarray(examples.parts[0].images["image"][5].transpose(1, 2, 0))
    preprocess = dataclasses.replace(learner.batches()._preprocess, centre_area=0.9)
    np.testing.assert_array_equal(shown, preprocess(raw))


def test_crop_is_the_part_that_it_says() -> None:
    """On a ramp, whose value is the place."""
    ramp = np.broadcast_to(np.arange(0, 242, 2, dtype=np.uint8)[None, :, None], (50, 121, 3))
    side = math.sqrt(0.81)
    for place in (0.0, 0.5, 1.0, 0.3):
        cut = crop_area(ramp, 0.81, (0.7, place))
        wanted = 2.0 * (place * (1.0 - side) * 120.0 + side * np.arange(121))
        assert np.max(np.abs(cut[0, :, 0] - wanted)) <= 0.5001
    rng = np.random.default_rng(0)
    only = ImageVariation(0.81, 0.0, 0.0, 0.0, 0.0)
    firsts = [int(only(ramp, rng)[0, 0, 0]) for _ in range(200)]
    assert min(firsts) <= 1
    assert max(firsts) >= 23
    # A turn through HSV and back rounds: one grey level.
    assert np.max(np.abs(NO_VARIATION(ramp, rng).astype(int) - ramp)) <= 1


def test_colours_vary_within_their_bounds_and_grey_stays_grey() -> None:
    grey = np.full((8, 8, 3), 128, dtype=np.uint8)
    rng = np.random.default_rng(1)
    varied = np.stack([ImageVariation()(grey, rng) for _ in range(200)]).astype(int)
    assert np.ptp(varied, axis=-1).max() <= 1
    assert 128 - 0.2 * 255 - 1 <= varied.min() < 90
    assert 166 < varied.max() <= 128 + 0.2 * 255 + 1
    # Hue 0.05 of the circle is 18 degrees: red stays red, with less than 0.31 of green or blue.
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[..., 0] = 200
    turned = np.stack([ImageVariation(1.0, 0.0, 0.0, 0.0, 0.05)(red, rng) for _ in range(100)])
    assert turned[..., 1:].max() <= 0.31 * 200
    assert turned[..., 1:].max() > 0.2 * 200


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("{", "line 1 isn't JSON"),
        ('{"image": "0.png", "question": "What?"}', "answer None"),
        ('{"image": "0.png", "question": "", "answer": "a"}', "question ''"),
        ('{"image": "../0.png", "question": "What?", "answer": "a"}', r"names '\.\./0\.png'"),
        ('{"image": "9.png", "question": "What?", "answer": "a"}', r"names '9\.png'"),
        ("\n\n", "is empty"),
    ],
)
def test_question_that_cannot_be_used_is_named_by_its_line(tmp_path: Path, lines: str, named: str) -> None:
    Image.fromarray(make_image(0, 0)).save(tmp_path / "0.png")
    with pytest.raises(DatasetError, match=r"0 \.jsonl files"):
        read_image_text(tmp_path)
    (tmp_path / "data.jsonl").write_text(lines)
    with pytest.raises(DatasetError, match=named):
        read_image_text(tmp_path)


def test_damaged_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"nothing")
    (tmp_path / "data.jsonl").write_text('{"image": "0.png", "question": "What?", "answer": "a"}')
    (asked,) = read_image_text(tmp_path)
    with pytest.raises(DatasetError, match=r"0\.png can't be read"):
        asked.read_image()


def test_contract_that_openvla_cannot_say_is_refused_before_training(checkpoint: Path, examples: ExampleSet) -> None:
    settings = FineTuning(str(checkpoint))
    for changes, named in (
        ({"rotation": "rot6d", "composition": "base"}, "rot6d"),
        ({"gripper": "closing"}, "closing"),
    ):
        contract = dataclasses.replace(CONTRACT, action=dataclasses.replace(CONTRACT.action, **changes))
        with pytest.raises(ContractError, match=named):
            OpenVLALearner(settings, dataclasses.replace(examples, contract=contract))
    with pytest.raises(ContractError, match="no image 'wrist'"):
        OpenVLALearner(dataclasses.replace(settings, image="wrist"), examples)
    with pytest.raises(ConfigError, match="is no linear layer"):
        OpenVLALearner(dataclasses.replace(settings, lora=LoraShape(targets=("nothing",))), examples)


def train(learner: OpenVLALearner, out: Path, steps: int, batch_size: int = EPISODES * FRAMES) -> Path:
    """Through the loop that trains everything; the checkpoint."""
    loop = LoopConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=8e-3,
        warm_up_steps=10,
        weight_decay=0.0,
        ema_decay=0.0,
        precision="fp32",
        checkpoint_every=steps,
    )
    return Trainer(learner, learner.batches(), loop, out).run().last


def act_all(policy: Any, examples: ExampleSet) -> np.ndarray:
    """(n, 7) what a policy does on the recorded images, as they came through the video."""
    answers = []
    for image, task in zip(examples.parts[0].images["image"], examples.task_of.tolist(), strict=True):
        policy.reset(examples.tasks[task], 0)
        frame = CameraFrame(1, np.ascontiguousarray(image.transpose(1, 2, 0)))
        seen = Observation(1, {"image": frame}, np.zeros(0), {}, np.eye(4), 1.0, examples.tasks[task])
        answers.append(policy.infer(seen, InferenceContext()).actions[0])
    return np.stack(answers)


def part_in_its_bin(found: np.ndarray, examples: ExampleSet, learner: OpenVLALearner) -> float:
    """Part of the entries that are read back in exactly the bin that was recorded."""
    wanted = learner.bins.encode(learner.normaliser.normalise(examples.actions[:, 0].astype(np.float64)))
    said = learner.bins.encode(learner.normaliser.normalise(found))
    # The edge 1 itself has a token of its own, and both are read as the centre of the last bin.
    return float(np.mean(np.maximum(said, 31745) == np.maximum(wanted, 31745)))


@pytest.mark.parametrize("quantisation", ["none", "nf4"])
def test_handful_of_episodes_is_learnt_and_done_after_saving_and_merging(
    checkpoint: Path, examples: ExampleSet, tmp_path: Path, quantisation: str
) -> None:
    settings = FineTuning(
        str(checkpoint), lora=LoraShape(16, 32.0), quantisation=quantisation, variation=None, dataset="cups"
    )
    learner = OpenVLALearner(settings, examples)
    saved = train(learner, tmp_path / "run", steps=30)
    answers = answer_examples(learner, learner.batches(), range(len(examples)))
    assert part_in_its_bin(answers, examples, learner) >= 0.99
    policies = {
        "saved": make_policy(load_policy_config(str(saved / POLICY_FILE)))[0],
        "merged": make_policy(
            load_policy_config(
                str(merge_adapter(read_checkpoint(checkpoint), saved, tmp_path / "merged") / POLICY_FILE)
            )
        )[0],
    }
    for name, policy in policies.items():
        actions = act_all(policy, examples)
        assert part_in_its_bin(actions, examples, learner) >= 0.99, name
        # To half a bin, in metres and rad: a bin is 1/127.5 of half the range from q01 to q99, beyond which is clipped.
        statistics = learner.normaliser.statistics
        half_bin = 0.5 * (statistics.q99 - statistics.q01)[:6] / 255.0 + 1e-6
        wanted = np.clip(examples.actions[:, 0, :6], statistics.q01[:6], statistics.q99[:6])
        assert np.mean(np.abs(actions[:, :6] - wanted) <= half_bin) >= 0.99, name
        assert np.mean((actions[:, 6] > 0.5) == (examples.actions[:, 0, 6] > 0.5)) >= 0.99, name
    check_that_only_the_adapter_is_kept(tmp_path / "run", saved, learner)


def check_that_only_the_adapter_is_kept(run: Path, saved: Path, learner: OpenVLALearner) -> None:
    trained = sum(parameter.numel() for parameter in learner.module.parameters() if parameter.requires_grad)
    weights = safetensors_torch.load_file(saved / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in weights.values()) == trained == learner.describe()["trained_parameters"]
    assert not list(saved.glob("model*.safetensors"))
    (state,) = run.glob("resume/*/tensors.safetensors")
    # Weights, their average and the optimiser's two moments.
    assert state.stat().st_size < 4.2 * 4 * trained


@pytest.fixture
def even_checkpoint(tmp_path: Path) -> Path:
    """One whose head isn't louder for actions than for words, so that words can be said."""
    folder = make_small_checkpoint(tmp_path / "even", 1)
    for file in folder.glob("model-*.safetensors"):
        tensors = safetensors_torch.load_file(file)
        head = tensors.get("language_model.lm_head.weight")
        if head is not None:
            head *= 4.0 * head[:1].norm() / head.norm(dim=1, keepdim=True)
            safetensors_torch.save_file(tensors, file, {"format": "pt"})
    return folder


def test_answers_are_learnt_beside_actions_by_a_second_adapter(
    even_checkpoint: Path, examples: ExampleSet, questions: Path, tmp_path: Path
) -> None:
    """The first adapter stays bit for bit what it was, and each is saved by its name."""
    few = dataclasses.replace(examples, rows=examples.rows[:7])
    settings = FineTuning(
        str(even_checkpoint), "first", lora=LoraShape(16, 32.0), variation=None, questions=str(questions)
    )
    learner = OpenVLALearner(settings, few)
    before = learner.adapters.read("first")
    learner.save(tmp_path / "first")
    learner.adapters.add("second", LoraShape(16, 32.0, targets=("language_model", "projector")), seed=1)
    learner.choose("second")
    train(learner, tmp_path / "run", steps=25, batch_size=10)
    batch = learner.batches().batch(0, 10)
    assert int(batch.is_action.sum()) == 7
    with torch.no_grad():
        losses = {name: float(loss) for name, loss in learner.losses(batch, GENERATOR).items()}
    assert losses["action_accuracy"] == 1.0
    assert losses["answer"] < 0.1
    after = learner.adapters.read("first")
    assert all(torch.equal(after.layers[name].A, change.A) for name, change in before.layers.items())
    assert all(torch.equal(after.layers[name].B, change.B) for name, change in before.layers.items())
    again = dataclasses.replace(settings, adapters={"first": str(tmp_path / "first")})
    assert OpenVLALearner(again, few).describe()["rank"] == 16, "goes on with a saved one"


def test_examination_counts_millimetres_of_what_the_policy_would_say(learner: OpenVLALearner) -> None:
    found = make_examination(learner, learner.batches(), 5)()
    assert found.score == found.figures["position_mm"]
    assert 0.0 < found.score < 100.0
    assert found.figures["stay_position_mm"] > 0.0


def test_student_learns_the_tokens_of_a_teacher_and_one_of_other_ranges_is_refused(
    checkpoint: Path, examples: ExampleSet, tmp_path: Path
) -> None:
    settings = FineTuning(str(checkpoint), lora=LoraShape(8, 16.0), variation=None, dataset="cups")
    expert, student = OpenVLALearner(settings, examples), OpenVLALearner(settings, examples)
    with torch.no_grad():
        for weight in expert.module.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    expert.save(tmp_path / "adapter")
    folder = merge_adapter(read_checkpoint(checkpoint), tmp_path / "adapter", tmp_path / "merged")
    taught = with_teacher(student, Distillation(str(folder), "logits", weight=1.0, temperature=2.0))
    batch = student.batches().batch(0, 8)
    found = taught.losses(batch, torch.Generator())["distillation"]
    with torch.no_grad():
        said = [torch.distributions.Categorical(logits=each.speak(batch).logits / 2.0) for each in (expert, student)]
        wanted = 4.0 * torch.distributions.kl_divergence(*said).mean()
    # The merged weights are the sum of what the adapter has apart: float32's rounding.
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-3, atol=1e-6)
    optimiser = torch.optim.Adam([weight for weight in student.module.parameters() if weight.requires_grad], lr=1e-2)
    for _ in range(10):
        optimiser.zero_grad()
        taught.losses(batch, torch.Generator())["total"].backward()
        optimiser.step()
    assert float(taught.losses(batch, torch.Generator())["distillation"].detach()) < 0.5 * float(wanted)
    with pytest.raises(ConfigError, match="other ranges"):
        with_teacher(student, Distillation(str(checkpoint), "logits"))
    with pytest.raises(ConfigError, match="take logits"):
        with_teacher(student, Distillation(str(folder), "chunk"))
    assert with_teacher(student, None) is student


def test_command_trains_goes_on_and_merges(
    checkpoint: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> dict[str, Any]:
        assert main([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    out = str(tmp_path / "run")
    options = ["--checkpoint", str(checkpoint), "--lora", "2", "--steps", "1", "--set", "loop.batch_size=2"]
    changes = ["--set", "openvla.adapter=cups", "--set", "openvla.lora.targets=[projector]", "--set", "is_cached=false"]
    said = run("train", "--policy", "openvla", "--dataset", str(dataset), "--out", out, *options, *changes)
    assert said["losses"]["action"] > 0.0
    assert said["open_loop"]["position_mm"] > 0.0
    on = run("train", "--resume", "--out", out, "--steps", "2")
    assert on["step"] == 2
    merged = run("policies", "merge", on["last"], str(tmp_path / "merged"))
    for file in (on["policy"], merged["policy"]):
        policy: Any = make_policy(load_policy_config(file))[0]
        assert policy.adapters == (("cups",) if file == on["policy"] else ())
        assert policy._preprocess.centre_area == 0.9, "as is shown in training"
    card = tmp_path / "run/checkpoints/step-000002/fine_tuned.json"
    card.unlink()
    with pytest.raises(ConfigError, match="--checkpoint"):
        merge(card.parent, tmp_path / "other", None)


def test_command_without_a_base_says_how_to_name_it(dataset: Path, tmp_path: Path) -> None:
    settings = {"policy": "openvla", "contract": "openvla_bridge"}
    with pytest.raises(ConfigError, match="--checkpoint"):
        prepare(settings, "mine.yaml", [dataset])
    with pytest.raises(ConfigError, match="--dataset"):
        prepare({**settings, "openvla": {"checkpoint": "openvla-7b"}}, "mine.yaml")
