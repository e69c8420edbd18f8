"""CDT sees the true rewards and costs: what an episode is still to have decides its action."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from feedbackgen.errors import RecipeError
from presa.acting import load_any_policy
from presa.algorithms.cdt import (
    CDT,
    PRESETS,
    CDTConfig,
    Windows,
    best_target,
    cdt_loss,
    draw_windows,
    sums_to_go,
    targets_to_go,
)
from presa.transformer import DecisionTransformer, Memory, Predictions

SMALL = CDTConfig(
    context=3,
    n_units=32,
    n_layers=1,
    n_heads=2,
    dropout=0.0,
    n_steps=1_000,
    learning_rate=1e-2,
    warmup_steps=20,
    gradient_norm_max=1.0,
    cost_weight=1.0,
)


def test_sums_to_go_worked_by_hand():
    # Two episodes: 1, 2, 3 and 4, 5.
    assert sums_to_go(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0, 3, 5])).tolist() == [6, 5, 3, 9, 5]


def test_costs_stand_before_returns(rewarded):
    # Episode 0 acts 0.9 * state and costs 1 at each of its 40 steps; episode 1 acts 0.4 * state and costs nothing.
    to_go = targets_to_go(rewarded)
    assert to_go[[0, 39, 40], 0].tolist() == [40, 1, 0]
    np.testing.assert_allclose(to_go[[0, 39, 40], 1], [36, 0.9, 16], atol=0.5)


@pytest.mark.parametrize(("cost_limit", "return_"), [(25.0, 7.0), (5.0, 3.0), (1.0, 2.0)])
def test_the_target_is_the_limit_and_the_best_return_within_it(cost_limit, return_):
    # Nothing is within 1: of the two that cost 4, the better.
    episodes = np.array([[30.0, 9.0], [25.0, 7.0], [5.0, 3.0], [4.0, 2.0], [4.0, 1.0]])
    assert best_target(episodes, cost_limit).tolist() == [cost_limit, return_]


def test_a_window_is_what_acting_would_look_at(rewarded):
    learner = CDT(rewarded, replace(SMALL, batch_size=400), 0)
    windows = draw_windows(rewarded, learner._to_go, learner._config, torch.Generator().manual_seed(0))
    lengths = windows.inside.sum(1)
    assert set(lengths.tolist()) == {1, 2, 3}
    assert (windows.times[lengths < 3, 0] == 0).all()  # only the start of an episode cuts them
    inside = windows.inside[:, 1]
    steps = windows.times[:, 1] - windows.times[:, 0]
    assert (steps[inside] == 1).all()
    rewards = (windows.actions * windows.observations.sign())[..., 0]
    passed = windows.to_go[:, 0] - windows.to_go[:, 1]  # what step 0 came to
    torch.testing.assert_close(passed[inside, 0], windows.costs[inside, 0])
    torch.testing.assert_close(passed[inside, 1], rewards[inside, 0], atol=1e-4, rtol=0)


def test_the_loss_worked_by_hand_and_without_what_lies_outside():
    # One action at its mean, of deviation 1: log-likelihood -0.9189, entropy 1.4189; a cost at even odds: 0.6931.
    predictions = Predictions(torch.tensor([[[0.3], [9.0]]]), torch.zeros(1, 2, 1), torch.tensor([[0.0, 9.0]]))
    windows = Windows(
        torch.zeros(1, 2, 2),
        torch.zeros(1, 2, 1),
        torch.tensor([[[0.3], [0.0]]]),
        torch.tensor([[0, 1]]),
        torch.zeros(1, 2),
        torch.tensor([[True, False]]),
    )
    loss, log_likelihood = cdt_loss(predictions, windows, CDTConfig())
    assert log_likelihood.item() == pytest.approx(-0.9189, abs=1e-4)
    assert loss.item() == pytest.approx(0.9189 - 0.1 * 1.4189 + 0.02 * 0.6931, abs=1e-4)


def test_the_losss_gradient_agrees_with_finite_differences(rewarded):
    config = replace(SMALL, n_units=4, n_heads=2, context=3, batch_size=4)
    learner = CDT(rewarded, config, 0)
    drawn = draw_windows(rewarded, learner._to_go, config, torch.Generator().manual_seed(1))
    windows = Windows(*(part.double() if part.is_floating_point() else part for part in drawn))
    network = learner.policy.double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(parameter.numel()))
    names = ["tokens.1.weight", "times.weight", "blocks.0.queries_keys_values.weight", "action_head.bias"]
    checked = dict(network.named_parameters())

    def loss(*values):
        inputs = (windows.to_go, windows.observations, windows.actions, windows.times, 0.2)
        generator = torch.Generator().manual_seed(2)  # the same dropout each time
        replaced = dict(zip(names, values, strict=True))
        return cdt_loss(torch.func.functional_call(network, replaced, (*inputs, generator)), windows, config)[0]

    given = [checked[name].detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(loss, given)


def played_gain(policy: DecisionTransformer, target: tuple[float, float]) -> float:
    """Mean gain of the actions of one episode, told of its rewards ``a * state`` and costs."""
    policy.target.copy_(torch.tensor(target))
    memory, rng = Memory(policy), np.random.default_rng(0)
    gains = []
    for state in rng.choice([-1.0, 1.0], 40):
        gain = float(memory.choose(torch.tensor([state], dtype=torch.float32), rng) * state)
        memory.observe(gain, float(gain > 0.65))
        gains.append(gain)
    return float(np.mean(gains))


def test_the_target_decides_the_action(rewarded):
    learner = CDT(rewarded, SMALL, 0)
    cost, return_ = learner.policy.target.tolist()
    assert (cost, return_) == (10.0, pytest.approx(16.0, abs=0.5))  # the limit, and the best of the good episodes
    for step in range(learner.n_steps):
        learner.update(step)
    # Cost and return of a reckless, a good and a bad episode.
    gains = [played_gain(learner.policy, target) for target in [(40.0, 36.0), (0.0, 16.0), (0.0, -16.0)]]
    assert gains == pytest.approx([0.9, 0.4, -0.4], abs=0.15)


def test_whether_a_step_costs_is_told_from_its_action(rewarded):
    learner = CDT(rewarded, SMALL, 0)
    for step in range(learner.n_steps):
        learner.update(step)
    windows = draw_windows(rewarded, learner._to_go, SMALL, torch.Generator().manual_seed(0))
    logits = learner.policy(windows.to_go, windows.observations, windows.actions, windows.times).cost_logits
    assert ((logits > 0) == (windows.costs > 0))[windows.inside].float().mean() > 0.95


def test_the_rate_warms_up(rewarded):
    learner = CDT(rewarded, replace(SMALL, learning_rate=1e-3, warmup_steps=4), 0)
    rates = []
    for step in range(6):
        learner.update(step)
        rates.append(learner._optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3])


def test_a_resumed_run_equals_an_undisturbed_one(rewarded, resumed):
    config = replace(SMALL, n_steps=700, batch_size=4, n_units=8, dropout=0.1, warmup_steps=600)
    run = resumed(rewarded, config, {"method": "cdt", "seed": 3, "task": "two-states"})
    assert load_any_policy(run).act(np.ones(1), np.random.default_rng(0)).shape == (1,)


def test_the_preset_osrl_has_the_numbers_of_osrl():
    preset = PRESETS["osrl"]
    assert (preset.n_steps, preset.batch_size, preset.learning_rate) == (100_000, 2048, 1e-4)
    assert (preset.context, preset.n_units, preset.n_layers, preset.n_heads, preset.dropout) == (10, 128, 3, 8, 0.1)
    assert (preset.warmup_steps, preset.weight_decay, preset.gradient_norm_max) == (500, 1e-4, 0.25)
    assert (preset.entropy_weight, preset.cost_weight) == (0.1, 0.02)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"context": 0}, "context: expected a number above 0, got 0"),
        ({"entropy_weight": -1.0}, "entropy_weight: expected a number >= 0, got -1.0"),
        ({"dropout": 1.0}, "dropout: expected 0 to below 1, got 1.0"),
        ({"n_units": 12}, "n_units: expected a multiple of n_heads 8, got 12"),
    ],
)
def test_a_value_out_of_range_is_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        CDTConfig(**values)
