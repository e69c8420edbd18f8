"""TraC: trajectory classification (Gong, Kumar and Varakantham, AAAI 2025) on labels aggregated by episode.

    min over policy:   mean over desirable  w * softplus(-U)  +  eta * mean over undesirable  w * softplus(U)

with U the utility of a segment, the scaled sum of its log-ratios to a policy cloned from every step (arXiv 2412.15429,
its classification loss). We differ in what is desirable: the paper knows return and cost of every segment, we believe
an episode safe, and rank the safe ones, by their labels alone; a segment inherits the side and the weight of its
episode. We also draw as many segments of either side, where the paper balances the sides of a batch by a factor; and
take random steps of a segment, rescaled, in place of all, and no dropout.
"""

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from feedbackgen.errors import DataError, RecipeError
from feedbackgen.seeding import stream
from feedbackgen.types import BoolArray, FloatArray, IntArray
from presa.aggregation import AggregationConfig, EpisodeBeliefs, aggregate
from presa.batch import LearningData, gather, require_preferences, require_safety_labels, sample_segment_steps
from presa.checkpoint import load_training_tensors, training_tensors
from presa.cloning import BLOCK, Cloning, CloningConfig, adam, new_policy, set_learning_rate
from presa.policy import PLAIN, GaussianPolicy, PolicyConfig, known_steps

_CLONING = CloningConfig(n_steps=5_000, learning_rate_final=1.0)


@dataclass(frozen=True, kw_only=True)
class TraCConfig:
    """What TraC learns with; as many updates in all as PreSa's default.

    Raises:
        RecipeError: a value is out of range.
    """

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    aggregation: AggregationConfig = field(default_factory=AggregationConfig)
    cloning: CloningConfig = _CLONING  # the reference, of every step alike

    desirable_share: float = 0.5  # of the safe episodes, the best by their scores
    undesirable_share: float = 0.5  # of the safe episodes, the worst; the unsafe ones all are
    weight_floor: float = 0.7  # weight of the least desirable of the desirable (kappa); the unsafe weigh 1
    undesirable_weight: float = 0.5  # of the undesirable side as a whole (eta)

    n_steps: int = 10_500  # updates after the reference
    learning_rate: float = 1e-4  # of Adam; at three times as much the policy drifted off the data on 40 episodes
    learning_rate_final: float = 1.0  # at the end, as a share of learning_rate
    n_segments: int = 192  # per update, half of each side
    n_segment_steps: int = 16  # random steps that stand for a segment; 0 takes all
    utility_scale: float = 0.1  # log-odds per nat (alpha)
    utility_length: float = 64.0  # steps; the utility of any segment is that of one of this length
    discount: float = 1.0  # per step

    def __post_init__(self):
        for name in ("n_steps", "learning_rate", "learning_rate_final", "utility_scale", "utility_length"):
            if not getattr(self, name) > 0:
                raise RecipeError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        for name in ("n_segment_steps", "undesirable_weight"):
            if not getattr(self, name) >= 0:
                raise RecipeError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
        for name in ("desirable_share", "undesirable_share", "weight_floor", "discount"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{name}: expected a number from 0 to 1, got {getattr(self, name)}")
        if self.desirable_share + self.undesirable_share > 1:
            raise RecipeError(
                "desirable_share, undesirable_share: expected at most 1 together, "
                f"got {self.desirable_share} and {self.undesirable_share}"
            )
        if self.n_segments < 2:
            raise RecipeError(f"n_segments: expected at least 2, got {self.n_segments}")


PRESETS = {
    "default": TraCConfig(),
    # All 64 steps of half the segments, as the authors' code has it.
    "paper": TraCConfig(policy=PLAIN, n_segments=96, n_segment_steps=0, discount=0.99),
}


def partition(beliefs: EpisodeBeliefs, labelled: BoolArray, config: TraCConfig) -> tuple[IntArray, FloatArray]:
    """Side and weight of every episode.

    Args:
        beliefs: what the labels say of each episode.
        labelled: whether some segment is of the episode, (n_episodes,); the others are on no side.
        config: the shares, and the floor of the weights.

    Returns:
        +1 desirable, -1 undesirable, 0 neither, (n_episodes,), and the weight, (n_episodes,): it rises from the floor
        to 1 with the score of a desirable episode, and with minus the score of an undesirable safe one.
    """
    safe = np.flatnonzero((beliefs.safe > 0.5) & labelled)
    ranked = safe[np.argsort(beliefs.scores[safe], kind="stable")]
    best = ranked[len(ranked) - int(np.ceil(config.desirable_share * len(ranked))) :]
    worst = np.setdiff1d(ranked[: int(np.ceil(config.undesirable_share * len(ranked)))], best)
    sides = np.where(labelled & (beliefs.safe <= 0.5), -1, 0)
    sides[best], sides[worst] = 1, -1

    weights = np.ones(len(sides))
    lowest, highest = beliefs.scores[safe].min(initial=np.inf), beliefs.scores[safe].max(initial=-np.inf)
    heights = (beliefs.scores - lowest) / max(highest - lowest, 1e-6)
    weights[best] = config.weight_floor + (1 - config.weight_floor) * heights[best]
    weights[worst] = config.weight_floor + (1 - config.weight_floor) * (1 - heights[worst])
    return sides, weights


def utility(log_ratios: Tensor, places: Tensor, config: TraCConfig) -> Tensor:
    """``scale * length * mean_k discount^place_k * log_ratio_k``, in log-odds, (...,).

    Args:
        log_ratios: ``log pi - log pi_ref`` of some steps of segments, nats, (..., K).
        places: of those steps within their segment, (..., K).
    """
    return config.utility_scale * config.utility_length * (config.discount**places * log_ratios).mean(-1)


def classification_loss(utilities: Tensor, weights: Tensor, undesirable_weight: float) -> Tensor:
    """Weighted logistic loss of telling the sides apart, nats; the first half is desirable, the second undesirable.

    Args:
        utilities: log-odds, (N,).
        weights: (N,).
        undesirable_weight: of the second half.
    """
    desirable, undesirable = (weights * softplus(utilities * _signs(utilities))).chunk(2)
    return desirable.mean() + undesirable_weight * undesirable.mean()


class TraC:
    """TraC, one update at a time: first the reference, then the classification."""

    def __init__(self, data: LearningData, config: TraCConfig, seed: int):
        require_preferences(data, "trac")
        require_safety_labels(data, "trac")
        self._data, self._config, self._seed = data, config, seed
        self.beliefs = aggregate(data, config.aggregation)
        self._sides = self._segments_by_side()
        self._n_segment_steps = config.n_segment_steps or int(data.segment_lengths.max())
        self.policy = new_policy(data, config.policy, seed)
        self._optimizer = adam(self.policy, config.cloning.learning_rate)
        self._n_cloning = config.cloning.n_steps
        self.n_steps = self._n_cloning + config.n_steps
        self._cloning = Cloning(self.policy, self._optimizer, data, np.ones(data.n_steps), config.cloning, seed, "all")
        self._reference: GaussianPolicy | None = None
        self._reference_log_probs = torch.empty(0)
        self._block = -1
        self._drawn: tuple[Tensor, ...] = ()

    def update(self, step: int) -> tuple[str, dict[str, float]]:
        """Take one step; returns the phase and what to log."""
        if step < self._n_cloning:
            loss = self._cloning.update(step)
            return "cloning", {"loss": loss, "log_likelihood": -loss}
        if self._reference is None:
            self._freeze_reference(copy.deepcopy(self.policy))
            self._optimizer = adam(self.policy, self._config.learning_rate)
        return "classification", self._update_classification(step - self._n_cloning)

    def _update_classification(self, step: int) -> dict[str, float]:
        config, data = self._config, self._data
        rows, places, weights = self._draw(step)  # segments: desirable, undesirable
        log_likelihoods = self.policy.log_prob(gather(data.observations, rows), gather(data.actions, rows))
        utilities = utility(log_likelihoods - self._reference_log_probs[rows], places, config)
        loss = classification_loss(utilities, weights, config.undesirable_weight)
        set_learning_rate(self._optimizer, config, step)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        with torch.no_grad():
            desirable, undesirable = utilities.chunk(2)
            return {
                "loss": float(loss.detach()),
                "classification_accuracy": float((utilities * _signs(utilities) < 0).float().mean()),
                "utility_desirable": float(desirable.mean()),
                "utility_undesirable": float(undesirable.mean()),
                "log_likelihood": float(log_likelihoods.mean()),
            }

    def _segments_by_side(self) -> tuple[IntArray, IntArray]:
        """Desirable and undesirable segments."""
        episodes = self._data.segment_episodes
        labelled = np.bincount(episodes, minlength=self._data.n_episodes) > 0
        sides, weights = partition(self.beliefs, labelled, self._config)
        self._weights = weights[episodes].astype(np.float32)
        desirable, undesirable = np.flatnonzero(sides[episodes] > 0), np.flatnonzero(sides[episodes] < 0)
        if len(desirable) == 0:
            raise DataError("trac: by its labels no episode is safe; set aggregation.safe_share or the cost limit")
        if len(undesirable) == 0:
            raise DataError("trac: by its labels no episode is undesirable; set undesirable_share or the cost limit")
        return desirable, undesirable

    def _draw(self, step: int) -> tuple[Tensor, ...]:
        """Rows and places of the drawn steps, (N, K), and the weights of their segments, (N,)."""
        if step // BLOCK != self._block:
            # A stream of its own for each block: a resumed run needs no state of a generator.
            self._block = step // BLOCK
            rng = stream(self._seed, "trac", self._block)
            data, shape = self._data, (BLOCK, self._config.n_segments // 2)
            segments = np.concatenate([side[rng.integers(len(side), size=shape)] for side in self._sides], axis=1)
            rows, places = sample_segment_steps(
                data.segment_starts[segments], data.segment_lengths[segments], self._n_segment_steps, rng
            )
            drawn = (rows, places, self._weights[segments])
            self._drawn = tuple(torch.from_numpy(values).to(data.device) for values in drawn)
        return tuple(values[step % BLOCK] for values in self._drawn)

    def _freeze_reference(self, reference: GaussianPolicy) -> None:
        self._reference = reference.requires_grad_(False)
        self._reference_log_probs = known_steps(reference, self._data.observations, self._data.actions).log_probs

    def state(self) -> dict[str, Tensor]:
        state = training_tensors(self.policy, self._optimizer)
        if self._reference is not None:
            state |= {f"reference.{name}": value for name, value in self._reference.state_dict().items()}
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        prefix = "reference."
        reference = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if reference:
            policy = copy.deepcopy(self.policy)
            policy.load_state_dict(reference)
            self._freeze_reference(policy)
            self._optimizer = adam(self.policy, self._config.learning_rate)
        load_training_tensors(state, self.policy, self._optimizer)


def _signs(utilities: Tensor) -> Tensor:
    """-1 for the desirable half, +1 for the undesirable one."""
    desirable, undesirable = torch.ones_like(utilities).chunk(2)
    return torch.cat([-desirable, undesirable])
