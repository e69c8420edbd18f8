"""Further kinds of feedback on the segments that the teachers are asked about, and on whole episodes.

Ratings of single segments; which of two segments is the safer one, as Safe-RLHF asks (Dai et al. 2023); whether a whole
episode is safe; and episodes that are not to be followed, of which SafeMIL learns (Gong et al.). Each kind has random
streams of its own: asking for it changes no other label.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from feedbackgen.answers import ask_preferences, assign, put_before, rate
from feedbackgen.errors import DataError
from feedbackgen.feedback import EpisodeSafety, NonPreferred, Preferences, Ratings
from feedbackgen.presets import Annotator
from feedbackgen.queries import Pool
from feedbackgen.seeding import stream
from feedbackgen.teacher import UNSAFE, Judge, flip_safety, judge_safety, return_scale, safety_noise
from feedbackgen.types import FloatArray, IntArray, Outcomes, Trajectories

Columns = dict[str, np.ndarray]
Statistics = dict[str, Any]
N_NON_PREFERRED = 50  # where no number is given and so many episodes are unsafe; SafeMIL's


def rate_segments(
    asked: Sequence[Annotator],
    pools: Sequence[Pool],
    judges: Sequence[Sequence[Judge]],
    drawn: Sequence[IntArray],
    *,
    n_bins: int,
    seed: int,
) -> tuple[Columns, Statistics]:
    """Rate segments from 0 to ``n_bins - 1``; the pools take turns as in `answers.ask_preferences`.

    Bins are equally wide, from the lowest return of all segments of that length to the highest, as the teacher sees
    them. A mistake, which comes as often as a flipped preference would, moves a rating to a neighbouring bin: up or
    down by a coin, inwards at the ends.

    Args:
        drawn: of each pool, numbers of its segments, (n,).

    Returns:
        Columns label, annotator, clean and flipped, (n_ratings,) each; the statistics.
    """
    n_pools, n_ratings = len(pools), sum(map(len, drawn))
    annotator = assign(asked, n_ratings, stream(seed, "rating-annotator"))
    columns: Columns = {"annotator": annotator, "flipped": np.zeros(n_ratings, bool)}
    columns |= {name: np.zeros(n_ratings, np.int8) for name in ("clean", "label")}
    expected = np.zeros(n_ratings)
    for place, (pool, before, numbers) in enumerate(zip(pools, judges, drawn, strict=True)):
        rng = stream(seed, "rating-flip", pool.length)
        mistakes, upwards = rng.random(len(numbers)), rng.random(len(numbers)) < 0.5
        tiredness = np.arange(place, n_ratings, n_pools) / max(n_ratings - 1, 1)
        rows = slice(place, n_ratings, n_pools)
        for index, found in enumerate(before):
            own = annotator[rows] == index
            clean = bins_of(found.values, numbers[own], n_bins)
            noise = found.teacher.noise + found.teacher.drift * tiredness[own]
            flipped = mistakes[own] < noise
            up = np.where(clean == 0, True, np.where(clean == n_bins - 1, False, upwards[own]))
            expected[rows][own], columns["clean"][rows][own], columns["flipped"][rows][own] = noise, clean, flipped
            columns["label"][rows][own] = np.where(flipped, clean + np.where(up, 1, -1), clean)
    n_flipped = int(np.count_nonzero(columns["flipped"]))
    return columns, {"ratings": n_ratings, "rating_flips": rate(expected.mean(), n_flipped, n_ratings)}


def bins_of(values: FloatArray, numbers: IntArray, n_bins: int) -> IntArray:
    """Which of ``n_bins`` equally wide bins of all values each chosen one lies in, int8, (n,)."""
    low, high = float(values.min()), float(values.max())
    shares = (values[numbers] - low) / (high - low)
    return np.minimum(shares * n_bins, n_bins - 1).astype(np.int8)


def compare_safety(
    asked: Sequence[Annotator],
    pools: Sequence[Pool],
    pairs: Sequence[IntArray],
    trajectories: Trajectories | Outcomes,
    *,
    horizon: int,
    seed: int,
) -> tuple[Columns, Statistics]:
    """Which segment of each pair is safer: Bradley-Terry on costs, rational and mistaken as in preferences by return.

    The unit of beta is the standard deviation of the costs' differences, or 1 cost for a teacher who counts in raw
    reward. Skipping, equal bands and myopia are about returns and play no part; equal costs are 0.5.

    Returns:
        Columns label, annotator, probability, clean and flipped, (n_pairs,) each; the statistics.

    Raises:
        DataError: all segments of a length cost the same.
    """
    by_cost = []
    for pool in pools:
        if pool.costs.min() == pool.costs.max():
            raise DataError(
                f"safety preferences: all segments of {pool.length} steps cost {pool.costs[0]:g}, so none is safer; "
                "collect another mixture of policies, or use another --segment-length"
            )
        safety = -pool.costs
        by_cost.append(replace(pool, returns=safety, scale=return_scale(safety), margin=None))
    plain = [
        replace(one, teacher=replace(one.teacher, skip=0.0, equal=0.0, squares_thresholds=False, discount=1.0))
        for one in asked
    ]
    judges = [put_before(plain, pool, trajectories, horizon=horizon, seed=seed) for pool in by_cost]
    columns, found = ask_preferences(plain, by_cost, judges, pairs, seed=seed, channel="safety-preference")
    del columns["answered"], found["skipped"]
    statistics = {"safety_preferences": sum(map(len, pairs))}
    return columns, statistics | {
        f"safety_preference_{name.removeprefix('preference_')}": value for name, value in found.items()
    }


def judge_episodes(
    asked: Sequence[Annotator], costs: FloatArray, *, cost_limit: float, seed: int
) -> tuple[EpisodeSafety, Columns, Statistics]:
    """Whether each episode's cost is at most the limit; misses and false alarms as in segments' safety labels.

    Args:
        costs: of every episode, (n_episodes,).

    Returns:
        The labels; clean and flipped, (n_episodes,) each; the statistics.
    """
    n = len(costs)
    annotator = assign(asked, n, stream(seed, "episode-safety-annotator"))
    clean = judge_safety(costs, cost_limit)
    noise = _safety_noise(asked, annotator, clean)
    label, flipped = flip_safety(clean, noise, stream(seed, "episode-safety-flip"))
    statistics = {
        "episode_safety_labels": n,
        "episode_safety_flips": rate(noise.mean(), int(np.count_nonzero(flipped)), n),
        "unsafe_episodes": rate(None, int(np.count_nonzero(label == UNSAFE)), n),
    }
    labels = EpisodeSafety(episode=np.arange(n, dtype=np.int32), label=label, annotator=annotator)
    return labels, {"clean": clean, "flipped": flipped}, statistics


def pick_non_preferred(
    asked: Sequence[Annotator], costs: FloatArray, n_picked: int | None, *, cost_limit: float, seed: int, dataset: str
) -> tuple[NonPreferred, Columns, Statistics]:
    """Pick episodes that cost more than the limit, each at most once; a false alarm picks a safe one instead.

    Args:
        costs: of every episode, (n_episodes,).
        n_picked: how many; None: `N_NON_PREFERRED`, or as many as are unsafe.
        dataset: named in errors.

    Returns:
        The episodes; clean, (n_picked,), which is +1 where one is safe after all; the statistics.

    Raises:
        DataError: there are not so many episodes of a kind.
    """
    clean = judge_safety(costs, cost_limit)
    rng = stream(seed, "non-preferred")
    unsafe, safe = (rng.permutation(np.flatnonzero(which)) for which in (clean == UNSAFE, clean != UNSAFE))
    n = min(N_NON_PREFERRED, len(unsafe)) if n_picked is None else n_picked
    annotator = assign(asked, n, stream(seed, "non-preferred-annotator"))
    noise = _safety_noise(asked, annotator, np.full(n, -UNSAFE))
    wrong = stream(seed, "non-preferred-flip").random(n) < noise
    n_wrong = int(np.count_nonzero(wrong))
    for there, wanted, kind in ((unsafe, n - n_wrong, "more"), (safe, n_wrong, "at most")):
        if len(there) < max(wanted, kind == "more"):
            raise DataError(
                f"non-preferred trajectories: {len(there)} of {len(costs)} episodes of {dataset} cost {kind} than "
                f"{cost_limit:g}, but {max(wanted, 1)} are to be picked; use a lower --non-preferred "
                "or another --cost-limit"
            )
    episode = np.empty(n, np.int32)
    episode[~wrong], episode[wrong] = unsafe[: n - n_wrong], safe[:n_wrong]
    picked = NonPreferred(episode=episode, annotator=annotator)
    statistics = {"non_preferred": n, "non_preferred_mistakes": rate(noise.mean(), n_wrong, n)}
    return picked, {"clean": clean[episode]}, statistics


def ratings_of(columns: Columns, segment: IntArray) -> Ratings:
    return Ratings(segment=segment, label=columns["label"], annotator=columns["annotator"])


def safety_preferences_of(columns: Columns, pair: IntArray) -> Preferences:
    return Preferences(pair=pair, label=columns["label"], annotator=columns["annotator"])


def _safety_noise(asked: Sequence[Annotator], annotator: IntArray, clean: IntArray) -> FloatArray:
    tiredness = np.arange(len(clean)) / max(len(clean) - 1, 1)
    noise = np.zeros(len(clean))
    for index, one in enumerate(asked):
        own = annotator == index
        noise[own] = safety_noise(one.teacher, clean[own], tiredness[own])
    return noise
