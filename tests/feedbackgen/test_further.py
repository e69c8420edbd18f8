"""Ratings, pairwise safety, episodes' safety labels, non-preferred episodes: by hand, noise, format and refusals."""

import dataclasses
import math
import shutil

import numpy as np
import pytest
from samples import DATASET, make_dataset
from scipy.stats import binom

from feedbackgen.annotation.export import joined, merge_feedback
from feedbackgen.errors import DataError, RecipeError
from feedbackgen.feedback import FURTHER, check_feedback, further_tables
from feedbackgen.further import bins_of
from feedbackgen.label import KINDS, LabelConfig, label, label_trajectories
from feedbackgen.store import open_feedback
from feedbackgen.types import Trajectories

ALL = LabelConfig(n_pairs=400, segment_length=20, teachers=("oracle",), kinds=KINDS, seed=4, n_non_preferred=15)
STORED = dataclasses.replace(ALL, n_pairs=60, segment_length=(10, 20), noise=0.1, n_non_preferred=5, cost_limit=10.0)
# Two-sided tests of a rate at this level each; a count outside the interval fails.
LEVEL = 1e-6


def make_trajectories(n_episodes=60, n_steps=200, seed=0):
    rng = np.random.default_rng(seed)
    quality = np.repeat(rng.random(n_episodes), n_steps)
    n_all = n_episodes * n_steps
    return Trajectories(
        observations=np.zeros((n_all, 1)),
        final_observations=np.zeros((n_episodes, 1)),
        actions=np.zeros((n_all, 1)),
        terminations=np.zeros(n_all, dtype=bool),
        starts=np.arange(n_episodes + 1) * n_steps,
        rewards=rng.normal(size=n_all) + quality,
        costs=np.float64(rng.random(n_all) < 0.2 * quality),
        policies=("some",) * n_episodes,
    )


def answer(**values):
    return label_trajectories(make_trajectories(), dataclasses.replace(ALL, **values), cost_limit=20.0, horizon=200)


def require_rate(n_happened, n_trials, rate):
    low, high = binom.interval(1 - LEVEL, n_trials, rate)
    assert low <= n_happened <= high


def test_bins_are_equally_wide_and_the_best_is_in_the_last():
    values = np.array([0.0, 0.9, 1.0, 4.9, 5.0, 9.99, 10.0])
    np.testing.assert_array_equal(bins_of(values, np.arange(7), 10), [0, 0, 1, 4, 5, 9, 9])
    np.testing.assert_array_equal(bins_of(values, np.array([3, 4]), 2), [0, 1])


def test_without_noise_every_kind_says_what_the_steps_say():
    trajectories, feedback = make_trajectories(), answer(rating_bins=5)
    segments = feedback.segments
    steps = (trajectories.starts[segments.episode] + segments.start)[:, None] + np.arange(20)
    returns, costs = trajectories.rewards[steps].sum(axis=1), trajectories.costs[steps].sum(axis=1)
    all_returns = np.lib.stride_tricks.sliding_window_view(trajectories.rewards.reshape(60, 200), 20, axis=1).sum(
        axis=2
    )
    shares = (returns - all_returns.min()) / (all_returns.max() - all_returns.min())
    ratings = feedback.ratings
    np.testing.assert_array_equal(ratings.label, np.minimum(np.floor(5 * shares), 4)[ratings.segment])
    assert set(ratings.label) == {0, 1, 2, 3, 4}
    safer = feedback.safety_preferences
    np.testing.assert_array_equal(safer.pair, feedback.preferences.pair)  # the same pairs, asked twice
    difference = costs[safer.pair[:, 1]] - costs[safer.pair[:, 0]]
    np.testing.assert_array_equal(safer.label, np.where(difference == 0, 0.5, difference < 0))
    episode_costs = trajectories.costs.reshape(60, 200).sum(axis=1)
    np.testing.assert_array_equal(feedback.episode_safety.episode, np.arange(60))
    np.testing.assert_array_equal(feedback.episode_safety.label, np.where(episode_costs <= 20, 1, -1))
    picked = feedback.non_preferred.episode
    assert len(set(picked)) == 15 and (episode_costs[picked] > 20).all()
    check_feedback(feedback)


def test_further_kinds_change_no_preference_and_no_safety_label():
    plain, more = answer(kinds=("preferences", "safety"), noise=0.1, n_non_preferred=None), answer(noise=0.1)
    for one, other in ((plain.preferences, more.preferences), (plain.safety, more.safety)):
        np.testing.assert_array_equal(one.label, other.label)
    places = [np.stack([of.segments.episode, of.segments.start])[:, of.preferences.pair] for of in (plain, more)]
    np.testing.assert_array_equal(*places)
    assert all(getattr(plain, group) is None for group in FURTHER)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_can_be_asked_for_alone_and_says_the_same(kind):
    alone, together = answer(kinds=(kind,), noise=0.1, n_non_preferred=None), answer(noise=0.1)
    group = kind.replace("-", "_")
    if kind == "non-preferred":
        assert set(together.non_preferred.episode) <= set(alone.non_preferred.episode)
    else:
        np.testing.assert_array_equal(getattr(alone, group).label, getattr(together, group).label)
    assert len(alone.preferences) == (400 if kind == "preferences" else 0)
    assert len(alone.safety) == (400 if kind == "safety" else 0)
    check_feedback(alone)


def test_noise_flips_each_kind_as_often_as_it_says():
    feedback = answer(n_pairs=4000, noise=0.2)
    oracle = feedback.oracle.further
    ratings = feedback.ratings
    moved = ratings.label.astype(int) - oracle["ratings_clean"]
    np.testing.assert_array_equal(moved != 0, oracle["ratings_flipped"])
    assert set(np.abs(moved)) == {0, 1}
    require_rate(np.count_nonzero(moved), len(moved), 0.2)
    inner = (oracle["ratings_clean"] > 0) & (oracle["ratings_clean"] < 9) & (moved != 0)
    require_rate(np.count_nonzero(moved[inner] > 0), np.count_nonzero(inner), 0.5)
    safer = feedback.safety_preferences
    decided = oracle["safety_preferences_clean"] != 0.5
    wrong = safer.label != oracle["safety_preferences_clean"]
    np.testing.assert_array_equal(wrong, oracle["safety_preferences_flipped"])
    require_rate(np.count_nonzero(wrong), np.count_nonzero(decided), 0.2)
    stated = feedback.attributes["statistics"]
    assert stated["rating_flips"]["realised"] == np.mean(moved != 0)
    assert stated["safety_preference_error"]["realised"] == np.mean(wrong[decided])
    assert stated["rating_flips"]["expected"] == pytest.approx(0.2)


def test_a_teacher_of_finite_rationality_errs_on_costs_as_bradley_terry_has_it():
    feedback = answer(
        n_pairs=4000, teachers=("calibrated+beta=2",), kinds=("safety-preferences",), n_non_preferred=None
    )
    costs, pair = feedback.oracle.segment_cost, feedback.safety_preferences.pair
    trajectories = make_trajectories()
    windows = np.lib.stride_tricks.sliding_window_view(trajectories.costs.reshape(60, 200), 20, axis=1).sum(axis=2)
    scale = math.sqrt(2) * windows.std()
    difference = costs[pair[:, 0]] - costs[pair[:, 1]]
    expected = 1 / (1 + np.exp(-2 * difference / scale))
    probability = feedback.oracle.further["safety_preferences_probability"]
    np.testing.assert_allclose(probability, expected, atol=1e-6)
    decided = difference != 0
    errors = (feedback.safety_preferences.label == 1) != (difference > 0)
    mean = np.where(difference > 0, 1 - expected, expected)[decided].mean()
    # Errors of different probability vary less than those of one binomial of the same mean.
    require_rate(np.count_nonzero(errors[decided]), np.count_nonzero(decided), mean)


def test_misses_and_false_alarms_reach_episodes_too():
    feedback = label_trajectories(
        make_trajectories(n_episodes=2000, n_steps=40),
        dataclasses.replace(ALL, miss_rate=0.3, false_alarm_rate=0.1, n_non_preferred=500),
        cost_limit=4.0,
        horizon=40,
    )
    clean, flipped = (feedback.oracle.further[f"episode_safety_{name}"] for name in ("clean", "flipped"))
    np.testing.assert_array_equal(feedback.episode_safety.label, np.where(flipped, -clean, clean))
    for label_, rate in ((-1, 0.3), (1, 0.1)):
        require_rate(np.count_nonzero(flipped & (clean == label_)), np.count_nonzero(clean == label_), rate)
    picked_safe = feedback.oracle.further["non_preferred_clean"] == 1
    require_rate(np.count_nonzero(picked_safe), 500, 0.1)
    assert feedback.attributes["statistics"]["non_preferred_mistakes"]["realised"] == np.mean(picked_safe)


def test_drift_makes_late_ratings_worse():
    feedback = answer(n_pairs=4000, kinds=("ratings",), drift=0.4, n_non_preferred=None)
    flipped = feedback.oracle.further["ratings_flipped"]
    for half, rate in ((flipped[:2000], 0.1), (flipped[2000:], 0.3)):
        require_rate(np.count_nonzero(half), 2000, rate)


@pytest.fixture
def store():
    make_dataset(40)
    config = dataclasses.replace(
        ALL, n_pairs=60, segment_length=(10, 20), noise=0.1, n_non_preferred=5, cost_limit=10.0
    )
    return label(DATASET, config).path


def test_what_is_stored_comes_back_with_and_without_the_oracle(store):
    feedback, known = open_feedback(store), open_feedback(store, with_oracle=True)
    assert feedback.attributes["further"] == list(FURTHER)
    assert feedback.oracle is None and set(known.oracle.further) == {
        *("ratings_clean", "ratings_flipped", "non_preferred_clean", "episode_safety_clean", "episode_safety_flipped"),
        *(f"safety_preferences_{name}" for name in ("probability", "clean", "flipped")),
    }
    assert feedback.ratings.label.dtype == np.int8 and len(feedback.episode_safety) == 40
    tables = further_tables(feedback)
    assert list(tables["safety_preferences"]) == [
        *(f"{side}_{name}" for side in ("first", "second") for name in ("episode", "start", "length")),
        *("label", "annotator"),
    ]
    assert set(tables["ratings"]["length"]) == {10, 20}


def test_a_group_that_was_lost_is_named(store):
    shutil.rmtree(store / "ratings")
    with pytest.raises(DataError, match="no array ratings/segment; label the dataset again"):
        open_feedback(store)


@pytest.mark.parametrize(
    ("group", "name", "value", "message"),
    [
        ("ratings", "label", 10, "ratings/label: expected one of 10 bins, got 10 at index 0"),
        ("ratings", "segment", 10**6, "ratings/segment: expected one of .* segments, got 1000000"),
        ("safety_preferences", "label", 0.3, "safety_preferences/label: expected one of 0, 0.5, 1, got 0.3"),
        ("episode_safety", "label", 0, "episode_safety/label: expected one of -1, 1, got 0"),
        ("episode_safety", "annotator", -1, "episode_safety/annotator: expected at least 0, got -1"),
        ("non_preferred", "episode", -1, "non_preferred/episode: expected at least 0, got -1"),
    ],
)
def test_an_array_that_breaks_the_format_is_named(group, name, value, message):
    feedback = answer()
    values = getattr(feedback, group)
    array = getattr(values, name).copy()
    array[0] = value
    broken = dataclasses.replace(feedback, **{group: dataclasses.replace(values, **{name: array})})
    with pytest.raises(DataError, match=message):
        check_feedback(broken)


def test_an_episode_picked_twice_is_named():
    feedback = answer()
    episode = feedback.non_preferred.episode.copy()
    episode[1] = episode[0]
    twice = dataclasses.replace(feedback.non_preferred, episode=episode)
    with pytest.raises(DataError, match=f"non_preferred/episode: episode {episode[0]} is there twice"):
        check_feedback(dataclasses.replace(feedback, non_preferred=twice))


def test_an_episode_outside_the_dataset_is_named(store):
    import zarr

    zarr.open_group(store)["episode_safety/episode"][3] = 99
    with pytest.raises(DataError, match="episode_safety names episode 99, which is not among 40 episodes"):
        open_feedback(store)


def test_merged_stores_keep_every_kind(store):
    other = label(DATASET, dataclasses.replace(STORED, seed=9), name="other")
    merged = open_feedback(merge_feedback([f"{DATASET}/default", f"{DATASET}/other"], "both"))
    parts = [open_feedback(store), open_feedback(other.path)]
    assert len(merged.ratings) == sum(len(part.ratings) for part in parts)
    table, expected = further_tables(merged)["ratings"], [further_tables(part)["ratings"] for part in parts]
    for name in ("episode", "start", "length", "label"):
        np.testing.assert_array_equal(table[name], np.concatenate([part[name] for part in expected]))
    picked = set(parts[0].non_preferred.episode) | set(parts[1].non_preferred.episode)
    assert set(merged.non_preferred.episode) == picked and len(merged.non_preferred) == len(picked)
    parts[1].attributes["rating_bins"] = 7
    with pytest.raises(DataError, match=r"the stores differ in their rating_bins \(\[7, 10\]\); expected the same"):
        joined(parts)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kinds": ("ratngs",)}, "--feedback: expected some of preferences, safety, ratings, .* got ratngs"),
        ({"kinds": ("safety", "safety")}, "--feedback: expected each kind once, got safety,safety"),
        (
            {"kinds": ("ratings",), "n_safety": 5, "n_non_preferred": None},
            "--safety-labels and --feedback: expected",
        ),
        ({"kinds": ("safety",)}, "--non-preferred and --feedback: expected non-preferred among the kinds of feedback"),
        ({"rating_bins": 1}, "--rating-bins: expected 2 to 100, got 1"),
        ({"n_ratings": 0}, "--ratings: expected an integer >= 1, got 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        dataclasses.replace(ALL, **values)


def test_more_non_preferred_episodes_than_there_are_unsafe_ones_are_refused():
    message = r"\d+ of 60 episodes of the dataset cost more than 20, but 60 are to be picked; use a lower"
    with pytest.raises(DataError, match=message):
        answer(n_non_preferred=60)


def test_segments_that_all_cost_the_same_cannot_be_compared_by_safety():
    trajectories = dataclasses.replace(make_trajectories(), costs=np.zeros(12000))
    config = dataclasses.replace(ALL, kinds=("safety-preferences",), n_non_preferred=None)
    with pytest.raises(DataError, match="safety preferences: all segments of 20 steps cost 0, so none is safer"):
        label_trajectories(trajectories, config, cost_limit=20.0, horizon=200)
