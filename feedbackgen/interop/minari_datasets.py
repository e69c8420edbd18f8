"""Datasets that Minari made, of any environment whose observations and actions can be laid out as numbers.

Dicts and tuples are laid one part after the other, arrays row by row, discrete values one-hot, as Gymnasium's `flatten`
does it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import minari
import numpy as np
from gymnasium import spaces

from feedbackgen.episodes import resolve_dataset, write_dataset
from feedbackgen.errors import DataError, MissingDependency
from feedbackgen.interop.foreign import ForeignTask, Imported, dataset_name, foreign_task
from feedbackgen.tasks import TASKS, Task
from feedbackgen.types import Episode, FloatArray

# A running sum is no cost of a step.
NOT_A_TERM = ("cost", "cost_sum")


def import_minari(
    dataset: str | Path,
    task: ForeignTask | None = None,
    *,
    cost: str = "cost",
    dataset_id: str | None = None,
    force: bool = False,
) -> Imported:
    """Make a dataset of one that Minari made; its episodes, in their order, with seeds and policies where it has them.

    Args:
        dataset: Minari id or path.
        task: how the task is called, and its horizon, instead of what the dataset's environment says.
        cost: which of the infos tells each step's cost, with a row more than steps for the reset's, or without. Where
            there is none, the dataset can be asked for preferences alone.
        dataset_id: default ``imported/ID``.
        force: replace a dataset of that id.

    Raises:
        DataError: no such dataset, or feedbackgen's own, one that Minari cannot read, observations or actions that are
            no numbers, costs of a wrong length, or a value not finite.
        MissingDependency: the dataset's format needs a package that is not installed.
        TaskError: a horizon or limit out of range.
        OutputExists: the dataset is there and ``force`` is not given.
        StoreError: the disk is full, or the place cannot be written.
    """
    source = _load(dataset)
    metadata = source.storage.metadata
    if "fbgen" in metadata:
        raise DataError(f"dataset {dataset}: is feedbackgen's own; use it as it is")
    low, high = _bounds(source.action_space, f"dataset {dataset}, actions")
    observation_dim = len(_bounds(source.observation_space, f"dataset {dataset}, observations")[0])
    known = _task(source, task or ForeignTask(), observation_dim, low, high)
    untouched = all(_is_row(space) for space in (source.observation_space, source.action_space))
    info = write_dataset(
        dataset_id or "/".join(["imported", *map(dataset_name, source.id.split("/"))]),
        _episodes(source, cost, str(dataset)),
        task=known,
        description=str(metadata.get("description") or f"Imported from the Minari dataset {source.id}."),
        source={
            "format": "minari",
            "dataset_id": source.id,
            "algorithm_name": metadata.get("algorithm_name"),
            "author": metadata.get("author"),
            "code_permalink": metadata.get("code_permalink"),
        },
        # With other spaces than the environment's, Minari could not make one that fits.
        specification=metadata.get("env_spec") if untouched else None,
        force=force,
    )
    notes = () if info.has_costs else (f"no infos[{cost!r}]: the dataset can be asked for preferences alone",)
    return Imported(info=info, notes=notes)


def _load(dataset: str | Path) -> minari.MinariDataset:
    try:
        path = resolve_dataset(dataset)
    except DataError as error:
        raise DataError(f"{error}; `minari download {dataset}` fetches one of Minari's own") from error
    try:
        return minari.MinariDataset(path / "data")
    except ImportError as error:
        raise MissingDependency(f"dataset {dataset}: Minari needs another package to read it ({error})") from error
    except Exception as error:  # Minari and Gymnasium raise what they like for old or damaged metadata
        raise DataError(f"dataset {dataset}: Minari cannot read it ({_first_line(error)})") from error


def _task(
    source: minari.MinariDataset, asked: ForeignTask, observation_dim: int, low: FloatArray, high: FloatArray
) -> Task:
    specification = source.spec.env_spec
    environment = specification.id if specification is not None else ""
    name = asked.name or environment or source.id
    horizon = asked.horizon or (specification.max_episode_steps if specification is not None else None)
    for task in TASKS.values():
        fits = (task.observation_dim, task.action_dim) == (observation_dim, len(low))
        if fits and name in (task.name, task.gymnasium_id):
            return task if asked.cost_limit is None else replace(task, default_cost_limit=asked.cost_limit)
    if horizon is None:
        horizon = max(int(episode["total_steps"]) for episode in source.storage.get_episode_metadata(_all(source)))
    task = foreign_task(name, observation_dim, len(low), horizon=horizon, cost_limit=asked.cost_limit)
    return replace(
        task,
        action_low=tuple(map(float, low)),
        action_high=tuple(map(float, high)),
        environment=environment or name,
    )


def _episodes(source: minari.MinariDataset, cost: str, place: str) -> Iterator[Episode]:
    indices = _all(source)
    described = source.storage.get_episode_metadata(indices)
    read = iter(source.iterate_episodes(indices))
    for index, about in zip(indices, described, strict=True):
        where = f"dataset {place}, episode {index}"
        try:
            raw = next(read)
            actions = _rows(source.action_space, raw.actions)
            n_steps = len(actions)
            yield Episode(
                observations=_rows(source.observation_space, raw.observations),
                actions=actions,
                rewards=np.asarray(raw.rewards, dtype=np.float64),
                costs=_costs(raw.infos, cost, n_steps),
                cost_terms=_cost_terms(raw.infos, n_steps),
                terminations=np.asarray(raw.terminations, dtype=bool),
                truncations=np.asarray(raw.truncations, dtype=bool),
                seed=int(about["seed"]) if str(about.get("seed", "")).isdigit() else -1,
                policy=str(about.get("behaviour_policy") or source.storage.metadata.get("algorithm_name") or "minari"),
            )
        except DataError as error:
            raise DataError(f"{where}, {error}") from error
        except (OSError, KeyError, TypeError, ValueError, StopIteration) as error:
            raise DataError(f"{where}: Minari cannot read it ({_first_line(error)})") from error


def _all(source: minari.MinariDataset) -> list[int]:
    return [int(index) for index in source.episode_indices]


def _costs(infos: Mapping[str, Any] | None, name: str, n_steps: int) -> FloatArray:
    if name not in (infos or {}):
        return np.full(n_steps, np.nan)
    assert infos is not None
    values = _steps_of(infos[name], n_steps)
    if values is None:
        raise DataError(
            f"infos[{name!r}]: expected {n_steps} numbers, or {n_steps + 1} with the reset's, "
            f"got shape {np.shape(infos[name])}"
        )
    if np.isnan(values).any():
        raise DataError(f"infos[{name!r}]: expected finite values, got nan at step {int(np.argmax(np.isnan(values)))}")
    return values


def _cost_terms(infos: Mapping[str, Any] | None, n_steps: int) -> dict[str, FloatArray]:
    """What the environment calls its costs one by one, where it tells them as numbers."""
    terms = {}
    for name, values in (infos or {}).items():
        if name.startswith("cost_") and name not in NOT_A_TERM:
            steps = _steps_of(values, n_steps)
            if steps is not None and np.isfinite(steps).all():
                terms[name] = steps
    return terms


def _steps_of(values: Any, n_steps: int) -> FloatArray | None:
    """A number for each step, (T,), of (T,), (T + 1,) or columns of them; None if they are anything else."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or array.size not in (n_steps, n_steps + 1) or array.ndim == 0:
        return None
    return array.reshape(-1)[-n_steps:].astype(np.float64)


def _is_row(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 1


def _bounds(space: spaces.Space, place: str) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest values of a space that is laid out as a row of numbers."""
    if isinstance(space, spaces.Box):
        return space.low.reshape(-1), space.high.reshape(-1)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return np.zeros(spaces.flatdim(space)), np.ones(spaces.flatdim(space))
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = [_bounds(part, place) for part in _parts(space)]
        return np.concatenate([low for low, _ in parts]), np.concatenate([high for _, high in parts])
    raise DataError(f"{place}: a {type(space).__name__} space cannot be laid out as numbers")


def _rows(space: spaces.Space, values: Any) -> FloatArray:
    """Values over time as rows of numbers, (rows, width)."""
    if isinstance(space, spaces.Dict):
        return np.concatenate([_rows(part, values[name]) for name, part in space.spaces.items()], axis=1)
    if isinstance(space, spaces.Tuple):
        return np.concatenate([_rows(part, value) for part, value in zip(space.spaces, values, strict=True)], axis=1)
    array = np.asarray(values)
    if isinstance(space, spaces.Discrete):
        return (array.reshape(-1, 1) == np.arange(int(space.n)) + int(space.start)).astype(np.float64)
    if isinstance(space, spaces.MultiDiscrete):
        starts = np.broadcast_to(space.start, space.nvec.shape).reshape(-1)
        columns = array.reshape(len(array), -1)
        return np.concatenate(
            [
                np.float64(columns[:, [part]] == np.arange(int(n)) + int(starts[part]))
                for part, n in enumerate(space.nvec.reshape(-1))
            ],
            axis=1,
        )
    rows = array.reshape(len(array), -1)
    return rows if rows.dtype.kind == "f" else rows.astype(np.float64)


def _parts(space: spaces.Dict | spaces.Tuple) -> list[spaces.Space]:
    return list(space.spaces.values()) if isinstance(space, spaces.Dict) else list(space.spaces)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
