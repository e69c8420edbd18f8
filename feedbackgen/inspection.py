"""What feedback or a dataset holds: how the teacher erred, what was asked about, where preference and safety part."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feedbackgen.answers import rate
from feedbackgen.episodes import dataset_info, episode_returns, load_outcomes
from feedbackgen.feedback import Feedback, Segments
from feedbackgen.segments import enumerate_segments, segment_sums
from feedbackgen.statistics import binomial_interval
from feedbackgen.store import has_oracle, open_feedback, resolve_feedback
from feedbackgen.teacher import is_tie, is_unsafe
from feedbackgen.types import BoolArray, FloatArray, IntArray, Outcomes

N_PROBABILITIES = 10  # bins of the teacher's probability
N_MARGINS = 10  # bins of the margin, with as many pairs each
N_CELLS = 20  # of the plane of returns and costs, along each axis
N_PARTS = 10  # of the horizon


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A share that depends on something, with Wilson's 95 % intervals."""

    at: FloatArray  # (n,), the mean in each bin
    n: IntArray  # (n,), trials in each bin
    share: FloatArray  # (n,)
    low: FloatArray  # (n,)
    high: FloatArray  # (n,)


@dataclass(frozen=True, kw_only=True)
class Purity:
    """What a safe segment says of its episode, over all segments of the dataset. NaN where there are none."""

    lengths: IntArray  # (n,), steps
    unsafe: FloatArray  # (n,), share of segments that are unsafe
    from_unsafe: FloatArray  # (n,), share of the safe segments whose episode is unsafe


@dataclass(frozen=True, kw_only=True)
class Plane:
    """The plane of return and cost per step, in cells: what there is, and what of it was asked about."""

    return_edges: FloatArray  # (n_returns + 1,), reward per step
    cost_edges: FloatArray  # (n_costs + 1,), cost per step
    there: IntArray  # (n_returns, n_costs), segments of the dataset
    asked: IntArray  # (n_returns, n_costs), segments of the feedback
    limit: float  # cost per step

    @property
    def n_cells(self) -> int:
        return _count(self.there)

    @property
    def n_reached(self) -> int:
        return _count(self.asked)


@dataclass(frozen=True, kw_only=True)
class FeedbackInspection:
    """Everything is judged by the dataset's rewards and costs, and so is known of people's feedback too."""

    name: str  # of the store
    attributes: dict[str, Any]  # of the store
    rates: dict[str, dict[str, float | None]]  # as in the store's statistics, and more
    margins: FloatArray  # (P,), difference of returns in deviations of such differences, of each pair
    disagrees: BoolArray  # (P,), the preferred is unsafe and the other safe
    n_equal_labels: int
    n_equal_returns: int
    errors: Curve  # by margin: labels that prefer the lower return; without either kind of tie
    drawn: Curve | None  # by the teacher's P(second preferred): the second preferred, before flips; None: not known
    stored: Curve | None  # likewise, after flips
    purity: Purity | None  # None: the dataset tells no costs
    labels: dict[int, dict[str, float | None]]  # per length: safe labels on segments of unsafe episodes
    plane: Plane | None  # None: no costs

    @property
    def margin_quartiles(self) -> tuple[float, float, float]:
        """NaN without pairs."""
        if not len(self.margins):
            return np.nan, np.nan, np.nan
        low, middle, high = np.quantile(np.abs(self.margins), (0.25, 0.5, 0.75)).tolist()
        return low, middle, high


@dataclass(frozen=True, kw_only=True)
class DatasetInspection:
    """Of whole episodes, and of the segments that they can be cut into."""

    lengths: IntArray  # (n_episodes,), steps
    rates: dict[str, dict[str, float | None]]  # safe episodes
    unsafe_better: float | None  # share of pairs of episodes: the one of higher return is unsafe, the other safe
    purity: Purity | None  # None: the dataset tells no costs
    cost_over_time: dict[
        str, FloatArray
    ]  # per policy: mean cost of a step, (10,) parts of the horizon; NaN: none so long


def inspect_feedback(feedback: str | Path) -> FeedbackInspection:
    """Look at a store and at the dataset that it labels; this reads what only the teacher knew.

    Raises:
        DataError, StoreError: see `store.open_feedback`.
    """
    path = resolve_feedback(feedback)
    content = open_feedback(path, with_oracle=has_oracle(path))
    info = dataset_info(path.parent.parent)
    attributes = {"horizon": info.horizon, "cost_limit": info.cost_limit} | content.attributes
    return examine(content, load_outcomes(info.path), attributes, name=path.stem, has_costs=info.has_costs)


def examine(
    feedback: Feedback, outcomes: Outcomes, attributes: dict[str, Any], *, name: str, has_costs: bool = True
) -> FeedbackInspection:
    """Judge feedback in memory by the rewards and costs of its dataset.

    Args:
        feedback: with or without ``oracle``.
        outcomes: of the dataset.
        attributes: of the store; ``horizon`` and ``cost_limit`` must be among them.
        name: of the feedback.
        has_costs: whether the dataset tells any.
    """
    segments, pair, label = feedback.segments, feedback.preferences.pair, feedback.preferences.label
    returns, unsafe, scales = _facts(outcomes, segments, _bounds(attributes))
    scale = scales[pair[:, 0]]
    margins = np.divide(returns[pair[:, 1]] - returns[pair[:, 0]], scale, out=np.zeros(len(pair)), where=scale > 0)
    equal_returns = is_tie(margins, 1.0)
    decides = (label != 0.5) & ~equal_returns
    wrong = (label == 1) != (margins > 0)
    preferred = np.where(label == 1, pair[:, 1], pair[:, 0])
    other = np.where(label == 1, pair[:, 0], pair[:, 1])
    disagrees = (label != 0.5) & unsafe[preferred] & ~unsafe[other]

    rates = {name: value for name, value in attributes.get("statistics", {}).items() if isinstance(value, dict)} or {
        "preference_error": rate(None, _count(wrong & decides), _count(decides))
    }
    if has_costs:
        n_decided = _count(label != 0.5)
        rates["unsafe_preferred_to_safe"] = rate(None, _count(disagrees), n_decided)
        verdict = _verdicts(feedback, len(segments))
        both = (label != 0.5) & (verdict[pair] != 0).all(axis=1)
        apart = both & (verdict[preferred] < 0) & (verdict[other] > 0)
        rates["unsafe_preferred_to_safe, by labels"] = rate(None, _count(apart), _count(both))
    drawn = stored = None
    if feedback.oracle is not None:
        probability, clean = feedback.oracle.preference_probability, feedback.oracle.preference_clean
        edges = np.linspace(0, 1, N_PROBABILITIES + 1)[1:-1]
        known = clean != 0.5
        drawn = curve(probability[known], clean[known] == 1, edges)
        stored = curve(probability[known], label[known] == 1, edges)
    sizes = np.abs(margins[decides])
    return FeedbackInspection(
        name=name,
        attributes=feedback.attributes,
        rates=rates,
        margins=margins,
        disagrees=disagrees,
        n_equal_labels=_count(label == 0.5),
        n_equal_returns=_count(equal_returns),
        errors=curve(sizes, wrong[decides], _quantile_edges(sizes)),
        drawn=drawn,
        stored=stored,
        purity=purity(outcomes, attributes, segments.length) if has_costs else None,
        labels=_purity_of_labels(feedback, outcomes, attributes["cost_limit"]) if has_costs else {},
        plane=plane(outcomes, segments, attributes) if has_costs else None,
    )


def inspect_dataset(dataset: str | Path) -> DatasetInspection:
    """Look at a dataset's episodes.

    Raises:
        DataError: see `episodes.load_outcomes`.
    """
    info = dataset_info(dataset)
    outcomes = load_outcomes(info.path)
    returns, costs, policies = episode_returns(info.path)
    rates: dict[str, dict[str, float | None]] = {}
    unsafe_better = None
    if info.has_costs:
        unsafe = is_unsafe(costs, info.cost_limit)
        rates["safe"] = rate(None, _count(~unsafe), len(costs))
        better = int(np.searchsorted(np.sort(returns[~unsafe]), returns[unsafe]).sum())
        unsafe_better = better / max(len(costs) * (len(costs) - 1) // 2, 1)
    lengths = np.diff(outcomes.starts)
    facts = {"horizon": info.horizon, "cost_limit": info.cost_limit}
    return DatasetInspection(
        lengths=lengths,
        rates=rates,
        unsafe_better=unsafe_better,
        purity=purity(outcomes, facts) if info.has_costs else None,
        cost_over_time=_cost_over_time(outcomes, policies, info.horizon) if info.has_costs else {},
    )


def as_json(inspection: FeedbackInspection | DatasetInspection) -> dict[str, Any]:
    """All but what is known of each pair and of each episode; NaN becomes null."""
    left_out = ("attributes", "margins", "disagrees", "lengths")
    return {key: _plain(value) for key, value in asdict(inspection).items() if key not in left_out}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | np.ndarray):
        return [_plain(entry) for entry in np.asarray(value).tolist()]
    return None if isinstance(value, float) and np.isnan(value) else value


def curve(at: FloatArray, happened: BoolArray, inner_edges: FloatArray) -> Curve:
    """The share in each bin that holds anything; a value on an edge belongs to the bin above it."""
    bins = np.searchsorted(inner_edges, at, side="right")
    n = np.bincount(bins, minlength=len(inner_edges) + 1)
    kept = n > 0
    n_happened = np.bincount(bins, weights=happened, minlength=len(n))[kept]
    mean = np.bincount(bins, weights=at, minlength=len(n))[kept] / n[kept]
    n = n[kept]
    intervals = [binomial_interval(int(one), int(of)) for one, of in zip(n_happened, n, strict=True)]
    low, high = np.array(intervals).reshape(-1, 2).T
    return Curve(at=mean, n=n, share=n_happened / n, low=low, high=high)


def purity(outcomes: Outcomes, attributes: dict[str, Any], asked: IntArray | None = None) -> Purity:
    """For lengths that double up to the longest episode, and those that were asked about."""
    steps = np.diff(outcomes.starts)
    doubled = 2 ** np.arange(int(steps.max()).bit_length())
    lengths = np.unique(np.concatenate([doubled, [steps.max()], [] if asked is None else np.unique(asked)]))
    bound_of, unsafe_episode = _bounds(attributes), _unsafe_episodes(outcomes, attributes["cost_limit"])
    unsafe, from_unsafe = [], []
    for length in lengths.astype(int).tolist():
        costs = segment_sums(outcomes.costs, outcomes.starts, length)
        is_safe = ~is_unsafe(costs, bound_of(length))
        origin = np.repeat(unsafe_episode, np.maximum(steps - length + 1, 0))
        unsafe.append(1 - is_safe.mean())
        from_unsafe.append(origin[is_safe].mean() if is_safe.any() else np.nan)
    return Purity(lengths=lengths.astype(int), unsafe=np.array(unsafe), from_unsafe=np.array(from_unsafe))


def plane(outcomes: Outcomes, segments: Segments, attributes: dict[str, Any]) -> Plane:
    """Cells of equal size over what there is, of the lengths that were asked about."""
    sums = {
        length: [
            segment_sums(values, outcomes.starts, length) / length for values in (outcomes.rewards, outcomes.costs)
        ]
        for length in np.unique(segments.length).tolist()
    }
    edges = [_edges([values[axis] for values in sums.values()]) for axis in (0, 1)]
    there = np.zeros((len(edges[0]) - 1, len(edges[1]) - 1), dtype=np.int64)
    asked = there.copy()
    for length, (returns, costs) in sums.items():
        rows = _numbers(outcomes, segments, length)[1]
        there += _histogram(returns, costs, edges)
        asked += _histogram(returns[rows], costs[rows], edges)
    limit = attributes["cost_limit"] / attributes["horizon"]
    return Plane(return_edges=edges[0], cost_edges=edges[1], there=there, asked=asked, limit=limit)


def _histogram(returns: FloatArray, costs: FloatArray, edges: list[FloatArray]) -> IntArray:
    return np.histogram2d(returns, costs, bins=edges)[0].astype(np.int64)


def _facts(
    outcomes: Outcomes, segments: Segments, bound_of: Callable[[int], float]
) -> tuple[FloatArray, BoolArray, FloatArray]:
    """Of each stored segment: its return, whether it is unsafe, and the deviation of differences at its length."""
    returns, scales = np.zeros(len(segments)), np.zeros(len(segments))
    unsafe = np.zeros(len(segments), dtype=bool)
    for length in np.unique(segments.length).tolist():
        own, rows = _numbers(outcomes, segments, length)
        all_returns = segment_sums(outcomes.rewards, outcomes.starts, length)
        returns[own], scales[own] = all_returns[rows], np.sqrt(2) * all_returns.std()
        unsafe[own] = is_unsafe(segment_sums(outcomes.costs, outcomes.starts, length)[rows], bound_of(length))
    return returns, unsafe, scales


def _numbers(outcomes: Outcomes, segments: Segments, length: int) -> tuple[IntArray, IntArray]:
    """Which stored segments are of that length, and their numbers among all such segments of the dataset."""
    own = np.flatnonzero(segments.length == length)
    offsets = enumerate_segments(outcomes.starts, length).offsets
    return own, offsets[segments.episode[own]] + segments.start[own]


def _bounds(attributes: dict[str, Any]) -> Callable[[int], float]:
    """The highest cost of a safe segment: as stored for its length, or in proportion."""
    known = {}
    if "safety_bound" in attributes and "segment_length" in attributes:
        lengths, bounds = np.atleast_1d(attributes["segment_length"]), np.atleast_1d(attributes["safety_bound"])
        known = dict(zip(lengths.tolist(), bounds.tolist(), strict=True))
    length, bound = next(iter(known.items()), (attributes["horizon"], attributes["cost_limit"]))
    return lambda asked: known.get(asked, bound * asked / length)


def _unsafe_episodes(outcomes: Outcomes, cost_limit: float) -> BoolArray:
    return is_unsafe(np.add.reduceat(outcomes.costs, outcomes.starts[:-1]), cost_limit)


def _verdicts(feedback: Feedback, n_segments: int) -> np.ndarray:
    """What safety labels say of each segment: below 0 unsafe, above 0 safe, 0 nothing or as often one as the other."""
    return np.bincount(feedback.safety.segment, weights=feedback.safety.label, minlength=n_segments)


def _purity_of_labels(feedback: Feedback, outcomes: Outcomes, cost_limit: float) -> dict[int, dict[str, float | None]]:
    segment = feedback.safety.segment[feedback.safety.label == 1]
    origin = _unsafe_episodes(outcomes, cost_limit)[feedback.segments.episode[segment]]
    lengths = feedback.segments.length[segment]
    return {
        length: rate(None, _count(origin[lengths == length]), _count(lengths == length))
        for length in np.unique(lengths).tolist()
    }


def _cost_over_time(outcomes: Outcomes, policies: tuple[str, ...], horizon: int) -> dict[str, FloatArray]:
    lengths = np.diff(outcomes.starts)
    step = np.arange(len(outcomes.costs)) - np.repeat(outcomes.starts[:-1], lengths)
    part = np.minimum(step * N_PARTS // horizon, N_PARTS - 1)
    names = list(dict.fromkeys(policies))
    cell = part + N_PARTS * np.repeat([names.index(policy) for policy in policies], lengths)
    n = np.bincount(cell, minlength=N_PARTS * len(names))
    total = np.bincount(cell, weights=outcomes.costs, minlength=len(n))
    means = np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0).reshape(-1, N_PARTS)
    return dict(zip(names, means, strict=True))


def _count(values: np.ndarray) -> int:
    return int(np.count_nonzero(values))


def _quantile_edges(values: FloatArray) -> FloatArray:
    if not len(values):
        return np.empty(0)
    return np.unique(np.quantile(values, np.arange(1, N_MARGINS) / N_MARGINS))


def _edges(values: list[FloatArray]) -> FloatArray:
    """Of cells of equal size from the lowest value to the highest; few different values have a cell each."""
    if not values:
        return np.array([0.0, 1.0])
    together = np.unique(np.concatenate(values))
    low, high = together[0], together[-1]
    return np.linspace(low, high if high > low else low + 1, min(N_CELLS, len(together)) + 1)
