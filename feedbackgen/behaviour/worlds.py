"""Many environments of one velocity task to train in: they restart by themselves, and each has a caution of its own."""

import numpy as np

from feedbackgen.environments import make_env_batch
from feedbackgen.seeding import derived_seed, stream
from feedbackgen.tasks import get_task
from feedbackgen.types import BoolArray, FloatArray

# Where a velocity task's observation holds the forward velocity, and the bound above which a step is unsafe, m/s.
FORWARD_VELOCITY = {
    "SafetyAntVelocity-v1": (13, 2.6222),
    "SafetyHalfCheetahVelocity-v1": (8, 3.2096),
    "SafetyHopperVelocity-v1": (5, 0.7402),
    "SafetySwimmerVelocity-v1": (3, 0.2282),
    "SafetyWalker2dVelocity-v1": (8, 2.3415),
}
SPEED_WITHOUT_CAUTION = 1.4  # in bounds
SPEED_LOST_TO_CAUTION = 0.55


class TrainingWorlds:
    """``n`` environments whose reward depends on a caution in [0, 1], drawn anew for each episode.

    The reward is ``reward - penalty * excess - caution ** 2 * cost``, where the excess is the speed above a target, in
    m/s; the target falls from 1.4 bounds without caution to 0.85 with all of it.
    """

    def __init__(self, task: str, n_environments: int, *, penalty: float, seed: int):
        known = get_task(task)
        self.task, self.horizon, self.seed = task, known.horizon, seed
        self.batch = make_env_batch(task, n_environments)
        self.action_dim, self.observation_dim = known.action_dim, known.observation_dim
        self.n_environments = n_environments
        self.penalty = penalty  # reward per m/s of excess
        self.strictness = 1.0  # share of the penalties that counts
        self.finished: list[tuple[float, float, float]] = []  # caution, return and cost of whole episodes

    def restart(self, stage: int) -> FloatArray:
        """Begin new episodes everywhere, the same ones whenever the stage is the same."""
        self.stage = stage
        self.n_episodes = 0
        self.caution = np.zeros(self.n_environments)
        self._rng = stream(self.seed, "caution", stage)
        # The first episodes end at different times, so that later ones do too.
        self._left = self._rng.integers(self.horizon // 4, self.horizon + 1, self.n_environments)
        self._sums = np.zeros((self.n_environments, 2))
        return np.array([self._reset(index) for index in range(self.n_environments)])

    def step(self, actions: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, BoolArray, BoolArray]:
        """Observations to act on next and, where an episode ended, its last one; rewards; terminated; truncated."""
        last, rewards, costs, terminated, truncated, _ = self.batch.step(np.clip(actions, -1.0, 1.0))
        self._sums += np.stack([rewards, costs], axis=1)
        self._left -= 1
        whole = terminated | truncated
        truncated = truncated | (self._left <= 0)
        place, bound = FORWARD_VELOCITY[self.task]
        target = bound * (SPEED_WITHOUT_CAUTION - SPEED_LOST_TO_CAUTION * self.caution)
        penalties = self.penalty * np.maximum(last[:, place] - target, 0.0) + self.caution**2 * costs
        shaped = rewards - self.strictness * penalties
        observations = last
        ended = np.flatnonzero(terminated | truncated)
        if len(ended):
            observations = last.copy()
            for index in ended:
                if whole[index]:
                    self.finished.append((self.caution[index], *self._sums[index]))
                observations[index] = self._reset(int(index))
        return observations, last, shaped, terminated, truncated & ~terminated

    def _reset(self, index: int) -> FloatArray:
        if self.n_episodes >= self.n_environments:
            self._left[index] = self.horizon
        self.n_episodes += 1
        self._sums[index] = 0.0
        # A quarter of the episodes at either end: those are the policies that are wanted most.
        self.caution[index] = np.clip(self._rng.uniform(-0.35, 1.25), 0.0, 1.0)
        return self.batch.reset(index, derived_seed(self.seed, "train", self.stage, self.n_episodes))
