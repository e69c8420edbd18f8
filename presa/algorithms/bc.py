"""BC-All: clone every step of the dataset, safe or not; reads no label."""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from presa.batch import LearningData
from presa.checkpoint import load_training_tensors, training_tensors
from presa.cloning import Cloning, CloningConfig, adam, new_policy
from presa.policy import PLAIN, PolicyConfig


@dataclass(frozen=True, kw_only=True)
class BCConfig:
    """What BC-All learns with."""

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    cloning: CloningConfig = field(default_factory=CloningConfig)


PRESETS = {
    "default": BCConfig(),
    "paper": BCConfig(policy=PLAIN, cloning=CloningConfig(learning_rate_final=1.0, start_share=0.0)),
}


class BehaviourCloning:
    """BC-All, one update at a time."""

    def __init__(self, data: LearningData, config: BCConfig, seed: int):
        self.n_steps = config.cloning.n_steps
        self.policy = new_policy(data, config.policy, seed)
        self._optimizer = adam(self.policy, config.cloning.learning_rate)
        self._cloning = Cloning(self.policy, self._optimizer, data, np.ones(data.n_steps), config.cloning, seed, "all")

    def update(self, step: int) -> tuple[str, dict[str, float]]:
        """Take one step; returns the phase and what to log."""
        loss = self._cloning.update(step)
        return "cloning", {"loss": loss, "log_likelihood": -loss}

    def state(self) -> dict[str, Tensor]:
        return training_tensors(self.policy, self._optimizer)

    def load_state(self, state: dict[str, Tensor]) -> None:
        load_training_tensors(state, self.policy, self._optimizer)
