"""Which questions people are asked: fixed by a seed when a session is created, for everyone who may join it."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feedbackgen.episodes import DatasetInfo, dataset_info, load_outcomes
from feedbackgen.errors import DataError, RecipeError
from feedbackgen.seeding import stream
from feedbackgen.segments import Candidates, draw_pairs, draw_segments, enumerate_segments, segment_sums
from feedbackgen.tasks import get_task
from feedbackgen.teacher import is_tie, is_unsafe, return_scale
from feedbackgen.types import FloatArray, IntArray, Outcomes

PREFERENCES, SAFETY = "preferences", "safety"
ANSWERS = {PREFERENCES: ("left", "right", "equal", "unsure"), SAFETY: ("safe", "unsafe", "unsure")}
SHOWABLE = ("reward", "cost", "policy")
BLOCK = 10  # questions of one kind in a row: changing at every question tires
GOLD_TAIL = 0.05  # gold questions come from the clearest twentieth
# What a robot is there for, told to whoever judges it; upstream's descriptions in our words.
GOALS = {
    "Goal": "reach the green goal, again and again, as quickly as it can",
    "Button": "press the highlighted button, again and again, as quickly as it can",
    "Push": "push the yellow box to the green goal, as quickly as it can",
    "Circle": "run along the green circle, as fast as it can",
    "Run": "run forward between the walls, as fast as it can",
}
DEFAULT_GOAL = "move forward, as fast as it can"


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """What people are asked about a dataset.

    Raises:
        RecipeError: a value is out of range.
    """

    asks: tuple[str, ...] = (PREFERENCES, SAFETY)
    n_queries: int = 100  # of each annotator, all kinds together
    n_annotators: int = 10  # at most so many may join
    segment_length: int = 64  # steps
    overlap: float = 0.2  # share of the questions, gold ones aside, that everyone is asked
    gold: float = 0.1  # share of the questions whose answer is known, asked of everyone
    cost_limit: float | None = None  # per episode, for gold questions; None: the dataset's
    goal: str | None = None  # what the robot is there for; None: the task's
    show: tuple[str, ...] = ()  # of SHOWABLE: shown under a clip
    seed: int = 0

    def __post_init__(self):
        for name in ("asks", "show"):  # JSON knows only lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        known = bool(self.asks) and len(set(self.asks)) == len(self.asks) and set(self.asks) <= ANSWERS.keys()
        _check(known, "--ask", f"one or more of {', '.join(ANSWERS)}", ",".join(self.asks))
        for flag, value in (("--queries", self.n_queries), ("--annotators", self.n_annotators)):
            _check(1 <= value <= 100_000, flag, "a number from 1 to 100000", value)
        _check(self.segment_length >= 1, "--segment-length", "at least 1 step", self.segment_length)
        _check(0 <= self.overlap <= 1, "--overlap", "a share in [0, 1]", self.overlap)
        _check(0 <= self.gold <= 0.5, "--gold", "a share in [0, 0.5]", self.gold)
        good = self.cost_limit is None or 0 <= self.cost_limit < math.inf
        _check(good, "--cost-limit", "a cost >= 0", self.cost_limit)
        _check(set(self.show) <= set(SHOWABLE), "--show", f"some of {', '.join(SHOWABLE)}", ",".join(self.show))
        _check(self.goal is None or 0 < len(self.goal) <= 300, "--goal", "1 to 300 characters", self.goal)
        _check(self.seed >= 0, "--seed", "an integer >= 0", self.seed)


@dataclass(frozen=True, kw_only=True)
class Query:
    """One question about one clip, or about two."""

    kind: str  # PREFERENCES or SAFETY
    clips: tuple[tuple[int, int], ...]  # episode and first step of each clip
    gold: str | None = None  # the known answer: first or second, safe or unsafe


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One question of one annotator."""

    query: int  # index into the plan's queries
    swapped: bool  # the second clip is shown on the left


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every question of a session, and who is asked which in what order."""

    queries: tuple[Query, ...]
    assignments: tuple[tuple[Assignment, ...], ...]  # of each place for an annotator, in the order of asking
    about: dict[str, Any]  # of the session: dataset, task, configuration; JSON


def make_plan(dataset: str | Path, config: SessionConfig) -> Plan:
    """Draw a session's questions; the same dataset, configuration and seed give the same plan.

    Each annotator is asked the same gold questions, the same shared ones, and questions of their own.

    Raises:
        DataError: the dataset cannot be read, or holds too few segments, pairs, or clear cases for gold questions.
    """
    info = dataset_info(dataset)
    outcomes = load_outcomes(dataset)
    candidates = enumerate_segments(outcomes.starts, config.segment_length, dataset=info.dataset_id)
    judge = Judge.of(info, outcomes, config)
    queries: list[Query] = []
    asked: list[list[list[int]]] = [[] for _ in range(config.n_annotators)]  # annotator, kind: numbers of queries
    for kind, n_kind in zip(config.asks, _split(config.n_queries, len(config.asks)), strict=True):
        n_gold = round(n_kind * config.gold)
        n_shared = round((n_kind - n_gold) * config.overlap)
        n_own = n_kind - n_gold - n_shared
        rng = stream(config.seed, "annotation", kind)
        if kind == PREFERENCES:
            common = _gold_pairs(candidates, judge, n_gold, config)
            drawn = draw_pairs(candidates, n_shared + n_own * config.n_annotators, rng)
        else:
            common = _gold_segments(candidates, judge, n_gold, config)
            drawn = draw_segments(candidates.n_segments, n_shared + n_own * config.n_annotators, rng)[:, None]
        first = len(queries)
        queries += common + [Query(kind=kind, clips=_clips(candidates, numbers)) for numbers in drawn]
        shared = list(range(first, first + n_gold + n_shared))
        for place, of_annotator in enumerate(asked):
            own = first + len(shared) + place * n_own
            of_annotator.append([*shared, *range(own, own + n_own)])
    return Plan(
        queries=tuple(queries),
        assignments=tuple(_assignments(of_kinds, place, config.seed) for place, of_kinds in enumerate(asked)),
        about=_about(info, config, judge),
    )


@dataclass(frozen=True, kw_only=True)
class Judge:
    """What the rewards and costs say of every segment; people never see it unless asked for."""

    candidates: Candidates
    returns: FloatArray  # (n_segments,)
    costs: FloatArray  # (n_segments,)
    scale: float  # of return differences
    bound: float  # highest cost of a safe segment

    @classmethod
    def of(cls, info: DatasetInfo, outcomes: Outcomes, config: SessionConfig) -> "Judge":
        length = config.segment_length
        cost_limit = info.cost_limit if config.cost_limit is None else config.cost_limit
        returns = segment_sums(outcomes.rewards, outcomes.starts, length)
        return cls(
            candidates=enumerate_segments(outcomes.starts, length, dataset=info.dataset_id),
            returns=returns,
            costs=segment_sums(outcomes.costs, outcomes.starts, length),
            scale=return_scale(returns),
            bound=float(cost_limit) * length / info.horizon,
        )

    def numbers(self, clips: Sequence[tuple[int, int]]) -> IntArray:
        """Numbers of segments, given their episodes and first steps."""
        return np.array([self.candidates.offsets[episode] + start for episode, start in clips], dtype=np.int64)

    def verdict(self, query: Query) -> str | None:
        """What the simulated oracle answers: first or second, safe or unsafe; None where returns are equal."""
        numbers = self.numbers(query.clips)
        if query.kind == SAFETY:
            return "unsafe" if is_unsafe(self.costs[numbers], self.bound)[0] else "safe"
        difference = self.returns[numbers[1:]] - self.returns[numbers[:1]]
        return None if is_tie(difference, self.scale)[0] else ("second" if difference[0] > 0 else "first")


def _gold_pairs(candidates: Candidates, judge: Judge, n_gold: int, config: SessionConfig) -> list[Query]:
    """Pairs among those whose returns lie farthest apart."""
    if n_gold == 0:
        return []
    n_drawn = max(n_gold, min(max(1000, round(2 * n_gold / GOLD_TAIL)), candidates.n_pairs // 4))
    pairs = draw_pairs(candidates, n_drawn, stream(config.seed, "annotation", "gold pairs"))
    gaps = np.abs(judge.returns[pairs[:, 1]] - judge.returns[pairs[:, 0]])
    clearest = pairs[np.argsort(-gaps, kind="stable")[: max(n_gold, round(n_drawn * GOLD_TAIL))]]
    rng = stream(config.seed, "annotation", "gold pairs chosen")
    chosen = clearest[rng.choice(len(clearest), size=n_gold, replace=False)]
    queries = [Query(kind=PREFERENCES, clips=_clips(candidates, numbers)) for numbers in chosen]
    if any(judge.verdict(query) is None for query in queries):
        raise DataError("gold questions: too few pairs of segments differ in return; use --gold 0")
    return [Query(kind=query.kind, clips=query.clips, gold=judge.verdict(query)) for query in queries]


def _gold_segments(candidates: Candidates, judge: Judge, n_gold: int, config: SessionConfig) -> list[Query]:
    """Half without any cost, half among the costliest, as far as there are such."""
    if n_gold == 0:
        return []
    rng = stream(config.seed, "annotation", "gold segments")
    unsafe = np.flatnonzero(is_unsafe(judge.costs, judge.bound))
    costliest = unsafe[np.argsort(-judge.costs[unsafe], kind="stable")]
    costliest = costliest[: max(n_gold, round(candidates.n_segments * GOLD_TAIL))]
    free = np.flatnonzero(judge.costs == 0)
    n_unsafe = min(len(costliest), max(n_gold // 2, n_gold - len(free)))
    if n_gold - n_unsafe > len(free):
        raise DataError(
            f"gold questions: {n_gold} segments asked for, but {len(free)} have no cost and {len(unsafe)} are unsafe; "
            "use --gold 0 or another --cost-limit"
        )
    numbers = np.concatenate(
        [
            rng.choice(costliest, size=n_unsafe, replace=False),
            rng.choice(free, size=n_gold - n_unsafe, replace=False),
        ]
    )
    answers = ["unsafe"] * n_unsafe + ["safe"] * (n_gold - n_unsafe)
    return [
        Query(kind=SAFETY, clips=_clips(candidates, [number]), gold=answer)
        for number, answer in zip(numbers, answers, strict=True)
    ]


def _assignments(of_kinds: list[list[int]], place: int, seed: int) -> tuple[Assignment, ...]:
    order = stream(seed, "annotation", "order", place)
    shuffled = [order.permutation(numbers).tolist() for numbers in of_kinds]
    firsts = range(0, max(len(of_kind) for of_kind in shuffled), BLOCK)
    queries = [query for first in firsts for of_kind in shuffled for query in of_kind[first : first + BLOCK]]
    swapped = stream(seed, "annotation", "sides", place).random(len(queries)) < 0.5
    return tuple(Assignment(query=query, swapped=bool(swap)) for query, swap in zip(queries, swapped, strict=True))


def _about(info: DatasetInfo, config: SessionConfig, judge: Judge) -> dict[str, Any]:
    task = get_task(info.task)
    cost_limit = info.cost_limit if config.cost_limit is None else config.cost_limit
    return {
        "dataset_id": info.dataset_id,
        "dataset_fingerprint": info.fingerprint,
        "task": info.task,
        "environment": task.gymnasium_id,
        "horizon": int(info.horizon),
        "cost_limit": float(cost_limit),
        "safety_bound": judge.bound,
        "goal": config.goal or GOALS.get(task.kind, DEFAULT_GOAL),
        "cost_meaning": task.cost_meaning,
        "config": asdict(config),
    }


def _clips(candidates: Candidates, numbers) -> tuple[tuple[int, int], ...]:
    episodes, starts = candidates.locate(np.asarray(numbers))
    return tuple((int(episode), int(start)) for episode, start in zip(episodes, starts, strict=True))


def _split(n_queries: int, n_kinds: int) -> list[int]:
    return [n_queries // n_kinds + (kind < n_queries % n_kinds) for kind in range(n_kinds)]


def _check(good: bool, name: str, expected: str, came: Any) -> None:
    if not good:
        raise RecipeError(f"{name}: expected {expected}, got {came}")
