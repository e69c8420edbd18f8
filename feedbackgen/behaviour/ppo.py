"""Proximal policy optimisation of one network for all cautions, in batches (extra ``train``: torch).

Source: Schulman et al., 2017; details as in Stable-Baselines3 and CleanRL (advantages normalised by minibatch, returns
scaled by their running deviation, truncated episodes bootstrapped). The policy
sees the caution as one more observation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from feedbackgen.behaviour.worlds import TrainingWorlds
from feedbackgen.errors import MissingDependency
from feedbackgen.seeding import derived_seed

OBSERVATION_CLIP = 10.0  # standard deviations
UPDATES_PER_STAGE = 20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a family is trained."""

    n_steps: int  # of all environments together
    schedule: int  # steps over which learning rate and penalties change; training may stop before
    penalty: float  # see TrainingWorlds
    n_environments: int = 64
    steps_per_update: int = 128  # of each environment
    n_epochs: int = 6
    batch_size: int = 1024
    discount: float = 0.99
    gae_lambda: float = 0.95
    learning_rate: float = 5e-4  # falls to a fifth, linearly
    clip: float = 0.2
    entropy_bonus: float = 0.0
    log_std: float = -0.5  # at the start
    target_kl: float = 0.03
    hidden: tuple[int, ...] = (64, 64)
    penalty_ramp: tuple[float, float] = (
        0.2,
        0.6,
    )  # shares of the schedule between which the penalties grow to full size


class Moments:
    """Running mean and variance, (O,)."""

    def __init__(self, dim: int):
        self.mean, self.variance, self.count = np.zeros(dim), np.ones(dim), 1e-4

    def update(self, values: np.ndarray) -> None:
        mean, variance, count = values.mean(axis=0), values.var(axis=0), len(values)
        delta, total = mean - self.mean, self.count + count
        self.mean = self.mean + delta * count / total
        moment = self.variance * self.count + variance * count + delta**2 * self.count * count / total
        self.variance, self.count = moment / total, total

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(self.variance + 1e-8)


def train(
    worlds: TrainingWorlds,
    settings: Settings,
    *,
    seed: int,
    checkpoint: Path,
    snapshots: Mapping[int, str],
    save: Callable[[dict, str], None],
    progress: Callable[[int, int], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> None:
    """Train to the end, from the checkpoint where there is one.

    Args:
        snapshots: environment steps -> name of the snapshot then saved.
        save: writes a snapshot; given the network's arrays and the name.
        checkpoint: what a killed run goes on from; written after each stage.
    """
    torch = import_torch()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    learner = Learner(torch, worlds, settings)
    if checkpoint.is_file():
        learner.restore(torch.load(checkpoint, weights_only=False))
    n_at_once = settings.n_environments * settings.steps_per_update
    while learner.n_done < settings.n_steps:
        # A stage depends on the checkpoint before it and on nothing else, so a killed run goes on as if undisturbed.
        torch.manual_seed(derived_seed(seed, "stage", learner.n_done))
        learner.start()
        for _ in range(UPDATES_PER_STAGE):
            before = learner.n_done
            worlds.strictness = _ramp(settings, before / settings.schedule)
            learner.update(learner.collect(), before / settings.schedule)
            learner.n_done += n_at_once
            for at, name in snapshots.items():
                if before < at <= learner.n_done:
                    save(learner.arrays(), name)
            if progress:
                progress(min(learner.n_done, settings.n_steps), settings.n_steps)
            if learner.n_done >= settings.n_steps:
                break
        partial = checkpoint.with_suffix(".partial")
        torch.save(learner.state(), partial)
        partial.replace(checkpoint)
        if log:
            log(_summary(worlds, learner))


def _ramp(settings: Settings, share_done: float) -> float:
    start, end = settings.penalty_ramp
    return min(1.0, max(0.0, (share_done - start) / (end - start)))


class Learner:
    """Networks, optimiser and normalisers, and the environments they learn in."""

    def __init__(self, torch, worlds: TrainingWorlds, settings: Settings):
        self.torch, self.worlds, self.settings = torch, worlds, settings
        inputs = worlds.observation_dim + 1
        self.policy = _network(torch, inputs, settings.hidden, worlds.action_dim, 0.01)
        self.value = _network(torch, inputs, settings.hidden, 1, 1.0)
        self.log_std = torch.nn.Parameter(torch.full((worlds.action_dim,), settings.log_std))
        self.parameters = [*self.policy.parameters(), *self.value.parameters(), self.log_std]
        self.optimiser = torch.optim.Adam(self.parameters, lr=settings.learning_rate, eps=1e-5)
        self.observations, self.returns = Moments(worlds.observation_dim), Moments(1)
        self.running = np.zeros(worlds.n_environments)  # discounted return so far
        self.n_done = 0

    def start(self) -> None:
        self.current = self.worlds.restart(self.n_done)
        self.running = np.zeros(self.worlds.n_environments)

    def collect(self) -> dict:
        """A batch of steps with advantages and value targets, each (T * n, ...)."""
        torch, worlds, settings = self.torch, self.worlds, self.settings
        steps, n = settings.steps_per_update, worlds.n_environments
        inputs = np.empty((steps, n, worlds.observation_dim + 1), dtype=np.float32)
        actions = np.empty((steps, n, worlds.action_dim), dtype=np.float32)
        log_probs, rewards, values, ended = (np.empty((steps, n), dtype=np.float32) for _ in range(4))
        std = self.log_std.detach().exp().numpy()
        for step in range(steps):
            self.observations.update(self.current)
            inputs[step] = self.encode(self.current)
            with torch.no_grad():
                batch = torch.from_numpy(inputs[step])
                mean, values[step] = self.policy(batch).numpy(), self.value(batch)[:, 0].numpy()
            noise = torch.randn(n, worlds.action_dim).numpy()
            actions[step] = mean + std * noise
            log_probs[step] = -0.5 * np.square(noise).sum(axis=1) - np.log(std).sum()
            caution = worlds.caution.copy()
            self.current, last, reward, terminated, truncated = worlds.step(actions[step].astype(np.float64))
            self.running = self.running * settings.discount + reward
            self.returns.update(self.running[:, None])
            rewards[step] = np.clip(reward / self.returns.std[0], -10.0, 10.0)
            if truncated.any():
                with torch.no_grad():
                    beyond = self.value(torch.from_numpy(self.encode(last, caution)))[:, 0].numpy()
                rewards[step] += settings.discount * beyond * truncated
            ended[step] = terminated | truncated
            self.running[terminated | truncated] = 0.0
        with torch.no_grad():
            following = self.value(torch.from_numpy(self.encode(self.current)))[:, 0].numpy()
        advantages = np.empty_like(rewards)
        gathered = np.zeros(n, dtype=np.float32)
        for step in reversed(range(steps)):
            going_on = 1.0 - ended[step]
            delta = rewards[step] + settings.discount * following * going_on - values[step]
            gathered = delta + settings.discount * settings.gae_lambda * going_on * gathered
            advantages[step], following = gathered, values[step]
        batch = {
            "inputs": inputs,
            "actions": actions,
            "log_probs": log_probs,
            "advantages": advantages,
            "targets": advantages + values,
        }
        return {name: torch.from_numpy(array.reshape(steps * n, *array.shape[2:])) for name, array in batch.items()}

    def update(self, batch: dict, share_done: float) -> None:
        """Several epochs of clipped policy steps and value regression; stops where the policy has moved too far."""
        torch, settings = self.torch, self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * (1.0 - 0.8 * share_done)
        n_samples = len(batch["actions"])
        for _ in range(settings.n_epochs):
            for chosen in torch.randperm(n_samples).split(settings.batch_size):
                inputs, actions = batch["inputs"][chosen], batch["actions"][chosen]
                advantages = batch["advantages"][chosen]
                advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
                noise = (actions - self.policy(inputs)) / self.log_std.exp()
                log_probs = -0.5 * noise.square().sum(dim=1) - self.log_std.sum()
                log_ratio = log_probs - batch["log_probs"][chosen]
                ratio = log_ratio.exp()
                clipped = ratio.clamp(1.0 - settings.clip, 1.0 + settings.clip)
                gain = torch.minimum(ratio * advantages, clipped * advantages).mean()
                error = (self.value(inputs)[:, 0] - batch["targets"][chosen]).square().mean()
                loss = 0.5 * error - gain - settings.entropy_bonus * self.log_std.sum()
                self.optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.parameters, 0.5)
                self.optimiser.step()
            with torch.no_grad():
                moved = (ratio - 1.0 - log_ratio).mean().item()
            if moved > settings.target_kl:
                return

    def encode(self, observations: np.ndarray, caution: np.ndarray | None = None) -> np.ndarray:
        """What the networks see, (n, O + 1): standardised and clipped observations, and the caution."""
        standardised = (observations - self.observations.mean) / self.observations.std
        caution = self.worlds.caution if caution is None else caution
        clipped = np.clip(standardised, -OBSERVATION_CLIP, OBSERVATION_CLIP)
        return np.concatenate([clipped, caution[:, None]], axis=1).astype(np.float32)

    def arrays(self) -> dict:
        """The policy as arrays: weights (inputs, outputs), the caution's row last in the first."""
        layers = self.policy[::2]
        return {
            "weights": [layer.weight.detach().numpy().T.copy() for layer in layers],
            "biases": [layer.bias.detach().numpy().copy() for layer in layers],
            "observation_mean": self.observations.mean,
            "observation_std": self.observations.std,
            "action_std": self.log_std.detach().exp().numpy().copy(),
        }

    def state(self) -> dict:
        return {
            "policy": self.policy.state_dict(),
            "value": self.value.state_dict(),
            "log_std": self.log_std.detach(),
            "optimiser": self.optimiser.state_dict(),
            "observations": vars(self.observations),
            "returns": vars(self.returns),
            "n_done": self.n_done,
        }

    def restore(self, state: dict) -> None:
        self.policy.load_state_dict(state["policy"])
        self.value.load_state_dict(state["value"])
        with self.torch.no_grad():
            self.log_std.copy_(state["log_std"])
        self.optimiser.load_state_dict(state["optimiser"])
        vars(self.observations).update(state["observations"])
        vars(self.returns).update(state["returns"])
        self.n_done = state["n_done"]


def import_torch():
    try:
        import torch
    except ImportError as error:
        raise MissingDependency("training behaviour policies needs torch: pip install 'feedbackgen[train]'") from error
    return torch


def _network(torch, inputs: int, hidden: tuple[int, ...], outputs: int, last_gain: float):
    sizes = [inputs, *hidden, outputs]
    layers = []
    for index, (before, after) in enumerate(pairwise(sizes)):
        layer = torch.nn.Linear(before, after)
        torch.nn.init.orthogonal_(layer.weight, 2**0.5 if index < len(hidden) else last_gain)
        torch.nn.init.zeros_(layer.bias)
        layers += [layer, torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def _summary(worlds: TrainingWorlds, learner: Learner) -> str:
    episodes = np.array(worlds.finished[-200:])
    worlds.finished = worlds.finished[-200:]
    parts = [f"{learner.n_done:>9,} steps", f"std {learner.log_std.detach().exp().mean().item():.2f}"]
    for name, low, high in (("reckless", 0.0, 0.0), ("middling", 1e-9, 1 - 1e-9), ("cautious", 1.0, 1.0)):
        chosen = episodes[(episodes[:, 0] >= low) & (episodes[:, 0] <= high)] if len(episodes) else episodes
        if len(chosen):
            parts.append(f"{name} {chosen[:, 1].mean():.1f}/{chosen[:, 2].mean():.0f}")
    return "  ".join(parts)
