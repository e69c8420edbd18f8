"""Imported data: the task it belongs to, which the registry may not know, and what an import reports."""

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from feedbackgen.dsrl import DSRL, dsrl_name
from feedbackgen.episodes import DatasetInfo
from feedbackgen.errors import DataError, TaskError
from feedbackgen.tasks import TASKS, Task

COST_MEANING = "as the imported data tells it"


@dataclass(frozen=True, kw_only=True)
class ForeignTask:
    """What the user says of the task that imported data comes from."""

    name: str | None = None  # a registry's or DSRL's name, or one of the user's own; None: as the file is called
    horizon: int | None = None  # steps; needed with a name of one's own
    cost_limit: float | None = None  # per episode

    def __post_init__(self):
        if self.horizon is not None and self.horizon < 1:
            raise TaskError(f"--horizon: expected at least 1 step, got {self.horizon}")
        if self.cost_limit is not None and not 0 <= self.cost_limit < np.inf:
            raise TaskError(f"--cost-limit: expected a cost >= 0, got {self.cost_limit}")


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A dataset that was made from another format, and what the user should know of it."""

    info: DatasetInfo
    notes: tuple[str, ...] = ()
    feedback: Path | None = None  # of formats that hold preferences


def resolve_task(asked: ForeignTask, *, observation_dim: int, action_dim: int, place: str) -> Task:
    """The task of imported data: the registry's, DSRL's, or one of the user's own.

    Args:
        asked: its name is there.
        observation_dim: of the data.
        action_dim: of the data.
        place: named in errors.

    Raises:
        TaskError: nobody knows the name, and no horizon is given.
        DataError: the data does not fit the task.
    """
    assert asked.name is not None
    task = _known_task(asked.name, observation_dim, action_dim)
    if task is None:
        if asked.horizon is None:
            raise _unknown(asked.name, place)
        task = foreign_task(asked.name, observation_dim, action_dim, horizon=asked.horizon)
    for what, expected, came in (
        ("observations", task.observation_dim, observation_dim),
        ("actions", task.action_dim, action_dim),
    ):
        if expected != came:
            raise DataError(
                f"{place}, {what}: {task.name} has {expected} numbers a step, got {came}; "
                "name another task with --task, or one of your own with --task NAME --horizon STEPS"
            )
    if asked.cost_limit is not None:
        task = replace(task, default_cost_limit=float(asked.cost_limit))
    return replace(task, horizon=asked.horizon) if asked.horizon is not None else task


def foreign_task(
    name: str, observation_dim: int, action_dim: int, *, horizon: int, cost_limit: float | None = None
) -> Task:
    """A task that the registry does not know, with actions in [-1, 1]."""
    task = Task(
        name=name,
        suite="imported",
        robot="",
        kind="",
        level=0,
        horizon=horizon,
        observation_dim=observation_dim,
        action_low=(-1.0,) * action_dim,
        action_high=(1.0,) * action_dim,
        cost_meaning=COST_MEANING,
        dsrl=None,
        environment=name,
    )
    return task if cost_limit is None else replace(task, default_cost_limit=float(cost_limit))


def dataset_name(text: str) -> str:
    """A text as part of a Minari id: letters, digits, - and _."""
    return re.sub(r"[^-\w]+", "-", text).strip("-") or "data"


def _known_task(name: str, observation_dim: int, action_dim: int) -> Task | None:
    if name in TASKS:
        return TASKS[name]
    entry = dsrl_name(name)
    if entry is None:
        return None
    for task in TASKS.values():
        if task.name == entry.task or (task.dsrl is not None and task.dsrl.file == entry.file):
            return task
    return replace(
        foreign_task(entry.task, observation_dim, action_dim, horizon=entry.horizon),
        suite=entry.suite,
        dsrl=entry,
        cost_limits=entry.cost_limits,
        default_cost_limit=entry.cost_limits[1],
        environment=entry.environment,
    )


def _unknown(name: str, place: str) -> TaskError:
    near = get_close_matches(name, [*TASKS, *DSRL], n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    return TaskError(f"{place}: unknown task {name!r}; {hint}A task of your own needs --horizon STEPS")
