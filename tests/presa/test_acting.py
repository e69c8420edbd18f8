import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from feedbackgen.errors import StoreError
from presa.acting import for_one_episode, load_any_policy, save_any_policy
from presa.candidates import CandidatePolicy
from presa.checkpoint import TrainedPolicy, load_policy
from presa.policy import GaussianPolicy, PolicyConfig
from presa.transformer import DecisionTransformer, Memory


def candidates(n_candidates: int = 5) -> CandidatePolicy:
    return CandidatePolicy(
        1, 1, vae_sizes=(8,), shift_sizes=(8,), critic_sizes=(8,), shift_max=0.1, n_candidates=n_candidates, seed=0
    )


@pytest.fixture
def run(tmp_path, rewarded):
    save_any_policy(tmp_path / "policy.safetensors", candidates(), rewarded, task="two-states", method="bcq-lag")
    return tmp_path


def test_a_gaussian_policy_is_the_same_file_as_ever(tmp_path, rewarded):
    policy = GaussianPolicy(1, 1, PolicyConfig(hidden_sizes=(8,), encoding_bins=0), seed=0)
    save_any_policy(tmp_path / "policy.safetensors", policy, rewarded, task="two-states", method="cpq")
    assert isinstance(load_any_policy(tmp_path), TrainedPolicy)
    assert load_policy(tmp_path).method == "cpq"


def test_loaded_networks_act_as_those_that_were_saved(run, rewarded, trajectories):
    loaded = load_any_policy(run)
    acted = loaded.act(trajectories.observations[0], np.random.default_rng(3))
    chosen = candidates().choose(rewarded.observations[0], np.random.default_rng(3))
    np.testing.assert_allclose(acted, chosen.numpy(), atol=1e-6)
    assert (loaded.task, loaded.name) == ("two-states", "bcq-lag")


def test_rows_that_act_together_have_the_bits_of_each_alone(run):
    loaded, observations = load_any_policy(run), np.array([[-1.0], [1.0], [0.3]])
    together = loaded.act_together(observations, [np.random.default_rng(i) for i in range(3)])
    alone = [loaded.act(observation, np.random.default_rng(i)) for i, observation in enumerate(observations)]
    np.testing.assert_array_equal(together, alone)


def test_the_candidate_of_the_highest_value_less_the_charged_cost_value_is_chosen(rewarded):
    policy, observation = candidates(50), rewarded.observations[0]

    def chosen(multiplier):
        policy.multiplier.fill_(multiplier)
        action = policy.choose(observation, np.random.default_rng(0))[None]
        with torch.no_grad():
            return [
                critics(observation[None], action).amin().item() for critics in (policy.critics, policy.cost_critics)
            ]

    (value, cost_value), (charged_value, charged_cost_value) = chosen(0.0), chosen(1e6)
    assert charged_value <= value
    assert charged_cost_value <= cost_value


def test_a_shift_is_small_and_stays_in_the_box(rewarded):
    policy, observations = candidates(), rewarded.observations[:100]
    actions = rewarded.actions[:100].clone()
    actions[0] = 1.0
    shifted = policy.shifted(observations, actions)
    assert (shifted - actions).abs().max() <= 0.1
    assert shifted.abs().max() <= 1


def test_networks_that_do_not_fit_are_refused(run):
    path = run / "policy.safetensors"
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["presa"])
    header["shape"]["vae_sizes"] = [9]
    save_file(load_file(path), path, {"presa": json.dumps(header)})
    with pytest.raises(StoreError, match="does not fit its networks"):
        load_any_policy(run)


@pytest.fixture
def transformer_run(tmp_path, rewarded):
    network = DecisionTransformer(1, 1, n_times=9, context=3, n_units=8, n_layers=1, n_heads=2, seed=0)
    network.target.copy_(torch.tensor([5.0, 20.0]))
    with torch.no_grad():  # so that what it remembers shows in its actions
        network.times.weight.mul_(50)
    save_any_policy(tmp_path / "policy.safetensors", network, rewarded, task="two-states", method="cdt")
    return tmp_path


def test_a_loaded_transformer_acts_as_the_one_that_was_saved_for_each_episode_afresh(transformer_run, rewarded):
    loaded, rng = load_any_policy(transformer_run), np.random.default_rng(0)
    network = loaded.networks._network
    assert (loaded.task, loaded.name, network.target.tolist()) == ("two-states", "cdt", [5.0, 20.0])
    one, memory = for_one_episode(loaded), Memory(network)
    raw = np.array([1.0])
    actions = []
    for _ in range(4):
        actions.append(one.act_together(raw[None], [rng])[0])
        np.testing.assert_allclose(actions[-1], memory.choose(one.standardised(raw), rng).numpy(), atol=1e-6)
        one.observe(1.0, 1.0)
        memory.observe(1.0, 1.0)
    assert actions[1] != actions[0]
    np.testing.assert_array_equal(for_one_episode(loaded).act(raw, rng), actions[0])


def test_a_policy_that_remembers_nothing_acts_in_any_episode(run):
    loaded = load_any_policy(run)
    assert for_one_episode(loaded) is loaded
    assert not hasattr(loaded, "observe")
