"""What peers' preference files are made of: the segments of each pair as rows of the flat dataset, and the labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feedbackgen.episodes import DatasetInfo, dataset_info, load_trajectories
from feedbackgen.errors import DataError
from feedbackgen.store import open_feedback, resolve_feedback
from feedbackgen.types import FloatArray, IntArray, Trajectories


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Labelled pairs over the dataset in flat memory."""

    info: DatasetInfo
    trajectories: Trajectories
    rows: IntArray  # (P, 2), int64, first row of the first and of the second segment
    episodes: IntArray  # (P, 2), int64
    lengths: IntArray  # (P, 2), int64, steps
    labels: FloatArray  # (P,), float32, P(second preferred)
    simulated: bool  # by a teacher, not by people
    attributes: dict[str, Any]

    def __len__(self) -> int:
        return len(self.labels)


def load_pairs(feedback: str | Path, layout: str) -> Pairs:
    """Open feedback for export.

    Raises:
        StoreError: no such feedback.
        DataError: it is damaged, or holds no preferences.
    """
    path = resolve_feedback(feedback)
    content = open_feedback(path)
    if len(content.preferences) == 0:
        raise DataError(f"feedback {path}: {layout} holds preferences, and there are none; label it with --pairs")
    dataset = path.parent.parent
    trajectories = load_trajectories(dataset, with_rewards=True)
    pair, segments = content.preferences.pair, content.segments
    episodes = segments.episode[pair].astype(np.int64)
    return Pairs(
        info=dataset_info(dataset),
        trajectories=trajectories,
        rows=trajectories.starts[episodes] + segments.start[pair],
        episodes=episodes,
        lengths=segments.length[pair].astype(np.int64),
        labels=content.preferences.label,
        simulated=content.attributes.get("source") == "simulated",
        attributes=content.attributes,
    )


def one_length(pairs: Pairs, layout: str) -> int:
    """The length of all segments, in steps.

    Raises:
        DataError: they differ.
    """
    low, high = int(pairs.lengths.min()), int(pairs.lengths.max())
    if low != high:
        raise DataError(
            f"dataset {pairs.info.dataset_id}: {layout} holds segments of one length, and the feedback has {low} to "
            f"{high} steps; label it with a single --segment-length"
        )
    return low


def gather(values: FloatArray, rows: IntArray, length: int) -> FloatArray:
    """The segments that begin at the rows, (P, length, ...), float32."""
    return values[rows[:, None] + np.arange(length)].astype(np.float32)


def side_codes(labels: FloatArray) -> IntArray:
    """Labels as Uni-RLHF and Preference Transformer count: 0 the first, 1 the second, -1 equal, int64."""
    return np.where(labels == 0.5, -1, labels).astype(np.int64)
