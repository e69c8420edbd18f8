"""CPQ: constraints penalised Q-learning (Xu et al., AAAI 2022) from TRUE rewards and costs, for reference only.

A cost value that is raised where the policy leaves the dataset, as a VAE of its actions judges; a reward value that
counts nothing from where the cost value exceeds the limit; and a policy that follows it where the cost value does not.

We differ from OSRL, whose numbers the preset ``osrl`` holds: the policy's width is fixed, its actions are sampled
within the box, the penalty's gradient reaches the cost value as in the paper (there its values are computed without
gradient) and is a mean over the actions outside the data alone, and an episode's own end stops the cost value too.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from feedbackgen.errors import RecipeError
from feedbackgen.seeding import derived_seed
from presa.cloning import adam, new_policy
from presa.critics import (
    ActionVAE,
    Critics,
    Transitions,
    critic_loss,
    descend,
    divergence,
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
from presa.lagrange import Multiplier
from presa.policy import PLAIN, GaussianPolicy, PolicyConfig
from presa.true_rewards import RewardedData

_ONE_GAUSSIAN = PolicyConfig(n_components=1)  # the action of a mixture has no gradient in the weights


@dataclass(frozen=True, kw_only=True)
class CPQConfig:
    """What CPQ learns with.

    Raises:
        RecipeError: a value is out of range.
    """

    policy: PolicyConfig = _ONE_GAUSSIAN
    critic_sizes: tuple[int, ...] = (128, 128)  # units of each hidden layer, of both values
    vae_sizes: tuple[int, ...] = (128, 128)  # of its encoder and its decoder
    n_critics: int = 2  # of each value; the lowest counts
    n_steps: int = 13_000  # updates
    batch_size: int = 256  # environment steps per update
    policy_learning_rate: float = 3e-4  # of Adam
    critic_learning_rate: float = 1e-3
    vae_learning_rate: float = 1e-3
    reward_scale: float = 0.1  # rewards are multiplied with it
    discount: float = 0.99  # per step
    target_rate: float = 0.005  # by which target networks follow, per update
    divergence_weight: float = 0.5  # of the VAE's loss (OSRL's beta)
    n_sampled_actions: int = 4  # of the policy for each step, to look for those outside the data
    outside_share: float = 0.25  # of them, those with the highest divergence, count as outside the data
    outside_limit: float = 1.5  # what their cost value is raised to, in limits of the cost value (OSRL's qc_scalar)
    penalty_rate: float = 1e-3  # of the penalty's weight, per unit and update
    penalty_max: float = 1.0

    def __post_init__(self):
        for name in (
            "n_critics", "n_steps", "batch_size", "policy_learning_rate", "critic_learning_rate", "vae_learning_rate",
            "reward_scale", "target_rate", "n_sampled_actions", "outside_limit",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise RecipeError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        if self.policy.n_components != 1:
            raise RecipeError(f"policy.n_components: expected 1 for cpq, got {self.policy.n_components}")
        for name in ("divergence_weight", "penalty_rate", "penalty_max"):
            if getattr(self, name) < 0:
                raise RecipeError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
        for name in ("discount", "outside_share"):
            if not 0 < getattr(self, name) <= 1:
                raise RecipeError(f"{name}: expected above 0 to 1, got {getattr(self, name)}")


PRESETS = {
    "default": CPQConfig(),
    "osrl": CPQConfig(
        policy=replace(PLAIN, hidden_sizes=(300, 300)),
        critic_sizes=(400, 400),
        vae_sizes=(400, 400),
        n_steps=100_000,
        batch_size=512,
        policy_learning_rate=1e-4,
        n_sampled_actions=10,
    ),
}


class CPQ:
    """CPQ, one update at a time."""

    def __init__(self, data: RewardedData, config: CPQConfig, seed: int):
        self._data, self._config, self._seed = data, config, seed
        self.n_steps = config.n_steps
        self.policy = new_policy(data, config.policy, seed)
        shape = (data.observations.shape[1], data.actions.shape[1])
        self._vae = ActionVAE(*shape, config.vae_sizes, derived_seed(seed, "vae")).to(data.device)
        critics = (*shape, config.critic_sizes, config.n_critics)
        self._critics = Critics(*critics, derived_seed(seed, "critics")).to(data.device)
        self._cost_critics = Critics(*critics, derived_seed(seed, "cost critics")).to(data.device)
        self._target, self._cost_target = copy.deepcopy(self._critics), copy.deepcopy(self._cost_critics)
        self._networks = {
            "policy": self.policy,
            "vae": self._vae,
            "critics": self._critics,
            "cost_critics": self._cost_critics,
            "target": self._target,
            "cost_target": self._cost_target,
        }
        self._optimizers = {
            "policy": adam(self.policy, config.policy_learning_rate),
            "vae": adam(self._vae, config.vae_learning_rate),
            "critics": adam(self._critics, config.critic_learning_rate),
            "cost_critics": adam(self._cost_critics, config.critic_learning_rate),
        }
        self._limit = value_limit(data.cost_limit, data.horizon, config.discount)
        self._penalty = Multiplier(0.0, config.penalty_rate, config.penalty_max, averaging=0.0)

    def update(self, step: int) -> tuple[str, dict[str, float]]:
        """Take one step of each network; returns the phase and what to log."""
        config, generator = self._config, step_generator(self._seed, "cpq", step)
        batch = draw_transitions(self._data, config.batch_size, generator)
        noise = normal((config.batch_size, self._vae.latent_dim), generator, self._data.device)
        loss = vae_loss(self._vae, batch.observations, batch.actions, noise, config.divergence_weight)
        vae = descend(self._optimizers["vae"], loss)

        targets, cost_targets = self._targets(batch, generator)
        values = self._critics(batch.observations, batch.actions)
        critic = descend(self._optimizers["critics"], critic_loss(values, targets))
        cost_values = self._cost_critics(batch.observations, batch.actions)
        outside = self._outside_cost_value(batch.observations, generator)
        penalty = self._penalty.value
        raised = critic_loss(cost_values, cost_targets) - penalty * (outside - config.outside_limit * self._limit)
        cost_critic = descend(self._optimizers["cost_critics"], raised)
        self._penalty.update(config.outside_limit * self._limit - float(outside.detach()))

        with held(self._critics, self._cost_critics):
            actions = noisy_actions(self.policy, batch.observations, generator)
            value = self._critics(batch.observations, actions).amin(0)
            cost_value = self._cost_critics(batch.observations, actions).amin(0)
            policy = descend(self._optimizers["policy"], -permitted(value, cost_value, self._limit).mean())
        follow(self._target, self._critics, config.target_rate)
        follow(self._cost_target, self._cost_critics, config.target_rate)
        return "cpq", {
            "loss": vae + critic + cost_critic + policy,
            "value": float(value.detach().mean()) / config.reward_scale,
            "cost_value": float(cost_value.detach().mean()),
            "cost_value_limit": self._limit,
            "multiplier": penalty,
        }

    @torch.no_grad()
    def _targets(self, batch: Transitions, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Of the reward value and of the cost value, both (B,)."""
        config, following = self._config, batch.next_observations
        actions = noisy_actions(self.policy, following, generator)
        value, cost_value = self._target(following, actions).amin(0), self._cost_target(following, actions).amin(0)
        kept = config.discount * batch.continuing
        targets = config.reward_scale * batch.rewards + kept * permitted(value, cost_value, self._limit)
        return targets, batch.costs + kept * cost_value

    def _outside_cost_value(self, observations: Tensor, generator: torch.Generator) -> Tensor:
        """Mean cost value of the policy's actions that are least like the dataset's."""
        config = self._config
        with torch.no_grad():
            repeated = observations.repeat(config.n_sampled_actions, 1)
            actions = noisy_actions(self.policy, repeated, generator)
            strangeness = divergence(*self._vae.encode(repeated, actions))
            outside = strangeness >= strangeness.quantile(1 - config.outside_share)
        return self._cost_critics(repeated[outside], actions[outside]).mean()

    def state(self) -> dict[str, Tensor]:
        state = networks_state(self._networks, self._optimizers)
        state["penalty"] = torch.tensor(self._penalty.state(), dtype=torch.float64)
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        load_networks_state(state, self._networks, self._optimizers)
        value, violation, n_updates_at_cap = state["penalty"].tolist()
        self._penalty.load_state((value, violation, n_updates_at_cap))


def permitted(value: Tensor, cost_value: Tensor, limit: float) -> Tensor:
    """The reward value where the cost value is within its limit, else 0, (B,)."""
    return torch.where(cost_value <= limit, value, 0.0)


def noisy_actions(policy: GaussianPolicy, observations: Tensor, generator: torch.Generator) -> Tensor:
    """Sampled actions, kept within the box, (B, A); they carry the mean's gradient."""
    means = policy(observations)
    return (means + policy.std * normal(means.shape, generator, means.device)).clamp(-1, 1)
