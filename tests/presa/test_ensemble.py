import numpy as np
import pytest
import torch
from samples import DATASET, make_dataset

from feedbackgen.active import disagreement, predicted_returns, preference_probabilities
from feedbackgen.episodes import load_trajectories
from feedbackgen.errors import DataError, RecipeError
from feedbackgen.label import LabelConfig, label
from feedbackgen.segments import enumerate_segments, segment_sums
from feedbackgen.store import open_feedback
from presa.ensemble import EnsembleConfig, learn_ensemble, preference_loss


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    make_dataset()
    label(DATASET, LabelConfig(n_pairs=200, segment_length=8, teachers=("oracle",)), name="first")
    return DATASET


def test_the_loss_is_the_cross_entropy_of_bradley_terry():
    loss = preference_loss(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.5]))
    # By hand: log(1 + exp(-2)) and log 2.
    assert loss.item() == pytest.approx((np.log1p(np.exp(-2)) + np.log(2)) / 2)


def test_an_ensemble_learns_what_the_teacher_prefers(dataset):
    ensemble = learn_ensemble(f"{dataset}/first", seed=0)
    trajectories = load_trajectories(dataset, with_rewards=True)
    members = predicted_returns(ensemble, trajectories, 8)
    returns = segment_sums(trajectories.rewards, trajectories.starts, 8)
    assert members.shape == (3, enumerate_segments(trajectories.starts, 8).n_segments)
    for member in members:
        assert np.corrcoef(member, returns)[0, 1] > 0.8
    pairs = np.random.default_rng(0).integers(len(returns), size=(500, 2))
    assert disagreement(preference_probabilities(members, pairs)).max() > 0.01


def test_the_seed_fixes_the_ensemble(dataset):
    steps = np.random.default_rng(0).normal(size=(5, 28)), np.zeros((5, 2))
    config = EnsembleConfig(n_updates=5)
    one, same, other = (learn_ensemble(f"{dataset}/first", seed=seed, config=config)(*steps) for seed in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_its_pairs_are_harder_than_uniform_ones(dataset):
    config = LabelConfig(n_pairs=100, segment_length=8, teachers=("oracle",), seed=1)
    ensemble = learn_ensemble(f"{dataset}/first", seed=0)
    margins = []
    for queries in ("uniform", "entropy"):
        path = label(dataset, LabelConfig(**{**vars(config), "queries": queries}), ensemble=ensemble, name=queries).path
        feedback = open_feedback(path, with_oracle=True)
        returns = feedback.oracle.segment_return[feedback.preferences.pair]
        margins.append(np.abs(returns[:, 1] - returns[:, 0]).mean())
    assert margins[1] < 0.5 * margins[0]


def test_steps_of_another_task_are_refused(dataset):
    ensemble = learn_ensemble(f"{dataset}/first", seed=0, config=EnsembleConfig(n_updates=1))
    with pytest.raises(DataError, match="was learnt on 28 numbers an observation and 2 an action, got 3 and 2"):
        ensemble(np.zeros((4, 3)), np.zeros((4, 2)))


def test_one_pair_is_enough_to_learn_something(dataset):
    path = label(dataset, LabelConfig(n_pairs=1, n_safety=0, segment_length=8), name="one").path
    ensemble = learn_ensemble(path, seed=0, config=EnsembleConfig(n_updates=1))
    assert ensemble(np.zeros((4, 28)), np.zeros((4, 2))).shape == (3, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_members": 1}, "n_members: expected at least 2, got 1"),
        ({"n_updates": 0}, "n_updates: expected at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number above 0, got 0.0"),
    ],
)
def test_a_value_out_of_range_is_refused(values, message):
    with pytest.raises(RecipeError) as refusal:
        EnsembleConfig(**values)
    assert str(refusal.value) == message
