"""The policy being learnt: Gaussians of fixed width that a network places in the action box scaled to [-1, 1]."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

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
    n_components: int = 5  # Gaussians of the mixture; one cannot stand for "left or right, but not straight on"
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


PLAIN = PolicyConfig(n_components=1, encoding_bins=0)  # what the papers that we compare with have


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


class Components(NamedTuple):
    """The Gaussians of a policy at some observations."""

    means: Tensor  # (..., K, A)
    logits: Tensor  # (..., K), of their weights; (..., 0) where there is but one


class GaussianPolicy(nn.Module):
    """Means ``tanh(MLP(standardised observation))``; acts by the mean of the likeliest component."""

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
        return self.own(self.components(observations))

    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Log-density of actions, (...,); of one Gaussian a scaled squared error and a constant."""
        return self.log_density(self.components(observations), actions)

    def components(self, observations: Tensor) -> Components:
        """What the network says of observations, (..., O)."""
        outputs = self.network(self.encoding(observations))
        n_placed = self.n_components * self.action_dim
        means = torch.tanh(outputs[..., :n_placed]).unflatten(-1, (self.n_components, self.action_dim))
        return Components(means, outputs[..., n_placed:])

    def own(self, components: Components) -> Tensor:
        """The mean of the likeliest, (..., A)."""
        if self.n_components == 1:
            return components.means.squeeze(-2)
        likeliest = components.logits.argmax(-1)[..., None, None]
        return components.means.gather(-2, likeliest.expand(*likeliest.shape[:-1], self.action_dim)).squeeze(-2)

    def log_density(self, components: Components, actions: Tensor) -> Tensor:
        """Of actions, (..., A), under all of them together, (...,)."""
        exponents = (actions.unsqueeze(-2) - components.means).square().sum(-1) * (-0.5 / self.std**2)
        constant = self.action_dim * math.log(self.std * math.sqrt(2 * math.pi))
        if self.n_components == 1:
            return exponents.squeeze(-1) - constant
        return torch.logsumexp(torch.log_softmax(components.logits, -1) + exponents, -1) - constant


class KnownSteps(NamedTuple):
    """What a policy says of every step of a dataset."""

    log_probs: Tensor  # (n_steps,), of what was done there
    own: Tensor  # (n_steps, A), its own action
    own_log_probs: Tensor  # (n_steps,), of its own action


@torch.no_grad()
def known_steps(
    policy: GaussianPolicy, observations: Tensor | MappedRows, actions: Tensor | MappedRows, chunk: int = 16384
) -> KnownSteps:
    """Log-densities of given actions and of the policy's own, without gradient."""
    parts = []
    for there, done in zip(observations.split(chunk), actions.split(chunk), strict=True):
        components = policy.components(there)
        own = policy.own(components)
        parts.append((policy.log_density(components, done), own, policy.log_density(components, own)))
    return KnownSteps(*(torch.cat(each) for each in zip(*parts, strict=True)))


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
