"""Episodes as jobs that any process can do, and the shards that carry them home.

A job names everything its episode depends on, so who does it, when, and beside which others changes no byte.
"""

import io
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from feedbackgen.behaviour import load_policy
from feedbackgen.behaviour.policies import BatchPolicy
from feedbackgen.environments import make_env_batch
from feedbackgen.errors import DataError, StoreError
from feedbackgen.recipe import Recipe, episodes_per_policy
from feedbackgen.rollout import Lane, Start, play
from feedbackgen.seeding import derived_seed, stream
from feedbackgen.types import Episode

MAX_DRAWS = 50  # of one episode, while its cost exceeds the cap
N_LANES = 16  # episodes that a process plays side by side, where the task has a batch


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode: the index-th of its policy."""

    number: int  # in the dataset
    policy: BatchPolicy
    index: int


def list_jobs(recipe: Recipe) -> list[Job]:
    """The recipe's episodes, in the order of the dataset.

    Raises:
        PolicyError: a policy that does not exist, or weights that cannot be used.
    """
    places = []
    for name, count in episodes_per_policy(recipe).items():
        policy = load_policy(recipe.task, name)
        places += [(policy, index) for index in range(count)]
    return [Job(number=number, policy=policy, index=index) for number, (policy, index) in enumerate(places)]


def split_jobs(jobs: Sequence[Job], workers: int) -> list[list[Job]]:
    """Parts that keep all lanes busy and give every worker the same number of them, but for the last."""
    n_rounds = -(-len(jobs) // (workers * N_LANES))
    size = max(1, -(-len(jobs) // (workers * max(1, n_rounds))))
    return [list(jobs[start : start + size]) for start in range(0, len(jobs), size)]


def play_jobs(recipe: Recipe, jobs: Sequence[Job], save: Callable[[Job, bytes], None]) -> None:
    """Play the episodes; each is saved as soon as it has ended.

    Raises:
        DataError: the simulator failed, a value is not finite, or an episode cannot meet the recipe's cost cap.
    """
    batch = _environments(recipe.task)
    from threadpoolctl import threadpool_limits  # comes with the simulator

    # Threads would fight over the cores, and add in an order of their own.
    with threadpool_limits(1):
        waiting = iter(jobs)
        lanes = [_lane(recipe, waiting, save) for _ in range(min(batch.n_environments, len(jobs)))]
        play(batch, lanes, max_steps=recipe.max_episode_steps, record_states=recipe.record_states)


def _lane(recipe: Recipe, jobs: Iterator[Job], save: Callable[[Job, bytes], None]) -> Lane:
    for job in jobs:
        name = job.policy.name
        for draw in range(MAX_DRAWS):
            episode = yield Start(
                policy=job.policy,
                seed=derived_seed(recipe.seed, "reset", name, job.index, draw),
                rng=stream(recipe.seed, "rollout", name, job.index, draw),
            )
            if recipe.cost_cap is None or episode.cost_return <= recipe.cost_cap:
                save(job, encode_episode(episode))
                break
        else:
            raise DataError(
                f"policy {name}: {MAX_DRAWS} episodes in a row cost more than cost_cap {recipe.cost_cap:g}; "
                "raise the cap, or leave the policy out"
            )


@lru_cache(maxsize=1)
def _environments(task: str):
    return make_env_batch(task, N_LANES)


def encode_episode(episode: Episode) -> bytes:
    """A shard: the episode's arrays and seed; its policy is the job's."""
    arrays = {name: getattr(episode, name) for name in _ARRAYS}
    arrays |= {f"term_{name}": values for name, values in episode.cost_terms.items()}
    if episode.states is not None:
        arrays["states"] = episode.states
    file = io.BytesIO()
    np.savez(file, seed=episode.seed, **arrays)
    return file.getvalue()


def shard_path(folder: Path, job: Job) -> Path:
    return folder / f"{job.number:07d}.npz"


def write_shard(folder: Path, job: Job, content: bytes) -> None:
    """Put a shard into the folder, whole or not at all."""
    path = shard_path(folder, job)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)  # a full disk has no room for halves
        raise


def read_shard(folder: Path, job: Job) -> Episode:
    """The episode of a shard.

    Raises:
        StoreError: the shard is damaged.
    """
    path = shard_path(folder, job)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
            terms = {name.removeprefix("term_"): file[name] for name in file.files if name.startswith("term_")}
            states = file["states"] if "states" in file.files else None
            seed = int(file["seed"])
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise StoreError(f"{path}: damaged ({error}); delete this file and go on with --resume") from error
    return Episode(**arrays, cost_terms=terms, states=states, seed=seed, policy=job.policy.name)


_ARRAYS = ("observations", "actions", "rewards", "costs", "terminations", "truncations")
