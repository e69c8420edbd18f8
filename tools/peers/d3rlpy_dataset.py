"""Runs where d3rlpy is: load our Minari dataset with its environment, compare it with Minari's, and clone it."""

import logging
import sys
import warnings

import d3rlpy
import minari
import numpy as np
import structlog

warnings.simplefilter("ignore")
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
episodes = list(minari.load_dataset(sys.argv[1]).iterate_episodes())


def equal_episodes(dataset) -> int:
    """How many have the observations, actions and rewards of Minari's."""
    return sum(
        np.array_equal(theirs.observations, ours.observations[:-1])
        and np.array_equal(theirs.actions, ours.actions)
        and np.array_equal(theirs.rewards[:, 0], ours.rewards)
        for ours, theirs in zip(episodes, dataset.episodes, strict=True)
    )


loaded, env = d3rlpy.datasets.get_minari(sys.argv[1])
print(f"get_minari: {loaded.size()} episodes, {loaded.transition_count} transitions, environment {env.unwrapped}; "
      f"{equal_episodes(loaded)} of the episodes equal to Minari's")  # fmt: skip

aligned = d3rlpy.dataset.MDPDataset(
    observations=np.concatenate([episode.observations[:-1] for episode in episodes]),
    actions=np.concatenate([episode.actions for episode in episodes]),
    rewards=np.concatenate([episode.rewards for episode in episodes]),
    terminals=np.concatenate([episode.terminations for episode in episodes]),
    timeouts=np.concatenate([episode.truncations for episode in episodes]),
)
print(f"MDPDataset: {equal_episodes(aligned)} of the episodes equal to Minari's")
if equal_episodes(aligned) < len(episodes):
    sys.exit("d3rlpy has other steps than Minari")
epochs = (
    d3rlpy.algos.BCConfig()
    .create()
    .fit(
        aligned,
        n_steps=100,
        n_steps_per_epoch=100,
        show_progress=False,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
    )
)
print(f"behaviour cloning of it, 100 steps: loss {epochs[-1][1]['loss']:.4f}")
