"""A dataset, or feedback with its dataset, as plain tables: Parquet files, or tensors for PyTorch.

Nothing is copied per segment: feedback refers to steps, by row in the tensors, by episode and step in the tables.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feedbackgen.episodes import DatasetInfo, dataset_info, iterate_episodes, load_trajectories
from feedbackgen.errors import DataError, MissingDependency
from feedbackgen.feedback import Feedback, further_tables
from feedbackgen.files import complete_or_absent
from feedbackgen.store import open_feedback, resolve_feedback
from feedbackgen.types import FloatArray

CONVENTIONS = {
    "preference": "P(second preferred): 1 the second, 0 the first, 0.5 equal",
    "safety": "+1 safe, -1 unsafe",
}


@dataclass(frozen=True, kw_only=True)
class Content:
    """What is to be exported."""

    info: DatasetInfo
    feedback: Feedback | None


def open_content(what: str | Path) -> Content:
    """Open a dataset, or feedback together with its dataset.

    Raises:
        DataError: damaged.
        StoreError: no such feedback.
    """
    try:
        return Content(info=dataset_info(what), feedback=None)
    except DataError as error:
        if "not found" not in str(error):
            raise
    path = resolve_feedback(what)
    return Content(info=dataset_info(path.parent.parent), feedback=open_feedback(path))


def export_torch(what: str | Path, out: Path, *, force: bool = False) -> Path:
    """Write one file for ``torch.load(path, weights_only=True)``: a dict of tensors and texts.

    Steps lie flat, those of episode i at ``starts[i]:starts[i + 1]``. Of feedback: ``segment_start`` (S,), first row;
    ``segment_length`` (S,); ``preference_pair`` (P, 2) and ``safety_segment`` (M,), segments; ``preference_label`` (P,)
    and ``safety_label`` (M,).

    Raises:
        MissingDependency: PyTorch is not installed.
        DataError: the data is damaged.
        OutputExists: the file is there and ``force`` is not given.
        StoreError: no such feedback, the disk is full, or the place cannot be written.
    """
    torch = _require("torch", "train")
    content = open_content(what)
    flat = load_trajectories(content.info.path, with_rewards=True)
    assert flat.rewards is not None and flat.costs is not None  # asked for with rewards
    arrays: dict[str, np.ndarray] = {
        "observations": flat.observations.astype(np.float32),
        "final_observations": flat.final_observations.astype(np.float32),
        "actions": flat.actions.astype(np.float32),
        "rewards": flat.rewards.astype(np.float32),
        "terminations": flat.terminations,
        "starts": flat.starts,
    }
    if content.info.has_costs:
        arrays["costs"] = flat.costs.astype(np.float32)
    if content.feedback is not None:
        segments, preferences, safety = (
            content.feedback.segments, content.feedback.preferences, content.feedback.safety,
        )  # fmt: skip
        arrays |= {
            "segment_start": flat.starts[segments.episode] + segments.start,
            "segment_length": segments.length.astype(np.int64),
            "preference_pair": preferences.pair.astype(np.int64),
            "preference_label": preferences.label,
            "safety_segment": safety.segment.astype(np.int64),
            "safety_label": safety.label,
        }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}
    with complete_or_absent(out, force=force) as draft:
        torch.save({**_about(content), **tensors}, draft)
    return out


def export_parquet(what: str | Path, out: Path, *, force: bool = False) -> Path:
    """Write a folder: ``steps.parquet``, ``episodes.parquet``, and of feedback ``preferences`` and ``safety``.

    Raises:
        MissingDependency: pyarrow is not installed.
        DataError: the data is damaged.
        OutputExists: the folder is there and ``force`` is not given.
        StoreError: no such feedback, the disk is full, or the place cannot be written.
    """
    pyarrow, parquet = _require("pyarrow", "parquet"), _require("pyarrow.parquet", "parquet")
    content = open_content(what)
    about = {key: str(value) for key, value in _about(content).items()}
    with complete_or_absent(out, force=force) as draft:
        draft.mkdir(parents=True)
        writer = None
        try:
            for episode in _step_tables(content.info):
                table = pyarrow.table(_columns(pyarrow, episode)).replace_schema_metadata(about)
                writer = writer or parquet.ParquetWriter(draft / "steps.parquet", table.schema)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
        tables = {"episodes": _episode_table(content.info)}
        if content.feedback is not None:
            tables |= _feedback_tables(content.feedback)
        for name, columns in tables.items():
            table = pyarrow.table(_columns(pyarrow, columns)).replace_schema_metadata(about)
            parquet.write_table(table, draft / f"{name}.parquet")
    return out


def _about(content: Content) -> dict[str, Any]:
    info = content.info
    about: dict[str, Any] = {
        "dataset_id": info.dataset_id,
        "dataset_fingerprint": info.fingerprint,
        "task": info.task,
        "environment": info.environment,
        "horizon": info.horizon,
        "cost_limit": info.cost_limit,
    }
    return about if content.feedback is None else about | CONVENTIONS


def _step_tables(info: DatasetInfo) -> Iterator[dict[str, np.ndarray]]:
    for index, episode in enumerate(iterate_episodes(info.path)):
        steps = {
            "episode": np.full(episode.n_steps, index, dtype=np.int32),
            "step": np.arange(episode.n_steps, dtype=np.int32),
            "observation": episode.observations[:-1],
            "action": episode.actions,
            "reward": episode.rewards,
            "terminated": episode.terminations,
            "truncated": episode.truncations,
        }
        yield steps | ({"cost": episode.costs, **episode.cost_terms} if episode.has_costs else {})


def _episode_table(info: DatasetInfo) -> dict[str, Any]:
    """One row an episode, with the observation after its last step."""
    finals: list[FloatArray] = []
    columns: dict[str, list] = {"seed": [], "behaviour_policy": [], "n_steps": [], "return": [], "cost": []}
    for episode in iterate_episodes(info.path):
        finals.append(episode.observations[-1])
        columns["seed"].append(episode.seed if episode.seed >= 0 else None)
        columns["behaviour_policy"].append(episode.policy)
        columns["n_steps"].append(episode.n_steps)
        columns["return"].append(episode.return_)
        columns["cost"].append(episode.cost_return if episode.has_costs else None)
    return {"episode": np.arange(len(finals), dtype=np.int32), **columns, "final_observation": np.stack(finals)}


def _feedback_tables(feedback: Feedback) -> dict[str, dict[str, Any]]:
    segments, preferences, safety = feedback.segments, feedback.preferences, feedback.safety
    first, second = preferences.pair[:, 0], preferences.pair[:, 1]
    sides = {
        f"{side}_{name}": getattr(segments, name)[chosen]
        for side, chosen in (("first", first), ("second", second))
        for name in ("episode", "start", "length")
    }
    judged = {name: getattr(segments, name)[safety.segment] for name in ("episode", "start", "length")}
    return {
        "preferences": {**sides, "label": preferences.label, "annotator": preferences.annotator},
        "safety": {**judged, "label": safety.label, "annotator": safety.annotator},
        **further_tables(feedback),
    }


def _columns(pyarrow: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Arrow arrays; a row of numbers becomes a list of fixed size."""
    return {
        name: pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(column.reshape(-1)), column.shape[1])
        if isinstance(column, np.ndarray) and column.ndim == 2
        else pyarrow.array(column)
        for name, column in values.items()
    }


def _require(module: str, extra: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependency(
            f"--format {'torch' if extra == 'train' else 'parquet'} needs {module.partition('.')[0]}; "
            f"install it with pip install 'feedbackgen[{extra}]'"
        ) from error
