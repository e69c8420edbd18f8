"""Streams depend on the seed and the name alone."""

import numpy as np
import pytest

from feedbackgen.seeding import derived_seed, stream


def test_a_stream_is_the_same_whenever_it_is_asked_for():
    first = stream(3, "rollout", "expert", 7).random(5)
    stream(3, "rollout", "expert", 8).random(100)
    np.testing.assert_array_equal(first, stream(3, "rollout", "expert", np.int64(7)).random(5))


@pytest.mark.parametrize("name", [("a", "b"), ("ab",), ("a", 1), ("a", "1"), ("b", "a")])
def test_another_name_or_seed_is_another_stream(name):
    draws = {stream(seed, *parts).random() for seed in (0, 1) for parts in (name, (*name, 0))}
    assert len(draws) == 4


def test_derived_seeds_fit_into_31_bits():
    seeds = [derived_seed(0, "reset", index) for index in range(1000)]
    assert min(seeds) >= 0 and max(seeds) < 2**31 and len(set(seeds)) == 1000


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="expected an integer >= 0, got -1"):
        stream(-1, "x")
