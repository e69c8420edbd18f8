"""What offline value learning rests on: Q networks, a conditional VAE of the actions, minibatches of transitions."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from feedbackgen.seeding import derived_seed
from presa.checkpoint import load_training_tensors, training_tensors
from presa.policy import mlp
from presa.true_rewards import RewardedData

LOWEST_LOG_STD, HIGHEST_LOG_STD = -4.0, 15.0  # of the VAE's latent


class Transitions(NamedTuple):
    """Single steps and what came of them."""

    observations: Tensor  # (B, O)
    actions: Tensor  # (B, A)
    rewards: Tensor  # (B,)
    costs: Tensor  # (B,)
    next_observations: Tensor  # (B, O)
    continuing: Tensor  # (B,), 0 where the episode ended by itself


class Critics(nn.Module):
    """Q networks of one shape side by side."""

    def __init__(self, observation_dim: int, action_dim: int, hidden_sizes: Sequence[int], n_critics: int, seed: int):
        super().__init__()
        sizes = [observation_dim + action_dim, *hidden_sizes, 1]
        self.networks = nn.ModuleList(mlp(sizes, derived_seed(seed, index)) for index in range(n_critics))

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Each network's value of each step, (n_critics, ...)."""
        inputs = torch.cat([observations, actions], -1)
        return torch.stack([network(inputs).squeeze(-1) for network in self.networks])


class ActionVAE(nn.Module):
    """Conditional variational autoencoder of the dataset's actions; a latent of twice their dimension, as BCQ's."""

    def __init__(self, observation_dim: int, action_dim: int, hidden_sizes: Sequence[int], seed: int):
        super().__init__()
        self.latent_dim = 2 * action_dim
        self.encoder = mlp([observation_dim + action_dim, *hidden_sizes, 2 * self.latent_dim], derived_seed(seed, 0))
        self.decoder = mlp([observation_dim + self.latent_dim, *hidden_sizes, action_dim], derived_seed(seed, 1))

    def encode(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latent, both (..., Z)."""
        mean, log_std = self.encoder(torch.cat([observations, actions], -1)).chunk(2, -1)
        return mean, log_std.clamp(LOWEST_LOG_STD, HIGHEST_LOG_STD).exp()

    def decode(self, observations: Tensor, latents: Tensor) -> Tensor:
        """Actions in [-1, 1], (..., A)."""
        return torch.tanh(self.decoder(torch.cat([observations, latents], -1)))


def vae_loss(vae: ActionVAE, observations: Tensor, actions: Tensor, noise: Tensor, divergence_weight: float) -> Tensor:
    """Squared error of the actions decoded again, and the divergence of their latents from the prior."""
    mean, std = vae.encode(observations, actions)
    decoded = vae.decode(observations, mean + std * noise)
    return (decoded - actions).square().mean() + divergence_weight * divergence(mean, std).mean()


def divergence(mean: Tensor, std: Tensor) -> Tensor:
    """KL divergence of a Gaussian from the standard one, nats per dimension of the latent, (...,)."""
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean(-1)


def critic_loss(values: Tensor, targets: Tensor) -> Tensor:
    """Squared Bellman error, summed over critics; values (n_critics, B), targets (B,)."""
    return (values - targets).square().mean(-1).sum()


def value_limit(cost_limit: float, horizon: int, discount: float) -> float:
    """What a cost value may be: the limit spread evenly over an episode, discounted from its first step.

    Source: OSRL (github.com/liuzuxin/OSRL), the threshold of all its methods with a cost value.
    """
    steps = float(horizon) if discount == 1 else (1 - discount**horizon) / (1 - discount)
    return cost_limit / horizon * steps


def draw_transitions(data: RewardedData, batch_size: int, generator: torch.Generator) -> Transitions:
    """Steps drawn uniformly with replacement."""
    rows = torch.randint(data.n_steps, (batch_size,), generator=generator)
    return Transitions(
        data.observations[rows],
        data.actions[rows],
        data.rewards[rows],
        data.costs[rows],
        data.next_observations(rows),
        data.continuing(rows),
    )


def step_generator(seed: int, name: str, step: int) -> torch.Generator:
    """A generator of each update's own: a resumed run needs no state of one."""
    return torch.Generator().manual_seed(derived_seed(seed, name, step))


def normal(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal draws, the same on any device."""
    return torch.randn(shape, generator=generator).to(device)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """One step down the loss; the loss before it."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


@contextmanager
def held(*networks: nn.Module) -> Iterator[None]:
    """Let gradients pass through some networks without reaching their parameters."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Move the parameters of a target network towards those of its source."""
    for slow, fast in zip(target.parameters(), source.parameters(), strict=True):
        slow.lerp_(fast, rate)


Networks = Mapping[str, nn.Module]
Optimizers = Mapping[str, torch.optim.Optimizer]  # by the names of their networks; a target has none


def networks_state(networks: Networks, optimizers: Optimizers) -> dict[str, Tensor]:
    """Parameters of all networks and the states of their optimizers, flat."""
    state: dict[str, Tensor] = {}
    for part, network in networks.items():
        state |= {f"{part}.{name}": value for name, value in training_tensors(network, optimizers.get(part)).items()}
    return state


def load_networks_state(state: Mapping[str, Tensor], networks: Networks, optimizers: Optimizers) -> None:
    """Put back what `networks_state` gave."""
    for part, network in networks.items():
        prefix = f"{part}."
        own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        load_training_tensors(own, network, optimizers.get(part))
