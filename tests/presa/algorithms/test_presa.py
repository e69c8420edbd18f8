import copy
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from feedbackgen.errors import DataError, RecipeError
from presa import lagrange
from presa.algorithms import presa as algorithm
from presa.algorithms.presa import (
    PRESETS,
    PreSa,
    PreSaConfig,
    constraint_value,
    lagrangian,
    likelihood_lost,
    preference_loss,
    safety_value,
    utility,
)
from presa.batch import learning_data
from presa.cloning import CloningConfig
from presa.policy import GaussianPolicy, PolicyConfig

UNCLIPPED = PreSaConfig(log_ratio_clip=math.inf)


def learnt_gain(learner: PreSa) -> float:
    """By what the policy multiplies the state, in the two-state problem."""
    with torch.no_grad():
        below, above = learner.policy(torch.tensor([[-1.0], [1.0]])).flatten().tolist()
    return (above - below) / 2


def trained(data, config, seed=0):
    learner = PreSa(data, config, seed)
    rows = [learner.update(step)[1] for step in range(learner.n_steps)]
    return learner, rows


def test_utility_is_the_scaled_mean_of_the_log_ratios():
    # 0.1 * 64 * (0.5 - 0.1) / 2 = 1.28
    ratios = torch.tensor([[0.5, -0.1]])
    assert utility(ratios, torch.tensor([[0, 1]]), UNCLIPPED).item() == pytest.approx(1.28)


def test_utility_clips_each_step_softly():
    # tanh(3) = 0.995055; 6.4 * 0.995055 = 6.368351
    assert utility(torch.tensor([[3.0]]), torch.tensor([[0]]), PreSaConfig()).item() == pytest.approx(6.368351)


def test_utility_discounts_by_the_place_within_the_segment():
    # 6.4 * (1 + 0.5^2) / 2 = 4.0
    config = replace(UNCLIPPED, discount=0.5)
    assert utility(torch.ones(1, 2), torch.tensor([[0, 2]]), config).item() == pytest.approx(4.0)


def test_utility_does_not_depend_on_the_length_of_a_steady_segment():
    short, long = torch.full((1, 16), 0.3), torch.full((1, 250), 0.3)
    values = [utility(ratios, torch.zeros_like(ratios), UNCLIPPED).item() for ratios in (short, long)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_preference_loss_of_a_pair_worked_by_hand():
    # softplus(-(2 - 0.5 * 1)) = log(1 + exp(-1.5)) = 0.201413
    loss = preference_loss(torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([1.0]), 0.5)
    assert loss.item() == pytest.approx(0.201413, abs=1e-6)


def test_preference_loss_of_equal_utilities_without_bias_is_log_two():
    zero = torch.zeros(1)
    assert preference_loss(zero, zero, torch.ones(1), 1.0).item() == pytest.approx(math.log(2))


def test_swapping_a_pair_flips_its_label():
    first, second, labels = torch.tensor([1.0, -2.0, 0.3]), torch.tensor([0.5, 4.0, 0.3]), torch.tensor([0.0, 1.0, 0.5])
    swapped = preference_loss(second, first, 1 - labels, 0.5)
    assert preference_loss(first, second, labels, 0.5).item() == pytest.approx(swapped.item())


def test_safety_value_worked_by_hand():
    # sigmoid(2 * (1.5 - 1)) = sigmoid(1) = 0.731059, and its complement for the other label
    utilities = torch.tensor([1.5])
    assert safety_value(utilities, 1.0, 1.0, 2.0).item() == pytest.approx(0.731059, abs=1e-6)
    assert safety_value(utilities, -1.0, 1.0, 2.0).item() == pytest.approx(0.268941, abs=1e-6)


def test_constraint_value_weighs_both_classes_alike_whatever_their_size():
    # the safe class gives 0.5 each, the unsafe one sigmoid(2) = 0.880797
    value = constraint_value(torch.zeros(99), torch.tensor([-2.0]), 0.0, 1.0)
    assert value.item() == pytest.approx((0.5 + 0.880797) / 2, abs=1e-6)


def test_an_untouched_reference_satisfies_half_of_the_constraint():
    assert constraint_value(torch.zeros(4), torch.zeros(4), 0.0, 1.0).item() == pytest.approx(0.5)


def test_lagrangian_charges_the_missing_constraint():
    # 0.4 + 2 * (0.9 - 0.7) = 0.8
    assert lagrangian(torch.tensor(0.4), torch.tensor(0.7), 2.0, 0.9).item() == pytest.approx(0.8)


def test_gradients_agree_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    ratios = torch.randn(8, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def loss(values):
        utilities = utility(values, torch.arange(3), replace(PreSaConfig(), discount=0.9))
        constraint = constraint_value(utilities[4:6], utilities[6:], 0.2, 0.7)
        return lagrangian(preference_loss(utilities[:2], utilities[2:4], labels, 0.5), constraint, 1.5, 0.95)

    assert torch.autograd.gradcheck(loss, (ratios,))


def test_presa_learns_the_safe_and_preferred_action(data, small_config):
    learner, rows = trained(data, small_config)
    assert 0.25 < learnt_gain(learner) < 0.65
    assert rows[-1]["constraint_value"] > rows[600]["constraint_value"]


def test_cloning_beside_the_loss_holds_the_policy_near_the_reference(data, small_config):
    moved = []
    for weight in (0.0, 1.0, 10.0):
        learner, _ = trained(data, replace(small_config, cloning_coefficient=weight, cloning_rate=0.0))
        pairs = zip(learner.policy.parameters(), learner._reference.parameters(), strict=True)
        moved.append(float(sum((now - then).detach().square().sum() for now, then in pairs)))
    assert moved == sorted(moved, reverse=True)


def test_the_weight_of_cloning_rises_while_safe_steps_lose_likelihood_and_never_falls_below_its_least(
    data, small_config
):
    rows = trained(data, replace(small_config, violation_averaging=0.0))[1][600:]
    for now, then in pairwise(rows):
        # 5 per nat lost and update; 1 is the least, and 101 is far.
        expected = max(now["cloning_weight"] - 5 * now["log_ratio_safe"], 1.0)
        assert then["cloning_weight"] == pytest.approx(expected, abs=1e-6)
    assert max(row["cloning_weight"] for row in rows) > 1.1


def test_a_rising_weight_keeps_the_likelihood_of_safe_steps(data, small_config):
    lost, free = [], replace(small_config, cloning_coefficient=0.1, departure_threshold=0.0)
    for rate in (0.0, 5.0):
        rows = trained(data, replace(free, cloning_rate=rate))[1]
        lost.append(-np.mean([row["log_ratio_safe"] for row in rows[-200:]]))
    assert lost[0] > 0 and lost[1] < lost[0] / 2


@pytest.mark.parametrize("n_components", [1, 5])
def test_departures_are_measured_where_the_unsafe_half_of_a_batch_is(data, small_config, n_components):
    learner = PreSa(data, replace(small_config, policy=replace(small_config.policy, n_components=n_components)), 0)
    for step in range(601):
        if step == small_config.cloning.n_steps:
            clone = copy.deepcopy(learner.policy)
        learner.update(step)
    batch, *_ = learner._batches.draw(1)
    reckless = np.flatnonzero(np.repeat(np.arange(60) % 3 == 0, 40))  # the posteriors leave no doubt
    with torch.no_grad():
        reference, last = learner._reference, learner.policy.network[-1]
        last.bias += 0.5 * torch.randn(last.bias.shape, generator=torch.Generator().manual_seed(0))
        expected = lost(reference, learner.policy, data.observations[batch[-16:]])
        expected_of_reference = lost(clone, reference, data.observations[reckless])
    row = learner.update(601)[1]
    assert row["departure"] == pytest.approx(expected, rel=1e-3) and expected > 0.01
    assert row["departure_of_reference"] == pytest.approx(expected_of_reference, rel=0.05)


def lost(of, under, observations):
    """Mean nats by which the actions of one policy are less likely under another than under itself, never below 0."""
    own = of(observations)
    return float((of.log_prob(observations, own) - under.log_prob(observations, own)).clamp(min=0).mean())


def test_of_one_gaussian_the_likelihood_lost_is_the_divergence_of_its_actions():
    policies = [
        GaussianPolicy(1, 2, PolicyConfig(hidden_sizes=(4,), n_components=1, encoding_bins=0), i) for i in (0, 1)
    ]
    observations = torch.linspace(-1, 1, 7)[:, None]
    own, other = (policy(observations) for policy in policies)
    found = likelihood_lost(policies[0].log_prob(observations, own), policies[1].log_prob(observations, own))
    torch.testing.assert_close(found, (own - other).square().sum(-1) / 0.18)  # twice the squared width, 2 * 0.3^2
    assert likelihood_lost(torch.tensor(-2.0), torch.tensor(-1.5)) == 0  # likelier than before


def test_the_steps_of_the_unsafe_half_are_as_likely_as_they_are_drawn(data, small_config):
    batches = PreSa(data, small_config, 0)._batches
    drawn = np.concatenate([batches.draw(step)[0][-16:].ravel() for step in range(1000)])
    expected = batches.unsafe_steps()
    assert expected.sum() == pytest.approx(1)
    # By episode, and by place within it. 16,000 segments were drawn, and four steps of each: four standard deviations
    # of the commonest share, as if the steps of a segment said nothing new.
    for axis in (1, 0):
        found = (np.bincount(drawn, minlength=2400) / len(drawn)).reshape(60, 40).sum(axis)
        wanted = expected.reshape(60, 40).sum(axis)
        assert np.ptp(wanted) > 0.02
        assert np.abs(found - wanted).max() < 4 * (wanted.max() / 16_000) ** 0.5


def test_the_multiplier_of_departures_rises_with_what_is_beyond_and_falls_with_what_is_left(data, small_config):
    policy = replace(small_config.policy, n_components=1)
    config = replace(small_config, policy=policy, violation_averaging=0.0, departure_rate=2.0, departure_max=3.0)
    rows = trained(data, config)[1][600:]
    for now, then in pairwise(rows):
        risen = now["departure_multiplier"] + 2 * (now["departure"] - now["departure_of_reference"])
        assert then["departure_multiplier"] == pytest.approx(min(max(risen, 0.0), 3.0), abs=1e-6)
    assert max(row["departure_multiplier"] for row in rows) > 0


@pytest.mark.parametrize(("n_components", "small"), [(1, 0.05), (5, 0.001)])  # the reference departs by 0.09 and 0.003
def test_where_labels_have_taught_the_reference_nothing_the_policy_stays_by_it(
    trajectories, feedback, small_config, n_components, small
):
    # Reckless episodes have a state of their own, where no label says what to do instead.
    reckless = np.repeat(np.arange(60) % 3 == 0, np.diff(trajectories.starts))
    alone = replace(
        trajectories,
        observations=np.stack([np.where(reckless, 0, trajectories.observations[:, 0]), reckless], axis=1),
        final_observations=np.ones((60, 2)),
        actions=np.where(reckless[:, None], 0.5, trajectories.actions),
    )
    data = learning_data(alone, feedback, np.array([-1.0]), np.array([1.0]))
    there, moved = data.observations[np.flatnonzero(reckless)[:1]], {}
    config = replace(small_config, policy=replace(small_config.policy, n_components=n_components), learning_rate=3e-3)
    for threshold in (0.0, small, 0.5):
        learner, rows = trained(data, replace(config, departure_threshold=threshold))
        with torch.no_grad():
            moved[threshold] = abs(float(learner.policy(there) - learner._reference(there)))
    assert moved[0.5] < 0.2 < 0.3 < moved[0.0]
    assert moved[small] == moved[0.0]
    departed = np.mean([row["departure"] for row in rows[-100:]])
    assert departed < 1.1 * rows[-1]["departure_of_reference"] < 0.11


def test_a_bound_on_departures_needs_a_refined_reference():
    for changed in ({"reference": "all"}, {"refining": CloningConfig(n_steps=0)}):
        with pytest.raises(RecipeError, match=r"departure_threshold: 0\.2 needs a reference that is refined"):
            PreSaConfig(**changed)
        PreSaConfig(departure_threshold=0.0, **changed)


def test_pairs_of_two_safe_segments_do_not_work_against_the_constraint(data, small_config):
    met = [
        trained(data, replace(small_config, pairs=pairs))[1][-1]["constraint_value"] for pairs in ("all", "safe-safe")
    ]
    assert met[1] > met[0]


def test_presa_learns_it_from_labels_of_which_a_tenth_is_flipped(noisy_data, small_config):
    assert 0.2 < learnt_gain(trained(noisy_data, small_config)[0]) < 0.7


def test_without_its_constraint_the_preferred_action_is_the_reckless_one(data, small_config):
    bound = replace(small_config, reference="all", pairs="all", departure_threshold=0.0)
    free = replace(bound, multiplier_initial=0.0, multiplier_rate=0.0)
    assert learnt_gain(trained(data, free)[0]) > learnt_gain(trained(data, bound)[0]) + 0.05


def test_the_multiplier_rises_while_the_constraint_is_not_met(data, small_config):
    rows = trained(data, small_config)[1][600:]
    violated = [(now, then) for now, then in pairwise(rows) if now["constraint_value"] < 0.9][:20]
    assert violated
    assert all(then["multiplier"] >= now["multiplier"] for now, then in violated)


def test_the_paper_preset_runs_on_whole_segments(data, small_config):
    paper = PRESETS["paper"]
    small = replace(
        paper, policy=small_config.policy, cloning=replace(paper.cloning, n_steps=20), n_steps=20, n_pairs=4,
        n_safety_segments=8,
    )  # fmt: skip
    learner, rows = trained(data, small)
    assert learner.n_steps == 40
    assert rows[-1]["utility_centre"] == 0.0
    assert np.isfinite(rows[-1]["loss"])


def test_the_safe_half_of_a_batch_can_follow_the_preferences_too(data, small_config):
    preferred = replace(small_config, safety_classes="preferred-episodes")
    safe = replace(small_config, safety_classes="episodes")
    assert learnt_gain(trained(data, preferred)[0]) > learnt_gain(trained(data, safe)[0])


def test_the_likelihoods_of_winners_and_of_safe_segments_are_those_of_the_batch(data, small_config):
    learner = PreSa(data, small_config, 0)
    rows = [learner.update(step)[1] for step in range(600)]
    batch, _, labels, _ = learner._batches.draw(0)
    with torch.no_grad():
        expected = learner.policy.log_prob(data.observations[batch], data.actions[batch]).mean(-1)
    first, second, safe, _ = expected.split(16)
    winners = [pair[int(label)] for *pair, label in zip(first, second, labels, strict=True) if label != 0.5]
    row = learner.update(len(rows))[1]
    assert row["log_likelihood_safe"] == pytest.approx(float(safe.mean()), abs=1e-4)
    assert row["log_likelihood_preferred"] == pytest.approx(float(sum(winners) / len(winners)), abs=1e-4)


def test_a_multiplier_at_its_cap_is_reported(data, small_config, monkeypatch):
    monkeypatch.setattr(lagrange, "UPDATES_AT_CAP", 5)
    config = replace(small_config, multiplier_initial=5.0, n_steps=30)
    with pytest.warns(UserWarning, match="rests at the cap 5"):
        trained(data, config)


def test_falling_likelihoods_are_reported(data, small_config, monkeypatch):
    monkeypatch.setattr(algorithm, "FALLEN", 1e9)
    with pytest.warns(UserWarning, match="likelihoods fall"):
        trained(data, small_config)


@pytest.mark.parametrize("pairs", ["safe-safe", "without-unsafe-winners"])
@pytest.mark.parametrize("safety_classes", ["segments", "episodes", "preferred-episodes"])
def test_no_reckless_winner_is_drawn_when_pairs_are_filtered(data, small_config, pairs, safety_classes):
    config = replace(small_config, pairs=pairs, safety_classes=safety_classes)
    usable = PreSa(data, config, 0)._batches._pairs
    reckless = data.segment_episodes[data.pairs[usable]] % 3 == 0
    winner = (data.preferences[usable] > 0.5).astype(int)
    decided = data.preferences[usable] != 0.5
    rows = np.arange(len(usable))
    assert not (reckless[rows, winner] & ~reckless[rows, 1 - winner])[decided].any()


def test_where_no_pair_is_of_two_safe_segments_all_count_and_it_is_said(data, small_config):
    reckless = data.segment_episodes[data.pairs] % 3 == 0
    mixed = replace(data, pairs=data.pairs[reckless.any(1)], preferences=data.preferences[reckless.any(1)])
    with pytest.warns(UserWarning, match="none of the .* pairs is of two safe segments, so all count"):
        learner = PreSa(mixed, small_config, 0)
    assert learner._batches._pairs.tolist() == list(range(len(mixed.pairs)))


def test_feedback_without_preferences_is_refused(data, small_config):
    empty = replace(data, pairs=data.pairs[:0], preferences=data.preferences[:0])
    with pytest.raises(DataError, match="presa learns from preferences, the feedback holds none"):
        PreSa(empty, small_config, 0)


def test_feedback_without_safety_labels_is_refused(data, small_config):
    empty = replace(data, safety_segments=data.safety_segments[:0], safety_labels=data.safety_labels[:0])
    with pytest.raises(DataError, match="presa learns from safety labels, the feedback holds none"):
        PreSa(empty, small_config, 0)


def test_feedback_of_one_class_is_refused(data, small_config):
    with pytest.raises(DataError, match="all 600 labels say safe"):
        PreSa(replace(data, safety_labels=np.abs(data.safety_labels)), small_config, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pairs": "some"}, "pairs: expected one of all"),
        ({"n_steps": 0}, "n_steps: expected a number above 0"),
        ({"threshold": 1.5}, "threshold: expected a number from 0 to 1"),
        ({"n_safety_segments": 1}, "n_safety_segments: expected at least 2"),
        ({"violation_averaging": 1.0}, "violation_averaging: expected a number below 1"),
        ({"multiplier_rate": -1.0}, "multiplier_rate: expected a number >= 0"),
        ({"cloning_rate": -1.0}, "cloning_rate: expected a number >= 0"),
        ({"departure_threshold": -1.0}, "departure_threshold: expected a number >= 0"),
        ({"departure_max": 0.0}, "departure_max: expected a number above 0"),
        ({"departure_rate": -1.0}, "departure_rate: expected a number >= 0"),
    ],
)
def test_a_value_out_of_range_is_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        PreSaConfig(**values)
