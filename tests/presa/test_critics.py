import numpy as np
import pytest
import torch

from presa.acting import load_any_policy
from presa.configuration import configured
from presa.critics import (
    ActionVAE,
    Critics,
    critic_loss,
    divergence,
    draw_transitions,
    follow,
    held,
    step_generator,
    vae_loss,
    value_limit,
)
from presa.methods import find_method


def test_the_limit_of_a_cost_value_is_the_share_of_its_first_steps():
    # 10 per 40 steps is 0.25 a step; discounted by 0.5 over 40 steps these are worth 2 of them.
    assert value_limit(10.0, 40, 0.5) == pytest.approx(0.5)
    assert value_limit(10.0, 40, 1.0) == pytest.approx(10.0)


def test_the_divergence_of_a_latent_worked_by_hand():
    # 0.5 * (1 + 4 - 1 - 2 log 2) = 1.306853, and 0 where it is standard; mean 0.653426
    value = divergence(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0]))
    assert value.item() == pytest.approx(0.653426, abs=1e-6)


def test_the_critic_loss_sums_the_critics_and_averages_the_batch():
    # (1 + 9) / 2 + (0 + 4) / 2 = 7
    values, targets = torch.tensor([[1.0, 3.0], [2.0, 4.0]]), torch.tensor([2.0, 6.0])
    assert critic_loss(values, targets).item() == pytest.approx(7.0)


def test_the_vae_loss_agrees_with_finite_differences():
    vae = ActionVAE(2, 1, (3,), seed=0).double()
    generator = torch.Generator().manual_seed(0)
    observations, noise = (torch.randn(4, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    actions = torch.rand(4, 1, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda acted: vae_loss(vae, observations, acted, noise, 0.5), (actions,))


def test_held_critics_pass_gradients_on_and_keep_none():
    critics, actions = Critics(1, 1, (4,), 2, seed=0), torch.zeros(3, 1, requires_grad=True)
    with held(critics):
        critics(torch.ones(3, 1), actions).sum().backward()
    assert actions.grad.abs().sum() > 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in critics.parameters())


def test_critics_of_one_ensemble_start_apart():
    first, second = Critics(1, 1, (4,), 2, seed=0)(torch.ones(1, 1), torch.ones(1, 1))
    assert first != second


def test_a_target_moves_by_its_rate():
    target, source = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    with torch.no_grad():
        target.weight.fill_(0.0)
        source.weight.fill_(10.0)
    follow(target, source, 0.1)
    assert target.weight.item() == pytest.approx(1.0)


def test_transitions_follow_from_seed_and_step_alone(rewarded):
    one, same = (draw_transitions(rewarded, 16, step_generator(0, "test", 3)) for _ in range(2))
    other = draw_transitions(rewarded, 16, step_generator(0, "test", 4))
    assert torch.equal(one.actions, same.actions)
    assert not torch.equal(one.actions, other.actions)
    np.testing.assert_allclose(one.rewards, (one.actions * one.observations)[:, 0], atol=0.05)


@pytest.mark.parametrize(
    ("method", "smaller"), [("cpq", {"policy.hidden_sizes": [16]}), ("bcq-lag", {"shift_sizes": [16]})]
)
def test_a_resumed_run_equals_an_undisturbed_one(rewarded, resumed, method, smaller):
    smaller |= {"n_steps": 700, "batch_size": 8, "critic_sizes": [4], "vae_sizes": [16]}
    config = configured(find_method(method).presets["default"], smaller)
    run = resumed(rewarded, config, {"method": method, "seed": 3, "task": "two-states"})
    assert load_any_policy(run).act(np.ones(1), np.random.default_rng(0)).shape == (1,)
