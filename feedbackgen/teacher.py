"""The simulated teacher: segment returns to preferences, segment costs to safety labels.

Labels follow B-Pref's order of operations: Bradley-Terry probability, draw, flip. A preference is P(second preferred):
1 for the second segment, 0 for the first, 0.5 when both have the same return. A safety label is +1 safe, -1 unsafe.

Source: B-Pref (Lee et al. 2021), ``get_label``. We differ: returns are scaled, and an exact tie is always 0.5.
"""

import numpy as np

from feedbackgen.errors import DataError
from feedbackgen.types import BoolArray, FloatArray, IntArray

SAFE, UNSAFE = 1, -1
# Returns that follow a normal law: the lower one is then preferred in 5.5 % of the pairs.
DEFAULT_BETA = 10.0
# Cumulative sums round: returns closer than this share of the scale, and costs this close to the bound, are equal.
TOLERANCE = 1e-9
N_BISECTIONS = 80


def return_scale(segment_returns: FloatArray) -> float:
    """Standard deviation of the return difference of two segments drawn independently: exact, sqrt(2) times their own.

    Args:
        segment_returns: of every segment of the dataset, (n_segments,).

    Raises:
        DataError: all returns are equal.
    """
    scale = float(np.sqrt(2) * segment_returns.std())
    if scale <= TOLERANCE * max(1.0, float(np.abs(segment_returns).max())):
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


def prefer(differences: FloatArray, *, beta: float, scale: float, rng: np.random.Generator) -> FloatArray:
    """Draw the teacher's answers.

    One number is drawn per pair, and it says whether the teacher errs: swapping a pair swaps its label, and a higher
    beta only takes errors away.

    Returns:
        P(second preferred) as answered: 0, 0.5 or 1, float32, (n_pairs,).
    """
    errs = rng.random(len(differences)) < error_probabilities(differences, beta=beta, scale=scale)
    labels = ((differences > 0) ^ errs).astype(np.float32)
    labels[is_tie(differences, scale)] = 0.5
    return labels


def flip_preferences(labels: FloatArray, probability: float, rng: np.random.Generator) -> tuple[FloatArray, BoolArray]:
    """Flip each preference with a probability; a tie stays a tie and does not count as flipped.

    Returns:
        The labels, and which were flipped, (n_pairs,).
    """
    flipped = (rng.random(len(labels)) < probability) & (labels != 0.5)
    return np.where(flipped, 1 - labels, labels).astype(labels.dtype), flipped


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


def flip_safety(labels: IntArray, probability: float, rng: np.random.Generator) -> tuple[IntArray, BoolArray]:
    """Flip each safety label with a probability; also returns which were flipped, (n_labels,)."""
    flipped = rng.random(len(labels)) < probability
    return np.where(flipped, -labels, labels).astype(labels.dtype), flipped


def expected_error(differences: FloatArray, *, beta: float, scale: float) -> float:
    """Mean probability that the lower return is preferred, over the pairs that are no tie; 0 when all are."""
    decided = differences[~is_tie(differences, scale)]
    return float(error_probabilities(decided, beta=beta, scale=scale).mean()) if len(decided) else 0.0


def solve_beta(differences: FloatArray, error_rate: float, *, scale: float) -> float:
    """The beta at which the expected error over these pairs is ``error_rate``, in (0, 0.5); 0 gives inf."""
    if error_rate == 0:
        return float("inf")
    low, high = np.log(1e-12), np.log(1e12)  # the error falls from 0.5 to 0 as beta grows
    for _ in range(N_BISECTIONS):
        middle = (low + high) / 2
        too_many = expected_error(differences, beta=float(np.exp(middle)), scale=scale) > error_rate
        low, high = (middle, high) if too_many else (low, middle)
    return float(np.exp((low + high) / 2))
