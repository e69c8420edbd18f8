from dataclasses import replace

import numpy as np
import pytest

from feedbackgen.errors import DataError
from presa.batch import feedback_hash, learning_data, sample_segment_steps

BOX = (np.array([-1.0]), np.array([1.0]))


def test_observations_are_standardised_and_actions_scaled_to_the_box(trajectories, feedback):
    data = learning_data(trajectories, feedback, np.array([-2.0]), np.array([4.0]))
    assert data.observations.mean().item() == pytest.approx(0, abs=1e-5)
    assert data.observations.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert data.actions[0, 0].item() == pytest.approx((trajectories.actions[0, 0] - 1) / 3)


def test_a_segment_starts_at_the_row_of_its_first_step(data, feedback):
    assert data.segment_starts[7] == feedback.segments.episode[7] * 40 + feedback.segments.start[7]


def test_each_step_of_a_segment_comes_once_when_as_many_are_drawn_as_it_has():
    rows, places = sample_segment_steps(np.array([100]), np.array([16]), 16, np.random.default_rng(0))
    assert rows.tolist() == [list(range(100, 116))]
    assert places.tolist() == [list(range(16))]


def test_steps_are_drawn_evenly_whatever_the_length():
    starts, lengths = np.zeros(60_000, dtype=int), np.full(60_000, 7)
    places = sample_segment_steps(starts, lengths, 4, np.random.default_rng(0))[1]
    assert np.bincount(places.ravel()) / 60_000 == pytest.approx(np.full(7, 4 / 7), abs=0.01)


def test_a_single_step_stands_for_itself():
    rows, _ = sample_segment_steps(np.array([5]), np.array([1]), 3, np.random.default_rng(0))
    assert rows.tolist() == [[5, 5, 5]]


def test_a_learner_may_not_see_rewards(trajectories, feedback):
    with pytest.raises(DataError, match="may not see rewards"):
        learning_data(replace(trajectories, rewards=np.zeros(trajectories.n_steps)), feedback, *BOX)


def test_values_that_are_not_finite_are_refused(trajectories, feedback):
    observations = trajectories.observations.copy()
    observations[3, 0] = np.nan
    with pytest.raises(DataError, match="observations: expected finite values, got nan"):
        learning_data(replace(trajectories, observations=observations), feedback, *BOX)


def test_an_unbounded_action_box_is_refused(trajectories, feedback):
    with pytest.raises(DataError, match="action box: expected finite bounds"):
        learning_data(trajectories, feedback, np.array([-np.inf]), np.array([np.inf]))


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("segments", "episode", 99, "an episode is outside 0..59"),
        ("segments", "start", 39, "reaches outside episode"),
        ("preferences", "pair", 600, "preferences: a label names a segment outside 0..599"),
        ("preferences", "label", 0.7, "expected labels 0, 0.5 or 1"),
        ("safety", "segment", -1, "safety labels: a label names a segment outside"),
        ("safety", "label", 0, "expected .1 .safe. or -1"),
    ],
)
def test_feedback_that_does_not_fit_is_refused(trajectories, feedback, part, name, value, message):
    values = getattr(getattr(feedback, part), name).copy()
    values[0] = value
    broken = replace(feedback, **{part: replace(getattr(feedback, part), **{name: values})})
    with pytest.raises(DataError, match=message):
        learning_data(trajectories, broken, *BOX)


def test_the_hash_follows_the_labels_and_ignores_the_oracle(feedback):
    labels = feedback.safety.label.copy()
    labels[0] *= -1
    changed = replace(feedback, safety=replace(feedback.safety, label=labels))
    assert feedback_hash(feedback) != feedback_hash(changed)
    assert feedback_hash(feedback) == feedback_hash(replace(feedback, oracle=None))
