"""Diffusion over action chunks against `diffusers`, step by step."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install torch==2.13.0")

from vla_ros.errors import UnknownNameError
from vla_ros.policies.representations.diffusion import Diffusion

SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTIONS = ("epsilon", "sample", "v_prediction")
SHAPE = (3, 8, 4)


def normal(seed: int, dtype: Any = torch.float64, shape: tuple[int, ...] = SHAPE) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def oracle(kind: str, ours: Diffusion, count: int, in_double: bool = False) -> Any:
    """The scheduler of `diffusers` for the same settings, with its tables in float64 where asked for."""
    diffusers = pytest.importorskip("diffusers", reason="needs diffusers: pip install diffusers")
    clip = ours.clip_sample_range
    scheduler = getattr(diffusers, kind)(
        num_train_timesteps=ours.steps,
        beta_start=ours.beta_start,
        beta_end=ours.beta_end,
        beta_schedule=ours.beta_schedule,
        prediction_type=ours.prediction_type,
        clip_sample=clip is not None,
        clip_sample_range=clip or 1.0,
    )
    scheduler.set_timesteps(count)
    if in_double:
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    return scheduler


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [10, 100, 1000])
def test_tables_are_those_of_diffusers(schedule: str, steps: int) -> None:
    ours = Diffusion(steps, schedule)  # type: ignore[arg-type]
    theirs = oracle("DDPMScheduler", ours, steps)
    torch.testing.assert_close(ours.betas, theirs.betas, rtol=0, atol=1e-7)
    torch.testing.assert_close(ours.alpha_bars[1:], theirs.alphas_cumprod, rtol=1e-6, atol=0)
    assert ours.alpha_bars[0] == 1.0


@pytest.mark.parametrize("count", [100, 20, 7, 1])
def test_timesteps_are_those_of_diffusers(count: int) -> None:
    ours = Diffusion(100)
    for kind in ("DDPMScheduler", "DDIMScheduler"):
        assert ours.timesteps(count) == oracle(kind, ours, count).timesteps.tolist()


@pytest.mark.parametrize("clip", [None, 1.0, 0.3])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_step_is_that_of_diffusers(schedule: str, prediction: str, clip: float | None) -> None:
    """Both step from the same actions, with the same output of a model and the same noise.

    In float32 `diffusers` takes 1 - alpha_bar in that precision, which is off by up to 6e-4 of itself at the first
    timestep (alpha_bar 0.9999): hence the wide tolerance there. Unclipped it divides rounding errors by
    sqrt(alpha_bar), down to 1/2000.
    """
    ours = Diffusion(50, schedule, prediction_type=prediction, clip_sample_range=clip)  # type: ignore[arg-type]
    for dtype, in_double, atol in ((torch.float64, True, 1e-9), (torch.float32, False, 3e-4)):
        if dtype == torch.float32 and clip is None:
            continue
        for count in (50, 10):
            ddpm, ddim = (oracle(kind, ours, count, in_double) for kind in ("DDPMScheduler", "DDIMScheduler"))
            x, steps = normal(0, dtype), ours.timesteps(count)
            for number, (timestep, previous) in enumerate(zip(steps, [*steps[1:], -1], strict=True)):
                output = normal(number + 1, dtype)
                noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(99), dtype=dtype)
                theirs = ddpm.step(output, timestep, x, generator=torch.Generator().manual_seed(99)).prev_sample
                mine = ours.ddpm_step(output, x, timestep, previous, noise)
                assert mine.dtype == dtype
                torch.testing.assert_close(mine, theirs.to(dtype), rtol=atol, atol=atol)
                for eta in (0.0, 0.4, 1.0):
                    mine = ours.ddim_step(output, x, timestep, previous, eta, noise)
                    theirs = ddim.step(output, timestep, x, eta=eta, variance_noise=noise if eta else None).prev_sample
                    torch.testing.assert_close(mine, theirs.to(dtype), rtol=atol, atol=atol)
                x = ours.ddim_step(output, x, timestep, previous).clamp(-3.0, 3.0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_noise_and_velocity_are_those_of_diffusers(prediction: str) -> None:
    ours = Diffusion(100, prediction_type=prediction)  # type: ignore[arg-type]
    actions, noise, timesteps = normal(0), normal(1), torch.tensor([0, 40, 99])
    theirs = oracle("DDPMScheduler", ours, 100, in_double=True)
    torch.testing.assert_close(ours.add_noise(actions, noise, timesteps), theirs.add_noise(actions, noise, timesteps))
    expected = {"epsilon": noise, "sample": actions, "v_prediction": theirs.get_velocity(actions, noise, timesteps)}
    torch.testing.assert_close(ours.target(actions, noise, timesteps), expected[prediction])


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_perfect_output_splits_into_the_actions_and_noise_it_was_made_of(prediction: str) -> None:
    ours = Diffusion(100, "linear", prediction_type=prediction)  # type: ignore[arg-type]
    actions, noise, timesteps = normal(0), normal(1), torch.tensor([0, 40, 99])
    noisy = ours.add_noise(actions, noise, timesteps)
    found = ours.split(ours.target(actions, noise, timesteps), noisy, timesteps)
    for mine, wanted in zip(found, (actions, noise), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-9)


def test_each_step_of_a_chunk_may_have_its_own_timestep_and_minus_one_is_clean() -> None:
    ours = Diffusion(100)
    actions, noise = normal(0), normal(1)
    timesteps = torch.tensor([[-1, -1, 3, 3, 99, 5, 0, -1]] * 3)
    mixed = ours.add_noise(actions, noise, timesteps)
    torch.testing.assert_close(mixed[:, timesteps[0] == -1], actions[:, timesteps[0] == -1], rtol=0, atol=0)
    for column in (2, 4, 5, 6):
        alone = ours.add_noise(actions, noise, timesteps[:, column])
        torch.testing.assert_close(mixed[:, column], alone[:, column])


@pytest.mark.parametrize(("method", "count"), [("ddim", 10), ("ddim", 50), ("ddpm", 50)])
def test_sampling_a_point_ends_at_it(method: str, count: int) -> None:
    """Of data that is one chunk the best denoiser knows the noise exactly, whatever x is."""
    ours = Diffusion(50)
    point = 0.5 * torch.tanh(normal(3))[:1]

    def denoiser(x: Any, timesteps: Any) -> Any:
        assert timesteps.shape == x.shape[:1]
        share = ours.alpha_bars.double()[timesteps + 1][:, None, None]
        return (x - share.sqrt() * point) / (1.0 - share).sqrt()

    found = ours.sample(denoiser, normal(0), count, method, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    torch.testing.assert_close(found, point.expand(SHAPE), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("method", "eta"), [("ddim", 0.0), ("ddim", 1.0), ("ddpm", 0.0)])
def test_sampling_a_gaussian_has_its_spread(method: str, eta: float) -> None:
    """Actions N(0.2, 0.3^2): the best noise prediction is linear in x. All steps of training are taken."""
    ours = Diffusion(400, "linear", 1e-4, 0.03, clip_sample_range=None)
    mean, deviation = 0.2, 0.3

    def denoiser(x: Any, timesteps: Any) -> Any:
        share = ours.alpha_bars.double()[timesteps + 1][:, None, None]
        variance = share * deviation**2 + 1.0 - share
        return (1.0 - share).sqrt() * (x - share.sqrt() * mean) / variance

    noise = normal(0, shape=(2000, 4, 2))
    noise = (noise - noise.mean()) / noise.std()
    found = ours.sample(denoiser, noise, 400, method, eta, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    # 16,000 draws know the mean to 0.0024 and the deviation to 0.0017. The smaller of DDPM's variances makes it 0.2933
    # (by iterating the steps' mean and variance): it is exact for a single chunk only. Pure noise isn't quite
    # what 400 steps make of actions.
    expected = 0.2933 if method == "ddpm" or eta else deviation
    assert found.mean().item() == pytest.approx(mean, abs=0.008)
    assert found.std().item() == pytest.approx(expected, abs=0.005)


def test_sampling_repeats_with_the_same_noise_and_generator() -> None:
    ours = Diffusion(20)

    def draw(seed: int, method: str, eta: float) -> Any:
        generator = torch.Generator().manual_seed(seed)
        return ours.sample(lambda x, t: 0.5 * x, normal(0), 10, method, eta, generator)  # type: ignore[arg-type]

    for method, eta in (("ddim", 0.5), ("ddpm", 0.0)):
        torch.testing.assert_close(draw(1, method, eta), draw(1, method, eta), rtol=0, atol=0)
        assert not torch.equal(draw(1, method, eta), draw(2, method, eta))
    torch.testing.assert_close(draw(1, "ddim", 0.0), draw(2, "ddim", 0.0), rtol=0, atol=0)


def test_settings_that_make_no_schedule_are_refused() -> None:
    for settings in ({"steps": 0}, {"beta_start": 0.0}, {"beta_end": 1.0}, {"clip_sample_range": 0.0}):
        with pytest.raises(ValueError, match=r"steps|beta|clip"):
            Diffusion(**settings)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="beta_schedule 'cosine'"):
        Diffusion(beta_schedule="cosine")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="prediction_type 'v'"):
        Diffusion(prediction_type="v")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="method 'dpm'"):
        Diffusion().sample(lambda x, t: x, normal(0), 5, "dpm")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="trained with 100"):
        Diffusion().timesteps(101)
    with pytest.raises(ValueError, match="give it"):
        Diffusion().ddpm_step(normal(0), normal(1), 5, 4, None)


def test_sampling_can_be_traced_for_export() -> None:
    """A schedule's tables aren't part of the graph, whenever it was made."""
    ours = Diffusion(20)

    class Sampler(torch.nn.Module):
        def forward(self, noise: Any) -> Any:
            return ours.sample(lambda x, t: 0.5 * x + 0.01 * t[:, None, None], noise, 5)

    noise = normal(0, torch.float32)
    exported = torch.export.export(Sampler(), (noise,)).module()
    torch.testing.assert_close(exported(noise), Sampler()(noise))
