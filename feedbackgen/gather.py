"""Steps of many segments at once, from arrays that hold the steps of all episodes one after the other."""

import numpy as np

from feedbackgen.errors import DataError
from feedbackgen.segments import draw_segments, enumerate_segments
from feedbackgen.types import IntArray


def random_segments(starts: IntArray, n_segments: int, length: int, rng: np.random.Generator) -> IntArray:
    """First rows of different segments, each within one episode, all such segments being as likely; (n_segments,).

    Args:
        starts: first row of each episode and, last, the number of rows, (n_episodes + 1,).
        n_segments: how many.
        length: steps of a segment.
        rng: the stream of the segments.

    Raises:
        DataError: no episode is long enough, or there are not that many segments.
    """
    candidates = enumerate_segments(starts, length)
    episodes, first_steps = candidates.locate(draw_segments(candidates.n_segments, n_segments, rng))
    return starts[episodes] + first_steps


def gather_segments(values: np.ndarray, first: IntArray, length: int) -> np.ndarray:
    """Copy ``length`` rows from each first row on.

    Args:
        values: one row per step, (n_steps, ...).
        first: row of each segment's first step, (N,).
        length: steps of a segment.

    Returns:
        (N, length, ...), what ``values[first[:, None] + numpy.arange(length)]`` gives.

    Raises:
        DataError: a segment reaches beyond the rows.
    """
    values, first = np.ascontiguousarray(values), np.asarray(first)
    n_windows = len(values) - length + 1
    if first.size and not (first.min() >= 0 and first.max() < n_windows):
        raise DataError(f"segments: expected first rows from 0 to {n_windows - 1} for length {length}, got "
                        f"{first.min()} to {first.max()}; are they of this dataset?")  # fmt: skip
    # A segment is one stretch of memory, copied as a whole.
    n_values = int(np.prod(values.shape[1:], dtype=np.int64))
    windows = np.lib.stride_tricks.as_strided(
        values,
        shape=(max(n_windows, 0), length * n_values),
        strides=(n_values * values.itemsize, values.itemsize),
        writeable=False,
    )
    return windows[first].reshape(len(first), length, *values.shape[1:])
