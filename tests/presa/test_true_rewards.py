import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from feedbackgen.episodes import write_dataset
from feedbackgen.errors import DataError
from feedbackgen.label import LabelConfig, label
from feedbackgen.types import Episode
from presa import training
from presa.methods import METHODS
from presa.true_rewards import dataset_rewarded_data


def episode(index: int) -> Episode:
    rng = np.random.default_rng(index)
    n_steps = 20 + index
    return Episode(
        observations=rng.standard_normal((n_steps + 1, 28)),
        actions=rng.uniform(-1, 1, (n_steps, 2)).astype(np.float32),
        rewards=rng.standard_normal(n_steps),
        costs=np.full(n_steps, float(index % 2)),
        terminations=(np.arange(n_steps) == n_steps - 1) & (index == 1),
        truncations=(np.arange(n_steps) == n_steps - 1) & (index != 1),
        seed=index,
        policy="random",
    )


@pytest.fixture
def info(tmp_path):
    name = "feedbackgen/SafetyPointCircle1-v0/tiny-v0"
    return write_dataset(name, (episode(index) for index in range(8)), task="SafetyPointCircle1-v0", root=tmp_path)


@pytest.mark.parametrize("mapped", [False, True])
def test_rewards_and_costs_stand_beside_their_steps(info, mapped, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = dataset_rewarded_data(info, "cpq", mapped=mapped)
    assert data.episode_starts.tolist() == [0, 20, 41, 63, 86, 110, 135, 161, 188]
    np.testing.assert_allclose(data.rewards[20:41], episode(1).rewards, rtol=1e-6)
    np.testing.assert_array_equal(data.costs[20:41], 1.0)
    assert (data.cost_limit, data.horizon, data.n_episodes) == (info.cost_limit, 500, 8)


def test_the_next_observation_of_a_last_step_is_what_its_episode_ended_in(info):
    data = dataset_rewarded_data(info, "cpq")
    following = data.next_observations(torch.tensor([18, 19, 20])).numpy()
    raw = np.array([episode(0).observations[19], episode(0).observations[20], episode(1).observations[1]])
    np.testing.assert_allclose(following, (raw - data.observation_mean) / data.observation_std, atol=1e-5)


def test_only_an_end_of_its_own_stops_an_episode(info):
    # Episode 0 is cut after step 19, episode 1 ends after step 40.
    data = dataset_rewarded_data(info, "cpq")
    assert data.continuing(torch.tensor([19, 39, 40, 41])).tolist() == [1, 1, 0, 1]


def test_a_dataset_without_costs_is_refused(info):
    with pytest.raises(DataError, match=r"cpq learns from true costs, .*tiny-v0 tells none"):
        dataset_rewarded_data(replace(info, has_costs=False), "cpq")


def test_true_rewards_are_read_for_the_methods_for_reference_alone(info, tmp_path, monkeypatch):
    store = label(info.path, LabelConfig(n_pairs=10, segment_length=8)).path
    read = []
    monkeypatch.setattr(training, "dataset_rewarded_data", lambda *_, **__: read.append(1) or 1 / 0)
    for name, method in METHODS.items():
        if method.sees_rewards:
            with pytest.raises(ZeroDivisionError):
                training.train(name, store, seed=0, out=tmp_path / name)
    assert len(read) == sum(method.sees_rewards for method in METHODS.values())
    run = training.train("bc", store, seed=0, overrides={"cloning.n_steps": 1}, out=tmp_path / "bc")
    assert len(read) == sum(method.sees_rewards for method in METHODS.values())
    assert json.loads((run / "provenance.json").read_text())["sees_rewards"] is False


def test_a_run_says_that_it_saw_the_true_rewards(info, tmp_path):
    store = label(info.path, LabelConfig(n_pairs=10, segment_length=8)).path
    run = training.train("cpq", store, seed=0, overrides={"n_steps": 2, "batch_size": 8}, out=tmp_path / "run")
    assert json.loads((run / "provenance.json").read_text())["sees_rewards"] is True
