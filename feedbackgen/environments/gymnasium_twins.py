"""Gymnasium twins of our tasks: five values from ``step``, the cost in ``info["cost"]``, under upstream's ids."""

import gymnasium
import numpy as np
from gymnasium.envs.registration import register as gymnasium_register
from gymnasium.envs.registration import registry
from gymnasium.spaces import Box

from feedbackgen.environments.make import make_env
from feedbackgen.tasks import TASKS


class GymnasiumTwin(gymnasium.Env):
    """A task as Gymnasium sees it."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    def __init__(self, task: str, render_mode: str | None = None):
        self.render_mode = render_mode
        self.safety_env = make_env(task)
        self.action_space = self.safety_env.action_space
        self.observation_space = Box(-np.inf, np.inf, self.safety_env.observation_space.shape, np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        observation, info = self.safety_env.reset(seed=seed)
        return observation, {"cost": 0.0, **info}

    def step(self, action):
        observation, reward, cost, terminated, truncated, info = self.safety_env.step(action)
        return observation, reward, terminated, truncated, {"cost": cost, **info}

    def render(self):
        return self.safety_env.render() if self.render_mode == "rgb_array" else None

    def close(self):
        self.safety_env.close()


def make_twin(task: str, render_mode: str | None = None) -> GymnasiumTwin:
    """The entry point that Gymnasium calls."""
    return GymnasiumTwin(task, render_mode)


def register() -> None:
    """Register every twin; cheap, since the simulator is loaded only when one is made.

    Bullet-Safety-Gym registers its own ids.
    """
    for task in TASKS.values():
        if not task.environment and task.gymnasium_id not in registry:
            # The tasks end themselves at their horizon, but other tools ask the specification for it.
            gymnasium_register(
                id=task.gymnasium_id,
                entry_point="feedbackgen.environments.gymnasium_twins:make_twin",
                kwargs={"task": task.name},
                max_episode_steps=task.horizon,
            )
