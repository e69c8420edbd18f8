"""The reference policy alone: cloned from labels aggregated by episode. Our extension, a baseline of its own.

First every step is cloned, so that the network knows all states; then steps are drawn by the weight of their episode:
the posterior that the episode is safe, times a sigmoid of its preference score.
"""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from presa.aggregation import AggregationConfig, aggregate, reference_weights
from presa.batch import LearningData, require_preferences, require_safety_labels
from presa.checkpoint import load_training_tensors, training_tensors
from presa.cloning import Cloning, CloningConfig, adam, new_policy
from presa.policy import PolicyConfig

_CLONING = CloningConfig(n_steps=5_000, learning_rate_final=1.0)
_REFINING = CloningConfig(n_steps=8_000)


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """What the reference learns with."""

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    aggregation: AggregationConfig = field(default_factory=AggregationConfig)
    cloning: CloningConfig = _CLONING  # of every step alike
    refining: CloningConfig = _REFINING  # of steps weighted by their episode


PRESETS = {"default": ReferenceConfig()}


class Reference:
    """The reference policy, one update at a time."""

    def __init__(self, data: LearningData, config: ReferenceConfig, seed: int):
        require_preferences(data, "reference")
        require_safety_labels(data, "reference")
        self.n_steps = config.cloning.n_steps + config.refining.n_steps
        self.policy = new_policy(data, config.policy, seed)
        self.beliefs = aggregate(data, config.aggregation)
        weights = reference_weights(data, self.beliefs)
        self._optimizer = adam(self.policy, config.cloning.learning_rate)
        shared = (self.policy, self._optimizer, data)
        self._cloning = Cloning(*shared, np.ones(data.n_steps), config.cloning, seed, "all")
        self._refining = Cloning(*shared, weights, config.refining, seed, "weighted")
        self._n_cloning = config.cloning.n_steps

    def update(self, step: int) -> tuple[str, dict[str, float]]:
        """Take one step; returns the phase and what to log."""
        if step < self._n_cloning:
            phase, loss = "cloning", self._cloning.update(step)
        else:
            phase, loss = "refining", self._refining.update(step - self._n_cloning)
        return phase, {"loss": loss, "log_likelihood": -loss}

    def state(self) -> dict[str, Tensor]:
        return training_tensors(self.policy, self._optimizer)

    def load_state(self, state: dict[str, Tensor]) -> None:
        load_training_tensors(state, self.policy, self._optimizer)
