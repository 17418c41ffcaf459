"""What wraps a learner: teachers, insulation, freezing, smoothness, and several arms in one training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install torch==2.13.0")
pytest.importorskip("safetensors")

from vla_ros.errors import ConfigError
from vla_ros.policies.architectures.base import Architecture, Batch, Inputs, architecture_class
from vla_ros.policies.architectures.bc import Bc, BcConfig
from vla_ros.policies.architectures.losses import distillation_kl, smoothness
from vla_ros.policies.architectures.spec import ModelSpec
from vla_ros.training.distillation import DistilledLearner, TokenDistilledLearner
from vla_ros.training.embodiments import (
    Embodiment,
    EmbodimentBatches,
    apportion,
    common_spec,
    pad_batch,
    sampler_for,
)
from vla_ros.training.insulation import InsulatedLearner, find_weights, freeze
from vla_ros.training.options import Distillation, Insulation, Options, Smoothness
from vla_ros.training.smoothing import SmoothedLearner
from vla_ros.training.step import train_step

SPEC = ModelSpec(("base",), (16, 16), 2, 2, 4, ("red", "blue", "pick"), 3)
TINY: dict[str, dict[str, Any]] = {
    "bc": {"width": 16, "heads": 2, "layers": 1, "keypoints": 2, "channels": (8,)},
    "act": {"width": 16, "heads": 2, "mlp_width": 32, "posterior_layers": 1, "encoder_layers": 1, "decoder_layers": 1,
            "latent_width": 4, "channels": (8,)},
    "flow_vla": {"width": 16, "heads": 2, "mlp_width": 32, "layers": 1, "keypoints": 2, "channels": (8,), "draws": 2},
    "diffusion": {"width": 16, "heads": 2, "keypoints": 2, "channels": (8,), "unet_channels": (8, 16), "steps": 3},
}  # fmt: skip


@dataclass
class Plain:
    """A network as a learner that is never saved."""

    module: Architecture

    def losses(self, batch: Any, generator: Any) -> dict[str, Any]:
        return self.module.losses(batch, generator)

    def save(self, folder: Any) -> None:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        return {"name": self.module.name}


def make(name: str, seed: int = 0, spec: ModelSpec = SPEC, **settings: Any) -> Architecture:
    torch.manual_seed(seed)
    cls = architecture_class(name)
    return cls(spec, cls.config_class(**TINY[name] | settings))


def normal(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_batch(count: int = 4, seed: int = 0, spec: ModelSpec = SPEC) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((count, len(spec.images), 3, *spec.image_size), generator=generator)
    words = torch.randint(1, len(spec.vocabulary) + 1, (count, spec.max_words), generator=generator)
    words[:, -1] = 0
    state = torch.randn((count, spec.state_width), generator=generator)
    actions = torch.randn((count, spec.horizon, spec.action_width), generator=generator)
    is_valid = torch.ones((count, spec.horizon), dtype=torch.bool)
    is_valid[0, -1] = False
    return Batch(Inputs(images, state, words), actions, is_valid)


def with_targets(batch: Batch, things: int, pose_width: int) -> Batch:
    count, cameras = batch.inputs.images.shape[:2]
    xy = torch.rand((count, cameras, things, 2), generator=torch.Generator().manual_seed(5))
    return dataclasses.replace(batch, target_xy=xy, target_pose=normal(count, things, pose_width, seed=6))


def gradients(learner: Any, batch: Batch, seed: int = 3) -> dict[str, Any]:
    learner.module.eval().zero_grad()
    learner.losses(batch, torch.Generator().manual_seed(seed))["total"].backward()
    return {name: weight.grad.clone() for name, weight in learner.module.named_parameters() if weight.grad is not None}


# Distillation.


@pytest.mark.parametrize("by", ["actions", "chunk"])
def test_teacher_gets_no_gradient_and_its_share_of_the_loss(by):
    student, teacher = Plain(make("bc", 0)), make("flow_vla", 1).train()
    batch = make_batch()
    learner = DistilledLearner(student, teacher, Distillation("-", by, weight=0.25))
    own = student.losses(batch, torch.Generator())["total"]
    losses = learner.losses(batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(losses["total"], 0.75 * own + 0.25 * losses["distillation"])
    losses["total"].backward()
    assert all(weight.grad is None and not weight.requires_grad for weight in teacher.parameters())
    assert not teacher.training
    assert all(weight.grad is not None for weight in student.module.parameters())


def test_distillation_by_hand():
    """A student that says nothing but zeros: the loss by chunk is the teacher's mean square, padding included."""
    student, teacher = make("bc", 0), make("bc", 1)
    for weight in student.parameters():
        torch.nn.init.zeros_(weight)
    batch = make_batch()
    learner = DistilledLearner(Plain(student), teacher, Distillation("-", "chunk", weight=1.0))
    found = learner.losses(batch, torch.Generator())["total"]
    torch.testing.assert_close(found, teacher.distribution(batch.inputs)[0].square().mean())
    by_actions = DistilledLearner(Plain(student), teacher, Distillation("-", "actions", weight=1.0))
    # N(0, 1) of what the teacher says; nothing is rough where all is 0.
    wanted = found / 2.0 + 0.5 * torch.log(torch.tensor(2.0 * torch.pi))
    torch.testing.assert_close(by_actions.losses(batch, torch.Generator())["total"], wanted)


def test_teacher_that_is_the_student_has_nothing_to_say_to_the_same_noise():
    network = make("flow_vla")
    teacher = make("flow_vla")
    learner = DistilledLearner(Plain(network.eval()), teacher, Distillation("-", "chunk", weight=1.0))
    assert float(learner.losses(make_batch(), torch.Generator().manual_seed(0))["distillation"].detach()) == 0.0


@pytest.mark.parametrize(("name", "by"), [("bc", "chunk"), ("flow_vla", "actions")])
def test_distilled_student_ends_nearer_to_its_teacher_than_one_of_demonstrations(name, by):
    """Demonstrations are the teacher's answers with as much noise again; both students take the same steps."""
    teacher = make("bc", 7, width=32).eval()
    final = teacher.head[-1]
    torch.nn.init.normal_(final.weight, std=0.5, generator=torch.Generator().manual_seed(0))
    unseen = make_batch(64, seed=99)
    wanted = teacher.distribution(unseen.inputs)[0].detach()
    distances = []
    for is_distilled in (False, True):
        student = make(name, 3, **({"draws": 4} if name == "flow_vla" else {}))
        learner: Any = Plain(student)
        if is_distilled:
            learner = DistilledLearner(learner, teacher, Distillation("-", by, weight=1.0))
        optimiser = torch.optim.Adam(student.parameters(), lr=6e-3)
        for step in range(60):
            batch = make_batch(16, seed=step)
            said = teacher.distribution(batch.inputs)[0].detach()
            noisy = said + 3.0 * normal(*said.shape, seed=1000 + step)
            batch = dataclasses.replace(batch, actions=noisy)
            train_step(learner.losses, batch, optimiser, torch.Generator().manual_seed(step))
        with torch.inference_mode():
            answers = [student.eval().sample(unseen.inputs, normal(64, 4, 2, seed=i)) for i in range(4)]
        distances.append(float(torch.stack([(answer - wanted).square().mean() for answer in answers]).mean()))
    # The variance of the demonstrations' noise, 9, is what a student of them has to average out, or imitates.
    assert distances[1] < 0.5 * distances[0], distances


class Tokens:
    """A table of logits as a learner of tokens."""

    def __init__(self, logits: Any) -> None:
        self.module = torch.nn.ParameterList([torch.nn.Parameter(logits)])

    def losses(self, batch: Any, generator: Any) -> dict[str, Any]:
        return {"total": self.module[0].square().mean()}

    def logits(self, batch: Any) -> tuple[Any, Any]:
        return self.module[0], torch.tensor([[True, False]])

    def save(self, folder: Any) -> None:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        return {"name": "tokens"}


def test_logits_are_distilled_with_the_temperature():
    student, teacher = Tokens(normal(1, 2, 5)), Tokens(normal(1, 2, 5, seed=1))
    config = Distillation("-", "logits", weight=0.5, temperature=3.0)
    losses = TokenDistilledLearner(student, student, teacher, config).losses(None, torch.Generator())
    wanted = distillation_kl(normal(1, 2, 5), normal(1, 2, 5, seed=1), torch.tensor([[True, False]]), 3.0)
    torch.testing.assert_close(losses["distillation"].detach(), wanted)
    losses["total"].backward()
    assert teacher.module[0].grad is None
    assert student.module[0].grad is not None


# Freezing and insulation.


def test_insulated_weights_learn_from_other_terms_alone_and_the_rest_as_before():
    network = make("flow_vla", target_pose_width=3)
    batch = with_targets(make_batch(), network.config.things, 3)
    usual = gradients(Plain(network), batch)
    insulated = gradients(InsulatedLearner(Plain(network), ["context"], ["flow"]), batch)

    def auxiliary(batch: Batch, generator: Any) -> dict[str, Any]:
        losses = network.losses(batch, generator)
        return {"total": losses["total"] - losses["flow"]}

    only = Plain(network)
    only.losses = auxiliary  # type: ignore[method-assign]
    wanted = gradients(only, batch)
    for name, gradient in insulated.items():
        expected = wanted[name] if name.startswith("context.") else usual[name]
        # Sums in another order: float32's rounding.
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6, msg=name)
    assert any(float(wanted[name].abs().max()) > 0.0 for name in wanted if name.startswith("context."))
    without = gradients(InsulatedLearner(Plain(network), ["context"], ["flow"]), make_batch())
    context = [gradient for name, gradient in without.items() if name.startswith("context.")]
    assert max((float(gradient.abs().max()) for gradient in context), default=0.0) == 0.0


def test_insulation_changes_no_figure_and_leaves_all_weights_trainable():
    network = make("act", dropout=0.5).train()
    learner = InsulatedLearner(Plain(network), ["cameras", "from_map.*"], ["l1"])
    batch = make_batch()
    torch.manual_seed(0)
    usual = network.losses(batch, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    losses = learner.losses(batch, torch.Generator().manual_seed(0))
    for name, value in usual.items():
        torch.testing.assert_close(losses[name], value)
    assert all(weight.requires_grad for weight in network.parameters())
    with pytest.raises(ConfigError, match=r"\['l2'\].*l1, kl"):
        InsulatedLearner(Plain(network), ["cameras"], ["l2"]).losses(batch, torch.Generator())


def test_patterns_name_parts_and_one_that_matches_nothing_is_refused():
    network = make("flow_vla")
    assert set(find_weights(network, ["flow"])) == {n for n, _ in network.named_parameters() if n.startswith("flow.")}
    assert set(find_weights(network, ["*.instruction.words.weight"])) == {"context.instruction.words.weight"}
    with pytest.raises(ConfigError, match=r"'contxt'.*the network's parts are: context, flow"):
        find_weights(network, ["contxt"])


def test_frozen_weights_stay_and_the_others_learn():
    network = make("flow_vla")
    frozen = freeze(network, ["context"])
    before = {name: weight.clone() for name, weight in network.named_parameters()}
    optimiser = torch.optim.AdamW([w for w in network.parameters() if w.requires_grad], lr=1e-2, weight_decay=0.1)
    train_step(network.losses, make_batch(), optimiser, torch.Generator().manual_seed(0))
    for name, weight in network.named_parameters():
        assert torch.equal(weight, before[name]) == (name in frozen), name


def test_smoothness_is_of_the_answer_and_training_by_it_smoothes():
    network = make("bc")
    batch = make_batch()
    learner = SmoothedLearner(Plain(network), Smoothness(weight=3.0, order=2))
    losses = learner.losses(batch, torch.Generator())
    wanted = smoothness(network.distribution(batch.inputs)[0], batch.is_valid, 2)
    torch.testing.assert_close(losses["roughness"], wanted)
    torch.testing.assert_close(losses["total"], network.losses(batch, torch.Generator())["total"] + 3.0 * wanted)
    flow = make("flow_vla")
    assert all(
        torch.isfinite(g).all() for g in gradients(SmoothedLearner(Plain(flow), Smoothness(1.0, 3)), batch).values()
    )


def test_options_stack():
    """A teacher, insulation and smoothness together: the same terms, and gradients where they belong."""
    network = make("flow_vla", target_pose_width=3)
    learner: Any = InsulatedLearner(Plain(network), ["context"], ["flow"])
    learner = SmoothedLearner(learner, Smoothness(0.0))
    learner = DistilledLearner(learner, make("flow_vla", 1), Distillation("-", "actions", 0.5))
    losses = learner.losses(make_batch(), torch.Generator().manual_seed(0))
    assert {"flow", "roughness", "distillation", "total"} <= set(losses)
    losses["total"].backward()
    assert learner.describe() == {"name": "flow_vla"}


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Distillation("-", weight=0.0), "weight 0.0"),
        (lambda: Distillation("-", temperature=0.0), "temperature"),
        (lambda: Insulation((), ("flow",)), "at least one"),
        (lambda: Smoothness(-1.0), "negative"),
    ],
)
def test_settings_that_cant_be_are_refused(build, text):
    with pytest.raises(ValueError, match=text):
        build()
    assert Options().words == ()


# Several arms.

NARROW = dataclasses.replace(SPEC, state_width=1, action_width=1, vocabulary=("pick", "green"), max_words=2)
ARMS = (Embodiment("wide", SPEC), Embodiment("narrow", NARROW))


class Listed:
    """Batches that are drawn from a seed."""

    def __init__(self, spec: ModelSpec, count: int, seed: int) -> None:
        self.spec, self.count, self.seed = spec, count, seed

    def __len__(self) -> int:
        return self.count

    def batch(self, step: int, size: int) -> Batch:
        return make_batch(size, 100 * self.seed + step, self.spec)


def test_common_network_has_the_widest_of_all_and_knows_the_arm():
    spec = common_spec(ARMS)
    assert (spec.state_width, spec.action_width, spec.max_words) == (2 + 2, 2, 3)
    assert spec.vocabulary == ("red", "blue", "pick", "green")
    batch = pad_batch(make_batch(3, 0, NARROW), 1, ARMS, spec)
    assert batch.inputs.state[:, 1:].tolist() == [[0.0, 0.0, 1.0]] * 3
    assert batch.inputs.has_action.tolist() == [[True, False]] * 3
    own = make_batch(3, 0, NARROW).inputs.words
    # "pick" is the first word of the narrow arm's and the third of all, "green" the second and the fourth.
    assert torch.equal(batch.inputs.words[:, :2], torch.where(own > 0, own + 2, 0))
    other = dataclasses.replace(NARROW, horizon=5)
    with pytest.raises(ConfigError, match="horizon is 5, of wide 4"):
        common_spec([ARMS[0], Embodiment("long", other)])


def test_shares_of_a_batch_add_up_to_it():
    assert apportion([1.0, 1.0, 1.0], 8) == [3, 3, 2]
    assert apportion([0.7, 0.2, 0.1], 10) == [7, 2, 1]
    assert apportion([1000, 1], 64) == [64, 0]


def test_batches_of_arms_are_mixed_and_the_same_at_every_call():
    batches = EmbodimentBatches(ARMS, [Listed(SPEC, 30, 1), Listed(NARROW, 10, 2)])
    assert len(batches) == 40
    first, again = batches.batch(3, 8), batches.batch(3, 8)
    assert torch.equal(first.inputs.state, again.inputs.state)
    assert first.inputs.has_action[:, 1].tolist() == [True] * 6 + [False] * 2
    assert first.target_xy is None
    with pytest.raises(ConfigError, match=r"leaves \[1, 0\]"):
        batches.batch(0, 1)
    with pytest.raises(ConfigError, match="2 arms, 1 parts"):
        EmbodimentBatches(ARMS, [Listed(SPEC, 30, 1)])


@pytest.mark.parametrize("name", list(TINY))
def test_what_is_in_the_padding_has_no_influence_on_the_gradient(name):
    batches = EmbodimentBatches(ARMS, [Listed(SPEC, 10, 1), Listed(NARROW, 10, 2)])
    network, batch = make(name, spec=batches.spec), batches.batch(0, 6)
    has_action = batch.inputs.has_action[:, None]
    garbage = dataclasses.replace(batch, actions=torch.where(has_action, batch.actions, torch.nan))
    usual, other = gradients(Plain(network), batch), gradients(Plain(network), garbage)
    assert usual.keys() == other.keys()
    assert all(torch.equal(usual[key], other[key]) for key in usual)
    # Of the narrow arm alone, what belongs to the second number of state and action learns nothing.
    alone = pad_batch(make_batch(4, 0, NARROW), 1, ARMS, batches.spec)
    learned = gradients(Plain(network), alone)
    for key, gradient in learned.items():
        if "from_state.weight" in key:
            assert float(gradient[:, 1].abs().max()) == 0.0, key
            assert float(gradient[:, 0].abs().max()) > 0.0, key
        if key.endswith("from_action.weight"):
            assert float(gradient[:, 1].abs().max()) == 0.0, key


@pytest.mark.parametrize("name", list(TINY))
def test_common_network_answers_as_one_arms_own(name):
    network = make(name, spec=common_spec(ARMS)).eval()
    inputs, noise = make_batch(3, 0, NARROW).inputs, normal(3, 4, 1)
    with torch.inference_mode():
        answer = sampler_for(network, 1, ARMS)(inputs, noise)
        assert answer.shape == (3, 4, 1)
        other = sampler_for(network, 0, ARMS)(make_batch(3, 0).inputs, normal(3, 4, 2))
    assert other.shape == (3, 4, 2)
    assert torch.isfinite(answer).all()


def test_places_that_one_arm_knows_count_for_it_alone():
    known = Listed(SPEC, 10, 1)
    known.batch = lambda step, size: with_targets(make_batch(size, step), 2, 4)  # type: ignore[method-assign]
    batch = EmbodimentBatches(ARMS, [known, Listed(NARROW, 10, 2)]).batch(0, 4)
    assert batch.target_visible[:, 0, 0].tolist() == [True, True, False, False]
    assert batch.target_pose_valid[:, 0].tolist() == [True, True, False, False]


def test_two_arms_learn_together():
    """Each has a task of its own; after training on both, the common network does both."""
    batches = EmbodimentBatches(ARMS, [Fixed(SPEC, 0.5), Fixed(NARROW, -0.5)])
    network = Bc(batches.spec, BcConfig(**TINY["bc"]))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(60):
        train_step(network.losses, batches.batch(step, 8), optimiser, torch.Generator().manual_seed(step))
    with torch.inference_mode():
        wide = sampler_for(network.eval(), 0, ARMS)(make_batch(4, 9).inputs, normal(4, 4, 2))
        narrow = sampler_for(network, 1, ARMS)(make_batch(4, 9, NARROW).inputs, normal(4, 4, 1))
    assert float((wide - 0.5).abs().max()) < 0.25
    assert float((narrow + 0.5).abs().max()) < 0.25


class Fixed(Listed):
    """An arm that always does the same."""

    def __init__(self, spec: ModelSpec, value: float) -> None:
        super().__init__(spec, 10, 1)
        self.value = value

    def batch(self, step: int, size: int) -> Batch:
        batch = super().batch(step, size)
        return dataclasses.replace(batch, actions=torch.full_like(batch.actions, self.value))
