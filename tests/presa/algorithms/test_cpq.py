"""CPQ sees the true rewards and costs: it learns the best action whose cost value is within the limit."""

from dataclasses import replace

import pytest
import torch

from feedbackgen.errors import RecipeError
from presa.algorithms.cpq import CPQ, PRESETS, CPQConfig, noisy_actions, permitted
from presa.policy import PolicyConfig

SMALL = CPQConfig(
    policy=PolicyConfig(hidden_sizes=(16,), std=0.1, n_components=1),
    critic_sizes=(32, 32),
    vae_sizes=(16,),
    n_steps=1_200,
    batch_size=64,
    policy_learning_rate=1e-3,
    critic_learning_rate=3e-3,
    vae_learning_rate=3e-3,
    reward_scale=1.0,
    discount=0.5,
    target_rate=0.05,
    penalty_rate=0.01,
)


def learnt_gain(learner) -> float:
    for step in range(learner.n_steps):
        learner.update(step)
    with torch.no_grad():
        below, above = learner.policy(torch.tensor([[-1.0], [1.0]])).flatten().tolist()
    return (above - below) / 2


def costless(data):
    return replace(data, costs=torch.zeros_like(data.costs))


def test_values_beyond_the_limit_count_nothing():
    values = permitted(torch.tensor([3.0, 3.0, -2.0]), torch.tensor([1.0, 1.1, 0.0]), 1.0)
    assert values.tolist() == [3.0, 0.0, -2.0]


def test_cpq_stops_between_the_good_and_the_reckless_and_without_costs_follows_the_reckless(rewarded):
    # The cost value steps from 0 at 0.4 to 2 at 0.9, and a network is smooth between them; its limit is 0.5.
    assert 0.1 < learnt_gain(CPQ(rewarded, SMALL, 0)) < 0.75
    assert learnt_gain(CPQ(costless(rewarded), SMALL, 0)) > 0.8


def test_the_penalty_raises_the_cost_value_outside_the_data(rewarded):
    def outside(rate):
        learner = CPQ(costless(rewarded), replace(SMALL, penalty_rate=rate, n_steps=300), 0)
        for step in range(learner.n_steps):
            learner.update(step)
        with torch.no_grad():
            return learner._outside_cost_value(rewarded.observations[:200], torch.Generator().manual_seed(0)).item()

    assert abs(outside(0.0)) < 0.02
    assert outside(0.05) > 0.05


def test_sampled_actions_stay_within_the_box_and_carry_the_gradient(rewarded):
    policy = CPQ(rewarded, replace(SMALL, policy=PolicyConfig(hidden_sizes=(4,), std=2.0, n_components=1)), 0).policy
    actions = noisy_actions(policy, rewarded.observations[:50], torch.Generator().manual_seed(0))
    assert actions.abs().max() == 1
    actions.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in policy.parameters())


def test_the_preset_osrl_has_the_budget_of_osrl():
    preset = PRESETS["osrl"]
    assert (preset.n_steps, preset.batch_size, preset.discount, preset.outside_limit) == (100_000, 512, 0.99, 1.5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_critics": 0}, "n_critics: expected a number above 0, got 0"),
        ({"policy": PolicyConfig()}, "policy.n_components: expected 1 for cpq, got 5"),
        ({"penalty_max": -1.0}, "penalty_max: expected a number >= 0, got -1.0"),
        ({"discount": 1.5}, "discount: expected above 0 to 1, got 1.5"),
    ],
)
def test_a_value_out_of_range_is_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        CPQConfig(**values)
