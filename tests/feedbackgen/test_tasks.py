"""The registry against the simulator, and its message."""

import numpy as np
import pytest

from feedbackgen.environments import make_env
from feedbackgen.errors import TaskError
from feedbackgen.tasks import TASKS, get_task


def test_there_are_71_tasks_of_safety_gymnasium_and_8_of_bullet_and_29_of_them_are_dsrls():
    assert len(TASKS) == 71 + 8
    assert sum(task.dsrl is not None for task in TASKS.values()) == 21 + 8
    assert get_task("SafetyBallRun-v0").cost_limits == (10.0, 20.0, 40.0)
    assert get_task("SafetyPointGoal1-v0").dsrl.file == "SafetyPointGoal1Gymnasium-v0-100-2022.hdf5"


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(TaskError, match=r"unknown task 'SafetyPointGaol1-v0'; did you mean SafetyPointGoal1-v0"):
        get_task("SafetyPointGaol1-v0")


@pytest.mark.simulator
@pytest.mark.parametrize("name", TASKS)
def test_twenty_random_steps_have_the_shapes_that_the_registry_names(name):
    task = get_task(name)
    env = make_env(name)
    assert env.observation_space.shape == (task.observation_dim,)
    np.testing.assert_array_equal(env.action_space.low, np.asarray(task.action_low, dtype=env.action_space.dtype))
    np.testing.assert_array_equal(env.action_space.high, np.asarray(task.action_high, dtype=env.action_space.dtype))
    observation, info = env.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert observation.shape == (task.observation_dim,) and np.isfinite(observation).all()
        assert set(info) == set(env.cost_terms)
        observation, reward, cost, terminated, truncated, info = env.step(
            rng.uniform(task.action_low, task.action_high)
        )
        assert np.isfinite(reward) and cost in (0.0, 1.0) and not truncated
        assert task.suite == "safety-velocity" or cost == max(info.values(), default=0.0)
        if terminated:  # an Ant that falls
            break
    env.close()
