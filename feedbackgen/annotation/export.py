"""From people's answers to a feedback store that any learner takes: one label an answer, or one a question."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from feedbackgen.annotation.aggregation import dawid_skene, majority
from feedbackgen.annotation.answers import Answer, Answers, answers_path
from feedbackgen.annotation.sessions import PREFERENCES, SAFETY
from feedbackgen.episodes import dataset_info
from feedbackgen.errors import DataError, RecipeError
from feedbackgen.feedback import FURTHER, Feedback, Preferences, SafetyLabels, Segments
from feedbackgen.files import refuse_existing
from feedbackgen.provenance import versions
from feedbackgen.store import feedback_path, open_feedback, resolve_feedback, write_feedback
from feedbackgen.types import IntArray

RAW, MAJORITY, DAWID_SKENE = "raw", "majority", "dawid-skene"
AGGREGATIONS = (RAW, MAJORITY, DAWID_SKENE)
# Answers that are labels; an annotator who cannot tell has given none.
LABELS: dict[str, dict[str, float]] = {
    PREFERENCES: {"first": 0.0, "second": 1.0, "equal": 0.5},
    SAFETY: {"safe": 1, "unsafe": -1},
}


@dataclass(frozen=True, kw_only=True)
class Label:
    """One row of a store to be."""

    query: int
    kind: str
    value: float  # see `LABELS`
    annotator: str  # pseudonym, or how several were made one
    seconds: float  # of the answer; of several, the median
    time: float  # when, in seconds since 1970; of several, the last


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What was written."""

    path: Path
    statistics: dict[str, Any]


def export_answers(
    dataset: str | Path,
    name: str,
    *,
    aggregation: str = MAJORITY,
    with_gold: bool = False,
    force: bool = False,
) -> ExportSummary:
    """Write people's answers as the dataset's feedback of the session's name.

    Args:
        dataset: Minari id or path.
        name: of the session, and of the feedback.
        aggregation: one label an answer (raw), or one a question: what most said (questions without a majority are left
            out), or what is likeliest given how reliable each annotator shows to be (Dawid and Skene, 1979).
        with_gold: also the questions whose answer was known; they are clear cases, chosen for that.
        force: replace the feedback of that name.

    Raises:
        DataError: no session, other data than it asked about, or no answer that is a label.
        OutputExists: there is feedback of that name and ``force`` is not given.
        RecipeError: no such aggregation.
    """
    if aggregation not in AGGREGATIONS:
        raise RecipeError(f"--labels: expected one of {', '.join(AGGREGATIONS)}, got {aggregation}")
    path = feedback_path(dataset, name)
    refuse_existing(path, force=force)
    book = Answers(answers_path(dataset, name))
    try:
        require_same_data(book, dataset)
        feedback = to_feedback(book, aggregation=aggregation, with_gold=with_gold)
    finally:
        book.close()
    write_feedback(path, feedback, force=force)
    return ExportSummary(path=path, statistics=feedback.attributes["statistics"])


def to_feedback(book: Answers, *, aggregation: str, with_gold: bool = False) -> Feedback:
    """The feedback that a session's answers amount to.

    Raises:
        DataError: no answer is a label.
    """
    answers = [answer for answer in book.answers() if with_gold or book.queries[answer.query].gold is None]
    labels = _raw(book, answers)
    if not labels:
        raise DataError(f"{book.path}: no answers to export yet" + ("" if with_gold else " (gold questions aside)"))
    n_labelled = len({label.query for label in labels})
    if aggregation != RAW:
        labels = _aggregated(labels, aggregation)
    return _feedback(book, labels, aggregation, answers, n_labelled)


def merge_feedback(stores: Sequence[str], name: str, *, force: bool = False) -> Path:
    """Join feedback on one dataset, people's and simulated alike, into one store; who said what is kept.

    What only the simulated teacher knows is left behind: it is not known of people's labels.

    Raises:
        DataError: less than two stores, or stores on different data or of different segment lengths.
        OutputExists: there is feedback of that name and ``force`` is not given.
    """
    if len(stores) < 2:
        raise DataError("merge: expected two feedback stores or more")
    opened = {store: open_feedback(store) for store in stores}
    paths = [resolve_feedback(store) for store in stores]
    for key, what in (("dataset_fingerprint", "dataset"), ("segment_length", "segment length")):
        values = {str(feedback.attributes.get(key)) for feedback in opened.values()}
        if len(values) > 1:
            raise DataError(f"merge: {', '.join(stores)} differ in their {what}; expected the same")
    path = feedback_path(paths[0].parent.parent, name)
    merged = joined(list(opened.values()))
    write_feedback(path, merged, force=force)
    return path


def joined(parts: Sequence[Feedback]) -> Feedback:
    """Feedback on the same dataset as one: a segment that several refer to stands once."""
    rows = [np.stack([part.segments.episode, part.segments.start, part.segments.length], axis=1) for part in parts]
    segments, number = np.unique(np.concatenate(rows), axis=0, return_inverse=True)
    numbers = np.split(number.ravel().astype(np.int32), np.cumsum([len(part.segments) for part in parts])[:-1])
    names: list[str] = []
    annotators = []
    for part in parts:
        own = [str(entry) for entry in part.attributes.get("annotators", ["unknown"])]
        if part.attributes.get("source") == "simulated":
            # Each store has simulated teachers of its own, though they are called alike.
            own = [_not_among(names, entry) for entry in own]
        names += [entry for entry in own if entry not in names]
        annotators.append(np.array([names.index(entry) for entry in own], dtype=np.int32))
    first = parts[0].attributes
    sources = sorted({str(part.attributes.get("source")) for part in parts})
    kept = ("dataset_id", "dataset_fingerprint", "task", "environment", "segment_length", "horizon", "cost_limit",
            "safety_bound", "seed", "versions")  # fmt: skip
    further = _joined_further(parts, numbers, annotators)
    pair = [of[part.preferences.pair] for part, of in zip(parts, numbers, strict=True)]
    segment = [of[part.safety.segment] for part, of in zip(parts, numbers, strict=True)]
    return Feedback(
        segments=_segments(segments),
        preferences=Preferences(
            pair=np.concatenate(pair),
            label=np.concatenate([part.preferences.label for part in parts]),
            annotator=np.concatenate(
                [of[part.preferences.annotator] for part, of in zip(parts, annotators, strict=True)]
            ),
        ),
        safety=SafetyLabels(
            segment=np.concatenate(segment),
            label=np.concatenate([part.safety.label for part in parts]),
            annotator=np.concatenate([of[part.safety.annotator] for part, of in zip(parts, annotators, strict=True)]),
        ),
        **further,
        attributes={
            **{key: first[key] for key in kept if key in first},
            "source": sources[0] if len(sources) == 1 else "+".join(sources),
            "annotators": names,
            **({"rating_bins": _one_of("rating_bins", parts)} if "ratings" in further else {}),
            "parts": [
                {
                    key: part.attributes.get(key)
                    for key in ("source", "annotators", "seed", "cost_limit", "safety_bound")
                }
                | {"pairs": len(part.preferences), "safety_labels": len(part.safety)}
                for part in parts
            ],
            "statistics": {
                "segments": len(segments),
                "pairs": sum(len(part.preferences) for part in parts),
                "safety_labels": sum(len(part.safety) for part in parts),
            },
        },
    )


def _joined_further(
    parts: Sequence[Feedback], numbers: Sequence[IntArray], annotators: Sequence[IntArray]
) -> dict[str, Any]:
    """Further groups, each of all parts that have it."""
    found = {}
    for group, layout in FURTHER.items():
        columns: dict[str, list[np.ndarray]] = {name: [] for name in layout}
        kind = None
        for part, segment_of, annotator_of in zip(parts, numbers, annotators, strict=True):
            values = getattr(part, group)
            if values is None:
                continue
            kind = type(values)
            for name in layout:
                array = getattr(values, name)
                of = {"segment": segment_of, "pair": segment_of, "annotator": annotator_of}.get(name)
                columns[name].append(array if of is None else of[array])
        if kind is None:
            continue
        joined_columns = {name: np.concatenate(arrays) for name, arrays in columns.items()}
        if group == "non_preferred":  # each episode once, by whoever picked it first
            first = np.sort(np.unique(joined_columns["episode"], return_index=True)[1])
            joined_columns = {name: array[first] for name, array in joined_columns.items()}
        found[group] = kind(**joined_columns)
    return found


def _one_of(attribute: str, parts: Sequence[Feedback]) -> Any:
    values = {part.attributes[attribute] for part in parts if attribute in part.attributes}
    if len(values) > 1:
        raise DataError(f"merge: the stores differ in their {attribute} ({sorted(values)}); expected the same")
    return values.pop()


def _not_among(names: Sequence[str], name: str) -> str:
    numbered = (f"{name} ({number})" for number in count(2))
    return next(one for one in chain([name], numbered) if one not in names)


def require_same_data(book: Answers, dataset: str | Path) -> None:
    """Refuse a session whose questions were drawn from other data.

    Raises:
        DataError: the dataset has another fingerprint.
    """
    info = dataset_info(dataset)
    asked = book.about["dataset_fingerprint"]
    if info.fingerprint != asked:
        raise DataError(
            f"{book.path}: asks about a dataset with fingerprint {asked[:12]}…, but {info.dataset_id} now has "
            f"{info.fingerprint[:12]}…; start another session with --feedback NAME"
        )


def _raw(book: Answers, answers: Iterable[Answer]) -> list[Label]:
    labels = []
    for answer in answers:
        kind = book.queries[answer.query].kind
        if answer.verdict in LABELS[kind]:
            labels.append(
                Label(
                    query=answer.query,
                    kind=kind,
                    value=LABELS[kind][answer.verdict],
                    annotator=book.pseudonym(answer.place),
                    seconds=answer.seconds,
                    time=answer.time,
                )
            )
    return labels


def _aggregated(labels: list[Label], aggregation: str) -> list[Label]:
    """One label a question; kinds apart, since one may be good at one of them alone."""
    together = []
    estimate: Callable = majority if aggregation == MAJORITY else dawid_skene
    for kind in LABELS:
        of_kind = [label for label in labels if label.kind == kind]
        values = estimate([(label.query, label.annotator, label.value) for label in of_kind])
        by_query: dict[int, list[Label]] = {}
        for label in of_kind:
            by_query.setdefault(label.query, []).append(label)
        for query, value in values.items():
            said = by_query[query]
            together.append(
                replace(
                    said[0],
                    value=value,
                    annotator=aggregation,
                    seconds=median(label.seconds for label in said),
                    time=max(label.time for label in said),
                )
            )
    return together


def _feedback(book: Answers, labels: list[Label], aggregation: str, answers: list[Answer], n_labelled: int) -> Feedback:
    about = book.about
    length = about["config"]["segment_length"]
    kinds = {kind: [label for label in labels if label.kind == kind] for kind in LABELS}
    names = sorted({label.annotator for label in labels})
    number = {name: index for index, name in enumerate(names)}
    clips = [clip for kind in LABELS for label in kinds[kind] for clip in book.queries[label.query].clips]
    segments, row = np.unique(np.array([(*clip, length) for clip in clips], np.int32), axis=0, return_inverse=True)
    rows = row.ravel().astype(np.int32)
    n_pairs = len(kinds[PREFERENCES])

    def annotator(kind: str) -> np.ndarray:
        return np.array([number[label.annotator] for label in kinds[kind]], dtype=np.int32)

    def values(kind: str, dtype: str) -> np.ndarray:
        return np.array([label.value for label in kinds[kind]], dtype=dtype)

    said = Counter((book.queries[answer.query].kind, answer.verdict) for answer in answers)
    return Feedback(
        segments=_segments(segments),
        preferences=Preferences(
            pair=rows[: 2 * n_pairs].reshape(-1, 2),
            label=values(PREFERENCES, "float32"),
            annotator=annotator(PREFERENCES),
        ),
        safety=SafetyLabels(segment=rows[2 * n_pairs :], label=values(SAFETY, "int8"), annotator=annotator(SAFETY)),
        attributes={
            **{key: about[key] for key in ("dataset_id", "dataset_fingerprint", "task", "environment")},
            "source": "human",
            "annotators": names,
            "segment_length": length,
            "horizon": about["horizon"],
            "cost_limit": about["cost_limit"],
            "safety_bound": about["safety_bound"],
            "seed": about["config"]["seed"],
            "aggregation": aggregation,
            "annotation": about["config"],
            # In the order of the labels.
            "seconds": {kind: [round(label.seconds, 3) for label in kinds[kind]] for kind in LABELS},
            "times": {kind: [round(label.time, 3) for label in kinds[kind]] for kind in LABELS},
            "statistics": {
                "segments": len(segments),
                "pairs": n_pairs,
                "ties": sum(label.value == 0.5 for label in kinds[PREFERENCES]),
                "safety_labels": len(kinds[SAFETY]),
                "annotators": len({answer.place for answer in answers}),
                "answers": len(answers),
                "cannot_tell": sum(count for (_, verdict), count in said.items() if verdict == "unsure"),
                "without_majority": 0 if aggregation == RAW else n_labelled - len(labels),
                "median_seconds": round(median(answer.seconds for answer in answers), 3),
            },
            "versions": versions(("feedbackgen", "numpy", "zarr")),
        },
    )


def _segments(rows: np.ndarray) -> Segments:
    episode, start, length = (np.ascontiguousarray(column, dtype=np.int32) for column in rows.reshape(-1, 3).T)
    return Segments(episode=episode, start=start, length=length)
