"""The simulated teacher: segment returns to preferences, segment costs to safety labels.

A preference comes about in B-Pref's order: skip, equal band, myopic discount, Bradley-Terry probability, draw,
mistake. It is P(second preferred): 1 for the second segment, 0 for the first, 0.5 when both are equal. A safety label
is +1 safe, -1 unsafe.

Source: B-Pref (Lee et al. 2021), ``get_label``. We differ: returns are scaled, and an exact tie is 0.5, unless the
teacher is one of those that do as code elsewhere does.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from feedbackgen.errors import DataError, RecipeError
from feedbackgen.types import BoolArray, FloatArray, IntArray

SAFE, UNSAFE = 1, -1
# Returns that follow a normal law: the lower one is then preferred in 5.5 % of the pairs.
DEFAULT_BETA = 10.0
# Sums round: returns closer than this share of the scale, and costs this close to the bound, are equal.
AT_ONCE = 32_768  # segments looked at: as many as stay in a processor's cache
TOLERANCE = 1e-9
N_BISECTIONS = 80
BETAS = np.geomspace(1e-12, 1e12, 97)  # where a solution for beta is looked for first
BETA_UNITS = ("deviation", "reward")
DISCOUNT_FROM = ("end", "start")


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """How one simulated person judges.

    Raises:
        RecipeError: a value is out of range.
    """

    beta: float = DEFAULT_BETA  # rationality, in 1 / beta_unit; inf always prefers the higher return
    beta_unit: str = "deviation"  # of the return differences of the dataset, see `return_scale`; or raw "reward"
    error_rate: float | None = None  # instead of beta: solve for the one with this expected error before mistakes
    discount: float = 1.0  # per step, in (0, 1]: a myopic teacher's below 1
    discount_from: str = "end"  # where a step counts in full: the "end" of the segment (B-Pref) or its "start"
    skip: float = 0.0  # no answer where both returns are below this share of the mean episode's (B-Pref)
    equal: float = 0.0  # 0.5 where returns differ by less than this share of the mean episode's (B-Pref)
    squares_thresholds: bool = False  # B-Pref's code multiplies by skip and equal twice, but for its first queries
    decides_ties: bool = False  # equal returns: a coin, or the first segment if beta is inf; otherwise 0.5
    noise: float = 0.0  # probability of a mistake, which flips the preference
    noise_margin: float = math.inf  # in deviations: mistakes fall to 1 / e where returns differ by so much
    drift: float = 0.0  # what tiring adds to the probability of a mistake, on both channels, from first query to last
    miss_rate: float = 0.0  # probability of calling an unsafe segment safe
    false_alarm_rate: float = 0.0  # probability of calling a safe segment unsafe

    def __post_init__(self):
        check(self.beta > 0, "--beta", "a number above 0, or inf", self.beta)
        check(self.beta_unit in BETA_UNITS, "--beta-unit", " or ".join(BETA_UNITS), self.beta_unit)
        good = self.error_rate is None or 0 <= self.error_rate < 0.5
        check(good, "--error-rate", "a rate in [0, 0.5)", self.error_rate)
        check(0 < self.discount <= 1, "--discount", "a number in (0, 1]", self.discount)
        check(self.discount_from in DISCOUNT_FROM, "--discount-from", " or ".join(DISCOUNT_FROM), self.discount_from)
        for name in ("skip", "equal"):
            value = getattr(self, name)
            check(0 <= value < math.inf, f"--{name}", "a share >= 0 of the mean episode's return", value)
        check_noise(self.noise, "--noise")
        check(self.noise_margin > 0, "--noise-margin", "a number of deviations above 0, or inf", self.noise_margin)
        check(0 <= self.drift <= 0.5, "--drift", "a probability in [0, 0.5]", self.drift)
        for name in ("miss_rate", "false_alarm_rate"):
            value = getattr(self, name)
            check(0 <= value <= 1, flag(name), "a probability in [0, 1]", value)
        total = self.noise + self.drift
        check(total <= 0.5 + TOLERANCE, "--noise and --drift", "a sum of at most 0.5", f"{total:g}")
        total = self.miss_rate + self.false_alarm_rate + 2 * self.drift
        good = total <= 1 + TOLERANCE
        check(good, "--miss-rate, --false-alarm-rate and twice --drift", "a sum of at most 1", f"{total:g}")


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A teacher before one dataset, for segments of one length: everything in the dataset's own units."""

    teacher: Teacher
    values: FloatArray  # (n_segments,), the returns as the teacher sees them
    scale: float  # standard deviation of differences of values
    beta: float  # per scale
    skip_threshold: float  # in reward; at most 0: none is skipped
    equal_threshold: float  # in reward


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a teacher said about pairs, and what was to be expected."""

    answered: BoolArray  # (n_pairs,), not skipped
    probability: FloatArray  # (n_pairs,), of preferring the second
    clean: FloatArray  # (n_pairs,), float32, before mistakes
    flipped: BoolArray  # (n_pairs,)
    label: FloatArray  # (n_pairs,), float32
    noise: FloatArray  # (n_pairs,), probability of a mistake
    tied: BoolArray  # (n_pairs,), answered 0.5


def judge(
    teacher: Teacher,
    *,
    values: FloatArray,
    mean_return: float,
    scale: float | None = None,
    calibration: tuple[FloatArray, IntArray] | None = None,
) -> Judge:
    """Put a teacher before a dataset: thresholds in reward, and beta solved for where an error rate is asked for.

    Args:
        teacher: how they judge.
        values: of every segment, discounted as the teacher does, (n_segments,).
        mean_return: of an episode, per segment: times segment length, divided by the task's horizon.
        scale: `return_scale` of the values; None: to be computed.
        calibration: undiscounted returns of every segment, (n_segments,), and pairs to solve on, (n_pairs, 2); needed
            for an error rate.

    Raises:
        DataError: all values are equal, the mean return makes a threshold useless, or no beta errs so rarely.
    """
    scale = return_scale(values) if scale is None else scale
    thresholds = {}
    for name in ("skip", "equal"):
        share = getattr(teacher, name)
        if share > 0 and mean_return <= 0 and not teacher.squares_thresholds:
            raise DataError(
                f"--{name} {share:g}: a share of the mean episode's return, which is not above 0 here (per segment "
                f"{mean_return:g}), so it would do nothing; leave --{name} out"
            )
        thresholds[name] = (share**2 if teacher.squares_thresholds else share) * mean_return
    found = Judge(
        teacher=teacher,
        values=values,
        scale=scale,
        beta=teacher.beta * (scale if teacher.beta_unit == "reward" else 1.0),
        skip_threshold=thresholds["skip"],
        equal_threshold=thresholds["equal"],
    )
    if teacher.error_rate is None:
        return found
    assert calibration is not None
    returns, pairs = calibration
    seen = ~_skipped(found, returns[pairs]) & ~_in_equal_band(found, returns[pairs])
    beta = solve_beta(
        np.subtract(*returns[pairs[seen]].T[::-1]),
        teacher.error_rate,
        scale=scale,
        perceived=np.subtract(*values[pairs[seen]].T[::-1]),
    )
    return Judge(**{entry.name: getattr(found, entry.name) for entry in fields(found)} | {"beta": beta})


def answer(
    judge: Judge,
    returns: FloatArray,
    pairs: IntArray,
    *,
    draws: FloatArray,
    mistakes: FloatArray,
    tiredness: FloatArray | float = 0.0,
) -> Answers:
    """Ask about pairs. Swapping a pair swaps its answer; a lower error or noise only takes errors away.

    Args:
        judge: who is asked.
        returns: undiscounted, of every segment, (n_segments,).
        pairs: numbers of the first and second segment, (n_pairs, 2).
        draws: uniform in [0, 1), (n_pairs,): whether the teacher prefers the lower value.
        mistakes: uniform in [0, 1), (n_pairs,): whether the answer is flipped.
        tiredness: 0 at the teacher's first query, 1 at the last, (n_pairs,).
    """
    teacher, true = judge.teacher, returns[pairs]
    seen = true if judge.values is returns else judge.values[pairs]
    differences = seen[:, 1] - seen[:, 0]
    probability = preference_probabilities(differences, beta=judge.beta, scale=judge.scale)
    clean = _choose(differences, draws, beta=judge.beta, scale=judge.scale)
    tied = is_tie(differences, judge.scale)
    if teacher.decides_ties:
        if math.isinf(judge.beta):
            probability[tied] = 0.0
        clean[tied] = draws[tied] < probability[tied]
        tied = np.zeros(len(pairs), dtype=bool)
    tied |= _in_equal_band(judge, true)
    probability[tied] = clean[tied] = 0.5
    noise = np.full(len(pairs), teacher.noise)
    if teacher.noise and not math.isinf(teacher.noise_margin):
        noise *= np.exp(-np.abs(differences) / (judge.scale * teacher.noise_margin))
    noise += teacher.drift * tiredness
    flipped = (mistakes < noise) & ~tied
    return Answers(
        answered=~_skipped(judge, true),
        probability=probability,
        clean=clean,
        flipped=flipped,
        label=np.where(flipped, 1 - clean, clean),
        noise=noise,
        tied=tied,
    )


def return_scale(segment_returns: FloatArray) -> float:
    """Standard deviation of the return difference of two segments drawn independently: exact, sqrt(2) times their own.

    Args:
        segment_returns: of every segment of the dataset, (n_segments,).

    Raises:
        DataError: all returns are equal.
    """
    mean, squares = segment_returns.mean(), 0.0
    for first in range(0, len(segment_returns), AT_ONCE):
        deviations = segment_returns[first : first + AT_ONCE] - mean
        squares += float(deviations @ deviations)
    scale = math.sqrt(2 * squares / len(segment_returns))
    if scale <= TOLERANCE * max(1.0, float(segment_returns.max()), -float(segment_returns.min())):
        raise DataError(
            f"returns: all {len(segment_returns)} segments have return {segment_returns[0]:g}, so none is preferred; "
            "collect another mixture of policies, or use another --segment-length"
        )
    return scale


def preference_probabilities(differences: FloatArray, *, beta: float, scale: float) -> FloatArray:
    """Bradley-Terry: P(second preferred) = sigmoid(beta * difference / scale), and 0.5 for a tie.

    Args:
        differences: return of the second segment minus return of the first, (n_pairs,).
        beta: rationality, > 0, in units of 1 / scale; inf always prefers the higher return.
        scale: unit of the differences, see `return_scale`.
    """
    errors = error_probabilities(differences, beta=beta, scale=scale)
    return np.where(differences > 0, 1 - errors, errors)


def error_probabilities(differences: FloatArray, *, beta: float, scale: float) -> FloatArray:
    """The probability that the lower return is preferred, (n_pairs,); 0.5 for a tie."""
    tied = is_tie(differences, scale)
    margins = np.abs(np.where(tied, scale, differences)) / scale
    with np.errstate(over="ignore"):  # beyond the largest float there is no doubt left
        odds = np.exp(-beta * margins)
    return np.where(tied, 0.5, odds / (1 + odds))


def is_tie(differences: FloatArray, scale: float) -> BoolArray:
    return np.abs(differences) <= TOLERANCE * scale


def is_unsafe(costs: FloatArray, bound: float) -> BoolArray:
    """Where a segment's cost exceeds the bound; a cost equal to the bound is safe."""
    return costs > bound + TOLERANCE * max(1.0, abs(bound))


def judge_safety(costs: FloatArray, bound: float) -> IntArray:
    """Label segments +1 safe or -1 unsafe.

    Args:
        costs: undiscounted cost of each segment, (n_labels,).
        bound: the highest cost that is still safe, in cost per segment.

    Returns:
        int8, (n_labels,).

    Source: PreSa's safety feedback, with the bound scaled by segment length. Costs are often counts, so ties matter.
    """
    return np.where(is_unsafe(costs, bound), UNSAFE, SAFE).astype(np.int8)


def safety_noise(teacher: Teacher, labels: IntArray, tiredness: FloatArray | float = 0.0) -> FloatArray:
    """Probability of saying the opposite of each clean label, (n_labels,); ``tiredness`` as in `answer`."""
    rates = np.where(labels == UNSAFE, teacher.miss_rate, teacher.false_alarm_rate)
    return np.minimum(rates + teacher.drift * tiredness, 1.0)


def flip_safety(
    labels: IntArray, probability: FloatArray | float, rng: np.random.Generator
) -> tuple[IntArray, BoolArray]:
    """Flip each safety label with its probability; also returns which were flipped, (n_labels,)."""
    flipped = rng.random(len(labels)) < probability
    return np.where(flipped, -labels, labels).astype(labels.dtype), flipped


def expected_error(differences: FloatArray, *, beta: float, scale: float, perceived: FloatArray | None = None) -> float:
    """Mean probability that the lower return is preferred, over the pairs that are no tie; 0 when all are.

    Args:
        differences: undiscounted return of the second minus that of the first, (n_pairs,).
        beta: as in `preference_probabilities`.
        scale: unit of the differences that the teacher perceives.
        perceived: the differences as the teacher sees them, (n_pairs,); None: as they are.
    """
    margins = _signed_margins(differences, scale, differences if perceived is None else perceived)
    return _mean_error(margins, beta) if len(margins) else 0.0


def solve_beta(
    differences: FloatArray, error_rate: float, *, scale: float, perceived: FloatArray | None = None
) -> float:
    """The lowest beta at which the expected error over these pairs is ``error_rate``, in (0, 0.5); 0 gives inf.

    Args:
        differences: as in `expected_error`, like ``scale`` and ``perceived``.
        error_rate: in [0, 0.5).

    Raises:
        DataError: a teacher who sees something else than the return errs more often at every beta.
    """

    margins = _signed_margins(differences, scale, differences if perceived is None else perceived)
    if len(margins) == 0 or (error_rate == 0 and margins.min() > 0):
        return math.inf

    def error(beta: float) -> float:
        return _mean_error(margins, beta)

    # Without myopia the error falls from 0.5 to 0 as beta grows; with it, it may rise again.
    errors = np.array([error(float(beta)) for beta in BETAS])
    below = np.flatnonzero(errors <= error_rate)
    if len(below) == 0:
        raise DataError(
            f"--error-rate {error_rate:g}: a teacher with this --discount prefers the lower return in at least "
            f"{errors.min():.3g} of the pairs; use a higher --error-rate, or a --discount nearer to 1"
        )
    low, high = np.log(BETAS[max(below[0] - 1, 0)]), np.log(BETAS[below[0]])
    for _ in range(N_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if error(float(np.exp(middle))) > error_rate else (low, middle)
    return float(np.exp((low + high) / 2))


def check(good: Any, name: str, expected: str, came: Any) -> None:
    """Refuse a value in one line.

    Raises:
        RecipeError: it is not good.
    """
    if not good:
        raise RecipeError(f"{name}: expected {expected}, got {came}")


def check_noise(value: float, name: str) -> None:
    """Refuse what is no probability of a mistake.

    Raises:
        RecipeError: it is not in [0, 0.5].
    """
    above = 0.5 < value <= 1
    expected = "a probability in [0, 0.5]" + (" (above it labels would say the opposite)" if above else "")
    check(0 <= value <= 0.5, name, expected, value)


def flag(name: str) -> str:
    """The command line's name of a field."""
    return "--" + name.replace("_", "-")


def _signed_margins(differences: FloatArray, scale: float, perceived: FloatArray) -> FloatArray:
    """Perceived margins per scale of the pairs that are no tie, below 0 where the higher return is seen as lower."""
    decided = ~is_tie(differences, scale) & ~is_tie(perceived, scale)
    return np.where(differences[decided] > 0, perceived[decided], -perceived[decided]) / scale


def _mean_error(margins: FloatArray, beta: float) -> float:
    with np.errstate(over="ignore"):  # beyond the largest float there is no doubt left
        return float((1 / (1 + np.exp(beta * margins))).mean())


def _choose(differences: FloatArray, draws: FloatArray, *, beta: float, scale: float) -> FloatArray:
    errs = draws < error_probabilities(differences, beta=beta, scale=scale)
    labels = ((differences > 0) ^ errs).astype(np.float32)
    labels[is_tie(differences, scale)] = 0.5
    return labels


def _skipped(judge: Judge, returns: FloatArray) -> BoolArray:
    if judge.skip_threshold <= 0:
        return np.zeros(len(returns), dtype=bool)
    return returns.max(axis=1) <= judge.skip_threshold


def _in_equal_band(judge: Judge, returns: FloatArray) -> BoolArray:
    return np.abs(returns[:, 1] - returns[:, 0]) < judge.equal_threshold
