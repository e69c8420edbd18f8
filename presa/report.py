"""How good and how safe: summaries of evaluated runs, with intervals, as a table, a picture and JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from feedbackgen.errors import StoreError
from feedbackgen.plots import legend_entries, pyplot, save
from feedbackgen.seeding import stream
from presa.evaluation import Evaluation, read_evaluation, read_provenance

N_RESAMPLES = 2000
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One method on one feedback store, over all its seeds' episodes. Intervals cover 95 %."""

    task: str
    method: str
    preset: str
    feedback: str
    n_seeds: int
    n_episodes: int  # of each seed
    return_mean: float
    return_interval: Interval
    cost_mean: float
    cost_interval: Interval
    cost_median: float
    safe_share: float  # of episodes with cost at most the limit
    normalised_return: float  # (R - R_min) / (R_max - R_min), with the dataset's extremes, as DSRL
    normalised_cost: float  # C / limit
    cost_limit: float
    sees_rewards: bool = False  # the method learnt from true rewards and costs, not from feedback
    precision: str = "exact"  # of the products in training

    @property
    def label(self) -> str:
        """The method, with its preset and precision unless they are the default, and marked if it sees true rewards."""
        return method_label(self.method, self.preset, self.sees_rewards, self.precision)

    @property
    def safe(self) -> bool:
        """Mean cost at most the limit."""
        return self.normalised_cost <= 1.0


def summarise(runs: Sequence[str | Path]) -> list[Summary]:
    """Group evaluated runs by task, feedback, method, preset and precision, in the order they are given.

    Raises:
        StoreError: a folder is no finished run, was not evaluated, or two runs of a group share their seed.
    """
    groups: dict[tuple, list[tuple[dict, Evaluation]]] = {}
    for run in runs:
        provenance, evaluation = read_provenance(run), read_evaluation(run)
        feedback = Path(provenance["feedback"]).stem
        names = ("task", "dataset_id", "method", "preset")
        key = (*(provenance[name] for name in names), feedback, provenance.get("precision", "exact"))
        group = groups.setdefault(key, [])
        if any(other["seed"] == provenance["seed"] for other, _ in group):
            raise StoreError(
                f"{run}: another run of {provenance['method']} on {feedback} has the same seed; give one of them"
            )
        group.append((provenance, evaluation))
    return [_summarise(group) for group in groups.values()]


def method_label(method: str, preset: str, sees_rewards: bool, precision: str = "exact") -> str:
    """What a method is called beside others."""
    notes = [preset] if preset != "default" else []
    notes += [precision] if precision != "exact" else []
    notes += ["true rewards"] if sees_rewards else []
    return f"{method} ({', '.join(notes)})" if notes else method


def bootstrap_interval(samples: Sequence[Sequence[float]], *, seed: int = 0, confidence: float = 0.95) -> Interval:
    """Percentile bootstrap of the mean; with several seeds' samples, seeds are drawn first, then episodes within them.

    Args:
        samples: episodes of each seed.
        seed: of the resampling.
        confidence: of the interval.
    """
    rng = stream(seed, "bootstrap")
    means = np.array([_resampled_mean(samples, rng) for _ in range(N_RESAMPLES)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def as_json(summaries: Sequence[Summary]) -> dict:
    return {"summaries": [{**asdict(summary), "safe": summary.safe} for summary in summaries]}


def plot_summaries(summaries: Sequence[Summary], path: Path) -> None:
    """Return against cost of each method, with 95 % intervals and the limit; a panel for each task and feedback."""
    plt = pyplot()
    panels = list(dict.fromkeys((summary.task, summary.feedback) for summary in summaries))
    methods = list(dict.fromkeys(summary.label for summary in summaries))
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(0.8 + 3.6 * len(panels), 3.6),
        squeeze=False,
        sharey=len({task for task, _ in panels}) == 1,
    )
    for (task, feedback), panel in zip(panels, axes[0], strict=True):
        shown = [summary for summary in summaries if (summary.task, summary.feedback) == (task, feedback)]
        limit = shown[0].cost_limit
        panel.axvspan(-limit, limit, color="#2a9d5c", alpha=0.10, linewidth=0)
        panel.axvline(limit, color="#2a9d5c", linewidth=1, linestyle="--")
        for summary in shown:
            index = methods.index(summary.label)
            panel.errorbar(
                summary.cost_mean,
                summary.return_mean,
                xerr=_arms(summary.cost_mean, summary.cost_interval),
                yerr=_arms(summary.return_mean, summary.return_interval),
                fmt="osD^vP*X"[index % 8],
                color=f"C{index}",
                markersize=7,
                capsize=3,
                label=summary.label,
            )
        panel.set(xlabel=f"cost of an episode (limit {limit:g})", title=f"{task}\nfeedback {feedback}")
        highest_cost = max(limit, *(summary.cost_interval[1] for summary in shown))
        returns = [bound for summary in shown for bound in summary.return_interval]
        panel.set_xlim(-0.04 * highest_cost, 1.08 * highest_cost)
        panel.set_ylim(min(0.0, 1.1 * min(returns)), 1.1 * max(*returns, 0.1))
    axes[0][0].set_ylabel("return of an episode")
    axes[0][-1].legend(*legend_entries(axes[0]), frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, path)


def _summarise(group: list[tuple[dict, Evaluation]]) -> Summary:
    provenance = group[0][0]
    returns = [evaluation.returns for _, evaluation in group]
    costs = [evaluation.cost_returns for _, evaluation in group]
    limit = provenance["cost_limit"]
    # Seeds count alike, whatever their number of episodes.
    return_mean = float(np.mean([np.mean(seed) for seed in returns]))
    cost_mean = float(np.mean([np.mean(seed) for seed in costs]))
    spread = provenance["return_max"] - provenance["return_min"]
    return Summary(
        task=provenance["task"],
        method=provenance["method"],
        preset=provenance["preset"],
        feedback=Path(provenance["feedback"]).stem,
        n_seeds=len(group),
        n_episodes=len(returns[0]),
        return_mean=return_mean,
        return_interval=bootstrap_interval(returns),
        cost_mean=cost_mean,
        cost_interval=bootstrap_interval(costs),
        cost_median=float(np.median(np.concatenate(costs))),
        safe_share=float(np.mean(np.concatenate(costs) <= limit)),
        normalised_return=(return_mean - provenance["return_min"]) / spread if spread > 0 else 0.0,
        normalised_cost=cost_mean / limit if limit > 0 else cost_mean + 1.0,
        cost_limit=limit,
        sees_rewards=provenance.get("sees_rewards", False),
        precision=provenance.get("precision", "exact"),
    )


def _resampled_mean(samples: Sequence[Sequence[float]], rng: np.random.Generator) -> float:
    seeds = rng.integers(len(samples), size=len(samples)) if len(samples) > 1 else [0]
    return float(np.mean([rng.choice(samples[seed], size=len(samples[seed])).mean() for seed in seeds]))


def _arms(mean: float, interval: Interval) -> list[list[float]]:
    return [[max(0.0, mean - interval[0])], [max(0.0, interval[1] - mean)]]
