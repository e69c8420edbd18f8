"""Collect a recipe's episodes, in parallel and resumable, into a Minari dataset.

Each episode has its own random stream, so the order, the number of workers and an interruption change nothing.
Finished episodes are shards that appear by rename in a hidden folder beside the target; the dataset is written from
them while later episodes are still being played.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import as_completed
from contextlib import closing, contextmanager
from pathlib import Path

from feedbackgen import arithmetic
from feedbackgen.behaviour import list_policies
from feedbackgen.cluster import play_on_cluster, require_answer
from feedbackgen.episodes import DatasetInfo, dataset_info, datasets_root, write_dataset
from feedbackgen.errors import DataError, OutputExists, StoreError
from feedbackgen.files import refuse_existing, writing_to
from feedbackgen.jobs import Job, list_jobs, play_jobs, read_shard, shard_path, split_jobs, write_shard
from feedbackgen.provenance import versions
from feedbackgen.recipe import Recipe, recipe_text
from feedbackgen.types import Episode
from feedbackgen.workers import worker_pool

Report = Callable[[int], None]


def collect(
    recipe: Recipe,
    *,
    workers: int = 1,
    ray: str | None = None,
    resume: bool = False,
    force: bool = False,
    root: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetInfo:
    """Collect a dataset; equal bytes whatever the number of workers.

    Args:
        recipe: what to collect.
        workers: processes, each with environments of its own.
        ray: address of a Ray cluster that plays the episodes instead.
        resume: go on with what an interrupted run of the same recipe left; a run that had ended is left as it is.
        force: replace a dataset of that id.
        root: instead of Minari's.
        progress: called with episodes done and in all.

    Raises:
        OutputExists: the dataset, or another run of it, is there.
        DataError: a policy cannot meet the recipe's cost cap, the simulator failed, or values that are not finite
            came up.
        StoreError: the disk is full, the place cannot be written, a worker died, or no Ray cluster answers.
    """
    target = (root or datasets_root()) / recipe.dataset_id
    partial = target.with_name(f".{target.name}.partial")
    if resume and not force and _is_complete(target, partial, recipe):
        _remove(partial)
        return dataset_info(target)
    refuse_existing(target, force=force)
    jobs = list_jobs(recipe)  # a bad name must fail before anything is written
    if ray is not None:
        require_answer(ray)
    with writing_to(target), _only_writer(partial), _kept_if_begun(partial):
        refuse_existing(target, force=force)  # another writer may have ended just now
        _prepare(partial, recipe, resume)
        if target.exists():
            (partial / REPLACES).touch()
        quality = {info.name: (info.return_, info.cost_return) for info in list_policies(recipe.task)}
        # Closed at once on an error, lest workers go on.
        with closing(_episodes(partial, recipe, jobs, ray or workers, progress)) as episodes:
            info = write_dataset(
                recipe.dataset_id,
                episodes,
                task=recipe.task,
                description=recipe.description,
                recipe=recipe_text(recipe),
                policy_quality=quality,
                root=root,
                force=force,
            )
        _remove(partial)
    return info


def _episodes(
    folder: Path, recipe: Recipe, jobs: list[Job], players: int | str, progress: Callable[[int, int], None] | None
) -> Generator[Episode, None, None]:
    """All episodes in the order of the dataset, each as soon as it and those before it are there.

    Those who play are so many processes, or the Ray cluster of that address.
    """
    todo = [job for job in jobs if not shard_path(folder, job).is_file()]
    n_done = len(jobs) - len(todo)

    def report(n_more: int) -> None:
        nonlocal n_done
        n_done += n_more
        if progress is not None:
            progress(n_done, len(jobs))

    report(0)
    if isinstance(players, str):
        work = _send_out(folder, recipe, todo, players, report)
    elif players == 1 and not arithmetic.came_too_late():
        work = _work_alone(folder, recipe, todo, report)
    else:
        work = _share(folder, recipe, todo, players, report)
    with closing(work):
        for job in jobs:
            while not shard_path(folder, job).is_file():
                if not next(work, False):
                    raise StoreError(f"{shard_path(folder, job)}: gone again; did something clear the folder?")
            yield read_shard(folder, job)


def _work_alone(folder: Path, recipe: Recipe, jobs: list[Job], report: Report) -> Generator[bool, None, None]:
    def save(job: Job, shard: bytes) -> None:
        write_shard(folder, job, shard)
        report(1)

    play_jobs(recipe, jobs, save)
    yield True


def _share(folder: Path, recipe: Recipe, jobs: list[Job], workers: int, report: Report) -> Generator[bool, None, None]:
    with worker_pool(workers) as pool:
        futures = [pool.submit(_play_into, folder, recipe, part) for part in split_jobs(jobs, workers)]
        for future in as_completed(futures):
            report(future.result())
            yield True


def _send_out(folder: Path, recipe: Recipe, jobs: list[Job], ray: str, report: Report) -> Generator[bool, None, None]:
    with closing(play_on_cluster(ray, recipe, jobs)) as parts:
        for part in parts:
            for job, shard in part:
                write_shard(folder, job, shard)
            report(len(part))
            yield True


def _play_into(folder: Path, recipe: Recipe, jobs: list[Job]) -> int:
    play_jobs(recipe, jobs, lambda job, shard: write_shard(folder, job, shard))
    return len(jobs)


STAMP = "recipe.toml"  # the recipe and what it runs on
REPLACES = "replaces"  # there when the target was, before this run began


def _stamp(recipe: Recipe) -> str:
    return f"{recipe_text(recipe)}\n# {json.dumps(versions())}\n"


def _is_complete(target: Path, partial: Path, recipe: Recipe) -> bool:
    """Whether an earlier run of the recipe has put the dataset there, and died at most while clearing up."""
    if (partial / REPLACES).exists() or not target.is_dir():
        return False
    try:
        return dataset_info(target).recipe == recipe_text(recipe)
    except DataError:
        return False


def _prepare(partial: Path, recipe: Recipe, resume: bool) -> None:
    """Leave in the folder only shards of this very recipe, and none unless they are to be used."""
    stamp, file = _stamp(recipe), partial / STAMP
    if resume and file.is_file() and file.read_text() != stamp:
        raise OutputExists(
            f"{partial} holds episodes of another recipe, or of other software; collect without --resume, or under "
            "another --name"
        )
    if not resume:
        for shard in partial.glob("*.npz"):
            shard.unlink()
    for draft in partial.glob("*.draft"):
        draft.unlink()
    draft = file.with_suffix(".draft")
    draft.write_text(stamp)
    draft.replace(file)


def _remove(partial: Path) -> None:
    """Take the folder away at once; what a kill leaves of it under another name, the next run removes."""
    remains = partial.with_suffix(".remains")
    shutil.rmtree(remains, ignore_errors=True)
    if partial.is_dir():
        partial.rename(remains)
        shutil.rmtree(remains)


@contextmanager
def _kept_if_begun(partial: Path) -> Iterator[None]:
    """After an error before the first episode had ended there is nothing to resume, and no folder is left."""
    try:
        yield
    except Exception:
        if not (partial / REPLACES).exists() and not any(partial.glob("*.npz")):
            _remove(partial)
        raise


@contextmanager
def _only_writer(partial: Path) -> Iterator[None]:
    path = partial / "lock"
    while True:
        partial.mkdir(parents=True, exist_ok=True)
        with open(path, "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputExists(
                    f"{partial}: another fbgen collect is writing this dataset; wait, or use --name"
                ) from error
            # The writer before us may have taken the folder away between opening and locking.
            if path.is_file() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                yield
                return
