"""What a learner sees: steps in flat tensors, segments and pairs as indices, labels. No reward and no cost.

data = load_learning_data("feedbackgen/SafetyPointCircle1-v0/tour-v0")
for batch in Batches(data, n_pairs=96, n_safety=192, n_batches=1000, seed=0):
    ...
"""

import hashlib
import json
from dataclasses import KW_ONLY, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from feedbackgen.episodes import DatasetInfo, dataset_info, iterate_steps
from feedbackgen.errors import DataError
from feedbackgen.feedback import Feedback
from feedbackgen.seeding import stream
from feedbackgen.store import open_feedback, resolve_feedback
from feedbackgen.types import BoolArray, FloatArray, IntArray, Trajectories, require_finite
from presa.mapped import MappedRows
from presa.steps import OBSERVATION_CLIP as OBSERVATION_CLIP
from presa.steps import ActionBox, Steps, mapped_steps, steps_in_memory


@dataclass(frozen=True, kw_only=True)
class LearningData:
    """Trajectories and feedback, ready for minibatches."""

    observations: Tensor | MappedRows  # (n_steps, O) float32, standardised; index it with rows
    actions: Tensor | MappedRows  # (n_steps, A) float32, the action box scaled to [-1, 1]
    episode_starts: IntArray  # (n_episodes + 1,), the steps of episode i are [i]:[i + 1]
    segment_episodes: IntArray  # (n_segments,)
    segment_starts: IntArray  # (n_segments,), row of the first step
    segment_lengths: IntArray  # (n_segments,)
    pairs: IntArray  # (n_pairs, 2), first and second segment
    preferences: FloatArray  # (n_pairs,), P(second preferred): 0, 0.5 or 1
    safety_segments: IntArray  # (n_safety,)
    safety_labels: IntArray  # (n_safety,), +1 safe, -1 unsafe
    observation_mean: FloatArray  # (O,)
    observation_std: FloatArray  # (O,)
    action_low: FloatArray  # (A,)
    action_high: FloatArray  # (A,)

    @property
    def n_episodes(self) -> int:
        return len(self.episode_starts) - 1

    @property
    def n_steps(self) -> int:
        return len(self.actions)

    @property
    def device(self) -> torch.device:
        """Where the steps are, or where mapped ones go batch by batch; a learner works there."""
        return self.observations.device

    def to(self, device: torch.device) -> "LearningData":
        """The same data with its steps on a device."""
        return replace(self, observations=self.observations.to(device), actions=self.actions.to(device))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Segments of some pairs and of some safety labels; a segment shorter than H ends in copies of its last step."""

    pair_observations: Tensor  # (P, 2, H, O) float32, of the first and the second segment
    pair_actions: Tensor  # (P, 2, H, A) float32
    pair_mask: Tensor  # (P, 2, H) bool, False beyond the end of a segment
    preferences: Tensor  # (P,) float32, P(second preferred): 0, 0.5 or 1
    safety_observations: Tensor  # (M, H, O) float32
    safety_actions: Tensor  # (M, H, A) float32
    safety_mask: Tensor  # (M, H) bool
    safety_labels: Tensor  # (M,) int64, +1 safe, -1 unsafe


@dataclass(frozen=True)
class Batches:
    """Minibatches of whole segments, drawn uniformly with replacement; batch i is the same however it is reached.

    Iterate over it, index it, or give it to ``torch.utils.data.DataLoader(batches, batch_size=None, num_workers=2)``.

    Raises:
        DataError: there is nothing to draw what is asked for from, or a number is out of range.
    """

    data: LearningData
    _: KW_ONLY
    n_pairs: int  # per batch
    n_safety: int = 0  # segments with a safety label per batch
    n_batches: int
    seed: int

    def __post_init__(self):
        for name, lowest in (("n_pairs", 0), ("n_safety", 0), ("n_batches", 1), ("seed", 0)):
            if getattr(self, name) < lowest:
                raise DataError(f"{name}: expected an integer >= {lowest}, got {getattr(self, name)}")
        if self.n_pairs:
            require_preferences(self.data, "the loader")
        if self.n_safety and len(self.data.safety_labels) == 0:
            raise DataError("the loader: n_safety asks for safety labels, the feedback holds none; use n_safety=0")

    def __len__(self) -> int:
        return self.n_batches

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < self.n_batches:
            raise IndexError(index)
        data, rng = self.data, stream(self.seed, "batch", index)
        pairs = rng.integers(len(data.pairs), size=self.n_pairs) if self.n_pairs else np.empty(0, np.int64)
        judged = rng.integers(len(data.safety_labels), size=self.n_safety) if self.n_safety else np.empty(0, np.int64)
        pair_rows, pair_mask = _whole_segments(data, data.pairs[pairs])
        safety_rows, safety_mask = _whole_segments(data, data.safety_segments[judged])
        return Batch(
            pair_observations=gather(data.observations, pair_rows),
            pair_actions=gather(data.actions, pair_rows),
            pair_mask=torch.from_numpy(pair_mask).to(data.device),
            preferences=torch.from_numpy(data.preferences[pairs]).to(data.device),
            safety_observations=gather(data.observations, safety_rows),
            safety_actions=gather(data.actions, safety_rows),
            safety_mask=torch.from_numpy(safety_mask).to(data.device),
            safety_labels=torch.from_numpy(data.safety_labels[judged]).to(data.device),
        )


def load_learning_data(feedback: str | Path, *, mapped: bool = False) -> LearningData:
    """Open a store and the dataset that it labels.

    Args:
        feedback: a store's path, ``DATASET[/NAME]``, or an fsspec URL of either.
        mapped: leave the steps on disk, in files of a cache folder that are mapped; the batches are the same.

    Raises:
        DataError: the store or the dataset is damaged, or they do not belong together.
        StoreError: no such store, or the cache cannot be written.
    """
    store = resolve_feedback(feedback)
    return dataset_learning_data(dataset_info(store.parent.parent), open_feedback(store), mapped=mapped)


def dataset_learning_data(info: DatasetInfo, feedback: Feedback, *, mapped: bool = False) -> LearningData:
    """Bring a dataset on disk and its feedback into the learner's shape; see `load_learning_data`."""
    box = ActionBox(low=np.array(info.action_low), high=np.array(info.action_high))
    if mapped:
        return _learning_data(mapped_steps(info, box), feedback, box)
    return _learning_data(steps_in_memory(lambda: iterate_steps(info.path), info.n_steps, box), feedback, box)


def learning_data(
    trajectories: Trajectories, feedback: Feedback, action_low: FloatArray, action_high: FloatArray
) -> LearningData:
    """Bring trajectories in memory and their feedback into the learner's shape.

    Raises:
        DataError: rewards came along, values are not finite, a segment leaves its episode, an index names no
            segment, or a label is none.
    """
    if trajectories.rewards is not None or trajectories.costs is not None:
        raise DataError("trajectories: a learner may not see rewards or costs; load them with with_rewards=False")
    box = ActionBox(low=action_low.astype(np.float64), high=action_high.astype(np.float64))
    for name, values in {"observations": trajectories.observations, "actions": trajectories.actions}.items():
        require_finite(name, values)
    episodes = [slice(*bounds) for bounds in pairwise(trajectories.starts)]
    steps = steps_in_memory(
        lambda: ((trajectories.observations[rows], trajectories.actions[rows]) for rows in episodes),
        trajectories.n_steps,
        box,
    )
    return _learning_data(steps, feedback, box)


def _learning_data(steps: Steps, feedback: Feedback, box: ActionBox) -> LearningData:
    segments, starts = feedback.segments, steps.starts
    references = (segments.episode, segments.start, segments.length)
    episodes, first, lengths = (values.astype(np.int64) for values in references)
    _check_segments(episodes, first, lengths, starts)
    pairs = feedback.preferences.pair.astype(np.int64).reshape(-1, 2)
    preferences = feedback.preferences.label.astype(np.float32)
    safety_segments = feedback.safety.segment.astype(np.int64)
    safety_labels = feedback.safety.label.astype(np.int64)
    for name, indices in {"preferences": pairs, "safety labels": safety_segments}.items():
        if indices.size and not (indices.min() >= 0 and indices.max() < len(episodes)):
            raise DataError(f"{name}: a label names a segment outside 0..{len(episodes) - 1}; label the dataset again")
    if not np.isin(preferences, (0.0, 0.5, 1.0)).all():
        raise DataError("preferences: expected labels 0, 0.5 or 1; label the dataset again")
    if not np.isin(safety_labels, (-1, 1)).all():
        raise DataError("safety labels: expected +1 (safe) or -1 (unsafe); label the dataset again")
    return LearningData(
        observations=steps.observations,
        actions=steps.actions,
        episode_starts=starts,
        segment_episodes=episodes,
        segment_starts=starts[episodes] + first,
        segment_lengths=lengths,
        pairs=pairs,
        preferences=preferences,
        safety_segments=safety_segments,
        safety_labels=safety_labels,
        observation_mean=steps.mean,
        observation_std=steps.std,
        action_low=box.low,
        action_high=box.high,
    )


def _whole_segments(data: LearningData, segments: IntArray) -> tuple[IntArray, BoolArray]:
    """Rows of all steps of segments, and which of them lie within, both (*segments.shape, longest)."""
    lengths = data.segment_lengths[segments][..., None]
    places = np.arange(lengths.max(initial=0))
    return data.segment_starts[segments][..., None] + np.minimum(places, lengths - 1), places < lengths


def gather(values: Tensor | MappedRows, rows: IntArray | Tensor) -> Tensor:
    """Those rows of ``values``, (*rows.shape, columns)."""
    if isinstance(values, MappedRows):
        return values[rows]
    # Indexing with several dimensions takes two to seven times as long.
    gathered = values.index_select(0, torch.as_tensor(rows, device=values.device).reshape(-1))
    return gathered.reshape(*rows.shape, values.shape[1])


def require_preferences(data: LearningData, method: str) -> None:
    if len(data.pairs) == 0:
        raise DataError(f"{method} learns from preferences, the feedback holds none; label with --pairs N")


def require_safety_labels(data: LearningData, method: str) -> None:
    """Refuse feedback from which no safety can be learnt."""
    if len(data.safety_labels) == 0:
        raise DataError(f"{method} learns from safety labels, the feedback holds none; label the dataset again")
    if len(np.unique(data.safety_labels)) == 1:
        only = "safe" if data.safety_labels[0] > 0 else "unsafe"
        raise DataError(
            f"{method} needs safe and unsafe segments, all {len(data.safety_labels)} labels say {only}; "
            "choose another cost limit or other behaviour policies"
        )


def sample_segment_steps(
    starts: IntArray, lengths: IntArray, n_steps: int, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """One random step from each of ``n_steps`` equal parts of every segment.

    Every step is drawn with the same expected count ``n_steps / length``, so a mean over the drawn steps estimates the
    segment's mean without bias; with ``n_steps == length`` each step comes exactly once.

    Returns:
        Row of each drawn step, and its place within the segment, both (*starts.shape, n_steps).
    """
    parts = np.arange(n_steps) + rng.random((*starts.shape, n_steps))
    lengths = lengths[..., None]
    # A product of floats may round up to the length itself.
    places = np.minimum((parts * lengths / n_steps).astype(np.int64), lengths - 1)
    return starts[..., None] + places, places


def feedback_hash(feedback: Feedback) -> str:
    """A hash over everything a learner reads from a store, and its attributes; the oracle is left out."""
    digest = hashlib.sha256()
    segments, preferences, safety = feedback.segments, feedback.preferences, feedback.safety
    for values in (
        segments.episode, segments.start, segments.length, preferences.pair, preferences.label, preferences.annotator,
        safety.segment, safety.label, safety.annotator,
    ):  # fmt: skip
        digest.update(f"{values.dtype.str}{values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    digest.update(json.dumps(feedback.attributes, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _check_segments(episodes: IntArray, first: IntArray, lengths: IntArray, starts: IntArray) -> None:
    if len(episodes) == 0:
        raise DataError("feedback: expected at least one segment, got none; label the dataset first")
    if episodes.min() < 0 or episodes.max() >= len(starts) - 1:
        raise DataError(f"segments: an episode is outside 0..{len(starts) - 2}; was the dataset collected again?")
    outside = (first < 0) | (lengths < 1) | (first + lengths > np.diff(starts)[episodes])
    if outside.any():
        segment = int(np.flatnonzero(outside)[0])
        raise DataError(f"segment {segment}: reaches outside episode {episodes[segment]}; label the dataset again")
