"""An episode refuses what does not fit together."""

from dataclasses import replace

import numpy as np
import pytest
from samples import make_episode

from feedbackgen.errors import DataError


def test_sums_are_undiscounted():
    episode = replace(make_episode(0, n_steps=3), rewards=np.array([1.0, 2.0, 4.0]), costs=np.array([0.0, 1.0, 1.0]))
    assert (episode.return_, episode.cost_return, episode.n_steps) == (7.0, 2.0, 3)


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "costs"])
def test_a_value_that_is_not_finite_is_refused(name):
    episode = make_episode(0)
    values = getattr(episode, name).copy()
    values[3] = np.inf
    with pytest.raises(DataError, match=rf"{name}: expected finite values, got inf at index \(3"):
        replace(episode, **{name: values})


@pytest.mark.parametrize("name", ["rewards", "costs", "terminations", "truncations"])
def test_one_value_per_step_is_expected(name):
    episode = make_episode(0)
    with pytest.raises(DataError, match=rf"{name}: expected shape \(40,\), got \(39,\)"):
        replace(episode, **{name: getattr(episode, name)[1:]})


def test_one_observation_more_than_actions_is_expected():
    episode = make_episode(0)
    with pytest.raises(DataError, match="observations: expected 41 rows for 40 actions"):
        replace(episode, observations=episode.observations[:-1])
