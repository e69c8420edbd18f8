"""The behaviour policies that ship in the package, with their measured quality."""

import json
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from feedbackgen.errors import PolicyError
from feedbackgen.tasks import get_task

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True, kw_only=True)
class PolicyInfo:
    """A policy and how it did over ``n_episodes`` whole episodes, acting by its mean."""

    task: str
    name: str
    return_: float  # mean, undiscounted
    return_std: float
    cost_return: float  # mean number of unsafe steps
    cost_std: float
    safe_share: float  # share of episodes with cost at most the task's default limit
    n_episodes: int
    description: str
    command: str  # that trained it


def list_policies(task: str | None = None) -> list[PolicyInfo]:
    """All shipped policies, or those of one task, from the lowest return to the highest.

    Raises:
        TaskError: no such task.
    """
    if task is not None:
        get_task(task)
    folders = [WEIGHTS / task] if task else sorted(path for path in WEIGHTS.iterdir() if path.is_dir())
    return [info for folder in folders for info in sorted(_read(folder), key=lambda info: info.return_)]


def shipped_weights(task: str, name: str) -> Path:
    """The weight file of a shipped policy.

    Raises:
        PolicyError: the task has no policy of that name.
    """
    path = WEIGHTS / task / f"{name}.npz"
    if path.is_file():
        return path
    names = ["random", *(info.name for info in list_policies(task))]
    if len(names) == 1:
        raise PolicyError(
            f"unknown policy {name!r}: {task} ships none yet; use random, a weight file, or "
            f"`fbgen policies train {task}`"
        )
    near = get_close_matches(name, names, n=3) or names
    raise PolicyError(f"unknown policy {name!r} for {task}; did you mean {', '.join(near)}?")


def _read(folder: Path) -> list[PolicyInfo]:
    index = folder / "policies.json"
    if not index.is_file():
        return []
    return [PolicyInfo(**entry) for entry in json.loads(index.read_text())["policies"]]
