"""Ask the simulated teacher about a dataset, and store what it said."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from feedbackgen.episodes import dataset_info, load_outcomes
from feedbackgen.errors import DataError, RecipeError
from feedbackgen.files import refuse_existing
from feedbackgen.provenance import versions
from feedbackgen.seeding import stream
from feedbackgen.segments import Candidates, Strata, draw_pairs, draw_segments, enumerate_segments, segment_sums
from feedbackgen.statistics import binomial_interval
from feedbackgen.store import (
    DEFAULT_NAME,
    Feedback,
    Oracle,
    Preferences,
    SafetyLabels,
    Segments,
    feedback_path,
    write_feedback,
)
from feedbackgen.teacher import (
    DEFAULT_BETA,
    UNSAFE,
    expected_error,
    flip_preferences,
    flip_safety,
    is_tie,
    is_unsafe,
    judge_safety,
    prefer,
    preference_probabilities,
    return_scale,
    solve_beta,
)
from feedbackgen.types import FloatArray, IntArray, Outcomes, Trajectories

N_CALIBRATION_PAIRS = 100_000  # at most; a sample of its own, on which beta is solved for


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """What is asked, and how the teacher errs.

    Raises:
        RecipeError: a value is out of range.
    """

    n_pairs: int = 10_000
    n_safety: int | None = None  # segments with a safety label; None: as many as pairs, where there are so many
    segment_length: int = 64  # steps
    beta: float | None = None  # rationality per `return_scale`, inf never errs; None: DEFAULT_BETA
    error_rate: float | None = None  # instead of beta: solve for the one with this expected error before flips
    noise: float = 0.0  # probability of flipping a label, on both channels
    preference_noise: float | None = None  # instead of noise, for preferences
    safety_noise: float | None = None  # instead of noise, for safety labels
    cost_limit: float | None = None  # per episode; None: the dataset's
    safety_threshold: float | None = None  # instead of a limit: the highest safe cost of a segment
    unsafe_share: float | None = None  # of the drawn segments; None: as they come
    seed: int = 0

    def __post_init__(self):
        for name, lowest in (("n_pairs", 1), ("n_safety", 0), ("segment_length", 1), ("seed", 0)):
            value = getattr(self, name)
            if name == "n_safety" and value is None:
                continue
            is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
            _check(is_integer and value >= lowest, name, f"an integer >= {lowest}", value)
        _check(self.beta is None or self.beta > 0, "beta", "a number above 0, or inf", self.beta)
        good = self.error_rate is None or 0 <= self.error_rate < 0.5
        _check(good, "error_rate", "a rate in [0, 0.5)", self.error_rate)
        for name in ("noise", "preference_noise", "safety_noise"):
            value = getattr(self, name)
            _check(value is None or 0 <= value <= 1, name, "a probability in [0, 1]", value)
        good = self.unsafe_share is None or 0 < self.unsafe_share < 1
        _check(good, "unsafe_share", "a share in (0, 1)", self.unsafe_share)
        for name in ("cost_limit", "safety_threshold"):
            value = getattr(self, name)
            _check(value is None or 0 <= value < math.inf, name, "a cost >= 0", value)
        for one, other in (("beta", "error_rate"), ("cost_limit", "safety_threshold")):
            both = getattr(self, one) is not None and getattr(self, other) is not None
            _check(not both, f"{one} and {other}", "one of them", "both")

    @property
    def preference_flip_probability(self) -> float:
        return self.noise if self.preference_noise is None else self.preference_noise

    @property
    def safety_flip_probability(self) -> float:
        return self.noise if self.safety_noise is None else self.safety_noise


@dataclass(frozen=True, kw_only=True)
class LabelSummary:
    """What was asked for, and what came out.

    ``statistics`` is the store's attribute of that name: counts, beta, return_scale, safety_bound, and for each rate
    ``{"expected", "realised", "low", "high"}`` with the 95 % interval of the realised one; see docs/data-format.md.
    """

    path: Path
    dataset_id: str
    task: str
    segment_length: int  # steps
    seed: int
    cost_limit: float  # per episode
    statistics: Mapping[str, Any]


def label(dataset: str | Path, config: LabelConfig, *, name: str = DEFAULT_NAME, force: bool = False) -> LabelSummary:
    """Label a dataset and store the feedback beside it, as ``<dataset>/feedback/<name>.zarr``.

    Raises:
        DataError: the dataset cannot be read, too few segments or pairs fit, or none is safe, or none unsafe.
        OutputExists: feedback of that name is there and ``force`` is not given.
        StoreError: the disk is full, or the place cannot be written.
    """
    path = feedback_path(dataset, name)
    refuse_existing(path, force=force)
    info = dataset_info(dataset)
    if not info.has_costs:
        config = _without_safety(config, info.dataset_id)
    cost_limit = float(info.cost_limit if config.cost_limit is None else config.cost_limit)
    feedback = label_trajectories(
        load_outcomes(dataset),
        config,
        cost_limit=cost_limit,
        horizon=info.horizon,
        dataset=info.dataset_id,
        attributes={
            "dataset_id": info.dataset_id,
            "dataset_fingerprint": info.fingerprint,
            "task": info.task,
            "environment": info.environment,
            "versions": versions(("feedbackgen", "numpy", "zarr")),
        },
    )
    write_feedback(path, feedback, force=force)
    return LabelSummary(
        path=path,
        dataset_id=info.dataset_id,
        task=info.task,
        segment_length=config.segment_length,
        seed=config.seed,
        cost_limit=cost_limit,
        statistics=feedback.attributes["statistics"],
    )


def label_trajectories(
    trajectories: Trajectories | Outcomes,
    config: LabelConfig,
    *,
    cost_limit: float,
    horizon: int,
    dataset: str = "the dataset",
    attributes: Mapping[str, Any] | None = None,
) -> Feedback:
    """The teacher's answers on trajectories in memory.

    Pairs, safety segments, answers and flips each have a random stream of their own: what is asked on one channel, or
    how noisy it is, leaves the other alone.

    Args:
        trajectories: with rewards and costs.
        config: what is asked.
        cost_limit: per episode.
        horizon: T_max of the task, in steps.
        dataset: named in errors.
        attributes: go into the store's first.

    Raises:
        DataError: rewards or costs are missing, too few segments or pairs fit, all returns are equal, or no segment is
            safe, or none unsafe.
    """
    if trajectories.rewards is None or trajectories.costs is None:
        raise DataError(f"{dataset}: the teacher needs rewards and costs; load them with with_rewards=True")
    length, seed = config.segment_length, config.seed
    candidates = enumerate_segments(trajectories.starts, length, dataset=dataset)
    returns = segment_sums(trajectories.rewards, trajectories.starts, length)
    costs = segment_sums(trajectories.costs, trajectories.starts, length)
    bound = cost_limit * length / horizon if config.safety_threshold is None else float(config.safety_threshold)
    strata = None
    if config.unsafe_share is not None:
        strata = Strata(unsafe=is_unsafe(costs, bound), unsafe_share=config.unsafe_share)
    n_safety = min(config.n_pairs, candidates.n_segments) if config.n_safety is None else config.n_safety
    if n_safety or strata is not None:
        _require_both_classes(costs, bound, f"segments of {dataset}", "--safety-threshold or --cost-limit")

    pairs = draw_pairs(candidates, config.n_pairs, stream(seed, "pairs"), strata=strata)
    judged = draw_segments(candidates.n_segments, n_safety, stream(seed, "safety-segments"), strata=strata)
    if n_safety:
        _require_both_classes(
            costs[judged], bound, f"drawn segments of {dataset}", "--unsafe-share, --safety-threshold"
        )
    scale = return_scale(returns)
    beta = _beta(config, candidates, returns, scale, strata)
    differences = returns[pairs[:, 1]] - returns[pairs[:, 0]]
    preferred = prefer(differences, beta=beta, scale=scale, rng=stream(seed, "preference"))
    preferences, preference_flipped = flip_preferences(
        preferred, config.preference_flip_probability, stream(seed, "preference-flip")
    )
    safe = judge_safety(costs[judged], bound)
    safety, safety_flipped = flip_safety(safe, config.safety_flip_probability, stream(seed, "safety-flip"))

    # A segment that is asked about twice stands once.
    asked = np.zeros(candidates.n_segments, dtype=bool)
    asked[pairs], asked[judged] = True, True
    numbers, rows = np.flatnonzero(asked), np.cumsum(asked, dtype=np.int32) - np.int32(1)
    pair, segment = rows[pairs], rows[judged]
    oracle = Oracle(
        segment_return=returns[numbers],
        segment_cost=costs[numbers],
        preference_probability=preference_probabilities(differences, beta=beta, scale=scale).astype(np.float32),
        preference_clean=preferred,
        preference_flipped=preference_flipped,
        safety_clean=safe,
        safety_flipped=safety_flipped,
    )
    return Feedback(
        segments=_segments(candidates, numbers),
        preferences=Preferences(pair=pair, label=preferences, annotator=np.zeros(len(pairs), np.int32)),
        safety=SafetyLabels(segment=segment, label=safety, annotator=np.zeros(len(judged), np.int32)),
        oracle=oracle,
        attributes={
            **(attributes or {}),
            "source": "simulated",
            "annotators": ["simulated teacher"],
            "segment_length": int(length),
            "horizon": int(horizon),
            "cost_limit": float(cost_limit),
            "safety_bound": float(bound),
            "seed": int(seed),
            "teacher": {entry.name: _json_number(getattr(config, entry.name)) for entry in fields(config)},
            "statistics": {
                "segments": len(numbers),
                "pairs": len(pairs),
                "safety_labels": len(judged),
                "beta": _json_number(beta),
                "return_scale": scale,
                "safety_bound": float(bound),
                **_preference_statistics(config, differences, preferences, oracle, beta, scale),
                "safety_flips": _rate(config.safety_flip_probability, safety_flipped),
                "unsafe_share": _rate(config.unsafe_share, safe == UNSAFE),
                "unsafe_labels": _rate(None, safety == UNSAFE),
            },
        },
    )


def _without_safety(config: LabelConfig, dataset: str) -> LabelConfig:
    """Preferences alone, for a dataset that tells no costs."""
    if config.n_safety or config.unsafe_share is not None:
        raise DataError(
            f"safety labels: {dataset} was imported without costs; leave --safety-labels and --unsafe-share out "
            "to ask for preferences alone"
        )
    return replace(config, n_safety=0)


def _beta(
    config: LabelConfig, candidates: Candidates, returns: FloatArray, scale: float, strata: Strata | None
) -> float:
    if config.error_rate is None:
        return float(DEFAULT_BETA if config.beta is None else config.beta)
    # Drawn as the pairs are, but from a stream of its own: beta belongs to the dataset, not to the pairs asked about.
    n_pairs = max(1, min(N_CALIBRATION_PAIRS, candidates.n_pairs // 4))
    pairs = draw_pairs(candidates, n_pairs, stream(config.seed, "calibration"), strata=strata)
    return solve_beta(returns[pairs[:, 1]] - returns[pairs[:, 0]], config.error_rate, scale=scale)


def _preference_statistics(
    config: LabelConfig, differences: FloatArray, labels: FloatArray, oracle: Oracle, beta: float, scale: float
) -> dict[str, Any]:
    """Ties, and the rates over all other pairs."""
    tied = is_tie(differences, scale)
    second_is_better = differences[~tied] > 0
    draw_error, noise = expected_error(differences, beta=beta, scale=scale), config.preference_flip_probability
    return {
        "ties": int(tied.sum()),
        "draw_errors": _rate(draw_error, oracle.preference_clean[~tied] != second_is_better),
        "preference_flips": _rate(noise, oracle.preference_flipped[~tied]),
        "preference_error": _rate(draw_error + noise - 2 * draw_error * noise, labels[~tied] != second_is_better),
    }


def _segments(candidates: Candidates, numbers: IntArray) -> Segments:
    episodes, first_steps = candidates.locate(numbers)
    return Segments(
        episode=episodes.astype(np.int32),
        start=first_steps.astype(np.int32),
        length=np.full(len(numbers), candidates.length, dtype=np.int32),
    )


def _require_both_classes(costs: FloatArray, bound: float, which: str, options: str) -> None:
    n_unsafe = int(is_unsafe(costs, bound).sum())
    if n_unsafe in (0, len(costs)):
        raise DataError(
            f"safety labels: {n_unsafe} of {len(costs)} {which} are unsafe (costs {costs.min():g} to {costs.max():g}, "
            f"bound {bound:g}); use {options}, or collect another mixture of policies"
        )


def _rate(expected: float | None, happened: np.ndarray) -> dict[str, float | None]:
    n_happened, n_trials = int(happened.sum()), len(happened)
    low, high = binomial_interval(n_happened, n_trials)
    realised = n_happened / n_trials if n_trials else None
    return {"expected": None if expected is None else float(expected), "realised": realised, "low": low, "high": high}


def _json_number(value: float | None) -> float | str | None:
    """JSON has no infinity."""
    if value is None or isinstance(value, int | np.integer):
        return value if value is None else int(value)
    return "inf" if math.isinf(value) else float(value)


def _check(good: bool, name: str, expected: str, came: Any) -> None:
    if not good:
        raise RecipeError(f"{name}: expected {expected}, got {came}")
