"""The formulas inside of the networks, against closed forms, torch.distributions and numbers worked by hand."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install torch==2.13.0")
pytest.importorskip("safetensors")

from vla_ros.errors import InstructionError
from vla_ros.policies.architectures.act import Act, ActConfig
from vla_ros.policies.architectures.base import (
    Batch,
    Inputs,
    architecture_class,
    counted_mean,
    hold_last_valid,
    masked_mean,
)
from vla_ros.policies.architectures.bc import Bc, BcConfig
from vla_ros.policies.architectures.diffusion import DiffusionConfig, DiffusionPolicy
from vla_ros.policies.architectures.flow_vla import FlowVla, FlowVlaConfig
from vla_ros.policies.architectures.layers import Attention, InstructionEncoder, sinusoids
from vla_ros.policies.architectures.losses import (
    gaussian_nll,
    kl_to_standard_normal,
    reparameterise,
    smoothness,
)
from vla_ros.policies.architectures.spec import ARCHITECTURES, ModelSpec
from vla_ros.policies.architectures.vision import (
    ImageEncoder,
    Pyramid,
    bilinear_targets,
    cell_centres,
    localisation_loss,
    map_channels,
    soft_argmax,
)
from vla_ros.training.step import train_step

SPEC = ModelSpec(("base",), (16, 16), 2, 2, 4, ("red", "blue", "pick"), 3)


def normal(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def one_batch(count: int = 3, **changes: Any) -> Batch:
    inputs = Inputs(torch.rand(count, 1, 3, 16, 16), normal(count, 2), torch.tensor([[1, 0, 0], [2, 0, 0], [3, 1, 0]]))
    batch = Batch(inputs, normal(count, 4, 2, seed=1), torch.ones((count, 4), dtype=torch.bool))
    return dataclasses.replace(batch, **changes)


def test_kl_is_that_of_torch_and_zero_for_the_prior():
    mean, log_variance = normal(5, 3), normal(5, 3, seed=1)
    gaussian = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = torch.distributions.Normal(torch.zeros(5, 3), torch.ones(5, 3))
    wanted = torch.distributions.kl_divergence(gaussian, prior).sum(1).mean()
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), wanted)
    assert kl_to_standard_normal(torch.zeros(2, 3), torch.zeros(2, 3)) == 0.0
    # By hand: mean 1, variance e^2: (1 + e^2 - 1 - 2) / 2.
    one = torch.ones(1, 1)
    assert float(kl_to_standard_normal(one, 2.0 * one)) == pytest.approx((np.e**2 - 2.0) / 2.0, rel=1e-6)


def test_reparameterised_draws_have_mean_and_variance_and_pass_the_gradient():
    mean, log_variance = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 2.0 * np.log(3.0)]])
    draws = reparameterise(mean.expand(40_000, 2), log_variance.expand(40_000, 2), torch.Generator().manual_seed(0))
    # Standard error of the mean: 3 / 200 = 0.015; of the standard deviation 3 / 283.
    np.testing.assert_allclose(draws.mean(0), [1.0, -2.0], atol=0.06)
    np.testing.assert_allclose(draws.std(0), [1.0, 3.0], atol=0.05)
    mean.requires_grad_()
    log_variance = log_variance.float().requires_grad_()
    draw = reparameterise(mean, log_variance, torch.Generator().manual_seed(0))
    draw.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(1, 2))
    # d z / d log variance = (z - mean) / 2.
    torch.testing.assert_close(log_variance.grad, (0.5 * (draw - mean)).detach())


def test_act_counts_the_kl_beta_times_and_answers_with_the_mean_of_the_prior():
    torch.manual_seed(0)
    settings = {"width": 16, "heads": 2, "mlp_width": 32, "encoder_layers": 1, "channels": (8,), "dropout": 0.0}
    networks = [Act(SPEC, ActConfig(kl_weight=weight, **settings)) for weight in (0.0, 7.0)]
    networks[1].load_state_dict(networks[0].state_dict())
    batch = one_batch()
    with torch.no_grad():
        losses = [network.losses(batch, torch.Generator().manual_seed(0)) for network in networks]
    assert float(losses[1]["kl"]) > 0.0
    assert float(losses[0]["total"]) == pytest.approx(float(losses[0]["l1"]))
    assert float(losses[1]["total"]) == pytest.approx(float(losses[1]["l1"] + 7.0 * losses[1]["kl"]))
    decoded = []
    networks[0].from_latent.register_forward_hook(lambda module, inputs, output: decoded.append(inputs[0]))
    networks[0].eval().sample(batch.inputs, normal(3, 4, 2))
    assert torch.equal(decoded[0], torch.zeros(3, 32))


def test_l1_of_act_is_over_valid_steps():
    torch.manual_seed(0)
    network = Act(
        SPEC, ActConfig(width=16, heads=2, mlp_width=32, encoder_layers=1, channels=(8,), latent_width=2)
    ).eval()
    for parameter in network.posterior.to_latent.parameters():
        torch.nn.init.zeros_(parameter)
    # A latent without variance is the prior's mean, so that the loss is of what `sample` says.
    network.posterior.to_latent[1].bias.data[2:] = -100.0
    batch = one_batch(is_valid=torch.tensor([[True] * 4, [True, False, False, False], [True, True, False, False]]))
    error = (network.sample(batch.inputs, normal(3, 4, 2)) - batch.actions).abs()
    wanted = torch.cat([error[0, :4], error[1, :1], error[2, :2]]).mean()
    torch.testing.assert_close(network.losses(batch, torch.Generator())["l1"], wanted)


def test_gaussian_nll_is_that_of_torch():
    mean, log_std, value = normal(4, 3, 2), normal(4, 3, 2, seed=1), normal(4, 3, 2, seed=2)
    wanted = -torch.distributions.Normal(mean, log_std.exp()).log_prob(value)
    torch.testing.assert_close(gaussian_nll(mean, log_std, value), wanted)


def test_smoothness_by_hand():
    actions = torch.tensor([[[0.0, 0.0], [1.0, 2.0], [4.0, 2.0]], [[5.0, 5.0], [5.0, 5.0], [99.0, 99.0]]])
    is_valid = torch.tensor([[True, True, True], [True, True, False]])
    # Three pairs count: (1 + 4), (9 + 0), (0 + 0), over six numbers.
    assert float(smoothness(actions, is_valid)) == pytest.approx(14.0 / 6.0)
    assert float(smoothness(actions[:, :1], is_valid[:, :1])) == 0.0


def test_bc_adds_the_smoothness_of_its_means_and_learns_the_spread_of_actions():
    """Of one scene with actions drawn from N(0.5, 0.3), the means become 0.5 and the deviations 0.3."""
    torch.manual_seed(0)
    network = Bc(SPEC, BcConfig(width=16, heads=2, layers=1, keypoints=2, channels=(8,), smoothness_weight=2.0))
    batch = one_batch()
    losses = network.losses(batch, torch.Generator())
    mean, _ = network.distribution(batch.inputs)
    torch.testing.assert_close(losses["smoothness"], mean.diff(dim=1).square().mean())
    torch.testing.assert_close(losses["total"], losses["nll"] + 2.0 * losses["smoothness"])
    seen = (batch.inputs.images, batch.inputs.state, batch.inputs.words)
    inputs = Inputs(*(tensor[:1].repeat_interleave(256, 0) for tensor in seen))
    actions = 0.5 + 0.3 * normal(256, 4, 2)
    many = Batch(inputs, actions, torch.ones((256, 4), dtype=torch.bool))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(80):
        train_step(network.losses, many, optimiser, torch.Generator())
    mean, log_std = network.distribution(batch.inputs)
    # Standard error of a mean of 256 is 0.02, of a deviation 0.013; the rest is left for unfinished learning.
    torch.testing.assert_close(mean[0], torch.full((4, 2), 0.5), rtol=0, atol=0.08)
    torch.testing.assert_close(log_std[0].exp(), torch.full((4, 2), 0.3), rtol=0, atol=0.06)


def test_generative_networks_draw_both_of_two_ways_where_bc_takes_the_middle():
    """One scene, half of the actions at -1 and half at +1: the mean, 0, is never done."""
    torch.manual_seed(0)
    spec = ModelSpec(("base",), (8, 8), 1, 1, 1)
    sign = torch.tensor([1.0, -1.0]).repeat(32)[:, None, None]
    inputs = Inputs(torch.zeros(64, 1, 3, 8, 8), torch.zeros(64, 1), torch.zeros((64, 1), dtype=torch.int64))
    batch = Batch(inputs, sign, torch.ones((64, 1), dtype=torch.bool))
    tiny = {"width": 32, "heads": 2, "mlp_width": 64, "keypoints": 1, "channels": (8,), "draws": 4, "steps": 10}
    networks = [
        FlowVla(spec, FlowVlaConfig(layers=1, things=1, **tiny)),
        DiffusionPolicy(spec, DiffusionConfig(unet_channels=(16,), unet_kernel=1, **tiny)),
        DiffusionPolicy(spec, DiffusionConfig(denoiser="transformer", transformer_layers=1, **tiny)),
        Bc(spec, BcConfig(width=32, heads=2, keypoints=1, channels=(8,))),
    ]
    for network in networks:
        optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
        generator = torch.Generator().manual_seed(0)
        for _ in range(150):
            train_step(network.losses, batch, optimiser, generator)
        with torch.inference_mode():
            drawn = network.eval().sample(inputs, normal(64, 1, 1, seed=3), None).flatten()
        if not network.uses_noise:
            assert drawn.abs().max() < 0.1, network.name
            continue
        # Of 64 fair coins, fewer than 16 heads or tails happen once in 30,000.
        assert 16 <= int((drawn > 0.0).sum()) <= 48, network.name
        assert ((drawn.abs() - 1.0).abs() < 0.3).float().mean() > 0.7, network.name


@pytest.mark.parametrize(("name", "part", "clean"), [("flow_vla", "flow", 1.0), ("diffusion", "denoiser", -1)])
def test_committed_steps_are_given_without_noise_and_what_is_said_of_them_isnt_learned(name, part, clean):
    torch.manual_seed(0)
    cls = architecture_class(name)
    network = cls(SPEC, cls.config_class(width=16, heads=2, channels=(8,), draws=16, prefix_steps=2))
    batch, seen = one_batch(), []

    def exaggerate(module, inputs, output):
        seen.append(inputs[:2])
        return output + 1e3 * (inputs[1] == clean)[..., None]

    with torch.no_grad():
        usual = network.losses(batch, torch.Generator().manual_seed(0))["total"]
        getattr(network, part).register_forward_hook(exaggerate)
        assert network.losses(batch, torch.Generator().manual_seed(0))["total"] == usual
    ((given, time),) = seen
    is_clean, actions = time == clean, batch.actions.repeat_interleave(16, dim=0)
    assert set(is_clean.sum(1).tolist()) == {0, 1, 2}
    assert torch.equal(is_clean, is_clean.cummin(dim=1).values)
    assert torch.equal(given[is_clean], actions[is_clean])
    assert not torch.isclose(given[~is_clean], actions[~is_clean], atol=1e-6).all(dim=1).any()


def test_masked_mean_counts_only_what_is_counted():
    values = torch.tensor([[[1.0, 3.0], [1e30, 1e30]], [[5.0, 7.0], [9.0, 11.0]]])
    assert float(masked_mean(values, torch.tensor([[True, False], [True, True]]))) == pytest.approx(6.0)
    assert float(masked_mean(values, torch.zeros((2, 2), dtype=torch.bool))) == 0.0


def test_last_valid_action_is_held_and_nothing_of_the_padding_is_left():
    actions = torch.arange(1.0, 9.0).reshape(2, 4, 1)
    is_valid = torch.tensor([[True, True, False, False], [False, True, False, True]])
    held = hold_last_valid(actions, is_valid)[..., 0]
    assert held.tolist() == [[1.0, 2.0, 2.0, 2.0], [0.0, 6.0, 6.0, 8.0]]


def test_soft_argmax_is_the_centre_of_a_peak_and_the_middle_of_nothing():
    logits = torch.zeros(1, 2, 3, 4)
    logits[0, 1, 2, 0] = 60.0
    # The lower left of 3 by 4 cells has its centre at (0.5 / 4, 2.5 / 3).
    torch.testing.assert_close(soft_argmax(logits)[0], torch.tensor([[0.5, 0.5], [0.125, 2.5 / 3.0]]))


def test_bilinear_targets_by_hand():
    # On a grid of 2 by 2, centres at 0.25 and 0.75; x = 0.375 is a quarter of the way, y = 0.25 on the upper row.
    grid = bilinear_targets(torch.tensor([0.375, 0.25]), 2, 2)
    torch.testing.assert_close(grid, torch.tensor([[0.75, 0.25], [0.0, 0.0]]))
    grid = bilinear_targets(torch.tensor([0.625, 0.375]), 2, 2)
    torch.testing.assert_close(grid, torch.tensor([[0.25 * 0.75, 0.75 * 0.75], [0.25 * 0.25, 0.75 * 0.25]]))
    # Outside of the outermost centres everything is in the corner's cell.
    torch.testing.assert_close(bilinear_targets(torch.tensor([1.0, 0.0]), 2, 2), torch.tensor([[0.0, 1.0], [0.0, 0.0]]))


def test_bilinear_targets_are_distributions_with_the_position_as_their_mean():
    xy = 0.1 + 0.8 * torch.rand((50, 2), generator=torch.Generator().manual_seed(0))
    grid = bilinear_targets(xy, 6, 7)
    torch.testing.assert_close(grid.sum((1, 2)), torch.ones(50))
    mean = (grid[..., None] * cell_centres(6, 7, xy)).sum((1, 2))
    torch.testing.assert_close(mean, xy)


def test_localisation_loss_by_hand():
    logits = torch.zeros(1, 2, 2, 2)
    xy = torch.tensor([[[0.375, 0.25], [0.9, 0.9]]])
    # Even logits: cross-entropy log 4; the soft argmax is the middle, 0.125 and 0.25 away.
    only_first = torch.tensor([[True, False]])
    assert float(localisation_loss(logits, xy, only_first)) == pytest.approx(np.log(4.0) + 0.375, rel=1e-6)
    # The second is past the outermost centre, 0.75, so a quarter away in x and in y.
    both = np.log(4.0) + (0.375 + 0.5) / 2.0
    assert float(localisation_loss(logits, xy, None)) == pytest.approx(both, rel=1e-6)
    assert float(localisation_loss(logits, xy, torch.zeros((1, 2), dtype=torch.bool))) == 0.0


def test_localisation_loss_is_least_at_its_target():
    xy = torch.tensor([[[0.4, 0.7]]])
    best = (bilinear_targets(xy, 4, 4) + 1e-6).log()
    least = localisation_loss(best, xy, None)
    for seed in range(5):
        assert localisation_loss(best + 0.3 * normal(1, 1, 4, 4, seed=seed), xy, None) > least


@pytest.mark.parametrize(("channels", "levels"), [((16, 16), 1), ((16, 16, 16), 2)])
def test_flow_vla_learns_to_find_what_is_named(channels, levels):
    """Two squares, red and blue: with the auxiliary loss the first keypoint goes to the one that the words name."""
    torch.manual_seed(0)
    spec = ModelSpec(("base",), (16, 16), 1, 1, 2, ("red", "blue"), 2)
    tiny = {"width": 32, "heads": 2, "mlp_width": 32, "layers": 1, "keypoints": 2, "draws": 1}
    settings = FlowVlaConfig(things=1, localisation_weight=1.0, channels=channels, levels=levels, **tiny)
    network = FlowVla(spec, settings)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        train_step(network.losses, two_squares(32, generator), optimiser, generator)
    batch = two_squares(64, torch.Generator().manual_seed(9))
    with torch.inference_mode():
        found = network.locate(batch.inputs)[:, 0, 0]
        swapped = dataclasses.replace(
            batch.inputs, words=torch.where(batch.inputs.words > 0, 3 - batch.inputs.words, 0)
        )
        other = network.locate(swapped)[:, 0, 0]
    distance = (found - batch.target_xy[:, 0, 0]).norm(dim=1)
    assert float((distance < 0.15).float().mean()) > 0.85
    # Asked for the other one, it goes elsewhere.
    assert float(((other - batch.target_xy[:, 0, 0]).norm(dim=1) > 0.2).float().mean()) > 0.85


@pytest.mark.parametrize("channels", [(8,), (8, 16), (8, 16, 24), (8, 16, 24, 32)])
def test_pyramid_joins_all_maps_in_one_as_fine_as_the_finest(channels):
    encoder = ImageEncoder(channels, 0)
    # Odd sizes, which halves don't divide.
    image = torch.rand(2, 3, 50, 70)
    maps = encoder.maps(image)
    assert tuple(found.shape[1] for found in maps) == map_channels(channels)
    assert len({found.shape[2:] for found in maps}) == len(maps)
    torch.testing.assert_close(encoder(image), maps[-1])
    pyramid = Pyramid(map_channels(channels), 8)
    joined = pyramid(maps)
    assert joined.shape == (2, 8, *maps[0].shape[2:])
    for index in range(len(maps)):
        changed = [found + 1.0 if i == index else found for i, found in enumerate(maps)]
        assert (pyramid(changed) - joined).abs().amax() > 1e-3


def test_what_a_pyramid_knows_of_large_patches_is_where_they_are():
    pyramid = Pyramid((1, 1), 1)
    with torch.no_grad():
        for side in pyramid.sides:
            side.weight.fill_(1.0)
            side.bias.zero_()
        pyramid.mix.weight.zero_()
        pyramid.mix.bias.zero_()
        coarse = torch.tensor([[[[1.0, 0.0], [0.0, 2.0]]]])
        joined = pyramid([torch.zeros(1, 1, 4, 4), coarse])
    expected = [[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]]
    assert joined[0, 0].tolist() == expected


def test_flow_vla_is_small_with_two_cameras():
    spec = ModelSpec(("base", "wrist"), (96, 96), 9, 7, 8, tuple(f"word{i}" for i in range(20)), 10)
    count = sum(parameter.numel() for parameter in FlowVla(spec, FlowVlaConfig()).parameters())
    assert 1.0e6 < count < 1.6e6


def two_squares(count: int, generator: Any) -> Batch:
    images = torch.zeros(count, 1, 3, 16, 16)
    corners = torch.randint(0, 13, (count, 2, 2), generator=generator)
    # One in each half, so that they never cover each other.
    corners[:, 0, 0] //= 2
    corners[:, 1, 0] = 9 + corners[:, 1, 0] // 3
    is_flipped = torch.rand(count, generator=generator) < 0.5
    corners[is_flipped] = corners[is_flipped].flip(1)
    for i, (red, blue) in enumerate(corners.tolist()):
        for channel, (x, y) in ((0, red), (2, blue)):
            images[i, 0, channel, y : y + 3, x : x + 3] = 1.0
    named = torch.randint(0, 2, (count,), generator=generator)
    words = torch.stack([named + 1, torch.zeros_like(named)], dim=1)
    xy = (corners[torch.arange(count), named] + 1.5) / 16.0
    actions = (2.0 * xy[:, None] - 1.0)[..., :1].expand(count, 2, 1)
    return Batch(
        Inputs(images, torch.zeros(count, 1), words),
        actions,
        torch.ones((count, 2), dtype=torch.bool),
        xy[:, None, None],
    )


def test_sinusoids_by_hand():
    # Width 4: frequencies 1 and 1 / 100.
    wanted = [np.sin(3.0), np.sin(0.03), np.cos(3.0), np.cos(0.03)]
    np.testing.assert_allclose(sinusoids(torch.tensor([3]), 4)[0], wanted, rtol=1e-6)


def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    ours, theirs = Attention(8, 2), torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.to_query.weight, ours.to_key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.to_query.bias, ours.to_key_value.bias]))
        theirs.out_proj.load_state_dict(ours.to_output.state_dict())
    x, memory = normal(2, 3, 8), normal(2, 5, 8, seed=1)
    is_key = torch.tensor([[True, True, False, True, False], [True] * 5])
    wanted, _ = theirs(x, memory, memory, key_padding_mask=~is_key)
    torch.testing.assert_close(ours(x, memory, is_key[:, None, None, :]), wanted)


def test_padding_of_an_instruction_doesnt_matter_and_none_is_no_nan():
    torch.manual_seed(0)
    encoder = InstructionEncoder(SPEC, 16, 2)
    short, long = torch.tensor([[1, 3]]), torch.tensor([[1, 3, 0, 0, 0]])
    torch.testing.assert_close(encoder(short), encoder(long))
    assert torch.isfinite(encoder(torch.zeros((1, 3), dtype=torch.int64))).all()


def test_words_are_numbered_from_one_and_padded_with_zeros():
    assert SPEC.word_ids("Pick, RED!") == [3, 1, 0]
    assert dataclasses.replace(SPEC, vocabulary=(), max_words=2).word_ids("whatever you like to say") == [0, 0]


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        ("", "is empty"),
        ("pick the", "never taught the word 'the'"),
        ("pik", "did you mean 'pick'"),
        ("red " * 4, "4 words"),
    ],
)
def test_instruction_that_the_network_cant_read_is_refused(instruction, text):
    with pytest.raises(InstructionError, match=text):
        SPEC.word_ids(instruction)


@pytest.mark.parametrize(
    "changes",
    [
        {"images": ()}, {"image_size": (4, 96)}, {"state_width": 0}, {"horizon": 0}, {"max_words": 0},
        {"vocabulary": ("red", "red")}, {"vocabulary": ("Red",)}, {"vocabulary": ("red block",)},
    ],
)  # fmt: skip
def test_spec_that_cant_be_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        dataclasses.replace(SPEC, **changes)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("act", {"width": 30}), ("act", {"kl_weight": -1.0}), ("act", {"dropout": 1.0}), ("act", {"channels": (12,)}),
        ("bc", {"log_std_min": 3.0}), ("bc", {"smoothness_weight": -0.1}), ("bc", {"keypoints": 0}),
        ("diffusion", {"steps": 101}), ("diffusion", {"unet_kernel": 4}), ("diffusion", {"unet_channels": ()}),
        ("flow_vla", {"draws": 0}), ("flow_vla", {"prefix_steps": -1}), ("flow_vla", {"localisation_weight": -1.0}),
        ("flow_vla", {"levels": 0}), ("flow_vla", {"levels": 3, "channels": (8, 8, 8)}),
    ],
)  # fmt: skip
def test_config_that_cant_be_is_refused(name, changes):
    config_class = architecture_class(name).config_class
    with pytest.raises(ValueError, match=r"\w"):
        config_class(**changes)


def test_spec_is_there_without_torch():
    code = "import sys; import vla_ros.policies.architectures.spec; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_names_of_networks_are_their_own():
    assert all(architecture_class(name).name == name for name in ARCHITECTURES)


def test_what_is_not_visible_or_not_known_may_be_nan_in_the_auxiliary_losses():
    logits = normal(1, 2, 3, 4, 4, seed=3).requires_grad_()
    xy = torch.rand((1, 2, 3, 2), generator=torch.Generator().manual_seed(0))
    is_visible = torch.tensor([[[True, False, True], [False, False, True]]])
    clean = localisation_loss(logits, xy, is_visible)
    (clean_gradient,) = torch.autograd.grad(clean, logits)
    dirty = localisation_loss(logits, torch.where(is_visible[..., None], xy, torch.nan), is_visible)
    (gradient,) = torch.autograd.grad(dirty, logits)
    assert float(dirty.detach()) == pytest.approx(float(clean.detach()), rel=1e-6)
    torch.testing.assert_close(gradient, clean_gradient)
    assert not bool(gradient[~is_visible].any())
    values = torch.tensor([1.0, torch.nan, 4.0])
    assert float(counted_mean(values, torch.tensor([True, False, True]))) == 2.5
    assert float(counted_mean(values, torch.zeros(3, dtype=torch.bool))) == 0.0
