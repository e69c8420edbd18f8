"""Velocity tasks side by side against upstream's own environment, each alone: equal to the last bit."""

import numpy as np
import pytest

from feedbackgen.environments import make_env_batch
from feedbackgen.environments.batch import simulator_state
from feedbackgen.environments.upstream import load_velocity_class
from feedbackgen.tasks import TASKS, get_task

pytestmark = pytest.mark.simulator

VELOCITY = [name for name, task in TASKS.items() if task.suite == "safety-velocity"]
SEEDS = (0, 1, 2)


@pytest.mark.parametrize("name", VELOCITY)
def test_a_batch_is_upstreams_to_the_last_bit(name):
    task = get_task(name)
    batch = make_env_batch(name, len(SEEDS))
    for lane, seed in enumerate(SEEDS):
        reference = load_velocity_class(task.kind)()
        rng = np.random.default_rng(seed)
        # A whole episode, then a shorter one after a later reset.
        for reset_seed, n_steps in ((seed, task.horizon), (seed + 100, 60)):
            np.testing.assert_array_equal(batch.reset(lane, reset_seed), reference.reset(seed=reset_seed)[0])
            action, ended, steps = None, False, 0
            while not ended and steps < n_steps:
                if action is None or rng.random() < 0.1:
                    action = rng.uniform(task.action_low, task.action_high)
                observation, reward, cost, terminated, _, _ = reference.step(action)
                came = batch.step(action[None], [lane])
                np.testing.assert_array_equal(came.observations[0], observation)
                assert (came.rewards[0], came.costs[0], came.terminated[0]) == (reward, cost, terminated)
                steps += 1
                ended = terminated or steps == task.horizon
                assert came.truncated[0] == (steps == task.horizon)
                np.testing.assert_array_equal(batch.get_state(lane), simulator_state(reference.model, reference.data))
        reference.close()
    batch.close()
