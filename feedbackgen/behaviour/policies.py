"""From what the user writes (``expert+noise=0.3:0.2``) to something that acts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from feedbackgen.behaviour.controllers import load_controller
from feedbackgen.behaviour.mlp import load_mlp
from feedbackgen.behaviour.weight_files import CONTROLLER, NETWORK, read_weight_file
from feedbackgen.behaviour.zoo import shipped_weights
from feedbackgen.errors import PolicyError
from feedbackgen.tasks import get_task
from feedbackgen.types import FloatArray

MODIFIERS = ("noise", "epsilon", "sample")


class BehaviourPolicy(Protocol):
    @property
    def name(self) -> str: ...

    def act(self, observation: FloatArray, rng: np.random.Generator) -> FloatArray: ...


class BatchPolicy(BehaviourPolicy, Protocol):
    """Also acts in many episodes at once."""

    def act_together(self, observations: FloatArray, rngs: Sequence[np.random.Generator]) -> FloatArray:
        """One action for each row, (n, A), with the bits that `act` gives it alone."""
        ...


@dataclass(frozen=True, kw_only=True)
class RandomPolicy:
    """Uniform over the action box."""

    name: str
    action_low: FloatArray  # (A,)
    action_high: FloatArray  # (A,)

    def act(self, observation: FloatArray, rng: np.random.Generator) -> FloatArray:
        return _uniform(self.action_low, self.action_high, rng)

    def act_together(self, observations: FloatArray, rngs: Sequence[np.random.Generator]) -> FloatArray:
        return np.array([_uniform(self.action_low, self.action_high, rng) for rng in rngs])


@dataclass(frozen=True, kw_only=True)
class PerturbedPolicy:
    """Another policy with Gaussian action noise, and now and then a uniformly random action."""

    name: str
    policy: BatchPolicy
    noise: float  # standard deviation, in halves of the action range
    epsilon: float  # probability of a random action, per step
    action_low: FloatArray  # (A,)
    action_high: FloatArray  # (A,)

    def act(self, observation: FloatArray, rng: np.random.Generator) -> FloatArray:
        return self.act_together(observation[None], [rng])[0]

    def act_together(self, observations: FloatArray, rngs: Sequence[np.random.Generator]) -> FloatArray:
        actions = self.policy.act_together(observations, rngs)
        scale = self.noise * (self.action_high - self.action_low) / 2
        for row, rng in enumerate(rngs):
            # Both are drawn at every step, so that noise leaves the epsilon draws as they are.
            noise = rng.standard_normal(actions.shape[1])
            random_action = _uniform(self.action_low, self.action_high, rng)
            if rng.random() < self.epsilon:
                actions[row] = random_action
            else:
                actions[row] = np.clip(actions[row] + scale * noise, self.action_low, self.action_high)
        return actions


def _uniform(low: FloatArray, high: FloatArray, rng: np.random.Generator) -> FloatArray:
    # The bits of rng.uniform(low, high), five times as fast.
    return low + (high - low) * rng.random(len(low))


def load_policy(task: str, spec: str) -> BatchPolicy:
    """Make a behaviour policy from ``NAME[+noise=SCALE][+epsilon=P][+sample]``.

    Args:
        task: the task it acts in.
        spec: NAME is ``random``, a shipped policy (`fbgen policies TASK` lists them), or a weight file's path;
            noise is added to the action, epsilon replaces it by a random one, sample draws from the trained Gaussian.

    Raises:
        PolicyError: no such policy, a modifier out of range, or weights of another task.
    """
    name, modifiers = _parse(spec)
    known = get_task(task)
    box = {"action_low": np.array(known.action_low), "action_high": np.array(known.action_high)}
    if name == "random":
        if modifiers:
            raise PolicyError(f"policy {spec!r}: random takes no modifiers")
        return RandomPolicy(name=name, **box)
    path = Path(name) if name.endswith(".npz") else shipped_weights(task, name)
    policy = _load_weights(path, spec, task, sample="sample" in modifiers)
    if not modifiers.keys() & {"noise", "epsilon"}:
        return policy
    noise, epsilon = modifiers.get("noise", 0.0), modifiers.get("epsilon", 0.0)
    return PerturbedPolicy(name=spec, policy=policy, noise=noise, epsilon=epsilon, **box)


def _load_weights(path: Path, spec: str, task: str, *, sample: bool) -> BatchPolicy:
    header, _ = read_weight_file(path, task=task)
    if header["kind"] == NETWORK:
        return load_mlp(path, name=spec, task=task, sample=sample)
    if header["kind"] != CONTROLLER:
        raise PolicyError(f"policy file {path}: expected a {NETWORK} or a {CONTROLLER}, got a {header['kind']}")
    if sample:
        raise PolicyError(f"policy {spec!r}: a controller has no Gaussian to sample from; use +noise=SCALE")
    return load_controller(path, name=spec, task=task)


def parse_share(text: str) -> tuple[str, float | None]:
    """Split ``expert:0.3`` into the policy and its share of the episodes; no share gives None.

    Raises:
        PolicyError: the share is not a positive number.
    """
    spec, colon, share = text.rpartition(":")
    if not colon:
        return text, None
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if not 0.0 < value < float("inf"):
        raise PolicyError(f"policy {text!r}: expected NAME:SHARE with a share above 0, got {share!r}")
    return spec, value


def _parse(spec: str) -> tuple[str, dict[str, float]]:
    name, *parts = spec.split("+")
    modifiers = {}
    for part in parts:
        key, _, value = part.partition("=")
        if key not in MODIFIERS:
            raise PolicyError(f"policy {spec!r}: unknown modifier {key!r}; expected one of {', '.join(MODIFIERS)}")
        modifiers[key] = 1.0 if key == "sample" and not value else _number(spec, key, value)
    return name, modifiers


def _number(spec: str, key: str, text: str) -> float:
    high = 1.0 if key == "epsilon" else float("inf")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= high or value == float("inf"):
        expected = "a probability in [0, 1]" if key == "epsilon" else "a number >= 0"
        raise PolicyError(f"policy {spec!r}: {key} expects {expected}, got {text!r}")
    return value
