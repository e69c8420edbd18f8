"""The reference policy alone, cloned from labels pooled by episode: our extension, and PreSa's own starting point."""

from dataclasses import dataclass, field

from presa.batch import LearningData
from presa.policy import make_policy
from presa.reference import ReferenceCloning, ReferenceConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    hidden: tuple[int, ...] = (256, 256)


PRESETS = {"default": Config()}


class Learner:
    def __init__(self, data: LearningData, config: Config, seed: int):
        self.policy = make_policy(
            data.observations.shape[1], data.actions.shape[1], hidden=config.hidden, seed=seed
        )
        self.cloning = ReferenceCloning(data, self.policy, config.reference, seed)
        self.n_steps = self.cloning.n_steps

    def update(self, step: int) -> dict[str, float]:
        return self.cloning.update(step)

    def modules(self) -> dict:
        return {"policy": self.policy, **self.cloning.modules()}

    def scalars(self) -> dict[str, float]:
        return {}

    def set_scalars(self, scalars: dict[str, float]) -> None:
        """Nothing but the modules lives on between steps."""
