"""What every network of our own promises; a new one in `spec.ARCHITECTURES` is tested by being there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install torch==2.13.0")
pytest.importorskip("safetensors")

from safetensors.torch import load_file, save_file

from vla_ros.errors import ConfigError, UnknownNameError
from vla_ros.policies.architectures.base import (
    EXPORT_INPUTS,
    EXPORT_OUTPUTS,
    ActionPrefix,
    Architecture,
    Batch,
    Inputs,
    SampleModule,
    architecture_class,
    export_inputs,
)
from vla_ros.policies.architectures.saving import (
    DESCRIPTION_FILE,
    WEIGHTS_FILE,
    load_architecture,
    save_architecture,
    save_weights,
)
from vla_ros.policies.architectures.spec import ARCHITECTURES, ModelSpec
from vla_ros.training.step import TrainingError, train_step

SPEC = ModelSpec(("base", "wrist"), (16, 24), 3, 2, 6, ("pick", "push", "red", "blue"), 3)
SPEC_WITHOUT_LANGUAGE = dataclasses.replace(SPEC, images=("base",), vocabulary=(), max_words=1)

_TRANSFORMER = {"width": 16, "heads": 2, "mlp_width": 32}
# Small settings that take part of a second; a network without a line here is tested with its defaults.
TINY: dict[str, dict[str, Any]] = {
    "act": {**_TRANSFORMER, "posterior_layers": 1, "encoder_layers": 1, "decoder_layers": 1, "latent_width": 4,
            "kl_weight": 0.1, "channels": (8, 16)},
    "bc": {"width": 16, "heads": 2, "layers": 1, "keypoints": 3, "channels": (8, 16)},
    "diffusion": {"width": 16, "heads": 2, "keypoints": 3, "unet_channels": (8, 16), "unet_kernel": 3, "mlp_width": 32,
                  "transformer_layers": 2, "steps": 4, "channels": (8, 16)},
    "flow_vla": {**_TRANSFORMER, "layers": 2, "keypoints": 2, "target_pose_width": 3, "steps": 4, "channels": (8, 16)},
}  # fmt: skip
CASES = {name: (name, TINY.get(name, {})) for name in ARCHITECTURES}
CASES["flow_vla-pyramid"] = ("flow_vla", {**TINY["flow_vla"], "channels": (8, 16, 16), "levels": 2})
CASES["diffusion-transformer"] = ("diffusion", {**TINY["diffusion"], "denoiser": "transformer"})
# An export takes a tenth of a second a node.
FEW_NODES = {"steps": 2, "layers": 1, "transformer_layers": 1}
SPEC_TO_EXPORT = dataclasses.replace(SPEC, images=("base",))
each_network = pytest.mark.parametrize("case", CASES)


def make_network(
    case: str, spec: ModelSpec = SPEC, seed: int = 0, settings: dict[str, Any] | None = None
) -> Architecture:
    """A network of random weights; of `settings` it takes those that it knows."""
    name, tiny = CASES[case]
    torch.manual_seed(seed)
    cls = architecture_class(name)
    known = {field.name for field in dataclasses.fields(cls.config_class)} & set(settings or {})
    return cls(spec, cls.config_class(**tiny | {key: settings[key] for key in known}))


def make_inputs(spec: ModelSpec, count: int, seed: int) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    words = torch.zeros((count, spec.max_words), dtype=torch.int64)
    if spec.takes_language:
        words[:, :2] = torch.randint(1, len(spec.vocabulary) + 1, (count, 2), generator=generator)
    return Inputs(
        torch.rand((count, len(spec.images), 3, *spec.image_size), generator=generator),
        torch.randn((count, spec.state_width), generator=generator),
        words,
    )


def make_batch(spec: ModelSpec, count: int = 4, seed: int = 1) -> Batch:
    """Different scenes with different actions; the first example ends two steps early."""
    generator = torch.Generator().manual_seed(seed)
    is_valid = torch.ones((count, spec.horizon), dtype=torch.bool)
    is_valid[0, -2:] = False
    return Batch(
        make_inputs(spec, count, seed),
        torch.randn((count, spec.horizon, spec.action_width), generator=generator).clamp(-1.5, 1.5),
        is_valid,
        torch.rand((count, len(spec.images), 2, 2), generator=generator),
        torch.ones((count, len(spec.images), 2), dtype=torch.bool),
        torch.randn((count, 2, 3), generator=generator),
        torch.ones((count, 2), dtype=torch.bool),
    )


def make_noise(model: Architecture, count: int, seed: int = 2) -> Any:
    return torch.randn((count, *model.noise_shape), generator=torch.Generator().manual_seed(seed))


def sample(model: Architecture, inputs: Inputs, noise: Any = None, prefix: ActionPrefix | None = None) -> Any:
    noise = make_noise(model, len(inputs.state)) if noise is None else noise
    with torch.inference_mode():
        return model.eval().sample(inputs, noise, prefix)


def losses_of(model: Architecture, batch: Batch, seed: int = 3) -> dict[str, float]:
    losses = model.eval().losses(batch, torch.Generator().manual_seed(seed))
    return {name: float(loss.detach()) for name, loss in losses.items()}


def train(model: Architecture, batch: Batch, steps: int, seed: int = 4) -> list[float]:
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    return [train_step(model.losses, batch, optimiser, generator)["total"] for _ in range(steps)]


@each_network
@pytest.mark.parametrize("spec", [SPEC, SPEC_WITHOUT_LANGUAGE], ids=["language", "no_language"])
def test_sample_and_losses_have_their_shapes_and_are_finite(case, spec):
    model = make_network(case, spec)
    actions = sample(model, make_inputs(spec, 3, 0))
    assert actions.shape == (3, spec.horizon, spec.action_width)
    assert model.noise_shape == (spec.horizon, spec.action_width)
    assert torch.isfinite(actions).all()
    losses = losses_of(model, make_batch(spec))
    assert np.isfinite(list(losses.values())).all()
    assert "total" in losses


@each_network
def test_absent_camera_is_an_image_of_zeros(case):
    inputs = make_inputs(SPEC, 2, 0)
    images = inputs.images.clone()
    images[:, 1] = 0.0
    assert torch.isfinite(sample(make_network(case), dataclasses.replace(inputs, images=images))).all()


@each_network
def test_examples_of_a_batch_dont_see_each_other(case):
    model, inputs = make_network(case), make_inputs(SPEC, 3, 0)
    noise = make_noise(model, 3)
    alone = Inputs(inputs.images[1:2], inputs.state[1:2], inputs.words[1:2])
    # Sums in another order: float32's rounding, some 1e-7 on numbers of about 1.
    torch.testing.assert_close(sample(model, alone, noise[1:2])[0], sample(model, inputs, noise)[1], rtol=0, atol=1e-5)


@each_network
def test_sample_depends_on_images_state_words_and_on_noise_where_it_says_so(case):
    model, inputs = make_network(case), make_inputs(SPEC, 2, 0)
    usual = sample(model, inputs)
    changed = {
        "images": dataclasses.replace(inputs, images=1.0 - inputs.images),
        "state": dataclasses.replace(inputs, state=inputs.state + 1.0),
        "words": dataclasses.replace(inputs, words=inputs.words % 4 + (inputs.words > 0)),
        "order of words": dataclasses.replace(inputs, words=torch.tensor([[1, 3, 0], [2, 4, 0]])),
    }
    reference = {"order of words": dataclasses.replace(inputs, words=torch.tensor([[3, 1, 0], [4, 2, 0]]))}
    for name, other in changed.items():
        before = sample(model, reference[name]) if name in reference else usual
        assert (sample(model, other) - before).abs().amax(dim=(1, 2)).min() > 1e-5, name
    assert torch.equal(sample(model, inputs, make_noise(model, 2, seed=9)), usual) != model.uses_noise


@each_network
def test_same_seed_trains_the_same_network_and_gives_the_same_answer(case):
    networks = [make_network(case) for _ in range(2)]
    batch = make_batch(SPEC)
    # The global generator is somewhere else each time, dropout in the networks or not.
    first = train(networks[0], batch, 2)
    torch.manual_seed(77)
    second = train(networks[1], batch, 2)
    assert first == second
    assert torch.equal(sample(networks[0], batch.inputs), sample(networks[1], batch.inputs))
    assert train(make_network(case), batch, 2, seed=5) != first or case == "bc"


@each_network
def test_padded_actions_dont_influence_the_loss_or_its_gradient(case):
    batch = make_batch(SPEC)
    model = make_network(case)
    other = dataclasses.replace(batch, actions=torch.where(batch.is_valid[..., None], batch.actions, torch.nan))
    assert losses_of(model, other) == losses_of(model, batch)
    shorter = dataclasses.replace(batch, actions=torch.where(batch.is_valid[..., None], batch.actions + 1.0, 0.0))
    assert losses_of(model, shorter) != losses_of(model, batch)
    gradients = []
    for padded in (batch, other):
        model.zero_grad()
        model.losses(padded, torch.Generator().manual_seed(0))["total"].backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def gradients_of(model: Architecture, batch: Batch) -> list[Any]:
    model.eval().zero_grad()
    model.losses(batch, torch.Generator().manual_seed(0))["total"].backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


@each_network
def test_only_the_ratio_of_weights_counts_and_an_example_without_weight_teaches_nothing(case):
    model, batch = make_network(case), make_batch(SPEC)
    weighted = dataclasses.replace(batch, weight=torch.tensor([2.0, 0.5, 0.0, 1.0]))
    for a, b in zip(gradients_of(model, weighted), gradients_of(model, make_scaled(weighted, 4.0)), strict=True):
        # Sums of other numbers: float32's rounding.
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    even = dataclasses.replace(batch, weight=torch.ones(4))
    assert losses_of(model, even)["total"] == pytest.approx(losses_of(model, batch)["total"], rel=1e-5)
    assert losses_of(model, weighted)["total"] != pytest.approx(losses_of(model, batch)["total"], rel=1e-3)
    actions = batch.actions.clone()
    actions[2] = 7.0
    other = dataclasses.replace(weighted, actions=actions)
    if case != "act":  # Whose posterior sees the actions, also those that it needn't say again: 0 times a number is 0.
        assert losses_of(model, other) == losses_of(model, weighted)
    for a, b in zip(gradients_of(model, other), gradients_of(model, weighted), strict=True):
        torch.testing.assert_close(a, b, rtol=0.0, atol=0.0)


def make_scaled(batch: Batch, factor: float) -> Batch:
    return dataclasses.replace(batch, weight=factor * batch.weight)


@each_network
def test_numbers_that_an_arm_lacks_influence_neither_loss_nor_gradient_nor_answer(case):
    """Actions are two wide; the second and third example are of an arm with one."""
    model, batch = make_network(case), make_batch(SPEC)
    has_action = torch.tensor([[True, True], [True, False], [True, False], [True, True]])
    batch = dataclasses.replace(batch, inputs=dataclasses.replace(batch.inputs, has_action=has_action))
    garbage = dataclasses.replace(batch, actions=torch.where(has_action[:, None], batch.actions, torch.nan))
    assert losses_of(model, garbage) == losses_of(model, batch)
    assert all(torch.equal(a, b) for a, b in zip(gradients_of(model, garbage), gradients_of(model, batch), strict=True))
    shifted = dataclasses.replace(batch, actions=batch.actions + ~has_action[:, None] + has_action[:, None] * 0.5)
    assert losses_of(model, shifted) != losses_of(model, batch)
    noise = make_noise(model, 4)
    other = torch.where(has_action[:, None], noise, -noise)
    answers = [sample(model, batch.inputs, noise), sample(model, batch.inputs, other)]
    has_step = has_action[:, None].expand_as(noise)
    assert torch.equal(answers[0][has_step], answers[1][has_step])
    # Nothing is learnt of what isn't there: with no arm that has it, its weights get no gradient.
    nobody = dataclasses.replace(batch.inputs, has_action=torch.tensor([[True, False]]).expand(4, 2))
    model.zero_grad()
    model.losses(dataclasses.replace(batch, inputs=nobody), torch.Generator().manual_seed(0))["total"].backward()
    rows = [p.grad for name, p in model.named_parameters() if name.startswith("to_action") or "to_velocity" in name]
    assert all(float(grad[1].abs().sum()) == 0.0 for grad in rows if len(grad) == SPEC.action_width)


@each_network
def test_batch_of_padding_only_teaches_nothing(case):
    batch = dataclasses.replace(make_batch(SPEC), target_xy=None, target_pose=None)
    losses = losses_of(make_network(case), dataclasses.replace(batch, is_valid=torch.zeros_like(batch.is_valid)))
    # ACT's posterior is drawn to the prior all the same.
    assert {name for name, loss in losses.items() if loss != 0.0} <= {"kl", "total"}
    assert losses["total"] == pytest.approx(0.1 * losses["kl"] if "kl" in losses else 0.0)


@each_network
@pytest.mark.parametrize("spec", [SPEC, SPEC_WITHOUT_LANGUAGE], ids=["language", "no_language"])
def test_gradient_reaches_every_parameter(case, spec):
    model = make_network(case, spec)
    batch = dataclasses.replace(make_batch(spec), target_xy=None, target_pose=None)
    model.losses(batch, torch.Generator().manual_seed(0))["total"].backward()
    missed = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0.0
    ]
    assert missed == []


@each_network
def test_one_batch_is_learned_by_heart(case):
    """The loss falls, and so does the error of what is sampled, which a wrong sampler wouldn't show."""
    model, batch = make_network(case), make_batch(SPEC)
    before = (sample(model, batch.inputs) - batch.actions)[batch.is_valid].abs().mean()
    losses = train(model, batch, 60)
    after = (sample(model, batch.inputs) - batch.actions)[batch.is_valid].abs().mean()
    assert np.mean(losses[-10:]) < 0.65 * np.mean(losses[:2])
    assert after < 0.65 * before


@each_network
def test_prefix_is_kept_exactly_and_the_rest_goes_on_from_it(case):
    model, inputs = make_network(case), make_inputs(SPEC, 3, 0)
    decided = torch.full((3, SPEC.horizon, SPEC.action_width), 0.8)
    prefix = ActionPrefix(decided, torch.tensor([2, 0, SPEC.horizon]))
    if not model.supports_prefix:
        with pytest.raises(ValueError, match="can't continue a prefix"):
            sample(model, inputs, prefix=prefix)
        return
    free, bound = sample(model, inputs), sample(model, inputs, prefix=prefix)
    assert torch.equal(bound[0, :2], decided[0, :2])
    assert torch.equal(bound[2], decided[2])
    assert torch.equal(bound[1], free[1])
    assert (bound[0, 2:] - free[0, 2:]).abs().amax(dim=1).min() > 1e-6
    is_decided = torch.arange(SPEC.horizon) < prefix.count[:, None]
    past_the_count = torch.where(is_decided[..., None], decided, -9.0)
    assert torch.equal(sample(model, inputs, prefix=ActionPrefix(past_the_count, prefix.count)), bound)


@each_network
def test_saved_and_loaded_network_answers_the_same(case, tmp_path):
    model, inputs = make_network(case), make_inputs(SPEC, 2, 0)
    save_architecture(model, tmp_path / "new")
    loaded = load_architecture(tmp_path / "new")
    assert (loaded.spec, loaded.config, loaded.name) == (model.spec, model.config, model.name)
    assert not loaded.training
    assert torch.equal(sample(loaded, inputs), sample(model, inputs))


@each_network
def test_exported_network_answers_as_the_network_does(case, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = make_network(case, SPEC_TO_EXPORT, settings=FEW_NODES).eval()
    module, path = SampleModule(model).eval(), tmp_path / "model.onnx"
    names = {"input_names": list(EXPORT_INPUTS), "output_names": list(EXPORT_OUTPUTS)}
    torch.onnx.export(module, tuple(export_inputs(model).values()), path, dynamo=True, verbose=False, **names)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    taken = {value.name for value in session.get_inputs()}
    for count in (0, 2, SPEC.horizon):
        seen = make_inputs(model.spec, 1, seed=count)
        values = [
            seen.images,
            seen.state,
            seen.words,
            make_noise(model, 1, seed=count),
            torch.ones(1, *model.noise_shape),
        ]
        inputs = dict(zip(EXPORT_INPUTS, [*values, torch.tensor([count])], strict=True))
        (answer,) = session.run(None, {name: value.numpy() for name, value in inputs.items() if name in taken})
        with torch.inference_mode():
            # float32 through some dozen layers and several steps, each about 1e-6.
            np.testing.assert_allclose(answer, module(**inputs).numpy(), rtol=0.0, atol=1e-4)


@each_network
@pytest.mark.parametrize("bad", ["inputs", "actions"])
def test_step_on_a_batch_with_nan_is_refused_and_changes_nothing(case, bad):
    model, batch = make_network(case).train(), make_batch(SPEC)
    if bad == "actions":
        batch = dataclasses.replace(batch, actions=batch.actions * float("nan"))
    else:
        batch = dataclasses.replace(batch, inputs=dataclasses.replace(batch.inputs, state=batch.inputs.state / 0.0))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(TrainingError, match=r"loss .* is nan"):
        train_step(model.losses, batch, torch.optim.SGD(model.parameters(), lr=1.0), torch.Generator())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_infinite_gradient_is_refused_and_changes_nothing():
    class Root(Architecture):
        name = "root"

        def losses(self, batch, generator):
            return {"total": self.weight.sqrt().sum()}

        def sample(self, inputs, noise, prefix=None):
            return noise

    model = Root(SPEC, None)
    model.weight = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(TrainingError, match="norm of the gradient is inf"):
        train_step(model.losses, make_batch(SPEC), torch.optim.SGD(model.parameters(), lr=1.0), torch.Generator())
    assert torch.equal(model.weight.detach(), torch.zeros(2))


@each_network
def test_step_is_no_longer_than_the_gradients_limit(case):
    model, batch = make_network(case).train(), make_batch(SPEC)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    figures = train_step(model.losses, batch, optimiser, torch.Generator(), max_gradient_norm=1e-2)
    moved = [(new.detach() - old).flatten() for new, old in zip(model.parameters(), before, strict=True)]
    assert figures["gradient_norm"] > 1e-2
    # Weights of about 1 in float32 are rounded by 1e-7 each, and there are some ten thousand.
    assert float(torch.cat(moved).norm()) == pytest.approx(1e-2, rel=1e-2)


def test_batch_moves_to_another_device_with_all_it_holds():
    batch = dataclasses.replace(make_batch(SPEC), target_visible=None).to("meta")
    inputs = batch.inputs
    found = [batch.actions, batch.is_valid, batch.target_xy, inputs.images, inputs.state, inputs.words]
    assert {tensor.device.type for tensor in found} == {"meta"}
    assert batch.target_visible is None


def spoil(folder: Path, change: Any) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_FILE)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda tensors: tensors.pop("head.1.bias"), "tensor 'head.1.bias' is missing"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "unknown tensor 'extra'"),
        (lambda tensors: tensors.update({"head.1.bias": torch.zeros(5)}), r"'head.1.bias' has the shape \(5,\), n"),
        (lambda tensors: tensors.update({"head.1.bias": torch.zeros(16).bfloat16()}), "bfloat16, needs torch.float32"),
        (lambda tensors: tensors["head.1.bias"].fill_(float("nan")), "'head.1.bias' holds NaN"),
    ],
)  # fmt: skip
def test_weights_that_dont_fit_are_refused_by_name(change, text, tmp_path):
    save_architecture(make_network("bc"), tmp_path)
    spoil(tmp_path, change)
    with pytest.raises(ConfigError, match=text):
        load_architecture(tmp_path)


def test_weights_that_are_something_else_are_refused(tmp_path):
    save_architecture(make_network("bc"), tmp_path)
    torch.save({"a": torch.zeros(1)}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(ConfigError, match="isn't a safetensors file"):
        load_architecture(tmp_path)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda d: d.update(weights="evil.pkl"), ConfigError, "unknown key 'weights'"),
        (lambda d: d["config"].update(widht=3), ConfigError, "config: unknown key 'widht'; did you mean 'width'"),
        (lambda d: d["config"].update(width=6), ConfigError, "width 6 isn't a multiple of 4"),
        (lambda d: d["config"].update(width="16"), ConfigError, "width: expected int, found '16'"),
        (lambda d: d["spec"].pop("horizon"), ConfigError, "key 'horizon' is missing"),
        (lambda d: d["spec"].update(images=["a", "a"]), ConfigError, "each name once"),
        (lambda d: d.update(architecture="gpt"), UnknownNameError, "unknown architecture 'gpt'"),
    ],
)
def test_description_that_cant_be_is_refused_with_the_key(change, error, text, tmp_path):
    save_architecture(make_network("bc"), tmp_path)
    description = json.loads((tmp_path / DESCRIPTION_FILE).read_text())
    change(description)
    (tmp_path / DESCRIPTION_FILE).write_text(json.dumps(description))
    with pytest.raises(error, match=text):
        load_architecture(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{", None])
def test_description_that_cant_be_read_is_refused(text, tmp_path):
    if text is not None:
        (tmp_path / DESCRIPTION_FILE).write_text(text)
    with pytest.raises(ConfigError, match=DESCRIPTION_FILE):
        load_architecture(tmp_path)


def test_weights_of_another_config_are_refused(tmp_path):
    model = make_network("bc")
    save_architecture(model, tmp_path)
    config = dataclasses.replace(model.config, keypoints=4)
    save_weights(type(model)(SPEC, config), tmp_path / WEIGHTS_FILE)
    with pytest.raises(ConfigError, match=r"'scene.keypoints.0.weight' has the shape"):
        load_architecture(tmp_path)
