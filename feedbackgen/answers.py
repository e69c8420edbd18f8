"""What the annotators say about drawn pairs and segments: the columns of the store, and what was counted on the way."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from feedbackgen.errors import DataError
from feedbackgen.presets import Annotator
from feedbackgen.queries import Pool
from feedbackgen.seeding import stream
from feedbackgen.segments import deal, discounted_sums
from feedbackgen.statistics import binomial_interval
from feedbackgen.teacher import (
    DISCOUNT_FROM,
    UNSAFE,
    Answers,
    Judge,
    answer,
    flip_safety,
    is_tie,
    judge,
    judge_safety,
    safety_noise,
)
from feedbackgen.types import FloatArray, IntArray, Outcomes, Trajectories

N_CALIBRATION_PAIRS = 100_000  # at most; a sample of its own, on which beta is solved for
MAX_ANSWERS = 250_000  # pairs answered at once, which bounds the memory
TALLY = (
    *("skipped", "ties", "decided"),
    *("draw_errors", "preference_flips", "preference_error"),
    *("draw_errors_expected", "preference_flips_expected", "preference_error_expected"),
)


def put_before(
    asked: Sequence[Annotator],
    pool: Pool,
    trajectories: Trajectories | Outcomes,
    *,
    horizon: int,
    seed: int,
) -> list[Judge]:
    """Every annotator before the segments of one length; those who discount alike share what they see.

    Raises:
        DataError: see `teacher.judge`.
    """
    rewards, length = np.asarray(trajectories.rewards), pool.length
    seen = {(1.0, discount_from): pool.returns for discount_from in DISCOUNT_FROM}
    for annotator in asked:
        key = annotator.teacher.discount, annotator.teacher.discount_from
        if key not in seen:
            seen[key] = discounted_sums(rewards, trajectories.starts, length, discount=key[0], discount_from=key[1])
    calibration = None
    if any(annotator.teacher.error_rate is not None for annotator in asked):
        # Drawn as the pairs are, but from a stream of its own: beta belongs to the dataset, not to these pairs.
        n_pairs = max(1, min(N_CALIBRATION_PAIRS, pool.candidates.n_pairs // 4))
        calibration = pool.returns, pool.draw_pairs(n_pairs, stream(seed, "calibration", length))
    mean_return = float(rewards.sum(dtype=np.float64)) / (len(trajectories.starts) - 1) * length / horizon
    judges = []
    for annotator in asked:
        values = seen[annotator.teacher.discount, annotator.teacher.discount_from]
        scale = pool.scale if values is pool.returns else None
        judges.append(
            judge(annotator.teacher, values=values, mean_return=mean_return, scale=scale, calibration=calibration)
        )
    return judges


def ask_preferences(
    asked: Sequence[Annotator],
    pools: Sequence[Pool],
    judges: Sequence[Sequence[Judge]],
    pairs: Sequence[IntArray],
    *,
    seed: int,
    channel: str = "preference",
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Answer all pairs; the pools take turns, so that row i belongs to pool ``i % n_pools``.

    Args:
        asked: the annotators.
        pools: one per segment length.
        judges: of each pool, one per annotator.
        pairs: of each pool, numbers of its segments, (n, 2).
        seed: of the answers.
        channel: names the random streams.

    Returns:
        Columns of the store and ``answered``, (n_pairs,) each; the statistics.

    Raises:
        DataError: every pair was skipped.
    """
    n_pools, n_pairs = len(pools), sum(map(len, pairs))
    annotator = assign(asked, n_pairs, stream(seed, f"{channel}-annotator"))
    columns: dict[str, np.ndarray] = {name: np.empty(n_pairs, np.float32) for name in ("probability", "clean", "label")}
    columns |= {"flipped": np.empty(n_pairs, bool), "answered": np.empty(n_pairs, bool)}
    tally = np.zeros((len(asked), len(TALLY)))
    for place, (pool, before, drawn) in enumerate(zip(pools, judges, pairs, strict=True)):
        draws, mistakes = stream(seed, channel, pool.length), stream(seed, f"{channel}-flip", pool.length)
        for first in range(0, len(drawn), MAX_ANSWERS):
            some = drawn[first : first + MAX_ANSWERS]
            rows = slice(place + n_pools * first, place + n_pools * (first + len(some)), n_pools)
            shared = {
                "draws": draws.random(len(some)),
                "mistakes": mistakes.random(len(some)),
                "tiredness": np.arange(rows.start, rows.stop, n_pools) / max(n_pairs - 1, 1),
            }
            for index, found in enumerate(before):
                own = slice(None) if len(asked) == 1 else np.flatnonzero(annotator[rows] == index)
                said = answer(found, pool.returns, some[own], **{name: values[own] for name, values in shared.items()})
                for name, column in columns.items():
                    column[rows][own] = getattr(said, name)
                tally[index] += _count(said, pool, some[own])
    if not columns["answered"].any():
        thresholds = ", ".join(f"{found.skip_threshold:g}" for before in judges for found in before)
        raise DataError(
            f"preferences: all {n_pairs} pairs were skipped (segment returns up to "
            f"{max(pool.returns.max() for pool in pools):g}, threshold {thresholds}); use a lower --skip"
        )
    return columns | {"annotator": annotator}, _preference_statistics(asked, n_pairs, tally)


def ask_safety(
    asked: Sequence[Annotator], pools: Sequence[Pool], judged: Sequence[IntArray], *, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Judge segments; the pools take turns as in `ask_preferences`.

    Returns:
        Columns of the store, (n_labels,) each; the statistics.
    """
    n_pools, n_labels = len(pools), sum(map(len, judged))
    annotator = assign(asked, n_labels, stream(seed, "safety-annotator"))
    columns: dict[str, np.ndarray] = {name: np.empty(n_labels, np.int8) for name in ("clean", "label")}
    columns |= {"flipped": np.empty(n_labels, bool), "annotator": annotator}
    probability = np.empty(n_labels)
    for place, (pool, drawn) in enumerate(zip(pools, judged, strict=True)):
        rows = slice(place, n_labels, n_pools)
        clean = judge_safety(pool.costs[drawn], pool.bound)
        tiredness = np.arange(place, n_labels, n_pools) / max(n_labels - 1, 1)
        noise = np.zeros(len(drawn))
        for index, one in enumerate(asked):
            own = slice(None) if len(asked) == 1 else annotator[rows] == index
            noise[own] = safety_noise(one.teacher, clean[own], tiredness[own])
        columns["clean"][rows], probability[rows] = clean, noise
        columns["label"][rows], columns["flipped"][rows] = flip_safety(
            clean, noise, stream(seed, "safety-flip", pool.length)
        )
    unsafe, flipped = columns["clean"] == UNSAFE, columns["flipped"]
    rates = {"safety_flips": rate(probability.mean() if n_labels else None, flipped.sum(), n_labels)}
    for name, which in (("misses", unsafe), ("false_alarms", ~unsafe)):
        n_which = int(np.count_nonzero(which))
        expected = probability @ which / n_which if n_which else None
        rates[name] = rate(expected, int(np.count_nonzero(flipped & which)), n_which)
    return columns, rates | {"unsafe_labels": rate(None, (columns["label"] == UNSAFE).sum(), n_labels)}


def rate(expected: float | None, n_happened: float, n_trials: float) -> dict[str, float | None]:
    """What was expected, what came out, and the 95 % interval around that."""
    n_happened, n_trials = int(n_happened), int(n_trials)
    low, high = binomial_interval(n_happened, n_trials)
    realised = n_happened / n_trials if n_trials else None
    return {"expected": None if expected is None else float(expected), "realised": realised, "low": low, "high": high}


def assign(asked: Sequence[Annotator], n_queries: int, rng: np.random.Generator) -> IntArray:
    """Who is asked which query, int32."""
    if len(asked) == 1:
        return np.zeros(n_queries, np.int32)
    return deal([annotator.share for annotator in asked], n_queries, rng).astype(np.int32)


def _count(said: Answers, pool: Pool, pairs: IntArray) -> FloatArray:
    """One row of the tally; rates count the answered pairs that are no tie and whose returns differ."""
    differences = pool.returns[pairs[:, 1]] - pool.returns[pairs[:, 0]]
    decides = said.answered & ~said.tied & ~is_tie(differences, pool.scale)
    decided = slice(None) if decides.all() else decides
    second_is_better = differences[decided] > 0
    probability, noise = said.probability[decided], said.noise[decided]
    draw_error = np.where(second_is_better, 1 - probability, probability)
    counted = {
        "skipped": (~said.answered).sum(),
        "ties": (said.answered & said.tied).sum(),
        "decided": decides.sum(),
        "draw_errors": ((said.clean[decided] == 1) != second_is_better).sum(),
        "draw_errors_expected": draw_error.sum(),
        "preference_flips": said.flipped[decided].sum(),
        "preference_flips_expected": noise.sum(),
        "preference_error": ((said.label[decided] == 1) != second_is_better).sum(),
        "preference_error_expected": (draw_error + noise - 2 * draw_error * noise).sum(),
    }
    return np.array([counted[name] for name in TALLY], dtype=float)


def _preference_statistics(asked: Sequence[Annotator], n_pairs: int, tally: FloatArray) -> dict[str, Any]:
    """Ties, and the rates over all other pairs; of a mixture, also each annotator's final error."""

    def share(name: str, row: FloatArray) -> dict[str, float | None]:
        counts = dict(zip(TALLY, row, strict=True))
        n_decided = counts["decided"]
        expected = counts[f"{name}_expected"] / n_decided if n_decided else None
        return rate(expected, counts[name], n_decided)

    total = tally.sum(axis=0)
    return {
        "ties": int(total[TALLY.index("ties")]),
        "skipped": rate(None, total[TALLY.index("skipped")], n_pairs),
        **{name: share(name, total) for name in ("draw_errors", "preference_flips", "preference_error")},
        **{
            f"preference_error of {annotator.name}": share("preference_error", row)
            for annotator, row in zip(asked, tally, strict=True)
            if len(asked) > 1
        },
    }
