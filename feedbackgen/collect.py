"""Collect a recipe's episodes, in parallel and resumable, into a Minari dataset.

Each episode has its own random stream, so the order, the number of workers and an interruption change nothing.
Finished episodes are shards that appear by rename in a hidden folder beside the target; the dataset is built from them
at the end.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from feedbackgen.behaviour import list_policies, load_policy
from feedbackgen.environments import make_env
from feedbackgen.episodes import DatasetInfo, datasets_root, write_dataset
from feedbackgen.errors import DataError, OutputExists
from feedbackgen.files import refuse_existing, writing_to
from feedbackgen.recipe import Recipe, episodes_per_policy, recipe_text
from feedbackgen.rollout import rollout
from feedbackgen.seeding import derived_seed, stream
from feedbackgen.types import Episode
from feedbackgen.workers import worker_pool

MAX_DRAWS = 50  # of one episode, while its cost exceeds the cap
EPISODES_PER_JOB = 4


def collect(
    recipe: Recipe,
    *,
    workers: int = 1,
    resume: bool = False,
    force: bool = False,
    root: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetInfo:
    """Collect a dataset; equal bytes whatever the number of workers.

    Args:
        recipe: what to collect.
        workers: processes, each with an environment of its own.
        resume: go on with what an interrupted run of the same recipe left.
        force: replace a dataset of that id.
        root: instead of Minari's.
        progress: called with episodes done and in all.

    Raises:
        OutputExists: the dataset, or another run of it, is there.
        DataError: a policy cannot meet the recipe's cost cap, or values that are not finite came up.
        StoreError: the disk is full, the place cannot be written, or a worker died.
    """
    target = (root or datasets_root()) / recipe.dataset_id
    refuse_existing(target, force=force)
    for policy in recipe.policies:  # a bad name must fail before anything is written
        load_policy(recipe.task, policy)
    partial = target.with_name(f".{target.name}.partial")
    with writing_to(target), _only_writer(partial):
        _prepare(partial, recipe, resume)
        jobs = [
            Job(policy, index, recipe, str(partial))
            for policy, count in episodes_per_policy(recipe).items()
            for index in range(count)
        ]
        _run(jobs, workers, progress)
        quality = {info.name: (info.return_, info.cost_return) for info in list_policies(recipe.task)}
        info = write_dataset(
            recipe.dataset_id,
            (_read_shard(job) for job in jobs),
            task=recipe.task,
            description=recipe.description,
            recipe=recipe_text(recipe),
            policy_quality=quality,
            root=root,
            force=force,
        )
        shutil.rmtree(partial)
    return info


@dataclass(frozen=True)
class Job:
    """One episode: the index-th of its policy."""

    policy: str
    index: int
    recipe: Recipe
    folder: str

    @property
    def shard(self) -> Path:
        return Path(self.folder) / f"{self.policy.replace('/', '_')}-{self.index}.npz"


def _run(jobs: list[Job], workers: int, progress: Callable[[int, int], None] | None) -> None:
    todo = [job for job in jobs if not job.shard.is_file()]
    n_done = len(jobs) - len(todo)
    report = progress or (lambda done, total: None)
    report(n_done, len(jobs))
    if workers == 1:
        for job in todo:
            _collect_episodes([job])
            n_done += 1
            report(n_done, len(jobs))
        return
    batches = [todo[start : start + EPISODES_PER_JOB] for start in range(0, len(todo), EPISODES_PER_JOB)]
    with worker_pool(workers) as pool:
        futures = [pool.submit(_collect_episodes, batch) for batch in batches]
        for future in as_completed(futures):
            n_done += future.result()
            report(n_done, len(jobs))


def _collect_episodes(jobs: list[Job]) -> int:
    for job in jobs:
        _write_shard(job, _collect_episode(job))
    return len(jobs)


def _collect_episode(job: Job) -> Episode:
    recipe = job.recipe
    env = _environment(recipe.task)
    policy = load_policy(recipe.task, job.policy)
    for draw in range(MAX_DRAWS):
        episode = rollout(
            env,
            policy,
            seed=derived_seed(recipe.seed, "reset", job.policy, job.index, draw),
            rng=stream(recipe.seed, "rollout", job.policy, job.index, draw),
            max_steps=recipe.max_episode_steps,
            record_states=recipe.record_states,
        )
        if recipe.cost_cap is None or episode.cost_return <= recipe.cost_cap:
            return episode
    raise DataError(
        f"policy {job.policy}: {MAX_DRAWS} episodes in a row cost more than cost_cap {recipe.cost_cap:g}; "
        "raise the cap, or leave the policy out"
    )


@lru_cache(maxsize=1)
def _environment(task: str):
    return make_env(task)


def _write_shard(job: Job, episode: Episode) -> None:
    arrays = {name: getattr(episode, name) for name in _ARRAYS}
    arrays |= {f"term_{name}": values for name, values in episode.cost_terms.items()}
    if episode.states is not None:
        arrays["states"] = episode.states
    draft = job.shard.with_suffix(f".{os.getpid()}.draft")
    with open(draft, "wb") as file:
        np.savez(file, seed=episode.seed, **arrays)
    draft.replace(job.shard)


def _read_shard(job: Job) -> Episode:
    with np.load(job.shard, allow_pickle=False) as file:
        arrays = {name: file[name] for name in _ARRAYS}
        terms = {name.removeprefix("term_"): file[name] for name in file.files if name.startswith("term_")}
        states = file["states"] if "states" in file.files else None
        return Episode(**arrays, cost_terms=terms, states=states, seed=int(file["seed"]), policy=job.policy)


_ARRAYS = ("observations", "actions", "rewards", "costs", "terminations", "truncations")


def _prepare(partial: Path, recipe: Recipe, resume: bool) -> None:
    """Leave in the folder only shards of this very recipe, and none unless they are to be used."""
    text = recipe_text(recipe)
    file = partial / "recipe.toml"
    if resume and file.is_file() and file.read_text() != text:
        raise OutputExists(
            f"{partial} holds episodes of another recipe; collect without --resume, or under another --name"
        )
    if not resume:
        for shard in partial.glob("*.npz"):
            shard.unlink()
    for draft in partial.glob("*.draft"):
        draft.unlink()
    file.write_text(text)


@contextmanager
def _only_writer(partial: Path) -> Iterator[None]:
    partial.mkdir(parents=True, exist_ok=True)
    with open(partial / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputExists(
                f"{partial}: another fbgen collect is writing this dataset; wait, or use --name"
            ) from error
        yield
