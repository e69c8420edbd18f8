"""Safe-RLHF learns a reward and a cost from labels, and a policy under their constraint."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from feedbackgen.errors import DataError, RecipeError
from presa import lagrange
from presa.algorithms.safe_rlhf import (
    PHASES,
    SafeRLHF,
    SafeRLHFConfig,
    advantage_weights,
    cost_loss,
    generalised_advantages,
    window_sums,
)

PROVENANCE = {"method": "safe-rlhf", "seed": 3, "task": "two-states"}


@pytest.fixture
def config(small_config):
    return SafeRLHFConfig(
        policy=small_config.policy, cloning=small_config.cloning,
        improvement=replace(small_config.cloning, n_steps=600),
        n_reward_steps=200, n_cost_steps=200, n_value_steps=200, n_units=16, model_learning_rate=3e-3, n_pairs=32,
        n_safety_segments=32, n_segment_steps=4, n_value_rows=256,
    )  # fmt: skip


def trained(data, config, seed=0):
    learner = SafeRLHF(data, config, seed)
    return learner, [learner.update(step) for step in range(learner.n_steps)]


def learnt_gain(learner: SafeRLHF) -> float:
    with torch.no_grad():
        below, above = learner.policy(torch.tensor([[-1.0], [1.0]])).flatten().tolist()
    return (above - below) / 2


def test_cost_loss_worked_by_hand():
    # (softplus(-1) + softplus(-2)) / 2 = (0.313262 + 0.126928) / 2: an unsafe segment at 1, a safe one at -2
    loss = cost_loss(torch.tensor([1.0, -2.0]), torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx(0.220095, abs=1e-6)


def test_advantages_worked_by_hand():
    # One episode of three steps, discount 0.5: residuals 0.5 * 2 + 0.5 * 3 - 1 = 1.5 and 0.5 * 4 + 0.5 * 2 - 3 = 0;
    # then a step alone. The last step of an episode has none.
    signals, values = np.array([[2.0], [4.0], [9.0], [7.0]]), np.array([[1.0], [3.0], [2.0], [5.0]])
    one = generalised_advantages(signals, values, np.array([0, 3, 4]), 0.5, 1.0)
    np.testing.assert_allclose(one[:, 0], [1.5, 0, 0, 0])
    # With values 1, 2, 2 the second residual is 1, and reaches the first as 0.5 * 0.8 * 1; its own is 1.
    values[1] = 2.0
    two = generalised_advantages(signals, values, np.array([0, 3, 4]), 0.5, 0.8)
    np.testing.assert_allclose(two[:, 0], [1.4, 1, 0, 0])


def test_a_steady_signal_at_its_value_has_no_advantage():
    steady = np.full((10, 2), 0.7)
    advantages = generalised_advantages(steady, steady, np.array([0, 4, 10]), 0.99, 0.95)
    np.testing.assert_allclose(advantages, 0, atol=1e-12)


def test_the_sum_from_a_step_on_stays_within_its_episode():
    # Episodes of 4, 1 and 2 steps, segments of 2: the last step of the first shares the segment before it.
    sums = window_sums(np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]), np.array([0, 4, 5, 7]), 2)
    np.testing.assert_allclose(sums, [3, 6, 12, 12, 16, 96, 96])


def test_advantage_weights_worked_by_hand():
    # exp((1 - 3 * 0.2) / 0.5) = exp(0.8), and a large advantage is capped
    weights = advantage_weights(torch.tensor([1.0, 90.0]), torch.tensor([0.2, 0.0]), 3.0, 0.5, 20.0)
    np.testing.assert_allclose(weights.numpy(), [math.exp(0.8), 20.0], rtol=1e-5)


def test_gradients_of_the_cost_loss_agree_with_finite_differences():
    costs = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64, requires_grad=True)
    unsafe = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda values: cost_loss(values, unsafe), (costs,))


def test_the_models_learn_what_is_preferred_and_what_is_unsafe(data, config):
    learner, rows = trained(data, config)
    steps = torch.tensor([[1.0, -0.4], [1.0, 0.4], [1.0, 0.9]])  # bad, good, reckless
    with torch.no_grad():
        bad, good, reckless = learner._networks["reward"](steps).flatten().tolist()
        costs = learner._networks["cost"](steps).flatten().tolist()
    assert bad < good < reckless
    assert costs[0] < 0 and costs[1] < 0 < costs[2]
    assert [phase for phase, _ in rows][::100] == [
        PHASES[phase] for phase in (0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4, 4, 4)
    ]


def test_safe_rlhf_learns_the_safe_and_preferred_action(data, config):
    # The safe optimum is 0.4; every step alike clones to 0.3, the safe ones to 0.
    learner, rows = trained(data, config)
    assert 0.3 < learnt_gain(learner) < 0.65
    values = [row["constraint_value"] for phase, row in rows if phase == "policy"]
    assert np.mean(values[-100:]) > np.mean(values[:10])
    assert np.mean(values[-100:]) == pytest.approx(0.95, abs=0.03)


def test_safe_rlhf_learns_it_from_labels_of_which_a_tenth_is_flipped(noisy_data, config):
    assert 0.25 < learnt_gain(trained(noisy_data, config)[0]) < 0.7


def test_without_its_constraint_the_preferred_action_is_the_reckless_one(data, config):
    free = replace(config, multiplier_initial=0.0, multiplier_rate=0.0)
    assert learnt_gain(trained(data, free)[0]) > 0.7


def test_the_multiplier_rises_to_its_cap_under_a_constraint_out_of_reach_and_says_so(data, config, monkeypatch):
    monkeypatch.setattr(lagrange, "UPDATES_AT_CAP", 5)
    strict = replace(config, threshold=1.0, multiplier_max=1.5)
    with pytest.warns(UserWarning, match=r"rests at the cap 1\.5"):
        rows = [row for phase, row in trained(data, strict)[1] if phase == "policy"]
    assert all(then["multiplier"] >= now["multiplier"] for now, then in pairwise(rows))
    assert rows[-1]["multiplier"] == 1.5


@pytest.mark.parametrize("n_steps", [250, 150])  # the phases end where states are saved, or elsewhere
def test_a_resumed_run_equals_an_undisturbed_one(data, config, resumed, n_steps):
    config = replace(
        config, cloning=replace(config.cloning, n_steps=n_steps), improvement=replace(config.improvement, n_steps=600),
        n_reward_steps=n_steps, n_cost_steps=n_steps, n_value_steps=n_steps + 30,
    )  # fmt: skip
    # In or behind each phase from the cost model on; each state was saved at the multiple of 500 before.
    resumed(data, config, PROVENANCE, stops=(600, 1100))


def test_feedback_that_lacks_a_kind_of_label_is_refused(data, config):
    with pytest.raises(DataError, match="safe-rlhf learns from preferences, the feedback holds none"):
        SafeRLHF(replace(data, pairs=data.pairs[:0], preferences=data.preferences[:0]), config, 0)
    with pytest.raises(DataError, match="all 600 labels say safe"):
        SafeRLHF(replace(data, safety_labels=np.abs(data.safety_labels)), config, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_value_steps": 0}, "n_value_steps: expected a number above 0, got 0"),
        ({"multiplier_rate": -1.0}, "multiplier_rate: expected a number >= 0, got -1.0"),
        ({"trace_decay": 1.5}, "trace_decay: expected a number from 0 to 1, got 1.5"),
        ({"discount": 1.0}, "discount: expected 0 to below 1, got 1.0"),
    ],
)
def test_a_value_out_of_range_is_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        SafeRLHFConfig(**values)
