"""Ranking of safe winners above losers, by the loss of SLiC-HF (Zhao et al. 2023, arXiv 2305.10425).

    max(0, margin - (log-likelihood of the winner - of the loser)) - weight * log-likelihood of the winner

Unlike a logistic loss it stops pulling where the margin is reached. A pair whose winner is labelled unsafe is left out.
"""

from dataclasses import dataclass, field

import numpy as np

from feedbackgen.errors import DataError
from feedbackgen.seeding import stream
from presa.batch import LearningData, require_preferences, sample_segment_steps
from presa.checkpoint import load_training_tensors, training_tensors
from presa.cloning import Cloning, CloningConfig, adam, new_policy
from presa.methods import Method
from presa.policy import PolicyConfig

CLONING = CloningConfig(n_steps=5_000, learning_rate=3e-4, learning_rate_final=1.0)


@dataclass(frozen=True, kw_only=True)
class RankingConfig:
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    cloning: CloningConfig = CLONING  # of every step, before; the ranking goes on at its learning rate
    n_steps: int = 5_000  # updates after the cloning
    n_pairs: int = 96  # per update
    margin: float = 0.5  # nats per step
    cloning_weight: float = 0.5  # of the winners' log-likelihood


class Ranking:
    def __init__(self, data: LearningData, config: RankingConfig, seed: int):
        require_preferences(data, "my_method")
        votes = np.bincount(data.safety_segments, data.safety_labels, minlength=len(data.segment_starts))
        ranked = np.where(data.preferences[:, None] > 0.5, data.pairs[:, ::-1], data.pairs)  # winner, loser
        self._pairs = ranked[(data.preferences != 0.5) & (votes[ranked[:, 0]] >= 0)]
        if len(self._pairs) == 0:
            raise DataError("my_method: every winner is labelled unsafe; label more pairs")
        self._data, self._config, self._seed = data, config, seed
        self.n_steps = config.cloning.n_steps + config.n_steps
        self.policy = new_policy(data, config.policy, seed)
        self._optimizer = adam(self.policy, config.cloning.learning_rate)
        self._cloning = Cloning(self.policy, self._optimizer, data, np.ones(data.n_steps), config.cloning, seed, "all")

    def update(self, step):
        config, data = self._config, self._data
        if step < config.cloning.n_steps:
            loss = self._cloning.update(step)
            return "cloning", {"loss": loss, "log_likelihood": -loss}
        rng = stream(self._seed, "ranking", step)  # of this update's own: a resumed run draws the same
        segments = self._pairs[rng.integers(len(self._pairs), size=config.n_pairs)]
        rows, _ = sample_segment_steps(data.segment_starts[segments], data.segment_lengths[segments], 16, rng)
        winners, losers = self.policy.log_prob(data.observations[rows], data.actions[rows]).mean(-1).T
        ranking = (config.margin - (winners - losers)).relu().mean()
        loss = ranking - config.cloning_weight * winners.mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        accuracy = (winners > losers).float().mean()
        values = {"loss": loss, "preference_loss": ranking, "preference_accuracy": accuracy}
        return "ranking", {name: float(value.detach()) for name, value in values.items()}

    def state(self):
        return training_tensors(self.policy, self._optimizer)

    def load_state(self, state):
        load_training_tensors(state, self.policy, self._optimizer)


METHOD = Method(RankingConfig, {"default": RankingConfig()}, Ranking)
