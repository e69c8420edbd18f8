from dataclasses import replace

import numpy as np
import pytest
from samples import DATASET, TASK, make_dataset, make_episode

from feedbackgen.annotation.sessions import (
    BLOCK,
    GOALS,
    PREFERENCES,
    SAFETY,
    Judge,
    SessionConfig,
    make_plan,
)
from feedbackgen.episodes import dataset_info, load_outcomes, write_dataset
from feedbackgen.errors import DataError, RecipeError

SMALL = {"n_queries": 40, "n_annotators": 3, "segment_length": 10}


@pytest.fixture
def plan():
    make_dataset()
    return make_plan(DATASET, SessionConfig(**SMALL))


def kinds(plan, place):
    return [plan.queries[assignment.query].kind for assignment in plan.assignments[place]]


def test_the_same_seed_gives_the_same_plan_and_another_seed_another(plan):
    assert make_plan(DATASET, SessionConfig(**SMALL)) == plan
    assert make_plan(DATASET, SessionConfig(**SMALL, seed=1)).queries != plan.queries


def test_everyone_is_asked_as_much_of_each_kind_in_blocks(plan):
    for place in range(3):
        asked = kinds(plan, place)
        assert asked.count(PREFERENCES) == asked.count(SAFETY) == 20
        assert asked[:BLOCK] == [PREFERENCES] * BLOCK and asked[BLOCK : 2 * BLOCK] == [SAFETY] * BLOCK


def test_the_shared_and_gold_questions_are_asked_of_everyone_and_the_rest_of_one(plan):
    asked = [{assignment.query for assignment in assignments} for assignments in plan.assignments]
    shared = asked[0] & asked[1] & asked[2]
    # Of 20 questions of a kind 2 are gold, and of the other 18 a fifth, rounded to 4, are shared.
    assert len(shared) == 2 * (2 + 4)
    assert asked[0] & asked[1] == asked[1] & asked[2] == shared
    assert {query for query in shared if plan.queries[query].gold} == {
        index for index, query in enumerate(plan.queries) if query.gold
    }
    assert set.union(*asked) == set(range(len(plan.queries)))


def test_sides_are_swapped_about_half_of_the_time():
    make_dataset(30)
    plan = make_plan(DATASET, SessionConfig(n_queries=400, n_annotators=4, segment_length=10, asks=(PREFERENCES,)))
    swapped = np.array([[assignment.swapped for assignment in of] for of in plan.assignments])
    # 1600 fair coins: outside five standard deviations once in a million runs; the seed is fixed besides.
    assert abs(swapped.mean() - 0.5) < 5 * 0.5 / 40
    assert (swapped[0] != swapped[1]).any()


def test_gold_answers_agree_with_rewards_and_costs_and_are_clear(plan):
    config = SessionConfig(**SMALL)
    judge = Judge.of(dataset_info(DATASET), load_outcomes(DATASET), config)
    gaps = []
    for query in plan.queries:
        if query.gold:
            assert judge.verdict(query) == query.gold
        if query.kind == PREFERENCES:
            numbers = judge.numbers(query.clips)
            gaps.append((query.gold is not None, abs(judge.returns[numbers[0]] - judge.returns[numbers[1]])))
        elif query.gold == "safe":
            assert judge.costs[judge.numbers(query.clips)][0] == 0
    assert min(gap for gold, gap in gaps if gold) > np.median([gap for gold, gap in gaps if not gold])


def test_all_segments_lie_within_their_episodes(plan):
    for query in plan.queries:
        assert len(query.clips) == (2 if query.kind == PREFERENCES else 1)
        for episode, start in query.clips:
            assert 0 <= episode < 12 and 0 <= start <= 40 - 10


def test_one_kind_alone_may_be_asked():
    make_dataset()
    plan = make_plan(DATASET, SessionConfig(**SMALL, asks=(SAFETY,)))
    assert {query.kind for query in plan.queries} == {SAFETY}
    assert len(plan.assignments[0]) == 40


def test_a_plan_says_what_it_is_about(plan):
    info = dataset_info(DATASET)
    about = plan.about
    assert (about["task"], about["dataset_fingerprint"], about["horizon"]) == (TASK, info.fingerprint, 500)
    assert about["goal"] == GOALS["Circle"]
    assert about["safety_bound"] == pytest.approx(25 * 10 / 500)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"asks": ("taste",)}, "--ask: expected one or more of preferences, safety, got taste"),
        ({"asks": ()}, "--ask: expected one or more of"),
        ({"asks": (SAFETY, SAFETY)}, "--ask: expected one or more of"),
        ({"n_queries": 0}, "--queries: expected a number from 1 to 100000, got 0"),
        ({"n_annotators": 0}, "--annotators: expected a number from 1"),
        ({"segment_length": 0}, "--segment-length: expected at least 1 step, got 0"),
        ({"overlap": 1.5}, r"--overlap: expected a share in \[0, 1\], got 1.5"),
        ({"gold": 0.6}, r"--gold: expected a share in \[0, 0.5\], got 0.6"),
        ({"cost_limit": -1.0}, "--cost-limit: expected a cost >= 0, got -1.0"),
        ({"show": ("seed",)}, "--show: expected some of reward, cost, policy, got seed"),
        ({"goal": ""}, "--goal: expected 1 to 300 characters"),
        ({"seed": -1}, "--seed: expected an integer >= 0, got -1"),
    ],
)
def test_a_value_out_of_range_is_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        SessionConfig(**options)


def test_more_questions_than_there_are_segments_are_refused():
    make_dataset(2)
    with pytest.raises(DataError, match=r"safety labels: .* different segments asked for, there are 62"):
        make_plan(DATASET, SessionConfig(n_queries=100, asks=(SAFETY,), segment_length=10, gold=0))


def test_gold_questions_without_a_clear_case_are_refused():
    episodes = [make_episode(index, unsafe=True) for index in range(2)]
    ones = [
        replace(episode, costs=np.ones(40), cost_terms={"cost_out_of_boundary": np.ones(40)}) for episode in episodes
    ]
    write_dataset(DATASET, ones, task=TASK)
    config = SessionConfig(n_queries=20, n_annotators=1, segment_length=10, asks=(SAFETY,), cost_limit=1e6)
    with pytest.raises(
        DataError, match="gold questions: 2 segments asked for, but 0 have no cost and 0 are unsafe; use"
    ):
        make_plan(DATASET, config)
