"""Policies and training states on disk: safetensors with a header in JSON, never pickled code."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialise
from torch import Tensor

from feedbackgen.behaviour.mlp import row_products
from feedbackgen.errors import StoreError
from feedbackgen.files import writing_to
from feedbackgen.types import FloatArray
from presa.batch import OBSERVATION_CLIP
from presa.policy import GaussianPolicy, PiecewiseLinearEncoding

FORMAT_VERSION = 1
POLICY_FILE = "policy.safetensors"


class Standardisation(Protocol):
    """What of the data a policy needs to act on raw observations."""

    @property
    def observation_mean(self) -> FloatArray: ...  # (O,)

    @property
    def observation_std(self) -> FloatArray: ...  # (O,)

    @property
    def action_low(self) -> FloatArray: ...  # (A,)

    @property
    def action_high(self) -> FloatArray: ...  # (A,)


@dataclass(frozen=True, kw_only=True)
class TrainedPolicy:
    """Acts by its mean, a mixture by that of its likeliest component, through numpy alone."""

    task: str
    method: str
    weights: tuple[FloatArray, ...]  # each (outputs, inputs)
    biases: tuple[FloatArray, ...]  # each (outputs,)
    std: float  # of the Gaussian it was trained as, in half widths of the action box
    observation_mean: FloatArray  # (O,)
    observation_std: FloatArray  # (O,)
    observation_clip: float  # in standard deviations
    action_low: FloatArray  # (A,)
    action_high: FloatArray  # (A,)
    n_components: int = 1
    ranges: tuple[FloatArray, FloatArray] | None = None  # of standardised observations, (O,) each, if it encodes them

    @property
    def name(self) -> str:
        return self.method

    def act(self, observation: FloatArray, rng: np.random.Generator | None = None) -> FloatArray:
        """Mean action, (A,), for a raw observation, (O,); ``rng`` is there as all policies take one."""
        return self.act_together(np.asarray(observation)[None], [rng])[0]

    def act_together(self, observations: FloatArray, rngs: Sequence[np.random.Generator | None] = ()) -> FloatArray:
        """Mean actions, (n, A), for raw observations, (n, O); a row's bits depend on no other row."""
        hidden: FloatArray = (observations - self.observation_mean) / self.observation_std
        hidden = np.clip(hidden, -self.observation_clip, self.observation_clip)
        if self.ranges is not None:
            hidden = self._encoded(hidden, *self.ranges)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.maximum(row_products(hidden, weight.T) + bias, 0.0)
        outputs: FloatArray = row_products(hidden, self.weights[-1].T) + self.biases[-1]
        if self.n_components > 1:
            outputs = self._likeliest(outputs)
        mean = np.tanh(outputs)
        return self.action_low + (mean + 1) * (self.action_high - self.action_low) / 2

    def _encoded(self, observations: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
        """As `presa.policy.PiecewiseLinearEncoding`."""
        n_bins = self.weights[0].shape[1] // len(low) - 1
        places = (observations - low) * (n_bins / (high - low))
        parts = np.clip(places[:, :, None] - np.arange(n_bins), 0.0, 1.0)
        return np.concatenate([observations, parts.reshape(len(parts), -1)], axis=1)

    def _likeliest(self, outputs: FloatArray) -> FloatArray:
        """Of each row's components the one of the highest weight; their outputs come first, then the logits."""
        means, logits = np.split(outputs, [-self.n_components], axis=1)
        means = means.reshape(len(outputs), self.n_components, -1)
        return means[np.arange(len(outputs)), logits.argmax(axis=1)]


def save_policy(path: Path, policy: GaussianPolicy, data: Standardisation, *, task: str, method: str) -> None:
    """Write a policy file; it appears complete or not at all."""
    layers = [layer for layer in policy.network if isinstance(layer, torch.nn.Linear)]
    arrays = {
        "observation_mean": data.observation_mean,
        "observation_std": data.observation_std,
        "action_low": data.action_low,
        "action_high": data.action_high,
    }
    for index, layer in enumerate(layers):
        arrays[f"weight_{index}"] = layer.weight.detach().cpu().numpy()
        arrays[f"bias_{index}"] = layer.bias.detach().cpu().numpy()
    header = {
        "task": task,
        "method": method,
        "n_layers": len(layers),
        "activation": "relu",
        "distribution": "gaussian",
        "std": policy.std,
        "n_components": policy.n_components,
        "observation_clip": OBSERVATION_CLIP,
    }
    if isinstance(policy.encoding, PiecewiseLinearEncoding):
        header["encoding_bins"] = policy.encoding.n_bins
        arrays["encoding_low"] = policy.encoding.low.cpu().numpy()
        arrays["encoding_high"] = policy.encoding.high.cpu().numpy()
    _write(path, arrays, "policy", header)


def save_networks(path: Path, networks: torch.nn.Module, data: Standardisation, *, task: str, method: str) -> None:
    """Write a policy that is several networks; its ``kind`` and ``shape`` say how they are built again."""
    arrays = {f"network.{name}": value.detach().cpu().numpy() for name, value in networks.state_dict().items()}
    for name in ("observation_mean", "observation_std", "action_low", "action_high"):
        arrays[name] = getattr(data, name)
    header = {
        "task": task,
        "method": method,
        "distribution": networks.kind,
        "shape": networks.shape,
        "observation_clip": OBSERVATION_CLIP,
    }
    _write(path, arrays, "policy", header)


def load_policy(run: str | Path) -> TrainedPolicy:
    """Read the Gaussian policy of a run folder, or of a policy file; `presa.acting` reads any kind.

    Raises:
        StoreError: absent, truncated, of another format or version, or with values that are not finite.
    """
    return gaussian_policy(*read_policy_file(run))


def read_policy_file(run: str | Path) -> tuple[Path, dict[str, np.ndarray], dict]:
    """The policy file of a run folder, its arrays and its header. Raises as `load_policy` does."""
    path = Path(run)
    if path.is_dir() and not (path / POLICY_FILE).exists():
        hint = "its training has not finished, --resume continues it" if (path / "provenance.json").exists() else ""
        raise StoreError(f"run {path}: no {POLICY_FILE}; {hint or 'expected the folder of a finished `fbgen train`'}")
    path = path / POLICY_FILE if path.is_dir() else path
    return path, *_read(path, "policy")


def gaussian_policy(path: Path, arrays: Mapping[str, np.ndarray], header: Mapping) -> TrainedPolicy:
    """The policy that a file holds.

    Raises:
        StoreError: it lacks something.
    """
    try:
        layers = range(int(header["n_layers"]))
        return TrainedPolicy(
            task=header["task"],
            method=header["method"],
            weights=tuple(arrays[f"weight_{layer}"].astype(np.float64) for layer in layers),
            biases=tuple(arrays[f"bias_{layer}"].astype(np.float64) for layer in layers),
            std=header["std"],
            n_components=header.get("n_components", 1),
            ranges=(arrays["encoding_low"], arrays["encoding_high"]) if header.get("encoding_bins") else None,
            observation_clip=header["observation_clip"],
            **{name: arrays[name] for name in ("observation_mean", "observation_std", "action_low", "action_high")},
        )
    except KeyError as error:
        raise StoreError(f"{path}: lacks {error}; train it again") from error


def save_state(path: Path, state: Mapping[str, Tensor], header: Mapping) -> None:
    """Write all that an interrupted training needs to go on."""
    _write(path, {name: value.detach().cpu().numpy() for name, value in state.items()}, "training state", header)


def load_state(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Read a training state.

    Raises:
        StoreError: absent, truncated, or of another format or version.
    """
    arrays, header = _read(path, "training state")
    return {name: torch.from_numpy(values) for name, values in arrays.items()}, header


def training_tensors(policy: torch.nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    """Parameters and the state of Adam, flat; a target network has no optimizer."""
    tensors = {f"policy.{name}": value for name, value in policy.state_dict().items()}
    if optimizer is None:
        return tensors
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    return tensors


def load_training_tensors(
    state: Mapping[str, Tensor], policy: torch.nn.Module, optimizer: torch.optim.Optimizer | None
) -> None:
    """Put parameters and the state of Adam back."""
    policy.load_state_dict(_below(state, "policy."))
    if optimizer is None:
        return
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _below(state, "optimizer.").items():
        index, _, moment = name.partition(".")
        moments.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _write(path: Path, arrays: Mapping[str, np.ndarray], kind: str, header: Mapping) -> None:
    # One key only: safetensors keeps its metadata in an unordered map, and equal runs must give equal bytes.
    metadata = {"presa": json.dumps({"format": kind, "format_version": FORMAT_VERSION, **header}, sort_keys=True)}
    rows = {name: np.array(arrays[name], order="C") for name in sorted(arrays)}
    draft = path.with_name(f".{path.name}.draft")
    with writing_to(path):
        draft.write_bytes(serialise(rows, metadata))
        draft.replace(path)


def _read(path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict]:
    if not path.is_file():
        raise StoreError(f"{path}: no such {kind} file; train first")
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})["presa"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise StoreError(f"{path}: truncated, damaged or not a {kind} of ours; train again") from error
    if header.get("format") != kind:
        raise StoreError(f"{path}: holds a {header.get('format')}, expected a {kind}")
    if header["format_version"] != FORMAT_VERSION:
        raise StoreError(
            f"{path}: format version {header['format_version']}, this release reads {FORMAT_VERSION}; train again"
        )
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise StoreError(f"{path}: {name} holds values that are not finite; train again")
    return arrays, header
