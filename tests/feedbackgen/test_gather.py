import numpy as np
import pytest

from feedbackgen.errors import DataError
from feedbackgen.gather import gather_segments, random_segments

STARTS = np.array([0, 5, 7, 11])  # episodes of 5, 2 and 4 steps


def test_gathered_segments_are_the_rows_from_each_first_on():
    values = np.random.default_rng(0).normal(size=(11, 3))
    first = np.array([0, 7, 2, 7])
    gathered = gather_segments(values, first, 4)
    assert gathered.shape == (4, 4, 3)
    assert np.array_equal(gathered, values[first[:, None] + np.arange(4)])
    gathered[:] = 0
    assert np.all(values != 0)


def test_one_number_a_step_and_other_strides_are_gathered_alike():
    values = np.arange(22.0)[::2]
    assert gather_segments(values, np.array([3, 0]), 2).tolist() == [[6, 8], [0, 2]]
    matrix = np.asfortranarray(np.arange(22).reshape(11, 2))
    assert gather_segments(matrix, np.array([9]), 2).tolist() == [[[18, 19], [20, 21]]]


def test_no_segment_is_an_empty_array():
    assert gather_segments(np.zeros((11, 3)), np.empty(0, np.int64), 4).shape == (0, 4, 3)


@pytest.mark.parametrize("first", [-1, 8])
def test_a_segment_beyond_the_rows_is_refused(first):
    with pytest.raises(DataError, match=r"expected first rows from 0 to 7 for length 4, got -?\d to -?\d"):
        gather_segments(np.zeros((11, 3)), np.array([first]), 4)


def test_random_segments_lie_within_one_episode_and_all_are_drawn():
    first = random_segments(STARTS, 5, 3, np.random.default_rng(0))
    assert sorted(first) == [0, 1, 2, 7, 8]


def test_more_segments_than_there_are_is_refused():
    with pytest.raises(DataError, match="6 different segments asked for, there are 5"):
        random_segments(STARTS, 6, 3, np.random.default_rng(0))
