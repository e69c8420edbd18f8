import math
from dataclasses import replace

import pytest
import torch

from feedbackgen.errors import RecipeError
from presa.policy import GaussianPolicy, PiecewiseLinearEncoding, PolicyConfig, known_steps

SMALL = PolicyConfig(hidden_sizes=(8,), n_components=1, encoding_bins=0)
MIXTURE = replace(SMALL, n_components=4)


def test_the_log_density_is_that_of_a_normal_distribution():
    policy = GaussianPolicy(3, 2, SMALL, seed=0)
    observations, actions = torch.randn(5, 3), torch.rand(5, 2)
    expected = torch.distributions.Normal(policy(observations), 0.3).log_prob(actions).sum(-1)
    torch.testing.assert_close(policy.log_prob(observations, actions), expected)


def test_the_mean_action_has_the_highest_density():
    policy = GaussianPolicy(3, 2, SMALL, seed=0)
    observations = torch.randn(1, 3)
    peak = policy.log_prob(observations, policy(observations)).item()
    assert peak == pytest.approx(-2 * math.log(0.3 * math.sqrt(2 * math.pi)))


def test_means_stay_in_the_action_box():
    assert GaussianPolicy(3, 2, SMALL, seed=0)(1e6 * torch.randn(10, 3)).abs().max() <= 1


def test_the_seed_alone_decides_the_parameters():
    one, same, other = (GaussianPolicy(3, 2, SMALL, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.network[0].weight, same.network[0].weight)
    assert not torch.equal(one.network[0].weight, other.network[0].weight)


def test_making_a_policy_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    GaussianPolicy(3, 2, SMALL, seed=0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("config", [SMALL, MIXTURE])
def test_what_is_known_of_steps_in_chunks_equals_what_is_at_once(config):
    policy = GaussianPolicy(3, 2, config, seed=0)
    observations, actions = torch.randn(10, 3), torch.rand(10, 2)
    known = known_steps(policy, observations, actions, chunk=3)
    torch.testing.assert_close(known.log_probs, policy.log_prob(observations, actions))
    torch.testing.assert_close(known.own, policy(observations))
    torch.testing.assert_close(known.own_log_probs, policy.log_prob(observations, policy(observations)))


def test_the_log_density_of_a_mixture_is_that_of_its_components_together():
    policy = GaussianPolicy(3, 2, MIXTURE, seed=0)
    observations, actions = torch.randn(5, 3), torch.rand(5, 2)
    outputs = policy.network(observations)
    means, logits = torch.tanh(outputs[:, :8]).reshape(5, 4, 2), outputs[:, 8:]
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logits),
        torch.distributions.Independent(torch.distributions.Normal(means, 0.3), 1),
    )
    torch.testing.assert_close(policy.log_prob(observations, actions), mixture.log_prob(actions))
    expected = torch.stack([means[row, logits[row].argmax()] for row in range(5)])
    assert torch.equal(policy(observations), expected)


def test_a_mixture_learns_left_or_right_where_one_gaussian_goes_straight_on():
    observations = torch.ones(256, 1)
    actions = torch.where(torch.arange(256) < 160, 0.8, -0.8)[:, None]  # more right than left
    acted = {}
    for n_components in (1, 2):
        policy = GaussianPolicy(1, 1, replace(SMALL, n_components=n_components), seed=0)
        optimizer = torch.optim.Adam(policy.parameters(), lr=0.01)
        for _ in range(400):
            optimizer.zero_grad()
            (-policy.log_prob(observations, actions).mean()).backward()
            optimizer.step()
        acted[n_components] = policy(observations[:1]).item()
    assert acted[1] == pytest.approx(0.2, abs=0.02)  # the mean, which nobody did
    assert acted[2] == pytest.approx(0.8, abs=0.02)


def test_an_encoding_says_how_far_an_observation_reaches_into_each_part_of_its_range():
    encoding = PiecewiseLinearEncoding(torch.tensor([0.0, -1.0]), torch.tensor([4.0, 1.0]), 4)
    encoded = encoding(torch.tensor([[2.5, -1.0], [9.0, -0.25], [-3.0, 5.0]]))
    assert encoded.tolist() == [
        [2.5, -1.0, 1.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0],
        [9.0, -0.25, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0],
        [-3.0, 5.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0],
    ]


def test_an_encoded_policy_learns_a_narrow_edge_that_the_plain_one_smears():
    # Within a fifth of the spread the action turns from one end of the box to the other, twice.
    generator = torch.Generator().manual_seed(0)
    observations = torch.rand(512, 1, generator=generator) * 6 - 3
    actions = torch.where((observations - 1).abs() < 0.1, 0.9, -0.9)
    errors = {}
    for bins in (0, 32):
        ranges = torch.tensor([-3.0]), torch.tensor([3.0])
        policy = GaussianPolicy(1, 1, PolicyConfig(hidden_sizes=(32,), n_components=1, encoding_bins=bins), 0, ranges)
        optimizer = torch.optim.Adam(policy.parameters(), lr=0.01)
        for _ in range(300):
            optimizer.zero_grad()
            (-policy.log_prob(observations, actions).mean()).backward()
            optimizer.step()
        errors[bins] = (policy(observations) - actions).square().mean().item()
    assert errors[32] < 0.3 * errors[0]


@pytest.mark.parametrize(
    "values",
    [{"std": 0.0}, {"hidden_sizes": ()}, {"hidden_sizes": (0,)}, {"n_components": 0}, {"encoding_bins": -1}],
)
def test_a_value_out_of_range_is_refused(values):
    with pytest.raises(RecipeError, match=next(iter(values))):
        PolicyConfig(**values)


def test_an_encoding_without_the_ranges_is_refused():
    with pytest.raises(ValueError, match="needs the ranges of the observations"):
        GaussianPolicy(3, 2, PolicyConfig(hidden_sizes=(8,), encoding_bins=4), seed=0)
