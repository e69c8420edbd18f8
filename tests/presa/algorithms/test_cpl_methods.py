"""CPL learns what is preferred, safe or not; safety-first CPL what is preferred among the safe."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from feedbackgen.errors import DataError, RecipeError
from presa.algorithms.cpl import CPL, CPLConfig
from presa.algorithms.cpl_safety_first import CPLSafetyFirst, CPLSafetyFirstConfig, safety_first
from presa.contrastive import preference_loss, preferred_mean


def small(kind, small_config):
    return kind(
        policy=small_config.policy, cloning=small_config.cloning, n_steps=600, learning_rate=1e-3, n_pairs=16,
        n_segment_steps=4,
    )  # fmt: skip


def learnt_gain(learner) -> float:
    for step in range(learner.n_steps):
        learner.update(step)
    with torch.no_grad():
        below, above = learner.policy(torch.tensor([[-1.0], [1.0]])).flatten().tolist()
    return (above - below) / 2


def test_cpl_follows_the_reward_into_the_unsafe_and_safety_first_does_not(data, small_config):
    # Reckless episodes act 0.9 * state and are preferred to all others; the safe optimum is 0.4.
    assert learnt_gain(CPL(data, small(CPLConfig, small_config), 0)) > 0.6
    assert 0.1 < learnt_gain(CPLSafetyFirst(data, small(CPLSafetyFirstConfig, small_config), 0)) < 0.6


def test_safety_decides_first_as_far_as_it_is_known():
    first, second = np.array([1, 0, 1, 0, 0.8, 0.5]), np.array([0, 1, 1, 0, 0.5, 0.5])
    preferences = np.array([1, 0.5, 1, 0.5, 1, 0])
    # Sure: the safe one wins the first two, the preference stands in the next two. Else: the second alone is safe with
    # 0.2 * 0.5, the first alone with 0.8 * 0.5, so 0.1 + (1 - 0.1 - 0.4) * 1; and 0.25 + (1 - 0.25 - 0.25) * 0.
    np.testing.assert_allclose(safety_first(first, second, preferences), [0, 1, 1, 0.5, 0.6, 0.25])
    np.testing.assert_allclose(
        safety_first(second, first, 1 - preferences), 1 - safety_first(first, second, preferences)
    )


def test_safety_decides_also_where_no_segment_of_a_pair_was_judged(data, small_config):
    # As `fbgen label` draws them: preferences are of other segments than safety labels.
    judged = data.safety_segments % 2 == 0
    odd = (data.pairs % 2 == 1).all(axis=1)
    apart = replace(
        data,
        pairs=data.pairs[odd],
        preferences=data.preferences[odd],
        safety_segments=data.safety_segments[judged],
        safety_labels=data.safety_labels[judged],
    )
    assert odd.sum() > 50 and not np.isin(apart.pairs, apart.safety_segments).any()
    learner = CPLSafetyFirst(apart, small(CPLSafetyFirstConfig, small_config), 0)
    assert 0.1 < learnt_gain(learner) < 0.6


def test_swapping_a_pair_swaps_the_label():
    first, second, labels = torch.tensor([0.3, -1.0]), torch.tensor([1.2, 0.4]), torch.tensor([1.0, 0.5])
    loss = preference_loss(first, second, labels, 0.5)
    assert torch.equal(loss, preference_loss(second, first, 1 - labels, 0.5))
    # softplus(-(1.2 - 0.5 * 0.3)) = log(1 + exp(-1.05)) = 0.3001; the tie: half of log(1 + exp(-0.9)) and of
    # log(1 + exp(1.2)), (0.3412 + 1.4633) / 2 = 0.9022; mean 0.6012
    assert float(loss) == pytest.approx(0.6012, abs=1e-4)


def test_the_mean_over_winners_leaves_ties_out():
    values = torch.tensor([[1.0, 3.0], [10.0, 20.0], [5.0, 5.0], [7.0, 9.0], [0.0, 0.0], [6.0, 6.0]])
    # The second wins the first pair, the first the second: (7 + 9 + 10 + 20) / 4
    assert preferred_mean(values, torch.tensor([1.0, 0.0, 0.5])) == 11.5
    assert torch.isnan(preferred_mean(values, torch.full((3,), 0.5)))


def test_a_resumed_run_takes_the_same_steps(data, small_config):
    config = small(CPLConfig, small_config)
    straight, first, second = (CPL(data, config, 0) for _ in range(3))
    for step in range(450):
        straight.update(step)
    for step in range(400):
        first.update(step)
    second.load_state(first.state())
    for step in range(400, 450):
        second.update(step)
    for one, other in zip(straight.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_feedback_without_preferences_and_values_out_of_range_are_refused(data):
    with pytest.raises(DataError, match="cpl learns from preferences, the feedback holds none"):
        CPL(replace(data, pairs=data.pairs[:0], preferences=data.preferences[:0]), CPLConfig(), 0)
    with pytest.raises(DataError, match="cpl-safety-first learns from safety labels"):
        none = replace(data, safety_segments=data.safety_segments[:0], safety_labels=data.safety_labels[:0])
        CPLSafetyFirst(none, CPLSafetyFirstConfig(), 0)
    with pytest.raises(RecipeError, match="conservative_bias: expected a number from 0 to 1, got 2"):
        CPLConfig(conservative_bias=2)
    with pytest.raises(RecipeError, match="n_segment_steps: expected a number >= 0, got -1"):
        CPLConfig(n_segment_steps=-1)
