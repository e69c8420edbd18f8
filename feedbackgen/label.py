"""Ask the simulated teacher about a dataset, and store what it said."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from feedbackgen.episodes import dataset_info, load_trajectories
from feedbackgen.errors import DataError, RecipeError
from feedbackgen.files import refuse_existing
from feedbackgen.provenance import versions
from feedbackgen.seeding import stream
from feedbackgen.segments import draw_pairs, draw_starts, episode_of, segment_sums
from feedbackgen.statistics import binomial_interval
from feedbackgen.store import Feedback, Oracle, Preferences, Safety, Segments, write_feedback
from feedbackgen.teacher import (
    DEFAULT_BETA,
    SAFE,
    UNSAFE,
    expected_error,
    label_preferences,
    label_safety,
    segment_bound,
    solve_beta,
)
from feedbackgen.types import FloatArray, IntArray, Trajectories

N_SCALE_PAIRS = 100_000  # of a sample of its own, from which the scale of return differences is taken


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """What is asked, and how the teacher errs.

    Raises:
        RecipeError: a value is out of range.
    """

    n_pairs: int = 10_000
    n_safety: int | None = None  # segments with a safety label; None: as many as pairs
    segment_length: int = 64  # steps
    beta: float = DEFAULT_BETA  # rationality per standard deviation of return differences
    error_rate: float | None = None  # solve for the beta that errs so; replaces beta
    preference_noise: float = 0.0  # probability of flipping a preference
    safety_noise: float = 0.0  # probability of flipping a safety label
    cost_limit: float | None = None  # per episode; None: the task's
    safety_threshold: float | None = None  # cost per segment; replaces the scaled limit
    unsafe_share: float | None = None  # of the segments with a safety label; None: as they come
    seed: int = 0

    def __post_init__(self):
        _check(self.n_pairs >= 1, "pairs", "at least 1", self.n_pairs)
        _check(self.n_safety is None or self.n_safety >= 2, "safety labels", "at least 2", self.n_safety)
        _check(self.segment_length >= 1, "segment length", "at least 1", self.segment_length)
        _check(self.beta >= 0, "beta", "a number >= 0, or inf", self.beta)
        for name in ("preference_noise", "safety_noise"):
            value = getattr(self, name)
            _check(0 <= value <= 1, name.replace("_", " "), "a probability in [0, 1]", value)
        for name in ("cost_limit", "safety_threshold"):
            value = getattr(self, name)
            _check(value is None or 0 <= value < np.inf, name.replace("_", " "), "a cost >= 0", value)
        _check(self.unsafe_share is None or 0 < self.unsafe_share < 1, "unsafe share", "a share in (0, 1)", self.unsafe_share)
        _check(self.seed >= 0, "seed", "an integer >= 0", self.seed)


@dataclass(frozen=True, kw_only=True)
class LabelSummary:
    """What was asked for, and what came out."""

    path: Path
    statistics: dict  # see `_statistics`


def label(dataset: str | Path, config: LabelConfig, *, name: str = "default", force: bool = False) -> LabelSummary:
    """Label a dataset and store the feedback beside it, as ``<dataset>/feedback/<name>.zarr``.

    Raises:
        DataError: the dataset cannot be read, no segment fits, or none is safe, or none unsafe.
        OutputExists: feedback of that name is there and ``force`` is not given.
        StoreError: the disk is full, or the place cannot be written.
    """
    info = dataset_info(dataset)
    path = info.path / "feedback" / f"{name}.zarr"
    refuse_existing(path, force=force)
    trajectories = load_trajectories(info.path, with_rewards=True)
    limit = info.cost_limit if config.cost_limit is None else config.cost_limit
    feedback = label_trajectories(trajectories, config, cost_limit=limit, horizon=info.horizon)
    feedback.attributes.update(
        dataset_id=info.dataset_id,
        dataset_fingerprint=info.fingerprint,
        task=info.task,
        versions=versions(("feedbackgen", "numpy", "zarr")),
    )
    write_feedback(path, feedback, force=force)
    return LabelSummary(path=path, statistics=feedback.attributes["statistics"])


def label_trajectories(trajectories: Trajectories, config: LabelConfig, *, cost_limit: float, horizon: int) -> Feedback:
    """The teacher's answers on trajectories in memory.

    Args:
        trajectories: with rewards and costs.
        config: what is asked.
        cost_limit: per episode.
        horizon: T_max of the task, in steps.

    Raises:
        DataError: no segment fits, or none is safe, or none unsafe.
    """
    length, starts, seed = config.segment_length, trajectories.starts, config.seed
    bound = config.safety_threshold
    if bound is None:
        bound = segment_bound(cost_limit, length, horizon)
    pairs = draw_pairs(starts, length, config.n_pairs, stream(seed, "pairs"))
    n_safety = config.n_pairs if config.n_safety is None else config.n_safety
    safety_starts = _draw_safety_segments(trajectories, config, n_safety, bound)

    returns = segment_sums(trajectories.rewards, pairs.ravel(), length).reshape(-1, 2)
    scale = return_scale(trajectories, length, seed)
    difference = returns[:, 1] - returns[:, 0]
    beta = config.beta
    if config.error_rate is not None:
        beta = solve_beta(difference, error_rate=config.error_rate, scale=scale)
    preferred = label_preferences(returns, beta=beta, scale=scale, noise=config.preference_noise, seed=seed)
    safety_costs = segment_sums(trajectories.costs, safety_starts, length)
    safe = label_safety(safety_costs, bound=bound, noise=config.safety_noise, seed=seed)
    _require_both_classes(safe.clean, safety_costs, bound)

    # A segment that is asked about twice stands once.
    first_steps, position = np.unique(np.concatenate([pairs.ravel(), safety_starts]), return_inverse=True)
    n_labels = pairs.size
    statistics = _statistics(config, difference, preferred, safe, beta, scale, bound)
    return Feedback(
        segments=_segments(first_steps, starts, length),
        preferences=Preferences(
            pair=position[:n_labels].reshape(-1, 2).astype(np.int32),
            label=preferred.label,
            annotator=np.zeros(len(pairs), dtype=np.int32),
        ),
        safety=Safety(
            segment=position[n_labels:].astype(np.int32),
            label=safe.label,
            annotator=np.zeros(n_safety, dtype=np.int32),
        ),
        oracle=Oracle(
            segment_return=segment_sums(trajectories.rewards, first_steps, length),
            segment_cost=segment_sums(trajectories.costs, first_steps, length),
            preference_probability=preferred.probability,
            preference_clean=preferred.clean,
            preference_flipped=preferred.flipped,
            safety_clean=safe.clean,
            safety_flipped=safe.flipped,
        ),
        attributes={
            "source": "simulated",
            "annotators": ["simulated teacher"],
            "cost_limit": float(cost_limit),
            "safety_bound": float(bound),
            "return_scale": float(scale),
            # JSON has no infinity.
            "teacher": {key: str(value) if value == np.inf else value for key, value in asdict(config).items()},
            "seed": seed,
            "statistics": statistics,
        },
    )


def return_scale(trajectories: Trajectories, segment_length: int, seed: int) -> float:
    """Standard deviation of return differences between two segments drawn at random.

    Estimated from a sample of segments on a stream of its own, as the root of twice their variance.
    """
    drawn = draw_starts(trajectories.starts, segment_length, N_SCALE_PAIRS, stream(seed, "scale"))
    scale = float(np.sqrt(2.0) * segment_sums(trajectories.rewards, drawn, segment_length).std())
    # All segments alike: every pair is a tie, and any scale will do.
    return scale if scale > 0 else 1.0


def _draw_safety_segments(trajectories: Trajectories, config: LabelConfig, n_segments: int, bound: float) -> IntArray:
    rng = stream(config.seed, "safety", "segments")
    if config.unsafe_share is None:
        return draw_starts(trajectories.starts, config.segment_length, n_segments, rng)
    drawn = draw_starts(trajectories.starts, config.segment_length, max(N_SCALE_PAIRS, 20 * n_segments), rng)
    costs = segment_sums(trajectories.costs, drawn, config.segment_length)
    unsafe = label_safety(costs, bound=bound, noise=0.0, seed=config.seed).clean == UNSAFE
    n_unsafe = round(config.unsafe_share * n_segments)
    chosen = [drawn[unsafe][:n_unsafe], drawn[~unsafe][: n_segments - n_unsafe]]
    if len(chosen[0]) < n_unsafe or len(chosen[1]) < n_segments - n_unsafe:
        raise DataError(
            f"unsafe share {config.unsafe_share}: only {unsafe.mean():.2%} of the segments of length {config.segment_length} "
            f"cost more than {bound:g}; use another share, --safety-threshold, or another mixture of policies"
        )
    return rng.permutation(np.concatenate(chosen))


def _segments(first_steps: IntArray, starts: IntArray, length: int) -> Segments:
    episode = episode_of(first_steps, starts)
    return Segments(
        episode=episode.astype(np.int32),
        start=(first_steps - starts[episode]).astype(np.int32),
        length=np.full(len(first_steps), length, dtype=np.int32),
    )


def _require_both_classes(clean: IntArray, costs: FloatArray, bound: float) -> None:
    for value, word in ((SAFE, "safe"), (UNSAFE, "unsafe")):
        if not np.any(clean == value):
            raise DataError(
                f"safety labels: none of {len(clean)} segments is {word} (costs {costs.min():g} to {costs.max():g}, bound "
                f"{bound:g}); use --safety-threshold or --cost-limit, another --segment-length, or another mixture of policies"
            )


def _statistics(config, difference, preferred, safe, beta, scale, bound) -> dict:
    """Requested figures beside realised ones, each with its 95 % interval."""
    untied = difference != 0.0
    better = np.where(difference[untied] > 0, 1.0, 0.0)
    return {
        "pairs": len(difference),
        "ties": int(np.sum(~untied)),
        "beta": float(beta) if np.isfinite(beta) else "inf",
        "return_scale": float(scale),
        "preference_error": _rate(
            expected_error(difference, beta=beta, scale=scale) * (1 - 2 * config.preference_noise) + config.preference_noise,
            preferred.label[untied] != better,
        ),
        "preference_flips": _rate(config.preference_noise, preferred.flipped[untied]),
        "safety_labels": len(safe.label),
        "safety_bound": float(bound),
        "safety_flips": _rate(config.safety_noise, safe.flipped),
        "unsafe_share": _rate(config.unsafe_share, safe.clean == UNSAFE),
    }


def _rate(expected: float | None, happened: Sequence[bool]) -> dict:
    low, high = binomial_interval(int(np.sum(happened)), len(happened))
    realised = float(np.mean(happened)) if len(happened) else 0.0
    return {"expected": None if expected is None else float(expected), "realised": realised, "low": low, "high": high}


def _check(good: bool, name: str, expected: str, came) -> None:
    if not good:
        raise RecipeError(f"{name}: expected {expected}, got {came}")
