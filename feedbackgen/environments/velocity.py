"""Safety-Gymnasium's velocity tasks, many at once, from upstream's own code.

Upstream's step spends two thirds of its time and more in MuJoCo, so there is nothing to gain by another.
"""

import warnings
from functools import lru_cache

import mujoco
import numpy as np

from feedbackgen.environments.batch import Transitions, checked_actions, leave_untimed, simulator_state
from feedbackgen.environments.upstream import load_velocity_class
from feedbackgen.tasks import Task
from feedbackgen.types import FloatArray, IntArray


class VelocityBatch:
    """``n`` environments of one task that step together; each is reset by itself (see `NavigationBatch`)."""

    cost_terms: tuple[str, ...] = ()

    def __init__(self, task: Task, n_environments: int):
        self.task, self.horizon = task.name, task.horizon
        with warnings.catch_warnings():
            # Upstream bounds its spaces by float64's largest number, which Gymnasium's float32 check overflows on.
            warnings.simplefilter("ignore")
            self.environments = [_velocity_class(task.kind)() for _ in range(n_environments)]
        self.action_space = self.environments[0].action_space
        self.observation_space = self.environments[0].observation_space
        self.n_steps = np.full(n_environments, -1)  # of each episode; -1 when none is under way

    @property
    def n_environments(self) -> int:
        return len(self.environments)

    def model(self, lane: int) -> mujoco.MjModel:
        return self.environments[lane].model

    def data(self, lane: int) -> mujoco.MjData:
        return self.environments[lane].data

    def reset(self, lane: int, seed: int) -> FloatArray:
        """Start an episode in one environment; returns its observation, (O,)."""
        observation, _ = self.environments[lane].reset(seed=seed)
        self.n_steps[lane] = 0
        return observation

    def step(self, actions: FloatArray, lanes: IntArray | None = None) -> Transitions:
        """Take one step in every environment, or in those of ``lanes`` alone.

        Args:
            actions: (n, A), in the order of the lanes.
            lanes: (n,), each at most once.

        Raises:
            DataError: actions of a wrong shape or not finite, or a lane has no episode under way.
        """
        lanes = np.arange(self.n_environments) if lanes is None else np.asarray(lanes)
        actions = checked_actions(self, actions, lanes)
        leave_untimed()
        observations = np.empty((len(lanes), *self.observation_space.shape))
        rewards, costs = np.empty((2, len(lanes)))
        terminated = np.empty(len(lanes), dtype=bool)
        for index, lane in enumerate(lanes):
            environment = self.environments[lane]
            observations[index], rewards[index], costs[index], terminated[index], _, _ = environment.step(
                actions[index]
            )
        self.n_steps[lanes] += 1
        truncated = self.n_steps[lanes] >= self.horizon
        self.n_steps[lanes[terminated | truncated]] = -1
        return Transitions(observations, rewards, costs, terminated, truncated, {})

    def get_state(self, lane: int) -> FloatArray:
        """State of one environment's simulator, (S,)."""
        return simulator_state(self.model(lane), self.data(lane))

    def recall(self, lane: int) -> None:
        """Nothing: rewards compare with the simulator's own state."""

    def close(self) -> None:
        for environment in self.environments:
            environment.close()


@lru_cache
def _velocity_class(kind: str) -> type:
    return load_velocity_class(kind)
