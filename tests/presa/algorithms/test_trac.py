"""TraC tells desirable from undesirable episodes, and knows them by their labels alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from feedbackgen.errors import DataError, RecipeError
from presa.aggregation import EpisodeBeliefs
from presa.algorithms.trac import PRESETS, TraC, TraCConfig, classification_loss, partition, utility

PROVENANCE = {"method": "trac", "seed": 3, "task": "two-states"}


@pytest.fixture
def config(small_config):
    return TraCConfig(
        policy=small_config.policy, cloning=small_config.cloning, n_steps=400, learning_rate=1e-3, n_segments=32,
        n_segment_steps=4,
    )  # fmt: skip


def beliefs(safe, scores) -> EpisodeBeliefs:
    return EpisodeBeliefs(
        safe=np.array(safe), scores=np.array(scores), cloning_weights=np.ones(len(safe)), safety_flip_rate=0.0,
        preference_flip_rate=0.0,
    )  # fmt: skip


def learnt_gain(learner: TraC) -> float:
    for step in range(learner.n_steps):
        learner.update(step)
    with torch.no_grad():
        below, above = learner.policy(torch.tensor([[-1.0], [1.0]])).flatten().tolist()
    return (above - below) / 2


def test_the_better_half_of_the_safe_is_desirable_and_all_else_is_not():
    # Of the four safe, scores 0 to 4, the better two weigh 0.7 + 0.3 * 3 / 4 and 1, the worse 0.7 + 0.3 * (1 - 1 / 4)
    # and 1; the unsafe one weighs 1; the sixth has no label.
    sides, weights = partition(
        beliefs([0.9, 0.9, 0.1, 0.9, 0.9, 0.9], [0.0, 4.0, 9.0, 3.0, 1.0, 7.0]),
        np.array([True] * 5 + [False]),
        TraCConfig(),
    )
    np.testing.assert_array_equal(sides, [-1, 1, -1, 1, -1, 0])
    np.testing.assert_allclose(weights[:5], [1.0, 1.0, 1.0, 0.925, 0.925])


def test_shares_below_one_leave_the_middle_on_no_side():
    config = TraCConfig(desirable_share=0.25, undesirable_share=0.25)
    sides, _ = partition(beliefs([0.9] * 4, [3.0, 2.0, 1.0, 0.0]), np.ones(4, dtype=bool), config)
    np.testing.assert_array_equal(sides, [1, 0, 0, -1])


def test_one_safe_episode_is_desirable_and_not_undesirable_too():
    sides, weights = partition(beliefs([0.9, 0.1], [1.0, 2.0]), np.ones(2, dtype=bool), TraCConfig())
    np.testing.assert_array_equal(sides, [1, -1])
    np.testing.assert_allclose(weights, [0.7, 1.0])


def test_utility_is_the_scaled_and_discounted_mean_of_the_log_ratios():
    # 0.1 * 64 * (0.5 - 0.25 * 0.4) / 2 = 1.28
    config = TraCConfig(discount=0.5)
    ratios, places = torch.tensor([[0.5, -0.4]]), torch.tensor([[0, 2]])
    assert utility(ratios, places, config).item() == pytest.approx(1.28)


def test_classification_loss_worked_by_hand():
    # 0.8 * softplus(-1) + 0.5 * 1 * softplus(-2) = 0.8 * 0.313262 + 0.5 * 0.126928 = 0.314073
    loss = classification_loss(torch.tensor([1.0, -2.0]), torch.tensor([0.8, 1.0]), 0.5)
    assert loss.item() == pytest.approx(0.314073, abs=1e-6)


def test_gradients_agree_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    ratios = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(6, generator=generator, dtype=torch.float64)

    def loss(values):
        return classification_loss(utility(values, torch.arange(3), TraCConfig(discount=0.9)), weights, 0.5)

    assert torch.autograd.gradcheck(loss, (ratios,))


def test_trac_learns_the_safe_and_preferred_action(data, config):
    # The safe optimum is 0.4; every step alike clones to 0.3, the safe ones to 0.
    assert 0.3 < learnt_gain(TraC(data, config, 0)) < 0.7


def test_trac_learns_it_from_labels_of_which_a_tenth_is_flipped(noisy_data, config):
    assert 0.3 < learnt_gain(TraC(noisy_data, config, 0)) < 0.7


def test_only_desirable_episodes_are_drawn_as_desirable(data, config):
    desirable, undesirable = TraC(data, config, 0)._sides
    assert set(data.segment_episodes[desirable] % 3) == {1}  # good, neither reckless nor bad
    assert set(data.segment_episodes[undesirable] % 3) == {0, 2}


# Of one Gaussian of fixed width only the mean can move: it tells good from bad episodes but not from reckless ones.
@pytest.mark.parametrize(("n_components", "accuracy"), [(1, 0.75), (5, 1.0)])
def test_the_classification_comes_to_tell_the_sides_apart(data, config, n_components, accuracy):
    learner = TraC(data, replace(config, policy=replace(config.policy, n_components=n_components)), 0)
    rows = [learner.update(step)[1] for step in range(learner.n_steps)]
    assert np.mean([row["classification_accuracy"] for row in rows[-50:]]) == pytest.approx(accuracy, abs=0.06)
    assert np.mean([row["utility_desirable"] - row["utility_undesirable"] for row in rows[-50:]]) > 0


def test_the_paper_preset_runs_on_whole_segments(data, config):
    small = replace(
        PRESETS["paper"], policy=config.policy, cloning=replace(config.cloning, n_steps=20), n_steps=20, n_segments=8
    )
    assert np.isfinite(learnt_gain(TraC(data, small, 0)))


@pytest.mark.parametrize("n_cloning", [450, 500])  # the reference ends before the saved state, or with it
def test_a_resumed_run_equals_an_undisturbed_one(data, config, resumed, n_cloning):
    config = replace(config, cloning=replace(config.cloning, n_steps=n_cloning), n_steps=250)
    resumed(data, config, PROVENANCE)


def test_feedback_that_lacks_a_kind_of_label_is_refused(data, config):
    with pytest.raises(DataError, match="trac learns from preferences, the feedback holds none"):
        TraC(replace(data, pairs=data.pairs[:0], preferences=data.preferences[:0]), config, 0)
    with pytest.raises(DataError, match="all 600 labels say safe"):
        TraC(replace(data, safety_labels=np.abs(data.safety_labels)), config, 0)


def test_an_empty_side_is_refused(data, config, monkeypatch):
    # Nothing is believed safe, or all is and none may be undesirable.
    for safe, message in [(0.1, "no episode is safe; set aggregation"), (0.9, "no episode is undesirable")]:
        monkeypatch.setattr(
            "presa.algorithms.trac.aggregate",
            lambda data, _, safe=safe: beliefs([safe] * data.n_episodes, np.zeros(data.n_episodes)),
        )
        with pytest.raises(DataError, match=message):
            TraC(data, replace(config, undesirable_share=0.0), 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_steps": 0}, "n_steps: expected a number above 0, got 0"),
        ({"n_segment_steps": -1}, "n_segment_steps: expected a number >= 0, got -1"),
        ({"weight_floor": 1.5}, "weight_floor: expected a number from 0 to 1, got 1.5"),
        ({"desirable_share": 0.8}, "expected at most 1 together, got 0.8 and 0.5"),
        ({"n_segments": 1}, "n_segments: expected at least 2, got 1"),
    ],
)
def test_a_value_out_of_range_is_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        TraCConfig(**values)
