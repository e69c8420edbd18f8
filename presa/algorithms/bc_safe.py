"""BC-Safe: clone the steps of segments labelled safe; reads no preference."""

from dataclasses import dataclass, field

from torch import Tensor

from presa.batch import LearningData, require_safety_labels
from presa.checkpoint import load_training_tensors, training_tensors
from presa.cloning import Cloning, CloningConfig, adam, new_policy, safe_segment_weights
from presa.policy import PLAIN, PolicyConfig


@dataclass(frozen=True, kw_only=True)
class BCSafeConfig:
    """What BC-Safe learns with."""

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    cloning: CloningConfig = field(default_factory=CloningConfig)


PRESETS = {
    "default": BCSafeConfig(),
    "paper": BCSafeConfig(policy=PLAIN, cloning=CloningConfig(learning_rate_final=1.0, start_share=0.0)),
}


class SafeBehaviourCloning:
    """BC-Safe, one update at a time."""

    def __init__(self, data: LearningData, config: BCSafeConfig, seed: int):
        require_safety_labels(data, "bc-safe")
        self.n_steps = config.cloning.n_steps
        self.policy = new_policy(data, config.policy, seed)
        self._optimizer = adam(self.policy, config.cloning.learning_rate)
        self._cloning = Cloning(
            self.policy, self._optimizer, data, safe_segment_weights(data), config.cloning, seed, "safe"
        )

    def update(self, step: int) -> tuple[str, dict[str, float]]:
        """Take one step; returns the phase and what to log."""
        loss = self._cloning.update(step)
        return "cloning", {"loss": loss, "log_likelihood": -loss}

    def state(self) -> dict[str, Tensor]:
        return training_tensors(self.policy, self._optimizer)

    def load_state(self, state: dict[str, Tensor]) -> None:
        load_training_tensors(state, self.policy, self._optimizer)
