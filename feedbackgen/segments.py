"""Which segments are asked about: every segment of one length, their sums, and random segments and pairs of them."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from feedbackgen.errors import DataError
from feedbackgen.types import BoolArray, FloatArray, IntArray

MAX_DRAW = 1_000_000  # pairs drawn at once, which bounds the memory
MAX_SUMMED = 32_768  # steps summed at once: as many as stay in a processor's cache
MAX_ROUNDS = 24  # of drawing, before we say that there are no more pairs


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Every segment of one length, numbered in the order of episodes and first steps."""

    length: int  # steps of each segment, H
    offsets: IntArray  # (n_episodes + 1,), the number of an episode's first segment

    @property
    def n_segments(self) -> int:
        return int(self.offsets[-1])

    @property
    def n_pairs(self) -> int:
        """How many different pairs there are that share no step."""
        per_episode = np.diff(self.offsets)
        apart = np.minimum(self.length - 1, np.maximum(per_episode - 1, 0))
        overlapping = int(np.sum(apart * per_episode - apart * (apart + 1) // 2))
        return self.n_segments * (self.n_segments - 1) // 2 - overlapping

    def locate(self, numbers: IntArray) -> tuple[IntArray, IntArray]:
        """The episode and the first step of each numbered segment."""
        episodes = np.searchsorted(self.offsets, numbers, side="right") - 1
        return episodes, numbers - self.offsets[episodes]


@dataclass(frozen=True, kw_only=True)
class Strata:
    """Draw unsafe and safe segments in fixed shares instead of as they come."""

    unsafe: BoolArray  # (n_segments,), of all candidates
    unsafe_share: float  # in [0, 1]


def enumerate_segments(starts: IntArray, length: int, *, dataset: str = "the dataset") -> Candidates:
    """Number every segment of ``length`` steps that lies within one episode.

    Args:
        starts: first step of each episode and, last, the number of steps, (n_episodes + 1,).
        length: steps of a segment, >= 1.
        dataset: named in the error.

    Raises:
        DataError: no episode is long enough.
    """
    lengths = np.diff(starts)
    offsets = np.concatenate([[0], np.cumsum(np.maximum(lengths - length + 1, 0))]).astype(np.int64)
    if offsets[-1] == 0:
        longest = int(lengths.max(initial=0))
        raise DataError(
            f"segment length {length}: longest episode of {dataset} has {longest} steps; "
            f"use --segment-length {longest} or less"
        )
    return Candidates(length=length, offsets=offsets)


def segment_sums(values: FloatArray, starts: IntArray, length: int) -> FloatArray:
    """Undiscounted sum of ``values`` over each candidate segment, in the order of `enumerate_segments`.

    Args:
        values: one per step of the dataset, (n_steps,).
        starts: first step of each episode and, last, the number of steps, (n_episodes + 1,).
        length: steps of a segment.

    Returns:
        float64, (n_segments,).
    """
    lengths = np.diff(starts)
    sums = np.empty(int(np.maximum(lengths - length + 1, 0).sum()))
    # Sums start anew in each episode: over a whole dataset the rounding error of the difference would show.
    # Neighbours of equal length go together, one per row.
    changes = np.flatnonzero(np.diff(lengths, prepend=-1, append=-1))
    n_done = 0
    for first, last in pairwise(changes.tolist()):
        n_steps = int(lengths[first])
        n_segments = n_steps - length + 1
        if n_segments < 1:
            continue
        rows = min(max(MAX_SUMMED // n_steps, 1), last - first)
        cumulative = np.zeros((rows, n_steps + 1))
        for episode in range(first, last, rows):
            n_rows = min(rows, last - episode)
            steps = values[starts[episode] : starts[episode + n_rows]].reshape(n_rows, n_steps)
            np.cumsum(steps, axis=1, out=cumulative[:n_rows, 1:])
            block = sums[n_done : n_done + n_rows * n_segments].reshape(n_rows, n_segments)
            np.subtract(cumulative[:n_rows, length:], cumulative[:n_rows, :-length], out=block)
            n_done += block.size
    return sums


def discounted_sums(
    values: FloatArray, starts: IntArray, length: int, *, discount: float, discount_from: str = "end"
) -> FloatArray:
    """Discounted sum of ``values`` over each candidate segment, in the order of `enumerate_segments`.

    Args:
        values: as in `segment_sums`, like ``starts`` and ``length``.
        discount: per step, in (0, 1].
        discount_from: step t of H counts ``discount^(H-1-t)`` from the "end", ``discount^t`` from the "start".

    Returns:
        float64, (n_segments,).
    """
    # Sums of 1, 2, 4, ... steps make up those of any length: nothing is subtracted, so nothing cancels.
    doubled, n_doubled = np.asarray(values, dtype=np.float64), 1
    sums, n_summed = np.zeros(len(doubled) + 1), 0
    while n_summed < length:
        if length & n_doubled:
            sums = _joined(sums, n_summed, doubled, n_doubled, discount, discount_from)
            n_summed += n_doubled
        doubled = _joined(doubled, n_doubled, doubled, n_doubled, discount, discount_from)
        n_doubled *= 2
    n_steps = np.diff(starts)
    n_segments = np.maximum(n_steps - length + 1, 0)
    within = np.repeat(np.tile([True, False], len(n_steps)), np.stack([n_segments, n_steps - n_segments], 1).ravel())
    return sums[within[: len(sums)]]


def draw_pairs(
    candidates: Candidates,
    n_pairs: int,
    rng: np.random.Generator,
    *,
    strata: Strata | None = None,
) -> IntArray:
    """Draw different pairs of segments; the two of a pair share no step, and no pair comes twice, in either order.

    Args:
        candidates: what to draw from, uniformly.
        n_pairs: how many.
        rng: the stream of the pairs.
        strata: each segment of a pair is an unsafe one with probability ``unsafe_share``, before pairs that come twice
            are dropped; None draws from all alike.

    Returns:
        Numbers of the first and the second segment, int64, (n_pairs, 2).

    Raises:
        DataError: there are not that many pairs.
    """
    if n_pairs > candidates.n_pairs:
        raise DataError(_too_few_pairs(n_pairs, candidates.n_pairs, candidates.length))
    pairs = np.empty((0, 2), dtype=np.int64)
    n_drawn = n_pairs + n_pairs // 16 + 64
    for _ in range(MAX_ROUNDS):
        drawn = _draw(candidates.n_segments, (n_drawn, 2), rng, strata)
        pairs = _distinct(np.concatenate([pairs, drawn[~_overlap(candidates, drawn)]]), candidates.n_segments)
        if len(pairs) >= n_pairs:
            return pairs[:n_pairs]
        n_drawn = min(2 * n_drawn, MAX_DRAW)
    raise DataError(_too_few_pairs(n_pairs, len(pairs), candidates.length))


def draw_segments(
    n_segments: int,
    n_drawn: int,
    rng: np.random.Generator,
    *,
    strata: Strata | None = None,
) -> IntArray:
    """Draw different segments.

    Args:
        n_segments: number of candidates.
        n_drawn: how many to draw.
        rng: the stream of the segments.
        strata: ``unsafe_share`` of the drawn are unsafe, exact but for rounding; None draws from all alike.

    Returns:
        Numbers of the segments in random order, int64, (n_drawn,).

    Raises:
        DataError: there are not that many segments, or not that many unsafe or safe ones.
    """
    if strata is None:
        _require_enough(n_drawn, n_segments, "")
        return _choose(n_segments, n_drawn, rng)
    n_unsafe = round(n_drawn * strata.unsafe_share)
    drawn = []
    for kind, stratum, n_wanted in (
        ("unsafe ", np.flatnonzero(strata.unsafe), n_unsafe),
        ("safe ", np.flatnonzero(~strata.unsafe), n_drawn - n_unsafe),
    ):
        _require_enough(n_wanted, len(stratum), kind)
        drawn.append(stratum[_choose(len(stratum), n_wanted, rng)])
    return rng.permutation(np.concatenate(drawn))


def _joined(left, n_left, right, n_right, discount, discount_from):
    """Sums over ``n_left`` steps and the ``n_right`` steps that follow them, from every step on that has so many."""
    right = right[n_left:]
    left = left[: len(right)]
    if discount_from == "end":
        return left * discount**n_right + right
    return left + right * discount**n_left


def _draw(n_segments, shape, rng, strata):
    if strata is None:
        return rng.integers(n_segments, size=shape)
    numbers = np.flatnonzero(strata.unsafe), np.flatnonzero(~strata.unsafe)
    from_unsafe = rng.random(shape) < strata.unsafe_share
    drawn = np.empty(shape, dtype=np.int64)
    for stratum, chosen in zip(numbers, (from_unsafe, ~from_unsafe), strict=True):
        if chosen.any():
            drawn[chosen] = stratum[rng.integers(len(stratum), size=int(chosen.sum()))]
    return drawn


def _overlap(candidates, pairs):
    overlap = np.abs(pairs[:, 0] - pairs[:, 1]) < candidates.length
    # Neighbouring numbers may also belong to neighbouring episodes.
    first, second = (candidates.locate(pairs[overlap, side])[0] for side in (0, 1))
    overlap[overlap] = first == second
    return overlap


def _distinct(pairs, n_segments):
    """Each pair where it came first."""
    keys = pairs.min(axis=1) * np.int64(n_segments) + pairs.max(axis=1)
    in_order = np.sort(keys)
    twice = in_order[1:][in_order[1:] == in_order[:-1]]
    if len(twice) == 0:
        return pairs
    # Few come twice as a rule, so only those are looked at closely.
    places = np.flatnonzero(np.isin(keys, twice))
    again = np.ones(len(places), dtype=bool)
    again[np.unique(keys[places], return_index=True)[1]] = False
    return np.delete(pairs, places[again], axis=0)


def _choose(n, n_drawn, rng):
    """Different numbers below ``n`` in random order: drawn one after the other, without those that came before."""
    if 2 * n_drawn > n:
        return rng.permutation(n)[:n_drawn]
    chosen = np.empty(0, dtype=np.int64)
    # Where a number came first; only what was drawn is ever read.
    first = np.empty(n, dtype=np.int32 if n < 2**31 else np.int64)
    while len(chosen) < n_drawn:
        expected = n * np.log1p((n_drawn - len(chosen)) / (n - n_drawn))  # until that many new ones came
        drawn = np.concatenate([chosen, rng.integers(n, size=int(1.02 * expected) + 64)])
        places = np.arange(len(drawn), dtype=first.dtype)
        first[drawn[::-1]] = places[::-1]
        chosen = drawn[first[drawn] == places]
    return chosen[:n_drawn]


def _require_enough(n_wanted, n_there, kind):
    if n_wanted > n_there:
        raise DataError(
            f"safety labels: {n_wanted} different {kind}segments asked for, there are {n_there}; ask for fewer labels"
            + (", or another --unsafe-share" if kind else "")
        )


def _too_few_pairs(n_wanted, n_there, length):
    fewer = f"--pairs {n_there} or less, or " if n_there else ""
    return (
        f"pairs: {n_wanted} different pairs asked for, but there are {n_there} of segments of length {length} that "
        f"share no step; use {fewer}a shorter --segment-length"
    )
