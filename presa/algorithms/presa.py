"""PreSa: contrastive preference learning under a constraint on the value of binary safety labels, in one stage.

[P] stands in the paper (arXiv 2512.20173) as far as its abstract and public reviews tell; [R] is our reconstruction.
The preset ``paper`` is the plainest reading, ``default`` is what we found to work; both rest on a reference policy,
which is cloned first, by the same seed.

    min over policy, max over multiplier >= 0:   preference loss + multiplier * (threshold - constraint value)

``default`` adds two constraints [R], each with a multiplier of its own. Safe and preferred steps stay as likely as
under the reference: what makes a policy safer without that is learnt, what only tears it from all it has seen is not.
And where the labels have taught the reference nothing, so that in the states of unsafe steps it acts as the clone of
every step alike, the policy stays as near the reference there as that clone is: the labels say what not to do, and
nothing says what to do instead.
"""

import copy
import math
import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from feedbackgen.errors import DataError, RecipeError
from feedbackgen.seeding import stream
from feedbackgen.types import FloatArray, IntArray
from presa.aggregation import AggregationConfig, EpisodeBeliefs, aggregate, reference_weights
from presa.batch import LearningData, gather, require_preferences, require_safety_labels, sample_segment_steps
from presa.checkpoint import load_training_tensors, training_tensors
from presa.cloning import (
    BLOCK,
    Cloning,
    CloningConfig,
    adam,
    new_policy,
    safe_segment_weights,
    set_learning_rate,
    step_weights,
)
from presa.contrastive import preference_loss, preferred_mean
from presa.lagrange import Multiplier
from presa.policy import PLAIN, Components, GaussianPolicy, KnownSteps, PolicyConfig, known_steps

CHOICES = {
    "reference": ("all", "safe", "aggregated"),
    "safety_classes": ("segments", "episodes", "preferred-episodes"),
    "pairs": ("all", "without-unsafe-winners", "safe-safe"),
    "utility_centre": ("zero", "batch-mean", "midpoint"),
}
FALLEN = -1.0  # nats per step below the reference on safe segments, before we warn


_CLONING = CloningConfig(n_steps=5_000, learning_rate_final=1.0)
_REFINING = CloningConfig(n_steps=8_000)


@dataclass(frozen=True, kw_only=True)
class PreSaConfig:
    """What PreSa learns with; these values are the preset ``default``.

    Raises:
        RecipeError: a value is out of range.
    """

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    aggregation: AggregationConfig = field(default_factory=AggregationConfig)  # read where labels are aggregated
    cloning: CloningConfig = _CLONING  # the reference, of every step alike
    refining: CloningConfig = _REFINING  # the reference, of what `reference` names; none for "all"
    reference: str = "aggregated"  # what it clones: all; safe: segments labelled safe; aggregated: weighted episodes

    n_steps: int = 2_500  # updates after the reference
    learning_rate: float = 3e-4  # of Adam
    learning_rate_final: float = 1.0  # at the end, as a share of learning_rate
    n_pairs: int = 96  # per update
    n_safety_segments: int = 192  # per update, half of each class; drawn independently of the pairs
    n_segment_steps: int = 16  # random steps that stand for a segment; 0 takes all

    utility_scale: float = 0.1  # log-odds per nat (CPL's temperature alpha)
    utility_length: float = 64.0  # steps; the utility of any segment is that of one of this length
    discount: float = 1.0  # per step [R]
    log_ratio_clip: float = 1.0  # nats per step, soft; inf leaves the log-ratios unclipped
    conservative_bias: float = 0.5  # CPL's lambda, weight of the loser's utility
    # Which pairs count: all; without-unsafe-winners (over safe losers); safe-safe, which do not pull against safety.
    pairs: str = "safe-safe"
    # The halves of a safety batch. segments: by their own label; episodes: by the posterior of their episode;
    # preferred-episodes: likewise, but the safe half is drawn as the reference clones, by safety and preference.
    safety_classes: str = "preferred-episodes"
    safety_sharpness: float = 1.0  # slope of the safety value (KTO's beta)
    utility_centre: str = "midpoint"  # z0: zero; batch-mean: KTO's, clamped; midpoint: moving, of both class means
    centre_rate: float = 0.05  # of the moving midpoint, per update

    threshold: float = 0.95  # delta, the wanted constraint value [P: 0.9 or 0.95]
    multiplier_initial: float = 1.0  # nu at the start
    multiplier_rate: float = 0.02  # per unit of violation and update
    multiplier_max: float = 5.0  # where it rests here, this is the real knob between return and safety
    violation_averaging: float = 0.9  # decay of the violation's moving average; 0 is none
    # Beside the loss, the safe half of the safety batch is cloned. The weight starts here, and rises while those steps
    # are less likely than under the reference.
    cloning_coefficient: float = 1.0  # the least weight
    cloning_rate: float = 5.0  # its rise per nat lost, per step of the environment, and update; 0 keeps it
    cloning_max: float = 100.0  # the most that it rises by
    # Nats per step, in the states of the unsafe half, by which one policy's own action is less likely under another.
    # Where the reference has departed less than this from the clone of every step, the policy departs no further from
    # the reference; 0 never bounds it.
    departure_threshold: float = 0.2
    departure_rate: float = 5.0  # rise of its multiplier per nat beyond, per step of the environment, and update
    departure_max: float = 100.0  # the multiplier's cap

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise RecipeError(f"{name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in (
            "n_steps", "learning_rate", "learning_rate_final", "n_pairs", "utility_scale", "utility_length",
            "log_ratio_clip", "safety_sharpness", "multiplier_max", "departure_max",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise RecipeError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        for name in (
            "n_segment_steps", "multiplier_initial", "multiplier_rate", "cloning_coefficient", "cloning_rate",
            "cloning_max", "departure_threshold", "departure_rate",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise RecipeError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
        for name in ("discount", "conservative_bias", "centre_rate", "threshold", "violation_averaging"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{name}: expected a number from 0 to 1, got {getattr(self, name)}")
        if self.n_safety_segments < 2:
            raise RecipeError(f"n_safety_segments: expected at least 2, got {self.n_safety_segments}")
        if self.violation_averaging == 1:
            raise RecipeError("violation_averaging: expected a number below 1, got 1.0")
        if self.departure_threshold > 0 and (self.reference == "all" or self.refining.n_steps == 0):
            raise RecipeError(
                f"departure_threshold: {self.departure_threshold:g} needs a reference that is refined from the clone "
                "of every step, here it is that clone; use 0"
            )


PRESETS = {
    "default": PreSaConfig(),
    "paper": PreSaConfig(
        policy=PLAIN,
        cloning=CloningConfig(n_steps=13_000, learning_rate_final=1.0, start_share=0.0),
        refining=CloningConfig(n_steps=0),
        reference="all",
        # All 64 steps of a third of the segments: as many steps per update as in the default.
        n_pairs=32,
        n_safety_segments=64,
        n_segment_steps=0,
        log_ratio_clip=math.inf,
        pairs="all",
        safety_classes="segments",
        utility_centre="zero",
        multiplier_max=100.0,
        violation_averaging=0.0,
        cloning_coefficient=0.0,
        cloning_rate=0.0,
        departure_threshold=0.0,
    ),
}


def utility(log_ratios: Tensor, places: Tensor, config: PreSaConfig) -> Tensor:
    """Utility of segments from the log-ratios ``log pi - log pi_ref`` of some of their steps.

    Args:
        log_ratios: nats, (..., K).
        places: of those steps within their segment, (..., K).

    Returns:
        ``scale * length * mean_k discount^place_k * clip(log_ratio_k)``, in log-odds, (...,).
    """
    if math.isfinite(config.log_ratio_clip):
        log_ratios = config.log_ratio_clip * torch.tanh(log_ratios / config.log_ratio_clip)
    if config.discount != 1:
        log_ratios = log_ratios * config.discount**places
    return config.utility_scale * config.utility_length * log_ratios.mean(-1)


def safety_value(utilities: Tensor, labels: Tensor | float, centre: Tensor | float, sharpness: float) -> Tensor:
    """``sigmoid(label * sharpness * (U - centre))``: near 1 where the policy agrees with the label (+1 or -1)."""
    return torch.sigmoid(labels * sharpness * (utilities - centre))


def constraint_value(safe: Tensor, unsafe: Tensor, centre: Tensor | float, sharpness: float) -> Tensor:
    """Class-balanced mean of the safety value, 0 to 1."""
    safe_mean = safety_value(safe, 1.0, centre, sharpness).mean()
    unsafe_mean = safety_value(unsafe, -1.0, centre, sharpness).mean()
    return (safe_mean + unsafe_mean) / 2


def lagrangian(preference: Tensor, constraint: Tensor, multiplier: float, threshold: float) -> Tensor:
    """``preference + multiplier * (threshold - constraint)``."""
    return preference + multiplier * (threshold - constraint)


def likelihood_lost(before: Tensor, after: Tensor) -> Tensor:
    """Nats by which an action is less likely than before, 0 where it is likelier.

    Of one Gaussian's own action, under another of its width, this is the divergence of the two.
    """
    return (before - after).clamp(min=0)


class PreSa:
    """PreSa, one update at a time: first the reference, then the constrained problem."""

    def __init__(self, data: LearningData, config: PreSaConfig, seed: int):
        require_preferences(data, "presa")
        require_safety_labels(data, "presa")
        self._data, self._config, self._seed = data, config, seed
        self.policy = new_policy(data, config.policy, seed)
        aggregated = config.reference == "aggregated" or config.safety_classes != "segments"
        self.beliefs = aggregate(data, config.aggregation) if aggregated else None
        self._optimizer = adam(self.policy, config.cloning.learning_rate)
        self._n_cloning = config.cloning.n_steps
        self._n_reference = self._n_cloning + (config.refining.n_steps if config.reference != "all" else 0)
        self.n_steps = self._n_reference + config.n_steps
        shared = (self.policy, self._optimizer, data)
        self._cloning = Cloning(*shared, np.ones(data.n_steps), config.cloning, seed, "all")
        self._refining = Cloning(
            *shared, _reference_weights(data, config, self.beliefs), config.refining, seed, "weighted"
        )
        self._batches = _Batches(data, config, self.beliefs, seed)
        self._clone: GaussianPolicy | None = None  # of every step alike; kept until the reference's departure is known
        self._reference: GaussianPolicy | None = None
        self._known: KnownSteps | None = None  # to the reference
        self._reference_departure = math.inf  # from the clone in the states of the unsafe half, nats per step
        self._centre = 0.0
        self._multiplier = Multiplier(
            config.multiplier_initial, config.multiplier_rate, config.multiplier_max, config.violation_averaging
        )
        self._hold = Multiplier(0.0, config.cloning_rate, config.cloning_max, config.violation_averaging)
        self._tether = Multiplier(0.0, config.departure_rate, config.departure_max, config.violation_averaging)

    def update(self, step: int) -> tuple[str, dict[str, float]]:
        """Take one step; returns the phase and what to log."""
        if step < self._n_cloning:
            loss = self._cloning.update(step)
            return "cloning", {"loss": loss, "log_likelihood": -loss}
        if step == self._n_cloning and self._config.departure_threshold > 0:
            self._clone = copy.deepcopy(self.policy).requires_grad_(False)
        if step < self._n_reference:
            loss = self._refining.update(step - self._n_cloning)
            return "refining", {"loss": loss, "log_likelihood": -loss}
        if self._reference is None:
            self._freeze_reference(copy.deepcopy(self.policy))
            self._measure_departure()
        return "presa", self._update_constrained(step - self._n_reference)

    def _update_constrained(self, step: int) -> dict[str, float]:
        config, data, n_half = self._config, self._data, self._config.n_safety_segments // 2
        rows, places, labels, both_safe = self._batches.draw(step)  # segments: first, second, safe, unsafe
        known = self._known
        assert known is not None
        components = self.policy.components(gather(data.observations, rows))
        log_likelihoods = self.policy.log_density(components, gather(data.actions, rows))
        log_ratios = log_likelihoods - known.log_probs[rows]
        utilities = utility(log_ratios, places, config)
        first, second, safe, unsafe = utilities.split([config.n_pairs, config.n_pairs, n_half, n_half])
        in_safe = slice(2 * config.n_pairs, -n_half)

        self._move_centre(safe.detach(), unsafe.detach())
        preference = preference_loss(first, second, labels, config.conservative_bias)
        constraint = constraint_value(safe, unsafe, self._centre, config.safety_sharpness)
        multiplier = self._multiplier.value
        total = lagrangian(preference, constraint, multiplier, config.threshold)
        cloning_weight = config.cloning_coefficient + self._hold.value
        safe_log_likelihood = log_likelihoods[in_safe].mean()
        unsafe_rows, unsafe_components = rows[-n_half:], Components(*(each[-n_half:] for each in components))
        kept = self.policy.log_density(unsafe_components, known.own[unsafe_rows])
        departure = likelihood_lost(known.own_log_probs[unsafe_rows], kept).mean()
        tether = self._tether.value
        # A step of the same length whatever the multipliers.
        loss = total / (1 + multiplier) - cloning_weight * safe_log_likelihood + tether * departure
        loss = loss / (1 + cloning_weight + tether)

        set_learning_rate(self._optimizer, config, step)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        value = float(constraint.detach())
        self._multiplier.update(config.threshold - value)
        safe_log_ratio = float(log_ratios[in_safe].detach().mean())
        self._hold.update(-safe_log_ratio)
        departed = float(departure.detach())
        if self._reference_departure < config.departure_threshold:
            self._tether.update(departed - self._reference_departure)

        with torch.no_grad():
            decided = labels != 0.5
            correct = (second > first) == (labels > 0.5)
            preferred = preferred_mean(log_likelihoods[: 2 * config.n_pairs], labels)
            self._warn(step, safe_log_ratio)
            return {
                "loss": float(total.detach()),
                "preference_loss": float(preference.detach()),
                "constraint_value": value,
                "constraint_threshold": config.threshold,
                "constraint_met": float(value >= config.threshold),
                "multiplier": multiplier,
                "cloning_weight": cloning_weight,
                "departure": departed,
                "departure_of_reference": self._reference_departure,
                "departure_multiplier": tether,
                "preference_accuracy": float(correct[decided].float().mean()),
                "preference_accuracy_safe": float(correct[decided & both_safe].float().mean()),
                "utility_safe": float(safe.mean()),
                "utility_unsafe": float(unsafe.mean()),
                "utility_centre": self._centre,
                "log_likelihood": float(log_likelihoods.mean()),
                "log_likelihood_safe": float(safe_log_likelihood),
                "log_likelihood_preferred": float(preferred),
                "log_ratio_safe": safe_log_ratio,
            }

    def _move_centre(self, safe: Tensor, unsafe: Tensor) -> None:
        midpoint = float(safe.mean() + unsafe.mean()) / 2
        if self._config.utility_centre == "midpoint":
            self._centre += self._config.centre_rate * (midpoint - self._centre)
        elif self._config.utility_centre == "batch-mean":
            self._centre = max(midpoint, 0.0)

    def _freeze_reference(self, reference: GaussianPolicy) -> None:
        self._reference = reference.requires_grad_(False)
        self._known = known_steps(reference, self._data.observations, self._data.actions)
        self._optimizer = adam(self.policy, self._config.learning_rate)

    def _measure_departure(self) -> None:
        """By how much the reference makes the own actions of the clone less likely."""
        if self._clone is None:
            return
        cloned = known_steps(self._clone, self._data.observations, self._data.actions)
        kept = known_steps(self.policy, self._data.observations, cloned.own).log_probs
        departures = likelihood_lost(cloned.own_log_probs, kept).double().cpu().numpy()
        self._reference_departure = float(departures @ self._batches.unsafe_steps())
        self._clone = None

    def _warn(self, step: int, safe_log_ratio: float) -> None:
        self._multiplier.warn_at_cap()
        if step % BLOCK == BLOCK - 1 and safe_log_ratio < FALLEN:
            warnings.warn(
                "likelihoods fall: safe segments are more than a nat per step less likely than under the reference; "
                "lower the learning rate or the multiplier's cap",
                stacklevel=2,
            )

    def state(self) -> dict[str, Tensor]:
        state = training_tensors(self.policy, self._optimizer)
        state["constraint"] = torch.tensor([self._centre, *self._multiplier.state()], dtype=torch.float64)
        state["hold"] = torch.tensor(self._hold.state(), dtype=torch.float64)
        state["tether"] = torch.tensor(self._tether.state(), dtype=torch.float64)
        if math.isfinite(self._reference_departure):
            state["departure"] = torch.tensor(self._reference_departure, dtype=torch.float64)
        for prefix, policy in (("clone", self._clone), ("reference", self._reference)):
            if policy is not None:
                state |= {f"{prefix}.{name}": value for name, value in policy.state_dict().items()}
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._clone = self._saved_policy(state, "clone.")
        reference = self._saved_policy(state, "reference.")
        if reference is not None:
            self._freeze_reference(reference)
        load_training_tensors(state, self.policy, self._optimizer)
        self._centre, *multiplier = state["constraint"].tolist()
        self._multiplier.load_state(tuple(multiplier))
        self._hold.load_state(tuple(state["hold"].tolist()))
        self._tether.load_state(tuple(state["tether"].tolist()))
        self._reference_departure = float(state.get("departure", math.inf))

    def _saved_policy(self, state: dict[str, Tensor], prefix: str) -> GaussianPolicy | None:
        tensors = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if not tensors:
            return None
        policy = copy.deepcopy(self.policy)
        policy.load_state_dict(tensors)
        return policy.requires_grad_(False)


class _Batches:
    """Minibatches of pairs and of safety segments, drawn a block of updates at a time."""

    def __init__(self, data: LearningData, config: PreSaConfig, beliefs: EpisodeBeliefs | None, seed: int):
        self._data, self._config, self._seed = data, config, seed
        self._segment_safety = _segment_safety(data, config, beliefs)
        self._pairs = _usable_pairs(data, config, self._segment_safety)
        self._safe, self._unsafe = _class_distributions(data, config, beliefs)
        used = np.concatenate([data.pairs.ravel(), data.safety_segments])
        self._n_segment_steps = config.n_segment_steps or int(data.segment_lengths[used].max())
        self._block = -1
        self._drawn: tuple[Tensor, ...] = ()

    def draw(self, step: int) -> tuple[Tensor, ...]:
        """Rows and places of the drawn steps, (2 P + M, K), labels, (P,), and whether both are safe, (P,)."""
        if step // BLOCK != self._block:
            self._draw_block(step // BLOCK)
        return tuple(values[step % BLOCK] for values in self._drawn)

    def unsafe_steps(self) -> FloatArray:
        """Probability of each step in the unsafe half of a safety batch, (n_steps,)."""
        segments = self._data.safety_segments
        probabilities = np.diff(self._unsafe, prepend=0) / self._unsafe[-1]
        return step_weights(self._data, segments, probabilities / self._data.segment_lengths[segments])

    def _draw_block(self, block: int) -> None:
        # A stream of its own for each block: a resumed run needs no state of a generator.
        rng = stream(self._seed, "presa", block)
        config, data, n_half = self._config, self._data, self._config.n_safety_segments // 2
        pairs = self._pairs[rng.integers(len(self._pairs), size=(BLOCK, config.n_pairs))]
        safe = data.safety_segments[_draw(self._safe, (BLOCK, n_half), rng)]
        unsafe = data.safety_segments[_draw(self._unsafe, (BLOCK, n_half), rng)]
        first, second = data.pairs[pairs, 0], data.pairs[pairs, 1]
        segments = np.concatenate([first, second, safe, unsafe], axis=1)
        rows, places = sample_segment_steps(
            data.segment_starts[segments], data.segment_lengths[segments], self._n_segment_steps, rng
        )
        both_safe = (self._segment_safety[first] > 0) & (self._segment_safety[second] > 0)
        drawn = (rows, places, data.preferences[pairs], both_safe)
        self._drawn, self._block = tuple(torch.from_numpy(values).to(data.device) for values in drawn), block


def _reference_weights(data: LearningData, config: PreSaConfig, beliefs: EpisodeBeliefs | None):
    if config.reference == "all":
        return np.ones(data.n_steps)
    if config.reference == "safe":
        return safe_segment_weights(data)
    assert beliefs is not None
    return reference_weights(data, beliefs)


def _segment_safety(data: LearningData, config: PreSaConfig, beliefs: EpisodeBeliefs | None) -> IntArray:
    """+1 safe, -1 unsafe, 0 unknown for every segment, as the configured classes see it."""
    if config.safety_classes != "segments":
        assert beliefs is not None
        return np.where(beliefs.safe > 0.5, 1, -1)[data.segment_episodes]
    votes = np.bincount(data.safety_segments, data.safety_labels, minlength=len(data.segment_episodes))
    return np.sign(votes).astype(np.int64)


def _usable_pairs(data: LearningData, config: PreSaConfig, segment_safety: IntArray) -> IntArray:
    first, second = segment_safety[data.pairs].T
    if config.pairs == "safe-safe":
        usable = (first > 0) & (second > 0)
        if not usable.any():
            usable[:] = True
            warnings.warn(
                f"none of the {len(usable)} pairs is of two safe segments, so all count, and pull against the "
                "constraint; label more pairs",
                stacklevel=2,
            )
    elif config.pairs == "without-unsafe-winners":
        winner = np.where(data.preferences > 0.5, second, first)
        loser = np.where(data.preferences > 0.5, first, second)
        usable = ~((winner < 0) & (loser > 0) & (data.preferences != 0.5))
    else:
        usable = np.ones(len(data.pairs), dtype=bool)
    if not usable.any():
        raise DataError(f"presa: none of the {len(usable)} pairs is left with pairs={config.pairs!r}; use 'all'")
    return np.flatnonzero(usable)


def _class_distributions(data: LearningData, config: PreSaConfig, beliefs: EpisodeBeliefs | None):
    """Cumulative probabilities over the safety labels, for the safe and for the unsafe half of a batch."""
    episodes = data.segment_episodes[data.safety_segments]
    if config.safety_classes == "segments":
        safe: FloatArray = (data.safety_labels > 0).astype(np.float64)
        unsafe: FloatArray = 1 - safe
    else:
        assert beliefs is not None
        preferred = config.safety_classes == "preferred-episodes"
        safe = (beliefs.cloning_weights if preferred else beliefs.safe)[episodes]
        unsafe = 1 - beliefs.safe[episodes]
    for name, total in {"safe": safe.sum(), "unsafe": unsafe.sum()}.items():
        if not total > 1e-9:
            raise DataError(f"presa: by its labels no episode is {name}; set aggregation.safe_share or the cost limit")
    return np.cumsum(safe), np.cumsum(unsafe)


def _draw(cumulative, shape: tuple[int, ...], rng: np.random.Generator) -> IntArray:
    drawn = np.searchsorted(cumulative, rng.random(shape) * cumulative[-1], side="right")
    return np.minimum(drawn, len(cumulative) - 1)
