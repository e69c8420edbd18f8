import numpy as np
import pytest

from feedbackgen.errors import DataError
from presa.comparison import (
    improvement_probability,
    interquartile_mean,
    performance_profile,
    safe_cell_share,
    safe_only_return,
    stratified_interval,
)

RETURNS = {"a": np.array([0.1, 0.9]), "b": np.array([0.5, 0.7, 0.3, 100.0, -100.0, 0.6])}


def test_the_interquartile_mean_leaves_a_quarter_out_at_each_end():
    # Sorted: -100, 0.1 | 0.3, 0.5, 0.6, 0.7 | 0.9, 100
    assert interquartile_mean(RETURNS) == pytest.approx((0.3 + 0.5 + 0.6 + 0.7) / 4)


def test_unsafe_cells_count_nothing():
    returns = {"a": np.array([0.8, 0.6]), "b": np.array([0.4, 0.9])}
    costs = {"a": np.array([0.5, 1.0]), "b": np.array([1.01, 3.0])}
    assert safe_cell_share(costs) == 0.5
    # 0, 0, 0.6, 0.8 without its ends: 0 and 0.6
    assert safe_only_return(returns, costs) == pytest.approx(0.3)
    with pytest.raises(DataError, match="b: expected a return and a cost of each seed"):
        safe_only_return(returns, {"a": costs["a"]})


def test_the_profile_is_the_share_above_each_threshold_mean_over_tasks():
    scores = {"a": np.array([0.2, 0.6]), "b": np.array([0.4, 0.4, 0.4, 0.9])}
    # above 0.3: 1 of 2, 4 of 4; above 0.5: 1 of 2, 1 of 4
    np.testing.assert_allclose(performance_profile(scores, np.array([0.3, 0.5])), [0.75, 0.375])


def test_the_probability_of_improvement_is_mann_and_whitneys():
    first = {"a": np.array([1.0, 3.0]), "b": np.array([2.0, 2.0])}
    second = {"a": np.array([0.0, 2.0]), "b": np.array([2.0, 5.0])}
    # a: 1 beats 0 only, 3 beats both: 3 of 4. b: ties with 2, loses to 5: 2 halves of 4.
    assert improvement_probability(first, second) == pytest.approx((0.75 + 0.25) / 2)
    assert improvement_probability(second, first) == pytest.approx(1 - (0.75 + 0.25) / 2)
    with pytest.raises(DataError, match="expected the same tasks"):
        improvement_probability(first, {"a": second["a"]})


def test_the_interval_keeps_the_tasks_and_draws_the_seeds():
    # Without spread within tasks there is nothing to draw, however far the tasks are apart.
    constant = {"a": np.full(5, 0.0), "b": np.full(5, 10.0)}
    assert stratified_interval(mean_of_tasks, constant) == (5.0, 5.0)


def test_the_interval_covers_as_often_as_it_says():
    """A mean of 2 tasks x 20 seeds: the percentile interval covers in 92 % (it is a little short) of 200 repetitions.

    With 0.92 expected, 0.86 is 3.1 standard deviations off: a false alarm once in a thousand.
    """
    rng, covered = np.random.default_rng(0), 0
    for repetition in range(200):
        table = {task: rng.standard_normal(20) + shift for task, shift in (("a", 0.0), ("b", 4.0))}
        low, high = stratified_interval(mean_of_tasks, table, seed=repetition, n_resamples=200)
        covered += low <= 2.0 <= high
    assert 0.86 <= covered / 200 <= 0.99


def mean_of_tasks(scores):
    return float(np.mean([np.mean(row) for row in scores.values()]))


def test_columns_of_the_same_runs_are_drawn_together():
    returns = {"a": np.array([0.9, 0.0])}
    costs = {"a": np.array([0.0, 9.0])}
    seen = set()

    def statistic(drawn_returns, drawn_costs):
        seen.update(zip(drawn_returns["a"], drawn_costs["a"], strict=True))
        return 0.0

    stratified_interval(statistic, returns, costs, paired=True)
    assert seen == {(0.9, 0.0), (0.0, 9.0)}
