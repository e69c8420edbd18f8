import math

import numpy as np
import pytest
from scipy.stats import binom, chi2

from feedbackgen.errors import DataError
from feedbackgen.seeding import stream
from feedbackgen.teacher import (
    DEFAULT_BETA,
    expected_error,
    flip_preferences,
    flip_safety,
    judge_safety,
    prefer,
    preference_probabilities,
    return_scale,
    solve_beta,
)

DIFFERENCES = np.random.default_rng(0).normal(size=20_000) * 3


def test_the_probability_of_the_second_is_the_logistic_of_the_scaled_difference():
    probabilities = preference_probabilities(np.array([2.0, -2.0, 0.0, 6.0]), beta=3.0, scale=6.0)
    expected = [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1)), 0.5, 1 / (1 + math.exp(-3))]
    assert probabilities == pytest.approx(expected, abs=1e-15)


def test_extreme_differences_do_not_overflow():
    with np.errstate(divide="raise", invalid="raise"):
        probabilities = preference_probabilities(np.array([1e300, -1e300]), beta=1e6, scale=1e-3)
    assert probabilities.tolist() == [1.0, 0.0]


def test_an_infinite_beta_always_prefers_the_higher_return():
    labels = prefer(DIFFERENCES, beta=math.inf, scale=3.0, rng=stream(0, "preference"))
    assert np.array_equal(labels, DIFFERENCES > 0)


@pytest.mark.parametrize("beta", [1.0, 10.0, math.inf])
def test_an_exact_tie_is_half_even_when_sums_were_rounded(beta):
    tie = np.array([0.0, 0.1 + 0.2 - 0.3])
    assert prefer(tie, beta=beta, scale=1.0, rng=stream(0, "preference")).tolist() == [0.5, 0.5]
    assert preference_probabilities(tie, beta=beta, scale=1.0).tolist() == [0.5, 0.5]


def test_swapping_the_segments_of_a_pair_swaps_its_label():
    differences = np.append(DIFFERENCES, 0.0)
    labels = prefer(differences, beta=2.0, scale=3.0, rng=stream(0, "preference"))
    swapped = prefer(-differences, beta=2.0, scale=3.0, rng=stream(0, "preference"))
    assert np.array_equal(labels, 1 - swapped)


def test_scaling_returns_changes_no_label():
    labels = prefer(DIFFERENCES, beta=2.0, scale=3.0, rng=stream(0, "preference"))
    assert np.array_equal(labels, prefer(DIFFERENCES * 128, beta=2.0, scale=384.0, rng=stream(0, "preference")))


def test_a_higher_beta_only_takes_errors_away():
    wrong = [
        prefer(DIFFERENCES, beta=beta, scale=3.0, rng=stream(0, "preference")) != (DIFFERENCES > 0)
        for beta in (1.0, 10.0)
    ]
    assert np.all(wrong[0] | ~wrong[1])


def test_preferences_follow_bradley_terry_in_every_bin_of_differences():
    labels = prefer(DIFFERENCES, beta=2.0, scale=3.0, rng=stream(1, "preference"))
    probabilities = 1 / (1 + np.exp(-2.0 * DIFFERENCES / 3.0))
    bins = np.digitize(DIFFERENCES, np.quantile(DIFFERENCES, np.linspace(0, 1, 21)[1:-1]))
    expected, variance, seen = (
        np.bincount(bins, weights) for weights in (probabilities, probabilities * (1 - probabilities), labels)
    )
    # Wrongly refused once in a thousand seeds.
    assert np.sum((seen - expected) ** 2 / variance) < chi2.ppf(0.999, 20)


@pytest.mark.parametrize("probability", [0.02, 0.1, 0.5])
def test_the_share_of_flips_is_the_one_asked_for_on_both_channels(probability):
    preferences, safety = np.ones(20_000, dtype=np.float32), np.ones(20_000, dtype=np.int8)
    low, high = binom.interval(0.999, 20_000, probability)
    for labels, flip, opposite in ((preferences, flip_preferences, 0), (safety, flip_safety, -1)):
        noisy, flipped = flip(labels, probability, stream(0, flip.__name__))
        assert low <= flipped.sum() <= high
        assert np.array_equal(noisy == opposite, flipped)
        assert noisy.dtype == labels.dtype


def test_a_probability_of_zero_flips_none_and_of_one_all():
    labels = np.array([0, 1, 0.5], dtype=np.float32)
    assert flip_preferences(labels, 0.0, stream(0, "flip"))[0].tolist() == [0, 1, 0.5]
    noisy, flipped = flip_preferences(labels, 1.0, stream(0, "flip"))
    assert noisy.tolist() == [1, 0, 0.5]
    assert flipped.tolist() == [True, True, False]


def test_a_segment_is_safe_up_to_and_at_its_bound():
    assert judge_safety(np.array([0.0, 1.0, 1.6, 2.0]), 1.6).tolist() == [1, 1, 1, -1]


def test_rounding_does_not_make_a_cost_at_the_bound_unsafe():
    assert judge_safety(np.array([0.1 + 0.2]), 0.3).tolist() == [1]
    assert judge_safety(np.array([7.0]), 70 * 0.1).tolist() == [1]


def test_a_cost_limit_of_zero_makes_any_cost_unsafe():
    assert judge_safety(np.array([0.0, 1.0]), 0.0).tolist() == [1, -1]


def test_the_scale_is_the_standard_deviation_of_differences():
    returns = np.array([1.0, 2.0, 4.0])
    every_difference = (returns[:, None] - returns[None]).ravel()
    assert return_scale(returns) == pytest.approx(every_difference.std())


def test_equal_returns_everywhere_are_refused():
    with pytest.raises(DataError, match=r"all 5 segments have return 0\.3, so none is preferred"):
        return_scale(np.full(5, 0.1 + 0.2))


def test_the_default_beta_errs_in_a_twentieth_of_normal_differences():
    assert expected_error(DIFFERENCES, beta=DEFAULT_BETA, scale=3.0) == pytest.approx(0.055, abs=0.003)


@pytest.mark.parametrize("error_rate", [0.01, 0.1, 0.3, 0.49])
def test_beta_is_solved_for_the_expected_error(error_rate):
    beta = solve_beta(DIFFERENCES, error_rate, scale=3.0)
    assert expected_error(DIFFERENCES, beta=beta, scale=3.0) == pytest.approx(error_rate, abs=1e-9)


def test_no_error_takes_an_infinite_beta():
    assert solve_beta(DIFFERENCES, 0.0, scale=3.0) == math.inf


def test_ties_count_neither_for_nor_against_the_expected_error():
    alone = expected_error(np.array([1.0]), beta=1.0, scale=1.0)
    assert expected_error(np.array([1.0, 0.0]), beta=1.0, scale=1.0) == alone
    assert expected_error(np.array([0.0]), beta=1.0, scale=1.0) == 0.0
