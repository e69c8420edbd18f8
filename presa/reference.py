"""The reference policy: cloned from everything, then from the episodes that the pooled labels call safe and good."""

from dataclasses import dataclass

import numpy as np

from presa.aggregation import episode_weights, preference_scores, safe_posterior
from presa.batch import LearningData
from presa.cloning import Cloning, per_step
from presa.policy import GaussianPolicy


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    all_steps: int = 5_000  # updates on all episodes alike
    weighted_steps: int = 8_000  # updates on episodes by their pooled labels; 0 leaves the plain clone
    batch_size: int = 256
    learning_rate: float = 1e-3
    start_share: float = 0.1  # of each batch, from the first steps of episodes
    safe_share: float = 0.8  # an episode counts as safe when more than this share of its segments is
    sharpness: float = 1.0  # of the preference among safe episodes


class ReferenceCloning:
    """Two phases of cloning; `posterior` and `weights` are per episode."""

    def __init__(self, data: LearningData, policy: GaussianPolicy, config: ReferenceConfig, seed: int):
        self.posterior = safe_posterior(data, config.safe_share)
        self.weights = episode_weights(self.posterior, preference_scores(data), sharpness=config.sharpness)
        self.n_steps = config.all_steps + config.weighted_steps
        options = {
            "batch_size": config.batch_size,
            "learning_rate": config.learning_rate,
            "start_share": config.start_share,
            "seed": seed,
        }
        uniform = np.ones(data.n_steps)
        self.all = Cloning(data, policy, uniform, n_steps=config.all_steps, name="all", **options)
        weighted = per_step(self.weights, data)
        self.weighted = Cloning(data, policy, weighted, n_steps=config.weighted_steps, name="weighted", **options)
        self.all_steps = config.all_steps

    def update(self, step: int) -> dict[str, float]:
        if step < self.all_steps:
            return self.all.update(step)
        return self.weighted.update(step - self.all_steps)

    def modules(self) -> dict:
        return {"cloning_all": self.all.optimizer, "cloning_weighted": self.weighted.optimizer}
