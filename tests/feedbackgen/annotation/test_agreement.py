"""The agreement report: kappas and alpha by hand, and a known error rate measured through the page's own interface."""

import http.client
import json
import math

import numpy as np
import pytest
from people import answer_all, free_port, open_session, start_server
from samples import DATASET

from feedbackgen.annotation.agreement import agreement, cohen_kappa, fleiss_kappa, krippendorff_alpha
from feedbackgen.annotation.answers import Answers
from feedbackgen.annotation.export import export_answers
from feedbackgen.annotation.sessions import PREFERENCES, SAFETY, Judge, SessionConfig
from feedbackgen.episodes import dataset_info, load_outcomes
from feedbackgen.errors import DataError
from feedbackgen.statistics import binomial_interval


def test_cohens_kappa_by_hand():
    # Of 50, both say 0 in 20 and 1 in 15: p = 0.7; shares 0.5 and 0.6: chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5.
    pairs = np.array([[0, 0]] * 20 + [[1, 1]] * 15 + [[0, 1]] * 5 + [[1, 0]] * 10)
    assert cohen_kappa(pairs) == pytest.approx(0.4)
    assert math.isnan(cohen_kappa(np.zeros((5, 2), dtype=int)))


def test_fleiss_kappa_is_that_of_the_worked_example():
    # Fleiss 1971 as Wikipedia works it: ten subjects, fourteen raters, five categories.
    counts = np.array(
        [
            [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
        ]
    )  # fmt: skip
    assert fleiss_kappa(counts) == pytest.approx(0.20993, abs=1e-5)


def test_krippendorffs_alpha_by_hand():
    # Two observers, ten units, binary (Krippendorff 2011, section B): alpha = 0.095.
    one, other = "0100000000", "1110011000"
    counts = np.array([[(a + b).count("0"), (a + b).count("1")] for a, b in zip(one, other, strict=True)])
    assert krippendorff_alpha(counts) == pytest.approx(1 - 19 * 4 / (14 * 6), abs=1e-12)
    assert math.isnan(krippendorff_alpha(np.array([[2, 0], [3, 0]])))


def judge_of(answers):
    config = SessionConfig(**answers.about["config"])
    return Judge.of(dataset_info(DATASET), load_outcomes(DATASET), config)


def opposite(verdict):
    return {"first": "second", "second": "first", "safe": "unsafe", "unsafe": "safe"}[verdict]


def test_perfect_annotators_agree_with_everything():
    answers = open_session(n_queries=40, n_annotators=2, overlap=1.0, gold=0.2)
    judge = judge_of(answers)
    for name in ("Ada", "Eve"):
        answer_all(answers, answers.join(name), lambda _, query: judge.verdict(query) or "equal")
    answers.close()
    measures = agreement(DATASET, "human")
    assert all(measure.value == 1 for measure in measures)
    assert {(measure.kind, measure.name) for measure in measures} == {
        (kind, name)
        for kind in (PREFERENCES, SAFETY)
        for name in (
            "raw agreement", "Fleiss' kappa", "Krippendorff's alpha", "Cohen's kappa", "accuracy on gold",
            "agreement with the oracle",
        )
    }  # fmt: skip
    assert next(m.n for m in measures if (m.kind, m.name) == (SAFETY, "raw agreement")) == 20


def test_one_annotator_has_nobody_to_agree_with_and_a_coin_agrees_by_chance():
    answers = open_session(n_queries=200, n_annotators=2, overlap=1.0, gold=0.1, asks=(SAFETY,))
    rng = np.random.default_rng(0)
    judge = judge_of(answers)
    answer_all(answers, answers.join("Ada"), lambda _, query: judge.verdict(query))
    assert {m.name for m in agreement(DATASET, "human")} == {"accuracy on gold", "agreement with the oracle"}
    answer_all(answers, answers.join("Eve"), lambda *_: "safe" if rng.random() < 0.5 else "unsafe")
    answers.close()
    measures = {(measure.name, measure.of): measure for measure in agreement(DATASET, "human")}
    for name in ("Cohen's kappa", "Krippendorff's alpha", "Fleiss' kappa"):
        found = measures[name, "everyone"]
        assert found.low < 0 < found.high and found.n == 200
    people = [of for name, of in measures if name == "accuracy on gold" and of != "everyone"]
    assert len(people) == 2 and {measures["accuracy on gold", of].value == 1 for of in people} == {True, False}


def test_other_data_and_no_session_are_one_line_each():
    with pytest.raises(DataError):
        agreement(DATASET, "human")
    open_session().close()
    with pytest.raises(DataError, match="no annotation session"):
        agreement(DATASET, "other")
    assert agreement(DATASET, "human") == []


@pytest.mark.slow
def test_a_simulated_annotator_at_the_pages_interface_is_measured_at_its_error_rate():
    rate, n_queries = 0.2, 160
    answers = open_session(40, n_queries=n_queries, n_annotators=1, gold=0.5)
    judge = judge_of(answers)
    key = answers.key(answers.join("Ada"))
    queries = answers.queries
    answers.close()
    rng, port = np.random.default_rng(5), free_port()
    server = start_server(answers.path, port)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

        def call(method, path, body=None):
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            content = json.loads(response.read())
            assert response.status == 200, content
            return content

        state, book, n_wrong = call("GET", "/api/state"), Answers(answers.path), 0
        while (asked := state["asked"]) is not None:
            query = queries[asked["query"]]
            verdict = judge.verdict(query)
            if verdict is not None and rng.random() < rate:
                verdict, n_wrong = opposite(verdict), n_wrong + 1
            said = verdict or "equal"
            if said in ("first", "second"):
                shown_first = book.clip(0, asked["query"], 0) == query.clips[0]
                said = "left" if (said == "first") == shown_first else "right"
            body = {"query": asked["query"], "answer": said, "seconds": 1, "request": f"question-{asked['query']}"}
            state = call("POST", "/api/answer", body)
        book.close()
    finally:
        server.kill()
        server.wait()
    export_answers(DATASET, "human")
    measures = {(m.kind, m.name): m for m in agreement(DATASET, "human")}
    assert measures.keys() == {
        (kind, name) for kind in (PREFERENCES, SAFETY) for name in ("accuracy on gold", "agreement with the oracle")
    }
    n = sum(measure.n for measure in measures.values())
    right = sum(measure.value * measure.n for measure in measures.values())
    assert n == n_queries - sum(judge.verdict(query) is None for query in queries.values())
    assert round(n - right) == n_wrong  # exactly those that were drawn
    low, high = binomial_interval(n_wrong, n, 0.9999)
    assert low < rate < high
    for measure in measures.values():
        low, high = binomial_interval(round(measure.value * measure.n), measure.n, 0.9999)
        assert low < 1 - rate < high
