import warnings
from dataclasses import replace

import numpy as np
import pytest

from feedbackgen.errors import RecipeError
from presa.aggregation import (
    AggregationConfig,
    aggregate,
    cloning_weights,
    episode_scores,
    reference_weights,
    safe_posterior,
)


def simulated_labels(flip_rate, rng, n_episodes=400, n_labels=25):
    clean = np.where(rng.random(n_episodes) < 0.5, 1.0, 0.1)
    observed = (1 - 2 * flip_rate) * clean + flip_rate
    n_safe = rng.binomial(n_labels, observed)
    return clean, n_safe, n_labels - n_safe


def test_an_episode_with_only_safe_labels_is_safe_and_one_with_only_unsafe_is_not():
    safe, _ = safe_posterior(np.array([20, 0, 20, 0]), np.array([0, 20, 0, 20]), 0.8)
    assert safe[0] > 0.95
    assert safe[1] < 0.01


def test_more_safe_labels_never_make_an_episode_less_safe():
    safe, _ = safe_posterior(np.arange(21), 20 - np.arange(21), 0.8)
    assert (np.diff(safe) >= -1e-12).all()


def test_an_episode_without_labels_gets_the_rate_of_the_others():
    safe, _ = safe_posterior(np.array([10] * 30 + [0] * 30 + [0]), np.array([0] * 30 + [10] * 30 + [0]), 0.8)
    assert 0.3 < safe[-1] < 0.6


@pytest.mark.parametrize("flip_rate", [0.0, 0.1, 0.2])
def test_the_flip_rate_is_found_from_the_labels_alone(flip_rate):
    _, n_safe, n_unsafe = simulated_labels(flip_rate, np.random.default_rng(0))
    assert safe_posterior(n_safe, n_unsafe, 0.8)[1] == pytest.approx(flip_rate, abs=0.05)


def test_flipped_labels_hardly_move_which_episodes_are_called_safe():
    clean, n_safe, n_unsafe = simulated_labels(0.1, np.random.default_rng(1))
    safe, _ = safe_posterior(n_safe, n_unsafe, 0.8)
    assert np.mean((safe > 0.5) == (clean > 0.8)) > 0.98


def test_scores_order_episodes_as_their_pairs_do():
    pairs = np.array([[0, 1], [1, 2], [0, 2]] * 10)
    scores, _ = episode_scores(pairs, np.ones(30), 4, 2.0)
    assert scores[0] < scores[1] < scores[2]
    assert scores[3] == 0


def test_swapping_pairs_and_labels_leaves_the_scores():
    rng = np.random.default_rng(0)
    pairs, labels = rng.integers(20, size=(300, 2)), rng.integers(2, size=300).astype(float)
    scores = episode_scores(pairs, labels, 20, 2.0)[0]
    np.testing.assert_allclose(episode_scores(pairs[:, ::-1], 1 - labels, 20, 2.0)[0], scores, atol=1e-3)


def test_a_score_solves_its_equation_by_hand():
    # One pair, second wins, prior 1: the scores are +-s with s = 1 - sigmoid(2 s), that is s = 0.337416.
    scores, flip_rate = episode_scores(np.array([[0, 1]]), np.ones(1), 2, 1.0)
    assert flip_rate == 0
    assert scores == pytest.approx([-0.337416, 0.337416], abs=1e-3)


def test_ties_leave_all_scores_equal():
    assert episode_scores(np.array([[0, 1], [1, 2]]), np.full(2, 0.5), 3, 2.0)[0] == pytest.approx(np.zeros(3))


def test_scores_survive_flipped_labels():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 2, 100)
    pairs = rng.integers(100, size=(3000, 2))
    labels = (rng.random(3000) < 1 / (1 + np.exp(truth[pairs[:, 0]] - truth[pairs[:, 1]]))) ^ (rng.random(3000) < 0.1)
    assert np.corrcoef(truth, episode_scores(pairs, labels, 100, 2.0)[0])[0, 1] > 0.9


def test_an_unsafe_episode_is_not_cloned_however_good_its_score():
    weights = cloning_weights(np.array([0.0, 1.0, 1.0]), np.array([5.0, 1.0, -1.0]), AggregationConfig())
    assert weights[0] < 1e-6
    assert weights[1] > weights[2] > 0
    assert weights.mean() == pytest.approx(1.0)


def test_beliefs_of_a_dataset_name_its_safe_and_good_episodes(noisy_data):
    beliefs = aggregate(noisy_data, AggregationConfig())
    kinds = np.arange(noisy_data.n_episodes) % 3
    believed = beliefs.safe > 0.5
    assert not believed[kinds == 0].any()  # in doubt an episode counts as unsafe
    assert believed[kinds != 0].mean() > 0.85
    of_kind = [beliefs.cloning_weights[kinds == kind].mean() for kind in range(3)]
    assert of_kind[1] > 2 * max(of_kind[0], of_kind[2])
    assert beliefs.safety_flip_rate == pytest.approx(0.1, abs=0.05)


def test_a_reference_of_few_episodes_is_warned_of(data):
    beliefs = replace(aggregate(data, AggregationConfig()), cloning_weights=np.zeros(data.n_episodes))
    beliefs.cloning_weights[:4] = 15, 15, 15, 15
    with pytest.warns(UserWarning, match=r"the reference clones the equivalent of 4\.0 episodes; more labels, or"):
        weights = reference_weights(data, beliefs)
    ends = data.episode_starts[4]
    assert (weights[:ends] == 15).all() and (weights[ends:] == 0).all() and len(weights) == data.n_steps
    beliefs.cloning_weights[4] = 15  # the equivalent of five
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reference_weights(data, beliefs)


@pytest.mark.parametrize("values", [{"safe_share": 1.0}, {"safe_power": -1.0}, {"score_std": 0.0}])
def test_a_value_out_of_range_is_refused(values):
    with pytest.raises(RecipeError, match=next(iter(values))):
        AggregationConfig(**values)
