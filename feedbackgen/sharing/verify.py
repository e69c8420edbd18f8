"""Prove a bundle: its bytes against the manifest, and what the manifest and the card say against the data."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from feedbackgen.episodes import content_fingerprint, dataset_info
from feedbackgen.errors import DataError, StoreError
from feedbackgen.provenance import versions
from feedbackgen.sharing import card, croissant
from feedbackgen.sharing.bundle import SOFTWARE, croissant_of
from feedbackgen.sharing.facts import dataset_facts, feedback_facts, feedback_stores
from feedbackgen.sharing.manifest import NAME, Manifest, differences, parse_manifest
from feedbackgen.sharing.tables import label_tables
from feedbackgen.sharing.transfer import Progress, pull
from feedbackgen.store import has_oracle, open_feedback


def verify(folder: Path) -> tuple[Manifest, list[str]]:
    """Check a bundle on this machine.

    Returns:
        Its manifest, and what is wrong: one line each that begins with the file's path; none where all is well.

    Raises:
        DataError: no bundle, or its manifest is not what was published.
        StoreError: a bundle of a newer format.
    """
    file = folder / NAME
    if not file.is_file():
        raise DataError(f"{folder}: no {NAME}; `fbgen publish` makes bundles, `fbgen inspect` shows plain datasets")
    manifest = parse_manifest(file.read_bytes(), str(folder))
    faults = list(differences(folder, manifest))
    # Damaged files would only fail in other words.
    return manifest, faults or list(_disagreements(folder, manifest))


def verify_source(source: str, *, progress: Progress | None = None) -> tuple[Manifest, list[str]]:
    """Check a bundle where it lies: a folder is read in place, anything else is fetched to be read."""
    if "://" not in source:
        return verify(Path(source))
    with tempfile.TemporaryDirectory() as folder:
        pulled = pull([source], root=Path(folder), progress=progress)
        return verify(Path(pulled.place))


def _disagreements(folder: Path, manifest: Manifest) -> Iterator[str]:
    metadata = "data/metadata.json"
    try:
        info = dataset_info(folder)
        for name in ("dataset_id", "task", "fingerprint"):
            if getattr(info, name) != getattr(manifest, name):
                yield f"{NAME}: {name} is {getattr(manifest, name)}, the dataset's is {getattr(info, name)}"
        found = content_fingerprint(folder)
        if found != info.fingerprint:
            yield f"data/main_data.hdf5: fingerprint {found[:16]}…, {metadata} states {info.fingerprint[:16]}…"
        for store in feedback_stores(folder):
            open_feedback(store, with_oracle=has_oracle(store))
        facts = {"dataset": dataset_facts(folder), "feedback": feedback_facts(folder)}
        tables = label_tables(folder)
    except (DataError, StoreError) as error:
        yield str(error)
        return
    for part, computed in facts.items():
        if computed != manifest.facts.get(part):
            yield f"{NAME}: facts of the {part} are not those of the data"
    yield from _tables_that_differ(folder, tables)
    if manifest.versions == versions(SOFTWARE):
        # Another release may word its card otherwise.
        texts = {card.NAME: card.card_text(manifest), croissant.NAME: croissant_of(manifest, tables)}
        for path, text in texts.items():
            if (folder / path).read_text() != text:
                yield f"{path}: not what the data and the manifest give"
    recipe = folder / "recipe.toml"
    if (recipe.read_text() if recipe.is_file() else "") != info.recipe:
        yield f"recipe.toml: not the recipe that {metadata} holds"


def _tables_that_differ(folder: Path, tables) -> Iterator[str]:
    from pyarrow import parquet

    for path, table in tables.items():
        try:
            differs = not parquet.read_table(folder / path).equals(table)
        except (OSError, ValueError):  # what pyarrow raises for an absent and for a damaged file
            differs = True
        if differs:
            yield f"{path}: not the labels of the data"
