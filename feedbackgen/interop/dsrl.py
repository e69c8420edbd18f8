"""DSRL's HDF5 files, read and written.

Flat: one HDF5 dataset per key at the root, all trajectories in a row, each ended by ``terminals`` or ``timeouts``.
Source: DSRL, dsrl/offline_env.py and scripts/process_dataset.py.
"""

import math
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np

from feedbackgen.dsrl import dsrl_name
from feedbackgen.episodes import DatasetInfo, dataset_info, iterate_episodes, write_dataset
from feedbackgen.errors import DataError
from feedbackgen.files import complete_or_absent
from feedbackgen.interop.flat import ends_of, flat_episode, require_costs, trajectory_bounds
from feedbackgen.interop.foreign import ForeignTask, Imported, dataset_name, resolve_task
from feedbackgen.types import BoolArray, Episode, IntArray

TABLES = ("observations", "next_observations", "actions")  # (N, width), float32
NUMBERS = ("rewards", "costs")  # (N,), float32
FLAGS = ("terminals", "timeouts")  # (N,), bool; readers test == 1
KEYS = (*TABLES, *NUMBERS, *FLAGS)
# Chunks that an episode's end cuts stay in memory until the next episode fills or reads on.
CHUNK_CACHE = 64 * 2**20  # bytes, per HDF5 dataset


def import_dsrl(
    file: str | Path,
    task: ForeignTask | None = None,
    *,
    dataset_id: str | None = None,
    drop_tail: bool = False,
    force: bool = False,
) -> Imported:
    """Make a dataset of a DSRL file; each trajectory is an episode, in its order.

    Args:
        file: with DSRL's seven keys at the root; what else it holds is left out.
        task: needed where the file has none of DSRL's 38 names.
        dataset_id: default ``dsrl/TASK/FILE-v0``.
        drop_tail: leave out steps after the last flag.
        force: replace a dataset of that id.

    Raises:
        DataError: not such a file, a value not finite, a tail without a flag, or next observations that are not those
            of the next step.
        TaskError: a task that nobody knows.
        OutputExists: the dataset is there and ``force`` is not given.
        StoreError: the disk is full, or the place cannot be written.
    """
    file = Path(file)
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    asked = task or ForeignTask()
    listed = dsrl_name(asked.name or file.name)
    name = asked.name or (listed.task if listed else None)
    if name is None:
        raise DataError(f"{file}: its name is none of DSRL's 38; say which task it holds with --task NAME")
    with _open(file) as source:
        flags = _check(source, file)
        bounds = trajectory_bounds(
            flags["terminals"] | flags["timeouts"], drop_tail=drop_tail, place=str(file), flags="terminals or timeouts"
        )
        known = resolve_task(
            ForeignTask(name=name, horizon=asked.horizon, cost_limit=asked.cost_limit),
            observation_dim=source["observations"].shape[1],
            action_dim=source["actions"].shape[1],
            place=str(file),
        )
        info = write_dataset(
            dataset_id or f"dsrl/{dataset_name(known.name)}/{dataset_name(file.stem)}-v0",
            _episodes(source, flags, bounds, file),
            task=known,
            description=f"Imported from the DSRL file {file.name}.",
            source={"format": "dsrl", "file": file.name},
            force=force,
        )
        return Imported(info=info, notes=tuple(_notes(source, flags, bounds, listed.n_episodes if listed else None)))


def export_dsrl(dataset: str | Path, out: Path | None = None, *, force: bool = False) -> Path:
    """Write a dataset as a DSRL file.

    Args:
        dataset: Minari id or path.
        out: file, or folder for a file of DSRL's own name; default `dsrl_folder`, where OSRL's scripts look.
        force: replace a file of that name.

    Returns:
        The file.

    Raises:
        DataError: the dataset cannot be read, or tells no costs.
        OutputExists: the file is there and ``force`` is not given.
        StoreError: the disk is full, or the place cannot be written.
    """
    info = dataset_info(dataset)
    require_costs(info, "DSRL's layout")
    target = _target(info, out)
    widths = {"observations": info.observation_dim, "next_observations": info.observation_dim}
    widths["actions"] = info.action_dim
    with complete_or_absent(target, force=force) as draft, h5py.File(draft, "w", rdcc_nbytes=CHUNK_CACHE) as file:
        for name in KEYS:
            shape = (info.n_steps, widths[name]) if name in TABLES else (info.n_steps,)
            dtype = np.bool_ if name in FLAGS else np.float32
            file.create_dataset(name, shape=shape, dtype=dtype, compression="gzip", chunks=_chunks(shape))
        last = 0
        for episode in iterate_episodes(dataset):
            steps = slice(last, last + episode.n_steps)
            file["observations"][steps] = episode.observations[:-1]
            file["next_observations"][steps] = episode.observations[1:]
            file["actions"][steps] = episode.actions
            file["rewards"][steps] = episode.rewards
            file["costs"][steps] = episode.costs
            file["terminals"][steps] = episode.terminations
            # Readers know a trajectory's end by its flags alone.
            file["timeouts"][steps] = episode.truncations | (ends_of(episode.n_steps) & ~episode.terminations)
            last = steps.stop
    return target


def dsrl_folder() -> Path:
    """Where DSRL looks for its files: ``$DSRL_DATASET_DIR``, or ``~/.dsrl/datasets``."""
    return Path(os.environ.get("DSRL_DATASET_DIR") or Path.home() / ".dsrl" / "datasets")


def _target(info: DatasetInfo, out: Path | None) -> Path:
    if out is not None and not out.is_dir():
        return out
    listed = dsrl_name(info.task)
    name = listed.file if listed else f"{info.environment}-{math.ceil(info.cost_max)}-{info.n_episodes}.hdf5"
    return (dsrl_folder() if out is None else out) / name


def _chunks(shape: tuple[int, ...]) -> tuple[int, ...]:
    rows = max(1, min(shape[0], 2**18 // (4 * math.prod(shape[1:]))))  # 256 KiB
    return (rows, *shape[1:])


def _open(file: Path) -> h5py.File:
    try:
        return h5py.File(file, "r", rdcc_nbytes=CHUNK_CACHE)
    except OSError as error:
        raise DataError(f"{file}: not a readable HDF5 file ({error}); was the download cut short?") from error


def _check(source: h5py.File, file: Path) -> dict[str, BoolArray]:
    """Check keys and shapes; the flags, as truth values."""
    missing = [name for name in KEYS if not isinstance(source.get(name), h5py.Dataset)]
    if missing:
        raise DataError(f"{file}: no {', '.join(missing)}; a DSRL file holds {', '.join(KEYS)}")
    n_steps = source["observations"].shape[0] if source["observations"].ndim else 0
    for name in KEYS:
        shape = source[name].shape
        good = len(shape) == 2 if name in TABLES else shape in ((n_steps,), (n_steps, 1))
        if not good or shape[0] != n_steps:
            expected = f"({n_steps}, width)" if name in TABLES else f"({n_steps},)"
            raise DataError(f"{file}, {name}: expected shape {expected}, got {shape}")
    if source["next_observations"].shape != source["observations"].shape:
        raise DataError(
            f"{file}, next_observations: expected shape {source['observations'].shape} as observations have, "
            f"got {source['next_observations'].shape}"
        )
    flags = {}
    for name in FLAGS:
        try:
            values = _rows(source, name, slice(None))
        except DataError as error:
            raise DataError(f"{file}, {error}") from error
        wrong = ~np.isin(values, (0, 1))
        if wrong.any():
            first = int(np.argmax(wrong))
            raise DataError(f"{file}, {name}: expected 0 or 1, got {values[first]} at step {first}")
        flags[name] = values == 1
    return flags


def _episodes(source: h5py.File, flags: dict[str, BoolArray], bounds: IntArray, file: Path) -> Iterator[Episode]:
    for index, (start, end) in enumerate(pairwise(bounds)):
        steps = slice(int(start), int(end))
        place = f"{file}, trajectory {index}"
        try:
            yield _episode(source, flags, steps)
        except DataError as error:
            raise DataError(f"{place}, {error}") from error


def _episode(source: h5py.File, flags: dict[str, BoolArray], steps: slice) -> Episode:
    rows = {name: _rows(source, name, steps) for name in (*TABLES, *NUMBERS)}
    return flat_episode(
        **rows,
        terminations=flags["terminals"][steps],
        truncations=flags["timeouts"][steps],
        policy="dsrl",
        following="next_observations",
    )


def _rows(source: h5py.File, name: str, steps: slice) -> np.ndarray:
    try:
        values = source[name][steps]
    except OSError as error:
        raise DataError(f"{name}: damaged ({error}); was the download cut short?") from error
    # DSRL's reader squeezes (N, 1) too.
    return values[:, 0] if name not in TABLES and values.ndim == 2 else values


def _notes(source: h5py.File, flags: dict[str, BoolArray], bounds: IntArray, n_listed: int | None) -> Iterator[str]:
    extra: list[str] = []
    source.visititems(lambda name, item: extra.append(name) if isinstance(item, h5py.Dataset) else None)
    left_out = sorted(set(extra) - set(KEYS))
    if left_out:
        yield f"left out: {', '.join(left_out)}"
    n_tail = len(flags["timeouts"]) - int(bounds[-1])
    if n_tail:
        yield f"left out: {n_tail} steps after the last flag"
    if n_listed is not None and len(bounds) - 1 != n_listed:
        yield f"{len(bounds) - 1} trajectories; DSRL's own file of that name has {n_listed}"
