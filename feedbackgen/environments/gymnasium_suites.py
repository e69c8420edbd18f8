"""Environments of other suites behind our contract: Bullet-Safety-Gym, and any of Gymnasium's with ``info["cost"]``."""

import gymnasium
import numpy as np

from feedbackgen.dsrl import BULLET
from feedbackgen.environments.batch import Transitions, checked_actions
from feedbackgen.environments.bullet import BulletEnv
from feedbackgen.errors import DataError
from feedbackgen.tasks import Task, make_registered
from feedbackgen.types import FloatArray, IntArray

N_IN_ONE_PROCESS = {"SafeMetaDrive": 1}  # of environments that cannot be made twice, by the start of their name


class GymnasiumBatch:
    """``n`` environments of one task that step in turn; each is reset by itself (see `NavigationBatch`)."""

    cost_terms: tuple[str, ...] = ()

    def __init__(self, task: Task, n_environments: int):
        self.task, self.horizon = task.name, task.horizon
        for start, most in N_IN_ONE_PROCESS.items():
            if task.name.startswith(start):
                n_environments = min(n_environments, most)
        self.environments = [_make(task) for _ in range(n_environments)]
        self.action_space = self.environments[0].action_space
        self.observation_space = self.environments[0].observation_space
        self.observation_dim = task.observation_dim
        self.n_steps = np.full(n_environments, -1)  # of each episode; -1 when none is under way

    @property
    def n_environments(self) -> int:
        return len(self.environments)

    def reset(self, lane: int, seed: int) -> FloatArray:
        """Start an episode in one environment; returns its observation, (O,)."""
        observation, _ = self.environments[lane].reset(seed=seed)
        self.n_steps[lane] = 0
        return np.asarray(observation)

    def step(self, actions: FloatArray, lanes: IntArray | None = None) -> Transitions:
        """Take one step in every environment, or in those of ``lanes`` alone.

        Args:
            actions: (n, A), in the order of the lanes.
            lanes: (n,), each at most once.

        Raises:
            DataError: actions of a wrong shape or not finite, a lane has no episode under way, or the environment tells
                no cost.
        """
        lanes = np.arange(self.n_environments) if lanes is None else np.asarray(lanes)
        actions = checked_actions(self, actions, lanes).astype(self.action_space.dtype)
        observations = np.empty((len(lanes), self.observation_dim), dtype=self.observation_space.dtype)
        rewards, costs = np.empty((2, len(lanes)))
        terminated, truncated = np.empty((2, len(lanes)), dtype=bool)
        for index, lane in enumerate(lanes):
            outcome = self.environments[lane].step(actions[index])
            observations[index], rewards[index], terminated[index], truncated[index], info = outcome
            if "cost" not in info:
                raise DataError(
                    f"{self.task}: its step tells no cost; expected a number as info['cost'] (a wrapper may add it)"
                )
            costs[index] = float(info["cost"])
        self.n_steps[lanes] += 1
        truncated |= self.n_steps[lanes] >= self.horizon
        self.n_steps[lanes[terminated | truncated]] = -1
        return Transitions(observations, rewards, costs, terminated, truncated, {})

    def get_state(self, lane: int) -> FloatArray:
        """Nothing that could be stored.

        Raises:
            DataError: always.
        """
        raise DataError(
            f"{self.task}: only Safety-Gymnasium's tasks have a state to store; collect it without --state, and replay "
            "it from seed and actions"
        )

    def render(self, lane: int, width: int, height: int) -> np.ndarray:
        """A picture, (height, width, 3) uint8; of a size of its own where the environment knows no other.

        Raises:
            DataError: the environment draws none.
        """
        env = self.environments[lane]
        if isinstance(env, BulletEnv):
            return env.render(width=width, height=height)
        picture = env.render()
        if not isinstance(picture, np.ndarray):
            raise DataError(f"{self.task}: draws no picture; expected an environment with render_mode rgb_array")
        return picture

    def close(self) -> None:
        for environment in self.environments:
            environment.close()


class GymnasiumEnv:
    """One environment of another suite: a batch of one, with the methods of `SafetyEnv`."""

    cost_terms: tuple[str, ...] = ()

    def __init__(self, task: Task):
        self.task, self.horizon = task.name, task.horizon
        self._batch = GymnasiumBatch(task, 1)
        self.observation_space = self._batch.observation_space
        self.action_space = self._batch.action_space

    def reset(self, *, seed: int | None = None) -> tuple[FloatArray, dict]:
        """Start an episode; what a seed determines is up to the environment, in Bullet-Safety-Gym everything."""
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        return self._batch.reset(0, seed), {}

    def step(self, action: FloatArray) -> tuple[FloatArray, float, float, bool, bool, dict]:
        """Take one step.

        Raises:
            DataError: an action of a wrong shape or not finite, no episode is under way, or the environment tells no
                cost.
        """
        observations, rewards, costs, terminated, truncated, _ = self._batch.step(np.asarray(action)[None])
        return observations[0], float(rewards[0]), float(costs[0]), bool(terminated[0]), bool(truncated[0]), {}

    def get_state(self) -> FloatArray:
        """Nothing that could be stored: see `GymnasiumBatch.get_state`."""
        return self._batch.get_state(0)

    def render(self, *, width: int = 480, height: int = 480, camera: str | None = None) -> np.ndarray:
        """A picture, (height, width, 3) uint8: see `GymnasiumBatch.render`."""
        return self._batch.render(0, width, height)

    def close(self) -> None:
        self._batch.close()


def _make(task: Task) -> gymnasium.Env:
    if task.suite == BULLET:
        return BulletEnv(task)
    return make_registered(task.name)
