"""A token sees none that come later, and an episode's memory keeps account of its targets."""

import numpy as np
import pytest
import torch

from presa.transformer import DecisionTransformer, Memory, dropped

CONTEXT, OBSERVATION_DIM, ACTION_DIM = 4, 3, 2


@pytest.fixture
def network():
    network = DecisionTransformer(
        OBSERVATION_DIM, ACTION_DIM, n_times=9, context=CONTEXT, n_units=8, n_layers=2, n_heads=2, seed=0
    )
    with torch.no_grad():  # its first values are so small that what follows would hardly be seen
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    return network


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    shapes = [(5, CONTEXT, size) for size in (2, OBSERVATION_DIM, ACTION_DIM)]
    return [*(torch.randn(shape, generator=generator) for shape in shapes), torch.arange(CONTEXT).expand(5, -1)]


def test_each_step_of_each_window_has_its_predictions(network, inputs):
    means, log_stds, cost_logits = network(*inputs)
    assert means.shape == log_stds.shape == (5, CONTEXT, ACTION_DIM)
    assert cost_logits.shape == (5, CONTEXT)
    assert log_stds.min() >= -5 and log_stds.max() <= 2


@pytest.mark.parametrize("part", range(4))
def test_what_comes_later_changes_nothing_earlier(network, inputs, part):
    before = network(*inputs)
    changed = [each.clone() for each in inputs]
    changed[part][:, 2] += 1  # of step 2 of 0 to 3
    after = network(*changed)
    for earlier, later in zip(before, after, strict=True):
        torch.testing.assert_close(later[:, :2], earlier[:, :2], rtol=0, atol=0)
        assert (later[:, 3] != earlier[:, 3]).any()
    # A step's own action comes after what its action is told from, and before what its cost is.
    assert torch.equal(before.means[:, 2], after.means[:, 2]) == (part == 2)
    assert not torch.equal(before.cost_logits[:, 2], after.cost_logits[:, 2])


def test_windows_do_not_see_each_other(network, inputs):
    alone = network(*(each[:1] for each in inputs)).means
    torch.testing.assert_close(network(*inputs).means[:1], alone)


def test_equal_seeds_make_equal_networks_and_leave_the_global_generator_alone():
    shape = {"n_times": 9, "context": 4, "n_units": 8, "n_layers": 1, "n_heads": 2}
    state = torch.get_rng_state()
    one, same, other = (DecisionTransformer(1, 1, **shape, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["action_head.weight"], other["action_head.weight"])


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    values = dropped(torch.ones(10_000), 0.2, torch.Generator().manual_seed(0))
    assert sorted(set(values.tolist())) == [0.0, 1.25]
    assert values.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(dropped(torch.ones(5), 0.2, None), torch.ones(5))


def test_what_is_left_of_the_targets_worked_by_hand(network):
    network.target.copy_(torch.tensor([2.0, 10.0]))  # cost, return
    seen = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    memory, rng = Memory(network), np.random.default_rng(0)
    actions = []
    for reward, cost in [(1.5, 1.0), (-1.0, 0.0), (4.0, 2.0), (0.0, 0.0), (0.0, 0.0)]:
        actions.append(memory.choose(torch.full((OBSERVATION_DIM,), float(len(actions))), rng))
        memory.observe(reward, cost)
    # 10 - 1.5 = 8.5, + 1 = 9.5, - 4 = 5.5; 2 - 1 = 1, and 1 - 2 leaves 0; the first step is out of sight by then.
    to_go, observations, acted, times = seen[-1]
    assert to_go[0].tolist() == [[1.0, 8.5], [1.0, 9.5], [0.0, 5.5], [0.0, 5.5]]
    assert times[0].tolist() == [1, 2, 3, 4]
    assert observations[0, :, 0].tolist() == [1, 2, 3, 4]
    assert torch.equal(acted[0, :3], torch.stack(actions[1:4]))
    assert max(action.abs().max() for action in actions) <= 1


def test_a_fresh_memory_knows_nothing_of_another_episode(network):
    observation, rng = torch.ones(OBSERVATION_DIM), np.random.default_rng(0)
    memory = Memory(network)
    first = memory.choose(observation, rng)
    memory.observe(3.0, 1.0)
    assert not torch.equal(memory.choose(observation, rng), first)
    assert torch.equal(memory.fresh().choose(observation, rng), first)


def test_an_episode_longer_than_any_before_goes_on_with_the_last_time(network):
    memory = Memory(network)
    for _ in range(12):
        memory.choose(torch.ones(OBSERVATION_DIM), np.random.default_rng(0))
    assert memory._steps[-1][3].item() == 8
