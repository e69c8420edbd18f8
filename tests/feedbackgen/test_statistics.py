import pytest
from scipy.stats import binomtest

from feedbackgen.statistics import binomial_interval


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (950, 1000), (7, 7)])
def test_the_interval_is_wilsons(successes, trials):
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert binomial_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_no_trials_say_nothing():
    assert binomial_interval(0, 0) == (0.0, 1.0)
