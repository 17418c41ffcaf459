"""Real-time chunking in torch: on Gaussian chunks, whose continuation of a prefix is known in closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install torch==2.13.0")

from vla_ros.policies.representations.committed import prefix_weights
from vla_ros.policies.representations.diffusion import Diffusion
from vla_ros.policies.representations.flow_matching import integrate
from vla_ros.policies.representations.prefix import (
    conditioned_on_prefix,
    free_mean,
    guidance_weight,
    guided_denoiser,
    guided_velocity,
    is_committed,
    sample_prefix_counts,
    step_times,
    with_prefix,
)

H, D_COMMITTED, END = 12, 4, 9
# Smooth chunks of one dimension: steps three apart have a correlation of 0.6.
COVARIANCE = torch.exp(-0.5 * ((torch.arange(H)[:, None] - torch.arange(H)) / 3.0).double() ** 2)
COVARIANCE = 0.25 * (COVARIANCE + 1e-3 * torch.eye(H))
MEAN = torch.linspace(-0.3, 0.3, H, dtype=torch.float64)


def normal(seed: int, shape: tuple[int, ...], dtype: Any = torch.float64) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def expected_parts(x: Any, time: Any) -> tuple[Any, Any]:
    """E[actions | x] and E[noise | x] where each step i of x is (1 - t_i) noise + t_i actions."""
    t = torch.diag_embed(time.to(torch.float64))
    left = torch.eye(H, dtype=torch.float64) - t
    spread = t @ COVARIANCE @ t + left @ left
    inner = torch.linalg.solve(spread, x.double() - (t @ MEAN)[..., None])
    return MEAN[:, None] + COVARIANCE @ t @ inner, left @ inner


def velocity(x: Any, time: Any) -> Any:
    """The best velocity of these chunks, for a time of each step or one for all."""
    time = time if time.ndim == 2 else time[:, None].expand(-1, H)
    actions, noise = expected_parts(x, time)
    return (actions - noise).to(x.dtype)


def prefix_chunk() -> Any:
    """A chunk that these Gaussians would make, 1.5 deviations off their mean: (1, H, 1)."""
    return (MEAN + 1.5 * COVARIANCE[:, 1] / COVARIANCE[1, 1].sqrt())[None, :, None]


def continuation(Y: Any, d: int) -> tuple[Any, Any]:
    """Mean (H - d,) and covariance of the steps past d, given those before."""
    gain = COVARIANCE[d:, :d] @ torch.linalg.inv(COVARIANCE[:d, :d])
    return MEAN[d:] + gain @ (Y[0, :d, 0] - MEAN[:d]), COVARIANCE[d:, d:] - gain @ COVARIANCE[:d, d:]


def weights() -> Any:
    return torch.as_tensor(prefix_weights(H, D_COMMITTED, END))


def test_guidance_weight_worked_by_hand_and_clamped_at_both_ends() -> None:
    """t = 1/2: r^2 = 1/2, so 1 / r^2 = 2; t = 1/4: r^2 = 9/10, (3/4) / (1/4) / (9/10) = 10/3."""
    time = torch.tensor([0.0, 1e-12, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    expected = torch.tensor([5.0, 5.0, 10 / 3, 2.0, 10 / 3, 5.0], dtype=torch.float64)
    torch.testing.assert_close(guidance_weight(time), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(guidance_weight(time.float()), expected.float())


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.9])
def test_guided_velocity_is_the_paper_s_with_the_jacobian_written_out(t: float) -> None:
    """The model is linear in x, so the Jacobian of its actions is a matrix: from finite differences of unit steps."""
    x, Y, w = normal(0, (5, H, 1)), prefix_chunk(), weights()
    time = torch.full((5,), t, dtype=torch.float64)

    def actions_at(x: Any) -> Any:
        return x + (1.0 - t) * velocity(x, time[: len(x)])

    zero = torch.zeros(1, H, 1, dtype=torch.float64)
    columns = [actions_at(zero + torch.eye(H, dtype=torch.float64)[k][:, None]) - actions_at(zero) for k in range(H)]
    J = torch.cat(columns, dim=2)[0]
    r2 = (1 - t) ** 2 / (t**2 + (1 - t) ** 2)
    beta = min(5.0, (1 - t) / (t * r2)) if t > 0.0 else 5.0
    error = w[:, None] * (Y - actions_at(x))
    expected = velocity(x, time) + beta * (J.T @ error)
    torch.testing.assert_close(guided_velocity(velocity, Y, w)(x, time), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_guided_chunks_go_on_from_the_prefix(solver: Any) -> None:
    """Unguided they begin anywhere. The pull is clamped, as published, so it doesn't reach the last digit."""
    noise, Y = normal(0, (400, H, 1)), prefix_chunk()
    free = integrate(velocity, noise, 20, solver)
    found = integrate(guided_velocity(velocity, Y, weights()), noise, 20, solver)
    wanted, _ = continuation(Y, D_COMMITTED)

    def distance(chunks: Any) -> float:
        return float((chunks - Y)[:, :D_COMMITTED].square().mean().sqrt())

    assert distance(free) > 0.6
    assert distance(found) < 0.1
    # The step over the seam is like those inside of free chunks, and not like that from the prefix to a free chunk.
    seam = (found[:, D_COMMITTED] - Y[:, D_COMMITTED - 1]).abs().mean()
    inside = (free[:, 1:] - free[:, :-1]).abs().mean()
    naive = (free[:, D_COMMITTED] - Y[:, D_COMMITTED - 1]).abs().mean()
    assert seam < 1.5 * inside
    assert naive > 3.0 * inside
    # And the chunks head where those that begin like this do.
    off = (found.mean(0)[D_COMMITTED:, 0] - wanted).abs().max()
    assert off < 0.35 * (MEAN[D_COMMITTED:] - wanted).abs().max()


def test_weight_of_nothing_leaves_the_velocity_as_it_is() -> None:
    x, time = normal(1, (3, H, 1)), torch.full((3,), 0.4, dtype=torch.float64)
    found = guided_velocity(velocity, prefix_chunk(), torch.zeros(H, dtype=torch.float64))(x, time)
    torch.testing.assert_close(found, velocity(x, time), rtol=0, atol=0)


def test_what_fills_the_prefix_where_its_weight_is_nothing_is_not_looked_at() -> None:
    x, time, Y = normal(1, (3, H, 1)), torch.full((3,), 0.4, dtype=torch.float64), prefix_chunk()
    filled = Y.clone()
    filled[:, END:] = math.nan
    found = guided_velocity(velocity, filled, weights())(x, time)
    torch.testing.assert_close(found, guided_velocity(velocity, Y, weights())(x, time), rtol=0, atol=0)


def test_each_chunk_of_a_batch_has_its_own_prefix_and_weights() -> None:
    x, time = normal(1, (3, H, 1)), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    Y, w = normal(2, (3, H, 1)), torch.as_tensor(prefix_weights(H, *torch.tensor([[0, 2, 5], [6, 6, 8]]).numpy()))
    together = guided_velocity(velocity, Y, w)(x, time)
    for row in range(3):
        one = slice(row, row + 1)
        alone = guided_velocity(velocity, Y[one], w[one])(x[one], time[one])
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-12)


def test_guidance_works_where_gradients_are_off_and_leaves_none_behind() -> None:
    model = torch.nn.Linear(1, 1)
    x, time = normal(0, (2, H, 1), torch.float32), torch.full((2,), 0.5)
    guided = guided_velocity(lambda x, t: model(x), prefix_chunk().float(), weights().float())
    plain = guided(x, time)
    assert not plain.requires_grad
    assert model.weight.grad is None
    with torch.no_grad():
        assert torch.equal(guided(x, time), plain)
    with torch.inference_mode():
        assert torch.equal(guided(x.clone(), time), plain)
    assert plain.dtype == torch.float32
    assert not x.requires_grad


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("timestep", [1, 20, 49])
def test_unclamped_guided_denoiser_is_pseudoinverse_guidance(prediction: Any, timestep: int) -> None:
    """Song et al.: the score gains J^T W (Y - actions) / r^2 with r^2 = 1 - alpha_bar, so the actions
    J^T W (Y - actions) over sqrt(alpha_bar). J is torch's own Jacobian of a model that isn't linear.
    """
    diffusion = Diffusion(50, "linear", 1e-4, 0.06, prediction, None)
    mixing = normal(7, (H, H)) / H

    def denoiser(x: Any, timesteps: Any) -> Any:
        return torch.tanh(mixing @ x) + 0.1 * x

    noisy, Y, w = normal(0, (1, H, 1)), prefix_chunk(), weights()
    timesteps = torch.tensor([timestep])

    def actions_of(x: Any) -> Any:
        return diffusion.split(denoiser(x, timesteps), x, timesteps)[0]

    J = torch.autograd.functional.jacobian(actions_of, noisy).reshape(H, H)
    share = diffusion.alpha_bars.double()[timestep + 1]
    plain = actions_of(noisy)
    expected = plain + (J.T @ (w[:, None] * (Y - plain))) / share.sqrt()
    output = guided_denoiser(denoiser, diffusion, Y, w, max_guidance=1e9)(noisy, timesteps)
    actions, noise = diffusion.split(output, noisy, timesteps)
    torch.testing.assert_close(actions, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(share.sqrt() * actions + (1 - share).sqrt() * noise, noisy, rtol=0, atol=1e-8)


@pytest.mark.parametrize("method", ["ddim", "ddpm"])
def test_guided_diffusion_goes_on_from_the_prefix(method: Any) -> None:
    diffusion = Diffusion(100, clip_sample_range=None)

    def denoiser(x: Any, timesteps: Any) -> Any:
        share = diffusion.alpha_bars.double()[timesteps + 1][:, None, None]
        spread = share * COVARIANCE + (1.0 - share) * torch.eye(H, dtype=torch.float64)
        return (1.0 - share).sqrt() * torch.linalg.solve(spread, x - share.sqrt() * MEAN[:, None])

    noise, Y = normal(0, (200, H, 1)), prefix_chunk()
    guided = guided_denoiser(denoiser, diffusion, Y, weights())

    def sample(model: Any) -> Any:
        return diffusion.sample(model, noise, 50, method, generator=torch.Generator().manual_seed(0))

    free, found = sample(denoiser), sample(guided)
    assert (free - Y)[:, :D_COMMITTED].square().mean().sqrt() > 0.6
    assert (found - Y)[:, :D_COMMITTED].square().mean().sqrt() < 0.1
    wanted, _ = continuation(Y, D_COMMITTED)
    assert (found.mean(0)[D_COMMITTED:, 0] - wanted).abs().max() < 0.35 * (MEAN[D_COMMITTED:] - wanted).abs().max()


def test_model_conditioned_on_its_prefix_makes_exactly_the_continuations() -> None:
    """The best model with a time of each step: samples have the conditional mean and covariance, and the prefix."""
    Y, count = prefix_chunk(), torch.full((4000,), D_COMMITTED)
    Y = Y.expand(4000, -1, -1)
    model = conditioned_on_prefix(velocity, Y, count)
    found = with_prefix(integrate(model, normal(0, (4000, H, 1)), 30, "midpoint"), Y, count)
    torch.testing.assert_close(found[:, :D_COMMITTED], Y[:, :D_COMMITTED], rtol=0, atol=0)
    mean, covariance = continuation(Y, D_COMMITTED)
    free = found[:, D_COMMITTED:, 0]
    # 4,000 draws of a deviation of at most 0.5.
    torch.testing.assert_close(free.mean(0), mean, rtol=0, atol=4 * 0.5 / math.sqrt(4000))
    torch.testing.assert_close(torch.cov(free.T), covariance, rtol=0, atol=4 * 0.25 * math.sqrt(2 / 4000))


def test_model_sees_committed_steps_clean_at_the_time_of_clean_actions() -> None:
    x, Y, count = normal(0, (3, H, 2)), normal(1, (3, H, 2)), torch.tensor([0, 3, H])
    seen = []

    def model(x: Any, time: Any) -> Any:
        seen.append((x, time))
        return x

    time = torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64)
    conditioned_on_prefix(model, Y, count)(x, time)
    shown, times = seen[0]
    for row, d in enumerate([0, 3, H]):
        assert torch.equal(shown[row, :d], Y[row, :d])
        assert torch.equal(shown[row, d:], x[row, d:])
        assert times[row].tolist() == [1.0] * d + [float(time[row])] * (H - d)
    timesteps = step_times(torch.tensor([7, 8, 9]), count, H, clean_time=-1)
    assert timesteps.dtype == torch.int64
    assert timesteps[1].tolist() == [-1, -1, -1] + [8] * (H - 3)


def test_whatever_fills_the_prefix_past_its_count_is_not_looked_at() -> None:
    x, count = normal(0, (2, H, 1)), torch.tensor([2, 5])
    Y = torch.full((2, H, 1), math.nan, dtype=torch.float64)
    Y[0, :2], Y[1, :5] = 0.5, 0.25
    shown = with_prefix(x, Y, count)
    assert bool(torch.isfinite(shown).all())
    assert is_committed(count, 6).tolist() == [[True, True] + [False] * 4, [True] * 5 + [False]]


def test_loss_counts_valid_steps_past_the_prefix_only() -> None:
    errors = torch.arange(12.0).reshape(2, 3, 2)  # steps with means 0.5, 2.5, 4.5 and 6.5, 8.5, 10.5
    is_valid = torch.tensor([[True, True, True], [True, True, False]])
    assert free_mean(errors, is_valid, torch.tensor([1, 1])).item() == pytest.approx((2.5 + 4.5 + 8.5) / 3)
    assert free_mean(errors, is_valid, torch.tensor([0, 0])).item() == pytest.approx((0.5 + 2.5 + 4.5 + 6.5 + 8.5) / 5)
    assert free_mean(errors, is_valid, torch.tensor([3, 2])).item() == 0.0


def test_lengths_of_prefixes_are_drawn_evenly_and_repeat_with_their_generator() -> None:
    counts = sample_prefix_counts(7000, 6, torch.Generator().manual_seed(0))
    assert torch.equal(counts, sample_prefix_counts(7000, 6, torch.Generator().manual_seed(0)))
    share = torch.bincount(counts, minlength=8) / 7000
    assert share[7] == 0.0
    # Each is drawn 1,000 times, give or take 30.
    torch.testing.assert_close(share[:7], torch.full((7,), 1 / 7), rtol=0, atol=0.02)
    assert sample_prefix_counts(5, 0).tolist() == [0] * 5
