import dataclasses
import math

import numpy as np
import pytest

from feedbackgen.active import (
    ACTIVE,
    Active,
    disagreement,
    draw_active_pairs,
    entropy,
    highest,
    k_center,
    predicted_returns,
    preference_probabilities,
)
from feedbackgen.errors import DataError, RecipeError
from feedbackgen.label import LabelConfig, label_trajectories
from feedbackgen.queries import Choice, make_pool
from feedbackgen.seeding import stream
from feedbackgen.types import Outcomes, Trajectories


def make_trajectories(n_episodes=20, n_steps=60):
    rng = np.random.default_rng(0)
    n_all = n_episodes * n_steps
    return Trajectories(
        observations=rng.normal(size=(n_all, 3)),
        final_observations=np.zeros((n_episodes, 3)),
        actions=rng.normal(size=(n_all, 1)),
        terminations=np.zeros(n_all, dtype=bool),
        starts=np.arange(n_episodes + 1) * n_steps,
        rewards=rng.normal(size=n_all),
        costs=np.float64(rng.random(n_all) < 0.1),
        policies=("some",) * n_episodes,
    )


TRAJECTORIES = make_trajectories()


def two_members(observations, actions):
    """They agree on the first number of an observation, and quarrel about the second."""
    return np.stack([observations[:, 0] + observations[:, 1], observations[:, 0] - observations[:, 1]])


def make_pool_of(length=5, trajectories=TRAJECTORIES):
    return make_pool(trajectories, length, Choice(), bound=1.0)


def draw(queries, n_pairs=50, session=25, ensemble=two_members, trajectories=TRAJECTORIES, seed=0):
    active = Active(queries=queries, session=session, ensemble=ensemble)
    return draw_active_pairs(
        make_pool_of(trajectories=trajectories), trajectories, n_pairs, active, stream(seed, "pairs")
    )


def test_members_probabilities_follow_from_their_returns():
    members = np.array([[0.0, 1.0, 3.0], [0.0, -1.0, 1.0]])
    probabilities = preference_probabilities(members, np.array([[0, 1], [1, 2]]))
    expected = [[1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))], [1 / (1 + math.exp(1)), 1 / (1 + math.exp(-2))]]
    assert probabilities == pytest.approx(np.array(expected))


def test_disagreement_and_entropy_by_hand():
    probabilities = np.array([[0.5, 0.9], [0.5, 0.1]])
    # Of 0.9 and 0.1 the deviation is sqrt((0.4^2 + 0.4^2) / 1); of a coin the entropy is log 2.
    assert disagreement(probabilities) == pytest.approx([0.0, math.sqrt(0.32)])
    of_nine = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert entropy(probabilities) == pytest.approx([math.log(2), of_nine])
    assert entropy(np.array([[1.0, 0.0]])) == pytest.approx([0.0, 0.0])


def test_the_highest_come_first():
    assert highest(np.array([0.1, 0.9, 0.5, 0.9]), np.array([0, 1, 2, 3]), 3).tolist() == [1, 3, 2]


def test_k_center_goes_where_it_has_not_been():
    # By hand on a line: from 0 the farthest is 10, then 4 lies 4 away from both... and 6 too, but 4 comes first.
    line = np.array([[0.0], [1.0], [4.0], [6.0], [10.0]])
    assert k_center(line, np.empty((0, 1)), 4).tolist() == [0, 4, 2, 3]
    assert k_center(line, np.array([[10.0]]), 2).tolist() == [0, 2]
    assert sorted(k_center(line, np.array([[10.0]]), 5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("queries", ["disagreement", "entropy"])
def test_each_session_takes_the_best_tenth_of_its_draw(queries):
    pool, n_pairs, session = make_pool_of(), 40, 20
    members = predicted_returns(two_members, TRAJECTORIES, 5)
    score = disagreement if queries == "disagreement" else entropy
    drawn = pool.draw_pairs(400, stream(0, "pairs"))
    scores = score(preference_probabilities(members, drawn))
    expected = []
    for first in (0, 200):
        expected += sorted(range(first, first + 200), key=lambda row: -scores[row])[:session]
    assert np.array_equal(draw(queries, n_pairs=n_pairs, session=session), drawn[expected])


@pytest.mark.parametrize("queries", ["k-center-disagreement", "k-center-entropy"])
def test_the_combinations_spread_over_the_better_half(queries):
    members = predicted_returns(two_members, TRAJECTORIES, 5)
    score = disagreement if queries.endswith("disagreement") else entropy

    def mean_score(pairs):
        return score(preference_probabilities(members, pairs)).mean()

    alone, combined, uniform = draw(queries.removeprefix("k-center-")), draw(queries), draw("k-center")
    assert mean_score(alone) > mean_score(combined) > mean_score(uniform)


def test_k_center_is_wider_than_chance():
    def spread(pairs):
        first = TRAJECTORIES.starts[make_pool_of().candidates.locate(pairs)[0]]
        starts = first + make_pool_of().candidates.locate(pairs)[1]
        steps = np.concatenate([TRAJECTORIES.observations, TRAJECTORIES.actions], axis=1)
        features = np.concatenate([steps[starts[:, side] + t] for side in (0, 1) for t in range(5)], axis=1)
        distances = np.linalg.norm(features[:, None] - features[None], axis=2)
        return np.min(distances + 1e9 * np.eye(len(pairs)), axis=1).mean()

    assert spread(draw("k-center", ensemble=None)) > 1.1 * spread(make_pool_of().draw_pairs(50, stream(0, "pairs")))


def test_long_segments_are_compared_by_a_projection():
    pairs = draw_active_pairs(
        make_pool_of(length=40), TRAJECTORIES, 20, Active(queries="k-center", session=10), stream(0, "pairs")
    )
    assert len({frozenset(pair) for pair in pairs.tolist()}) == 20


@pytest.mark.parametrize("queries", ACTIVE)
def test_active_pairs_are_labelled_like_any_others(queries):
    config = LabelConfig(n_pairs=60, n_safety=30, segment_length=(4, 5), queries=queries, session=20, beta=math.inf)
    feedback = label_trajectories(TRAJECTORIES, config, cost_limit=5.0, horizon=60, ensemble=two_members)
    again = label_trajectories(TRAJECTORIES, config, cost_limit=5.0, horizon=60, ensemble=two_members)
    returns = feedback.oracle.segment_return[feedback.preferences.pair]
    assert np.array_equal(feedback.preferences.label, returns[:, 1] > returns[:, 0])
    assert np.array_equal(feedback.preferences.pair, again.preferences.pair)
    assert feedback.attributes["teacher"]["queries"] == queries


def test_the_safety_labels_are_those_of_uniform_queries():
    columns = []
    for queries in ("uniform", "disagreement"):
        config = LabelConfig(n_pairs=60, n_safety=30, segment_length=5, queries=queries)
        feedback = label_trajectories(TRAJECTORIES, config, cost_limit=5.0, horizon=60, ensemble=two_members)
        rows = feedback.safety.segment
        columns.append([feedback.segments.episode[rows], feedback.segments.start[rows], feedback.safety.label])
    assert np.array_equal(*columns)


def test_fewer_are_drawn_where_there_are_not_ten_times_as_many():
    short = make_trajectories(n_episodes=2, n_steps=12)
    assert len(draw("disagreement", n_pairs=60, session=7, trajectories=short)) == 60


@pytest.mark.parametrize(
    ("ensemble", "message"),
    [
        (lambda observations, actions: observations[:, :1].T, "shape (n_members >= 2, 1200), got (1, 1200)"),
        (lambda observations, actions: observations[:, 0], "shape (n_members >= 2, 1200), got (1200,)"),
        (lambda observations, actions: np.full((2, len(actions)), np.nan), "expected finite rewards"),
    ],
)
def test_an_ensemble_of_another_kind_is_refused(ensemble, message):
    with pytest.raises(DataError) as refusal:
        draw("disagreement", ensemble=ensemble)
    assert message in str(refusal.value)


def test_what_active_queries_need_is_said():
    config = LabelConfig(n_pairs=20, segment_length=5, queries="entropy")
    with pytest.raises(RecipeError) as refusal:
        label_trajectories(TRAJECTORIES, config, cost_limit=5.0, horizon=60)
    assert str(refusal.value) == (
        "--queries entropy: expected an ensemble to ask; give --ensemble FEEDBACK, whose preferences it is learnt from "
        "(ask uniformly first)"
    )
    outcomes = Outcomes(rewards=TRAJECTORIES.rewards, costs=TRAJECTORIES.costs, starts=TRAJECTORIES.starts)
    with pytest.raises(DataError, match="--queries k-center: needs observations and actions"):
        label_trajectories(outcomes, dataclasses.replace(config, queries="k-center"), cost_limit=5.0, horizon=60)
    with pytest.raises(RecipeError, match="--session: expected an integer >= 1, got 0"):
        LabelConfig(session=0)
    with pytest.raises(RecipeError, match="--unsafe-share and --queries entropy: expected one of them, got both"):
        LabelConfig(queries="entropy", unsafe_share=0.5)
