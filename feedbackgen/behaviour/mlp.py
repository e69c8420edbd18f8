"""A trained Gaussian policy that acts through numpy, and the weight file it lives in."""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feedbackgen.errors import PolicyError
from feedbackgen.types import FloatArray

FORMAT_VERSION = 1
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
            hidden = _times(hidden, weight) + bias
            hidden = np.tanh(hidden) if self.activation == "tanh" else np.maximum(hidden, 0.0)
        actions = _times(hidden, self.weights[-1]) + self.biases[-1]
        if self.sample:
            actions = actions + self.action_std * np.array([rng.standard_normal(actions.shape[1]) for rng in rngs])
        return np.clip(actions, self.action_low, self.action_high)


def _times(rows: FloatArray, weight: FloatArray) -> FloatArray:
    # Row by row: how a product of matrices rounds depends on the number of rows.
    return np.matmul(rows[:, None, :], weight)[:, 0]


def save_mlp(policy: MLPPolicy, path: Path, *, half: bool = False) -> None:
    """Write a weight file: a header in JSON and float32 arrays; with ``half`` the layers take float16."""
    header = {
        "format_version": FORMAT_VERSION,
        "task": policy.task,
        "activation": policy.activation,
        "observation_clip": policy.observation_clip,
        "n_layers": len(policy.weights),
    }
    arrays: dict[str, Any] = {name: getattr(policy, name) for name in _ARRAYS}
    for layer, (weight, bias) in enumerate(zip(policy.weights, policy.biases, strict=True)):
        arrays |= {f"weight_{layer}": weight, f"bias_{layer}": bias}
    layers = np.float16 if half else np.float32
    singles: dict[str, Any] = {
        name: np.asarray(values, dtype=np.float32 if name in _ARRAYS else layers) for name, values in arrays.items()
    }
    np.savez(path, header=json.dumps(header), **singles)


def load_mlp(path: Path, *, name: str, task: str, sample: bool = False) -> MLPPolicy:
    """Read a weight file.

    Raises:
        PolicyError: the file is absent, damaged, of another task, or holds values that are not finite.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            layers = range(header["n_layers"])
            arrays: dict[str, Any] = {key: file[key].astype(np.float64) for key in _ARRAYS}
            weights = [file[f"weight_{layer}"].astype(np.float64) for layer in layers]
            biases = [file[f"bias_{layer}"].astype(np.float64) for layer in layers]
    except FileNotFoundError as error:
        raise PolicyError(f"policy file {path}: no such file") from error
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise PolicyError(f"policy file {path}: not a weight file of ours, or damaged ({error})") from error
    if header["format_version"] != FORMAT_VERSION:
        raise PolicyError(
            f"policy file {path}: format version {header['format_version']}, this release reads {FORMAT_VERSION}"
        )
    if header["task"] != task:
        raise PolicyError(f"policy file {path}: trained for {header['task']}, not for {task}")
    layers_by_name = {f"layer array {i}": values for i, values in enumerate([*weights, *biases])}
    for key, values in (arrays | layers_by_name).items():
        if not np.isfinite(values).all():
            raise PolicyError(f"policy file {path}: {key} holds values that are not finite; train it again")
    return MLPPolicy(
        name=name,
        task=task,
        weights=weights,
        biases=biases,
        activation=header["activation"],
        observation_clip=header["observation_clip"],
        sample=sample,
        **arrays,
    )


_ARRAYS = ("observation_mean", "observation_std", "action_std", "action_low", "action_high")
