"""How far annotators agree: with each other, with known answers, and with the rewards and costs of the dataset.

Intervals of 95 %: of accuracies Wilson's, of agreement the bootstrap's over questions.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import krippendorff
import numpy as np

from feedbackgen.annotation.answers import Answer, Answers, answers_path
from feedbackgen.annotation.export import LABELS, require_same_data
from feedbackgen.annotation.sessions import Judge, SessionConfig
from feedbackgen.episodes import dataset_info, load_outcomes
from feedbackgen.seeding import stream
from feedbackgen.statistics import binomial_interval
from feedbackgen.types import FloatArray, IntArray

N_RESAMPLES = 1000
EVERYONE = "everyone"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One line of the report."""

    kind: str  # of question: preferences or safety
    name: str
    of: str  # whose answers: a pseudonym, or everyone's
    value: float | None  # None where it is not defined, such as a kappa when all say the same
    low: float | None
    high: float | None
    n: int  # answers, or questions that two or more answered


def agreement(dataset: str | Path, name: str) -> list[Measure]:
    """Measure a session's answers; those who could not tell have given none.

    - ``raw agreement``: the probability that two answers to one question are the same.
    - ``Cohen's kappa`` of two annotators, ``Fleiss' kappa`` and ``Krippendorff's alpha`` (nominal) of any number.
    - ``accuracy on gold``: of the questions whose answer was known; "equal" is wrong there.
    - ``agreement with the oracle``: with higher returns and with costs below the bound, on the questions that are not
      gold; answers of "equal", and equal returns, are left out.

    Source: Fleiss 1971; Krippendorff 2011; both on questions with two answers or more, as many as each has.

    Args:
        dataset: Minari id or path.
        name: of the session.

    Raises:
        DataError: no session of that name, or other data than it asked about.
    """
    book = Answers(answers_path(dataset, name))
    try:
        require_same_data(book, dataset)
        said = [answer for answer in book.answers() if answer.verdict in LABELS[book.queries[answer.query].kind]]
        config = SessionConfig(**book.about["config"])
        info = dataset_info(dataset)
        judge = Judge.of(info, load_outcomes(dataset), config) if info.has_costs else None
        measures = []
        for kind in config.asks:
            answers = [answer for answer in said if book.queries[answer.query].kind == kind]
            measures += _between(kind, answers)
            gold = [answer for answer in answers if book.queries[answer.query].gold is not None]
            known = {query: book.queries[query].gold for query in book.queries}
            measures += _accuracy(kind, "accuracy on gold", gold, known, book.pseudonym)
            if judge is None:
                continue
            rest = [answer for answer in answers if answer not in gold and answer.verdict != "equal"]
            told = {answer.query: judge.verdict(book.queries[answer.query]) for answer in rest}
            rest = [answer for answer in rest if told[answer.query] is not None]
            measures += _accuracy(kind, "agreement with the oracle", rest, told, book.pseudonym)
    finally:
        book.close()
    return measures


def _between(kind: str, answers: list[Answer]) -> list[Measure]:
    labels = {verdict: column for column, verdict in enumerate(LABELS[kind])}
    by_query: dict[int, dict[int, int]] = {}  # question -> annotator -> label
    for answer in answers:
        by_query.setdefault(answer.query, {})[answer.place] = labels[answer.verdict]
    shared = [of_query for of_query in by_query.values() if len(of_query) > 1]
    if not shared:
        return []
    counts = np.zeros((len(shared), len(labels)), dtype=np.int64)
    for row, of_query in enumerate(shared):
        np.add.at(counts[row], list(of_query.values()), 1)
    measures: dict[str, Callable[[IntArray], float]] = {
        "raw agreement": lambda rows: float(_agreement_of(counts[rows]).mean()),
        "Fleiss' kappa": lambda rows: fleiss_kappa(counts[rows]),
        "Krippendorff's alpha": lambda rows: krippendorff_alpha(counts[rows]),
    }
    people = sorted({place for of_query in shared for place in of_query})
    if len(people) == 2:
        pairs = np.array([[of_query[place] for place in people] for of_query in shared])
        measures["Cohen's kappa"] = lambda rows: cohen_kappa(pairs[rows])
    resamples = stream(0, "agreement", kind).integers(len(shared), size=(N_RESAMPLES, len(shared)))
    found = []
    for name, measure in measures.items():
        value = measure(np.arange(len(shared)))
        again = np.array([measure(rows) for rows in resamples])
        again = again[~np.isnan(again)]
        low, high = np.quantile(again, [0.025, 0.975]) if len(again) and not math.isnan(value) else (math.nan, math.nan)
        found.append(_measure(kind, name, EVERYONE, value, low, high, len(shared)))
    return found


def _accuracy(
    kind: str, name: str, answers: list[Answer], known: dict[int, str | None], pseudonym: Callable[[int], str]
) -> list[Measure]:
    if not answers:
        return []

    def line(of: str, some: Iterable[Answer]) -> Measure:
        right = [answer.verdict == known[answer.query] for answer in some]
        return _measure(kind, name, of, float(np.mean(right)), *binomial_interval(sum(right), len(right)), len(right))

    places = sorted({answer.place for answer in answers})
    lines = [line(EVERYONE, answers)]
    if len(places) > 1:
        lines += [line(pseudonym(place), [one for one in answers if one.place == place]) for place in places]
    return lines


def _measure(kind: str, name: str, of: str, value: float, low: float, high: float, n: int) -> Measure:
    numbers = {"value": value, "low": low, "high": high}
    told = {name: None if math.isnan(number) else float(number) for name, number in numbers.items()}
    return Measure(kind=kind, name=name, of=of, n=n, **told)


def _agreement_of(counts: IntArray) -> FloatArray:
    """Of each question, the share of pairs of its answers that are the same, (n_questions,)."""
    n = counts.sum(axis=1)
    return (counts * (counts - 1)).sum(axis=1) / (n * (n - 1))


def fleiss_kappa(counts: IntArray) -> float:
    """Agreement beyond chance; NaN where all answers are the same.

    Args:
        counts: answers of each label, (n_questions, n_labels); two or more a question.
    """
    shares = counts.sum(axis=0) / counts.sum()
    by_chance = float((shares**2).sum())
    if by_chance >= 1:
        return math.nan
    return (float(_agreement_of(counts).mean()) - by_chance) / (1 - by_chance)


def cohen_kappa(pairs: IntArray) -> float:
    """Agreement of two annotators beyond chance; NaN where both always say the same one thing.

    Args:
        pairs: label of one and of the other, (n_questions, 2).
    """
    by_chance = sum(float(np.mean(pairs[:, 0] == label) * np.mean(pairs[:, 1] == label)) for label in np.unique(pairs))
    return math.nan if by_chance >= 1 else (float(np.mean(pairs[:, 0] == pairs[:, 1])) - by_chance) / (1 - by_chance)


def krippendorff_alpha(counts: IntArray) -> float:
    """Nominal alpha; NaN where all answers are the same. ``counts`` as in `fleiss_kappa`."""
    if np.count_nonzero(counts.sum(axis=0)) < 2:
        return math.nan
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))
