"""Draw segments and pairs of segments from a dataset, and sum what happened in them."""

import numpy as np

from feedbackgen.errors import DataError
from feedbackgen.types import FloatArray, IntArray


def draw_starts(starts: IntArray, segment_length: int, n_segments: int, rng: np.random.Generator) -> IntArray:
    """Draw segments uniformly over all places where one fits whole into an episode.

    Args:
        starts: first step of each episode and, last, the number of steps, (n_episodes + 1,).
        segment_length: steps.
        n_segments: how many, with replacement.

    Returns:
        First step of each segment in the flat dataset, (n_segments,), int64.

    Raises:
        DataError: no episode is long enough.
    """
    places = np.maximum(np.diff(starts) - segment_length + 1, 0)
    ends = np.cumsum(places)
    if ends[-1] == 0:
        longest = int(np.diff(starts).max())
        raise DataError(
            f"segment length {segment_length}: the longest episode has {longest} steps; use --segment-length {longest} or less"
        )
    drawn = rng.integers(ends[-1], size=n_segments)
    episode = np.searchsorted(ends, drawn, side="right")
    return starts[episode] + drawn - (ends[episode] - places[episode])


def draw_pairs(starts: IntArray, segment_length: int, n_pairs: int, rng: np.random.Generator) -> IntArray:
    """Draw distinct pairs of segments that do not overlap.

    Returns:
        First steps of the two segments of each pair, (n_pairs, 2), int64.

    Raises:
        DataError: no episode is long enough, or the dataset is too small for so many distinct pairs.
    """
    pairs = np.empty((0, 2), dtype=np.int64)
    for _ in range(64):
        missing = n_pairs - len(pairs)
        if missing == 0:
            return pairs
        drawn = draw_starts(starts, segment_length, 2 * missing, rng).reshape(missing, 2)
        drawn = drawn[np.abs(drawn[:, 0] - drawn[:, 1]) >= segment_length]
        pairs = _distinct(np.concatenate([pairs, drawn]))
    raise DataError(
        f"pairs: only {len(pairs)} distinct pairs of segments of length {segment_length} came up, {n_pairs} were asked for; "
        "use fewer --pairs or a shorter --segment-length"
    )


def segment_sums(values: FloatArray, first_steps: IntArray, segment_length: int) -> FloatArray:
    """Undiscounted sum of a per-step quantity over each segment, by differences of cumulative sums."""
    totals = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return totals[first_steps + segment_length] - totals[first_steps]


def episode_of(first_steps: IntArray, starts: IntArray) -> IntArray:
    """The episode each segment lies in."""
    return np.searchsorted(starts, first_steps, side="right") - 1


def _distinct(pairs: IntArray) -> IntArray:
    """The first of each pair, in either order of its two segments, in the order they were drawn."""
    _, first = np.unique(np.sort(pairs, axis=1), axis=0, return_index=True)
    return pairs[np.sort(first)]
