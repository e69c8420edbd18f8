"""What the methods for reference see beside the steps: true rewards and costs. No other file of ours reads them."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from feedbackgen.episodes import DatasetInfo, iterate_episodes, iterate_steps
from feedbackgen.errors import DataError
from feedbackgen.types import BoolArray, FloatArray, IntArray
from presa.mapped import MappedRows
from presa.steps import OBSERVATION_CLIP, ActionBox, Steps, mapped_steps, steps_in_memory


@dataclass(frozen=True, kw_only=True)
class RewardedData:
    """Trajectories with their true rewards and costs, and no label."""

    observations: Tensor | MappedRows  # (n_steps, O) float32, standardised; index it with rows
    final_observations: Tensor  # (n_episodes, O) float32, standardised, what each episode ended in
    actions: Tensor | MappedRows  # (n_steps, A) float32, the action box scaled to [-1, 1]
    rewards: Tensor  # (n_steps,) float32
    costs: Tensor  # (n_steps,) float32
    terminated: BoolArray  # (n_episodes,), False where the horizon cut the episode
    episode_starts: IntArray  # (n_episodes + 1,), the steps of episode i are [i]:[i + 1]
    observation_mean: FloatArray  # (O,)
    observation_std: FloatArray  # (O,)
    action_low: FloatArray  # (A,)
    action_high: FloatArray  # (A,)
    cost_limit: float  # per episode
    horizon: int  # steps

    @property
    def n_episodes(self) -> int:
        return len(self.episode_starts) - 1

    @property
    def n_steps(self) -> int:
        return len(self.actions)

    @property
    def device(self) -> torch.device:
        """Where the steps are, or where mapped ones go batch by batch; a learner works there."""
        return self.observations.device

    def to(self, device: torch.device) -> "RewardedData":
        """The same data with its tensors on a device."""
        tensors = ("observations", "final_observations", "actions", "rewards", "costs")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})

    def next_observations(self, rows: Tensor) -> Tensor:
        """The observations after some steps, (B, O)."""
        episodes, last = self._places(rows)
        following = self.observations[torch.where(last, rows, rows + 1)]
        return torch.where(last[:, None].to(self.device), self.final_observations[episodes], following)

    def continuing(self, rows: Tensor) -> Tensor:
        """0 where a step ended its episode by itself, else 1: a cut by the horizon is no end, (B,)."""
        episodes, last = self._places(rows)
        return 1.0 - (last & torch.from_numpy(self.terminated)[episodes]).to(self.device).float()

    def _places(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        ends = torch.from_numpy(self.episode_starts[1:])
        episodes = torch.searchsorted(ends, rows, right=True)
        return episodes, rows + 1 == ends[episodes]


def dataset_rewarded_data(info: DatasetInfo, method: str, *, mapped: bool = False) -> RewardedData:
    """Read a dataset with all that it tells.

    Args:
        info: of the dataset.
        method: who asks, for messages.
        mapped: leave observations and actions on disk.

    Raises:
        DataError: the dataset is damaged, or tells no costs.
        StoreError: the cache cannot be written.
    """
    if not info.has_costs:
        raise DataError(f"{method} learns from true costs, {info.dataset_id} tells none; choose another method")
    box = ActionBox(low=np.array(info.action_low), high=np.array(info.action_high))
    steps = mapped_steps(info, box) if mapped else steps_in_memory(lambda: iterate_steps(info.path), info.n_steps, box)
    rewards, costs, finals, terminated = [], [], [], []
    for episode in iterate_episodes(info.path):
        rewards.append(episode.rewards)
        costs.append(episode.costs)
        finals.append(episode.observations[-1])
        terminated.append(bool(episode.terminations[-1]))
    return rewarded_data(
        steps,
        box,
        rewards=np.concatenate(rewards),
        costs=np.concatenate(costs),
        final_observations=np.array(finals),
        terminated=np.array(terminated),
        cost_limit=info.cost_limit,
        horizon=info.horizon,
    )


def rewarded_data(
    steps: Steps,
    box: ActionBox,
    *,
    rewards: FloatArray,  # (n_steps,)
    costs: FloatArray,  # (n_steps,)
    final_observations: FloatArray,  # (n_episodes, O), raw
    terminated: BoolArray,  # (n_episodes,)
    cost_limit: float,
    horizon: int,
) -> RewardedData:
    """Put steps and what came of them together."""
    finals = np.clip((final_observations - steps.mean) / steps.std, -OBSERVATION_CLIP, OBSERVATION_CLIP)
    return RewardedData(
        observations=steps.observations,
        final_observations=torch.from_numpy(finals.astype(np.float32)),
        actions=steps.actions,
        rewards=torch.from_numpy(rewards.astype(np.float32)),
        costs=torch.from_numpy(costs.astype(np.float32)),
        terminated=terminated,
        episode_starts=steps.starts,
        observation_mean=steps.mean,
        observation_std=steps.std,
        action_low=box.low,
        action_high=box.high,
        cost_limit=cost_limit,
        horizon=horizon,
    )
