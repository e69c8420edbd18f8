"""How good a policy is: whole episodes, many at once."""

from collections.abc import Sequence

import numpy as np

from feedbackgen.behaviour.policies import BatchPolicy
from feedbackgen.behaviour.zoo import PolicyInfo
from feedbackgen.seeding import derived_seed, stream
from feedbackgen.types import FloatArray


def measure(batch, policy: BatchPolicy, *, n_episodes: int, description: str, command: str) -> PolicyInfo:
    """Play a policy's episodes from reset seeds of their own, the same for every policy, and note return and cost.

    Args:
        batch: at least one environment, see `feedbackgen.environments.make_env_batch`.
        policy: its name goes into the index.
        description: how it was made, for people.
        command: that made it.
    """
    returns, cost_returns = [], []
    for first in range(0, n_episodes, batch.n_environments):
        indices = range(first, min(first + batch.n_environments, n_episodes))
        some = play_together(
            batch,
            policy,
            seeds=[derived_seed(0, "measure", index) for index in indices],
            rngs=[stream(0, "measure", policy.name, index) for index in indices],
        )
        returns += [round(float(value), 3) for value in some[0]]
        cost_returns += [round(float(value), 3) for value in some[1]]
    return PolicyInfo(
        task=batch.task,
        name=policy.name,
        description=description,
        command=command,
        returns=tuple(returns),
        cost_returns=tuple(cost_returns),
    )


def play_together(
    batch, policy: BatchPolicy, *, seeds: Sequence[int], rngs: Sequence[np.random.Generator]
) -> tuple[FloatArray, FloatArray]:
    """Return and cost return of one episode for each seed, (n,) each, played side by side."""
    observations = np.array([batch.reset(lane, seed) for lane, seed in enumerate(seeds)])
    returns, cost_returns = np.zeros(len(seeds)), np.zeros(len(seeds))
    lanes = np.arange(len(seeds))
    while len(lanes):
        # What is acted is what would be stored: the action in the precision of the action space.
        actions = policy.act_together(observations, [rngs[int(lane)] for lane in lanes]).astype(
            batch.action_space.dtype
        )
        observations, rewards, costs, terminated, truncated, _ = batch.step(actions, lanes)
        returns[lanes] += rewards
        cost_returns[lanes] += costs
        going_on = ~(terminated | truncated)
        lanes, observations = lanes[going_on], observations[going_on]
    return returns, cost_returns
