"""A causal transformer that acts on the cost and return an episode is still to have, and its memory of one episode."""

import math
from collections import deque
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

N_TOKENS = 4  # of each step: cost-to-go, return-to-go, observation, action
LOWEST_LOG_STD, HIGHEST_LOG_STD = -5.0, 2.0  # of the actions, in half widths of the action box; OSRL's bounds


class Predictions(NamedTuple):
    """What a transformer says of each step of some windows."""

    means: Tensor  # (B, L, A), of the action, from all up to the step's observation
    log_stds: Tensor  # (B, L, A)
    cost_logits: Tensor  # (B, L), whether the step costs, from all up to its action


class DecisionTransformer(nn.Module):
    """Four tokens a step, each of which sees itself and those before it, and predictions from the last two."""

    kind = "decision transformer"
    target: Tensor  # (2,), cost and return that an episode is to have
    centre: Tensor  # (2,), of costs-to-go and returns-to-go
    spread: Tensor  # (2,)

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        n_times: int,  # steps of the longest episode
        context: int,  # steps that it looks at
        n_units: int,  # of each token
        n_layers: int,
        n_heads: int,
        seed: int = 0,
    ):
        super().__init__()
        self.shape: dict[str, Any] = {
            "observation_dim": observation_dim,
            "action_dim": action_dim,
            "n_times": n_times,
            "context": context,
            "n_units": n_units,
            "n_layers": n_layers,
            "n_heads": n_heads,
        }
        self.context, self.action_dim, self.n_times = context, action_dim, n_times
        sizes = (1, 1, observation_dim, action_dim)
        self.tokens = nn.ModuleList(skip_init(nn.Linear, size, n_units) for size in sizes)
        self.times = skip_init(nn.Embedding, n_times, n_units)
        self.first_norm, self.last_norm = nn.LayerNorm(n_units), nn.LayerNorm(n_units)
        self.blocks = nn.ModuleList(_Block(n_units, n_heads) for _ in range(n_layers))
        self.action_head = skip_init(nn.Linear, n_units, 2 * action_dim)
        self.cost_head = skip_init(nn.Linear, n_units, 1)
        for name, value in (("target", 0.0), ("centre", 0.0), ("spread", 1.0)):
            self.register_buffer(name, torch.full((2,), value))
        _initialise(self, torch.Generator().manual_seed(seed))

    def forward(
        self,
        to_go: Tensor,
        observations: Tensor,
        actions: Tensor,
        times: Tensor,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Predictions:
        """Predict each step's action and cost.

        Args:
            to_go: cost and return from each step to its episode's end, (B, L, 2).
            observations: standardised, (B, L, O).
            actions: (B, L, A); a step's own has no part in what is predicted of it.
            times: how many steps of its episode came before each, (B, L).
            dropout: share of the values that are dropped.
            generator: draws those.
        """
        costs_to_go, returns_to_go = ((to_go - self.centre) / self.spread).split(1, -1)
        inputs = (costs_to_go, returns_to_go, observations, actions)
        embedded = torch.stack([embed(each) for embed, each in zip(self.tokens, inputs, strict=True)], 2)
        tokens = (embedded + self.times(times)[:, :, None]).flatten(1, 2)  # (B, 4 L, n_units)
        tokens = dropped(self.first_norm(tokens), dropout, generator)
        for block in self.blocks:
            tokens = block(tokens, dropout, generator)
        features = self.last_norm(tokens).unflatten(1, (-1, N_TOKENS))
        means, bounded = self.action_head(features[:, :, 2]).chunk(2, -1)
        log_stds = LOWEST_LOG_STD + (HIGHEST_LOG_STD - LOWEST_LOG_STD) * (torch.tanh(bounded) + 1) / 2
        return Predictions(means, log_stds, self.cost_head(features[:, :, 3]).squeeze(-1))


class _Block(nn.Module):
    """Attention to the tokens before, and a hidden layer for each token; both add to what was there."""

    def __init__(self, n_units: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.attention_norm, self.hidden_norm = nn.LayerNorm(n_units), nn.LayerNorm(n_units)
        self.queries_keys_values = skip_init(nn.Linear, n_units, 3 * n_units)
        self.attended = skip_init(nn.Linear, n_units, n_units)
        self.hidden = skip_init(nn.Linear, n_units, 4 * n_units)
        self.output = skip_init(nn.Linear, 4 * n_units, n_units)

    def forward(self, tokens: Tensor, dropout: float, generator: torch.Generator | None) -> Tensor:
        tokens = tokens + dropped(self._attend(self.attention_norm(tokens), dropout, generator), dropout, generator)
        hidden = nn.functional.gelu(self.hidden(self.hidden_norm(tokens)))
        return tokens + dropped(self.output(hidden), dropout, generator)

    def _attend(self, tokens: Tensor, dropout: float, generator: torch.Generator | None) -> Tensor:
        queries, keys, values = (
            part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (B, n_heads, 4 L, units of a head)
            for part in self.queries_keys_values(tokens).chunk(3, -1)
        )
        n_tokens = tokens.shape[1]
        later = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=tokens.device).triu(1)
        scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
        weights = dropped(scores.masked_fill(later, -math.inf).softmax(-1), dropout, generator)
        return self.attended((weights @ values).transpose(1, 2).flatten(2))


def dropped(values: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Some of the values set to 0, the others scaled so that the mean stays; all as they were without a generator."""
    if generator is None or share == 0:
        return values
    # Torch's own dropout draws from the global generator, whose state a resumed run would need.
    kept = torch.rand(values.shape, generator=generator) >= share
    return values * (kept.to(values.dtype) / (1 - share)).to(values.device)


def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    """As OSRL does; norms stay as torch makes them."""
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02, generator=generator)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


class Memory:
    """Chooses the actions of one episode, from its last steps and from what is left of the target."""

    def __init__(self, network: DecisionTransformer):
        self._network = network
        self._left = network.target.double().numpy().copy()  # cost, return
        self._n_steps = 0
        self._steps: deque[tuple[Tensor, Tensor, Tensor, Tensor]] = deque(maxlen=network.context)

    def fresh(self) -> "Memory":
        """For another episode."""
        return Memory(self._network)

    @torch.no_grad()
    def choose(self, observation: Tensor, rng: np.random.Generator) -> Tensor:
        """The mean action, (A,), for a standardised observation, (O,); ``rng`` is there as all policies take one."""
        to_go = torch.from_numpy(self._left.astype(np.float32))
        time = torch.tensor(min(self._n_steps, self._network.n_times - 1))
        self._steps.append((to_go, observation, torch.zeros(self._network.action_dim), time))
        windows = (torch.stack(part)[None] for part in zip(*self._steps, strict=True))
        action = self._network(*windows).means[0, -1].clamp(-1, 1)
        self._steps[-1] = (to_go, observation, action, time)
        self._n_steps += 1
        return action

    def observe(self, reward: float, cost: float) -> None:
        """Take what a step came to off the target; of the cost no less than 0 is left, as in any episode."""
        self._left -= (cost, reward)
        self._left[0] = max(self._left[0], 0.0)
