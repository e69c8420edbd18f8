"""Choosing what to ask: all segments of one length with what is known of them, and which are drawn.

Uniform; in shares of unsafe segments and of starts of episodes; spread over returns and costs; by the margin of a
pair's returns. What an ensemble is unsure of is in `active`.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from feedbackgen.segments import (
    Candidates,
    Strata,
    draw_pairs,
    draw_segments,
    enumerate_segments,
    segment_sums,
)
from feedbackgen.teacher import is_unsafe, return_scale
from feedbackgen.types import BoolArray, FloatArray, IntArray, Outcomes, Trajectories

N_BINS = 5  # of returns and, at most, of costs


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which segments and pairs are drawn."""

    stratified: bool = False  # spread over returns and costs
    unsafe_share: float | None = None  # of the segments of pairs, and of the judged; None: as they come
    start_share: float | None = None  # likewise, of segments that start with their episode
    margin: tuple[float, float] | None = None  # of a pair's returns, in deviations of differences; None: any


@dataclass(frozen=True, kw_only=True)
class Pool:
    """All segments of one length."""

    candidates: Candidates
    returns: FloatArray  # (n_segments,), undiscounted
    costs: FloatArray  # (n_segments,); NaN where the dataset tells none
    bound: float  # the highest cost of a safe segment
    scale: float  # standard deviation of return differences
    strata: Strata | None  # None: all alike
    margin: tuple[float, float] | None  # in reward

    @property
    def length(self) -> int:
        return self.candidates.length

    @cached_property
    def unsafe(self) -> BoolArray:
        """Of each segment, (n_segments,)."""
        return is_unsafe(self.costs, self.bound)

    def draw_pairs(self, n_pairs: int, rng: np.random.Generator) -> IntArray:
        """See `segments.draw_pairs`."""
        return draw_pairs(
            self.candidates,
            n_pairs,
            rng,
            strata=self.strata,
            accepts=None if self.margin is None else self._in_margin,
            options="" if self.margin is None else "--margin",
        )

    def draw_segments(self, n_drawn: int, rng: np.random.Generator) -> IntArray:
        """See `segments.draw_segments`."""
        return draw_segments(self.candidates.n_segments, n_drawn, rng, strata=self.strata)

    def most_segments(self) -> int:
        """How many different segments can be drawn."""
        return self.candidates.n_segments if self.strata is None else self.strata.most()

    def _in_margin(self, pairs: IntArray) -> BoolArray:
        assert self.margin is not None
        margins = np.abs(self.returns[pairs[:, 1]] - self.returns[pairs[:, 0]])
        return (margins >= self.margin[0]) & (margins <= self.margin[1])


def make_pool(
    trajectories: Trajectories | Outcomes, length: int, choice: Choice, *, bound: float, dataset: str = "the dataset"
) -> Pool:
    """Gather what is known of every segment of ``length`` steps.

    Args:
        trajectories: with rewards and costs.
        length: steps of a segment.
        choice: what will be drawn; see `choose` for shares.
        bound: the highest cost of a safe segment.
        dataset: named in errors.

    Raises:
        DataError: no episode is long enough, or all returns are equal.
    """
    assert trajectories.rewards is not None and trajectories.costs is not None
    candidates = enumerate_segments(trajectories.starts, length, dataset=dataset)
    returns = segment_sums(trajectories.rewards, trajectories.starts, length)
    scale = return_scale(returns)
    return Pool(
        candidates=candidates,
        returns=returns,
        costs=segment_sums(trajectories.costs, trajectories.starts, length),
        bound=bound,
        scale=scale,
        strata=None,
        margin=None if choice.margin is None else (choice.margin[0] * scale, choice.margin[1] * scale),
    )


def choose(pool: Pool, choice: Choice) -> Pool:
    """Draw in the shares of ``choice``.

    Raises:
        DataError: there is no segment of a kind that has a share.
    """
    return replace(pool, strata=spread(pool) if choice.stratified else shares(pool, choice))


def shares(pool: Pool, choice: Choice) -> Strata | None:
    """Fixed shares of unsafe segments and of starts; both at once are independent of each other."""
    kinds, parts, options = [""], [1.0], []
    kind: IntArray = np.zeros(pool.candidates.n_segments, dtype=np.int16)
    if choice.unsafe_share is not None:
        kinds, options = ["that is unsafe", "that is safe"], ["--unsafe-share"]
        parts = [choice.unsafe_share, 1 - choice.unsafe_share]
        kind += ~pool.unsafe
    if choice.start_share is not None:
        kind = (2 * kind + ~at_start(pool)).astype(np.int16)
        kinds = [f"{name} {where}".strip() for name in kinds for where in ("at a start", "past a start")]
        parts = [part * share for part in parts for share in (choice.start_share, 1 - choice.start_share)]
        options.append("--start-share")
    if not options:
        return None
    return Strata(kinds=tuple(kinds), kind=kind, shares=tuple(parts), options=" and ".join(options))


def at_start(pool: Pool) -> BoolArray:
    """Which segments start with their episode, (n_segments,)."""
    starts = np.zeros(pool.candidates.n_segments, dtype=bool)
    offsets = pool.candidates.offsets
    starts[offsets[:-1][np.diff(offsets) > 0]] = True
    return starts


def spread(pool: Pool) -> Strata:
    """Equal shares of cells of the plane of returns and costs: bins of cost, each cut into bins of return.

    Bins are cut at quantiles, so cells hold alike many segments where costs do not tie; a dataset with few different
    costs has fewer bins of cost.
    """
    costs = np.nan_to_num(pool.costs)
    inner = np.arange(1, N_BINS) / N_BINS
    cost_bin = np.searchsorted(np.unique(np.quantile(costs, inner)), costs)
    kind = np.empty(len(costs), dtype=np.int16)
    for index in np.unique(cost_bin):
        members = cost_bin == index
        cuts = np.quantile(pool.returns[members], inner)
        kind[members] = N_BINS * index + np.searchsorted(cuts, pool.returns[members])
    cells, kind_of = np.unique(kind, return_inverse=True)
    return Strata(
        kinds=tuple(f"in cell {cell // N_BINS + 1} of costs, {cell % N_BINS + 1} of returns" for cell in cells),
        kind=kind_of.astype(np.int16),
        shares=tuple(np.full(len(cells), 1 / len(cells))),
        options="--queries stratified",
    )
