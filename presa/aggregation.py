"""Labels of segments aggregated by episode: our extension of PreSa, against label noise and local labels.

The learner does not know how often labels are flipped, so both models below carry a flip rate and choose it by maximum
likelihood. Safety: the labels of an episode are draws from its clean share of safe segments p, each flipped with
probability e; p comes from a Beta distribution, and e with both parameters of that Beta is fitted to all episodes at
once. Flips show as observed shares that crowd near e and 1 - e instead of 0 and 1. Preferences: Bradley-Terry scores of
episodes with a normal prior, P(second) = e + (1 - 2 e) sigmoid(score_second - score_first).
"""

import warnings
from dataclasses import dataclass

import numpy as np

from feedbackgen.errors import RecipeError
from feedbackgen.types import FloatArray, IntArray
from presa.batch import LearningData

FLIP_RATES = np.linspace(0.0, 0.3, 16)
SCORE_FLIP_RATES = np.linspace(0.0, 0.3, 7)
BETA_PARAMETERS = np.array([0.1, 0.2, 0.35, 0.6, 1.0, 2.0, 4.0])
N_SHARES = 200  # cells of the grid over clean shares
N_SCORING_STEPS = 25
N_CONJUGATE_STEPS = 50
FEW_EPISODES = 5  # that the reference clones the equivalent of, before we warn


@dataclass(frozen=True, kw_only=True)
class AggregationConfig:
    """How labels become weights of episodes.

    Raises:
        RecipeError: a value is out of range.
    """

    safe_share: float = 0.9  # an episode is safe when its clean share of safe segments exceeds this
    safe_power: float = 2.0  # the posterior of being safe enters the cloning weight to this power
    preference_sharpness: float = 2.0  # cloning weight ~ sigmoid(this * standardised score); 0 ignores preferences
    score_std: float = 2.0  # prior standard deviation of Bradley-Terry scores, in log-odds

    def __post_init__(self):
        if not 0 < self.safe_share < 1:
            raise RecipeError(f"safe_share: expected a number between 0 and 1, got {self.safe_share}")
        for name in ("safe_power", "preference_sharpness"):
            if not getattr(self, name) >= 0:
                raise RecipeError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
        if not self.score_std > 0:
            raise RecipeError(f"score_std: expected a number above 0, got {self.score_std}")


@dataclass(frozen=True, kw_only=True)
class EpisodeBeliefs:
    """What the labels say of each episode."""

    safe: FloatArray  # (n_episodes,), posterior that the clean share of safe segments exceeds the bound
    scores: FloatArray  # (n_episodes,), Bradley-Terry, log-odds
    cloning_weights: FloatArray  # (n_episodes,), mean 1
    safety_flip_rate: float  # estimated
    preference_flip_rate: float  # estimated

    @property
    def n_effective(self) -> float:
        """Number of equally weighted episodes that would clone as steadily."""
        return float(self.cloning_weights.sum() ** 2 / np.square(self.cloning_weights).sum())


def aggregate(data: LearningData, config: AggregationConfig) -> EpisodeBeliefs:
    """Beliefs about every episode from all labels of its segments."""
    episodes = data.segment_episodes[data.safety_segments]
    n_safe = np.bincount(episodes[data.safety_labels > 0], minlength=data.n_episodes)
    n_unsafe = np.bincount(episodes[data.safety_labels < 0], minlength=data.n_episodes)
    safe, safety_flip_rate = safe_posterior(n_safe, n_unsafe, config.safe_share)
    scores, preference_flip_rate = episode_scores(
        data.segment_episodes[data.pairs], data.preferences, data.n_episodes, config.score_std
    )
    return EpisodeBeliefs(
        safe=safe,
        scores=scores,
        cloning_weights=cloning_weights(safe, scores, config),
        safety_flip_rate=safety_flip_rate,
        preference_flip_rate=preference_flip_rate,
    )


def cloning_weights(safe: FloatArray, scores: FloatArray, config: AggregationConfig) -> FloatArray:
    """Weight of each episode: its posterior times a sigmoid of its score among the safe episodes, mean 1."""
    weights = np.maximum(safe, 1e-12) ** config.safe_power
    mean = np.average(scores, weights=weights)
    std = np.sqrt(np.average((scores - mean) ** 2, weights=weights))
    weights = weights * _sigmoid(config.preference_sharpness * (scores - mean) / max(std, 1e-6))
    return weights / weights.mean()


def reference_weights(data: LearningData, beliefs: EpisodeBeliefs) -> FloatArray:
    """By which the reference clones each step, (n_steps,); warns where the labels single out few episodes."""
    if beliefs.n_effective < FEW_EPISODES:
        warnings.warn(
            f"the reference clones the equivalent of {beliefs.n_effective:.1f} episodes; more labels, or a lower "
            "aggregation.preference_sharpness or safe_share, would steady it",
            stacklevel=2,
        )
    return np.repeat(beliefs.cloning_weights, np.diff(data.episode_starts))


def safe_posterior(n_safe: IntArray, n_unsafe: IntArray, safe_share: float) -> tuple[FloatArray, float]:
    """Posterior that an episode's clean share of safe segments exceeds a bound, and the fitted flip rate."""
    counts, inverse, repeats = np.unique(
        np.stack([n_safe, n_unsafe], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    shares = (np.arange(N_SHARES) + 0.5) / N_SHARES
    first, second = (grid.ravel() for grid in np.meshgrid(BETA_PARAMETERS, BETA_PARAMETERS))
    priors = shares[:, None] ** (first - 1) * (1 - shares[:, None]) ** (second - 1)  # (shares, Betas)
    priors /= priors.sum(axis=0)
    best = (-np.inf, 0.0, np.empty(0))
    for flip_rate in FLIP_RATES:
        likelihoods, offsets = _label_likelihoods(counts, shares, flip_rate)
        evidence = repeats @ (np.log(likelihoods @ priors) + offsets[:, None])  # (Betas,)
        if evidence.max() > best[0] + 1e-9:
            best = (float(evidence.max()), float(flip_rate), priors[:, evidence.argmax()])
    _, flip_rate, prior = best
    posterior = _label_likelihoods(counts, shares, flip_rate)[0] * prior
    exceeds = posterior[:, shares > safe_share].sum(axis=1) / posterior.sum(axis=1)
    return exceeds[inverse.ravel()], flip_rate


def _label_likelihoods(counts: IntArray, shares: FloatArray, flip_rate: float) -> tuple[FloatArray, FloatArray]:
    observed = (1 - 2 * flip_rate) * shares + flip_rate
    logs = counts[:, :1] * np.log(observed) + counts[:, 1:] * np.log1p(-observed)
    offsets = logs.max(axis=1)
    return np.exp(logs - offsets[:, None]), offsets


def episode_scores(pairs: IntArray, labels: FloatArray, n_episodes: int, score_std: float) -> tuple[FloatArray, float]:
    """Bradley-Terry scores of episodes, and the fitted flip rate.

    Args:
        pairs: episodes of the first and second segment, (n_pairs, 2).
        labels: P(second preferred), (n_pairs,).
        n_episodes: including those in no pair, whose score is 0.
        score_std: prior standard deviation, in log-odds.
    """
    between = pairs[:, 0] != pairs[:, 1]
    pairs, labels = pairs[between], labels[between].astype(np.float64)
    if len(pairs) == 0:
        return np.zeros(n_episodes), 0.0
    best = (-np.inf, 0.0, np.zeros(n_episodes))
    for flip_rate in SCORE_FLIP_RATES:
        scores = _fit_scores(pairs, labels, n_episodes, score_std, flip_rate, best[2])
        log_posterior = _score_log_posterior(scores, pairs, labels, score_std, flip_rate)
        if log_posterior > best[0] + 1e-9:
            best = (log_posterior, float(flip_rate), scores)
    return best[2], best[1]


def _fit_scores(pairs, labels, n_episodes, score_std, flip_rate, scores):
    """Fisher scoring with halved steps; the linear system is solved by conjugate gradients, linear in the pairs."""
    first, second = pairs.T
    current = _score_log_posterior(scores, pairs, labels, score_std, flip_rate)
    for _ in range(N_SCORING_STEPS):
        clean = _sigmoid(scores[second] - scores[first])
        observed = np.clip((1 - 2 * flip_rate) * clean + flip_rate, 1e-9, 1 - 1e-9)
        slope = (1 - 2 * flip_rate) * clean * (1 - clean)
        pull = (labels - observed) * slope / (observed * (1 - observed))
        gradient = _scatter(pull, first, second, n_episodes) - scores / score_std**2
        weights = slope**2 / (observed * (1 - observed))
        direction = _solve(weights, first, second, 1 / score_std**2, gradient)
        for _ in range(10):
            candidate = _score_log_posterior(scores + direction, pairs, labels, score_std, flip_rate)
            if candidate >= current:
                break
            direction = direction / 2
        else:
            return scores
        scores, gain, current = scores + direction, candidate - current, candidate
        if gain < 1e-6:
            break
    return scores


def _score_log_posterior(scores, pairs, labels, score_std, flip_rate) -> float:
    clean = _sigmoid(scores[pairs[:, 1]] - scores[pairs[:, 0]])
    observed = np.clip((1 - 2 * flip_rate) * clean + flip_rate, 1e-9, 1 - 1e-9)
    likelihood = labels @ np.log(observed) + (1 - labels) @ np.log1p(-observed)
    return float(likelihood - 0.5 * np.square(scores / score_std).sum())


def _scatter(values: FloatArray, first: IntArray, second: IntArray, n_episodes: int) -> FloatArray:
    totals: FloatArray = np.bincount(second, values, n_episodes) - np.bincount(first, values, n_episodes)  # type: ignore[assignment]
    return totals


def _solve(weights, first, second, ridge, target):
    """Solve (Laplacian of the weighted pairs + ridge) x = target."""
    solution = np.zeros_like(target)
    residual = target.copy()
    direction = residual.copy()
    norm = residual @ residual
    for _ in range(N_CONJUGATE_STEPS):
        if norm < 1e-18:
            break
        image = _scatter(weights * (direction[second] - direction[first]), first, second, len(target))
        image = image + ridge * direction
        length = norm / (direction @ image)
        solution += length * direction
        residual -= length * image
        norm, previous = residual @ residual, norm
        direction = residual + (norm / previous) * direction
    return solution


def _sigmoid(values: FloatArray) -> FloatArray:
    return 0.5 * (1 + np.tanh(0.5 * values))
