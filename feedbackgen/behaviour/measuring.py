"""How good a policy is: whole episodes, many at once."""

import numpy as np

from feedbackgen.behaviour.policies import BatchPolicy
from feedbackgen.behaviour.worlds import batch_of
from feedbackgen.behaviour.zoo import PolicyInfo
from feedbackgen.seeding import derived_seed, stream
from feedbackgen.tasks import get_task
from feedbackgen.types import FloatArray


def measure(policy: BatchPolicy, *, n_episodes: int, description: str, command: str) -> PolicyInfo:
    """Roll a trained policy out on its own reset seeds and summarise return and cost."""
    returns, cost_returns = play(policy.task, policy, n_episodes=n_episodes)
    limit = get_task(policy.task).default_cost_limit
    return PolicyInfo(
        task=policy.task,
        name=policy.name,
        return_=round(float(returns.mean()), 3),
        return_std=round(float(returns.std()), 3),
        cost_return=round(float(cost_returns.mean()), 3),
        cost_std=round(float(cost_returns.std()), 3),
        safe_share=float(np.mean(cost_returns <= limit)),
        n_episodes=n_episodes,
        description=description,
        command=command,
    )


def play(task: str, policy: BatchPolicy, *, n_episodes: int) -> tuple[FloatArray, FloatArray]:
    """Return and cost return of whole episodes, (n_episodes,) each; the same episodes for every policy of a task."""
    batch = batch_of(task, n_episodes)
    rngs = [stream(0, "measure", policy.name, index) for index in range(n_episodes)]
    seeds = [derived_seed(0, "measure", index) for index in range(n_episodes)]
    observations = np.array([batch.reset(index, seed) for index, seed in enumerate(seeds)])
    returns, cost_returns = np.zeros(n_episodes), np.zeros(n_episodes)
    going_on = np.ones(n_episodes, dtype=bool)
    dtype = np.float32  # of the action space: what is stored is what is acted
    while going_on.any():
        actions = policy.act_together(observations, rngs).astype(dtype)
        observations, rewards, costs, terminated, truncated, *_ = batch.step(actions)
        returns += rewards * going_on
        cost_returns += costs * going_on
        ended = terminated | truncated
        going_on &= ~ended
        if going_on.any():
            for index in np.flatnonzero(ended):
                # Steps on beside the others, but counts no more.
                observations[index] = batch.reset(index, seeds[index])
    return returns, cost_returns
