"""One episode, on an environment small enough to work out by hand."""

from dataclasses import fields

import numpy as np
import pytest
from gymnasium.spaces import Box

from feedbackgen.errors import DataError
from feedbackgen.rollout import Start, play, rollout


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


class Counters:
    """Several counters as a batch; the i-th ends after ``lengths[i]`` steps, those of even seeds by terminating."""

    task, horizon = "Counters-v0", 9
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    cost_terms = ("cost_late",)

    def __init__(self, n_environments):
        self.n_environments = n_environments
        self.counts, self.seeds = [0] * n_environments, [0] * n_environments

    def reset(self, index, seed):
        self.counts[index], self.seeds[index] = 0, seed
        return np.array([100.0 * seed])

    def step(self, actions, indices):
        for index in indices:
            self.counts[index] += 1
            if self.counts[index] == 4 and self.seeds[index] == 14:
                raise UnboundLocalError("cost")
        counts = np.array([self.counts[index] for index in indices])
        seeds = np.array([self.seeds[index] for index in indices])
        observations = (100.0 * seeds + counts)[:, None]
        ended = counts == 2 + seeds % 3
        late = (counts > 2).astype(float)
        return (
            observations,
            actions[:, 0],
            late,
            ended & (seeds % 2 == 0),
            ended & (seeds % 2 == 1),
            {"cost_late": late},
        )

    def get_state(self, index):
        return np.array([self.seeds[index], self.counts[index]], dtype=float)


class Follower:
    """Acts on what it sees and on its own randomness."""

    def __init__(self, name):
        self.name = name

    def act(self, observation, rng):
        return self.act_together(observation[None], [rng])[0]

    def act_together(self, observations, rngs):
        return observations % 7 / 10 + np.array([[rng.random()] for rng in rngs]) / 10


class OneOf:
    """An environment of the batch, as `rollout` knows it."""

    action_space, cost_terms = Counters.action_space, Counters.cost_terms

    def __init__(self):
        self.batch = Counters(1)

    def reset(self, *, seed):
        return self.batch.reset(0, seed), {}

    def step(self, action):
        *values, terms = self.batch.step(action[None], [0])
        return *(value[0] for value in values), {"cost_late": terms["cost_late"][0]}

    def get_state(self):
        return self.batch.get_state(0)


def played(n_lanes, seeds, **options):
    """Episodes by seed, from lanes that take the next seed as soon as they are free."""
    policies = [Follower("even"), Follower("odd")]
    waiting, episodes = iter(seeds), {}

    def lane():
        for seed in waiting:
            episode = yield Start(policy=policies[seed % 2], seed=seed, rng=np.random.default_rng(seed))
            episodes[seed] = episode

    play(Counters(n_lanes), [lane() for _ in range(n_lanes)], **options)
    return episodes


@pytest.mark.parametrize("n_lanes", [1, 3, 8])
@pytest.mark.parametrize("max_steps", [None, 3])
def test_side_by_side_each_episode_has_the_bits_that_it_has_alone(n_lanes, max_steps):
    episodes = played(n_lanes, range(7), max_steps=max_steps, record_states=True)
    assert sorted(episodes) == list(range(7))
    for seed, episode in episodes.items():
        alone = rollout(
            OneOf(),
            Follower(["even", "odd"][seed % 2]),
            seed=seed,
            rng=np.random.default_rng(seed),
            max_steps=max_steps,
            record_states=True,
        )
        for entry in fields(episode):
            np.testing.assert_equal(getattr(episode, entry.name), getattr(alone, entry.name))


def test_a_simulator_that_fails_names_episode_and_step():
    message = (
        r"Counters-v0: the simulator failed in an episode of even \(reset seed 14, step 3\): UnboundLocalError: cost"
    )
    with pytest.raises(DataError, match=message):
        played(1, [14])
    others = (
        r"even \(reset seed 8, step 3\) or even \(reset seed 14, step 3\) or odd \(reset seed 5, step 3\) or 1 more"
    )
    with pytest.raises(DataError, match=others):
        played(4, [8, 14, 5, 17])


class Accountant:
    """Acts on what its episode came to so far; remembers, so that each episode needs one of its own."""

    name = "accountant"

    def __init__(self):
        self.told = []

    def act(self, observation, rng):
        return np.array([0.1 + sum(reward - cost for reward, cost in self.told) / 10])

    def act_together(self, observations, rngs):
        return np.array([self.act(*row) for row in zip(observations, rngs, strict=True)])

    def observe(self, reward, cost):
        self.told.append((float(reward), float(cost)))


def test_a_policy_that_observes_is_told_each_steps_reward_and_cost_and_no_other_episodes():
    acted = [Accountant() for _ in range(6)]
    episodes = {}

    def lane(seeds):
        for seed in seeds:
            episodes[seed] = yield Start(policy=acted[seed], seed=seed, rng=np.random.default_rng(seed))

    play(Counters(2), [lane([0, 1, 2]), lane([3, 4, 5])])
    for seed, accountant in enumerate(acted):
        alone = Accountant()
        episode = rollout(OneOf(), alone, seed=seed, rng=np.random.default_rng(seed))
        np.testing.assert_array_equal(episodes[seed].actions, episode.actions)
        assert accountant.told == alone.told == list(zip(episode.rewards, episode.costs, strict=True))
