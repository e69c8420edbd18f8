"""CPL's preference files in their old layout, which IPL and WiseRL read too, read and written.

``obs_1, obs_2, action_1, action_2, reward_1, reward_2`` (P, S, ...) and ``label`` (P,), P(second preferred). It is the
only layout of CPL that carries given labels with ties.
Source: CPL, research/datasets/feedback_buffer.py.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from feedbackgen.episodes import DatasetInfo, write_dataset
from feedbackgen.errors import DataError, RecipeError
from feedbackgen.feedback import Feedback, Preferences, SafetyLabels, Segments
from feedbackgen.files import complete_or_absent
from feedbackgen.interop.flat import ends_of
from feedbackgen.interop.foreign import ForeignTask, Imported, dataset_name, resolve_task
from feedbackgen.interop.npz import read_npz, write_npz
from feedbackgen.interop.pairs import Pairs, gather, load_pairs, one_length
from feedbackgen.provenance import versions
from feedbackgen.store import write_feedback
from feedbackgen.types import Episode, FloatArray

LAYOUT = "CPL's layout"
KEYS = ("obs_1", "obs_2", "action_1", "action_2", "reward_1", "reward_2", "label")
# CPL's reader clips actions to this bound, so those of a wider space would be lost.
ACTION_BOUND = 1.0


def export_cpl(feedback: str | Path, out: Path, *, force: bool = False) -> Path:
    """Write preferences as a file for CPL.

    Raises:
        RecipeError: ``out`` does not end in .npz.
        DataError: no preferences, segments of several lengths, or actions beyond [-1, 1].
        OutputExists: the file is there and ``force`` is not given.
        StoreError: no such feedback, the disk is full, or the place cannot be written.
    """
    if out.suffix != ".npz":
        raise RecipeError(f"--out {out}: expected a name ending in .npz")
    pairs = load_pairs(feedback, LAYOUT)
    length = one_length(pairs, LAYOUT)
    widest = float(np.abs(pairs.trajectories.actions).max())
    if widest > ACTION_BOUND + 1e-6:
        raise DataError(
            f"dataset {pairs.info.dataset_id}: {LAYOUT} holds actions in [-1, 1], to which its reader clips, and there "
            f"are some of {widest:g}"
        )
    with complete_or_absent(out, force=force) as draft:
        write_npz(draft, _arrays(pairs, length))
    return out


def import_cpl(file: str | Path, task: ForeignTask, *, dataset_id: str | None = None, force: bool = False) -> Imported:
    """Make a dataset and its feedback of a CPL file: each segment is an episode, that of row p at 2 p and 2 p + 1.

    Such files hold neither costs nor the observation after a segment, which is its last one here.

    Args:
        file: an npz of the old layout.
        task: its name is needed.
        dataset_id: default ``cpl/TASK/FILE-v0``.
        force: replace a dataset of that id, and its feedback.

    Raises:
        DataError: not such a file, a value not finite, or a label other than 0, 0.5 and 1.
        TaskError: a task that nobody knows.
        OutputExists: the dataset is there and ``force`` is not given.
        StoreError: the disk is full, or the place cannot be written.
    """
    file = Path(file)
    if task.name is None:
        raise DataError(f"{file}: such a file does not say which task it holds; say so with --task NAME")
    arrays = _check(read_npz(file, KEYS, LAYOUT), file)
    known = resolve_task(
        task, observation_dim=arrays["obs_1"].shape[2], action_dim=arrays["action_1"].shape[2], place=str(file)
    )
    info = write_dataset(
        dataset_id or f"cpl/{dataset_name(known.name)}/{dataset_name(file.stem)}-v0",
        _episodes(arrays, file),
        task=known,
        description=f"Segments of the CPL file {file.name}.",
        source={"format": "cpl", "file": file.name},
        force=force,
    )
    try:
        path = write_feedback(info.path / "feedback" / "default.zarr", _feedback(arrays, info, file))
    except BaseException:
        shutil.rmtree(info.path)  # the segments alone would be half an import
        raise
    return Imported(info=info, feedback=path)


def _arrays(pairs: Pairs, length: int) -> Iterator[tuple[str, FloatArray]]:
    flat = pairs.trajectories
    assert flat.rewards is not None  # asked for with rewards
    for name, values in (("obs", flat.observations), ("action", flat.actions), ("reward", flat.rewards)):
        for side in (0, 1):
            yield f"{name}_{side + 1}", gather(values, pairs.rows[:, side], length)
    yield "label", pairs.labels


def _check(arrays: dict[str, FloatArray], file: Path) -> dict[str, FloatArray]:
    shape = arrays["obs_1"].shape
    if len(shape) != 3 or 0 in shape:
        raise DataError(f"{file}, obs_1: expected shape (pairs, steps, width), got {shape}")
    n_pairs, length = shape[:2]
    expected: dict[str, tuple[int, ...]] = {"label": (n_pairs,)}
    for name, trailing in (("obs", shape[2:]), ("action", arrays["action_1"].shape[2:]), ("reward", ())):
        expected |= {f"{name}_1": (n_pairs, length, *trailing), f"{name}_2": (n_pairs, length, *trailing)}
    for name, values in arrays.items():
        if values.shape != expected[name] or (name.startswith("action") and values.ndim != 3):
            raise DataError(f"{file}, {name}: expected shape {expected[name]}, got {values.shape}")
    wrong = ~np.isin(arrays["label"], (0.0, 0.5, 1.0))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise DataError(f"{file}, label: expected 0, 0.5 or 1, got {arrays['label'][first]:g} at index {first}")
    return arrays


def _episodes(arrays: dict[str, FloatArray], file: Path) -> Iterator[Episode]:
    length = arrays["obs_1"].shape[1]
    for index in range(2 * len(arrays["label"])):
        pair, side = divmod(index, 2)
        observations = arrays[f"obs_{side + 1}"][pair]
        try:
            yield Episode(
                observations=np.concatenate([observations, observations[-1:]]),
                actions=arrays[f"action_{side + 1}"][pair],
                rewards=arrays[f"reward_{side + 1}"][pair].astype(np.float64),
                costs=np.full(length, np.nan),
                terminations=np.zeros(length, dtype=bool),
                truncations=ends_of(length),
                seed=-1,
                policy="cpl",
            )
        except DataError as error:
            raise DataError(f"{file}, segment {side + 1} of pair {pair}, {error}") from error


def _feedback(arrays: dict[str, FloatArray], info: DatasetInfo, file: Path) -> Feedback:
    n_pairs, length = arrays["obs_1"].shape[:2]
    n_segments = 2 * n_pairs
    labels = arrays["label"].astype(np.float32)
    return Feedback(
        segments=Segments(
            episode=np.arange(n_segments, dtype=np.int32),
            start=np.zeros(n_segments, dtype=np.int32),
            length=np.full(n_segments, length, dtype=np.int32),
        ),
        preferences=Preferences(
            pair=np.arange(n_segments, dtype=np.int32).reshape(-1, 2),
            label=labels,
            annotator=np.zeros(n_pairs, dtype=np.int32),
        ),
        safety=SafetyLabels(
            segment=np.zeros(0, dtype=np.int32), label=np.zeros(0, dtype=np.int8), annotator=np.zeros(0, dtype=np.int32)
        ),
        attributes={
            "dataset_id": info.dataset_id,
            "dataset_fingerprint": info.fingerprint,
            "task": info.task,
            "environment": info.environment,
            "source": "imported",
            "annotators": [f"the labels of {file.name}"],
            "segment_length": int(length),
            "horizon": info.horizon,
            "cost_limit": info.cost_limit,
            "seed": None,
            "teacher": None,
            "statistics": {
                "segments": n_segments,
                "pairs": n_pairs,
                "safety_labels": 0,
                "ties": int((labels == 0.5).sum()),
            },
            "versions": versions(("feedbackgen", "numpy", "zarr")),
        },
    )
