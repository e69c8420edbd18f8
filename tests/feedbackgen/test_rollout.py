"""One episode, on an environment small enough to work out by hand."""

import numpy as np
import pytest
from gymnasium.spaces import Box

from feedbackgen.errors import DataError
from feedbackgen.rollout import rollout


class Counter:
    """Observes the step number; reward 2 and cost 1 from the second step on; ends after three."""

    action_space = Box(-1.0, 1.0, (1,), np.float32)
    cost_terms = ("cost_late",)
    broken = False

    def reset(self, *, seed):
        self.step_number = 0
        return np.array([0.0]), {"cost_late": 0.0}

    def step(self, action):
        self.step_number += 1
        late = float(self.step_number >= 2)
        observation = np.array([np.nan if self.broken else self.step_number])
        return observation, 2.0 * late, late, False, self.step_number == 3, {"cost_late": late}

    def get_state(self):
        return np.array([10.0 * self.step_number])


class Constant:
    name = "constant"

    def act(self, observation, rng):
        return np.array([0.1])


def test_observation_and_action_of_the_same_step_stand_together():
    episode = rollout(Counter(), Constant(), seed=5, rng=np.random.default_rng(0), record_states=True)
    np.testing.assert_array_equal(episode.observations[:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(episode.states[:, 0], [0, 10, 20, 30])
    np.testing.assert_array_equal(episode.rewards, [0, 2, 2])
    np.testing.assert_array_equal(episode.costs, [0, 1, 1])
    np.testing.assert_array_equal(episode.cost_terms["cost_late"], [0, 1, 1])
    np.testing.assert_array_equal(episode.truncations, [False, False, True])
    assert not episode.terminations.any()
    assert (episode.return_, episode.cost_return, episode.seed, episode.policy) == (4.0, 2.0, 5, "constant")


def test_an_episode_can_be_truncated_early():
    episode = rollout(Counter(), Constant(), seed=0, rng=np.random.default_rng(0), max_steps=2)
    np.testing.assert_array_equal(episode.truncations, [False, True])
    assert episode.n_steps == 2


def test_actions_are_stored_in_the_precision_that_was_acted():
    episode = rollout(Counter(), Constant(), seed=0, rng=np.random.default_rng(0))
    assert episode.actions.dtype == np.float32


def test_an_environment_that_returns_nan_is_refused():
    env = Counter()
    env.broken = True
    with pytest.raises(DataError, match="observations: expected finite values, got nan"):
        rollout(env, Constant(), seed=0, rng=np.random.default_rng(0))
