"""Ask simulated teachers about a dataset, and store what they said."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from feedbackgen.episodes import dataset_info, load_outcomes
from feedbackgen.errors import DataError
from feedbackgen.files import refuse_existing
from feedbackgen.presets import DEFAULT_TEACHER, Annotator, annotators
from feedbackgen.provenance import versions
from feedbackgen.seeding import stream
from feedbackgen.segments import (
    Candidates,
    Strata,
    discounted_sums,
    draw_pairs,
    draw_segments,
    enumerate_segments,
    segment_sums,
)
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
    DISCOUNT_FROM,
    UNSAFE,
    Answers,
    Judge,
    answer,
    check,
    check_noise,
    flag,
    flip_safety,
    is_tie,
    is_unsafe,
    judge,
    judge_safety,
    return_scale,
    safety_noise,
)
from feedbackgen.types import FloatArray, IntArray, Outcomes, Trajectories

N_CALIBRATION_PAIRS = 100_000  # at most; a sample of its own, on which beta is solved for
MAX_ANSWERS = 250_000  # pairs answered at once, which bounds the memory
TALLY = (
    "skipped",
    "ties",
    "decided",
    *("draw_errors", "preference_flips", "preference_error"),
    *("draw_errors_expected", "preference_flips_expected", "preference_error_expected"),
)
# Of the teacher: what is given here replaces the preset's, in every teacher of a mixture.
OVERRIDES = (
    "beta",
    "beta_unit",
    "error_rate",
    "discount",
    "discount_from",
    "skip",
    "equal",
    "noise_margin",
    "drift",
)


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """What is asked, and how the teachers err. None leaves a value of the teacher's as the preset has it.

    Raises:
        RecipeError: a value is out of range.
    """

    n_pairs: int = 10_000  # asked about; a teacher who skips answers fewer
    n_safety: int | None = None  # segments with a safety label; None: as many as pairs, where there are so many
    segment_length: int = 64  # steps
    teachers: tuple[str, ...] = (DEFAULT_TEACHER,)  # NAME[+PARAMETER=VALUE]...[:SHARE], see `presets`
    beta: float | None = None  # rationality in 1 / beta_unit, inf never errs
    beta_unit: str | None = None  # deviation or reward
    error_rate: float | None = None  # instead of beta: solve for the one with this expected error before flips
    discount: float | None = None  # per step, in (0, 1]
    discount_from: str | None = None  # where a step counts in full: end or start
    skip: float | None = None  # share of the mean episode's return
    equal: float | None = None  # share of the mean episode's return
    noise: float | None = None  # probability of flipping a label, on both channels
    preference_noise: float | None = None  # instead of noise, for preferences
    safety_noise: float | None = None  # instead of noise, for safety labels
    noise_margin: float | None = None  # in deviations: flips of preferences fall to 1 / e at this margin
    drift: float | None = None  # what the probability of a flip rises by, on both channels, from first query to last
    miss_rate: float | None = None  # instead of noise, for unsafe segments
    false_alarm_rate: float | None = None  # instead of noise, for safe segments
    cost_limit: float | None = None  # per episode; None: the dataset's
    safety_threshold: float | None = None  # instead of a limit: the highest safe cost of a segment
    unsafe_share: float | None = None  # of the drawn segments; None: as they come
    seed: int = 0

    def __post_init__(self):
        for name, option, lowest in (
            ("n_pairs", "--pairs", 1),
            ("n_safety", "--safety-labels", 0),
            ("segment_length", "--segment-length", 1),
            ("seed", "--seed", 0),
        ):
            value = getattr(self, name)
            if name == "n_safety" and value is None:
                continue
            is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
            check(is_integer and value >= lowest, option, f"an integer >= {lowest}", value)
        for name in ("noise", "preference_noise", "safety_noise"):
            value = getattr(self, name)
            if value is not None:
                check_noise(value, flag(name))
        good = self.unsafe_share is None or 0 < self.unsafe_share < 1
        check(good, "--unsafe-share", "a share in (0, 1)", self.unsafe_share)
        for name in ("cost_limit", "safety_threshold"):
            value = getattr(self, name)
            check(value is None or 0 <= value < math.inf, flag(name), "a cost >= 0", value)
        for one, other in (("beta", "error_rate"), ("cost_limit", "safety_threshold")):
            both = getattr(self, one) is not None and getattr(self, other) is not None
            check(not both, f"{flag(one)} and {flag(other)}", "one of them", "both")
        check(len(self.teachers) > 0, "--teacher", "at least one", "none")
        self.annotators()

    def annotators(self) -> tuple[Annotator, ...]:
        """Who is asked, with every parameter resolved."""
        safety = self.noise if self.safety_noise is None else self.safety_noise
        values = {name: getattr(self, name) for name in OVERRIDES} | {
            "noise": self.noise if self.preference_noise is None else self.preference_noise,
            "miss_rate": safety if self.miss_rate is None else self.miss_rate,
            "false_alarm_rate": safety if self.false_alarm_rate is None else self.false_alarm_rate,
        }
        return annotators(self.teachers, {name: value for name, value in values.items() if value is not None})


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
    """The teachers' answers on trajectories in memory.

    Pairs, safety segments, who is asked, answers and flips each have a random stream of their own: what is asked on one
    channel, or how noisy it is, leaves the other alone.

    Args:
        trajectories: with rewards and costs.
        config: what is asked.
        cost_limit: per episode.
        horizon: T_max of the task, in steps.
        dataset: named in errors.
        attributes: go into the store's first.

    Raises:
        DataError: rewards or costs are missing, too few segments or pairs fit, all returns are equal, no segment is
            safe, or none unsafe, no pair was answered, or the teacher cannot be put before this dataset.
    """
    if trajectories.rewards is None or trajectories.costs is None:
        raise DataError(f"{dataset}: the teacher needs rewards and costs; load them with with_rewards=True")
    asked = config.annotators()
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
    judges = _judges(config, trajectories, candidates, returns, horizon, strata)
    scale = next((found.scale for found in judges if found.values is returns), None) or return_scale(returns)
    preferences, preference_statistics = _ask_preferences(config, judges, returns, pairs, scale)
    safety, safety_statistics = _ask_safety(config, costs, bound, judged)

    pairs = preferences["pairs"]
    # A segment that is asked about twice stands once.
    asked_about = np.zeros(candidates.n_segments, dtype=bool)
    asked_about[pairs], asked_about[judged] = True, True
    numbers, rows = np.flatnonzero(asked_about), np.cumsum(asked_about, dtype=np.int32) - np.int32(1)
    return Feedback(
        segments=_segments(candidates, numbers),
        preferences=Preferences(pair=rows[pairs], label=preferences["label"], annotator=preferences["annotator"]),
        safety=SafetyLabels(segment=rows[judged], label=safety["label"], annotator=safety["annotator"]),
        oracle=Oracle(
            segment_return=returns[numbers],
            segment_cost=costs[numbers],
            preference_probability=preferences["probability"],
            preference_clean=preferences["clean"],
            preference_flipped=preferences["flipped"],
            safety_clean=safety["clean"],
            safety_flipped=safety["flipped"],
        ),
        attributes={
            **(attributes or {}),
            "source": "simulated",
            "annotators": [annotator.name for annotator in asked],
            "segment_length": int(length),
            "horizon": int(horizon),
            "cost_limit": float(cost_limit),
            "safety_bound": float(bound),
            "seed": int(seed),
            "teacher": {entry.name: _json(getattr(config, entry.name)) for entry in fields(config)},
            "annotator_parameters": [
                {name: _json(value) for name, value in asdict(annotator.teacher).items()}
                | {
                    "share": annotator.share,
                    "beta": _json(found.beta),
                    "beta_unit": "deviation",
                    "scale": found.scale,
                    "skip_threshold": found.skip_threshold,
                    "equal_threshold": found.equal_threshold,
                }
                for annotator, found in zip(asked, judges, strict=True)
            ],
            "statistics": {
                "segments": len(numbers),
                "pairs": len(pairs),
                "safety_labels": len(judged),
                "beta": _json(judges[0].beta) if len(judges) == 1 else [_json(found.beta) for found in judges],
                "return_scale": scale,
                "safety_bound": float(bound),
                **preference_statistics,
                **safety_statistics,
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


def _judges(
    config: LabelConfig,
    trajectories: Trajectories | Outcomes,
    candidates: Candidates,
    returns: FloatArray,
    horizon: int,
    strata: Strata | None,
) -> list[Judge]:
    """Every annotator before these segments; those who discount alike share what they see."""
    asked = config.annotators()
    rewards, length = np.asarray(trajectories.rewards), candidates.length
    seen = {(1.0, discount_from): returns for discount_from in DISCOUNT_FROM}
    for annotator in asked:
        key = annotator.teacher.discount, annotator.teacher.discount_from
        if key not in seen:
            seen[key] = discounted_sums(rewards, trajectories.starts, length, discount=key[0], discount_from=key[1])
    calibration = None
    if any(annotator.teacher.error_rate is not None for annotator in asked):
        # Drawn as the pairs are, but from a stream of its own: beta belongs to the dataset, not to these pairs.
        n_pairs = max(1, min(N_CALIBRATION_PAIRS, candidates.n_pairs // 4))
        calibration = returns, draw_pairs(candidates, n_pairs, stream(config.seed, "calibration"), strata=strata)
    mean_return = float(rewards.sum(dtype=np.float64)) / (len(trajectories.starts) - 1) * length / horizon
    return [
        judge(
            annotator.teacher,
            values=seen[annotator.teacher.discount, annotator.teacher.discount_from],
            mean_return=mean_return,
            calibration=calibration,
        )
        for annotator in asked
    ]


def _ask_preferences(
    config: LabelConfig, judges: list[Judge], returns: FloatArray, pairs: IntArray, scale: float
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The answered pairs and their columns of the store, and the statistics."""
    asked, n_pairs = config.annotators(), len(pairs)
    annotator = _assign(asked, n_pairs, stream(config.seed, "preference-annotator"))
    draws, mistakes = stream(config.seed, "preference"), stream(config.seed, "preference-flip")
    columns: dict[str, np.ndarray] = {name: np.empty(n_pairs, np.float32) for name in ("probability", "clean", "label")}
    columns |= {"flipped": np.empty(n_pairs, bool), "answered": np.empty(n_pairs, bool)}
    tally = np.zeros((len(asked), len(TALLY)))
    for first in range(0, n_pairs, MAX_ANSWERS):
        chunk = slice(first, min(first + MAX_ANSWERS, n_pairs))
        shared = {
            "draws": draws.random(chunk.stop - first),
            "mistakes": mistakes.random(chunk.stop - first),
            "tiredness": np.arange(first, chunk.stop) / max(n_pairs - 1, 1),
        }
        for index, found in enumerate(judges):
            own = slice(None) if len(judges) == 1 else np.flatnonzero(annotator[chunk] == index)
            of_own = pairs[chunk][own]
            said = answer(found, returns, of_own, **{name: values[own] for name, values in shared.items()})
            for name, column in columns.items():
                column[chunk][own] = getattr(said, name)
            tally[index] += _count(said, returns[of_own[:, 1]] - returns[of_own[:, 0]], scale)
    answered = columns.pop("answered")
    if not answered.any():
        thresholds = ", ".join(f"{found.skip_threshold:g}" for found in judges)
        raise DataError(
            f"preferences: all {n_pairs} pairs were skipped (segment returns up to {returns.max():g}, threshold "
            f"{thresholds}); use a lower --skip"
        )
    columns |= {"annotator": annotator, "pairs": pairs}
    if not answered.all():
        columns = {name: column[answered] for name, column in columns.items()}
    return columns, _preference_statistics(asked, n_pairs, tally)


def _ask_safety(
    config: LabelConfig, costs: FloatArray, bound: float, judged: IntArray
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The safety labels' columns of the store, and the statistics."""
    asked, n_labels = config.annotators(), len(judged)
    annotator = _assign(asked, n_labels, stream(config.seed, "safety-annotator"))
    clean = judge_safety(costs[judged], bound)
    tiredness = np.arange(n_labels) / max(n_labels - 1, 1)
    probability = np.zeros(n_labels)
    for index, one in enumerate(asked):
        own = annotator == index
        probability[own] = safety_noise(one.teacher, clean[own], tiredness[own])
    label, flipped = flip_safety(clean, probability, stream(config.seed, "safety-flip"))
    unsafe = clean == UNSAFE
    rates = {
        name: _rate(float(probability[which].mean()) if which.any() else None, int(flipped[which].sum()), which.sum())
        for name, which in (("safety_flips", np.ones(n_labels, bool)), ("misses", unsafe), ("false_alarms", ~unsafe))
    }
    return {"clean": clean, "flipped": flipped, "label": label, "annotator": annotator}, {
        **rates,
        "unsafe_share": _rate(config.unsafe_share, unsafe.sum(), n_labels),
        "unsafe_labels": _rate(None, (label == UNSAFE).sum(), n_labels),
    }


def _assign(asked: tuple[Annotator, ...], n_queries: int, rng: np.random.Generator) -> IntArray:
    """Who is asked which query, int32: the shares exactly, but for rounding, in random order."""
    if len(asked) == 1:
        return np.zeros(n_queries, np.int32)
    ends = np.rint(np.cumsum([annotator.share for annotator in asked]) * n_queries).astype(np.int64)
    annotator = np.repeat(np.arange(len(asked), dtype=np.int32), np.diff(ends, prepend=0))
    rng.shuffle(annotator)
    return annotator


def _count(said: Answers, differences: FloatArray, scale: float) -> FloatArray:
    """One row of the tally; rates count the answered pairs that are no tie and whose returns differ."""
    decided = said.answered & ~said.tied & ~is_tie(differences, scale)
    second_is_better = differences[decided] > 0
    probability, noise = said.probability[decided], said.noise[decided]
    draw_error = np.where(second_is_better, 1 - probability, probability)
    counted = {
        "skipped": (~said.answered).sum(),
        "ties": (said.answered & said.tied).sum(),
        "decided": decided.sum(),
        "draw_errors": ((said.clean[decided] == 1) != second_is_better).sum(),
        "draw_errors_expected": draw_error.sum(),
        "preference_flips": said.flipped[decided].sum(),
        "preference_flips_expected": noise.sum(),
        "preference_error": ((said.label[decided] == 1) != second_is_better).sum(),
        "preference_error_expected": (draw_error + noise - 2 * draw_error * noise).sum(),
    }
    return np.array([counted[name] for name in TALLY], dtype=float)


def _preference_statistics(asked: tuple[Annotator, ...], n_pairs: int, tally: FloatArray) -> dict[str, Any]:
    """Ties, and the rates over all other pairs; of a mixture, also each annotator's final error."""

    def rate(name: str, row: FloatArray) -> dict[str, float | None]:
        counts = dict(zip(TALLY, row, strict=True))
        n_decided = counts["decided"]
        expected = counts[f"{name}_expected"] / n_decided if n_decided else None
        return _rate(expected, counts[name], n_decided)

    total = tally.sum(axis=0)
    return {
        "ties": int(total[TALLY.index("ties")]),
        "skipped": _rate(None, total[TALLY.index("skipped")], n_pairs),
        **{name: rate(name, total) for name in ("draw_errors", "preference_flips", "preference_error")},
        **{
            f"preference_error of {annotator.name}": rate("preference_error", row)
            for annotator, row in zip(asked, tally, strict=True)
            if len(asked) > 1
        },
    }


def _segments(candidates: Candidates, numbers: IntArray) -> Segments:
    """References to candidates, whose numbers ascend: so it is enough to look where each episode begins."""
    n_of_episode = np.diff(np.searchsorted(numbers, candidates.offsets))
    episodes = np.repeat(np.arange(len(n_of_episode), dtype=np.int32), n_of_episode)
    return Segments(
        episode=episodes,
        start=(numbers - np.repeat(candidates.offsets[:-1], n_of_episode)).astype(np.int32),
        length=np.full(len(numbers), candidates.length, dtype=np.int32),
    )


def _require_both_classes(costs: FloatArray, bound: float, which: str, options: str) -> None:
    n_unsafe = int(is_unsafe(costs, bound).sum())
    if n_unsafe in (0, len(costs)):
        raise DataError(
            f"safety labels: {n_unsafe} of {len(costs)} {which} are unsafe (costs {costs.min():g} to {costs.max():g}, "
            f"bound {bound:g}); use {options}, or collect another mixture of policies"
        )


def _rate(expected: float | None, n_happened: float, n_trials: float) -> dict[str, float | None]:
    n_happened, n_trials = int(n_happened), int(n_trials)
    low, high = binomial_interval(n_happened, n_trials)
    realised = n_happened / n_trials if n_trials else None
    return {"expected": None if expected is None else float(expected), "realised": realised, "low": low, "high": high}


def _json(value: Any) -> Any:
    """JSON has no infinity, and no tuples."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, tuple):
        return [_json(entry) for entry in value]
    if isinstance(value, int | np.integer):
        return int(value)
    return "inf" if math.isinf(value) else float(value)
