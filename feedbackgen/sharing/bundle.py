"""Turn a dataset and its feedback into a bundle: what is there, and the card, tables and manifest computed from it."""

import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from feedbackgen.episodes import dataset_info, episode_returns
from feedbackgen.errors import DataError
from feedbackgen.plots import plot_returns
from feedbackgen.provenance import SIMULATION, versions
from feedbackgen.sharing import card, croissant
from feedbackgen.sharing.facts import dataset_facts, feedback_facts, feedback_stores
from feedbackgen.sharing.manifest import (
    FORMAT_VERSION,
    NAME,
    FileEntry,
    Manifest,
    file_entry,
    manifest_bytes,
    parse_manifest,
)
from feedbackgen.sharing.tables import label_tables, write_tables
from feedbackgen.store import open_feedback

SOFTWARE = (*SIMULATION, "zarr", "pyarrow")


@dataclass(frozen=True, kw_only=True)
class Rights:
    """What the data cannot say of itself."""

    licence: str = "cc-by-4.0"
    citation: str = ""  # BibTeX
    authors: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()  # URLs where the bundle also lies


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A dataset ready to be copied: each path inside the bundle, and the file that holds it now."""

    manifest: Manifest
    sources: Mapping[str, Path]  # the manifest itself included


@contextmanager
def bundle(dataset: str | Path, rights: Rights) -> Iterator[Bundle]:
    """The bundle of a dataset; the computed files live as long as the block, the others are the dataset's own.

    Raises:
        DataError: the dataset or a feedback store is damaged.
        MissingDependency: pyarrow or matplotlib is not installed.
    """
    info = dataset_info(dataset)
    with tempfile.TemporaryDirectory() as draft:
        folder = Path(draft)
        own = _dataset_files(info.path)
        facts = {"dataset": dataset_facts(info.path), "feedback": feedback_facts(info.path)}
        tables = label_tables(info.path)
        write_tables(tables, folder)
        returns, costs, policies = episode_returns(info.path)
        picture = folder / card.PICTURE
        plot_returns(returns, costs, policies, cost_limit=info.cost_limit, title=info.dataset_id, path=picture)
        if info.recipe:
            (folder / "recipe.toml").write_text(info.recipe)
        entries = {path: file_entry(file) for path, file in own.items()}
        entries |= {path: file_entry(folder / path) for path in _paths(folder)}
        manifest = Manifest(
            dataset_id=info.dataset_id,
            task=info.task,
            fingerprint=info.fingerprint,
            licence=rights.licence,
            citation=rights.citation,
            authors=rights.authors,
            mirrors=rights.mirrors,
            seeds=_seeds(info.recipe, info.path),
            versions=versions(SOFTWARE),
            facts=facts,
            files=entries,
        )
        # As a reader will have it: JSON sorts what a mapping had in another order.
        manifest = parse_manifest(manifest_bytes(manifest), info.dataset_id)
        (folder / croissant.NAME).write_text(croissant_of(manifest, tables))
        (folder / card.NAME).write_text(card.card_text(manifest))
        entries |= {path: file_entry(folder / path) for path in (croissant.NAME, card.NAME)}
        (folder / NAME).write_bytes(manifest_bytes(replace(manifest, files=entries)))
        sources = own | {path: folder / path for path in _paths(folder)}
        yield Bundle(manifest=replace(manifest, files=entries), sources=sources)


def croissant_of(manifest: Manifest, tables) -> str:
    """Croissant metadata of a bundle, from its manifest and tables."""
    named: dict[str, FileEntry] = {
        path: entry
        for path, entry in manifest.files.items()
        if path in tables or path in ("data/main_data.hdf5", "data/metadata.json")
    }
    data = manifest.facts["dataset"]
    return croissant.croissant_text(
        manifest.dataset_id.replace("/", "-"),
        description=f"{data['n_episodes']} episodes of {manifest.task} with rewards, costs and feedback on segments.",
        licence=manifest.licence,
        citation=manifest.citation,
        authors=manifest.authors,
        url=next(iter(manifest.mirrors), "https://minari.farama.org"),
        version=f"{FORMAT_VERSION}.0.0",
        files=named,
        tables=tables,
    )


def _dataset_files(folder: Path) -> dict[str, Path]:
    """What belongs to the dataset itself; what an earlier publication computed is computed anew."""
    files = [folder / "data" / name for name in ("main_data.hdf5", "metadata.json")]
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: absent; collect or pull the dataset again")
    for store in feedback_stores(folder):
        files += sorted(path for path in store.rglob("*") if path.is_file())
    return {file.relative_to(folder).as_posix(): file for file in files}


def _paths(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _seeds(recipe: str, folder: Path) -> dict[str, Any]:
    content = tomllib.loads(recipe)
    seeds: dict[str, Any] = {"collect": content["seed"]} if "seed" in content else {}
    if "combined" in content:
        seeds["collect"] = [tomllib.loads(part["recipe"]).get("seed") for part in content["combined"]]
    feedback = {store.stem: open_feedback(store).attributes.get("seed") for store in feedback_stores(folder)}
    return seeds | {"feedback": feedback}
