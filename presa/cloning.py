"""Behaviour cloning of weighted steps: the whole of bc and bc-safe, and the first part of reference and presa."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from feedbackgen.errors import DataError, RecipeError
from feedbackgen.seeding import stream
from feedbackgen.types import FloatArray, IntArray
from presa.batch import LearningData, gather
from presa.mapped import MappedRows
from presa.policy import GaussianPolicy

BLOCK = 100  # steps whose minibatches are drawn at once; learners are saved at multiples of it
RANGED_ROWS = 100_000  # evenly spaced steps that the ranges of observations are taken from
RANGED_TAIL = 0.001  # share of them beyond either end
LEAST_RANGE = 0.01  # standard deviations; some observations never change


@dataclass(frozen=True, kw_only=True)
class CloningConfig:
    """One phase of cloning.

    Raises:
        RecipeError: a value is out of range.
    """

    n_steps: int = 13_000  # updates
    batch_size: int = 256  # environment steps per update
    learning_rate: float = 1e-3  # of Adam
    learning_rate_final: float = 0.1  # at the phase's end, as a share of learning_rate; 1 keeps it constant
    start_share: float = 0.05  # of each batch comes from the first steps of episodes, besides their own share
    start_steps: int = 20  # steps that count as the start of an episode

    def __post_init__(self):
        for name in ("n_steps", "start_steps"):
            if getattr(self, name) < 0:
                raise RecipeError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
        for name in ("batch_size", "learning_rate", "learning_rate_final"):
            if not getattr(self, name) > 0:
                raise RecipeError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        if not 0 <= self.start_share < 1:
            raise RecipeError(f"start_share: expected 0 to below 1, got {self.start_share}")


def cloning_loss(policy: GaussianPolicy, observations: Tensor, actions: Tensor) -> Tensor:
    """Mean negative log-likelihood of the actions, nats per step."""
    return -policy.log_prob(observations, actions).mean()


class Cloning:
    """One phase of cloning into a policy."""

    def __init__(
        self,
        policy: GaussianPolicy,
        optimizer: torch.optim.Optimizer,
        data: LearningData,
        weights: FloatArray,  # (n_steps,), >= 0
        config: CloningConfig,
        seed: int,
        name: str,
    ):
        self._policy, self._optimizer, self._data, self._config = policy, optimizer, data, config
        self._seed, self._name = seed, name
        distribution = step_distribution(weights, data.episode_starts, config)
        self._cumulative = np.cumsum(distribution)
        self._block = -1
        self._batches = torch.empty(0)

    def update(self, step: int) -> float:
        """Take one step of Adam; returns the loss before it."""
        if step // BLOCK != self._block:
            self._draw(step // BLOCK)
        set_learning_rate(self._optimizer, self._config, step)
        rows = self._batches[step % BLOCK]
        steps = gather(self._data.observations, rows), gather(self._data.actions, rows)
        loss = cloning_loss(self._policy, *steps)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())

    def _draw(self, block: int) -> None:
        # A stream of its own for each block: a resumed run needs no state of a generator.
        rng = stream(self._seed, "cloning", self._name, block)
        uniform = rng.random((BLOCK, self._config.batch_size)) * self._cumulative[-1]
        rows = np.searchsorted(self._cumulative, uniform, side="right")
        self._batches = torch.from_numpy(np.minimum(rows, len(self._cumulative) - 1)).to(self._data.device)
        self._block = block


def step_distribution(weights: FloatArray, episode_starts: IntArray, config: CloningConfig) -> FloatArray:
    """Probability of each step: by weight, with starts of episodes drawn more often, (n_steps,).

    Raises:
        DataError: no step has a weight above 0.
    """
    total = weights.sum()
    if not total > 0:
        raise DataError("cloning: no step to clone, every weight is 0; are there segments labelled safe?")
    distribution = np.float64(weights) / total
    places = np.arange(len(weights)) - np.repeat(episode_starts[:-1], np.diff(episode_starts))
    starts = np.where(places < config.start_steps, distribution, 0.0)
    if config.start_share == 0 or starts.sum() == 0:
        return distribution
    return (1 - config.start_share) * distribution + config.start_share * starts / starts.sum()


def safe_segment_weights(data: LearningData) -> FloatArray:
    """How many segments labelled safe hold each step, (n_steps,)."""
    safe = data.safety_segments[data.safety_labels > 0]
    return step_weights(data, safe, np.ones(len(safe)))


def step_weights(data: LearningData, segments: IntArray, weights: FloatArray) -> FloatArray:
    """Sum of the weights, (n,), of those of these segments, (n,), that hold each step, (n_steps,)."""
    changes = np.zeros(data.n_steps + 1)
    np.add.at(changes, data.segment_starts[segments], weights)
    np.add.at(changes, data.segment_starts[segments] + data.segment_lengths[segments], -weights)
    return np.cumsum(changes[:-1])


def new_policy(data, config, seed: int) -> GaussianPolicy:
    """A fresh network for the shapes of the data, with rewards or without, on their device.

    ``config`` is a PolicyConfig.
    """
    ranges = observation_ranges(data.observations) if config.encoding_bins else None
    return GaussianPolicy(data.observations.shape[1], data.actions.shape[1], config, seed, ranges).to(data.device)


def observation_ranges(observations: Tensor | MappedRows) -> tuple[Tensor, Tensor]:
    """Where nearly all values of each observation lie, least and greatest, (O,) each."""
    rows = np.linspace(0, len(observations) - 1, min(len(observations), RANGED_ROWS)).astype(np.int64)
    values = gather(observations, rows).cpu().numpy()
    low, high = np.quantile(values, [RANGED_TAIL, 1 - RANGED_TAIL], axis=0)
    high = np.maximum(high, low + LEAST_RANGE)
    return torch.from_numpy(low.astype(np.float32)), torch.from_numpy(high.astype(np.float32))


def adam(policy: torch.nn.Module, learning_rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(policy.parameters(), lr=learning_rate, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, config, step: int) -> None:
    """A straight line from ``learning_rate`` to ``learning_rate_final`` of it over ``n_steps``."""
    done = step / max(config.n_steps, 1)
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * (1 + done * (config.learning_rate_final - 1))
