"""BCQ-Lag: batch-constrained Q-learning under a multiplier, from TRUE rewards and costs, for reference only.

A VAE proposes actions like the dataset's (Fujimoto et al., "Off-Policy Deep Reinforcement Learning without
Exploration", ICML 2019); values rest on the best of some proposals, a shift of each climbs the reward value less the
multiplier times the cost value, and a controller moves the multiplier while the cost value exceeds its limit.

We differ from OSRL, whose numbers the preset ``osrl`` holds: an episode's own end stops the cost value too, its
targets are at least 0, and ``default`` acts by the best of ten proposals as BCQ does, by the very quantity that the
shift climbs; OSRL acts by one. A value's time constant is ``1 / (target_rate * (1 - discount))`` updates, 20,000 by
OSRL's numbers, 2,000 by ours.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from feedbackgen.errors import RecipeError
from presa.candidates import LATENT_CLIP, CandidatePolicy
from presa.cloning import adam
from presa.critics import (
    Critics,
    Transitions,
    critic_loss,
    descend,
    draw_transitions,
    follow,
    held,
    load_networks_state,
    networks_state,
    normal,
    step_generator,
    vae_loss,
    value_limit,
)
from presa.lagrange import PIDMultiplier
from presa.true_rewards import RewardedData


@dataclass(frozen=True, kw_only=True)
class BCQLagConfig:
    """What BCQ-Lag learns with.

    Raises:
        RecipeError: a value is out of range.
    """

    shift_sizes: tuple[int, ...] = (128, 128)  # units of each hidden layer
    critic_sizes: tuple[int, ...] = (128, 128)  # of both values, two networks each
    vae_sizes: tuple[int, ...] = (128, 128)  # of its encoder and its decoder
    n_steps: int = 13_000  # updates
    batch_size: int = 256  # environment steps per update
    learning_rate: float = 1e-3  # of Adam, for every network
    reward_scale: float = 0.1  # rewards are multiplied with it
    discount: float = 0.99  # per step
    target_rate: float = 0.05  # by which target networks follow, per update
    divergence_weight: float = 0.5  # of the VAE's loss (OSRL's beta)
    shift_max: float = 0.05  # of a proposal, in half widths of the action box (BCQ's phi)
    n_target_candidates: int = 4  # proposals whose best counts as a step's value
    n_candidates: int = 10  # proposals whose best is acted
    lowest_weight: float = 0.75  # of the lower critic in a target, the rest is the higher's (BCQ's lambda)
    proportional_gain: float = 0.1  # of the multiplier, per unit of the cost value beyond its limit
    integral_gain: float = 0.003
    derivative_gain: float = 0.001

    def __post_init__(self):
        for name in (
            "n_steps", "batch_size", "learning_rate", "reward_scale", "target_rate", "n_target_candidates",
            "n_candidates",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise RecipeError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        for name in (
            "divergence_weight", "shift_max", "proportional_gain", "integral_gain", "derivative_gain",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise RecipeError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
        if not 0 < self.discount <= 1:
            raise RecipeError(f"discount: expected above 0 to 1, got {self.discount}")
        if not 0 <= self.lowest_weight <= 1:
            raise RecipeError(f"lowest_weight: expected 0 to 1, got {self.lowest_weight}")


PRESETS = {
    "default": BCQLagConfig(),
    "osrl": BCQLagConfig(
        shift_sizes=(256, 256),
        critic_sizes=(256, 256),
        vae_sizes=(400, 400),
        n_steps=100_000,
        batch_size=512,
        target_rate=0.005,
        n_target_candidates=10,
        n_candidates=1,
    ),
}


class BCQLag:
    """BCQ-Lag, one update at a time."""

    def __init__(self, data: RewardedData, config: BCQLagConfig, seed: int):
        self._data, self._config, self._seed = data, config, seed
        self.n_steps = config.n_steps
        self.policy = CandidatePolicy(
            data.observations.shape[1],
            data.actions.shape[1],
            vae_sizes=config.vae_sizes,
            shift_sizes=config.shift_sizes,
            critic_sizes=config.critic_sizes,
            shift_max=config.shift_max,
            n_candidates=config.n_candidates,
            seed=seed,
        ).to(data.device)
        self._target = copy.deepcopy(self.policy)
        self._networks = {
            "vae": self.policy.vae,
            "shift": self.policy.shift,
            "critics": self.policy.critics,
            "cost_critics": self.policy.cost_critics,
            "target": self._target,
        }
        self._optimizers = {
            name: adam(network, config.learning_rate) for name, network in self._networks.items() if name != "target"
        }
        self._limit = value_limit(data.cost_limit, data.horizon, config.discount)
        self._controller = PIDMultiplier(config.proportional_gain, config.integral_gain, config.derivative_gain)

    def update(self, step: int) -> tuple[str, dict[str, float]]:
        """Take one step of each network; returns the phase and what to log."""
        config, policy, generator = self._config, self.policy, step_generator(self._seed, "bcq-lag", step)
        batch = draw_transitions(self._data, config.batch_size, generator)
        noise = normal((config.batch_size, policy.vae.latent_dim), generator, self._data.device)
        loss = vae_loss(policy.vae, batch.observations, batch.actions, noise, config.divergence_weight)
        vae = descend(self._optimizers["vae"], loss)

        targets, cost_targets = self._targets(batch, generator)
        values = policy.critics(batch.observations, batch.actions)
        critic = descend(self._optimizers["critics"], critic_loss(values, targets))
        cost_values = policy.cost_critics(batch.observations, batch.actions)
        cost_critic = descend(self._optimizers["cost_critics"], critic_loss(cost_values, cost_targets))

        latents = normal((config.batch_size, policy.vae.latent_dim), generator, self._data.device)
        with held(policy.vae, policy.critics, policy.cost_critics):
            actions = policy.propose(batch.observations, latents)
            value = policy.critics(batch.observations, actions).amin(0).mean()
            cost_value = policy.cost_critics(batch.observations, actions).amin(0).mean()
            multiplier = self._controller.update(float(cost_value.detach()) - self._limit)
            policy.multiplier.fill_(multiplier)
            shift = descend(self._optimizers["shift"], multiplier * (cost_value - self._limit) - value)
        follow(self._target, policy, config.target_rate)
        return "bcq-lag", {
            "loss": vae + critic + cost_critic + shift,
            "value": float(value.detach()) / config.reward_scale,
            "cost_value": float(cost_value.detach()),
            "cost_value_limit": self._limit,
            "multiplier": multiplier,
        }

    @torch.no_grad()
    def _targets(self, batch: Transitions, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Of the reward value and of the cost value, both (B,); each takes the highest of the proposals' values."""
        config, target = self._config, self._target
        following = batch.next_observations.repeat_interleave(config.n_target_candidates, 0)
        latents = normal((len(following), target.vae.latent_dim), generator, following.device)
        # Proposals are decoded by the newest VAE, and shifted by the target's network, as OSRL's.
        decoded = self.policy.vae.decode(following, latents.clamp(-LATENT_CLIP, LATENT_CLIP))
        actions = target.shifted(following, decoded)
        kept = config.discount * batch.continuing
        targets = config.reward_scale * batch.rewards + kept * self._best(target.critics, following, actions)
        # No cost is negative, so no cost value is; below 0, networks would bootstrap each other further down.
        cost_values = self._best(target.cost_critics, following, actions).clamp(min=0)
        return targets, batch.costs + kept * cost_values

    def _best(self, critics: Critics, observations: Tensor, actions: Tensor) -> Tensor:
        values = soft_lowest(critics(observations, actions), self._config.lowest_weight)
        return values.reshape(-1, self._config.n_target_candidates).amax(1)

    def state(self) -> dict[str, Tensor]:
        state = networks_state(self._networks, self._optimizers)
        state["controller"] = torch.tensor(self._controller.state(), dtype=torch.float64)
        state["multiplier"] = self.policy.multiplier
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        load_networks_state(state, self._networks, self._optimizers)
        integral, last = state["controller"].tolist()
        self._controller.load_state((integral, last))
        self.policy.multiplier.copy_(state["multiplier"])


def soft_lowest(values: Tensor, lowest_weight: float) -> Tensor:
    """A mixture of the lowest and the highest critic, (B,), of values (n_critics, B)."""
    return lowest_weight * values.amin(0) + (1 - lowest_weight) * values.amax(0)
