"""Ask simulated teachers about a dataset, and store what they said."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from feedbackgen.active import ACTIVE, Active, Ensemble, draw_active_pairs
from feedbackgen.answers import MAX_ANSWERS, ask_preferences, ask_safety, put_before, rate
from feedbackgen.episodes import dataset_info, load_outcomes, load_trajectories
from feedbackgen.errors import DataError, RecipeError
from feedbackgen.feedback import FURTHER_ORACLE, Feedback, Oracle, Preferences, SafetyLabels, Segments
from feedbackgen.files import refuse_existing
from feedbackgen.further import (
    compare_safety,
    judge_episodes,
    pick_non_preferred,
    rate_segments,
    ratings_of,
    safety_preferences_of,
)
from feedbackgen.presets import DEFAULT_TEACHER, Annotator, annotators
from feedbackgen.provenance import versions
from feedbackgen.queries import Choice, Pool, at_start, choose, make_pool
from feedbackgen.seeding import stream
from feedbackgen.store import DEFAULT_NAME, feedback_path, write_feedback
from feedbackgen.teacher import Judge, check, check_noise, flag
from feedbackgen.types import BoolArray, FloatArray, IntArray, Outcomes, Trajectories

KINDS = ("preferences", "safety", "ratings", "safety-preferences", "episode-safety", "non-preferred")
QUERIES = ("uniform", "stratified", *ACTIVE)
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
    kinds: tuple[str, ...] = ("preferences", "safety")  # of `KINDS`
    n_safety: int | None = None  # segments with a safety label; None: as many as pairs, where there are so many
    n_ratings: int | None = None  # segments with a rating; None: as many as pairs, where there are so many
    rating_bins: int = 10
    n_non_preferred: int | None = None  # episodes; None: 50, or as many as are unsafe
    segment_length: int | tuple[int, ...] = 64  # steps; several lengths take turns
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
    queries: str = "uniform"  # or "stratified" over returns and costs, or one of `active.ACTIVE`
    session: int = 100  # pairs chosen at once, by active queries
    unsafe_share: float | None = None  # of the drawn segments; None: as they come
    start_share: float | None = None  # of the drawn segments, those that start with their episode; None: as they come
    margin: tuple[float, float] | None = None  # of a pair's returns, in deviations of differences; None: any
    seed: int = 0

    def __post_init__(self):
        for name, option, lowest in (
            ("n_pairs", "--pairs", 1),
            ("n_safety", "--safety-labels", 0),
            ("lengths", "--segment-length", 1),
            ("session", "--session", 1),
            ("n_ratings", "--ratings", 1),
            ("n_non_preferred", "--non-preferred", 1),
            ("seed", "--seed", 0),
        ):
            given = getattr(self, name)
            for value in given if isinstance(given, tuple) else (given,):
                if value is None and name in ("n_safety", "n_ratings", "n_non_preferred"):
                    continue
                is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
                check(is_integer and value >= lowest, option, f"an integer >= {lowest}", value)
        for kind in self.kinds:
            check(kind in KINDS, "--feedback", f"some of {', '.join(KINDS)}", kind)
        check(0 < len(set(self.kinds)) == len(self.kinds), "--feedback", "each kind once", ",".join(self.kinds))
        for name, option, kind in (
            ("n_safety", "--safety-labels", "safety"),
            ("n_ratings", "--ratings", "ratings"),
            ("n_non_preferred", "--non-preferred", "non-preferred"),
        ):
            asked = kind in self.kinds or not getattr(self, name)
            check(asked, f"{option} and --feedback", f"{kind} among the kinds of feedback", ",".join(self.kinds))
        is_integer = isinstance(self.rating_bins, int) and not isinstance(self.rating_bins, bool)
        check(is_integer and 2 <= self.rating_bins <= 100, "--rating-bins", "2 to 100", self.rating_bins)
        lengths = self.lengths
        check(0 < len(set(lengths)) == len(lengths), "--segment-length", "each length once", lengths)
        check(
            len(lengths) <= self.n_pairs, "--pairs", f"at least {len(lengths)}, one per --segment-length", self.n_pairs
        )
        for name in ("noise", "preference_noise", "safety_noise"):
            value = getattr(self, name)
            if value is not None:
                check_noise(value, flag(name))
        check(self.queries in QUERIES, "--queries", f"one of {', '.join(QUERIES)}", self.queries)
        for name in ("unsafe_share", "start_share"):
            value = getattr(self, name)
            check(value is None or 0 < value < 1, flag(name), "a share in (0, 1)", value)
            both = value is not None and self.queries != "uniform"
            check(not both, f"{flag(name)} and --queries {self.queries}", "one of them", "both")
        if self.margin is not None:
            good = len(self.margin) == 2 and 0 <= self.margin[0] < self.margin[1]
            check(good, "--margin", "LOW,HIGH with 0 <= LOW < HIGH, in deviations", self.margin)
        for name in ("cost_limit", "safety_threshold"):
            value = getattr(self, name)
            check(value is None or 0 <= value < math.inf, flag(name), "a cost >= 0", value)
        for one, other in (("beta", "error_rate"), ("cost_limit", "safety_threshold")):
            both = getattr(self, one) is not None and getattr(self, other) is not None
            check(not both, f"{flag(one)} and {flag(other)}", "one of them", "both")
        check(len(self.teachers) > 0, "--teacher", "at least one", "none")
        self.annotators()

    @property
    def lengths(self) -> tuple[int, ...]:
        return self.segment_length if isinstance(self.segment_length, tuple) else (self.segment_length,)

    @property
    def choice(self) -> Choice:
        return Choice(
            stratified=self.queries == "stratified",
            unsafe_share=self.unsafe_share,
            start_share=self.start_share,
            margin=self.margin,
        )

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
    segment_length: int | tuple[int, ...]  # steps
    seed: int
    cost_limit: float  # per episode
    statistics: Mapping[str, Any]


def label(
    dataset: str | Path,
    config: LabelConfig,
    *,
    ensemble: Ensemble | None = None,
    name: str = DEFAULT_NAME,
    force: bool = False,
) -> LabelSummary:
    """Label a dataset and store the feedback beside it, as ``<dataset>/feedback/<name>.zarr``.

    Args:
        dataset: Minari id or path.
        config: what is asked.
        ensemble: what active queries consult, see `active`.
        name: of the feedback.
        force: replace feedback of that name.

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
    # Only active queries look at observations; a teacher never does.
    trajectories = load_trajectories(dataset, with_rewards=True) if config.queries in ACTIVE else load_outcomes(dataset)
    feedback = label_trajectories(
        trajectories,
        config,
        ensemble=ensemble,
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
    ensemble: Ensemble | None = None,
    dataset: str = "the dataset",
    attributes: Mapping[str, Any] | None = None,
) -> Feedback:
    """The teachers' answers on trajectories in memory.

    Pairs, safety segments, who is asked, answers and flips each have a random stream of their own: what is asked on one
    channel, or how noisy it is, leaves the other alone.

    Args:
        trajectories: with rewards and costs; for active queries with observations and actions too.
        config: what is asked.
        ensemble: what active queries consult, see `active`.
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
    asked, seed, kinds = config.annotators(), config.seed, config.kinds
    pools = []
    for length in config.lengths:
        bound = cost_limit * length / horizon if config.safety_threshold is None else float(config.safety_threshold)
        pools.append(make_pool(trajectories, length, config.choice, bound=bound, dataset=dataset))
        if (config.n_safety != 0 and "safety" in kinds) or config.unsafe_share is not None:
            options = "--safety-threshold or --cost-limit"
            _require_both_classes(pools[-1], slice(None), f"segments of {dataset}", options)
    pools = [choose(pool, config.choice) for pool in pools]
    pairs = [
        _draw_pairs(config, pool, trajectories, n_pairs, ensemble)
        for pool, n_pairs in zip(pools, _turns(config.n_pairs, len(pools)), strict=True)
    ]
    if not {"preferences", "safety-preferences"} & set(kinds):
        pairs = [drawn[:0] for drawn in pairs]
    most = min(config.n_pairs, len(pools) * min(pool.most_segments() for pool in pools))
    n_safety = 0 if "safety" not in kinds else most if config.n_safety is None else config.n_safety
    n_ratings = 0 if "ratings" not in kinds else most if config.n_ratings is None else config.n_ratings
    judged = [
        pool.draw_segments(n_labels, stream(seed, "safety-segments", pool.length))
        for pool, n_labels in zip(pools, _turns(n_safety, len(pools)), strict=True)
    ]
    for pool, drawn in zip(pools, judged, strict=True):
        if len(drawn):
            which = f"drawn segments of {dataset}"
            _require_both_classes(pool, drawn, which, "--unsafe-share, --safety-threshold")
    rated = [
        pool.draw_segments(n_rated, stream(seed, "rating-segments", pool.length))
        for pool, n_rated in zip(pools, _turns(n_ratings, len(pools)), strict=True)
    ]
    judges = [put_before(asked, pool, trajectories, horizon=horizon, seed=seed) for pool in pools]
    if "preferences" in kinds:
        preferences, preference_statistics = ask_preferences(asked, pools, judges, pairs, seed=seed)
    else:
        preferences, preference_statistics = _no_preferences(sum(map(len, pairs))), {}
    safety, safety_statistics = ask_safety(asked, pools, judged, seed=seed)
    share_statistics = _share_statistics(config, pools, pairs, judged)
    further: dict[str, Any] = {}  # groups of the store
    told: dict[str, dict[str, np.ndarray]] = {}  # their columns, and what the oracle keeps
    further_statistics: dict[str, Any] = {}
    if "ratings" in kinds:
        told["ratings"], statistics = rate_segments(asked, pools, judges, rated, n_bins=config.rating_bins, seed=seed)
        further_statistics |= statistics
    if "safety-preferences" in kinds:
        told["safety_preferences"], statistics = compare_safety(
            asked, pools, pairs, trajectories, horizon=horizon, seed=seed
        )
        further_statistics |= statistics
    if {"episode-safety", "non-preferred"} & set(kinds):
        episode_costs = np.add.reduceat(np.asarray(trajectories.costs), trajectories.starts[:-1])
        if "episode-safety" in kinds:
            further["episode_safety"], told["episode_safety"], statistics = judge_episodes(
                asked, episode_costs, cost_limit=cost_limit, seed=seed
            )
            further_statistics |= statistics
        if "non-preferred" in kinds:
            further["non_preferred"], told["non_preferred"], statistics = pick_non_preferred(
                asked, episode_costs, config.n_non_preferred, cost_limit=cost_limit, seed=seed, dataset=dataset
            )
            further_statistics |= statistics
    asked_about = preferences["answered"]
    if "safety-preferences" in kinds:  # also those that were skipped
        asked_about = np.ones(len(asked_about), bool)
    segments, returns, costs, rows = _table(pools, pairs, judged, rated, asked_about)
    pair, judged_rows = _in_turns(rows[0]), _in_turns(rows[1])
    if "ratings" in kinds:
        further["ratings"] = ratings_of(told["ratings"], _in_turns(rows[2]))
    if "safety-preferences" in kinds:
        further["safety_preferences"] = safety_preferences_of(told["safety_preferences"], pair)
    if not preferences["answered"].all():
        pair = pair[preferences["answered"]]
        preferences = {name: column[preferences["answered"]] for name, column in preferences.items()}
    return Feedback(
        segments=segments,
        preferences=Preferences(pair=pair, label=preferences["label"], annotator=preferences["annotator"]),
        safety=SafetyLabels(segment=judged_rows, label=safety["label"], annotator=safety["annotator"]),
        oracle=Oracle(
            segment_return=returns,
            segment_cost=costs,
            preference_probability=preferences["probability"],
            preference_clean=preferences["clean"],
            preference_flipped=preferences["flipped"],
            safety_clean=safety["clean"],
            safety_flipped=safety["flipped"],
            further={f"{group}_{name}": told[group][name] for group in told for name in FURTHER_ORACLE[group]},
        ),
        **further,
        attributes={
            **(attributes or {}),
            "source": "simulated",
            "annotators": [annotator.name for annotator in asked],
            "segment_length": _one_or_list([int(pool.length) for pool in pools]),
            "horizon": int(horizon),
            "cost_limit": float(cost_limit),
            "safety_bound": _one_or_list([float(pool.bound) for pool in pools]),
            "seed": int(seed),
            "kinds": list(kinds),
            **({"rating_bins": config.rating_bins} if "ratings" in kinds else {}),
            "teacher": {entry.name: _json(getattr(config, entry.name)) for entry in fields(config)},
            "annotator_parameters": [
                _parameters(annotator, [before[index] for before in judges]) for index, annotator in enumerate(asked)
            ],
            "statistics": {
                "segments": len(segments),
                "pairs": len(pair),
                "safety_labels": n_safety,
                "beta": _one_or_list(
                    [_one_or_list([_json(found.beta) for found in before]) for before in zip(*judges, strict=True)]
                ),
                "return_scale": _one_or_list([pool.scale for pool in pools]),
                "safety_bound": _one_or_list([float(pool.bound) for pool in pools]),
                **preference_statistics,
                **safety_statistics,
                **share_statistics,
                **further_statistics,
            },
        },
    )


def _no_preferences(n_pairs: int) -> dict[str, np.ndarray]:
    """Columns of pairs that nobody was asked about by return."""
    columns: dict[str, np.ndarray] = {name: np.zeros(n_pairs, np.float32) for name in ("probability", "clean", "label")}
    return columns | {
        "flipped": np.zeros(n_pairs, bool),
        "answered": np.zeros(n_pairs, bool),
        "annotator": np.zeros(n_pairs, np.int32),
    }


def _draw_pairs(
    config: LabelConfig, pool: Pool, trajectories: Trajectories | Outcomes, n_pairs: int, ensemble: Ensemble | None
) -> IntArray:
    rng = stream(config.seed, "pairs", pool.length)
    if config.queries not in ACTIVE:
        return pool.draw_pairs(n_pairs, rng)
    if ensemble is None and config.queries != "k-center":
        raise RecipeError(
            f"--queries {config.queries}: expected an ensemble to ask; give --ensemble FEEDBACK, whose preferences it "
            "is learnt from (ask uniformly first)"
        )
    if isinstance(trajectories, Outcomes):
        raise DataError(f"--queries {config.queries}: needs observations and actions, not rewards and costs alone")
    active = Active(queries=config.queries, session=config.session, ensemble=ensemble)
    return draw_active_pairs(pool, trajectories, n_pairs, active, rng)


def _turns(n: int, n_pools: int) -> list[int]:
    """How many of ``n`` each pool gets when they take turns."""
    return [len(range(place, n, n_pools)) for place in range(n_pools)]


def _in_turns(parts: list[IntArray]) -> IntArray:
    """One array in which the parts take turns."""
    if len(parts) == 1:
        return parts[0]
    joined = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), dtype=parts[0].dtype)
    for place, part in enumerate(parts):
        joined[place :: len(parts)] = part
    return joined


def _table(
    pools: list[Pool], pairs: list[IntArray], judged: list[IntArray], rated: list[IntArray], answered: BoolArray
) -> tuple[Segments, FloatArray, FloatArray, tuple[list[IntArray], list[IntArray], list[IntArray]]]:
    """The table of segments, in which one that is asked about twice stands once, and rows in place of numbers.

    Returns:
        The segments, their returns and costs, and for each pool the rows of its pairs, judged and rated segments.
    """
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("episode", "start", "length", "returns", "costs")}
    pair_rows: list[IntArray] = []
    judged_rows: list[IntArray] = []
    rated_rows: list[IntArray] = []
    n_before = 0
    for place, (pool, drawn, seen, numbers_rated) in enumerate(zip(pools, pairs, judged, rated, strict=True)):
        asked_about = np.zeros(pool.candidates.n_segments, dtype=bool)
        for first in range(0, len(drawn), MAX_ANSWERS):
            chunk = slice(first, first + MAX_ANSWERS)
            kept = answered[place :: len(pools)][chunk]
            asked_about[drawn[chunk] if kept.all() else drawn[chunk][kept]] = True
        asked_about[seen] = True
        asked_about[numbers_rated] = True
        numbers = np.flatnonzero(asked_about)
        row_of = np.zeros(len(asked_about), dtype=np.int32)
        row_of[numbers] = np.arange(n_before, n_before + len(numbers), dtype=np.int32)
        rows: IntArray = drawn if drawn.dtype == np.int32 else np.empty(drawn.shape, np.int32)
        for first in range(0, len(drawn), MAX_ANSWERS):  # in place: ten million pairs are 80 MB
            rows[first : first + MAX_ANSWERS] = row_of[drawn[first : first + MAX_ANSWERS]]
        pair_rows.append(rows)
        judged_rows.append(row_of[seen])
        rated_rows.append(row_of[numbers_rated])
        n_before += len(numbers)
        # Numbers ascend, so it is enough to look where each episode begins.
        n_of_episode = np.diff(np.searchsorted(numbers, pool.candidates.offsets))
        columns["episode"].append(np.repeat(np.arange(len(n_of_episode), dtype=np.int32), n_of_episode))
        first_of_episode = np.repeat(pool.candidates.offsets[:-1], n_of_episode)
        columns["start"].append((numbers - first_of_episode).astype(np.int32))
        columns["length"].append(np.full(len(numbers), pool.length, dtype=np.int32))
        columns["returns"].append(pool.returns[numbers])
        columns["costs"].append(pool.costs[numbers])
    # One length is the rule: its columns are not copied.
    whole = {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in columns.items()}
    segments = Segments(episode=whole["episode"], start=whole["start"], length=whole["length"])
    return segments, whole["returns"], whole["costs"], (pair_rows, judged_rows, rated_rows)


def _share_statistics(
    config: LabelConfig, pools: list[Pool], pairs: list[IntArray], judged: list[IntArray]
) -> dict[str, Any]:
    """What was drawn: shares of unsafe segments and of starts of episodes."""

    def share(expected: float | None, holds: Callable[[Pool], BoolArray], numbers: list[IntArray]):
        counts = [_count_in(holds(pool), drawn) for pool, drawn in zip(pools, numbers, strict=True)]
        return rate(expected, sum(counts), sum(drawn.size for drawn in numbers))

    statistics = {}
    for suffix, numbers in (("", judged), (" of pairs", pairs)):
        if not np.isnan(pools[0].costs[0]):
            statistics[f"unsafe_share{suffix}"] = share(config.unsafe_share, attrgetter("unsafe"), numbers)
        if config.start_share is not None:
            statistics[f"start_share{suffix}"] = share(config.start_share, at_start, numbers)
    return statistics


def _count_in(holds: BoolArray, numbers: IntArray) -> int:
    return sum(
        int(np.count_nonzero(holds[numbers[first : first + MAX_ANSWERS]]))
        for first in range(0, len(numbers), MAX_ANSWERS)
    )


def _parameters(annotator: Annotator, judges: list[Judge]) -> dict[str, Any]:
    """Everything about an annotator as used, for each segment length."""
    return {
        **{name: _json(value) for name, value in asdict(annotator.teacher).items()},
        "share": annotator.share,
        "beta": _one_or_list([_json(found.beta) for found in judges]),
        "beta_unit": "deviation",
        "scale": _one_or_list([found.scale for found in judges]),
        "skip_threshold": _one_or_list([found.skip_threshold for found in judges]),
        "equal_threshold": _one_or_list([found.equal_threshold for found in judges]),
    }


def _one_or_list(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _without_safety(config: LabelConfig, dataset: str) -> LabelConfig:
    """Preferences alone, for a dataset that tells no costs."""
    if config.n_safety or config.unsafe_share is not None:
        raise DataError(
            f"safety labels: {dataset} was imported without costs; leave --safety-labels and --unsafe-share out "
            "to ask for preferences alone"
        )
    for kind in config.kinds:
        if kind not in ("preferences", "safety", "ratings"):
            raise DataError(f"--feedback {kind}: {dataset} was imported without costs; ask for preferences or ratings")
    kinds = tuple(kind for kind in config.kinds if kind != "safety")
    if not kinds:
        raise DataError(f"--feedback safety: {dataset} was imported without costs; ask for preferences or ratings")
    return replace(config, n_safety=None, kinds=kinds)


def _require_both_classes(pool: Pool, numbers: IntArray | slice, which: str, options: str) -> None:
    unsafe = pool.unsafe[numbers]
    n_unsafe = np.count_nonzero(unsafe)
    if n_unsafe in (0, len(unsafe)):
        costs = pool.costs[numbers]
        raise DataError(
            f"safety labels: {n_unsafe} of {len(costs)} {which} are unsafe (costs {costs.min():g} to {costs.max():g}, "
            f"bound {pool.bound:g}); use {options}, or collect another mixture of policies"
        )


def _json(value: Any) -> Any:
    """JSON has no infinity, and no tuples."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, tuple):
        return [_json(entry) for entry in value]
    if isinstance(value, int | np.integer):
        return int(value)
    return "inf" if math.isinf(value) else float(value)
