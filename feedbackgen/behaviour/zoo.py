"""The behaviour policies that ship in the package, with their measured quality."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from statistics import fmean, pstdev

from feedbackgen.errors import PolicyError
from feedbackgen.tasks import get_task

WEIGHTS = Path(__file__).parent / "weights"
INDEX = "policies.json"
HOW_TO_MAKE = (
    "`fbgen policies train TASK` makes some for DSRL's Safety-Gymnasium tasks, and for Ball and Car on "
    "Bullet-Safety-Gym"
)


@dataclass(frozen=True, kw_only=True)
class PolicyInfo:
    """A policy and how it did over whole episodes, acting by its mean."""

    task: str
    name: str
    description: str
    command: str  # that trained it
    returns: tuple[float, ...]  # (n_episodes,), undiscounted
    cost_returns: tuple[float, ...]  # (n_episodes,), unsafe steps

    @property
    def n_episodes(self) -> int:
        return len(self.returns)

    @property
    def return_(self) -> float:
        return fmean(self.returns)

    @property
    def return_std(self) -> float:
        return pstdev(self.returns)

    @property
    def cost_return(self) -> float:
        return fmean(self.cost_returns)

    @property
    def cost_std(self) -> float:
        return pstdev(self.cost_returns)

    @property
    def safe_share(self) -> float:
        """Share of episodes with cost at most the task's default limit."""
        limit = get_task(self.task).default_cost_limit
        return fmean(cost <= limit for cost in self.cost_returns)

    def best_return(self, cost_limit: float = float("inf")) -> float | None:
        """Of the episodes that cost no more than the limit; None where there is none."""
        return max((r for r, c in zip(self.returns, self.cost_returns, strict=True) if c <= cost_limit), default=None)


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
        raise PolicyError(f"unknown policy {name!r}: {task} ships none yet; use random or a weight file; {HOW_TO_MAKE}")
    near = get_close_matches(name, names, n=3) or names
    raise PolicyError(f"unknown policy {name!r} for {task}; did you mean {', '.join(near)}?")


def _read(folder: Path) -> list[PolicyInfo]:
    index = folder / INDEX
    if not index.is_file():
        return []
    entries = json.loads(index.read_text())["policies"]
    return [
        PolicyInfo(
            **entry | {"returns": tuple(entry["returns"]), "cost_returns": tuple(entry["cost_returns"])},
            task=folder.name,
        )
        for entry in entries
    ]


def write_index(folder: Path, infos: Iterable[PolicyInfo]) -> None:
    """Write the index of one task's folder of weight files, one policy a line."""
    entries = [{key: value for key, value in asdict(info).items() if key != "task"} for info in infos]
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    (folder / INDEX).write_text(f'{{"policies": [\n{lines}\n]}}\n')


def claim(folder: Path, task: str, seed: int) -> None:
    """Make the folder that a training keeps what it goes on from in, and note whose it is.

    Raises:
        PolicyError: it is another training's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, words = folder / "seed", f"{task} {seed}"
    if path.is_file() and path.read_text() != words:
        other_task, other_seed = path.read_text().split()
        raise PolicyError(
            f"{folder.parent}: holds a training for {other_task} with seed {other_seed}, not for {task} with seed "
            f"{seed}; use another --out"
        )
    path.write_text(words)
