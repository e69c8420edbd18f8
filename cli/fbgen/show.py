"""How commands speak: results on stdout, progress and messages on stderr."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, Protocol


class Progress(Protocol):
    def __call__(self, done: int, total: int, now: str = ..., /) -> None:
        """Move the bar; ``now`` is what stands before it from now on."""


def say(message: str) -> None:
    """A message for people, on stderr."""
    print(message, file=sys.stderr)


def print_json(value) -> None:
    print(json.dumps(value, indent=1))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """A table on stdout; the first column is left-aligned, numbers are right-aligned."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    # Piped output is never cut or wrapped at a terminal's width.
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def print_pairs(pairs: dict[str, object]) -> None:
    """Names and values, one a line."""
    width = max(len(name) for name in pairs)
    for name, value in pairs.items():
        print(f"{name:<{width}}  {value}")


@contextmanager
def progress_bar(what: str, show: bool | None = None) -> Iterator[Progress]:
    """A bar on stderr with the time left; on a terminal only, unless asked for or against."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if show is False or (show is None and not console.is_terminal):
        yield lambda done, total, now="": None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total, now=what: bar.update(task, completed=done, total=total, description=now)


def require_torch(error: ModuleNotFoundError) -> NoReturn:
    """Say which extra brings what is missing.

    Raises:
        MissingDependency: always.
    """
    from feedbackgen.errors import MissingDependency

    raise MissingDependency(f"training needs {error.name}: pip install 'feedbackgen[train]'") from error
