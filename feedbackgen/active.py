"""Active choices of pairs: where an ensemble of rewards disagrees or is unsure, and far from what was asked (k-center).

In sessions, as B-Pref: of ten times as many pairs, drawn at random, each session takes the best. The ensemble is a
function that is passed in, so that nothing here learns.

Source: B-Pref (Lee et al. 2021), ``RewardModel``: disagreement_sampling, entropy_sampling, kcenter_sampling and its two
combinations. We differ: k-center compares segments by a random projection to 64 numbers where they are longer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from feedbackgen.errors import DataError
from feedbackgen.gather import gather_segments
from feedbackgen.queries import Pool
from feedbackgen.segments import segment_sums
from feedbackgen.types import FloatArray, IntArray, Trajectories

# Predicted reward of steps, (n_members, n), from their observations, (n, O), and actions, (n, A), both as stored.
Ensemble = Callable[[FloatArray, FloatArray], FloatArray]

ACTIVE = ("disagreement", "entropy", "k-center", "k-center-disagreement", "k-center-entropy")
OVERSAMPLING = 10  # pairs drawn for one that is asked
N_PROJECTED = 64  # numbers that a segment is compared by, at most
STEPS_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True)
class Active:
    """How pairs are chosen actively."""

    queries: str  # one of ACTIVE
    session: int  # pairs asked at once
    ensemble: Ensemble | None = None  # of at least two members; k-center alone needs none


def draw_active_pairs(
    pool: Pool, trajectories: Trajectories, n_pairs: int, active: Active, rng: np.random.Generator
) -> IntArray:
    """Draw pairs and keep the most instructive.

    Args:
        pool: what to draw from.
        trajectories: with observations and actions.
        n_pairs: how many are asked.
        active: by what they are chosen.
        rng: the stream of the pairs.

    Returns:
        Numbers of first and second segments, (n_pairs, 2), session by session.

    Raises:
        DataError: the ensemble has one member, does not know such steps, or there are too few pairs.
    """
    n_drawn = max(n_pairs, min(OVERSAMPLING * n_pairs, pool.candidates.n_pairs // 2))
    pairs = pool.draw_pairs(n_drawn, rng)
    scores: FloatArray = np.zeros(n_drawn)
    if active.ensemble is not None and active.queries != "k-center":
        members = predicted_returns(active.ensemble, trajectories, pool.length)
        probabilities = preference_probabilities(members, pairs)
        by_entropy = active.queries in ("entropy", "k-center-entropy")
        scores = entropy(probabilities) if by_entropy else disagreement(probabilities)
    features = None
    if active.queries.startswith("k-center"):
        features = _features(pool, trajectories, pairs, rng)
    chosen: list[IntArray] = []
    centres: FloatArray = np.empty((0, 0 if features is None else features.shape[1]))
    for first in range(0, n_pairs, active.session):
        n_asked = min(active.session, n_pairs - first)
        rows: IntArray = np.arange(first * n_drawn // n_pairs, (first + n_asked) * n_drawn // n_pairs)
        if features is None:
            chosen.append(highest(scores, rows, n_asked))
            continue
        if active.queries != "k-center":
            rows = highest(scores, rows, max(len(rows) // 2, n_asked))
        chosen.append(rows[k_center(features[rows], centres, n_asked)])
        centres = np.concatenate([centres, features[chosen[-1]]]) if len(centres) else features[chosen[-1]]
    return pairs[np.concatenate(chosen)]


def predicted_returns(ensemble: Ensemble, trajectories: Trajectories, length: int) -> FloatArray:
    """Return of every segment as each member predicts it, (n_members, n_segments).

    Raises:
        DataError: fewer than two members, a wrong shape, or a value not finite.
    """
    parts = [
        np.asarray(
            ensemble(
                trajectories.observations[first : first + STEPS_AT_ONCE],
                trajectories.actions[first : first + STEPS_AT_ONCE],
            )
        )
        for first in range(0, trajectories.n_steps, STEPS_AT_ONCE)
    ]
    rewards = np.concatenate(parts, axis=-1)
    if rewards.ndim != 2 or len(rewards) < 2 or rewards.shape[1] != trajectories.n_steps:
        raise DataError(
            f"ensemble: expected rewards of shape (n_members >= 2, {trajectories.n_steps}), got {rewards.shape}"
        )
    if not np.isfinite(rewards).all():
        raise DataError("ensemble: expected finite rewards; its training has diverged")
    return np.stack([segment_sums(member, trajectories.starts, length) for member in rewards])


def preference_probabilities(members: FloatArray, pairs: IntArray) -> FloatArray:
    """What each member thinks of P(second preferred), (n_members, n_pairs).

    Args:
        members: predicted return of every segment, (n_members, n_segments).
        pairs: numbers of the first and the second segment, (n_pairs, 2).
    """
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(members[:, pairs[:, 0]] - members[:, pairs[:, 1]]))


def disagreement(probabilities: FloatArray) -> FloatArray:
    """Standard deviation over the members, (n_pairs,); B-Pref's ``get_rank_probability``."""
    return probabilities.std(axis=0, ddof=1)


def entropy(probabilities: FloatArray) -> FloatArray:
    """Mean entropy of the members' answers in nats, (n_pairs,); B-Pref's ``get_entropy``."""
    answers = np.stack([probabilities, 1 - probabilities])
    return -(answers * np.log(np.maximum(answers, 1e-300))).sum(axis=0).mean(axis=0)


def highest(scores: FloatArray, rows: IntArray, n: int) -> IntArray:
    """The ``n`` rows of highest score, highest first; of equal ones those that came first."""
    return rows[np.argsort(-scores[rows], kind="stable")[:n]]


def k_center(features: FloatArray, centres: FloatArray, n: int) -> IntArray:
    """Greedily, the row that is farthest from all centres, which then is one too; B-Pref's ``KCenterGreedy``.

    Args:
        features: (n_rows, F).
        centres: (n_centres, F); where there are none, the first row comes first.
        n: how many, at most n_rows.

    Returns:
        Places in ``features``, (n,), as they were chosen.
    """
    squares = (features**2).sum(axis=1)

    def distances(others: FloatArray) -> FloatArray:
        return squares[:, None] + (others**2).sum(axis=1) - 2 * features @ others.T

    nearest = np.full(len(features), np.inf)
    for first in range(0, len(centres), 4096):
        nearest = np.minimum(nearest, distances(centres[first : first + 4096]).min(axis=1))
    chosen = np.empty(n, dtype=np.int64)
    for place in range(n):
        chosen[place] = np.argmax(nearest)
        nearest = np.minimum(nearest, distances(features[chosen[place]][None])[:, 0])
        nearest[chosen[: place + 1]] = -np.inf
    return chosen


def _features(pool: Pool, trajectories: Trajectories, pairs: IntArray, rng: np.random.Generator) -> FloatArray:
    """Observations and actions of both segments one after the other, or a projection of each, (n_pairs, F)."""
    numbers, rows = np.unique(pairs, return_inverse=True)
    episodes, first_steps = pool.candidates.locate(numbers)
    first = trajectories.starts[episodes] + first_steps
    steps = np.concatenate([trajectories.observations, trajectories.actions], axis=1)
    n_values = pool.length * steps.shape[1]
    projection = None
    if n_values > N_PROJECTED:
        projection = rng.normal(size=(n_values, N_PROJECTED)) / np.sqrt(N_PROJECTED)
    parts = []
    n_at_once = max(STEPS_AT_ONCE // pool.length, 1)
    for begin in range(0, len(first), n_at_once):
        flat = gather_segments(steps, first[begin : begin + n_at_once], pool.length).reshape(-1, n_values)
        parts.append(flat if projection is None else flat @ projection)
    of_segments = np.concatenate(parts)
    return of_segments[rows.reshape(pairs.shape)].reshape(len(pairs), -1)
