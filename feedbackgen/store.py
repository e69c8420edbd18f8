"""The feedback store (format 1): Zarr v3 beside the trajectories; the only importer of zarr. See docs/data-format.md."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import zarr

from feedbackgen.episodes import dataset_info, load_starts, resolve_dataset
from feedbackgen.errors import DataError, StoreError
from feedbackgen.files import complete_or_absent
from feedbackgen.types import BoolArray, FloatArray, IntArray

SCHEMA = "feedbackgen/feedback"
FORMAT_VERSION = 1
CHUNK = 1 << 20  # elements; a store is a few files


@dataclass(frozen=True, kw_only=True)
class Segments:
    """References to steps of the dataset's episodes."""

    episode: IntArray  # (S,) int32, Minari episode id
    start: IntArray  # (S,) int32, first step within the episode
    length: IntArray  # (S,) int32, steps


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """Which of two segments is better."""

    pair: IntArray  # (P, 2) int32, segments
    label: FloatArray  # (P,) float32, P(second preferred): 0, 1, or 0.5 when equal
    annotator: IntArray  # (P,) int32


@dataclass(frozen=True, kw_only=True)
class Safety:
    """Whether a segment is safe."""

    segment: IntArray  # (M,) int32
    label: IntArray  # (M,) int8, +1 safe, -1 unsafe
    annotator: IntArray  # (M,) int32


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """What only the simulated teacher knows; no learner may read it."""

    segment_return: FloatArray  # (S,) float64
    segment_cost: FloatArray  # (S,) float64
    preference_probability: FloatArray  # (P,) float32
    preference_clean: FloatArray  # (P,) float32
    preference_flipped: BoolArray  # (P,)
    safety_clean: IntArray  # (M,) int8
    safety_flipped: BoolArray  # (M,)


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """A whole store in memory."""

    segments: Segments
    preferences: Preferences
    safety: Safety
    attributes: dict
    oracle: Oracle | None = None


GROUPS = {"segments": Segments, "preferences": Preferences, "safety": Safety}
DTYPES = {
    **{("segments", name): "int32" for name in ("episode", "start", "length")},
    ("preferences", "pair"): "int32",
    ("preferences", "label"): "float32",
    ("preferences", "annotator"): "int32",
    ("safety", "segment"): "int32",
    ("safety", "label"): "int8",
    ("safety", "annotator"): "int32",
    **{("oracle", name): "float64" for name in ("segment_return", "segment_cost")},
    **{("oracle", name): "float32" for name in ("preference_probability", "preference_clean")},
    **{("oracle", name): "bool" for name in ("preference_flipped", "safety_flipped")},
    ("oracle", "safety_clean"): "int8",
}


def resolve_feedback(feedback: str | Path) -> Path:
    """The folder of a store, given its path or ``DATASET[/NAME]``; the name is ``default`` when left out.

    Raises:
        DataError: no such dataset.
        StoreError: the dataset has no feedback of that name.
    """
    path = Path(feedback)
    if path.suffix == ".zarr":
        if not path.is_dir():
            raise StoreError(f"feedback {path}: no such folder")
        return path
    text = str(feedback)
    for dataset, name in ((text, "default"), text.rpartition("/")[::2]):
        try:
            folder = resolve_dataset(dataset) / "feedback" if dataset else None
        except DataError:
            continue
        if folder is None:
            continue
        if (folder / f"{name}.zarr").is_dir():
            return folder / f"{name}.zarr"
        there = ", ".join(sorted(path.stem for path in folder.glob("[!.]*.zarr"))) or "none"
        raise StoreError(f"feedback {feedback}: {dataset} has no feedback named {name!r}; there is {there}; see `fbgen label`")
    resolve_dataset(text)  # names the nearest
    raise StoreError(f"feedback {feedback}: expected a path ending in .zarr, or DATASET[/NAME]")


def write_feedback(path: Path, feedback: Feedback, *, force: bool = False) -> Path:
    """Write a store that appears complete or not at all.

    Raises:
        StoreError: the disk is full, or the place cannot be written.
        OutputExists: a store is there and ``force`` is not given.
    """
    with complete_or_absent(path, force=force) as draft:
        root = zarr.create_group(draft, attributes={"schema": SCHEMA, "version": FORMAT_VERSION, **feedback.attributes})
        groups = {name: getattr(feedback, name) for name in GROUPS}
        if feedback.oracle is not None:
            groups["oracle"] = feedback.oracle
        for name, values in groups.items():
            group = root.create_group(name)
            for entry in fields(values):
                array = getattr(values, entry.name)
                stored = group.create_array(
                    entry.name,
                    shape=array.shape,
                    dtype=DTYPES[name, entry.name],
                    chunks=(max(1, min(len(array), CHUNK)), *array.shape[1:]),
                )
                stored[...] = array
    return path


def open_feedback(feedback: str | Path, *, with_oracle: bool = False) -> Feedback:
    """Read a store and check it against its dataset.

    Args:
        feedback: path, or ``DATASET[/NAME]``.
        with_oracle: also what only the teacher knows; never for a learner.

    Raises:
        StoreError: absent, damaged, of another schema or version, or references outside an episode.
        DataError: the dataset is absent, or is not the one that was labelled.
    """
    path = resolve_feedback(feedback)
    try:
        root = zarr.open_group(path, mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"feedback {path}: not a Zarr group, or damaged ({error})") from error
    attributes = dict(root.attrs)
    if attributes.get("schema") != SCHEMA or attributes.get("version") != FORMAT_VERSION:
        raise StoreError(
            f"feedback {path}: schema {attributes.get('schema')!r} version {attributes.get('version')}; this release reads "
            f"{SCHEMA!r} version {FORMAT_VERSION}"
        )
    info = dataset_info(path.parent.parent)
    if attributes.get("dataset_fingerprint") != info.fingerprint:
        raise DataError(
            f"feedback {path}: given on another content of {info.dataset_id} (fingerprint "
            f"{str(attributes.get('dataset_fingerprint'))[:12]}, now {info.fingerprint[:12]}); label it again"
        )
    read = {name: _read_group(root, path, name, group) for name, group in GROUPS.items()}
    oracle = _read_group(root, path, "oracle", Oracle) if with_oracle else None
    result = Feedback(**read, oracle=oracle, attributes=attributes)
    _check(result, path, np.diff(load_starts(info.path)))
    return result


def _read_group(root: zarr.Group, path: Path, name: str, group: type):
    arrays = {}
    for entry in fields(group):
        place = f"{name}/{entry.name}"
        try:
            values = np.asarray(root[place][...])
        except (KeyError, OSError, ValueError) as error:
            raise StoreError(f"feedback {path}: {place} is missing or damaged ({error}); label again") from error
        expected = DTYPES[name, entry.name]
        if values.dtype != expected:
            raise StoreError(f"feedback {path}: {place}: expected {expected}, got {values.dtype}")
        arrays[entry.name] = values
    return group(**arrays)


def _check(feedback: Feedback, path: Path, lengths: IntArray) -> None:
    segments, preferences, safety = feedback.segments, feedback.preferences, feedback.safety
    n_segments = len(segments.episode)

    def require(good, what: str) -> None:
        if not np.all(good):
            raise StoreError(f"feedback {path}: {what}")

    require(len(segments.start) == n_segments == len(segments.length), "segments: arrays of unequal length")
    require((segments.episode >= 0) & (segments.episode < len(lengths)), "segments/episode: no such episode")
    inside = segments.start.astype(np.int64) + segments.length <= lengths[np.clip(segments.episode, 0, len(lengths) - 1)]
    require((segments.start >= 0) & (segments.length >= 1) & inside, "segments: a reference outside its episode")
    require(preferences.pair.shape == (len(preferences.label), 2), "preferences/pair: expected shape (P, 2)")
    require(len(preferences.annotator) == len(preferences.label), "preferences: arrays of unequal length")
    require((preferences.pair >= 0) & (preferences.pair < n_segments), "preferences/pair: no such segment")
    require(np.isin(preferences.label, (0.0, 0.5, 1.0)), "preferences/label: expected 0, 0.5 or 1")
    require(len(safety.segment) == len(safety.label) == len(safety.annotator), "safety: arrays of unequal length")
    require((safety.segment >= 0) & (safety.segment < n_segments), "safety/segment: no such segment")
    require(np.isin(safety.label, (-1, 1)), "safety/label: expected +1 or -1")
