import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from feedbackgen.errors import StoreError
from presa.checkpoint import gaussian_policy, load_policy, load_state, read_policy_file, save_policy, save_state
from presa.cloning import new_policy
from presa.policy import GaussianPolicy, PolicyConfig


@pytest.fixture
def policy():
    return GaussianPolicy(1, 1, PolicyConfig(hidden_sizes=(8, 8), encoding_bins=0), seed=0)


@pytest.fixture
def run(tmp_path, policy, data):
    save_policy(tmp_path / "policy.safetensors", policy, data, task="two-states", method="presa")
    return tmp_path


def test_a_loaded_policy_acts_as_the_one_that_was_trained(run, policy, data, trajectories):
    loaded = load_policy(run)
    with torch.no_grad():
        expected = policy(data.observations[:5]).numpy()
    np.testing.assert_allclose(loaded.act_together(trajectories.observations[:5]), expected, atol=1e-6)
    np.testing.assert_allclose(loaded.act(trajectories.observations[0]), expected[0], atol=1e-6)
    assert (loaded.task, loaded.method, loaded.name) == ("two-states", "presa", "presa")


@pytest.mark.parametrize("config", [{"n_components": 3, "encoding_bins": 0}, {"encoding_bins": 5}])
def test_mixtures_and_encoded_policies_act_as_they_were_trained_alone_and_together(
    tmp_path, data, trajectories, config
):
    policy = new_policy(data, PolicyConfig(hidden_sizes=(8, 8), **config), seed=4)
    save_policy(tmp_path / "policy.safetensors", policy, data, task="two-states", method="presa")
    loaded, observations = load_policy(tmp_path), trajectories.observations[:20]
    with torch.no_grad():
        expected = policy(data.observations[:20]).numpy()
    np.testing.assert_allclose(loaded.act_together(observations), expected, atol=1e-6)
    alone = [loaded.act(observation) for observation in observations]
    np.testing.assert_array_equal(loaded.act_together(observations), alone)


def test_an_encoding_without_its_ranges_is_refused(tmp_path, data):
    policy = new_policy(data, PolicyConfig(hidden_sizes=(8,), encoding_bins=5), seed=4)
    save_policy(tmp_path / "policy.safetensors", policy, data, task="two-states", method="presa")
    path, arrays, header = read_policy_file(tmp_path)
    del arrays["encoding_low"]
    with pytest.raises(StoreError, match=r"policy\.safetensors: lacks 'encoding_low'; train it again"):
        gaussian_policy(path, arrays, header)


def test_actions_fill_the_box_of_the_task(run):
    loaded = load_policy(run)
    wide = type(loaded)(**{**vars(loaded), "action_low": np.array([10.0]), "action_high": np.array([14.0])})
    assert wide.act(np.zeros(1)) == pytest.approx(12 + 2 * loaded.act(np.zeros(1)))


def test_equal_policies_are_equal_bytes(run, policy, data):
    save_policy(run / "again.safetensors", policy, data, task="two-states", method="presa")
    assert (run / "again.safetensors").read_bytes() == (run / "policy.safetensors").read_bytes()


def test_a_run_without_policy_names_the_way_out(tmp_path):
    with pytest.raises(StoreError, match=r"no policy\.safetensors; expected the folder of a finished"):
        load_policy(tmp_path)
    (tmp_path / "provenance.json").write_text("{}")
    with pytest.raises(StoreError, match="--resume continues it"):
        load_policy(tmp_path)


def test_an_absent_run_is_named(tmp_path):
    with pytest.raises(StoreError, match="absent: no such policy file"):
        load_policy(tmp_path / "absent")


def test_a_truncated_policy_is_refused(run):
    path = run / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StoreError, match="truncated, damaged"):
        load_policy(run)


def test_a_file_of_somebody_else_is_refused(run):
    save_file({"weight": np.zeros(1)}, run / "policy.safetensors")
    with pytest.raises(StoreError, match="not a policy of ours"):
        load_policy(run)


def test_another_format_version_is_refused(run):
    path = run / "policy.safetensors"
    save_file(load_file(path), path, {"presa": json.dumps({"format": "policy", "format_version": 99})})
    with pytest.raises(StoreError, match="format version 99, this release reads 1"):
        load_policy(run)


def test_values_that_are_not_finite_are_refused(run, policy, data):
    with torch.no_grad():
        policy.network[0].bias[0] = torch.nan
    save_policy(run / "policy.safetensors", policy, data, task="two-states", method="presa")
    with pytest.raises(StoreError, match="bias_0 holds values that are not finite"):
        load_policy(run)


def test_a_training_state_comes_back(tmp_path):
    save_state(tmp_path / "state", {"a": torch.arange(3), "b": torch.tensor(2.5)}, {"step": 7})
    state, header = load_state(tmp_path / "state")
    assert state["a"].tolist() == [0, 1, 2]
    assert (state["b"].item(), header["step"]) == (2.5, 7)


def test_a_state_is_no_policy(tmp_path):
    save_state(tmp_path / "policy.safetensors", {"a": torch.zeros(1)}, {"step": 7})
    with pytest.raises(StoreError, match="holds a training state, expected a policy"):
        load_policy(tmp_path)
