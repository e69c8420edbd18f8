"""Many environments of one task to train in: they restart by themselves, and each has a caution of its own."""

import numpy as np

from feedbackgen.environments import make_env
from feedbackgen.environments.navigation import NavigationBatch
from feedbackgen.seeding import derived_seed, stream
from feedbackgen.tasks import get_task
from feedbackgen.types import BoolArray, FloatArray

# Where a velocity task's observation holds the forward velocity, and the bound above which a step is unsafe, m/s.
FORWARD_VELOCITY = {
    "SafetyAntVelocity-v1": (13, 2.6222),
    "SafetyHopperVelocity-v1": (5, 0.7402),
    "SafetySwimmerVelocity-v1": (3, 0.2282),
    "SafetyWalker2dVelocity-v1": (8, 2.3415),
}
SPEED_WITHOUT_CAUTION = 1.4  # in thresholds
N_BINS, MAX_DISTANCE = 16, 3.0  # of a lidar
PUSH_SHAPING = 0.6
SPEED_LOST_TO_CAUTION = 0.5


class TrainingWorlds:
    """``n`` environments whose reward depends on a caution in [0, 1], drawn anew for each episode.

    Navigation: ``reward - penalty * caution ** 2 * cost``. Velocity: ``reward - penalty * (speed above a target)``, in
    thresholds; the target falls from 1.4 thresholds without caution to 0.9 with all of it. Push: a potential is added
    that is highest where the box stands between agent and goal; it changes what is learned first, not what is best.
    """

    def __init__(self, task: str, n_environments: int, *, penalty: float, seed: int):
        known = get_task(task)
        self.task, self.horizon, self.penalty, self.seed = task, known.horizon, penalty, seed
        self.batch = batch_of(task, n_environments)
        self.action_dim, self.observation_dim = known.action_dim, known.observation_dim
        self.n_environments = n_environments
        self.caution = np.zeros(n_environments)
        self.n_episodes = 0
        self._rng = stream(seed, "caution")
        # The first episodes end at different times, so that later ones do too.
        self._left = self._rng.integers(self.horizon // 4, self.horizon + 1, n_environments)
        self._sums = np.zeros((n_environments, 2))
        self._alignment = np.zeros(n_environments)
        self._is_push = known.kind == "Push"
        self.finished: list[tuple[float, float, float]] = []  # caution, return and cost of whole episodes

    def reset(self) -> FloatArray:
        return np.array([self._reset(index) for index in range(self.n_environments)])

    def step(self, actions: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, BoolArray, BoolArray]:
        """Observations to act on next and, where an episode ended, its last one; rewards; terminated; truncated."""
        last, rewards, costs, terminated, truncated, *_ = self.batch.step(np.clip(actions, -1.0, 1.0))
        self._sums += np.stack([rewards, costs], axis=1)
        self._left -= 1
        whole = terminated | truncated
        truncated = truncated | (self._left <= 0)
        shaped = rewards - self._penalties(last, costs)
        if self._is_push:
            before, self._alignment = self._alignment, push_alignment(last)
            # Where the goal has moved, the step is not to blame.
            shaped += PUSH_SHAPING * (self._alignment - before) * (np.abs(self._alignment - before) < 0.3)
        observations = last
        ended = np.flatnonzero(terminated | truncated)
        if len(ended):
            observations = last.copy()
            for index in ended:
                if whole[index]:
                    self.finished.append((self.caution[index], *self._sums[index]))
                observations[index] = self._reset(index)
        return observations, last, shaped, terminated, truncated & ~terminated

    def _penalties(self, observations: FloatArray, costs: FloatArray) -> FloatArray:
        if self.task not in FORWARD_VELOCITY:
            return self.penalty * self.caution**2 * costs
        place, threshold = FORWARD_VELOCITY[self.task]
        target = SPEED_WITHOUT_CAUTION - SPEED_LOST_TO_CAUTION * self.caution
        return self.penalty * threshold * np.maximum(observations[:, place] / threshold - target, 0.0)

    def _reset(self, index: int) -> FloatArray:
        if self.n_episodes >= self.n_environments:
            self._left[index] = self.horizon
        self.n_episodes += 1
        self._sums[index] = 0.0
        # A quarter of the episodes at either end: those are the policies that are wanted most.
        self.caution[index] = np.clip(self._rng.uniform(-0.35, 1.25), 0.0, 1.0)
        observation = self.batch.reset(index, derived_seed(self.seed, "train", self.n_episodes))
        if self._is_push:
            self._alignment[index] = push_alignment(observation[None])[0]
        return observation


def push_alignment(observations: FloatArray) -> FloatArray:
    """Cosine between the ways from agent to box and from box to goal, (n,); 0 where one of them is out of sight."""
    # A Push task's lidars are its last observations: goal, hazards, pillars, push box.
    lidars = observations[:, -4 * N_BINS :].reshape(len(observations), 4, N_BINS)
    goal, box = single_object(lidars[:, 0]), single_object(lidars[:, 3])
    onwards = goal - box
    lengths = np.abs(box) * np.abs(onwards)
    seen = (lidars[:, 0].max(axis=1) > 0) & (lidars[:, 3].max(axis=1) > 0)
    return np.where(seen, (box * onwards.conj()).real / np.maximum(lengths, 1e-9), 0.0)


def single_object(readings: FloatArray) -> np.ndarray:
    """Where the one object of a lidar stands as the agent sees it, in the complex plane, m, (n,)."""
    rows = np.arange(len(readings))
    nearest = readings.argmax(axis=1)
    closeness = np.maximum(readings[rows, nearest], 1e-9)
    # The next bin reads the closeness times how far the object lies across this bin.
    across = readings[rows, (nearest + 1) % N_BINS] / closeness
    angle = 2 * np.pi / N_BINS * (nearest + across)
    return MAX_DISTANCE * (1 - closeness) * np.exp(1j * angle)


def batch_of(task: str, n_environments: int):
    """Environments with ``reset(index, seed)`` and ``step(actions)`` for all of them at once."""
    known = get_task(task)
    if known.suite == "safety-navigation":
        return NavigationBatch(known, n_environments)
    return _Several(task, n_environments)


class _Several:
    """Environments one after the other behind the interface of a batch."""

    def __init__(self, task: str, n_environments: int):
        self.environments = [make_env(task) for _ in range(n_environments)]

    def reset(self, index: int, seed: int) -> FloatArray:
        return self.environments[index].reset(seed=seed)[0]

    def step(self, actions: FloatArray) -> tuple:
        steps = [env.step(action) for env, action in zip(self.environments, actions, strict=True)]
        return tuple(np.array(values) for values in list(zip(*steps, strict=True))[:5])
