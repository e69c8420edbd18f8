"""The policy being learnt: Gaussians of fixed width around a tanh network, in the action box scaled to [-1, 1]."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from feedbackgen.errors import RecipeError
from feedbackgen.seeding import derived_seed
from presa.mapped import MappedRows


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """The network and its width.

    Raises:
        RecipeError: a value is out of range.
    """

    hidden_sizes: tuple[int, ...] = (256, 256)  # units of each hidden layer
    std: float = 0.3  # of every action dimension, in half widths of the action box [R]
    n_components: int = 1  # Gaussians of the mixture; one cannot stand for "left or right, but not straight on"
    encoding_bins: int = 8  # parts of each observation's range that the network sees one by one; 0 shows it only whole

    def __post_init__(self):
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise RecipeError(f"hidden_sizes: expected positive sizes, got {self.hidden_sizes}")
        if not self.std > 0:
            raise RecipeError(f"std: expected a number above 0, got {self.std}")
        if self.n_components < 1:
            raise RecipeError(f"n_components: expected at least 1, got {self.n_components}")
        if self.encoding_bins < 0:
            raise RecipeError(f"encoding_bins: expected a number >= 0, got {self.encoding_bins}")


PLAIN = PolicyConfig(encoding_bins=0)  # what the papers that we compare with have


class PiecewiseLinearEncoding(nn.Module):
    """Observations, and beside each how far it reaches into every part of its range, from 0 to 1.

    A step of a lidar that is small beside its spread, from close to a hazard to inside it, so becomes a large input.
    Source: piecewise-linear encoding (Gorishniy, Rubachev, Babenko, "On Embeddings for Numerical Features in Tabular
    Deep Learning", 2022); our parts are equally wide, theirs hold equally many values: what is near is rare.
    """

    low: Tensor  # (O,), where the first part begins
    high: Tensor  # (O,), where the last one ends
    _parts: Tensor  # 0 to n_bins - 1

    def __init__(self, low: Tensor, high: Tensor, n_bins: int):
        super().__init__()
        self.n_bins = n_bins
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.register_buffer("_parts", torch.arange(n_bins, dtype=torch.float32), persistent=False)

    def forward(self, observations: Tensor) -> Tensor:
        """(..., O) to (..., O + O * n_bins); bin b of observation o stands at O + o * n_bins + b."""
        places = (observations - self.low) * (self.n_bins / (self.high - self.low))
        parts = (places.unsqueeze(-1) - self._parts).clamp_(0, 1)
        return torch.cat([observations, parts.flatten(-2)], -1)


class GaussianPolicy(nn.Module):
    """Mean ``tanh(MLP(standardised observation))``; acts by its mean, a mixture by that of its likeliest component."""

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        config: PolicyConfig,
        seed: int,
        ranges: tuple[Tensor, Tensor] | None = None,  # least and greatest of the observations, (O,), for an encoding
    ):
        super().__init__()
        self.std, self.n_components, self.action_dim = config.std, config.n_components, action_dim
        n_outputs = action_dim if config.n_components == 1 else config.n_components * (action_dim + 1)
        self.encoding: PiecewiseLinearEncoding | nn.Identity = nn.Identity()
        if config.encoding_bins:
            if ranges is None:
                raise ValueError("encoding_bins: needs the ranges of the observations; see presa.cloning.new_policy")
            self.encoding = PiecewiseLinearEncoding(*ranges, config.encoding_bins)
        n_inputs = observation_dim * (1 + config.encoding_bins)
        self.network = mlp([n_inputs, *config.hidden_sizes, n_outputs], derived_seed(seed, "policy"))

    def forward(self, observations: Tensor) -> Tensor:
        """Actions in [-1, 1], (..., A)."""
        if self.n_components == 1:
            return torch.tanh(self.network(self.encoding(observations)))
        return self._likeliest(*self._components(observations))

    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Log-density of actions, (...,); for a fixed width a scaled squared error and a constant."""
        return self.own_and_log_prob(observations, actions)[1]

    def own_and_log_prob(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The policy's own actions, (..., A), and the log-density of given ones, (...,), from one pass."""
        constant = self.action_dim * math.log(self.std * math.sqrt(2 * math.pi))
        if self.n_components == 1:
            own = self(observations)
            return own, -self.divergence(actions, own) - constant
        means, logits = self._components(observations)
        log_densities = torch.log_softmax(logits, -1) - self.divergence(actions.unsqueeze(-2), means)
        return self._likeliest(means, logits), torch.logsumexp(log_densities, -1) - constant

    def divergence(self, first: Tensor, second: Tensor) -> Tensor:
        """Of two Gaussians of the policy's width around these actions, (..., A), from each other, nats, (...,)."""
        return (first - second).square().sum(-1) * (0.5 / self.std**2)

    def _likeliest(self, means: Tensor, logits: Tensor) -> Tensor:
        likeliest = logits.argmax(-1)[..., None, None].expand(*logits.shape[:-1], 1, self.action_dim)
        return means.gather(-2, likeliest).squeeze(-2)

    def _components(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Means, (..., K, A), and the weights' logits, (..., K)."""
        outputs = self.network(self.encoding(observations))
        means, logits = outputs.split([self.n_components * self.action_dim, self.n_components], -1)
        return torch.tanh(means).unflatten(-1, (self.n_components, self.action_dim)), logits


@torch.no_grad()
def own_and_log_probs(
    policy: GaussianPolicy, observations: Tensor | MappedRows, actions: Tensor | MappedRows, chunk: int = 16384
) -> tuple[Tensor, Tensor]:
    """The policy's own action in every state of a dataset, (n_steps, A), and the log-density of what was done there,
    (n_steps,), without gradient."""
    parts = zip(observations.split(chunk), actions.split(chunk), strict=True)
    own, log_densities = zip(*(policy.own_and_log_prob(*part) for part in parts), strict=True)
    return torch.cat(own), torch.cat(log_densities)


def mlp(sizes: Sequence[int], seed: int) -> nn.Sequential:
    """Linear layers with rectifiers between them, initialised as torch does but from a seed of their own."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [skip_init(nn.Linear, inputs, outputs), nn.ReLU()]
    network = nn.Sequential(*layers[:-1])
    _initialise(network, torch.Generator().manual_seed(seed))
    return network


def _initialise(network: nn.Sequential, generator: torch.Generator) -> None:
    """Torch's own initialisation, from our generator instead of the global one."""
    for layer in network:
        if isinstance(layer, nn.Linear):
            bound = 1 / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
