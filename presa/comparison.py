"""Many tasks and seeds at once: what a benchmark may say of a method (Agarwal et al., NeurIPS 2021).

A table of scores is a mapping from task to the scores of its seeds, (n_seeds,). Intervals are stratified: each resample
draws seeds within every task and keeps the tasks, since tasks are chosen and not drawn.
"""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.stats import trim_mean

from feedbackgen.errors import DataError
from feedbackgen.seeding import stream
from feedbackgen.types import FloatArray

Scores = Mapping[str, FloatArray]
N_RESAMPLES = 2000


def interquartile_mean(scores: Scores) -> float:
    """Mean of the middle half of all cells, tasks and seeds together."""
    return float(trim_mean(_cells(scores), 0.25))


def safe_cell_share(costs: Scores) -> float:
    """Share of cells, each a task and a seed, whose normalised cost is at most 1."""
    return float(np.mean(_cells(costs) <= 1))


def safe_only_return(returns: Scores, costs: Scores) -> float:
    """Interquartile mean of the normalised returns, those of unsafe cells counted 0.

    Raises:
        DataError: returns and costs are not of the same tasks and seeds.
    """
    _require_same(returns, costs)
    return interquartile_mean({task: np.where(costs[task] <= 1, values, 0.0) for task, values in returns.items()})


def performance_profile(scores: Scores, thresholds: FloatArray) -> FloatArray:
    """Share of cells above each threshold, mean over tasks, (n_thresholds,)."""
    shares = [(np.asarray(values)[:, None] > thresholds).mean(axis=0) for values in scores.values()]
    return np.mean(shares, axis=0)


def improvement_probability(scores: Scores, others: Scores) -> float:
    """P(a run of the first method beats one of the second on the same task), ties half; mean over tasks.

    Mann and Whitney's statistic of each task, divided by its number of pairs of runs.

    Raises:
        DataError: the methods were not run on the same tasks.
    """
    if scores.keys() != others.keys():
        raise DataError(f"methods: expected the same tasks, got {sorted(scores)} and {sorted(others)}")
    shares = []
    for task, values in scores.items():
        differences = np.subtract.outer(np.asarray(values), np.asarray(others[task]))
        shares.append(np.mean((differences > 0) + 0.5 * (differences == 0)))
    return float(np.mean(shares))


def stratified_interval(
    statistic: Callable[..., float],
    *tables: Scores,
    paired: bool = False,
    seed: int = 0,
    confidence: float = 0.95,
    n_resamples: int = N_RESAMPLES,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of one or more tables.

    Args:
        statistic: takes the tables in their order.
        paired: the tables are columns of the same runs (return and cost), so they are drawn together; otherwise each
            table is drawn by itself, as those of two methods.
        seed: of the resampling.
        confidence: of the interval.
        n_resamples: draws; the interval's own error falls with their root.
    """
    rng = stream(seed, "stratified bootstrap")
    values = [statistic(*_resample(tables, paired, rng)) for _ in range(n_resamples)]
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _resample(tables: tuple[Scores, ...], paired: bool, rng: np.random.Generator) -> list[Scores]:
    if not paired:
        return [
            {task: np.asarray(values)[rng.integers(len(values), size=len(values))] for task, values in table.items()}
            for table in tables
        ]
    drawn = {task: rng.integers(len(values), size=len(values)) for task, values in tables[0].items()}
    return [{task: np.asarray(values)[drawn[task]] for task, values in table.items()} for table in tables]


def _cells(scores: Scores) -> FloatArray:
    return np.concatenate([np.asarray(values, dtype=np.float64) for values in scores.values()])


def _require_same(one: Scores, other: Scores) -> None:
    for task in one.keys() | other.keys():
        if task not in one or task not in other or len(one[task]) != len(other[task]):
            raise DataError(f"{task}: expected a return and a cost of each seed")
