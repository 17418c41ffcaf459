"""Paired comparison of success, against published examples and against maximum likelihood found by search."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, norm

from vla_ros.evaluation.comparison import PairedOutcomes, describe

# Armitage and Berry 1994, p. 127 (two media for a culture); Bentur et al. 2009, as in Fagerland et al. 2013 and 2014.
MEDIA, AIRWAY = PairedOutcomes(20, 12, 2, 16), PairedOutcomes(1, 1, 7, 12)


def test_mcnemar_gives_the_published_p_values() -> None:
    assert MEDIA.mcnemar_p() == pytest.approx(0.0129, abs=5e-5)
    assert AIRWAY.mcnemar_p() == pytest.approx(0.070, abs=5e-4)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (1, 0), (5, 5), (3, 17), (40, 20)])
def test_mcnemar_is_the_sign_test_of_the_discordant_pairs(a: int, b: int) -> None:
    expected = binomtest(a, a + b).pvalue if a + b else 1.0
    assert PairedOutcomes(3, a, b, 4).mcnemar_p() == pytest.approx(expected)


def test_the_interval_is_the_published_one() -> None:
    """Fagerland, Lydersen and Laake, Statistics in Medicine 33, 2014: Tango's for the airway data."""
    assert AIRWAY.difference == pytest.approx(-0.286, abs=5e-4)
    np.testing.assert_allclose(AIRWAY.interval(), (-0.517, -0.026), atol=6e-4)


def searched_score(paired: PairedOutcomes, delta: float) -> float:
    """The same statistic, with the likelihood's maximum under the difference found by search."""
    n, b, c = paired.pairs, paired.only_a, paired.only_b
    least, most = max(0.0, -delta), (1.0 - delta) / 2.0

    def cost(rate: float) -> float:
        terms = ((b, rate + delta), (c, rate), (n - b - c, 1.0 - 2.0 * rate - delta))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in terms if count)

    rate = minimize_scalar(cost, bounds=(least, most), method="bounded", options={"xatol": 1e-12}).x
    return (b - c - n * delta) / math.sqrt(n * (2.0 * rate + delta - delta**2))


@pytest.mark.parametrize("paired", [MEDIA, AIRWAY, PairedOutcomes(90, 4, 1, 5), PairedOutcomes(50, 30, 10, 210)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_score_at_both_ends_is_the_quantile(paired: PairedOutcomes, confidence: float) -> None:
    z = norm.ppf(0.5 + 0.5 * confidence)
    lower, upper = paired.interval(confidence)
    assert searched_score(paired, lower) == pytest.approx(z, abs=1e-4)
    assert searched_score(paired, upper) == pytest.approx(-z, abs=1e-4)
    assert lower < paired.difference < upper


def test_without_discordant_pairs_the_interval_still_has_a_width() -> None:
    """In closed form: z^2 / (n + z^2)."""
    expected = 1.96**2 / (100 + 1.96**2)
    for paired in (PairedOutcomes(100, 0, 0, 0), PairedOutcomes(60, 0, 0, 40)):
        np.testing.assert_allclose(paired.interval(), (-expected, expected), rtol=1e-4)
        assert paired.mcnemar_p() == 1.0


def test_exchanging_the_two_mirrors_the_interval() -> None:
    lower, upper = MEDIA.interval()
    np.testing.assert_allclose(PairedOutcomes(20, 2, 12, 16).interval(), (-upper, -lower), atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_covers_the_truth_as_often_as_it_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = np.array([0.88, 0.03, 0.06, 0.03])
    draws = rng.multinomial(200, p, size=800)
    covered = [
        lower <= p[1] - p[2] <= upper for lower, upper in (PairedOutcomes(*map(int, d)).interval() for d in draws)
    ]
    # 95 % less four standard errors of 800 draws.
    assert np.mean(covered) > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 800)


def test_the_bound_is_one_sided_and_said_in_words() -> None:
    paired = PairedOutcomes(280, 3, 4, 13)
    assert paired.costs_at_most() == pytest.approx(-paired.interval(0.9)[0])
    assert 0.0 < paired.costs_at_most() < 0.03
    assert "costs at most" in describe(paired, "new", "old")
    assert "better by" in describe(PairedOutcomes(10, 60, 0, 30), "new", "old")
    assert "nothing in common" in describe(PairedOutcomes(0, 0, 0, 0), "new", "old")


def test_only_what_both_were_tried_at_is_compared() -> None:
    a = {("pick", 0): True, ("pick", 1): False, ("pick", 2): True, ("pick", 3): False}
    b = {("pick", 0): True, ("pick", 1): True, ("pick", 2): False, ("pick", 9): True}
    assert PairedOutcomes.of(a, b) == PairedOutcomes(1, 1, 1, 0)
    assert PairedOutcomes(0, 0, 0, 0).interval() == (-1.0, 1.0)
    with pytest.raises(ValueError, match="negative"):
        PairedOutcomes(1, -1, 0, 0)
