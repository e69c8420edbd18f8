"""Contrastive preference learning: what CPL and its variants share, and PreSa's preference loss."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from feedbackgen.errors import RecipeError
from feedbackgen.seeding import stream
from feedbackgen.types import FloatArray
from presa.batch import LearningData, gather, sample_segment_steps
from presa.checkpoint import load_training_tensors, training_tensors
from presa.cloning import BLOCK, Cloning, CloningConfig, adam, new_policy, set_learning_rate
from presa.policy import PolicyConfig


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """What CPL learns with; as many updates in all as PreSa's default.

    Raises:
        RecipeError: a value is out of range.
    """

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    cloning: CloningConfig = field(
        default_factory=lambda: CloningConfig(n_steps=5_000, learning_rate_final=1.0)
    )  # of every step, before
    n_steps: int = 10_500  # updates after the cloning
    learning_rate: float = 3e-4  # of Adam
    learning_rate_final: float = 1.0  # at the end, as a share of learning_rate
    n_pairs: int = 96  # per update
    n_segment_steps: int = 16  # random steps that stand for a segment; 0 takes all
    utility_scale: float = 0.1  # log-odds per nat (CPL's temperature alpha)
    utility_length: float = 64.0  # steps; the utility of any segment is that of one of this length
    conservative_bias: float = 0.5  # CPL's lambda, weight of the loser's utility

    def __post_init__(self):
        for name in ("n_steps", "learning_rate", "learning_rate_final", "n_pairs", "utility_scale", "utility_length"):
            if not getattr(self, name) > 0:
                raise RecipeError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        if self.n_segment_steps < 0:
            raise RecipeError(f"n_segment_steps: expected a number >= 0, got {self.n_segment_steps}")
        if not 0 <= self.conservative_bias <= 1:
            raise RecipeError(f"conservative_bias: expected a number from 0 to 1, got {self.conservative_bias}")


def preference_loss(first: Tensor, second: Tensor, labels: Tensor, conservative_bias: float) -> Tensor:
    """CPL's loss ``softplus(-(U_winner - bias * U_loser))``, mean over pairs; a tie counts half each way.

    Source: Hejna et al., "Contrastive Preference Learning", ICLR 2024, equation 5 and its conservative regulariser.

    Args:
        first, second: utilities, (P,).
        labels: P(second preferred), (P,).
    """
    second_wins = softplus(-(second - conservative_bias * first))
    first_wins = softplus(-(first - conservative_bias * second))
    return (labels * second_wins + (1 - labels) * first_wins).mean()


def preferred_mean(values: Tensor, labels: Tensor) -> Tensor:
    """Mean over the winners' steps; not a number where all pairs are ties.

    Args:
        values: of the steps of the first segments, then of the second, (2 P, K).
        labels: P(second preferred), (P,).
    """
    first, second = values.chunk(2)
    return torch.where(labels[:, None] > 0.5, second, first)[labels != 0.5].mean()


class ContrastiveLearner:
    """CPL on any labels of the pairs, one update at a time: cloning of everything first, then the contrast."""

    def __init__(self, data: LearningData, labels: FloatArray, config: ContrastiveConfig, seed: int):
        self._data, self._config, self._seed = data, config, seed
        self._labels = np.asarray(labels, dtype=np.float32)
        self.policy = new_policy(data, config.policy, seed)
        self._optimizer = adam(self.policy, config.cloning.learning_rate)
        self._n_cloning = config.cloning.n_steps
        self.n_steps = self._n_cloning + config.n_steps
        self._cloning = Cloning(self.policy, self._optimizer, data, np.ones(data.n_steps), config.cloning, seed, "all")
        self._n_segment_steps = config.n_segment_steps or int(data.segment_lengths[data.pairs].max())
        self._block = -1
        self._drawn: tuple[Tensor, ...] = ()

    def update(self, step: int) -> tuple[str, dict[str, float]]:
        """Take one step; returns the phase and what to log."""
        if step < self._n_cloning:
            loss = self._cloning.update(step)
            return "cloning", {"loss": loss, "log_likelihood": -loss}
        if step == self._n_cloning:
            self._optimizer = adam(self.policy, self._config.learning_rate)
        return "contrast", self._update_contrast(step - self._n_cloning)

    def _update_contrast(self, step: int) -> dict[str, float]:
        config, data = self._config, self._data
        rows, labels = self._draw(step)
        log_likelihoods = self.policy.log_prob(gather(data.observations, rows), gather(data.actions, rows))
        utilities = config.utility_scale * config.utility_length * log_likelihoods.mean(-1)
        first, second = utilities.split(config.n_pairs)
        loss = preference_loss(first, second, labels, config.conservative_bias)
        set_learning_rate(self._optimizer, config, step)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        with torch.no_grad():
            decided = labels != 0.5
            correct = ((second > first) == (labels > 0.5))[decided].float().mean()
            preferred = preferred_mean(log_likelihoods, labels)
            return {
                "loss": float(loss.detach()),
                "preference_loss": float(loss.detach()),
                "preference_accuracy": float(correct),
                "log_likelihood": float(log_likelihoods.mean()),
                "log_likelihood_preferred": float(preferred),
            }

    def _draw(self, step: int) -> tuple[Tensor, ...]:
        """Rows of the drawn steps of first and then second segments, (2 P, K), and labels, (P,)."""
        if step // BLOCK != self._block:
            # A stream of its own for each block: a resumed run needs no state of a generator.
            self._block = step // BLOCK
            rng = stream(self._seed, "contrast", self._block)
            data = self._data
            pairs = rng.integers(len(data.pairs), size=(BLOCK, self._config.n_pairs))
            segments = np.concatenate([data.pairs[pairs, 0], data.pairs[pairs, 1]], axis=1)
            rows, _ = sample_segment_steps(
                data.segment_starts[segments], data.segment_lengths[segments], self._n_segment_steps, rng
            )
            self._drawn = tuple(torch.from_numpy(values).to(data.device) for values in (rows, self._labels[pairs]))
        return tuple(values[step % BLOCK] for values in self._drawn)

    def state(self) -> dict[str, Tensor]:
        return training_tensors(self.policy, self._optimizer)

    def load_state(self, state: dict[str, Tensor]) -> None:
        load_training_tensors(state, self.policy, self._optimizer)
