"""Conditional flow matching: the line, its velocity, times, solvers and guidance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch", reason="needs torch: pip install torch==2.13.0")

from vla_ros.errors import UnknownNameError
from vla_ros.policies.representations.diffusion import Diffusion
from vla_ros.policies.representations.flow_matching import (
    guided,
    integrate,
    interpolate,
    predicted_actions,
    sample_times,
    target_velocity,
    with_time_reversed,
)

DTYPES = (torch.float32, torch.float64)


def normal(seed: int, dtype: Any = torch.float64, shape: tuple[int, ...] = (3, 8, 4)) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_line_begins_at_noise_and_ends_at_actions_with_the_velocity_as_its_slope(dtype: Any) -> None:
    noise, actions = normal(0, dtype), normal(1, dtype)
    at = [interpolate(noise, actions, torch.full((3,), t, dtype=dtype)) for t in (0.0, 0.5, 1.0)]
    assert at[0].dtype == dtype
    torch.testing.assert_close(at[0], noise, rtol=0, atol=0)
    torch.testing.assert_close(at[1], (noise + actions) / 2)
    torch.testing.assert_close(at[2], actions, rtol=0, atol=0)
    slope = target_velocity(noise, actions)
    torch.testing.assert_close(at[2] - at[0], slope)
    for time in (torch.tensor([0.1, 0.6, 0.9], dtype=dtype), torch.rand(3, 8, dtype=dtype)):
        x = interpolate(noise, actions, time)
        torch.testing.assert_close(predicted_actions(slope, x, time), actions, rtol=0, atol=1e-5)


def test_each_step_of_a_chunk_may_have_its_own_time() -> None:
    noise, actions = normal(0), normal(1)
    time = torch.linspace(0.0, 1.0, 8, dtype=torch.float64).expand(3, 8)
    mixed = interpolate(noise, actions, time)
    for step in range(8):
        torch.testing.assert_close(mixed[:, step], interpolate(noise, actions, time[:, step])[:, step])


def test_uniform_times_are_uniform_and_repeat_with_their_generator() -> None:
    times = sample_times(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert stats.kstest(times.numpy(), "uniform").pvalue > 0.01
    again = sample_times(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(times, again)


def test_pi0_s_times_are_drawn_as_openpi_draws_them() -> None:
    """openpi: time = beta(1.5, 1) * 0.999 + 0.001, with 1 as noise; the distribution by scipy."""
    times = sample_times(20_000, "pi0_beta", torch.Generator().manual_seed(0), torch.float64)
    theirs = (1.0 - times.numpy() - 0.001) / 0.999
    assert stats.kstest(theirs, stats.beta(1.5, 1.0).cdf).pvalue > 0.01
    assert times.min() >= 0.0
    assert times.max() <= 0.999
    assert times.mean() < 0.5
    assert sample_times(2, "pi0_beta").dtype == torch.float32


def growth(x: Any, time: Any) -> Any:
    """x' = cos(t) - 2 x."""
    return torch.cos(time)[:, None, None] - 2.0 * x


def solved(x: Any, time: float) -> Any:
    """The flow of `growth` from time 0: C exp(-2 t) + (2 cos t + sin t) / 5."""
    return (x - 0.4) * math.exp(-2.0 * time) + (2.0 * math.cos(time) + math.sin(time)) / 5.0


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_solver_converges_with_its_order(solver: str, order: int) -> None:
    x = normal(0)
    errors = [(integrate(growth, x, steps, solver) - solved(x, 1.0)).abs().max().item() for steps in (40, 80, 160)]  # type: ignore[arg-type]
    measured = np.log2(np.array(errors[:-1]) / errors[1:])
    # What is left of the next order is a few hundredths at 40 steps.
    np.testing.assert_allclose(measured, order, atol=0.1)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
def test_solver_follows_a_straight_line_exactly_in_one_step_and_calls_as_often_as_it_says(solver: str) -> None:
    noise, actions, times = normal(0), normal(1), []

    def velocity(x: Any, time: Any) -> Any:
        assert time.shape == (3,)
        times.append(float(time[0]))
        return target_velocity(noise, actions)

    torch.testing.assert_close(integrate(velocity, noise, 1, solver), actions)  # type: ignore[arg-type]
    integrate(velocity, noise, 4, solver)  # type: ignore[arg-type]
    expected = {
        "euler": [0, 0, 0.25, 0.5, 0.75],
        "midpoint": [0, 0.5, 0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875],
        "heun": [0, 1, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1],
    }
    assert times == expected[solver]


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
def test_pi0_s_time_gives_the_same_actions(solver: str) -> None:
    """A model of openpi's convention integrated as openpi does, from 1 to 0, and turned into ours."""
    mean = 0.4

    def theirs(x: Any, time: Any) -> Any:
        t = time[:, None, None]  # of data N(mean, 0.3^2): noise - actions, expected at x
        variance = (1.0 - t) ** 2 * 0.09 + t**2
        actions = mean + (1.0 - t) * 0.09 / variance * (x - (1.0 - t) * mean)
        noise = t / variance * (x - (1.0 - t) * mean)
        return noise - actions

    x = normal(0)
    as_they_do = integrate(theirs, x, 10, solver, start=1.0, end=0.0)  # type: ignore[arg-type]
    torch.testing.assert_close(integrate(with_time_reversed(theirs), x, 10, solver), as_they_do)  # type: ignore[arg-type]
    torch.testing.assert_close(
        with_time_reversed(with_time_reversed(theirs))(x, torch.full((3,), 0.3)), theirs(x, torch.full((3,), 0.3))
    )
    exact = integrate(with_time_reversed(theirs), x, 400, solver)  # type: ignore[arg-type]
    torch.testing.assert_close(exact, mean + 0.3 * x, rtol=0, atol=5e-3)  # the flow of a Gaussian is linear in x


@pytest.mark.parametrize("dtype", DTYPES)
def test_solvers_keep_precision_and_repeat(dtype: Any) -> None:
    for solver in ("euler", "midpoint", "heun"):
        first = integrate(growth, normal(0, dtype), 7, solver)  # type: ignore[arg-type]
        assert first.dtype == dtype
        assert torch.equal(first, integrate(growth, normal(0, dtype), 7, solver))  # type: ignore[arg-type]


def test_impossible_integration_is_refused() -> None:
    with pytest.raises(ValueError, match="lead nowhere"):
        integrate(growth, normal(0), 0)
    with pytest.raises(UnknownNameError, match="unknown solver"):
        integrate(growth, normal(0), 1, "rk4")  # type: ignore[arg-type]


def test_guidance_scale_goes_from_without_to_with_the_condition_and_past_it() -> None:
    x, time = normal(0), torch.full((3,), 0.3, dtype=torch.float64)
    calls = []

    def model(value: float) -> Any:
        def called(x: Any, time: Any) -> Any:
            calls.append(value)
            return torch.full_like(x, value)

        return called

    found = {scale: float(guided(model(2.0), model(5.0), scale)(x, time)[0, 0, 0]) for scale in (0.0, 1.0, 3.0, 0.5)}
    assert found == {0.0: 5.0, 1.0: 2.0, 3.0: -4.0, 0.5: 3.5}
    assert calls == [5.0, 2.0, 5.0, 2.0, 5.0, 2.0]


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_guiding_a_denoiser_is_the_same_whatever_it_predicts(prediction: str) -> None:
    """Guided in noise by hand; the output stands for the same actions and noise in every form."""
    diffusion = Diffusion(100, "linear", prediction_type=prediction)  # type: ignore[arg-type]
    timesteps = torch.tensor([5, 50, 90])
    noisy, parts = normal(0), [(normal(1), normal(2)), (normal(3), normal(4))]
    # A model's actions and noise always add up to what it was given.
    pairs = [(actions, diffusion.split(diffusion.target(actions, _noise_for(diffusion, noisy, actions, timesteps),
              timesteps), noisy, timesteps)[1]) for actions, _ in parts]  # fmt: skip
    outputs = [diffusion.target(actions, noise, timesteps) for actions, noise in pairs]
    output = guided(lambda x, t: outputs[0], lambda x, t: outputs[1], 2.5)(noisy, timesteps)
    actions, noise = diffusion.split(output, noisy, timesteps)
    torch.testing.assert_close(noise, pairs[1][1] + 2.5 * (pairs[0][1] - pairs[1][1]), rtol=0, atol=1e-8)
    torch.testing.assert_close(actions, pairs[1][0] + 2.5 * (pairs[0][0] - pairs[1][0]), rtol=0, atol=1e-8)


def _noise_for(diffusion: Diffusion, noisy: Any, actions: Any, timesteps: Any) -> Any:
    share = diffusion.alpha_bars.double()[timesteps + 1][:, None, None]
    return (noisy - share.sqrt() * actions) / (1.0 - share).sqrt()
