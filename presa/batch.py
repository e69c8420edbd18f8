"""What a learner sees: steps in flat tensors, segments and pairs as indices, labels. No reward and no cost."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from feedbackgen.errors import DataError
from feedbackgen.store import Feedback
from feedbackgen.types import FloatArray, IntArray, Trajectories, require_finite

OBSERVATION_CLIP = 10.0  # standard deviations
SMALLEST_STD = 1e-3  # a nearly constant feature must not be blown up


@dataclass(frozen=True, kw_only=True)
class LearningData:
    """Trajectories and feedback, ready for minibatches."""

    observations: Tensor  # (n_steps, O) float32, standardised
    actions: Tensor  # (n_steps, A) float32, the action box scaled to [-1, 1]
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


def learning_data(
    trajectories: Trajectories, feedback: Feedback, action_low: FloatArray, action_high: FloatArray
) -> LearningData:
    """Bring a dataset and its feedback into the learner's shape.

    Raises:
        DataError: rewards came along, values are not finite, a segment leaves its episode, an index names no
            segment, or a label is none.
    """
    if trajectories.rewards is not None or trajectories.costs is not None:
        raise DataError("trajectories: a learner may not see rewards or costs; load them with with_rewards=False")
    low, high = action_low.astype(np.float64), action_high.astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise DataError(f"action box: expected finite bounds with low < high, got {low} and {high}")
    for name, values in {"observations": trajectories.observations, "actions": trajectories.actions}.items():
        require_finite(name, values)
    segments, starts = feedback.segments, trajectories.starts.astype(np.int64)
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

    mean = trajectories.observations.mean(axis=0, dtype=np.float64)
    std = np.maximum(trajectories.observations.std(axis=0, dtype=np.float64), SMALLEST_STD)
    standardised = np.clip((trajectories.observations - mean) / std, -OBSERVATION_CLIP, OBSERVATION_CLIP)
    scaled_actions = 2 * (trajectories.actions - low) / (high - low) - 1
    return LearningData(
        observations=torch.from_numpy(np.float32(standardised)),
        actions=torch.from_numpy(np.float32(scaled_actions)),
        episode_starts=starts,
        segment_episodes=episodes,
        segment_starts=starts[episodes] + first,
        segment_lengths=lengths,
        pairs=pairs,
        preferences=preferences,
        safety_segments=safety_segments,
        safety_labels=safety_labels,
        observation_mean=mean,
        observation_std=std,
        action_low=low,
        action_high=high,
    )


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
