import itertools

import numpy as np
import pytest
from scipy.stats import chi2

from feedbackgen.errors import DataError
from feedbackgen.seeding import stream
from feedbackgen.segments import (
    Strata,
    deal,
    discounted_sums,
    draw_pairs,
    draw_segments,
    enumerate_segments,
    segment_sums,
    split,
)

STARTS = np.array([0, 5, 7, 11])  # episodes of 5, 2 and 4 steps


def test_every_segment_within_one_episode_has_a_number():
    candidates = enumerate_segments(STARTS, 3)
    episodes, first_steps = candidates.locate(np.arange(candidates.n_segments))
    assert episodes.tolist() == [0, 0, 0, 2, 2]
    assert first_steps.tolist() == [0, 1, 2, 0, 1]


def test_an_episode_shorter_than_the_segment_yields_none():
    assert enumerate_segments(STARTS, 5).offsets.tolist() == [0, 1, 1, 1]


def test_a_segment_longer_than_all_episodes_is_refused_with_the_longest():
    with pytest.raises(DataError) as refusal:
        enumerate_segments(np.array([0, 500, 600]), 600, dataset="feedbackgen/a-v0")
    assert str(refusal.value) == (
        "segment length 600: longest episode of feedbackgen/a-v0 has 500 steps; use --segment-length 500 or less"
    )


def test_segment_sums_add_the_steps_of_each_segment():
    values = np.array([1, 2, 3, 4, 5, 100, 100, 6, 7, 8, 9])
    assert segment_sums(values, STARTS, 3).tolist() == [6, 9, 12, 21, 24]


def test_segment_sums_of_equal_rewards_stay_equal_after_a_million_steps():
    starts = np.arange(0, 1_000_001, 1000)
    sums = segment_sums(np.full(1_000_000, 1e3 + 0.1), starts, 64)
    assert np.ptp(sums) < 1e-9 * sums[0]


def test_the_number_of_pairs_counts_those_that_share_no_step():
    # By hand: numbers 0, 1, 2 of episode 0 overlap each other, 3 and 4 of episode 2 as well; 3 * 2 pairs remain.
    assert enumerate_segments(STARTS, 3).n_pairs == 6
    assert enumerate_segments(np.array([0, 6]), 2).n_pairs == 6  # 0-2 0-3 0-4 1-3 1-4 2-4


def test_all_pairs_can_be_drawn_and_none_overlaps_or_comes_twice():
    candidates = enumerate_segments(np.array([0, 30, 55, 58]), 7)
    pairs = draw_pairs(candidates, candidates.n_pairs, stream(0, "pairs"))
    episodes, first_steps = candidates.locate(pairs)
    same_episode = episodes[:, 0] == episodes[:, 1]
    assert np.all(~same_episode | (np.abs(first_steps[:, 0] - first_steps[:, 1]) >= 7))
    assert len({frozenset(pair) for pair in pairs.tolist()}) == candidates.n_pairs


def test_more_pairs_than_there_are_is_refused_with_their_number():
    with pytest.raises(DataError) as refusal:
        draw_pairs(enumerate_segments(STARTS, 3), 7, stream(0, "pairs"))
    assert str(refusal.value) == (
        "pairs: 7 different pairs asked for, but there are 6 of segments of length 3 that share no step; "
        "use --pairs 6 or less, or a shorter --segment-length"
    )


def test_no_pair_at_all_is_refused_without_offering_zero():
    with pytest.raises(DataError, match="share no step; use a shorter --segment-length"):
        draw_pairs(enumerate_segments(np.array([0, 5]), 3), 1, stream(0, "pairs"))


def test_segments_of_pairs_are_uniform_over_all_starts():
    from scipy.stats import chisquare

    candidates = enumerate_segments(np.array([0, 10, 40, 140]), 1)
    pairs = draw_pairs(candidates, 2000, stream(3, "pairs"))
    counts = np.bincount(candidates.locate(pairs.ravel())[0], minlength=3)
    # Wrongly refused once in a thousand seeds.
    assert chisquare(counts, pairs.size * np.array([10, 30, 100]) / 140).pvalue > 1e-3


def test_both_orders_of_a_pair_are_drawn():
    pairs = draw_pairs(enumerate_segments(np.array([0, 1000]), 10), 1000, stream(0, "pairs"))
    assert 0.4 < np.mean(pairs[:, 0] < pairs[:, 1]) < 0.6


def test_drawn_segments_are_distinct():
    assert sorted(draw_segments(50, 50, stream(0, "safety-segments"))) == list(range(50))


def of_kinds(unsafe, share):
    return Strata(
        kinds=("that is unsafe", "that is safe"),
        kind=1 - unsafe.astype(np.int16),
        shares=(share, 1 - share),
        options="--unsafe-share",
    )


def test_strata_give_the_share_of_unsafe_segments_exactly():
    strata = of_kinds(np.arange(1000) < 20, 0.5)
    drawn = draw_segments(1000, 40, stream(0, "safety-segments"), strata=strata)
    assert np.sum(drawn < 20) == 20 and strata.most() == 40
    # Many pairs overlap within so short an episode, unsafe ones above all: drawing anew must not shift the share.
    unsafe = np.arange(1000) < 400
    for share in (0.25, 0.5, 0.9):
        strata = of_kinds(unsafe, share)
        pairs = draw_pairs(enumerate_segments(np.array([0, 1199]), 200), 2000, stream(0, "pairs"), strata=strata)
        assert unsafe[pairs].sum() == 4000 * share
        assert len({frozenset(pair) for pair in pairs.tolist()}) == 2000


@pytest.mark.parametrize(("n_drawn", "kind"), [(42, "unsafe"), (1970, "safe")])
def test_too_few_segments_of_a_stratum_are_refused(n_drawn, kind):
    strata = of_kinds(np.arange(1000) < 20, 0.5 if kind == "unsafe" else 0.01)
    message = (
        f"different segments that is {kind} asked for, there are .*; ask for fewer labels, or another --unsafe-share"
    )
    with pytest.raises(DataError, match=message):
        draw_segments(1000, n_drawn, stream(0, "safety-segments"), strata=strata)


def test_a_share_of_segments_that_are_not_there_is_refused():
    with pytest.raises(DataError) as refusal:
        of_kinds(np.zeros(10, dtype=bool), 0.5)
    assert str(refusal.value) == (
        "--unsafe-share: there is no segment that is unsafe; leave --unsafe-share out, or use another --segment-length"
    )


def test_accepted_pairs_alone_are_drawn_or_too_few_are_refused():
    candidates = enumerate_segments(np.array([0, 200]), 1)
    pairs = draw_pairs(candidates, 90, stream(0, "pairs"), accepts=lambda pairs: pairs.sum(axis=1) == 199)
    assert np.all(pairs.sum(axis=1) == 199)
    with pytest.raises(DataError) as refusal:
        draw_pairs(
            enumerate_segments(np.array([0, 20]), 1),
            11,
            stream(0, "pairs"),
            accepts=lambda pairs: pairs.sum(axis=1) == 19,
            options="--margin",
        )
    assert str(refusal.value) == (
        "pairs: 11 different pairs asked for, but only 10 of segments of length 1 that share no step were found by "
        "--margin; use --pairs 10 or less, or another --margin"
    )


def test_more_segments_than_there_are_is_refused():
    with pytest.raises(DataError, match="51 different segments asked for, there are 50; ask for fewer labels"):
        draw_segments(50, 51, stream(0, "safety-segments"))


def test_too_few_pairs_within_the_strata_are_refused():
    strata = of_kinds(np.arange(100) < 4, 1.0)
    with pytest.raises(DataError, match="only 6 of segments of length 1 that share no step were found by --unsafe"):
        draw_pairs(enumerate_segments(np.array([0, 100]), 1), 7, stream(0, "pairs"), strata=strata)


@pytest.mark.parametrize("at_once", [1, 9, 1_000_000])
def test_sums_are_those_of_each_segment_whatever_the_lengths_of_episodes(at_once, monkeypatch):
    monkeypatch.setattr("feedbackgen.segments.MAX_SUMMED", at_once)
    starts = np.cumsum([0, 4, 4, 4, 2, 5, 3, 3])
    values = np.random.default_rng(0).normal(size=starts[-1])
    expected = [
        values[step : step + 3].sum()
        for first, last in itertools.pairwise(starts)
        for step in range(first, last - 2)
    ]  # fmt: skip
    assert segment_sums(values, starts, 3) == pytest.approx(expected)


def test_every_ordered_choice_of_segments_is_equally_likely():
    """Chi-squared over the 5 x 4 ways to draw two of five: wrong once in a million runs."""
    rng = np.random.default_rng(0)
    drawn = np.array([draw_segments(5, 2, rng) for _ in range(20_000)])
    counts = np.bincount(drawn[:, 0] * 5 + drawn[:, 1], minlength=25).reshape(5, 5)
    assert np.diag(counts).sum() == 0
    counts = counts[~np.eye(5, dtype=bool)]
    assert chi2.sf(((counts - 1000) ** 2 / 1000).sum(), df=19) > 1e-6


@pytest.mark.parametrize("at_once", [50, 1_000_000])
def test_pairs_are_distinct_whatever_is_drawn_at_once(at_once, monkeypatch):
    monkeypatch.setattr("feedbackgen.segments.MAX_DRAW", at_once)
    pairs = draw_pairs(enumerate_segments(np.array([0, 12]), 2), 40, stream(0, "pairs"))
    assert len({frozenset(pair) for pair in pairs.tolist()}) == 40
    assert np.abs(pairs[:, 0] - pairs[:, 1]).min() >= 2


def test_parts_are_whole_and_exact_but_for_rounding():
    assert split((0.5, 0.3, 0.2), 10).tolist() == [5, 3, 2]
    assert split((1 / 3, 1 / 3, 1 / 3), 10).sum() == 10
    assert np.bincount(deal((0.25, 0.75), 8, stream(0, "deal"))).tolist() == [2, 6]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 11])
@pytest.mark.parametrize("discount_from", ["end", "start"])
def test_discounted_sums_weigh_each_step_by_its_distance(length, discount_from):
    starts = np.array([0, 5, 7, 18, 20])
    values = np.random.default_rng(0).normal(size=20)
    weights = 0.9 ** np.arange(length)
    weights = weights[::-1] if discount_from == "end" else weights
    first_steps = [
        first + t
        for first, last in itertools.pairwise(starts)
        for t in range(max(last - first - length + 1, 0))
    ]  # fmt: skip
    sums = discounted_sums(values, starts, length, discount=0.9, discount_from=discount_from)
    assert sums == pytest.approx([values[step : step + length] @ weights for step in first_steps], abs=1e-12)


def test_a_recent_step_counts_in_full_and_an_early_one_less():
    # By hand: 1 * 0.25 + 2 * 0.5 + 4, and 1 + 2 * 0.5 + 4 * 0.25.
    values, starts = np.array([1.0, 2.0, 4.0]), np.array([0, 3])
    assert discounted_sums(values, starts, 3, discount=0.5).tolist() == [5.25]
    assert discounted_sums(values, starts, 3, discount=0.5, discount_from="start").tolist() == [3.0]
