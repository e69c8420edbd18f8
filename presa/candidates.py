"""BCQ's policy: proposes actions like the dataset's, shifts each a little, and takes the one of the highest value."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from feedbackgen.seeding import derived_seed
from presa.critics import ActionVAE, Critics
from presa.policy import mlp

LATENT_CLIP = 0.5  # proposals come from the middle of the prior, as BCQ's


class CandidatePolicy(nn.Module):
    """Everything that a BCQ policy acts with."""

    kind = "candidates"
    multiplier: Tensor  # (), of the cost value when candidates are compared

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        vae_sizes: Sequence[int],
        shift_sizes: Sequence[int],
        critic_sizes: Sequence[int],
        shift_max: float,  # in half widths of the action box
        n_candidates: int,
        seed: int = 0,
    ):
        super().__init__()
        self.shape: dict[str, Any] = {
            "observation_dim": observation_dim,
            "action_dim": action_dim,
            "vae_sizes": list(vae_sizes),
            "shift_sizes": list(shift_sizes),
            "critic_sizes": list(critic_sizes),
            "shift_max": shift_max,
            "n_candidates": n_candidates,
        }
        self.shift_max, self.n_candidates = shift_max, n_candidates
        self.vae = ActionVAE(observation_dim, action_dim, vae_sizes, derived_seed(seed, "vae"))
        self.shift = mlp([observation_dim + action_dim, *shift_sizes, action_dim], derived_seed(seed, "shift"))
        self.critics = Critics(observation_dim, action_dim, critic_sizes, 2, derived_seed(seed, "critics"))
        self.cost_critics = Critics(observation_dim, action_dim, critic_sizes, 2, derived_seed(seed, "cost critics"))
        self.register_buffer("multiplier", torch.zeros(()))

    def propose(self, observations: Tensor, latents: Tensor) -> Tensor:
        """Shifted proposals in [-1, 1], (B, A), from latents drawn from the prior, (B, Z)."""
        return self.shifted(observations, self.vae.decode(observations, latents.clamp(-LATENT_CLIP, LATENT_CLIP)))

    def shifted(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Actions moved by at most ``shift_max`` within the box, (B, A)."""
        shift = torch.tanh(self.shift(torch.cat([observations, actions], -1)))
        return (actions + self.shift_max * shift).clamp(-1, 1)

    @torch.no_grad()
    def choose(self, observation: Tensor, rng: np.random.Generator) -> Tensor:
        """The candidate whose value less its cost value times the multiplier is highest, (A,)."""
        latents = torch.from_numpy(rng.standard_normal((self.n_candidates, self.vae.latent_dim), dtype=np.float32))
        observations = observation.expand(self.n_candidates, -1)
        actions = self.propose(observations, latents)
        values, cost_values = self.critics(observations, actions).amin(0), self.cost_critics(observations, actions)
        return actions[(values - self.multiplier * cost_values.amin(0)).argmax()]
