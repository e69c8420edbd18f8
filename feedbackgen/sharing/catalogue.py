"""List, delete and combine datasets of this machine, in Minari's words."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from feedbackgen.episodes import (
    DatasetInfo,
    content_fingerprint,
    dataset_info,
    iterate_episodes,
    list_datasets,
    resolve_dataset,
    write_dataset,
)
from feedbackgen.errors import DataError
from feedbackgen.files import writing_to
from feedbackgen.types import Episode


def local_datasets() -> tuple[list[DatasetInfo], list[str]]:
    """The datasets under Minari's folder that feedbackgen reads, and the ids of those that it does not."""
    known, others = [], []
    for dataset_id in list_datasets():
        try:
            known.append(dataset_info(dataset_id))
        except DataError:
            others.append(dataset_id)
    return known, others


def delete(dataset: str) -> Path:
    """Remove a dataset with its feedback; it is gone at once, or there as a whole.

    Raises:
        DataError: no such dataset.
        StoreError: it cannot be removed.
    """
    folder = resolve_dataset(dataset)
    doomed = folder.with_name(f".{folder.name}.deleted")
    with writing_to(folder):
        if doomed.exists():
            shutil.rmtree(doomed)
        folder.rename(doomed)
        shutil.rmtree(doomed)
    return folder


def combine(
    datasets: Sequence[str | Path], dataset_id: str, *, root: Path | None = None, force: bool = False
) -> DatasetInfo:
    """One dataset from several of the same task, episodes in the order given.

    Seeds, behaviour policies, cost terms, recorded states and the recipes of all are kept; Minari's own combination
    loses them. Feedback stays with the parts: it refers to their episodes.

    Raises:
        DataError: fewer than two, of different tasks, or one whose contents are not those of its fingerprint.
        OutputExists: the dataset is there and ``force`` is not given.
    """
    infos = [dataset_info(dataset) for dataset in datasets]
    if len(infos) < 2:
        raise DataError(f"combine: expected at least two datasets, got {len(infos)}")
    tasks = list(dict.fromkeys(info.task for info in infos))
    if len(tasks) > 1:
        raise DataError(f"combine: expected datasets of one task, got {', '.join(tasks)}")
    for info in infos:
        if content_fingerprint(info.path) != info.fingerprint:
            raise DataError(f"dataset {info.dataset_id}: not the contents of its fingerprint; pull or collect it again")
    names = ", ".join(info.dataset_id for info in infos)
    return write_dataset(
        dataset_id,
        _all_episodes(infos),
        task=tasks[0],
        description=f"Combined from {names}",
        recipe=_combined_recipe(infos, dataset_id),
        root=root,
        force=force,
    )


def _all_episodes(infos: Sequence[DatasetInfo]) -> Iterator[Episode]:
    for info in infos:
        yield from iterate_episodes(info.path)


def _combined_recipe(infos: Sequence[DatasetInfo], dataset_id: str) -> str:
    if not all(info.recipe for info in infos):
        return ""
    lines = [f"dataset_id = {_toml(dataset_id)}"]
    for info in infos:
        lines += ["", "[[combined]]", f"dataset_id = {_toml(info.dataset_id)}"]
        lines += [f"fingerprint = {_toml(info.fingerprint)}", f"recipe = {_toml(info.recipe)}"]
    return "\n".join(lines) + "\n"


def _toml(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
