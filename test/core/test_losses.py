"""The losses of the handbook, against numbers worked by hand, closed forms, drawings and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install torch==2.13.0")

from vla_ros.errors import UnknownNameError
from vla_ros.geometry.rotation_forms import FROM_MATRIX
from vla_ros.geometry.rotations import rotvec_to_matrix
from vla_ros.policies.architectures.losses import (
    chunk_error,
    denoising_error,
    distillation_kl,
    flow_error,
    gaussian_nll,
    kl_to_standard_normal,
    quaternion_distance,
    reparameterise,
    rotation_error_rad,
    smoothness,
    token_cross_entropy,
)
from vla_ros.policies.representations.bins import UniformBins
from vla_ros.policies.representations.diffusion import Diffusion

FORMS = {"rotvec": 3, "rpy": 3, "quat_xyzw": 4, "rot6d": 6, "rot6d_rows": 6}


def normal(*shape: int, seed: int = 0, dtype: Any = torch.float64) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_errors_of_chunks_by_hand():
    predicted = torch.tensor([[[1.0, 2.0], [0.0, 0.0]], [[4.0, 4.0], [9.0, 9.0]]])
    actions = torch.tensor([[[0.0, 4.0], [3.0, 3.0]], [[4.0, 5.0], [0.0, 0.0]]])
    is_valid = torch.tensor([[True, True], [True, False]])
    # Six numbers count: 1, 2, 3, 3, 0, 1.
    assert float(chunk_error(predicted, actions, is_valid, "l1")) == pytest.approx(10.0 / 6.0)
    assert float(chunk_error(predicted, actions, is_valid, "mse")) == pytest.approx(24.0 / 6.0)
    # The first example three times as much, and of the second only the second number.
    counts = torch.tensor([[[3.0, 3.0], [3.0, 3.0]], [[0.0, 1.0], [0.0, 0.0]]])
    assert float(chunk_error(predicted, actions, counts, "l1")) == pytest.approx((3.0 * 9.0 + 1.0) / 13.0)
    assert float(chunk_error(predicted, actions, torch.zeros(2, 2))) == 0.0
    with pytest.raises(UnknownNameError, match="l2"):
        chunk_error(predicted, actions, is_valid, "l2")


def test_weights_below_one_count_as_the_same_ratio():
    predicted, actions = normal(3, 2, 2), normal(3, 2, 2, seed=1)
    counts = torch.tensor([1e-6, 2e-6, 3e-6], dtype=torch.float64)[:, None].expand(3, 2)
    torch.testing.assert_close(chunk_error(predicted, actions, counts), chunk_error(predicted, actions, 1e6 * counts))


@pytest.mark.parametrize("kind", ["nll", "mse", "l1"])
def test_gradients_are_those_of_finite_differences(kind):
    mean, log_std, value = normal(2, 3), normal(2, 3, seed=1), normal(2, 3, seed=2)
    if kind == "nll":
        assert torch.autograd.gradcheck(gaussian_nll, (mean.requires_grad_(), log_std.requires_grad_(), value))
    else:
        counts = torch.ones(1, 2)
        chunk = mean[None].requires_grad_()
        assert torch.autograd.gradcheck(lambda x: chunk_error(x, value[None], counts, kind), (chunk,))


def test_gaussian_nll_by_hand_and_its_best_deviation_is_the_error():
    # N(1, 2^2) at 3: 0.5 + log 2 + 0.5 log 2 pi.
    nll = gaussian_nll(torch.tensor(1.0), torch.tensor(2.0).log(), torch.tensor(3.0))
    assert float(nll) == pytest.approx(0.5 + np.log(2.0) + 0.5 * np.log(2.0 * np.pi), rel=1e-6)
    log_std = torch.tensor(2.0, dtype=torch.float64).log().requires_grad_()
    gaussian_nll(torch.tensor(1.0), log_std, torch.tensor(3.0)).backward()
    assert float(log_std.grad) == pytest.approx(0.0, abs=1e-12)


def test_cross_entropy_of_tokens_by_hand():
    # Probabilities 1/2, 1/4, 1/4 and 1/10, 9/10, 0 of three tokens.
    logits = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.9, 1e-30]]]).log()
    tokens = torch.tensor([[2, 1]])
    both = token_cross_entropy(logits, tokens, torch.tensor([[True, True]]))
    assert float(both) == pytest.approx((np.log(4.0) - np.log(0.9)) / 2.0, rel=1e-5)
    assert float(token_cross_entropy(logits, tokens, torch.tensor([[True, False]]))) == pytest.approx(np.log(4.0))
    assert float(token_cross_entropy(logits, tokens, torch.zeros(1, 2))) == 0.0


def test_categorical_cloning_learns_how_often_each_bin_is_taken():
    """Behaviour cloning of binned actions: the best logits are those of the bins' frequencies, 3 to 1."""
    actions = np.array([[0.1], [0.1], [0.1], [0.9]])
    tokens = torch.from_numpy(UniformBins([0.0], [1.0], 4).encode(actions))
    frequencies = torch.tensor([0.75, 1e-12, 1e-12, 0.25], dtype=torch.float64)
    logits = frequencies.log().expand(4, 1, 4).clone().requires_grad_()
    loss = token_cross_entropy(logits, tokens, torch.ones(4, 1))
    assert float(loss.detach()) == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), rel=1e-6)
    loss.backward()
    assert float(logits.grad.sum(0).abs().max()) < 1e-9


def test_kl_is_the_mean_of_the_log_ratio_over_draws():
    mean, log_variance = torch.tensor([[0.7, -0.3]]), torch.tensor([[-0.5, 0.4]])
    count = 200_000
    draws = reparameterise(mean.expand(count, 2), log_variance.expand(count, 2), torch.Generator().manual_seed(0))
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    ratio = (posterior.log_prob(draws) - torch.distributions.Normal(0.0, 1.0).log_prob(draws)).sum(1)
    # Standard error: deviation of the log ratio, about 0.9, over the root of 200,000.
    assert float(kl_to_standard_normal(mean, log_variance)) == pytest.approx(float(ratio.mean()), abs=0.01)
    two = kl_to_standard_normal(mean.repeat(2, 1) * torch.tensor([[1.0], [9.0]]), log_variance.repeat(2, 1))
    alone = kl_to_standard_normal(9.0 * mean, log_variance)
    weighted = kl_to_standard_normal(
        mean.repeat(2, 1) * torch.tensor([[1.0], [9.0]]), log_variance.repeat(2, 1), torch.tensor([0.0, 0.1])
    )
    torch.testing.assert_close(weighted, alone)
    assert weighted > two


def test_denoising_error_by_hand():
    # Betas 0.1 and 0.2: of the actions' variance 0.72 is left at timestep 1, so 2 and noise 1 become 2.22620.
    diffusion = Diffusion(steps=2, beta_schedule="linear", beta_start=0.1, beta_end=0.2)
    actions, noise = torch.full((1, 1, 1), 2.0), torch.ones(1, 1, 1)
    noisy = 0.72**0.5 * 2.0 + 0.28**0.5
    error = denoising_error(lambda x, t: x, diffusion, actions, noise, torch.tensor([1]))
    assert float(error) == pytest.approx((noisy - 1.0) ** 2, rel=1e-5)
    assert float(denoising_error(lambda x, t: noise, diffusion, actions, noise, torch.tensor([1]))) == 0.0


def test_flow_error_by_hand():
    actions, noise = torch.full((1, 1, 1), 3.0), torch.ones(1, 1, 1)
    # A quarter of the way from 1 to 3 is 1.5; the velocity is 2.
    error = flow_error(lambda x, t: 2.0 * x + t[:, None, None], actions, noise, torch.tensor([0.25]))
    assert float(error) == pytest.approx((3.25 - 2.0) ** 2)


def test_errors_of_flow_and_diffusion_are_least_for_the_closed_form_of_gaussian_actions():
    """Actions from N(m, s^2), noise from N(0, 1): the best answer given x is the linear regression on x."""
    count, m, s, t = 100_000, 1.5, 0.5, 0.4
    actions = (m + s * normal(count)).reshape(count, 1, 1)
    noise = normal(count, seed=1).reshape(count, 1, 1)

    def gradient(loss_of, covariance, variance, mean_x, mean_y):
        slope = torch.tensor(covariance / variance, dtype=torch.float64, requires_grad=True)
        offset = torch.tensor(mean_y - covariance / variance * mean_x, dtype=torch.float64, requires_grad=True)
        loss_of(lambda x, _: slope * x + offset).mean().backward()
        return abs(float(slope.grad)), abs(float(offset.grad))

    times = torch.full((count,), t, dtype=torch.float64)
    flow = gradient(
        lambda v: flow_error(v, actions, noise, times),
        t * s**2 - (1 - t), (1 - t) ** 2 + t**2 * s**2, t * m, m,
    )  # fmt: skip
    diffusion = Diffusion(steps=10)
    share = float(diffusion.alpha_bars[6])
    steps = torch.full((count,), 5)
    ddpm = gradient(
        lambda d: denoising_error(d, diffusion, actions, noise, steps),
        (1 - share) ** 0.5, share * s**2 + 1 - share, share**0.5 * m, 0.0,
    )  # fmt: skip
    # Standard error of a gradient of 100,000 draws: some 2 * 1 * 1.5 / 316.
    assert max(*flow, *ddpm) < 0.03


@pytest.mark.parametrize("order", [1, 2, 3])
def test_smoothness_of_a_power_of_time_is_its_derivative(order):
    """The n-th difference of c t^n over dt^n is n! c, whatever dt is; a lower power has none."""
    dt = 0.1
    t = dt * torch.arange(8, dtype=torch.float64)[None, :, None]
    factorial = float(np.prod(np.arange(1, order + 1)))
    chunk = torch.cat([3.0 * t**order, 5.0 * t ** (order - 1)], dim=2)
    wanted = (3.0 * factorial) ** 2 / 2.0
    everywhere = torch.ones((1, 8), dtype=torch.bool)
    assert float(smoothness(chunk, everywhere, order, dt)) == pytest.approx(wanted, rel=1e-6)
    # By default the period is the unit of time.
    assert float(smoothness(chunk, everywhere, order)) == pytest.approx(wanted * dt ** (2 * order), rel=1e-6)


def test_smoothness_counts_what_counts_as_a_whole():
    chunk = torch.tensor([[0.0, 1.0, 4.0, 100.0], [0.0, 0.0, 1.0, 0.0]])[..., None]
    is_valid = torch.tensor([[True, True, True, False], [True] * 4])
    # Second differences 2 of the first; 1 and -2 of the second.
    assert float(smoothness(chunk, is_valid, 2)) == pytest.approx((4.0 + 1.0 + 4.0) / 3.0)
    counts = is_valid * torch.tensor([[0.5], [0.25]])
    assert float(smoothness(chunk, counts, 2)) == pytest.approx((0.5 * 4.0 + 0.25 * 5.0) / 1.0)
    assert float(smoothness(chunk, is_valid, 4)) == 0.0
    with pytest.raises(ValueError, match="order 0"):
        smoothness(chunk, is_valid, 0)


def test_quaternions_of_both_signs_are_the_same_rotation():
    a, b = normal(50, 4), normal(50, 4, seed=1)
    distance = quaternion_distance(a, b)
    for first, second in ((-a, b), (a, -b), (-a, -b), (3.0 * a, b), (b, a)):
        torch.testing.assert_close(quaternion_distance(first, second), distance)
    assert float(quaternion_distance(a, -a).max()) < 1e-15
    # A quarter turn about z: half of the angle is 45 degrees.
    turn = torch.tensor([0.0, 0.0, np.sin(np.pi / 4.0), np.cos(np.pi / 4.0)])
    still = torch.tensor([0.0, 0.0, 0.0, -1.0])
    assert float(quaternion_distance(turn, still)) == pytest.approx(2.0 - 2.0 * np.cos(np.pi / 4.0), rel=1e-6)


def test_quaternion_distance_grows_with_the_angle_and_has_the_gradient_of_finite_differences():
    a, b = normal(6, 4).requires_grad_(), normal(6, 4, seed=1)
    assert torch.autograd.gradcheck(lambda x: quaternion_distance(x, b), (a,))
    half = torch.linspace(0.0, np.pi / 2.0, 20, dtype=torch.float64)
    turned = torch.stack([torch.sin(half), 0.0 * half, 0.0 * half, torch.cos(half)], dim=-1)
    distance = quaternion_distance(turned, torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(distance, 2.0 - 2.0 * torch.cos(half))
    same = torch.tensor([0.0, 0.0, 0.0, 1.0], requires_grad=True)
    quaternion_distance(same, torch.tensor([0.0, 0.0, 0.0, -1.0])).backward()
    assert torch.equal(same.grad, torch.zeros(4))


@pytest.mark.parametrize("form", FORMS)
def test_error_of_rotations_is_the_angle_in_every_form(form):
    angles = torch.tensor([[0.3, 2.0], [1.0, 3.0]], dtype=torch.float64)
    axis = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    base = rotvec_to_matrix(normal(2, 2, 3))
    turned = base @ rotvec_to_matrix(angles[..., None] * axis)
    a, b = FROM_MATRIX[form](base), FROM_MATRIX[form](turned)
    assert a.shape[-1] == FORMS[form]
    is_valid = torch.tensor([[True, True], [True, False]])
    error = rotation_error_rad(a, b, form, is_valid)
    assert float(error) == pytest.approx((0.3 + 2.0 + 1.0) / 3.0, rel=1e-9)
    assert torch.autograd.gradcheck(lambda x: rotation_error_rad(x, b, form, is_valid), (a.requires_grad_(),))


def test_form_of_rotations_that_nobody_knows_is_refused():
    with pytest.raises(UnknownNameError, match="axis"):
        rotation_error_rad(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3), "axis", torch.ones(1, 1))


def test_distillation_is_the_kl_of_softened_distributions_by_hand():
    # At T = 2 logits 2 log p: the teacher says 1/2 and 1/2, the student 1/4 and 3/4.
    teacher = 2.0 * torch.tensor([[[0.5, 0.5]]]).log()
    student = 2.0 * torch.tensor([[[0.25, 0.75]]]).log()
    kl = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert float(distillation_kl(student, teacher, torch.ones(1, 1), 2.0)) == pytest.approx(4.0 * kl, rel=1e-5)
    assert float(distillation_kl(teacher, teacher, torch.ones(1, 1), 2.0)) == 0.0
    two = torch.cat([student, teacher + 5.0], dim=1)
    masked = distillation_kl(two, torch.cat([teacher, student], dim=1), torch.tensor([[True, False]]), 2.0)
    assert float(masked) == pytest.approx(4.0 * kl, rel=1e-5)


def test_hot_distillation_matches_logits_and_leaves_the_teacher_alone():
    """Hinton et al., eq. 4: at a high T the gradient times T^2 is (z - v) / N for logits of mean zero."""
    z, v = normal(1, 1, 5), normal(1, 1, 5, seed=1)
    z, v = z - z.mean(), v - v.mean()
    z.requires_grad_()
    v.requires_grad_()
    distillation_kl(z, v, torch.ones(1, 1), 1e4).backward()
    torch.testing.assert_close(z.grad, (z - v).detach() / 5.0, rtol=1e-3, atol=1e-5)
    assert v.grad is None
