"""Labels as Parquet, for the hub's viewer and for whoever reads no Zarr; copies, the stores are what counts."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from feedbackgen.episodes import episode_returns, iterate_episodes
from feedbackgen.errors import MissingDependency
from feedbackgen.feedback import further_tables
from feedbackgen.sharing.facts import feedback_stores
from feedbackgen.store import open_feedback

if TYPE_CHECKING:
    import pyarrow

SIDES = ("first", "second")


def label_tables(folder: Path) -> "dict[str, pyarrow.Table]":
    """All tables of a dataset: path inside the bundle -> table.

    ``labels/episodes.parquet`` has a row an episode; ``labels/<feedback>-preferences.parquet`` one a preference, with
    label P(second preferred); ``labels/<feedback>-safety.parquet`` one a safety label, +1 safe and -1 unsafe; and so on
    for further kinds of feedback.

    Raises:
        MissingDependency: pyarrow is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependency("Parquet needs pyarrow: pip install 'feedbackgen[publish]'") from error
    returns, costs, policies = episode_returns(folder)
    seeds, lengths = zip(*((episode.seed, episode.n_steps) for episode in iterate_episodes(folder)), strict=True)
    columns = {
        "episode": np.arange(len(returns), dtype=np.int32),
        "return": returns,
        "cost": costs,
        "steps": np.array(lengths, dtype=np.int32),
        "seed": np.array(seeds, dtype=np.int64),
        "behaviour_policy": list(policies),
    }
    tables = {"labels/episodes.parquet": pyarrow.table(columns)}
    for store in feedback_stores(folder):
        feedback = open_feedback(store)
        segments, preferences, safety = feedback.segments, feedback.preferences, feedback.safety
        names = feedback.attributes.get("annotators", [])
        columns = {}
        for side, name in enumerate(SIDES):
            rows = preferences.pair[:, side]
            columns |= {f"{name}_episode": segments.episode[rows], f"{name}_start": segments.start[rows]}
            columns |= {f"{name}_length": segments.length[rows]}
        columns |= {"label": preferences.label, "annotator": _named(preferences.annotator, names)}
        tables[f"labels/{store.stem}-preferences.parquet"] = pyarrow.table(columns)
        rows = safety.segment
        columns = {"episode": segments.episode[rows], "start": segments.start[rows], "length": segments.length[rows]}
        columns |= {"label": safety.label, "annotator": _named(safety.annotator, names)}
        tables[f"labels/{store.stem}-safety.parquet"] = pyarrow.table(columns)
        for group, further in further_tables(feedback).items():
            columns = {**further, "annotator": _named(further["annotator"], names)}
            tables[f"labels/{store.stem}-{group.replace('_', '-')}.parquet"] = pyarrow.table(columns)
    return tables


def write_tables(tables: "dict[str, pyarrow.Table]", folder: Path) -> None:
    from pyarrow import parquet

    for path, table in tables.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, folder / path, compression="zstd")


def _named(annotators, names) -> list[str]:
    return [names[index] if index < len(names) else str(index) for index in annotators]
