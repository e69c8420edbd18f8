"""Feedback with each kind of label, simulated or by people, and episodes that end both ways."""

import numpy as np
import pytest
from samples import DATASET, TASK, make_episode

from feedbackgen.episodes import write_dataset
from feedbackgen.feedback import Feedback, Preferences, SafetyLabels, Segments
from feedbackgen.store import write_feedback

LABELS = np.array([0.0, 1.0, 0.5, 1.0], dtype=np.float32)


@pytest.fixture
def make_feedback():
    """Four pairs of length 6 over five episodes, the last two of which are terminated; some end at an episode's end."""

    def make(*, source="simulated", lengths=6, n_pairs=4, label=LABELS, action_scale=1.0):
        from dataclasses import replace

        episodes = [make_episode(index, n_steps=20 + index) for index in range(5)]
        episodes[3:] = [
            replace(one, terminations=one.truncations, truncations=one.terminations) for one in episodes[3:]
        ]
        episodes = [replace(one, actions=one.actions * action_scale) for one in episodes]
        info = write_dataset(DATASET, episodes, task=TASK, force=True)
        feedback = Feedback(
            segments=Segments(
                episode=np.array([0, 1, 2, 3, 4, 4], dtype=np.int32),
                start=np.array([14, 0, 3, 17, 18, 2], dtype=np.int32),
                length=np.broadcast_to(np.array(lengths, dtype=np.int32), (6,)).copy(),
            ),
            preferences=Preferences(
                pair=np.array([[0, 1], [2, 3], [4, 5], [5, 0]], dtype=np.int32)[:n_pairs],
                label=label[:n_pairs],
                annotator=np.zeros(n_pairs, dtype=np.int32),
            ),
            safety=SafetyLabels(
                segment=np.array([1, 4], dtype=np.int32),
                label=np.array([1, -1], dtype=np.int8),
                annotator=np.zeros(2, dtype=np.int32),
            ),
            attributes={
                "dataset_id": info.dataset_id,
                "dataset_fingerprint": info.fingerprint,
                "task": info.task,
                "environment": info.environment,
                "source": source,
                "annotators": ["somebody"],
            },
        )
        write_feedback(info.path / "feedback" / "default.zarr", feedback, force=True)
        return episodes, feedback

    return make


@pytest.fixture
def segment_of():
    """The observations of a segment, straight from the episodes."""

    def cut(episodes, feedback, segment):
        episode, start, length = (
            int(getattr(feedback.segments, name)[segment]) for name in ("episode", "start", "length")
        )
        return np.float32(episodes[episode].observations[start : start + length])

    return cut
