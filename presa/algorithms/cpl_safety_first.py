"""Safety-first CPL: one preference that puts safety before reward, then CPL on it; a baseline of ours.

Where one segment is safe and the other is not, the safe one wins; elsewhere the preference stands. Preferences and
safety labels are of different segments, so whether a segment is safe is believed of its episode, from the labels of
all its segments, as our other methods pool them; where the labels leave it open, so does the preference made of them.
"""

from dataclasses import dataclass, field

from feedbackgen.types import FloatArray
from presa.aggregation import AggregationConfig, aggregate
from presa.batch import LearningData, require_preferences, require_safety_labels
from presa.contrastive import ContrastiveConfig, ContrastiveLearner


@dataclass(frozen=True, kw_only=True)
class CPLSafetyFirstConfig(ContrastiveConfig):
    """What safety-first CPL learns with."""

    aggregation: AggregationConfig = field(default_factory=AggregationConfig)


PRESETS = {"default": CPLSafetyFirstConfig()}


def safety_first(first_safe: FloatArray, second_safe: FloatArray, preferences: FloatArray) -> FloatArray:
    """P(second preferred) when safety decides first, (P,).

    Args:
        first_safe, second_safe: probabilities that the segments of each pair are safe, independent, (P,).
        preferences: P(second preferred) where safety does not decide, (P,).
    """
    first_safer, second_safer = first_safe * (1 - second_safe), second_safe * (1 - first_safe)
    return second_safer + (1 - first_safer - second_safer) * preferences


class CPLSafetyFirst(ContrastiveLearner):
    """Safety-first CPL, one update at a time."""

    def __init__(self, data: LearningData, config: CPLSafetyFirstConfig, seed: int):
        require_preferences(data, "cpl-safety-first")
        require_safety_labels(data, "cpl-safety-first")
        self.beliefs = aggregate(data, config.aggregation)
        first, second = self.beliefs.safe[data.segment_episodes[data.pairs]].T
        super().__init__(data, safety_first(first, second, data.preferences), config, seed)
