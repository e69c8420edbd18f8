"""An ensemble of reward models learnt from preferences: what asking actively consults.

Source: B-Pref (Lee et al. 2021), ``RewardModel``: three networks with tanh outputs, trained by cross-entropy on
P(second preferred) = sigmoid(sum of rewards of the second - of the first). We differ: smaller networks, and all pairs
are there from the start.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from feedbackgen.active import Ensemble
from feedbackgen.errors import DataError, RecipeError
from feedbackgen.seeding import derived_seed, stream
from feedbackgen.types import FloatArray
from presa.batch import OBSERVATION_CLIP, LearningData, load_learning_data, require_preferences


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """How the ensemble is trained.

    Raises:
        RecipeError: a value is out of range.
    """

    n_members: int = 3
    n_updates: int = 300
    batch_size: int = 32  # pairs
    n_units: int = 64  # of each of two hidden layers
    learning_rate: float = 1e-3

    def __post_init__(self):
        if self.n_members < 2:
            raise RecipeError(f"n_members: expected at least 2, got {self.n_members}")
        for name in ("n_updates", "batch_size", "n_units"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise RecipeError(f"learning_rate: expected a number above 0, got {self.learning_rate}")


def learn_ensemble(feedback: str | Path, *, seed: int, config: EnsembleConfig | None = None) -> Ensemble:
    """Train an ensemble on the preferences of a store.

    Args:
        feedback: a store's path, or ``DATASET[/NAME]``.
        seed: fixes every draw.
        config: how to train; None: the defaults.

    Returns:
        A function of observations, (n, O), and actions, (n, A), as stored: rewards by each member, (n_members, n).

    Raises:
        DataError: the store or its dataset is damaged, or holds no preferences.
        StoreError: no such store.
    """
    data = load_learning_data(feedback)
    require_preferences(data, "an ensemble")
    return fit_ensemble(data, seed=seed, config=config or EnsembleConfig())


def fit_ensemble(data: LearningData, *, seed: int, config: EnsembleConfig) -> Ensemble:
    """Train an ensemble; see `learn_ensemble`."""
    members = [_fit_member(data, seed, index, config) for index in range(config.n_members)]

    def ensemble(observations: FloatArray, actions: FloatArray) -> FloatArray:
        expected = len(data.observation_mean), len(data.action_low)
        if (observations.shape[1], actions.shape[1]) != expected:
            raise DataError(
                f"ensemble: was learnt on {expected[0]} numbers an observation and {expected[1]} an action, got "
                f"{observations.shape[1]} and {actions.shape[1]}; give --ensemble feedback of the same task"
            )
        standardised = (observations - data.observation_mean) / data.observation_std
        scaled = 2 * (actions - data.action_low) / (data.action_high - data.action_low) - 1
        steps = np.concatenate([np.clip(standardised, -OBSERVATION_CLIP, OBSERVATION_CLIP), scaled], axis=1)
        with torch.no_grad():
            rewards = [member(torch.from_numpy(steps.astype(np.float32))) for member in members]
        return torch.cat(rewards, dim=1).T.double().numpy()

    return ensemble


def preference_loss(first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of Bradley-Terry; a label of 0.5 asks for equal returns.

    Args:
        first: predicted return of the first segments, (P,).
        second: of the second, (P,).
        labels: P(second preferred), (P,).
    """
    return nn.functional.binary_cross_entropy_with_logits(second - first, labels)


def _fit_member(data: LearningData, seed: int, index: int, config: EnsembleConfig) -> nn.Sequential:
    rng = stream(seed, "ensemble", index)
    n_inputs = len(data.observation_mean) + len(data.action_low)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "ensemble", index))
        network = nn.Sequential(
            nn.Linear(n_inputs, config.n_units),
            nn.LeakyReLU(),
            nn.Linear(config.n_units, config.n_units),
            nn.LeakyReLU(),
            nn.Linear(config.n_units, 1),
            nn.Tanh(),
        )
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    for _ in range(config.n_updates):
        rows = rng.integers(len(data.pairs), size=config.batch_size)
        returns = _returns(network, data, data.pairs[rows])
        loss = preference_loss(returns[:, 0], returns[:, 1], torch.from_numpy(data.preferences[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def _returns(network: nn.Sequential, data: LearningData, segments: np.ndarray) -> Tensor:
    """Predicted returns of segments of any lengths, in the shape of ``segments``."""
    first, lengths = data.segment_starts[segments.ravel()], data.segment_lengths[segments.ravel()]
    ends = np.cumsum(lengths)
    rows = np.arange(ends[-1]) + np.repeat(first - ends + lengths, lengths)
    steps = torch.cat([data.observations[rows], data.actions[rows]], dim=1)
    owner = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
    sums = torch.zeros(len(lengths)).index_add(0, owner, network(steps)[:, 0])
    return sums.reshape(segments.shape)
