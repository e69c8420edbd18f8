"""OmniSafe's npz files, read and written.

``obs, action, reward, cost, next_obs, done``, float32, all trajectories in a row; ``done`` is terminated or truncated.
Source: OmniSafe, omnisafe/common/offline/dataset.py.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from feedbackgen.episodes import dataset_info, load_trajectories, write_dataset
from feedbackgen.errors import DataError, RecipeError
from feedbackgen.files import complete_or_absent
from feedbackgen.interop.flat import ends_of, flat_episode, require_costs, trajectory_bounds
from feedbackgen.interop.foreign import ForeignTask, Imported, dataset_name, resolve_task
from feedbackgen.interop.npz import read_npz, write_npz
from feedbackgen.tasks import TASKS
from feedbackgen.types import Episode, FloatArray, IntArray, Trajectories

TABLES = ("obs", "action", "next_obs")  # (N, width)
COLUMNS = ("reward", "cost", "done")  # (N, 1)
KEYS = ("obs", "action", "reward", "cost", "next_obs", "done")


def import_omnisafe(
    file: str | Path,
    task: ForeignTask | None = None,
    *,
    dataset_id: str | None = None,
    drop_tail: bool = False,
    force: bool = False,
) -> Imported:
    """Make a dataset of an OmniSafe file; each trajectory is an episode, in its order.

    ``done`` does not tell a termination from a truncation: an end at the task's horizon counts as truncated, one before
    it as terminated.

    Args:
        file: an npz of OmniSafe's six arrays.
        task: needed where the file's name does not begin with a task's.
        dataset_id: default ``omnisafe/TASK/FILE-v0``.
        drop_tail: leave out steps after the last ``done``.
        force: replace a dataset of that id.

    Raises:
        DataError: not such a file, a value not finite, a tail that is not done, or next observations that are not those
            of the next step.
        TaskError: a task that nobody knows.
        OutputExists: the dataset is there and ``force`` is not given.
        StoreError: the disk is full, or the place cannot be written.
    """
    file = Path(file)
    arrays = _check(read_npz(file, KEYS, "OmniSafe's layout"), file)
    asked = task or ForeignTask()
    name = asked.name or next((known for known in TASKS if file.name.startswith(known)), None)
    if name is None:
        raise DataError(f"{file}: its name begins with no task's; say which task it holds with --task NAME")
    known = resolve_task(
        ForeignTask(name=name, horizon=asked.horizon, cost_limit=asked.cost_limit),
        observation_dim=arrays["obs"].shape[1],
        action_dim=arrays["action"].shape[1],
        place=str(file),
    )
    n_steps = len(arrays["obs"])
    bounds = trajectory_bounds(arrays["done"] == 1, drop_tail=drop_tail, place=str(file), flags="done")
    info = write_dataset(
        dataset_id or f"omnisafe/{dataset_name(known.name)}/{dataset_name(file.stem)}-v0",
        _episodes(arrays, bounds, known.horizon, file),
        task=known,
        description=f"Imported from the OmniSafe file {file.name}.",
        source={"format": "omnisafe", "file": file.name},
        force=force,
    )
    n_tail = n_steps - int(bounds[-1])
    return Imported(info=info, notes=(f"left out: {n_tail} steps after the last done",) if n_tail else ())


def export_omnisafe(dataset: str | Path, out: Path, *, force: bool = False) -> Path:
    """Write a dataset as an OmniSafe file.

    Args:
        dataset: Minari id or path.
        out: ends in .npz, by which OmniSafe knows a local file.
        force: replace a file of that name.

    Raises:
        RecipeError: ``out`` has another ending.
        DataError: the dataset cannot be read, or tells no costs.
        OutputExists: the file is there and ``force`` is not given.
        StoreError: the disk is full, or the place cannot be written.
    """
    info = dataset_info(dataset)
    require_costs(info, "OmniSafe's layout")
    if out.suffix != ".npz":
        raise RecipeError(f"--out {out}: expected a name ending in .npz, by which OmniSafe knows a local file")
    with complete_or_absent(out, force=force) as draft:
        write_npz(draft, _arrays(load_trajectories(dataset, with_rewards=True)))
    return out


def _arrays(flat: Trajectories) -> Iterator[tuple[str, FloatArray]]:
    assert flat.rewards is not None and flat.costs is not None  # asked for with rewards
    yield "obs", flat.observations.astype(np.float32)
    yield "action", flat.actions.astype(np.float32)
    yield "reward", flat.rewards.astype(np.float32)[:, None]
    yield "cost", flat.costs.astype(np.float32)[:, None]
    following = np.empty(flat.observations.shape, dtype=np.float32)
    following[:-1] = flat.observations[1:]
    following[flat.starts[1:] - 1] = flat.final_observations
    yield "next_obs", following
    done = np.zeros((flat.n_steps, 1), dtype=np.float32)
    done[flat.starts[1:] - 1] = 1.0
    yield "done", done


def _check(arrays: dict[str, FloatArray], file: Path) -> dict[str, FloatArray]:
    """Check the shapes; columns come flat."""
    n_steps = len(arrays["obs"]) if arrays["obs"].ndim else 0
    for name, values in arrays.items():
        good = values.ndim == 2 if name in TABLES else values.shape in ((n_steps,), (n_steps, 1))
        if not good or len(values) != n_steps:
            expected = f"({n_steps}, width)" if name in TABLES else f"({n_steps}, 1)"
            raise DataError(f"{file}, {name}: expected shape {expected}, got {values.shape}")
    if arrays["next_obs"].shape != arrays["obs"].shape:
        raise DataError(
            f"{file}, next_obs: expected shape {arrays['obs'].shape} as obs has, got {arrays['next_obs'].shape}"
        )
    arrays = arrays | {name: arrays[name].reshape(-1) for name in COLUMNS}
    wrong = ~np.isin(arrays["done"], (0, 1))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise DataError(f"{file}, done: expected 0 or 1, got {arrays['done'][first]:g} at step {first}")
    return arrays


def _episodes(arrays: dict[str, FloatArray], bounds: IntArray, horizon: int, file: Path) -> Iterator[Episode]:
    for index, (start, end) in enumerate(pairwise(bounds)):
        steps = slice(int(start), int(end))
        ends = ends_of(int(end - start))
        truncated = end - start >= horizon
        try:
            yield flat_episode(
                observations=arrays["obs"][steps],
                next_observations=arrays["next_obs"][steps],
                actions=arrays["action"][steps],
                rewards=arrays["reward"][steps],
                costs=arrays["cost"][steps],
                terminations=ends & ~truncated,
                truncations=ends & truncated,
                policy="omnisafe",
                following="next_obs",
            )
        except DataError as error:
            raise DataError(f"{file}, trajectory {index}, {error}") from error
