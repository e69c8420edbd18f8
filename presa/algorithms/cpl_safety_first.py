"""Safety-first CPL: one preference that puts safety before reward, then CPL on it; a baseline of ours.

Where the two segments of a pair were judged differently, the safe one wins; elsewhere, and where one of them was never
judged, the preference stands.
"""

from dataclasses import dataclass

import numpy as np

from feedbackgen.types import FloatArray
from presa.batch import LearningData, require_preferences, require_safety_labels
from presa.contrastive import ContrastiveConfig, ContrastiveLearner


@dataclass(frozen=True, kw_only=True)
class CPLSafetyFirstConfig(ContrastiveConfig):
    """What safety-first CPL learns with."""


PRESETS = {"default": CPLSafetyFirstConfig()}


def safety_first(data: LearningData) -> FloatArray:
    """P(second preferred) when safety decides first, (P,)."""
    votes = np.bincount(data.safety_segments, data.safety_labels, minlength=len(data.segment_episodes))
    first, second = np.sign(votes)[data.pairs].T
    decided = first * second < 0
    return np.where(decided, second > first, data.preferences)


class CPLSafetyFirst(ContrastiveLearner):
    """Safety-first CPL, one update at a time."""

    def __init__(self, data: LearningData, config: CPLSafetyFirstConfig, seed: int):
        require_preferences(data, "cpl-safety-first")
        require_safety_labels(data, "cpl-safety-first")
        super().__init__(data, safety_first(data), config, seed)
