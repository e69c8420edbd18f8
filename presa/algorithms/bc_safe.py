"""BC-Safe: clones the steps of segments that were labelled safe, as often as they were. Knows no preferences."""

from dataclasses import dataclass

import numpy as np

from presa.batch import LearningData
from presa.cloning import Cloning
from presa.policy import make_policy


@dataclass(frozen=True, kw_only=True)
class Config:
    n_steps: int = 13_000  # as many as PreSa's reference gets
    batch_size: int = 256
    learning_rate: float = 1e-3
    start_share: float = 0.1  # of each batch, from the first steps of episodes
    hidden: tuple[int, ...] = (256, 256)


PRESETS = {"default": Config()}


class Learner:
    """Cloning weighted by safe labels."""

    def __init__(self, data: LearningData, config: Config, seed: int):
        self.n_steps = config.n_steps
        self.policy = make_policy(
            data.observations.shape[1], data.actions.shape[1], hidden=config.hidden, seed=seed
        )
        self.cloning = Cloning(
            data,
            self.policy,
            safe_counts(data),
            n_steps=config.n_steps,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            start_share=config.start_share,
            seed=seed,
            name="safe",
        )

    def update(self, step: int) -> dict[str, float]:
        return self.cloning.update(step)

    def modules(self) -> dict:
        return {"policy": self.policy, "optimizer": self.cloning.optimizer}

    def scalars(self) -> dict[str, float]:
        return {}

    def set_scalars(self, scalars: dict[str, float]) -> None:
        """Nothing but the modules lives on between steps."""


def safe_counts(data: LearningData) -> np.ndarray:
    """How many safe labels cover each step, (n_steps,)."""
    safe = data.safety_segments[data.safety_labels == 1]
    first, length = data.segment_first[safe], data.segment_length[safe]
    changes = np.bincount(first, minlength=data.n_steps + 1) - np.bincount(first + length, minlength=data.n_steps + 1)
    return np.cumsum(changes)[:-1].astype(np.float64)
