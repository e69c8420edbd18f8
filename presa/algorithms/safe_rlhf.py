"""Safe-RLHF (Dai et al., ICLR 2024, arXiv 2310.12773) for offline control: a policy on learnt reward and cost.

As in the paper: clone (its supervised model), learn a reward by Bradley-Terry from preferences and a signed cost by
logistic loss from safety labels, unsafe above 0; then maximise ``reward - multiplier * cost`` close to the clone, with
a multiplier that rises while the constraint on the cost is not met. How we differ:

- Both models are per step and summed over the segment, with bounded outputs, as in `presa.ensemble`. The bias of the
  cost is the threshold, in proportion to the segment's length. Our feedback holds no pairs compared by harm, so the
  paper's second term of the cost loss falls away.
- The paper samples from the policy (PPO); we have a dataset. We take one step of policy improvement over its
  behaviour: advantage-weighted cloning (AWR, Peng et al. 2019, arXiv 1910.00177) with advantages of reward and cost
  that are estimated apart (GAE, Schulman et al. 2016), so that the multiplier may move without learning values anew,
  and so that no value is asked for an action that the dataset does not hold.
- A step costs the policy 1 where the cost model calls the segment from there on unsafe, else 0, and the constraint is
  on the share of safe ones among the steps as the policy clones them. The paper takes the signed cost itself, whose
  size beyond the threshold labels do not fix: held to its mean, very safe segments paid for unsafe ones, and a heavier
  multiplier preferred the very safe to the merely safe. Nor does a flip rate below one half move the calls.
- We do not divide by ``1 + multiplier``: the weights below solve the problem that a KL penalty keeps close to the
  dataset, and there the division would flatten the reward as the multiplier rises.
- No true reward or cost enters. LearningData does not say whether an episode was terminated, so what comes after its
  last step is taken to go on as before.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from feedbackgen.errors import RecipeError
from feedbackgen.seeding import derived_seed, stream
from feedbackgen.types import FloatArray, IntArray
from presa.batch import LearningData, gather, require_preferences, require_safety_labels, sample_segment_steps
from presa.checkpoint import load_training_tensors, training_tensors
from presa.cloning import BLOCK, Cloning, CloningConfig, adam, new_policy, set_learning_rate, step_distribution
from presa.ensemble import preference_loss
from presa.lagrange import Multiplier
from presa.policy import PolicyConfig, mlp

PHASES = ("cloning", "reward model", "cost model", "values", "policy")
_LEARNING = ("policy", "reward", "cost", "value", "policy")  # the network of each phase
_CLONING, _REWARD, _COST, _VALUES, _POLICY = range(5)
_CHUNK = 16384  # rows of the dataset that go through a network at once

_CLONE = CloningConfig(n_steps=5_000, learning_rate_final=1.0)
_IMPROVE = CloningConfig(n_steps=6_000)


@dataclass(frozen=True, kw_only=True)
class SafeRLHFConfig:
    """What Safe-RLHF learns with; as many updates in all as PreSa's default.

    Raises:
        RecipeError: a value is out of range.
    """

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    cloning: CloningConfig = _CLONE  # of every step alike, first
    improvement: CloningConfig = _IMPROVE  # of steps by their advantages, last

    n_reward_steps: int = 1_500  # updates of the reward model
    n_cost_steps: int = 1_500  # of the cost model
    n_value_steps: int = 1_500  # of the values of both
    n_units: int = 128  # of each of two hidden layers of these networks
    model_learning_rate: float = 1e-3  # of Adam, for these networks
    n_pairs: int = 96  # per update
    n_safety_segments: int = 192  # per update
    n_segment_steps: int = 16  # random steps that stand for a segment; 0 takes all
    n_value_rows: int = 256  # environment steps per update of the values; 1,024 did worse in single runs

    discount: float = 0.99  # per step
    trace_decay: float = 0.95  # GAE's lambda
    temperature: float = 0.5  # of the weights, in standard deviations of the advantages
    weight_max: float = 20.0  # of a step
    threshold: float = 0.95  # the wanted share of steps from which a segment would be judged safe
    multiplier_initial: float = 1.0
    multiplier_rate: float = 0.02  # per unit of violation and update
    multiplier_max: float = 5.0  # where it rests here, this is the real knob between return and safety
    violation_averaging: float = 0.9  # decay of the violation's moving average; 0 is none

    def __post_init__(self):
        for name in (
            "n_reward_steps", "n_cost_steps", "n_value_steps", "n_units", "model_learning_rate", "n_pairs",
            "n_safety_segments", "n_value_rows", "temperature", "weight_max", "multiplier_max",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise RecipeError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        for name in ("n_segment_steps", "multiplier_initial", "multiplier_rate"):
            if not getattr(self, name) >= 0:
                raise RecipeError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
        for name in ("trace_decay", "threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{name}: expected a number from 0 to 1, got {getattr(self, name)}")
        for name in ("discount", "violation_averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise RecipeError(f"{name}: expected 0 to below 1, got {getattr(self, name)}")


PRESETS = {"default": SafeRLHFConfig()}


def cost_loss(costs: Tensor, unsafe: Tensor) -> Tensor:
    """Mean of ``softplus(-C)`` over unsafe and ``softplus(C)`` over safe segments: P(unsafe) = sigmoid(C).

    Args:
        costs: signed cost of segments, log-odds, (M,).
        unsafe: 1 where labelled unsafe, else 0, (M,).
    """
    return binary_cross_entropy_with_logits(costs, unsafe)


def generalised_advantages(
    signals: FloatArray, values: FloatArray, episode_starts: IntArray, discount: float, trace_decay: float
) -> FloatArray:
    """GAE of several signals at once, in units of the signal per step.

    Args:
        signals: rewards, costs, (n_steps, S).
        values: discounted means of what follows, that is sums times ``1 - discount``, (n_steps, S).
        episode_starts: the steps of episode i are [i]:[i + 1], (n_episodes + 1,).
        discount: per step.
        trace_decay: 0 looks one step ahead, 1 to the episode's end.

    Returns:
        Advantages, (n_steps, S); 0 at the last step of an episode, whose successor is unknown.
    """
    starts, lengths = episode_starts[:-1], np.diff(episode_starts)
    advantages = (1 - discount) * signals + discount * np.roll(values, -1, axis=0) - values
    advantages[episode_starts[1:] - 1] = 0.0
    for place in range(lengths.max() - 2, -1, -1):
        rows = starts[lengths > place + 1] + place
        advantages[rows] += discount * trace_decay * advantages[rows + 1]
    return advantages


def advantage_weights(
    reward_advantages: Tensor, cost_advantages: Tensor, multiplier: float, temperature: float, weight_max: float
) -> Tensor:
    """``exp((A_r - multiplier * A_c) / temperature)``, at most ``weight_max``, (B,)."""
    advantages = reward_advantages - multiplier * cost_advantages
    return (advantages / temperature).clamp(max=float(np.log(weight_max))).exp()


def window_sums(costs: FloatArray, episode_starts: IntArray, length: int) -> FloatArray:
    """Sum over the segment that begins at each step, moved back where the episode would end before, (n_steps,).

    Args:
        costs: of each step, (n_steps,).
        episode_starts: the steps of episode i are [i]:[i + 1], (n_episodes + 1,).
        length: of a segment, steps; an episode that is shorter is one segment.
    """
    cumulative = np.concatenate([[0.0], np.cumsum(costs)])
    starts = np.repeat(episode_starts[:-1], np.diff(episode_starts))
    ends = np.repeat(episode_starts[1:], np.diff(episode_starts))
    first = np.maximum(np.minimum(np.arange(len(costs)), ends - length), starts)
    sums: FloatArray = cumulative[np.minimum(first + length, ends)] - cumulative[first]
    return sums


class SafeRLHF:
    """Safe-RLHF, one update at a time: cloning, the two models, their values, the policy."""

    def __init__(self, data: LearningData, config: SafeRLHFConfig, seed: int):
        require_preferences(data, "safe-rlhf")
        require_safety_labels(data, "safe-rlhf")
        self._data, self._config, self._seed = data, config, seed
        self.policy = new_policy(data, config.policy, seed)
        n_observations, n_actions = data.observations.shape[1], data.actions.shape[1]
        hidden = (config.n_units, config.n_units)
        seeds = {name: derived_seed(seed, "safe-rlhf", name) for name in ("reward", "cost", "value")}
        self._networks = nn.ModuleDict(
            {
                "policy": self.policy,
                "reward": mlp([n_observations + n_actions, *hidden, 1], seeds["reward"]).append(nn.Tanh()),
                "cost": mlp([n_observations + n_actions, *hidden, 1], seeds["cost"]).append(nn.Tanh()),
                "value": mlp([n_observations, *hidden, 2], seeds["value"]),
            }
        ).to(data.device)
        self._ends = np.cumsum(
            [config.cloning.n_steps, config.n_reward_steps, config.n_cost_steps, config.n_value_steps,
             config.improvement.n_steps]
        )  # fmt: skip
        self.n_steps = int(self._ends[-1])
        self._phase = _CLONING
        self._optimizer = adam(self.policy, config.cloning.learning_rate)
        self._cloning = Cloning(self.policy, self._optimizer, data, np.ones(data.n_steps), config.cloning, seed, "all")
        self._multiplier = Multiplier(
            config.multiplier_initial, config.multiplier_rate, config.multiplier_max, config.violation_averaging
        )
        distribution = step_distribution(np.ones(data.n_steps), data.episode_starts, config.improvement)
        self._cumulative = np.cumsum(distribution)
        used = np.concatenate([data.pairs.ravel(), data.safety_segments])
        self._n_segment_steps = config.n_segment_steps or int(data.segment_lengths[used].max())
        self._block = (-1, -1)
        self._drawn: tuple[Tensor, ...] = ()
        self._signals: FloatArray | None = None  # learnt reward and unsafety of every step, standardised, (n_steps, 2)
        self._safe = torch.empty(0)  # 1 where the segment from there on is called safe, (n_steps,)
        self._targets: Tensor | None = None  # of the values, (n_steps, 2)
        self._advantages: Tensor | None = None  # of reward and cost, (n_steps, 2)

    def update(self, step: int) -> tuple[str, dict[str, float]]:
        """Take one step; returns the phase and what to log."""
        phase = int(np.searchsorted(self._ends, step, side="right"))
        if phase != self._phase:
            self._enter(phase)
        place = step - int(self._ends[phase - 1]) if phase else step
        if phase == _CLONING:
            loss = self._cloning.update(step)
            return PHASES[phase], {"loss": loss, "log_likelihood": -loss}
        if phase == _VALUES and (self._targets is None or step % BLOCK == 0):
            # By the step of the whole run: states are saved at such steps, so a resumed run has the same targets.
            self._set_targets()
        updates = (self._update_reward, self._update_cost, self._update_values, self._update_policy)
        return PHASES[phase], updates[phase - 1](place)

    def _update_reward(self, place: int) -> dict[str, float]:
        rows, lengths, labels = self._draw(place)  # segments: first, second
        first, second = self._segment_sums("reward", rows, lengths).chunk(2)
        loss = self._descend(preference_loss(first, second, labels))
        decided = labels != 0.5
        correct = ((second > first) == (labels > 0.5))[decided].float().mean()
        return {"loss": loss, "preference_loss": loss, "preference_accuracy": float(correct)}

    def _update_cost(self, place: int) -> dict[str, float]:
        rows, lengths, unsafe = self._draw(place)
        costs = self._segment_sums("cost", rows, lengths)
        loss = self._descend(cost_loss(costs, unsafe))
        return {"loss": loss, "classification_accuracy": float(((costs > 0) == (unsafe > 0)).float().mean())}

    def _update_values(self, place: int) -> dict[str, float]:
        assert self._targets is not None
        (rows,) = self._draw(place)
        loss = mse_loss(self._networks["value"](gather(self._data.observations, rows)), self._targets[rows])
        return {"loss": self._descend(loss)}

    def _update_policy(self, place: int) -> dict[str, float]:
        config, multiplier = self._config, self._multiplier.value
        if self._advantages is None:
            self._advantages = self._estimate_advantages()
        (rows,) = self._draw(place)
        rewards, costs = self._advantages[rows].T
        weights = advantage_weights(rewards, costs, multiplier, config.temperature, config.weight_max)
        weights = weights / weights.mean()
        log_likelihoods = self.policy.log_prob(gather(self._data.observations, rows), gather(self._data.actions, rows))
        set_learning_rate(self._optimizer, config.improvement, place)
        loss = self._descend(-(weights * log_likelihoods).mean())
        value = float((weights * self._safe[rows]).mean())
        self._multiplier.update(config.threshold - value)
        self._multiplier.warn_at_cap()
        return {
            "loss": loss,
            "log_likelihood": float(log_likelihoods.detach().mean()),
            "constraint_value": value,
            "constraint_threshold": config.threshold,
            "constraint_met": float(value >= config.threshold),
            "multiplier": multiplier,
        }

    def _descend(self, loss: Tensor) -> float:
        """One step of Adam; returns the loss before it."""
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())

    def _segment_sums(self, name: str, rows: Tensor, lengths: Tensor) -> Tensor:
        """Sums over segments, from the mean of their drawn steps, (N,)."""
        steps = torch.cat([gather(self._data.observations, rows), gather(self._data.actions, rows)], dim=-1)
        return lengths * self._networks[name](steps)[..., 0].mean(-1)

    def _set_targets(self) -> None:
        values = self._outputs("value")
        advantages = self._advantages_of(values)
        self._targets = self._on_device(values + advantages)

    def _estimate_advantages(self) -> Tensor:
        advantages = self._advantages_of(self._outputs("value"))
        return self._on_device(advantages / np.maximum(advantages.std(axis=0), 1e-6))

    def _on_device(self, values: FloatArray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self._data.device)

    def _advantages_of(self, values: FloatArray) -> FloatArray:
        """Of reward and cost, in standard deviations of the signal, (n_steps, 2)."""
        config, starts = self._config, self._data.episode_starts
        if self._signals is None:
            length = int(np.median(self._data.segment_lengths[self._data.safety_segments]))
            unsafe = (window_sums(self._outputs("cost")[:, 0], starts, length) > 0).astype(np.float64)
            signals = np.stack([self._outputs("reward")[:, 0], unsafe], axis=1)
            self._safe = self._on_device(1 - unsafe)
            self._signals = (signals - signals.mean(axis=0)) / np.maximum(signals.std(axis=0), 1e-6)
        return generalised_advantages(self._signals, values, starts, config.discount, config.trace_decay)

    @torch.no_grad()
    def _outputs(self, name: str) -> FloatArray:
        """What a network says of every step, (n_steps, outputs)."""
        parts = zip(self._data.observations.split(_CHUNK), self._data.actions.split(_CHUNK), strict=True)
        network = self._networks[name]
        rows = [network(part[0] if name == "value" else torch.cat(part, dim=1)) for part in parts]
        return torch.cat(rows).double().cpu().numpy()

    def _draw(self, place: int) -> tuple[Tensor, ...]:
        """Of segments: rows, (N, K), lengths, (N,), and labels; of single steps: rows, (B,)."""
        block = (self._phase, place // BLOCK)
        if block != self._block:
            # A stream of its own for each block: a resumed run needs no state of a generator.
            rng = stream(self._seed, "safe-rlhf", *block)
            draw = {_REWARD: self._draw_pairs, _COST: self._draw_judged}.get(self._phase, self._draw_steps)
            self._drawn = tuple(torch.from_numpy(values).to(self._data.device) for values in draw(rng))
            self._block = block
        return tuple(values[place % BLOCK] for values in self._drawn)

    def _draw_pairs(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        pairs = rng.integers(len(self._data.pairs), size=(BLOCK, self._config.n_pairs))
        segments = np.concatenate([self._data.pairs[pairs, 0], self._data.pairs[pairs, 1]], axis=1)
        return *self._steps_of(segments, rng), self._data.preferences[pairs].astype(np.float32)

    def _draw_judged(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        judged = rng.integers(len(self._data.safety_labels), size=(BLOCK, self._config.n_safety_segments))
        segments = self._data.safety_segments[judged]
        return *self._steps_of(segments, rng), (self._data.safety_labels[judged] < 0).astype(np.float32)

    def _draw_steps(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        n_rows = self._config.n_value_rows if self._phase == _VALUES else self._config.improvement.batch_size
        uniform = rng.random((BLOCK, n_rows)) * self._cumulative[-1]
        rows = np.searchsorted(self._cumulative, uniform, side="right")
        return (np.minimum(rows, len(self._cumulative) - 1),)

    def _steps_of(self, segments: IntArray, rng: np.random.Generator) -> tuple[IntArray, FloatArray]:
        lengths = self._data.segment_lengths[segments]
        rows, _ = sample_segment_steps(self._data.segment_starts[segments], lengths, self._n_segment_steps, rng)
        return rows, lengths.astype(np.float32)

    def _enter(self, phase: int) -> None:
        config, self._phase = self._config, phase
        learning_rate = config.improvement.learning_rate if phase == _POLICY else config.model_learning_rate
        self._optimizer = adam(self._networks[_LEARNING[phase]], learning_rate)

    def state(self) -> dict[str, Tensor]:
        state = training_tensors(self._networks, self._optimizer)
        state["phase"] = torch.tensor([self._phase])
        state["multiplier"] = torch.tensor(self._multiplier.state(), dtype=torch.float64)
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        if int(state["phase"]) != _CLONING:
            self._enter(int(state["phase"]))
        load_training_tensors(state, self._networks, self._optimizer)
        value, violation, n_updates_at_cap = state["multiplier"].tolist()
        self._multiplier.load_state((value, violation, n_updates_at_cap))
