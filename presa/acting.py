"""Trained policies of any kind on disk, and as they act: one Gaussian, several networks, or a transformer."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from feedbackgen.errors import StoreError
from feedbackgen.types import FloatArray
from presa.candidates import CandidatePolicy
from presa.checkpoint import (
    Standardisation,
    TrainedPolicy,
    gaussian_policy,
    read_policy_file,
    save_networks,
    save_policy,
)
from presa.policy import GaussianPolicy
from presa.transformer import DecisionTransformer, Memory

KINDS: dict[str, Any] = {each.kind: each for each in (CandidatePolicy, DecisionTransformer)}


class ActingNetworks:
    """Several networks that act together, on raw observations."""

    def __init__(self, networks: Any, arrays: dict[str, np.ndarray], header: dict):
        self.task, self.name = header["task"], header["method"]
        self.networks = networks
        self._mean, self._std, self._low, self._high = (
            arrays[name] for name in ("observation_mean", "observation_std", "action_low", "action_high")
        )
        self._clip = header["observation_clip"]

    def act(self, observation: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The action, (A,)."""
        return self.in_the_box(self.networks.choose(self.standardised(observation), rng))

    def act_together(self, observations: FloatArray, rngs: Sequence[np.random.Generator]) -> FloatArray:
        """One action for each row, (n, A), with the bits that `act` gives it alone."""
        return np.array([self.act(observation, rng) for observation, rng in zip(observations, rngs, strict=True)])

    def standardised(self, observation: FloatArray) -> torch.Tensor:
        values = np.clip((np.asarray(observation) - self._mean) / self._std, -self._clip, self._clip)
        return torch.from_numpy(values.astype(np.float32))

    def in_the_box(self, action: torch.Tensor) -> FloatArray:
        return self._low + (action.double().numpy() + 1) * (self._high - self._low) / 2


class RememberingNetworks(ActingNetworks):
    """Networks that act on what came of their earlier steps too: one object acts in one episode, and is told of it."""

    def __init__(self, networks: DecisionTransformer, arrays: dict[str, np.ndarray], header: dict):
        super().__init__(Memory(networks), arrays, header)

    def fresh(self) -> "RememberingNetworks":
        """For another episode."""
        other = copy.copy(self)
        other.networks = self.networks.fresh()
        return other

    def act_together(self, observations: FloatArray, rngs: Sequence[np.random.Generator]) -> FloatArray:
        """The action of its one episode, (1, A)."""
        assert len(observations) == 1, "each episode needs a fresh one"
        return super().act_together(observations, rngs)

    def observe(self, reward: float, cost: float) -> None:
        """Take in what the last action came to."""
        self.networks.observe(reward, cost)


def for_one_episode(policy: TrainedPolicy | ActingNetworks) -> TrainedPolicy | ActingNetworks:
    """The policy itself, or a fresh one where it remembers."""
    return policy.fresh() if isinstance(policy, RememberingNetworks) else policy


def save_any_policy(path: Path, policy: torch.nn.Module, data: Standardisation, *, task: str, method: str) -> None:
    """Write a policy file of any kind; it appears complete or not at all."""
    if isinstance(policy, GaussianPolicy):
        save_policy(path, policy, data, task=task, method=method)
    else:
        save_networks(path, policy, data, task=task, method=method)


def load_any_policy(run: str | Path) -> TrainedPolicy | ActingNetworks:
    """Read the policy of a run folder, or a policy file, of whatever kind.

    Raises:
        StoreError: absent, truncated, of another format or version, or with values that are not finite.
    """
    path, arrays, header = read_policy_file(run)
    if header.get("distribution") not in KINDS:
        return gaussian_policy(path, arrays, header)
    try:
        networks = KINDS[header["distribution"]](**header["shape"])
        prefix = "network."
        networks.load_state_dict(
            {name.removeprefix(prefix): torch.from_numpy(v) for name, v in arrays.items() if name.startswith(prefix)}
        )
        acting = RememberingNetworks if isinstance(networks, DecisionTransformer) else ActingNetworks
        return acting(networks.eval(), arrays, header)
    except (KeyError, TypeError, RuntimeError) as error:
        raise StoreError(f"{path}: does not fit its networks ({error}); train it again") from error
