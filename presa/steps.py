"""Steps as a learner sees them, standardised float32: in memory, or in files made once and mapped. Never a reward."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from feedbackgen.episodes import DatasetInfo, iterate_steps
from feedbackgen.errors import DataError, StoreError
from feedbackgen.files import cache_root, complete_or_absent, locked
from feedbackgen.types import FloatArray, IntArray
from presa.mapped import MappedRows

OBSERVATION_CLIP = 10.0  # standard deviations
SMALLEST_STD = 1e-3  # a nearly constant feature must not be blown up
FILES_VERSION = 1  # of the files; another one is another folder

Blocks = Callable[[], Iterable[tuple[FloatArray, FloatArray]]]  # observations and actions, episode by episode


@dataclass(frozen=True, kw_only=True)
class ActionBox:
    """Bounds of the actions.

    Raises:
        DataError: a bound is not finite, or not below its counterpart.
    """

    low: FloatArray  # (A,)
    high: FloatArray  # (A,)

    def __post_init__(self):
        low, high = self.low, self.high
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
            raise DataError(f"action box: expected finite bounds with low < high, got {low} and {high}")


@dataclass(frozen=True, kw_only=True)
class Steps:
    """All steps of a dataset, and what they were standardised with."""

    observations: Tensor | MappedRows  # (n_steps, O) float32, standardised
    actions: Tensor | MappedRows  # (n_steps, A) float32, the action box scaled to [-1, 1]
    starts: IntArray  # (n_episodes + 1,), the steps of episode i are [i]:[i + 1]
    mean: FloatArray  # (O,)
    std: FloatArray  # (O,)


def steps_in_memory(blocks: Blocks, n_steps: int, box: ActionBox) -> Steps:
    """Read all episodes into flat tensors; beside these, an episode at a time is in memory.

    Args:
        blocks: gives the episodes, each time it is called.
        n_steps: of all episodes together.
        box: bounds of the actions.

    Raises:
        DataError: the dataset is damaged.
    """
    mean, std = _statistics(blocks)
    observations, actions = np.empty((n_steps, len(mean)), np.float32), np.empty((n_steps, len(box.low)), np.float32)
    starts = [0]
    for observed, acted in _standardised(blocks, mean, std, box):
        first, last = starts[-1], starts[-1] + len(acted)
        observations[first:last], actions[first:last] = observed, acted
        starts.append(last)
    return Steps(
        observations=torch.from_numpy(observations),
        actions=torch.from_numpy(actions),
        starts=np.array(starts),
        mean=mean,
        std=std,
    )


def mapped_steps(info: DatasetInfo, box: ActionBox) -> Steps:
    """The same numbers in files of the cache folder, written by the first who asks for this dataset.

    Raises:
        DataError: the dataset is damaged.
        StoreError: the disk is full, or a file is damaged.
    """
    content = (FILES_VERSION, info.fingerprint, box.low.tolist(), box.high.tolist(), OBSERVATION_CLIP, SMALLEST_STD)
    folder = cache_root() / "steps" / hashlib.sha256(repr(content).encode()).hexdigest()[:32]
    with locked(folder):
        if not folder.is_dir():
            _write_files(folder, lambda: iterate_steps(info.path), info.n_steps, box)
    try:
        header = json.loads((folder / "header.json").read_text())
        return Steps(
            observations=MappedRows(folder / "observations.npy"),
            actions=MappedRows(folder / "actions.npy"),
            starts=np.array(header["starts"]),
            mean=np.array(header["mean"]),
            std=np.array(header["std"]),
        )
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{folder}: damaged ({error}); remove it, it is made anew") from error


def _write_files(folder: Path, blocks: Blocks, n_steps: int, box: ActionBox) -> None:
    mean, std = _statistics(blocks)
    starts = [0]
    with complete_or_absent(folder, force=False) as draft:
        draft.mkdir()
        with (draft / "observations.npy").open("wb") as observations, (draft / "actions.npy").open("wb") as actions:
            for file, width in ((observations, len(mean)), (actions, len(box.low))):
                header = {"descr": "<f4", "fortran_order": False, "shape": (n_steps, width)}
                np.lib.format.write_array_header_1_0(file, header)
            for observed, acted in _standardised(blocks, mean, std, box):
                observations.write(observed.tobytes())
                actions.write(acted.tobytes())
                starts.append(starts[-1] + len(acted))
        # repr of a float, which JSON uses, reads back as the same float.
        header = {"starts": starts, "mean": mean.tolist(), "std": std.tolist()}
        (draft / "header.json").write_text(json.dumps(header))


def _statistics(blocks: Blocks) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of each feature, as ``numpy.mean`` and ``numpy.std`` of all steps at once."""
    n_steps = 0

    def observations() -> Iterator[FloatArray]:
        nonlocal n_steps
        n_steps = 0
        for observed, _ in blocks():
            n_steps += len(observed)
            yield np.asarray(observed, dtype=np.float64)

    mean = _sum(observations()) / n_steps
    std = np.sqrt(_sum(np.square(observed - mean) for observed in observations()) / n_steps)
    return mean, np.maximum(std, SMALLEST_STD)


def _sum(blocks: Iterable[FloatArray]) -> FloatArray:
    """Over all rows, one after the other, so that the bits do not depend on where a block ends."""
    total = None
    for block in blocks:
        total = np.add.reduce(block if total is None else np.concatenate([total[None], block]), axis=0)
    if total is None:
        raise DataError("trajectories: expected at least one episode, got none")
    return total


def _standardised(
    blocks: Blocks, mean: FloatArray, std: FloatArray, box: ActionBox
) -> Iterator[tuple[FloatArray, FloatArray]]:
    for observations, actions in blocks():
        standardised = np.clip((observations - mean) / std, -OBSERVATION_CLIP, OBSERVATION_CLIP)
        scaled = 2 * (actions - box.low) / (box.high - box.low) - 1
        yield standardised.astype(np.float32), scaled.astype(np.float32)
