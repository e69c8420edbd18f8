"""Small datasets made without a simulator."""

import numpy as np

from feedbackgen.episodes import write_dataset
from feedbackgen.seeding import stream
from feedbackgen.types import Episode

TASK = "SafetyPointCircle1-v0"
DATASET = f"feedbackgen/{TASK}/small-v0"


def make_episode(index: int, *, n_steps: int = 40, unsafe: bool = False) -> Episode:
    """An episode of PointCircle1's shapes; safe ones go slowly (small actions), unsafe ones fast."""
    rng = stream(0, "test episode", index)
    speed = 0.8 if unsafe else 0.2
    actions = speed + 0.05 * rng.standard_normal((n_steps, 2))
    costs = (rng.random(n_steps) < 0.5).astype(float) if unsafe else np.zeros(n_steps)
    ends = np.arange(n_steps) == n_steps - 1
    return Episode(
        observations=rng.standard_normal((n_steps + 1, 28)),
        actions=np.clip(actions, -1, 1),
        rewards=actions.sum(axis=1),
        costs=costs,
        cost_terms={"cost_out_of_boundary": costs},
        terminations=np.zeros(n_steps, dtype=bool),
        truncations=ends,
        seed=index,
        policy="fast" if unsafe else "slow",
    )


def make_dataset(n_episodes: int = 12, dataset_id: str = DATASET, **options):
    """Half safe, half unsafe, written as a Minari dataset."""
    episodes = [make_episode(index, unsafe=index % 2 == 1) for index in range(n_episodes)]
    return write_dataset(dataset_id, episodes, task=TASK, **options)
