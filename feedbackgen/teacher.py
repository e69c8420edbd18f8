"""The simulated teacher: returns to preferences, costs to safety labels. Pure numpy.

Per pair, in B-Pref's order (Lee et al., 2021): tie, Bradley-Terry draw, flip. Here returns are first divided by a scale, so
that a rationality means the same on every task. Each label has its own stream: what one channel draws leaves the other's.
"""

from dataclasses import dataclass

import numpy as np

from feedbackgen.errors import RecipeError
from feedbackgen.seeding import stream
from feedbackgen.types import BoolArray, FloatArray, IntArray

SAFE, UNSAFE = 1, -1
# Error of the default teacher without flips: about one in twenty on differences that follow a normal law.
DEFAULT_BETA = 6.0
MAX_BETA = 1e6


@dataclass(frozen=True)
class PreferenceLabels:
    """What the teacher said of each pair, and what it would have said without the flip."""

    label: FloatArray  # (P,) float32: 1 second preferred, 0 first, 0.5 equal
    probability: FloatArray  # (P,) float32: of preferring the second, before the flip
    clean: FloatArray  # (P,) float32: label before the flip
    flipped: BoolArray  # (P,)


@dataclass(frozen=True)
class SafetyLabels:
    """What the teacher said of each segment, and what it would have said without the flip."""

    label: IntArray  # (M,) int8: SAFE or UNSAFE
    clean: IntArray  # (M,) int8
    flipped: BoolArray  # (M,)


def label_preferences(
    returns: FloatArray, *, beta: float, scale: float, noise: float, seed: int
) -> PreferenceLabels:
    """Bradley-Terry preferences, then flips.

    Args:
        returns: undiscounted segment returns of the first and second of each pair, (P, 2).
        beta: rationality per ``scale``; infinite prefers the higher return always.
        scale: of return differences, > 0, in units of return.
        noise: probability of flipping a label after the draw; a tie has nothing to flip.
        seed: of the teacher's streams.

    Source: B-Pref (arXiv 2111.03026), section 3. We differ by the scale, and by keeping what was flipped.
    """
    difference = returns[:, 1] - returns[:, 0]
    probability = preference_probability(difference, beta=beta, scale=scale)
    clean = np.where(stream(seed, "preference", "draw").random(len(difference)) < probability, 1.0, 0.0)
    equal = difference == 0.0
    clean[equal] = 0.5
    flipped = (stream(seed, "preference", "flip").random(len(difference)) < noise) & ~equal
    label = np.where(flipped, 1.0 - clean, clean)
    return PreferenceLabels(np.float32(label), np.float32(probability), np.float32(clean), flipped)


def preference_probability(difference: FloatArray, *, beta: float, scale: float) -> FloatArray:
    """``sigmoid(beta * difference / scale)``: probability that the second is preferred, (P,)."""
    if np.isinf(beta):
        return (np.sign(difference) + 1.0) / 2.0
    return 0.5 * (1.0 + np.tanh(0.5 * beta * difference / scale))


def expected_error(difference: FloatArray, *, beta: float, scale: float) -> float:
    """Expected share of pairs, ties apart, in which the Bradley-Terry draw prefers the lower return."""
    untied = difference[difference != 0.0]
    if len(untied) == 0:
        return 0.0
    return float(np.mean(preference_probability(-np.abs(untied), beta=beta, scale=scale)))


def solve_beta(difference: FloatArray, *, error_rate: float, scale: float) -> float:
    """The rationality whose expected error on these differences is the rate asked for.

    Raises:
        RecipeError: the rate is not in (0, 0.5).
    """
    if not 0.0 < error_rate < 0.5:
        raise RecipeError(f"error rate: expected a rate in (0, 0.5), got {error_rate}; for none use --beta inf")
    low, high = 0.0, 1.0
    while expected_error(difference, beta=high, scale=scale) > error_rate and high < MAX_BETA:
        high *= 2.0
    for _ in range(60):
        middle = (low + high) / 2.0
        too_many = expected_error(difference, beta=middle, scale=scale) > error_rate
        low, high = (middle, high) if too_many else (low, middle)
    return (low + high) / 2.0


def label_safety(cost_returns: FloatArray, *, bound: float, noise: float, seed: int) -> SafetyLabels:
    """Safe when the segment's cost is at most the bound, then flips.

    Args:
        cost_returns: undiscounted, (M,), in cost per segment.
        bound: cost per segment; ties are safe.
        noise: probability of flipping a label.
        seed: of the teacher's streams.

    Source: PreSa (arXiv 2512.20173), public reviews: a safety bound scaled by segment length. Ties are our choice.
    """
    # Costs are sums of floats: a bound reached exactly must not be missed by rounding.
    safe = cost_returns <= bound + 1e-9 * max(1.0, abs(bound))
    clean = np.where(safe, SAFE, UNSAFE).astype(np.int8)
    flipped = stream(seed, "safety", "flip").random(len(clean)) < noise
    return SafetyLabels(np.where(flipped, -clean, clean).astype(np.int8), clean, flipped)


def segment_bound(cost_limit: float, segment_length: int, horizon: int) -> float:
    """An episode's cost limit, scaled to a segment: ``cost_limit * H / T_max``."""
    return cost_limit * segment_length / horizon
