"""The feedback store, format 1: segments and what was said about them, in Zarr; the only importer of zarr.

The format is described in docs/data-format.md. A store holds references into a dataset, never its observations, and
lies at ``<dataset>/feedback/<name>.zarr``.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from feedbackgen.episodes import dataset_info, load_starts, resolve_dataset
from feedbackgen.errors import DataError, StoreError
from feedbackgen.feedback import (
    FURTHER,
    FURTHER_ORACLE,
    LAYOUT,
    EpisodeSafety,
    Feedback,
    NonPreferred,
    Oracle,
    Preferences,
    Ratings,
    SafetyLabels,
    Segments,
    check_feedback,
)
from feedbackgen.files import complete_or_absent, interrupts_held
from feedbackgen.remote import fetch_feedback, is_url

SCHEMA = "feedbackgen/feedback"
FORMAT_VERSION = 1
DEFAULT_NAME = "default"
NAME = re.compile(r"[-\w]+")
FURTHER_KINDS = {
    "ratings": Ratings,
    "safety_preferences": Preferences,
    "episode_safety": EpisodeSafety,
    "non_preferred": NonPreferred,
}
REQUIRED_ATTRIBUTES = ("dataset_id", "dataset_fingerprint", "task")
# A dataset of labels is a few megabytes: one chunk per array up to this many rows.
CHUNK_ROWS = 1_000_000


def feedback_path(dataset: str | Path, name: str = DEFAULT_NAME) -> Path:
    """Where a dataset keeps the feedback of that name, there or not.

    Raises:
        DataError: no such dataset, or a name that is no file name.
    """
    if not NAME.fullmatch(name):
        raise DataError(f"feedback name {name!r}: expected letters, digits, - and _ (no dots)")
    if is_url(dataset):
        raise DataError(f"dataset {dataset}: feedback is written beside a dataset on disk; copy it there first")
    return resolve_dataset(dataset) / "feedback" / f"{name}.zarr"


def resolve_feedback(feedback: str | Path) -> Path:
    """The folder of a store, given its path, ``DATASET[/NAME]``, or a URL of either, which is copied into a cache.

    Raises:
        DataError: no such dataset.
        StoreError: the dataset has no feedback of that name; the message says which it has.
    """
    if is_url(feedback):
        return fetch_feedback(str(feedback))
    path = Path(feedback)
    if path.suffix == ".zarr":
        if path.is_dir():
            return path.absolute()
        raise StoreError(_no_feedback(f"{feedback}", path.parent, path.stem))
    try:
        dataset, name = str(feedback), DEFAULT_NAME
        store = feedback_path(dataset)
    except DataError:
        dataset, slash, name = str(feedback).rstrip("/").rpartition("/")
        try:
            parent = resolve_dataset(dataset) if slash else None
        except DataError:
            parent = None
        if parent is None:
            raise
        store = feedback_path(dataset, name)
    if not store.is_dir():
        raise StoreError(
            _no_feedback(f"dataset {dataset}", store.parent, name) + f"; to make one, run `fbgen label {dataset}`"
        )
    return store


def write_feedback(path: str | Path, feedback: Feedback, *, force: bool = False) -> Path:
    """Write a store that appears complete or not at all; the same feedback gives the same bytes.

    Args:
        path: ``<dataset>/feedback/<name>.zarr``.
        feedback: its attributes name the dataset, see docs/data-format.md.
        force: replace a store of that name, once the new one is complete.

    Raises:
        DataError: an attribute is missing, or an array breaks the format.
        OutputExists: the store is there and ``force`` is not given.
        StoreError: the disk is full, or the place cannot be written.
    """
    path = Path(path)
    attributes = {"schema": SCHEMA, "version": FORMAT_VERSION} | feedback.attributes
    further = [name for name in FURTHER if getattr(feedback, name) is not None]
    if further:
        attributes["further"] = further
    _require_attributes(attributes, f"feedback {path}")
    check_feedback(feedback)
    with complete_or_absent(path, force=force) as draft:
        with interrupts_held():
            root = zarr.create_group(draft, zarr_format=3, attributes=attributes)
        for group_name, layout in (LAYOUT | {name: FURTHER[name] for name in further}).items():
            values = getattr(feedback, group_name)
            if values is None:
                continue
            for name, (_, fill_value) in layout.items():
                # Array by array, so that Ctrl-C has not to wait for all of them.
                with interrupts_held():
                    _write_array(root.require_group(group_name), name, getattr(values, name), fill_value)
        if feedback.oracle is not None:
            for group_name in further:
                for name, (_, fill_value) in FURTHER_ORACLE[group_name].items():
                    full_name = f"{group_name}_{name}"
                    with interrupts_held():
                        values = feedback.oracle.further[full_name]
                        _write_array(root.require_group("oracle"), full_name, values, fill_value)
    return path


def open_feedback(feedback: str | Path, *, with_oracle: bool = False) -> Feedback:
    """Read a store and check it, also against the dataset that it labels.

    Args:
        feedback: a store's path, ``DATASET[/NAME]``, or a URL of either.
        with_oracle: also what the teacher knew; otherwise ``oracle/`` is not touched.

    Raises:
        StoreError: no such store, or one of another schema or version.
        DataError: the store is damaged, belongs to other data, or refers to steps outside an episode.
    """
    path = resolve_feedback(feedback)
    place = f"feedback {path}"
    root = _open_root(path)
    attributes = dict(root.attrs)
    if attributes.get("schema") != SCHEMA:
        raise StoreError(f"{place}: schema {attributes.get('schema')!r}, expected {SCHEMA!r}; is it a feedback store?")
    if attributes.get("version") != FORMAT_VERSION:
        raise StoreError(f"{place}: format version {attributes.get('version')}, this release reads {FORMAT_VERSION}")
    _require_attributes(attributes, place)
    read = {name: _read_group(root, name, LAYOUT[name], place) for name in ("segments", "preferences", "safety")}
    listed = attributes.get("further", [])
    if not isinstance(listed, list):
        raise DataError(f"{place}: attribute further: expected a list of groups, got {listed!r}")
    further = [str(name) for name in listed if name in FURTHER]
    oracle = _read_group(root, "oracle", LAYOUT["oracle"], place) if with_oracle else None
    if oracle is not None:
        known = {f"{group}_{name}": layout for group in further for name, layout in FURTHER_ORACLE[group].items()}
        oracle["further"] = _read_group(root, "oracle", known, place)
    content = Feedback(
        segments=Segments(**read["segments"]),
        preferences=Preferences(**read["preferences"]),
        safety=SafetyLabels(**read["safety"]),
        oracle=None if oracle is None else Oracle(**oracle),
        **{name: FURTHER_KINDS[name](**_read_group(root, name, FURTHER[name], place)) for name in further},
        attributes=attributes,
    )
    try:
        check_feedback(content)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    _require_dataset(content, path)
    return content


def has_oracle(feedback: str | Path) -> bool:
    """Whether a store keeps what its teacher knew; people's feedback, for one, has nothing of the kind."""
    return "oracle" in _open_root(resolve_feedback(feedback))


def _require_dataset(feedback: Feedback, path: Path) -> None:
    dataset = path.parent.parent
    if path.parent.name != "feedback":
        raise DataError(f"feedback {path}: expected it at <dataset>/feedback/{path.name}; copy it back to its dataset")
    info = dataset_info(dataset)
    labelled = feedback.attributes["dataset_fingerprint"]
    if labelled != info.fingerprint:
        raise DataError(
            f"feedback {path}: was labelled on a dataset with fingerprint {labelled[:12]}…, "
            f"but {info.dataset_id} now has {info.fingerprint[:12]}…; label it again"
        )
    segments = feedback.segments
    lengths = np.diff(load_starts(dataset))
    known = segments.episode < len(lengths)
    ends = segments.start.astype(np.int64) + segments.length
    outside = ~known | (ends > lengths[np.where(known, segments.episode, 0)])
    if outside.any():
        first = int(np.argmax(outside))
        episode = int(segments.episode[first])
        there = f"has {lengths[episode]} steps" if known[first] else f"is not among {len(lengths)} episodes"
        raise DataError(
            f"feedback {path}: segment {first} is steps {segments.start[first]} to {ends[first]} of episode {episode}, "
            f"which {there} in {info.dataset_id}; label it again"
        )
    for name in ("episode_safety", "non_preferred"):
        values = getattr(feedback, name)
        if values is not None and len(values) and values.episode.max() >= len(lengths):
            raise DataError(
                f"feedback {path}: {name} names episode {values.episode.max()}, which is not among {len(lengths)} "
                f"episodes in {info.dataset_id}; label it again"
            )


def _open_root(path: Path) -> zarr.Group:
    try:
        with interrupts_held():
            return zarr.open_group(path, mode="r", zarr_format=3)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"feedback {path}: not a readable Zarr v3 group; label the dataset again") from error


def _read_group(root: zarr.Group, group_name: str, names: Iterable[str], place: str) -> dict[str, Any]:
    arrays = {}
    for name in names:
        full_name = f"{group_name}/{name}"
        try:
            with interrupts_held():
                array = root[full_name]
                if not isinstance(array, zarr.Array):
                    raise KeyError(full_name)
                arrays[name] = np.asarray(array[...])
        except KeyError as error:
            raise DataError(f"{place}: no array {full_name}; label the dataset again") from error
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise DataError(f"{place}: array {full_name} is damaged; label the dataset again") from error
    return arrays


def _write_array(group: zarr.Group, name: str, values: np.ndarray, fill_value: Any) -> None:
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=(min(max(len(values), 1), CHUNK_ROWS), *values.shape[1:]),
        dtype=values.dtype,
        fill_value=fill_value,
        compressors=ZstdCodec(level=3, checksum=True),
        # Left out, a chunk that equals the fill value could not be told from a lost one.
        config={"write_empty_chunks": True},
    )
    array[...] = values


def _require_attributes(attributes: dict[str, Any], place: str) -> None:
    for name in REQUIRED_ATTRIBUTES:
        if not isinstance(attributes.get(name), str):
            raise DataError(f"{place}: attribute {name}: expected a text, got {attributes.get(name)!r}")


def _no_feedback(place: str, folder: Path, name: str) -> str:
    names = sorted(path.stem for path in folder.glob("*.zarr") if not path.name.startswith("."))
    near = get_close_matches(name, names, n=1) or names
    there = f"there is {', '.join(near)}" if names else "there is none yet"
    return f"{place}: no feedback named {name!r}; {there}"
