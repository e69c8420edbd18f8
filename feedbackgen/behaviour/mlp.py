"""A trained Gaussian policy that acts through numpy, and the weight file it lives in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feedbackgen.behaviour.weight_files import NETWORK, read_weight_file, write_weight_file
from feedbackgen.errors import PolicyError
from feedbackgen.types import FloatArray

ACTIVATIONS = ("tanh", "relu")


@dataclass(frozen=True, kw_only=True)
class MLPPolicy:
    """Mean action ``clip(MLP(clip(standardised observation)))``; samples only when asked to."""

    name: str
    task: str
    weights: Sequence[FloatArray]  # each (inputs, outputs)
    biases: Sequence[FloatArray]  # each (outputs,)
    activation: str  # of the hidden layers
    observation_mean: FloatArray  # (O,)
    observation_std: FloatArray  # (O,)
    observation_clip: float  # in standard deviations
    action_std: FloatArray  # (A,), of the exploration noise in training
    action_low: FloatArray  # (A,)
    action_high: FloatArray  # (A,)
    sample: bool = False

    def act(self, observation: FloatArray, rng: np.random.Generator) -> FloatArray:
        return self.act_together(observation[None], [rng])[0]

    def act_together(self, observations: FloatArray, rngs: Sequence[np.random.Generator]) -> FloatArray:
        """Actions (n, A) for observations (n, O), each with its own randomness; a row's bits depend on no other row."""
        hidden = (observations - self.observation_mean) / self.observation_std
        hidden = np.clip(hidden, -self.observation_clip, self.observation_clip)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = row_products(hidden, weight) + bias
            hidden = np.tanh(hidden) if self.activation == "tanh" else np.maximum(hidden, 0.0)
        actions = row_products(hidden, self.weights[-1]) + self.biases[-1]
        if self.sample:
            actions = actions + self.action_std * np.array([rng.standard_normal(actions.shape[1]) for rng in rngs])
        return np.clip(actions, self.action_low, self.action_high)


def row_products(rows: FloatArray, weight: FloatArray) -> FloatArray:
    """Rows (n, inputs) times a weight (inputs, outputs), row by row: a product of matrices rounds by its size."""
    return np.matmul(rows[:, None, :], weight)[:, 0]


def save_mlp(policy: MLPPolicy, path: str | Path, *, half: bool = False) -> None:
    """Write a weight file in float32; with ``half`` the layers take float16."""
    header = {
        "kind": NETWORK,
        "task": policy.task,
        "activation": policy.activation,
        "observation_clip": policy.observation_clip,
        "n_layers": len(policy.weights),
    }
    arrays = {name: getattr(policy, name).astype(np.float32) for name in _ARRAYS}
    for layer, (weight, bias) in enumerate(zip(policy.weights, policy.biases, strict=True)):
        precision = np.float16 if half else np.float32
        arrays |= {f"weight_{layer}": weight.astype(precision), f"bias_{layer}": bias.astype(precision)}
    write_weight_file(path, header, arrays)


def load_mlp(path: Path, *, name: str, task: str, sample: bool = False) -> MLPPolicy:
    """Read a weight file.

    Raises:
        PolicyError: no weight file of this task's with finite values, or not a network's.
    """
    header, arrays = read_weight_file(path, task=task)
    try:
        layers = range(header["n_layers"])
        return MLPPolicy(
            name=name,
            task=task,
            weights=[arrays[f"weight_{layer}"] for layer in layers],
            biases=[arrays[f"bias_{layer}"] for layer in layers],
            activation=header["activation"],
            observation_clip=header["observation_clip"],
            sample=sample,
            **{name: arrays[name] for name in _ARRAYS},
        )
    except KeyError as error:
        raise PolicyError(f"policy file {path}: not a weight file of ours, or damaged ({error})") from error


_ARRAYS = ("observation_mean", "observation_std", "action_std", "action_low", "action_high")
