"""Feedback in memory: segments, preferences, safety labels, further kinds; what the format promises of their arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from feedbackgen.errors import DataError
from feedbackgen.types import BoolArray, FloatArray, IntArray

# dtype, and the fill value that a lost chunk reads as: never a valid entry, where the dtype allows one.
LAYOUT: dict[str, dict[str, tuple[str, Any]]] = {
    "segments": {"episode": ("int32", -1), "start": ("int32", -1), "length": ("int32", 0)},
    "preferences": {"pair": ("int32", -1), "label": ("float32", np.nan), "annotator": ("int32", -1)},
    "safety": {"segment": ("int32", -1), "label": ("int8", 0), "annotator": ("int32", -1)},
    "oracle": {
        "segment_return": ("float64", np.nan),
        "segment_cost": ("float64", np.nan),
        "preference_probability": ("float32", np.nan),
        "preference_clean": ("float32", np.nan),
        "preference_flipped": ("bool", False),
        "safety_clean": ("int8", 0),
        "safety_flipped": ("bool", False),
    },
}
# Groups that a store may also have; what the teacher knew of each is in ``oracle/`` as GROUP_NAME.
FURTHER: dict[str, dict[str, tuple[str, Any]]] = {
    "ratings": {"segment": ("int32", -1), "label": ("int8", -1), "annotator": ("int32", -1)},
    "safety_preferences": {"pair": ("int32", -1), "label": ("float32", np.nan), "annotator": ("int32", -1)},
    "episode_safety": {"episode": ("int32", -1), "label": ("int8", 0), "annotator": ("int32", -1)},
    "non_preferred": {"episode": ("int32", -1), "annotator": ("int32", -1)},
}
FURTHER_ORACLE: dict[str, dict[str, tuple[str, Any]]] = {
    "ratings": {"clean": ("int8", -1), "flipped": ("bool", False)},
    "safety_preferences": {
        "probability": ("float32", np.nan),
        "clean": ("float32", np.nan),
        "flipped": ("bool", False),
    },
    "episode_safety": {"clean": ("int8", 0), "flipped": ("bool", False)},
    "non_preferred": {"clean": ("int8", 0)},
}


@dataclass(frozen=True, kw_only=True)
class Segments:
    """References to stretches of episodes."""

    episode: IntArray  # (S,), int32, Minari episode id
    start: IntArray  # (S,), int32, first step
    length: IntArray  # (S,), int32, steps

    def __len__(self) -> int:
        return len(self.episode)


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """Which of two segments was preferred."""

    pair: IntArray  # (P, 2), int32, first and second segment
    label: FloatArray  # (P,), float32, P(second preferred): 0, 1, or 0.5 when equal
    annotator: IntArray  # (P,), int32

    def __len__(self) -> int:
        return len(self.pair)


@dataclass(frozen=True, kw_only=True)
class SafetyLabels:
    """Whether a segment was found safe."""

    segment: IntArray  # (M,), int32
    label: IntArray  # (M,), int8, +1 safe, -1 unsafe
    annotator: IntArray  # (M,), int32

    def __len__(self) -> int:
        return len(self.segment)


@dataclass(frozen=True, kw_only=True)
class Ratings:
    """How good a segment was found, alone."""

    segment: IntArray  # (R,), int32
    label: IntArray  # (R,), int8, from 0, the worst, to the attribute rating_bins - 1
    annotator: IntArray  # (R,), int32

    def __len__(self) -> int:
        return len(self.segment)


@dataclass(frozen=True, kw_only=True)
class EpisodeSafety:
    """Whether a whole episode was found safe."""

    episode: IntArray  # (E,), int32, Minari episode id
    label: IntArray  # (E,), int8, +1 safe, -1 unsafe
    annotator: IntArray  # (E,), int32

    def __len__(self) -> int:
        return len(self.episode)


@dataclass(frozen=True, kw_only=True)
class NonPreferred:
    """Episodes picked as what not to do; of all others nothing is said."""

    episode: IntArray  # (N,), int32, Minari episode id, each once
    annotator: IntArray  # (N,), int32

    def __len__(self) -> int:
        return len(self.episode)


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """What the simulated teacher knew; for analysis, never for a learner."""

    segment_return: FloatArray  # (S,), float64
    segment_cost: FloatArray  # (S,), float64
    preference_probability: FloatArray  # (P,), float32, of the second, before the draw
    preference_clean: FloatArray  # (P,), float32, label before the flip
    preference_flipped: BoolArray  # (P,)
    safety_clean: IntArray  # (M,), int8, label before the flip
    safety_flipped: BoolArray  # (M,)
    further: Mapping[str, np.ndarray] = field(default_factory=dict)  # GROUP_NAME of FURTHER_ORACLE -> one a row


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """A store in memory."""

    segments: Segments
    preferences: Preferences
    safety: SafetyLabels
    oracle: Oracle | None = None
    ratings: Ratings | None = None
    safety_preferences: Preferences | None = None  # P(second is the safer one)
    episode_safety: EpisodeSafety | None = None
    non_preferred: NonPreferred | None = None
    attributes: dict[str, Any]


def further_tables(feedback: Feedback) -> dict[str, dict[str, np.ndarray]]:
    """The further groups that are there, each as columns of one row a label, with its segments spelt out."""
    segments, tables = feedback.segments, {}
    for group_name, layout in FURTHER.items():
        values = getattr(feedback, group_name)
        if values is None:
            continue
        columns: dict[str, np.ndarray] = {}
        sides = {"": values.segment} if "segment" in layout else {}
        if "pair" in layout:
            sides = {"first_": values.pair[:, 0], "second_": values.pair[:, 1]}
        for side, rows in sides.items():
            columns |= {f"{side}{name}": getattr(segments, name)[rows] for name in ("episode", "start", "length")}
        rest = [name for name in ("episode", "label", "annotator") if name in layout]
        tables[group_name] = columns | {name: getattr(values, name) for name in rest}
    return tables


def check_feedback(feedback: Feedback) -> None:
    """Check what a store promises of its arrays, the dataset aside.

    Raises:
        DataError: an array has a wrong dtype or shape, a label is outside its set, a reference points nowhere, the
            segments of a pair overlap, or an annotator was asked the same twice.
    """
    segments, preferences, safety, oracle = feedback.segments, feedback.preferences, feedback.safety, feedback.oracle
    counts = {"segments": len(segments.episode), "preferences": len(preferences.pair), "safety": len(safety.segment)}
    for group_name, n_rows in counts.items():
        for name in LAYOUT[group_name]:
            _require_array(group_name, name, getattr(feedback, group_name), n_rows)
    for name, lowest in (("episode", 0), ("start", 0), ("length", 1)):
        _require_range(f"segments/{name}", getattr(segments, name), lowest, None)
    _require_range("preferences/pair", preferences.pair, 0, counts["segments"])
    _require_set("preferences/label", preferences.label, (0.0, 0.5, 1.0))
    _require_range("preferences/annotator", preferences.annotator, 0, None)
    _require_range("safety/segment", safety.segment, 0, counts["segments"])
    _require_set("safety/label", safety.label, (-1, 1))
    _require_range("safety/annotator", safety.annotator, 0, None)
    _require_pairs("preferences/pair", segments, preferences)
    _require_once("safety/segment", safety.segment, safety.annotator)
    _check_further(feedback)
    if oracle is not None:
        rows = {"segment": "segments", "preference": "preferences", "safety": "safety"}
        for name in LAYOUT["oracle"]:
            _require_array("oracle", name, oracle, counts[rows[name.partition("_")[0]]])
        _require_set("oracle/preference_clean", oracle.preference_clean, (0.0, 0.5, 1.0))
        _require_set("oracle/safety_clean", oracle.safety_clean, (-1, 1))


def _check_further(feedback: Feedback) -> None:
    for group_name, layout in FURTHER.items():
        values = getattr(feedback, group_name)
        if values is None:
            continue
        for name in layout:
            _require_array(group_name, name, values, len(values))
        _require_range(f"{group_name}/annotator", values.annotator, 0, None)
        for name in ("segment", "pair"):
            if name in layout:
                _require_range(f"{group_name}/{name}", getattr(values, name), 0, len(feedback.segments))
        if "episode" in layout:
            _require_range(f"{group_name}/episode", values.episode, 0, None)
        if "pair" in layout:
            _require_pairs(f"{group_name}/pair", feedback.segments, values)
        elif group_name != "non_preferred":
            of = "segment" if "segment" in layout else "episode"
            _require_once(f"{group_name}/{of}", getattr(values, of), values.annotator)
        if feedback.oracle is not None:
            for name, (dtype, _) in FURTHER_ORACLE[group_name].items():
                array = feedback.oracle.further.get(f"{group_name}_{name}")
                if array is None or array.dtype != np.dtype(dtype) or array.shape != (len(values),):
                    came = "none" if array is None else f"{array.dtype} of shape {array.shape}"
                    raise DataError(
                        f"oracle/{group_name}_{name}: expected {dtype} of shape ({len(values)},), got {came}"
                    )
    if feedback.ratings is not None:
        bins = feedback.attributes.get("rating_bins")
        if not isinstance(bins, int) or not 2 <= bins <= 100:
            raise DataError(f"attribute rating_bins: expected a number of bins from 2 to 100, got {bins!r}")
        _require_range("ratings/label", feedback.ratings.label, 0, bins, "bins")
    if feedback.safety_preferences is not None:
        _require_set("safety_preferences/label", feedback.safety_preferences.label, (0.0, 0.5, 1.0))
    if feedback.episode_safety is not None:
        _require_set("episode_safety/label", feedback.episode_safety.label, (-1, 1))
    if feedback.non_preferred is not None:
        episodes, counts = np.unique(feedback.non_preferred.episode, return_counts=True)
        if (counts > 1).any():
            raise DataError(f"non_preferred/episode: episode {episodes[np.argmax(counts)]} is there twice")


def _require_array(group_name: str, name: str, values: Any, n_rows: int) -> None:
    array = getattr(values, name)
    dtype = (LAYOUT | FURTHER)[group_name][name][0]
    shape = (n_rows, 2) if name == "pair" else (n_rows,)
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise DataError(
            f"{group_name}/{name}: expected {dtype} of shape {shape}, got {array.dtype} of shape {array.shape}"
        )


def _require_set(name: str, values: np.ndarray, allowed: tuple[float, ...]) -> None:
    wrong = ~np.isin(values, allowed)
    if wrong.any():
        first = int(np.argmax(wrong))
        expected = ", ".join(f"{value:g}" for value in allowed)
        raise DataError(f"{name}: expected one of {expected}, got {values[first]:g} at index {first}")


def _require_range(name: str, values: IntArray, lowest: int, end: int | None, what: str = "segments") -> None:
    wrong = values < lowest
    if end is not None:
        wrong |= values >= end
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        expected = f"at least {lowest}" if end is None else f"one of {end} {what}"
        raise DataError(f"{name}: expected {expected}, got {values[first]} at index {first[0]}")


def _require_pairs(name: str, segments: Segments, asked: Any) -> None:
    """Refuse a pair whose segments share a step, and one that an annotator was asked about twice, in either order."""
    first, second = asked.pair[:, 0], asked.pair[:, 1]
    starts, ends = segments.start, segments.start.astype(np.int64) + segments.length
    overlap = segments.episode[first] == segments.episode[second]
    overlap &= np.maximum(starts[first], starts[second]) < np.minimum(ends[first], ends[second])
    if overlap.any():
        row = int(np.argmax(overlap))
        raise DataError(
            f"{name}: expected segments that share no step, got {first[row]} and {second[row]} at index {row}"
        )
    lower, higher = np.minimum(first, second), np.maximum(first, second)
    _require_once(name, lower.astype(np.int64) * len(segments) + higher, asked.annotator)


def _require_once(name: str, asked: IntArray, annotator: IntArray) -> None:
    """Refuse an annotator who was asked the same twice; ``asked`` numbers the questions."""
    for index in np.unique(annotator).tolist():
        rows = np.flatnonzero(annotator == index)
        order = rows[np.argsort(asked[rows], kind="stable")]
        again = np.flatnonzero(np.diff(asked[order]) == 0)
        if len(again):
            first, second = order[again[0]], order[again[0] + 1]
            raise DataError(
                f"{name}: expected each question once of an annotator, got the same at indices {first} and {second}"
            )
