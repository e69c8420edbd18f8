"""Run a dataset's recipe again, and its teacher, and compare the bytes."""

import hashlib
import math
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedbackgen import arithmetic
from feedbackgen.collect import collect
from feedbackgen.episodes import DatasetInfo, dataset_info
from feedbackgen.errors import DataError
from feedbackgen.label import LabelConfig, label
from feedbackgen.provenance import folder_hash, versions
from feedbackgen.recipe import parse_recipe
from feedbackgen.sharing.catalogue import combine
from feedbackgen.sharing.facts import feedback_stores
from feedbackgen.store import open_feedback


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """One part of a dataset, built again."""

    part: str  # "trajectories", or "feedback NAME"
    equal: bool
    detail: str  # the hashes, or why it cannot be built again


def rebuild(
    dataset: str | Path,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Rebuilt]:
    """Collect and label anew in a scratch folder, and compare with what is there.

    Args:
        dataset: Minari id or path; a pulled bundle, or a dataset collected here.
        workers: processes; the bytes are the same.
        progress: called with episodes done and in all.

    Raises:
        DataError: the dataset has no recipe.
    """
    info = dataset_info(dataset)
    if not info.recipe:
        raise DataError(f"dataset {info.dataset_id}: holds no recipe, so it cannot be built again")
    with tempfile.TemporaryDirectory() as scratch:
        again = _collect_again(info.recipe, Path(scratch), workers, progress)
        results = [_compare_files("trajectories", _data(info.path), _data(again.path))]
        for store in feedback_stores(info.path):
            results.append(_label_again(store, again))
    if not all(result.equal for result in results):
        others = [f"{name} {there} here {here}" for name, there, here in _other_versions(info.versions)]
        if others:
            note = f"collected with {', '.join(others)}"
        elif arithmetic.came_too_late():
            note = "numpy was imported before feedbackgen, and rounds as on few processors; use `fbgen rebuild`"
        else:
            note = "the software is the same: on a processor of another kind, or changed since?"
        results = [result if result.equal else _with(result, note) for result in results]
    return results


def _collect_again(recipe: str, root: Path, workers: int, progress) -> DatasetInfo:
    content = tomllib.loads(recipe)
    if "combined" not in content:
        return collect(parse_recipe(recipe, "recipe"), workers=workers, root=root, progress=progress)
    parts = [
        _collect_again(part["recipe"], root / f"part{index}", workers, progress)
        for index, part in enumerate(content["combined"])
    ]
    return combine([part.path for part in parts], content["dataset_id"], root=root)


def _label_again(store: Path, again: DatasetInfo) -> Rebuilt:
    part = f"feedback {store.stem}"
    attributes = open_feedback(store).attributes
    if attributes.get("source") != "simulated":
        return Rebuilt(part=part, equal=True, detail=f"given by {attributes.get('source')}; nothing to build again")
    summary = label(again.path, _configuration(attributes["teacher"]), name=store.stem)
    return _compare_files(part, folder_hash(store), folder_hash(summary.path))


def _configuration(stored: Mapping[str, Any]) -> LabelConfig:
    """What a store's teacher was asked with; JSON has neither infinity nor tuples."""
    values: dict[str, Any] = {}
    for name, value in stored.items():
        values[name] = math.inf if value == "inf" else tuple(value) if isinstance(value, list) else value
    return LabelConfig(**values)


def _compare_files(part: str, there: str, again: str) -> Rebuilt:
    equal = there == again
    detail = f"sha256 {there[:16]}…" + ("" if equal else f", built again {again[:16]}…")
    return Rebuilt(part=part, equal=equal, detail=detail)


def _data(folder: Path) -> str:
    return hashlib.sha256((folder / "data" / "main_data.hdf5").read_bytes()).hexdigest()


def _other_versions(collected: dict[str, str]) -> list[tuple[str, str, str]]:
    here = versions()
    return [(name, there, here.get(name, "absent")) for name, there in collected.items() if here.get(name) != there]


def _with(result: Rebuilt, note: str) -> Rebuilt:
    return Rebuilt(part=result.part, equal=False, detail=f"{result.detail}; {note}")
