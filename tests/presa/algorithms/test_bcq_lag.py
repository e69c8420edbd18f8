"""BCQ-Lag sees the true rewards and costs: the best of actions like the dataset's, less the charged cost value."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from feedbackgen.errors import RecipeError
from presa.algorithms.bcq_lag import PRESETS, BCQLag, BCQLagConfig, soft_lowest
from presa.critics import draw_transitions

SMALL = BCQLagConfig(
    shift_sizes=(16,),
    critic_sizes=(32, 32),
    vae_sizes=(32,),
    n_steps=1_200,
    batch_size=64,
    learning_rate=3e-3,
    reward_scale=1.0,
    discount=0.5,
    target_rate=0.05,
    divergence_weight=0.01,
    proportional_gain=0.5,
    integral_gain=0.05,
)


def learnt_gain(learner) -> float:
    for step in range(learner.n_steps):
        learner.update(step)
    rng = np.random.default_rng(0)
    states = torch.tensor([[-1.0], [1.0]]).repeat(50, 1)
    return float(np.mean([float(learner.policy.choose(state, rng) * state) for state in states]))


def test_the_soft_lowest_of_two_critics_worked_by_hand():
    # 0.75 * 1 + 0.25 * 3 = 1.5
    assert soft_lowest(torch.tensor([[3.0], [1.0]]), 0.75).item() == pytest.approx(1.5)


def test_cost_values_below_0_are_not_learnt_from(rewarded):
    learner = BCQLag(rewarded, SMALL, 0)
    with torch.no_grad():
        for network in learner._target.cost_critics.networks:
            network[-1].bias.fill_(-100.0)
    batch = draw_transitions(rewarded, 50, torch.Generator().manual_seed(0))
    _, cost_targets = learner._targets(batch, torch.Generator().manual_seed(0))
    assert torch.equal(cost_targets, batch.costs)


def test_bcq_lag_chooses_the_reckless_action_only_where_it_costs_nothing(rewarded):
    free = replace(rewarded, costs=torch.zeros_like(rewarded.costs))
    strict = replace(rewarded, cost_limit=1.0)  # of 40 reckless steps
    gain, bound = learnt_gain(BCQLag(free, SMALL, 0)), learnt_gain(BCQLag(strict, SMALL, 0))
    assert gain > 0.5  # the mean of the dataset is 0.3
    assert bound < gain - 0.1


def test_the_preset_osrl_has_the_numbers_of_osrl():
    preset = PRESETS["osrl"]
    assert (preset.n_steps, preset.batch_size, preset.shift_max, preset.lowest_weight) == (100_000, 512, 0.05, 0.75)
    assert preset.target_rate == 0.005


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_the_budget_is_several_times_that_in_which_a_value_comes_to_rest(preset):
    assert preset.n_steps * preset.target_rate * (1 - preset.discount) > 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_candidates": 0}, "n_candidates: expected a number above 0, got 0"),
        ({"shift_max": -1.0}, "shift_max: expected a number >= 0, got -1.0"),
        ({"discount": 0.0}, "discount: expected above 0 to 1, got 0.0"),
        ({"lowest_weight": 2.0}, "lowest_weight: expected 0 to 1, got 2.0"),
    ],
)
def test_a_value_out_of_range_is_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        BCQLagConfig(**values)
