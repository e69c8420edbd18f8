"""Runs where torchrl is: load our Minari dataset as a replay buffer, compare it with Minari's, and draw a batch."""

import logging
import sys
import tempfile

import minari
import numpy as np
from torchrl.data.datasets.minari_data import MinariExperienceReplay

logging.disable(logging.INFO)
episodes = list(minari.load_dataset(sys.argv[1]).iterate_episodes())
with tempfile.TemporaryDirectory() as cache:
    replay = MinariExperienceReplay(sys.argv[1], batch_size=32, root=cache, load_from_local_minari=True)
    steps, batch = replay[:], replay.sample()
    theirs = (steps["observation"], steps["action"], steps["next", "reward"][:, 0], steps["next", "info", "cost"])
    for name, values, of in (
        ("observations", theirs[0], lambda episode: episode.observations[:-1]),
        ("actions", theirs[1], lambda episode: episode.actions),
        ("rewards", theirs[2], lambda episode: episode.rewards),
        ("costs", theirs[3], lambda episode: episode.infos["cost"][1:]),
    ):
        if not np.array_equal(values.numpy(), np.concatenate([of(episode) for episode in episodes])):
            sys.exit(f"{name} are not those of Minari")
print(f"{len(replay)} steps of {len(episodes)} episodes; a batch of observations {tuple(batch['observation'].shape)}, "
      f"actions {tuple(batch['action'].shape)}")  # fmt: skip
print("observations, actions, rewards and costs are equal to Minari's")
