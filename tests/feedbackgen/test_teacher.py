import math

import numpy as np
import pytest
from scipy.stats import binom, chi2

from feedbackgen.errors import DataError, RecipeError
from feedbackgen.seeding import stream
from feedbackgen.teacher import (
    DEFAULT_BETA,
    Judge,
    Teacher,
    answer,
    expected_error,
    flip_safety,
    judge,
    judge_safety,
    preference_probabilities,
    return_scale,
    safety_noise,
    solve_beta,
)

DIFFERENCES = np.random.default_rng(0).normal(size=20_000) * 3


def ask(differences, *, beta=math.inf, scale=1.0, seed=0, values=None, tiredness=0.0, **parameters):
    """Answers about pairs of a segment of return 0 and one of the given return."""
    returns = np.append(np.asarray(differences, dtype=float), 0.0)
    judge = Judge(
        teacher=Teacher(**parameters),
        values=returns if values is None else np.append(values, 0.0),
        scale=scale,
        beta=beta,
        skip_threshold=0.0,
        equal_threshold=0.0,
    )
    n_pairs = len(differences)
    pairs = np.column_stack([np.full(n_pairs, n_pairs), np.arange(n_pairs)])
    draws, mistakes = (stream(seed, name).random(n_pairs) for name in ("preference", "preference-flip"))
    return answer(judge, returns, pairs, draws=draws, mistakes=mistakes, tiredness=tiredness)


def test_the_probability_of_the_second_is_the_logistic_of_the_scaled_difference():
    probabilities = preference_probabilities(np.array([2.0, -2.0, 0.0, 6.0]), beta=3.0, scale=6.0)
    expected = [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1)), 0.5, 1 / (1 + math.exp(-3))]
    assert probabilities == pytest.approx(expected, abs=1e-15)


def test_extreme_differences_do_not_overflow():
    with np.errstate(divide="raise", invalid="raise"):
        probabilities = preference_probabilities(np.array([1e300, -1e300]), beta=1e6, scale=1e-3)
    assert probabilities.tolist() == [1.0, 0.0]


def test_an_infinite_beta_always_prefers_the_higher_return():
    labels = ask(DIFFERENCES, beta=math.inf, scale=3.0, seed=0).label
    assert np.array_equal(labels, DIFFERENCES > 0)


@pytest.mark.parametrize("beta", [1.0, 10.0, math.inf])
def test_an_exact_tie_is_half_even_when_sums_were_rounded(beta):
    tie = np.array([0.0, 0.1 + 0.2 - 0.3])
    assert ask(tie, beta=beta, scale=1.0, seed=0).label.tolist() == [0.5, 0.5]
    assert preference_probabilities(tie, beta=beta, scale=1.0).tolist() == [0.5, 0.5]


def test_swapping_the_segments_of_a_pair_swaps_its_label():
    differences = np.append(DIFFERENCES, 0.0)
    labels = ask(differences, beta=2.0, scale=3.0, seed=0).label
    swapped = ask(-differences, beta=2.0, scale=3.0, seed=0).label
    assert np.array_equal(labels, 1 - swapped)


def test_scaling_returns_changes_no_label():
    labels = ask(DIFFERENCES, beta=2.0, scale=3.0, seed=0).label
    assert np.array_equal(labels, ask(DIFFERENCES * 128, beta=2.0, scale=384.0).label)


def test_a_higher_beta_only_takes_errors_away():
    wrong = [ask(DIFFERENCES, beta=beta, scale=3.0, seed=0).label != (DIFFERENCES > 0) for beta in (1.0, 10.0)]
    assert np.all(wrong[0] | ~wrong[1])


def test_preferences_follow_bradley_terry_in_every_bin_of_differences():
    labels = ask(DIFFERENCES, beta=2.0, scale=3.0, seed=1).label
    probabilities = 1 / (1 + np.exp(-2.0 * DIFFERENCES / 3.0))
    bins = np.digitize(DIFFERENCES, np.quantile(DIFFERENCES, np.linspace(0, 1, 21)[1:-1]))
    expected, variance, seen = (
        np.bincount(bins, weights) for weights in (probabilities, probabilities * (1 - probabilities), labels)
    )
    # Wrongly refused once in a thousand seeds.
    assert np.sum((seen - expected) ** 2 / variance) < chi2.ppf(0.999, 20)


@pytest.mark.parametrize("probability", [0.02, 0.1, 0.5])
def test_the_share_of_flips_is_the_one_asked_for_on_both_channels(probability):
    low, high = binom.interval(0.999, 20_000, probability)
    said = ask(DIFFERENCES, noise=probability)
    assert low <= said.flipped.sum() <= high
    assert np.array_equal(said.label != said.clean, said.flipped) and said.label.dtype == np.float32
    labels = np.ones(20_000, dtype=np.int8)
    noisy, flipped = flip_safety(labels, probability, stream(0, "safety-flip"))
    assert low <= flipped.sum() <= high
    assert np.array_equal(noisy == -1, flipped) and noisy.dtype == np.int8


def test_a_probability_of_zero_flips_none_and_a_tie_is_never_flipped():
    assert ask([2.0, -2.0, 0.0]).label.tolist() == [1, 0, 0.5]
    always = np.zeros(3)
    judge = Judge(
        teacher=Teacher(noise=0.5), values=np.array([0.0, 1.0]), scale=1.0, beta=math.inf, skip_threshold=0.0,
        equal_threshold=0.0,
    )  # fmt: skip
    said = answer(judge, judge.values, np.array([[0, 1], [1, 0], [0, 0]]), draws=always, mistakes=always)
    assert said.label.tolist() == [0, 1, 0.5]
    assert said.flipped.tolist() == [True, True, False]


def test_mistakes_fall_with_the_margin():
    said = ask([0.5, 1.0, 2.0, -2.0], scale=2.0, noise=0.4, noise_margin=0.5)
    assert said.noise == pytest.approx([0.4 * math.exp(-0.5), 0.4 / math.e, 0.4 * math.exp(-2), 0.4 * math.exp(-2)])


def test_a_tiring_teacher_makes_more_mistakes_with_each_query():
    said = ask([1.0, 1.0, 1.0], noise=0.1, drift=0.3, tiredness=np.array([0.0, 0.5, 1.0]))
    assert said.noise == pytest.approx([0.1, 0.25, 0.4])
    teacher = Teacher(miss_rate=0.2, false_alarm_rate=0.05, drift=0.1)
    noise = safety_noise(teacher, np.array([-1, 1, -1, 1]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert noise == pytest.approx([0.2, 0.05, 0.3, 0.15])


def test_a_teacher_who_decides_ties_tosses_a_coin_or_takes_the_first():
    ties = np.zeros(2000)
    assert not ask(ties, beta=math.inf, decides_ties=True).label.any()
    labels = ask(ties, beta=1.0, decides_ties=True).label
    assert set(labels) == {0.0, 1.0}
    low, high = binom.interval(0.999, 2000, 0.5)
    assert low <= labels.sum() <= high


def test_thresholds_are_shares_of_the_mean_return():
    values = np.array([0.0, 10.0])
    found = judge(Teacher(skip=0.1, equal=0.2), values=values, mean_return=50.0)
    assert (found.skip_threshold, found.equal_threshold) == pytest.approx((5.0, 10.0))
    found = judge(Teacher(skip=0.1, equal=0.2, squares_thresholds=True), values=values, mean_return=50.0)
    assert (found.skip_threshold, found.equal_threshold) == pytest.approx((0.5, 2.0))


@pytest.mark.parametrize("name", ["skip", "equal"])
def test_a_threshold_that_would_do_nothing_is_refused(name):
    with pytest.raises(DataError) as refusal:
        judge(Teacher(**{name: 0.1}), values=np.array([0.0, 1.0]), mean_return=-2.5)
    assert str(refusal.value) == (
        f"--{name} 0.1: a share of the mean episode's return, which is not above 0 here (per segment -2.5), "
        f"so it would do nothing; leave --{name} out"
    )


def test_beta_in_raw_reward_is_turned_into_deviations():
    values = np.array([0.0, 3.0, 7.0])
    found = judge(Teacher(beta=2.0, beta_unit="reward"), values=values, mean_return=1.0)
    assert found.beta == pytest.approx(2 * return_scale(values))
    assert judge(Teacher(beta=2.0), values=values, mean_return=1.0).beta == 2.0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"beta": 0.0}, "--beta: expected a number above 0, or inf, got 0.0"),
        ({"beta_unit": "metre"}, "--beta-unit: expected deviation or reward, got metre"),
        ({"error_rate": 0.5}, "--error-rate: expected a rate in [0, 0.5), got 0.5"),
        ({"discount": 0.0}, "--discount: expected a number in (0, 1], got 0.0"),
        ({"discount_from": "middle"}, "--discount-from: expected end or start, got middle"),
        ({"skip": -1.0}, "--skip: expected a share >= 0 of the mean episode's return, got -1.0"),
        ({"equal": math.inf}, "--equal: expected a share >= 0 of the mean episode's return, got inf"),
        (
            {"noise": 0.6},
            "--noise: expected a probability in [0, 0.5] (above it labels would say the opposite), got 0.6",
        ),
        ({"noise": -0.1}, "--noise: expected a probability in [0, 0.5], got -0.1"),
        ({"noise_margin": 0.0}, "--noise-margin: expected a number of deviations above 0, or inf, got 0.0"),
        ({"drift": 0.6}, "--drift: expected a probability in [0, 0.5], got 0.6"),
        ({"miss_rate": 1.1}, "--miss-rate: expected a probability in [0, 1], got 1.1"),
        ({"false_alarm_rate": math.nan}, "--false-alarm-rate: expected a probability in [0, 1], got nan"),
        ({"noise": 0.3, "drift": 0.3}, "--noise and --drift: expected a sum of at most 0.5, got 0.6"),
        (
            {"miss_rate": 0.7, "false_alarm_rate": 0.2, "drift": 0.1},
            "--miss-rate, --false-alarm-rate and twice --drift: expected a sum of at most 1, got 1.1",
        ),
    ],
)
def test_a_parameter_out_of_range_is_refused(parameters, message):
    with pytest.raises(RecipeError) as refusal:
        Teacher(**parameters)
    assert str(refusal.value) == message


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


def test_a_myopic_teachers_error_counts_against_the_undiscounted_return():
    # By hand: the first pair is seen rightly with margin 1, the second wrongly with margin 2.
    error = expected_error(np.array([1.0, 1.0]), beta=1.0, scale=1.0, perceived=np.array([1.0, -2.0]))
    assert error == pytest.approx((1 / (1 + math.e) + 1 - 1 / (1 + math.exp(2))) / 2)


def test_an_error_rate_that_a_myopic_teacher_cannot_reach_is_refused():
    perceived = np.where(np.arange(20_000) % 4 == 0, -DIFFERENCES, DIFFERENCES)
    with pytest.raises(DataError) as refusal:
        solve_beta(DIFFERENCES, 0.1, scale=3.0, perceived=perceived)
    assert str(refusal.value) == (
        "--error-rate 0.1: a teacher with this --discount prefers the lower return in at least 0.25 of the pairs; "
        "use a higher --error-rate, or a --discount nearer to 1"
    )
    beta = solve_beta(DIFFERENCES, 0.3, scale=3.0, perceived=perceived)
    assert expected_error(DIFFERENCES, beta=beta, scale=3.0, perceived=perceived) == pytest.approx(0.3, abs=1e-9)
