"""Episodes to Minari datasets and back: the only importer of minari and h5py.

Written in Minari's HDF5 layout straight from arrays. ``infos/cost`` has T + 1 rows with a leading 0, as Minari's own
collector would store it, so that ``infos["cost"][t + 1]`` is the cost of step t.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box
from minari.serialization import serialize_space

from feedbackgen.errors import DataError
from feedbackgen.files import PatientFile, complete_or_absent, interrupts_held
from feedbackgen.provenance import versions
from feedbackgen.remote import fetch_dataset, is_url
from feedbackgen.tasks import TASKS, Task, get_task
from feedbackgen.types import Episode, FloatArray, IntArray, Outcomes, Trajectories, require_finite

FORMAT_VERSION = 1
# The lowest Minari that reads this layout: newer readers accept it, older stamps would shut them out.
MINARI_VERSION = "0.5.4"
STATE = "state"  # among the infos, where states were recorded
DATASET_ID = re.compile(r"([-\w]+/)*[-\w]+-v\d+")


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What a dataset says of itself."""

    dataset_id: str
    path: Path
    task: str
    fingerprint: str  # of the episodes' contents
    horizon: int  # steps
    cost_limit: float  # per episode
    return_min: float
    return_max: float
    cost_max: float
    n_episodes: int
    n_steps: int
    observation_dim: int
    action_dim: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    environment: str  # Gymnasium id
    has_costs: bool  # False: imported from data that tells none
    source: dict[str, Any]  # where imported episodes come from
    recipe: str  # TOML
    versions: dict[str, str]


def datasets_root() -> Path:
    """Where Minari keeps datasets: ``$MINARI_DATASETS_PATH``, or ``~/.minari/datasets``."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def resolve_dataset(dataset: str | Path) -> Path:
    """The folder of a dataset, given its Minari id, its path, or a URL, from which it is copied into a cache.

    Raises:
        DataError: there is none; the message names the nearest ids.
    """
    if is_url(dataset):
        return fetch_dataset(str(dataset))
    for path in (datasets_root() / dataset, Path(dataset)):
        if (path / "data" / "metadata.json").is_file():
            return path
    known = list_datasets()
    near = get_close_matches(str(dataset), known, n=3, cutoff=0.6)
    hint = f"did you mean {', '.join(near)}?" if near else f"{len(known)} datasets are there"
    raise DataError(f"dataset {dataset}: not found under {datasets_root()}; {hint}")


def list_datasets() -> list[str]:
    """The ids of all datasets under the root."""
    root = datasets_root()
    found = (path.parent.parent.relative_to(root) for path in root.rglob("data/metadata.json"))
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def write_dataset(
    dataset_id: str,
    episodes: Iterable[Episode],
    *,
    task: str | Task,
    description: str = "",
    recipe: str = "",
    policy_quality: Mapping[str, tuple[float, float]] | None = None,
    source: Mapping[str, Any] | None = None,
    specification: str | None = None,
    root: Path | None = None,
    force: bool = False,
) -> DatasetInfo:
    """Stream episodes into a Minari dataset that appears complete or not at all.

    Args:
        dataset_id: ``namespace/.../name-v0``.
        episodes: in the order of their Minari ids.
        task: the task they were collected in; a `Task` itself where it is none of the registry's.
        description: one sentence for people.
        recipe: TOML that rebuilds the dataset.
        policy_quality: measured mean return and cost return of behaviour policies, where known.
        source: where imported episodes come from.
        specification: JSON of the environment's Gymnasium spec, of a task that is none of the registry's.
        root: instead of `datasets_root`.
        force: replace a dataset of that id.

    Raises:
        DataError: an id Minari would refuse, no episode, or arrays that do not fit the task.
        OutputExists: the dataset is there and ``force`` is not given.
        StoreError: the disk is full, or the place cannot be written.
    """
    if not DATASET_ID.fullmatch(dataset_id):
        raise DataError(f"dataset id {dataset_id!r}: expected letters, digits, - and _ in parts, ending in -v<number>")
    known = task if isinstance(task, Task) else get_task(task)
    target = (root or datasets_root()) / dataset_id
    with complete_or_absent(target, force=force) as draft:
        data = draft / "data"
        data.mkdir(parents=True)
        digest = hashlib.sha256()
        returns, costs, lengths, policies = [], [], [], []
        action_dtype: Any = None
        observation_dtype: Any = None
        has_costs = True
        with _new_hdf5(data / "main_data.hdf5") as (file, content):
            for index, episode in enumerate(episodes):
                _require_shapes(episode, known.observation_dim, known.action_dim, f"episode {index}")
                with interrupts_held():
                    _write_episode(file, index, episode, (policy_quality or {}).get(episode.policy))
                content.check()
                _update_digest(digest, episode)
                returns.append(episode.return_)
                costs.append(episode.cost_return)
                lengths.append(episode.n_steps)
                policies.append(episode.policy)
                if index == 0:
                    has_costs = episode.has_costs
                    action_dtype, observation_dtype = episode.actions.dtype, episode.observations.dtype
                elif episode.has_costs != has_costs:
                    raise DataError(f"episode {index}: costs of all episodes are expected, or of none")
        if not returns:
            raise DataError(f"dataset {dataset_id}: expected at least one episode, got none")
        space = Box(-np.inf, np.inf, (known.observation_dim,), observation_dtype)
        low, high = (np.array(bound, dtype=action_dtype) for bound in (known.action_low, known.action_high))
        metadata = {
            "total_episodes": len(returns),
            "total_steps": int(sum(lengths)),
            "data_format": "hdf5",
            "jpeg_encoding": False,
            "observation_space": serialize_space(space),
            "action_space": serialize_space(Box(low, high, dtype=action_dtype)),
            **_specifications(known, specification),
            "dataset_id": dataset_id,
            "minari_version": MINARI_VERSION,
            "dataset_size": round((data / "main_data.hdf5").stat().st_size / 1e6, 1),
            "description": description,
            "algorithm_name": "unknown" if source else "feedbackgen behaviour policies",
            "ref_min_score": min(returns),
            "ref_max_score": max(returns),
            "cost_limit": known.default_cost_limit,
            "fbgen": {
                "format_version": FORMAT_VERSION,
                "task": known.name,
                "environment": known.gymnasium_id,
                "fingerprint": digest.hexdigest(),
                "horizon": known.horizon,
                "cost_limit": known.default_cost_limit,
                "observation_dim": known.observation_dim,
                "action_low": list(known.action_low),
                "action_high": list(known.action_high),
                "return_min": min(returns),
                "return_max": max(returns),
                "has_costs": has_costs,
                "cost_max": max(costs) if has_costs else None,
                "source": dict(source or {}),
                "recipe": recipe,
                "recipe_sha256": hashlib.sha256(recipe.encode()).hexdigest(),
                "policies": _summarise_policies(policies, returns, costs if has_costs else None),
                "versions": versions(),
            },
        }
        (data / "metadata.json").write_text(json.dumps(metadata, indent=1) + "\n")
    return dataset_info(target)


def dataset_info(dataset: str | Path) -> DatasetInfo:
    """Read what a dataset says of itself.

    Raises:
        DataError: absent, damaged, made by something else, or of another format version.
    """
    path = resolve_dataset(dataset)
    metadata = _read_metadata(path)
    if "fbgen" not in metadata:
        raise DataError(
            f"dataset {dataset}: plain Minari without feedbackgen's metadata; collect it with `fbgen collect`"
        )
    own = metadata["fbgen"]
    if own.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"dataset {dataset}: format version {own.get('format_version')}, this release reads {FORMAT_VERSION}"
        )
    facts = ("horizon", "cost_limit", "observation_dim", "action_low", "action_high", "has_costs", "source")
    missing = [name for name in facts if name not in own]
    if missing:
        raise DataError(f"dataset {dataset}: its metadata lacks {', '.join(missing)}; collect it again")
    return DatasetInfo(
        dataset_id=metadata["dataset_id"],
        path=path,
        n_episodes=metadata["total_episodes"],
        n_steps=metadata["total_steps"],
        action_dim=len(own["action_low"]),
        action_low=tuple(own["action_low"]),
        action_high=tuple(own["action_high"]),
        cost_max=own["cost_max"] if own["has_costs"] else np.nan,
        **{
            key: own[key]
            for key in (
                "task", "environment", "fingerprint", "horizon", "cost_limit", "observation_dim",
                "return_min", "return_max", "has_costs", "source", "recipe", "versions",
            )
        },
    )  # fmt: skip


def load_trajectories(dataset: str | Path, *, with_rewards: bool) -> Trajectories:
    """Read a whole dataset into flat memory.

    Args:
        dataset: Minari id or path.
        with_rewards: also rewards, costs and behaviour policies; a learner asks for False.

    Raises:
        DataError: the file is truncated, lacks costs or episodes, or holds a wrong shape or a value not finite.
    """
    info = dataset_info(dataset)
    n_steps, n_episodes = info.n_steps, info.n_episodes
    starts = np.zeros(n_episodes + 1, dtype=np.int64)
    observations = np.empty((n_steps, info.observation_dim))
    final_observations = np.empty((n_episodes, info.observation_dim))
    actions = np.empty((n_steps, info.action_dim))
    terminations = np.empty(n_steps, dtype=bool)
    rewards, costs, policies = np.empty(n_steps), np.empty(n_steps), []
    for index, group, steps, place in _episodes(info):
        starts[index + 1] = steps.stop
        length = steps.stop - steps.start
        all_observations = _read(group, "observations", (length + 1, info.observation_dim), place)
        observations[steps], final_observations[index] = all_observations[:-1], all_observations[-1]
        actions[steps] = _read(group, "actions", (length, info.action_dim), place)
        terminations[steps] = _read(group, "terminations", (length,), place)
        if with_rewards:
            rewards[steps] = _read(group, "rewards", (length,), place)
            costs[steps] = _read_costs(info, group, length, place)
            policies.append(str(_attribute(group, "behaviour_policy", place)))
    return Trajectories(
        observations=observations,
        final_observations=final_observations,
        actions=actions,
        terminations=terminations,
        starts=starts,
        rewards=rewards if with_rewards else None,
        costs=costs if with_rewards else None,
        policies=tuple(policies) if with_rewards else None,
    )


def load_outcomes(dataset: str | Path) -> Outcomes:
    """Read rewards and costs alone, which is all a teacher looks at; 16 bytes a step.

    Raises:
        DataError: the file is truncated, lacks costs or episodes, or holds a wrong shape or a value not finite.
    """
    info = dataset_info(dataset)
    starts = np.zeros(info.n_episodes + 1, dtype=np.int64)
    rewards, costs = np.empty(info.n_steps), np.empty(info.n_steps)
    for index, group, steps, place in _episodes(info):
        starts[index + 1] = steps.stop
        length = steps.stop - steps.start
        rewards[steps] = _read(group, "rewards", (length,), place)
        costs[steps] = _read_costs(info, group, length, place)
    return Outcomes(rewards=rewards, costs=costs, starts=starts)


def iterate_episodes(dataset: str | Path) -> Iterator[Episode]:
    """Each episode with all that is stored of it, in the order of their Minari ids.

    Raises:
        DataError: the file is truncated, lacks episodes or arrays, or holds a wrong shape or a value not finite.
    """
    info = dataset_info(dataset)
    with _open_hdf5(info.path) as file:
        if len(file) != info.n_episodes:
            raise DataError(f"dataset {dataset}: metadata names {info.n_episodes} episodes, the file holds {len(file)}")
        for index in range(info.n_episodes):
            place = f"dataset {dataset}, episode {index}"
            try:
                yield _read_episode(file[f"episode_{index}"], info, place)
            except (KeyError, OSError) as error:
                raise DataError(f"{place}: truncated or damaged ({error}); collect the dataset again") from error


def load_episode(dataset: str | Path, index: int) -> Episode:
    """One episode with all that is stored of it.

    Raises:
        DataError: there is no such episode, or it is damaged.
    """
    info = dataset_info(dataset)
    if not 0 <= index < info.n_episodes:
        raise DataError(f"dataset {dataset}: no episode {index}; expected one of 0 to {info.n_episodes - 1}")
    place = f"dataset {dataset}, episode {index}"
    with _open_hdf5(info.path) as file:
        try:
            return _read_episode(file[f"episode_{index}"], info, place)
        except (KeyError, OSError) as error:
            raise _damaged(place, error) from error


def content_fingerprint(dataset: str | Path) -> str:
    """The fingerprint of what the files hold now, to be compared with the one that the metadata states."""
    digest = hashlib.sha256()
    for episode in iterate_episodes(dataset):
        _update_digest(digest, episode)
    return digest.hexdigest()


def iterate_steps(dataset: str | Path) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Observations, (T, O), and actions, (T, A), of one episode after the other; no rewards and no costs.

    Raises:
        DataError: the file is truncated, lacks episodes, or holds a wrong shape or a value not finite.
    """
    info = dataset_info(dataset)
    for _, group, steps, place in _episodes(info):
        length = steps.stop - steps.start
        observations = _read(group, "observations", (length + 1, info.observation_dim), place)
        yield observations[:-1], _read(group, "actions", (length, info.action_dim), place)


def episode_returns(dataset: str | Path) -> tuple[FloatArray, FloatArray, tuple[str, ...]]:
    """Return, cost return (NaN where none is told) and behaviour policy of each episode, from its attributes alone."""
    info = dataset_info(dataset)
    with _open_hdf5(info.path) as file:
        attributes = [dict(file[f"episode_{index}"].attrs) for index in range(info.n_episodes)]
    returns = np.array([float(episode["rewards_sum"]) for episode in attributes])
    costs = np.array([float(episode.get("cost_sum", np.nan)) for episode in attributes])
    return returns, costs, tuple(str(episode["behaviour_policy"]) for episode in attributes)


def load_starts(dataset: str | Path) -> IntArray:
    """First step of each episode in the flat dataset and, last, the number of steps, (n_episodes + 1,), int64."""
    info = dataset_info(dataset)
    with _open_hdf5(info.path) as file:
        lengths = [int(file[f"episode_{index}"].attrs["total_steps"]) for index in range(info.n_episodes)]
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


@contextmanager
def _new_hdf5(path: Path) -> Iterator[tuple[h5py.File, PatientFile]]:
    """A new HDF5 file and where it is written; neither Ctrl-C nor a full disk reaches HDF5, which could not close."""
    content = PatientFile(path)
    try:
        with interrupts_held():
            file = h5py.File(content, "w", track_order=True)
        try:
            yield file, content
        finally:
            with interrupts_held():
                file.close()
    finally:
        content.close()


def _write_episode(file: h5py.File, index: int, episode: Episode, quality: tuple[float, float] | None) -> None:
    group = file.create_group(f"episode_{index}")
    group.attrs["id"] = index
    group.attrs["total_steps"] = episode.n_steps
    if episode.seed >= 0:
        group.attrs["seed"] = episode.seed
    group.attrs["behaviour_policy"] = episode.policy
    group.attrs["rewards_sum"] = episode.return_
    if episode.has_costs:
        group.attrs["cost_sum"] = episode.cost_return
    if quality is not None:
        group.attrs["policy_return"], group.attrs["policy_cost_return"] = quality
    group["observations"] = episode.observations
    group["actions"] = episode.actions
    group["rewards"] = np.float64(episode.rewards)
    group["terminations"] = episode.terminations
    group["truncations"] = episode.truncations
    infos = group.create_group("infos")
    told = {"cost": episode.costs} if episode.has_costs else {}
    for name, values in {**told, **episode.cost_terms}.items():
        infos[name] = np.concatenate([[0.0], np.float64(values)])
    if episode.states is not None:
        infos[STATE] = episode.states


def _read_episode(group: h5py.Group, info: DatasetInfo, place: str) -> Episode:
    length = int(group.attrs["total_steps"])
    infos = {name: _read(group, f"infos/{name}", (length + 1,), place)[1:] for name in group["infos"] if name != STATE}
    return Episode(
        observations=_read(group, "observations", (length + 1, info.observation_dim), place),
        actions=_read(group, "actions", (length, info.action_dim), place),
        rewards=_read(group, "rewards", (length,), place),
        costs=infos.pop("cost") if info.has_costs else np.full(length, np.nan),
        cost_terms=infos,
        terminations=_read(group, "terminations", (length,), place),
        truncations=_read(group, "truncations", (length,), place),
        seed=int(group.attrs.get("seed", -1)),
        policy=str(group.attrs["behaviour_policy"]),
        states=group["infos"][STATE][()] if STATE in group["infos"] else None,
    )


def _update_digest(digest, episode: Episode) -> None:
    digest.update(f"{episode.seed} {episode.policy} {episode.n_steps}".encode())
    arrays: list[np.ndarray] = [episode.observations, episode.actions, episode.rewards, episode.costs]
    arrays += [episode.terminations, episode.truncations]
    arrays += [episode.cost_terms[name] for name in sorted(episode.cost_terms)]
    for values in arrays:
        digest.update(np.ascontiguousarray(values).data)


def _specifications(task: Task, specification: str | None) -> dict[str, str]:
    """How Minari makes the environment again; nothing where nobody knows."""
    if task.name in TASKS:
        specification = EnvSpec(
            id=task.gymnasium_id,
            entry_point="feedbackgen.environments.gymnasium_twins:make_twin",
            kwargs={"task": task.name},
            max_episode_steps=task.horizon,
        ).to_json()
    elif task.suite == "gymnasium":
        specification = _registered_specification(task)
    return {} if specification is None else {"env_spec": specification, "eval_env_spec": specification}


def _registered_specification(task: Task) -> str | None:
    spec = gymnasium.spec(task.name.rpartition(":")[2])
    # A function of the user's no file can name.
    return spec.to_json() if isinstance(spec.entry_point, str) else None


def _summarise_policies(policies: list[str], returns: list[float], costs: list[float] | None) -> dict[str, dict]:
    names = np.array(policies)
    return {
        name: {
            "episodes": int(np.sum(names == name)),
            "return": float(np.array(returns)[names == name].mean()),
            "cost": None if costs is None else float(np.array(costs)[names == name].mean()),
        }
        for name in dict.fromkeys(policies)
    }


def _require_shapes(episode: Episode, observation_dim: int, action_dim: int, place: str) -> None:
    for name, values, width in (("observations", episode.observations, observation_dim),
                                ("actions", episode.actions, action_dim)):  # fmt: skip
        if values.shape[1] != width:
            raise DataError(f"{place}, {name}: expected {width} values a step, got {values.shape[1]}")


def _read_metadata(path: Path) -> dict:
    file = path / "data" / "metadata.json"
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise DataError(f"{file}: not valid JSON ({error}); collect the dataset again") from error


def _episodes(info: DatasetInfo) -> Iterator[tuple[int, h5py.Group, slice, str]]:
    """Each episode's number, group, place among all steps, and name for errors, those of reading it included."""
    last = 0
    with _open_hdf5(info.path) as file:
        if len(file) != info.n_episodes:
            raise DataError(
                f"dataset {info.dataset_id}: metadata names {info.n_episodes} episodes, the file holds {len(file)}"
            )
        for index in range(info.n_episodes):
            place = f"dataset {info.dataset_id}, episode {index}"
            try:
                group = file[f"episode_{index}"]
            except (KeyError, OSError) as error:
                raise _damaged(place, error) from error
            steps = slice(last, last + int(_attribute(group, "total_steps", place)))
            if steps.stop > info.n_steps:
                raise DataError(f"{place}: more steps than the {info.n_steps} that the metadata names")
            yield index, group, steps, place
            last = steps.stop
    if last != info.n_steps:
        raise DataError(f"dataset {info.dataset_id}: metadata names {info.n_steps} steps, the file holds {last}")


def _open_hdf5(path: Path) -> h5py.File:
    file = path / "data" / "main_data.hdf5"
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise DataError(f"{file}: absent, truncated or damaged ({error}); collect the dataset again") from error


def _read(group: h5py.Group, name: str, shape: tuple[int, ...], place: str) -> np.ndarray:
    try:
        values = group[name][()]
    except (KeyError, OSError) as error:
        if name not in group:
            raise DataError(f"{place}: no {name}; collect it with `fbgen collect`") from error
        raise _damaged(place, error) from error
    if values.shape != shape:
        raise DataError(f"{place}, {name}: expected shape {shape}, got {values.shape}")
    require_finite(f"{place}, {name}", values)
    return values


def _read_costs(info: DatasetInfo, group: h5py.Group, length: int, place: str) -> FloatArray:
    """The cost of each step, (T,), or NaN throughout where the dataset tells none."""
    if not info.has_costs:
        return np.full(length, np.nan)
    return _read(group, "infos/cost", (length + 1,), place)[1:]


def _attribute(group: h5py.Group, name: str, place: str) -> Any:
    try:
        return group.attrs[name]
    except (KeyError, OSError) as error:
        raise _damaged(place, error) from error


def _damaged(place: str, error: Exception) -> DataError:
    return DataError(f"{place}: truncated or damaged ({error}); collect the dataset again")
