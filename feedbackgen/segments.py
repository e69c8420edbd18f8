"""Which segments are asked about: every segment of one length, their sums, and random segments and pairs of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from feedbackgen.errors import DataError
from feedbackgen.types import BoolArray, FloatArray, IntArray

MAX_DRAW = 1_000_000  # pairs drawn at once, which bounds the memory
MAX_SUMMED = 32_768  # steps summed at once: as many as stay in a processor's cache
MAX_TRIES = 50_000  # at the same pair in one round
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
    """Draw segments of different kinds in fixed shares instead of as they come.

    Raises:
        DataError: there is no segment of a kind that has a share.
    """

    kinds: tuple[str, ...]  # what each is called in errors: "that is unsafe"
    kind: IntArray  # (n_segments,), int16, of every candidate
    shares: tuple[float, ...]  # of the drawn segments, by kind; they add up to 1
    options: str  # of the command line, that ask for it: "--unsafe-share"

    def __post_init__(self):
        for name, share, count in zip(self.kinds, self.shares, self.counts, strict=True):
            if share > 0 and count == 0:
                raise DataError(
                    f"{self.options}: there is no segment {name}; leave {self.options} out, or use another "
                    "--segment-length"
                )

    @property
    def counts(self) -> IntArray:
        """Candidates of each kind, (n_kinds,)."""
        return np.bincount(self.kind, minlength=len(self.kinds))

    def most(self) -> int:
        """How many different segments can be drawn in these shares."""
        possible = [count / share for count, share in zip(self.counts, self.shares, strict=True) if share > 0]
        return int(min(possible) + 1e-9)


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
    accepts: Callable[[IntArray], BoolArray] | None = None,
    options: str = "",
) -> IntArray:
    """Draw different pairs of segments; the two of a pair share no step, and no pair comes twice, in either order.

    Args:
        candidates: what to draw from, uniformly.
        n_pairs: how many.
        rng: the stream of the pairs.
        strata: the shares of the drawn segments, 2 n_pairs of them, are exact but for rounding; None draws from all
            alike.
        accepts: tells of pairs, (n, 2), which may be drawn, (n,); None: all.
        options: of the command line, that ask for ``accepts``.

    Returns:
        Numbers of the first and the second segment, int32 where that suffices, (n_pairs, 2).

    Raises:
        DataError: there are not that many pairs, or they were not found.
    """
    if n_pairs > candidates.n_pairs:
        raise DataError(_too_few_pairs(n_pairs, candidates.n_pairs, candidates.length))
    pools = _Pools(candidates.n_segments) if strata is None else _Pools.of(strata)
    kinds = None if strata is None else deal(strata.shares, 2 * n_pairs, rng).reshape(n_pairs, 2)
    pairs = np.zeros((n_pairs, 2), dtype=_index_type(candidates.n_segments))
    known = np.empty(0, dtype=np.int64)  # keys of the pairs that stay, sorted
    missing, n_tries = np.arange(n_pairs, dtype=_index_type(n_pairs)), 1
    for _ in range(MAX_ROUNDS):
        found = np.zeros(len(missing), dtype=bool)
        n_rows = max(MAX_DRAW // n_tries, 1)
        for first in range(0, len(missing), n_rows):
            rows = missing[first : first + n_rows]
            wanted = None if kinds is None else np.repeat(kinds[rows], n_tries, axis=0)
            drawn = pools.draw((len(rows) * n_tries, 2), wanted, rng)
            good = ~_overlap(candidates, drawn) & ~_among(_keys(drawn, pools.n), known)
            if accepts is not None:
                good[good] = accepts(drawn[good])
            good, drawn = good.reshape(len(rows), n_tries), drawn.reshape(len(rows), n_tries, 2)
            found[first : first + n_rows] = good.any(axis=1)
            pairs[rows] = drawn[np.arange(len(rows)), good.argmax(axis=1)]
        left_out = missing[~found]
        # Those of earlier rounds differ, and none drawn now is among them.
        drawn_now = pairs if len(missing) == n_pairs else pairs[missing]
        again = missing[_come_again(drawn_now, np.flatnonzero(~found), pools.n)]
        missing = np.union1d(left_out, again).astype(missing.dtype)
        if len(missing) == 0:
            return pairs
        known = _keys(pairs, pools.n)
        known[missing] = -1  # no pair's
        known.sort()
        n_tries = min(4 * n_tries, MAX_TRIES, max(MAX_DRAW // len(missing), 1))
    if strata is not None:
        options = ", ".join(filter(None, [strata.options, options]))
    raise DataError(_too_few_pairs(n_pairs, n_pairs - len(missing), candidates.length, options))


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
        strata: the shares of the drawn segments are exact but for rounding; None draws from all alike.

    Returns:
        Numbers of the segments in random order, int64, (n_drawn,).

    Raises:
        DataError: there are not that many segments, or not that many of a kind.
    """
    if strata is None:
        _require_enough(n_drawn, n_segments)
        return _choose(n_segments, n_drawn, rng)
    drawn = []
    for index, n_wanted in enumerate(split(strata.shares, n_drawn)):
        stratum = np.flatnonzero(strata.kind == index)
        _require_enough(int(n_wanted), len(stratum), strata.kinds[index], strata.options)
        drawn.append(stratum[_choose(len(stratum), int(n_wanted), rng)])
    return rng.permutation(np.concatenate(drawn))


def split(shares: Sequence[float], n: int) -> IntArray:
    """``n`` in whole parts by shares that add up to 1, exact but for rounding, (n_shares,)."""
    ends = np.rint(np.cumsum(shares) / np.sum(shares) * n).astype(np.int64)
    return np.diff(ends, prepend=0)


def deal(shares: Sequence[float], n: int, rng: np.random.Generator) -> IntArray:
    """Which share each of ``n`` belongs to, in random order, int16, (n,); see `split`."""
    dealt = np.repeat(np.arange(len(shares), dtype=np.int16), split(shares, n))
    rng.shuffle(dealt)
    return dealt


@dataclass(frozen=True)
class _Pools:
    """Where segments are drawn from: all numbers below ``n``, or those of a kind."""

    n: int
    order: IntArray | None = None  # (n,), numbers sorted by kind
    first: IntArray | None = None  # (n_kinds,), place of each kind's first
    counts: IntArray | None = None  # (n_kinds,)

    @classmethod
    def of(cls, strata):
        counts = strata.counts
        order = np.argsort(strata.kind, kind="stable").astype(_index_type(len(strata.kind)))
        return cls(len(order), order, np.cumsum(counts) - counts, counts)

    def draw(self, shape, kinds, rng):
        if kinds is None:
            return rng.integers(self.n, size=shape)
        return self.order[self.first[kinds] + rng.integers(self.counts[kinds])]


def _joined(left, n_left, right, n_right, discount, discount_from):
    """Sums over ``n_left`` steps and the ``n_right`` steps that follow them, from every step on that has so many."""
    right = right[n_left:]
    left = left[: len(right)]
    if discount_from == "end":
        return left * discount**n_right + right
    return left + right * discount**n_left


def _overlap(candidates, pairs):
    overlap = np.abs(pairs[:, 0] - pairs[:, 1]) < candidates.length
    # Neighbouring numbers may also belong to neighbouring episodes.
    first, second = (candidates.locate(pairs[overlap, side])[0] for side in (0, 1))
    overlap[overlap] = first == second
    return overlap


def _keys(pairs, n_segments):
    """A number for each pair, the same in either order, int64, (n_pairs,)."""
    first, second = pairs[:, 0], pairs[:, 1]
    keys = np.minimum(first, second).astype(np.int64)
    keys *= n_segments
    keys += np.maximum(first, second)
    return keys


def _among(keys, known):
    if len(known) == 0:
        return np.zeros(len(keys), dtype=bool)
    return known[np.minimum(np.searchsorted(known, keys), len(known) - 1)] == keys


def _come_again(pairs, left_out, n_segments):
    """Places of the pairs that came before, int64; those at ``left_out`` are no pairs yet."""
    keys = _keys(pairs, n_segments)
    keys[left_out] = -1 - np.arange(len(left_out))
    keys.sort()
    twice = keys[1:][keys[1:] == keys[:-1]]
    if len(twice) == 0:
        return np.empty(0, dtype=np.int64)
    # Few come twice as a rule, so only those are looked at closely.
    del keys
    places = np.concatenate(
        [
            first + np.flatnonzero(_among(_keys(pairs[first : first + MAX_DRAW], n_segments), twice))
            for first in range(0, len(pairs), MAX_DRAW)
        ]
    )
    places = np.setdiff1d(places, left_out)
    return np.delete(places, np.unique(_keys(pairs[places], n_segments), return_index=True)[1])


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


def _index_type(n):
    return np.int32 if n <= np.iinfo(np.int32).max else np.int64


def _require_enough(n_wanted, n_there, kind="", options=""):
    if n_wanted > n_there:
        raise DataError(
            f"safety labels: {n_wanted} different segments{' ' + kind if kind else ''} asked for, there are {n_there}; "
            + ("ask for fewer labels" + (f", or another {options}" if kind else ""))
        )


def _too_few_pairs(n_wanted, n_there, length, options=""):
    fewer = f"--pairs {n_there} or less, or " if n_there else ""
    if options:
        return (
            f"pairs: {n_wanted} different pairs asked for, but only {n_there} of segments of length {length} that "
            f"share no step were found by {options}; use {fewer}another {options}"
        )
    return (
        f"pairs: {n_wanted} different pairs asked for, but there are {n_there} of segments of length {length} that "
        f"share no step; use {fewer}a shorter --segment-length"
    )
