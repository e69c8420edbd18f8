"""CDT: constrained decision transformer (Liu et al., ICML 2023) from TRUE rewards and costs, for reference only.

A transformer tells each step's action from the steps before it and from the cost and the return of all that follow in
its episode; it then acts for the cost limit, and for the best return that an episode of the dataset has within it.

Source: arXiv 2302.07351. We differ from OSRL, whose numbers the preset ``osrl`` holds: no episode is added under a
target beyond the dataset's (their augmentation), and none is drawn more often for its cost; windows end at a step drawn
from all, so that starts of episodes come as often as the rest; costs and returns to go are standardised; the entropy's
weight is fixed instead of learnt; of the cost no less than 0 is left while acting.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from feedbackgen.errors import RecipeError
from feedbackgen.types import FloatArray, IntArray
from presa.batch import gather
from presa.checkpoint import load_training_tensors, training_tensors
from presa.critics import step_generator
from presa.transformer import DecisionTransformer, Predictions
from presa.true_rewards import RewardedData


@dataclass(frozen=True, kw_only=True)
class CDTConfig:
    """What CDT learns with.

    Raises:
        RecipeError: a value is out of range.
    """

    context: int = 10  # steps that the transformer looks at
    n_units: int = 128  # of each token
    n_layers: int = 3
    n_heads: int = 8  # of attention
    dropout: float = 0.1
    n_steps: int = 13_000  # updates
    batch_size: int = 32  # windows of ``context`` environment steps per update
    learning_rate: float = 3e-4  # of AdamW
    warmup_steps: int = 500  # updates over which it rises to that
    weight_decay: float = 1e-4
    gradient_norm_max: float = 0.25
    entropy_weight: float = 0.1  # per nat of the action's entropy
    cost_weight: float = 0.02  # of telling whether a step costs

    def __post_init__(self):
        for name in (
            "context", "n_units", "n_layers", "n_heads", "n_steps", "batch_size", "learning_rate", "warmup_steps",
            "gradient_norm_max",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise RecipeError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        for name in ("weight_decay", "entropy_weight", "cost_weight"):
            if getattr(self, name) < 0:
                raise RecipeError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise RecipeError(f"dropout: expected 0 to below 1, got {self.dropout}")
        if self.n_units % self.n_heads:
            raise RecipeError(f"n_units: expected a multiple of n_heads {self.n_heads}, got {self.n_units}")


PRESETS = {
    "default": CDTConfig(),
    "osrl": CDTConfig(n_steps=100_000, batch_size=2048, learning_rate=1e-4),
}


class Windows(NamedTuple):
    """Steps in a row, as many as fit before the last of each window."""

    to_go: Tensor  # (B, L, 2), cost and return from each step to its episode's end
    observations: Tensor  # (B, L, O)
    actions: Tensor  # (B, L, A)
    times: Tensor  # (B, L), steps of its episode before each
    costs: Tensor  # (B, L)
    inside: Tensor  # (B, L), False where a window has ended already


class CDT:
    """CDT, one update at a time."""

    def __init__(self, data: RewardedData, config: CDTConfig, seed: int):
        self._data, self._config, self._seed = data, config, seed
        self.n_steps = config.n_steps
        to_go = targets_to_go(data)
        self._to_go = torch.from_numpy(to_go.astype(np.float32)).to(data.device)
        self.policy = DecisionTransformer(
            data.observations.shape[1],
            data.actions.shape[1],
            n_times=max(data.horizon, int(np.diff(data.episode_starts).max())),
            context=config.context,
            n_units=config.n_units,
            n_layers=config.n_layers,
            n_heads=config.n_heads,
            seed=seed,
        )
        self.policy.target.copy_(torch.from_numpy(best_target(to_go[data.episode_starts[:-1]], data.cost_limit)))
        self.policy.centre.copy_(torch.from_numpy(to_go.mean(0)))
        spread = to_go.std(0)
        self.policy.spread.copy_(torch.from_numpy(np.where(spread > 0, spread, 1.0)))
        self.policy.to(data.device)
        self._optimizer = torch.optim.AdamW(
            self.policy.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )

    def update(self, step: int) -> tuple[str, dict[str, float]]:
        """Take one step of AdamW; returns the phase and what to log."""
        config, generator = self._config, step_generator(self._seed, "cdt", step)
        windows = draw_windows(self._data, self._to_go, config, generator)
        inputs = (windows.to_go, windows.observations, windows.actions, windows.times)
        predictions = self.policy(*inputs, config.dropout, generator)
        loss, log_likelihood = cdt_loss(predictions, windows, config)
        self._optimizer.param_groups[0]["lr"] = config.learning_rate * min((step + 1) / config.warmup_steps, 1)
        self._optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(self.policy.parameters(), config.gradient_norm_max)
        self._optimizer.step()
        return "cdt", {"loss": float(loss.detach()), "log_likelihood": float(log_likelihood.detach())}

    def state(self) -> dict[str, Tensor]:
        return training_tensors(self.policy, self._optimizer)

    def load_state(self, state: dict[str, Tensor]) -> None:
        load_training_tensors(state, self.policy, self._optimizer)


def cdt_loss(predictions: Predictions, windows: Windows, config: CDTConfig) -> tuple[Tensor, Tensor]:
    """Less the log-likelihood and some of the entropy of actions, and cross-entropy of whether steps cost.

    Returns:
        The loss and the log-likelihood, nats per step, means over the steps inside.
    """
    means, log_stds, cost_logits = predictions
    half_log = 0.5 * math.log(2 * math.pi)
    errors = (windows.actions - means) / log_stds.exp()
    log_likelihood = (-0.5 * errors.square() - log_stds - half_log).sum(-1)
    entropy = (log_stds + half_log + 0.5).sum(-1)
    costly = (windows.costs > 0).to(cost_logits.dtype)
    cost_error = functional.binary_cross_entropy_with_logits(cost_logits, costly, reduction="none")
    losses = config.cost_weight * cost_error - log_likelihood - config.entropy_weight * entropy
    inside = windows.inside.to(losses.dtype)
    return (losses * inside).sum() / inside.sum(), (log_likelihood * inside).sum() / inside.sum()


def targets_to_go(data: RewardedData) -> FloatArray:
    """Cost and return from each step to its episode's end, undiscounted, (n_steps, 2)."""
    columns = (data.costs.cpu().numpy(), data.rewards.cpu().numpy())
    return np.stack([sums_to_go(column, data.episode_starts) for column in columns], 1)


def sums_to_go(values: FloatArray, episode_starts: IntArray) -> FloatArray:
    """Sum of each step's value and all later ones of its episode, (n_steps,)."""
    before = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return np.repeat(before[episode_starts[1:]], np.diff(episode_starts)) - before[:-1]


def best_target(episodes: FloatArray, cost_limit: float) -> FloatArray:
    """The limit, and the highest return within it, (2,), of episodes' costs and returns, (n_episodes, 2).

    Where no episode is within the limit, the highest return of those that cost least.
    """
    costs, returns = episodes.T
    return np.array([cost_limit, returns[costs <= max(cost_limit, costs.min())].max()])


def draw_windows(data: RewardedData, to_go: Tensor, config: CDTConfig, generator: torch.Generator) -> Windows:
    """What acting would look at, at steps drawn uniformly with replacement."""
    last = torch.randint(data.n_steps, (config.batch_size,), generator=generator)
    starts = torch.from_numpy(data.episode_starts)
    begun = starts[torch.searchsorted(starts, last, right=True) - 1]  # each episode's first step
    first = torch.maximum(last - config.context + 1, begun)
    rows = first[:, None] + torch.arange(config.context)
    inside = rows <= last[:, None]
    rows = torch.minimum(rows, last[:, None])
    return Windows(
        gather(to_go, rows),
        gather(data.observations, rows),
        gather(data.actions, rows),
        (rows - begun[:, None]).to(data.device),
        data.costs[rows],
        inside.to(data.device),
    )
