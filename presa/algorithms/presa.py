"""PreSa: maximise the likelihood of preferences, subject to a bound on how safely segments are told apart.

Source: Gong, Varakantham, Kumar, "Offline Safe Policy Optimization From Heterogeneous Feedback", arXiv 2512.20173. The full
text was not at hand: [P] marks what its abstract and public reviews state, [R] our reconstruction, [E] our extension.

For a segment of H steps, with d_t = log pi(a_t|s_t) - log pi_ref(a_t|s_t):

    U = temperature * (64 / H) * sum_t d_t                               utility [P: CPL's; R: the factor]
    L_pref = softplus(-(U_preferred - bias * U_other))                   contrastive preference learning [P]
    v = sigmoid(y * sharpness * (U - z0)),  C = class-balanced mean of v  human-aware safety value [P]
    min_pi max_{nu >= 0}  L_pref + nu * (delta - C)                       one stage, no reward or cost model [P]
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch.nn.functional import softplus

from feedbackgen.errors import RecipeError
from feedbackgen.seeding import stream
from presa.batch import LearningData
from presa.lagrange import LagrangeMultiplier
from presa.policy import make_policy
from presa.reference import ReferenceCloning, ReferenceConfig

BLOCK = 100  # steps whose batches are drawn at once, on a stream of their own
NORMAL_LENGTH = 64  # steps; utilities of other lengths are scaled to it


@dataclass(frozen=True, kw_only=True)
class Config:
    """`paper` is the plainest reading, `default` what we found to work; docs/presa.md has the evidence."""

    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    n_steps: int = 3_000  # updates after the reference
    n_pairs: int = 64  # per batch
    n_safety: int = 64  # per batch and class
    steps_per_segment: int | None = 16  # K, drawn anew at each update [E]; None: all
    learning_rate: float = 1e-4
    temperature: float = 0.1  # of the utility; CPL's alpha
    clip: float | None = 1.0  # c of d <- c tanh(d / c) [E]; None: unclipped
    bias: float = 0.5  # CPL's lambda: conservative below 1
    sharpness: float = 1.0  # of the safety value
    midpoint: str = "classes"  # z0: "zero" [R], or the moving midpoint between the classes' mean utilities [E]
    midpoint_smoothing: float = 0.95
    pool_safety: bool = True  # draw safety examples by the episode's posterior instead of the segment's label [E]
    delta: float = 0.95  # bound on C [P: 0.9 or 0.95]
    nu: float = 1.0  # multiplier at the start
    nu_rate: float = 0.02
    nu_cap: float = 5.0
    hidden: tuple[int, ...] = (256, 256)

    def __post_init__(self):
        if self.midpoint not in ("zero", "classes"):
            raise RecipeError(f"midpoint: expected zero or classes, got {self.midpoint!r}")
        if not 0 < self.delta < 1:
            raise RecipeError(f"delta: expected a bound in (0, 1), got {self.delta}")


DEFAULT = Config()
PAPER = replace(
    DEFAULT,
    reference=ReferenceConfig(all_steps=13_000, weighted_steps=0),
    steps_per_segment=None,
    clip=None,
    midpoint="zero",
    pool_safety=False,
)
PRESETS = {"default": DEFAULT, "paper": PAPER}


def utility(log_ratios: torch.Tensor, *, temperature: float, clip: float | None) -> torch.Tensor:
    """Utility of segments from log-ratios of (a sample of) their steps, (..., K) -> (...,)."""
    if clip is not None:
        log_ratios = clip * torch.tanh(log_ratios / clip)
    return temperature * NORMAL_LENGTH * log_ratios.mean(-1)


def preference_loss(first: torch.Tensor, second: torch.Tensor, labels: torch.Tensor, *, bias: float) -> torch.Tensor:
    """Mean loss of pairs; a label is the probability that the second is preferred, 0.5 when equal, (P,)."""
    prefer_second = softplus(-(second - bias * first))
    prefer_first = softplus(-(first - bias * second))
    return (labels * prefer_second + (1 - labels) * prefer_first).mean()


def safety_value(safe: torch.Tensor, unsafe: torch.Tensor, *, sharpness: float, midpoint: float) -> torch.Tensor:
    """C, in (0, 1): how well utilities tell safe from unsafe segments, both classes counting alike."""
    return 0.5 * (
        torch.sigmoid(sharpness * (safe - midpoint)).mean() + torch.sigmoid(-sharpness * (unsafe - midpoint)).mean()
    )


def lagrangian(loss: torch.Tensor, value: torch.Tensor, *, nu: float, delta: float) -> torch.Tensor:
    """What the policy descends, over 1 + nu so that its size does not grow with the multiplier."""
    return (loss + nu * (delta - value)) / (1.0 + nu)


class Learner:
    """First the reference, then the constrained problem from it."""

    def __init__(self, data: LearningData, config: Config, seed: int):
        self.data, self.config, self.seed = data, config, seed
        dims = data.observations.shape[1], data.actions.shape[1]
        self.policy = make_policy(*dims, hidden=config.hidden, seed=seed)
        self.reference = make_policy(*dims, hidden=config.hidden, seed=seed)
        self.cloning = ReferenceCloning(data, self.policy, config.reference, seed)
        self.n_steps = self.cloning.n_steps + config.n_steps
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=config.learning_rate)
        self.multiplier = LagrangeMultiplier(target=config.delta, nu=config.nu, rate=config.nu_rate, cap=config.nu_cap)
        self.midpoint = 0.0
        self._reference_log_likelihood: torch.Tensor | None = None  # (n_steps,), computed once
        self._safe_weights, self._unsafe_weights = self._safety_weights()
        self._block: tuple[int, dict[str, np.ndarray]] | None = None

    def update(self, step: int) -> dict[str, float]:
        if step < self.cloning.n_steps:
            metrics = self.cloning.update(step)
            if step == self.cloning.n_steps - 1:
                self.reference.load_state_dict(self.policy.state_dict())
            return metrics
        return self._update_policy(step - self.cloning.n_steps)

    def _update_policy(self, step: int) -> dict[str, float]:
        config, batch = self.config, self._batch(step)
        utilities = utility(self._log_ratios(batch["rows"]), temperature=config.temperature, clip=config.clip)
        pairs, safe, unsafe = utilities.split([2 * config.n_pairs, config.n_safety, config.n_safety])
        first, second = pairs.view(-1, 2).T
        labels = batch["preferences"]
        loss = preference_loss(first, second, labels, bias=config.bias)
        if config.midpoint == "classes":
            between = 0.5 * (safe.mean() + unsafe.mean()).item()
            smoothing = config.midpoint_smoothing if step else 0.0
            self.midpoint = smoothing * self.midpoint + (1 - smoothing) * between
        value = safety_value(safe, unsafe, sharpness=config.sharpness, midpoint=self.midpoint)
        objective = lagrangian(loss, value, nu=self.multiplier.nu, delta=config.delta)
        self.optimizer.zero_grad(set_to_none=True)
        objective.backward()
        self.optimizer.step()
        self.multiplier.update(value.item())
        decided = labels != 0.5
        return {
            "loss": objective.detach(),
            "preference_loss": loss.detach(),
            "preference_accuracy": ((second > first) == (labels > 0.5))[decided].float().mean(),
            "safety_value": value.detach(),
            "nu": self.multiplier.nu,
            "constraint_met": float(self.multiplier.met),
            "utility_safe": safe.detach().mean(),
            "utility_unsafe": unsafe.detach().mean(),
        }

    def _log_ratios(self, rows: torch.Tensor) -> torch.Tensor:
        if self._reference_log_likelihood is None:
            with torch.no_grad():
                parts = zip(self.data.observations.split(1 << 14), self.data.actions.split(1 << 14), strict=True)
                self._reference_log_likelihood = torch.cat([self.reference.log_likelihood(*part) for part in parts])
        flat = rows.reshape(-1)
        ratios = self.policy.log_likelihood(self.data.observations[flat], self.data.actions[flat])
        return (ratios - self._reference_log_likelihood[flat]).view(rows.shape)

    def _batch(self, step: int) -> dict[str, torch.Tensor]:
        block = step // BLOCK
        if self._block is None or self._block[0] != block:
            rng = stream(self.seed, "presa", block)
            self._block = block, [self._draw(rng) for _ in range(BLOCK)]
        return self._block[1][step % BLOCK]

    def _draw(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Pairs and safety examples, drawn independently; safety examples evenly from both classes."""
        config, data = self.config, self.data
        chosen = rng.integers(len(data.pairs), size=config.n_pairs)
        safe = _weighted(self._safe_weights, config.n_safety, rng)
        unsafe = _weighted(self._unsafe_weights, config.n_safety, rng)
        segments = np.concatenate([data.pairs[chosen].ravel(), data.safety_segments[safe], data.safety_segments[unsafe]])
        if config.steps_per_segment is None:
            length = int(data.segment_length.max())
            fractions = np.broadcast_to((np.arange(length) + 0.5) / length, (len(segments), length))
        else:
            fractions = rng.random((len(segments), config.steps_per_segment))
        return {"rows": data.rows_of(segments, fractions), "preferences": torch.from_numpy(data.preferences[chosen])}

    def _safety_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Cumulative weights with which each safety label is drawn as a safe and as an unsafe example."""
        data = self.data
        if self.config.pool_safety:
            safe = self.cloning.posterior[data.segment_episode[data.safety_segments]]
            unsafe = 1.0 - safe
        else:
            safe, unsafe = data.safety_labels == 1, data.safety_labels == -1
        return np.cumsum(safe, dtype=np.float64), np.cumsum(unsafe, dtype=np.float64)

    def modules(self) -> dict:
        return {
            "policy": self.policy,
            "reference": self.reference,
            "optimizer": self.optimizer,
            **self.cloning.modules(),
        }

    def scalars(self) -> dict[str, float]:
        return {"nu": self.multiplier.nu, "violation": self.multiplier.violation, "midpoint": self.midpoint}

    def set_scalars(self, scalars: dict[str, float]) -> None:
        self.multiplier.nu, self.multiplier.violation = scalars["nu"], scalars["violation"]
        self.midpoint = scalars["midpoint"]


def _weighted(cumulative: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    drawn = np.searchsorted(cumulative, rng.random(size) * cumulative[-1], side="right")
    return np.minimum(drawn, len(cumulative) - 1)
