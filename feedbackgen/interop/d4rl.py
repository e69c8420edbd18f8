"""A dataset as D4RL's HDF5, over whose Q-learning table Uni-RLHF and Preference Transformer count their segments.

``d4rl.qlearning_dataset`` leaves out the row of every timeout, and the file's last row. So each episode is followed by
a row of its own that is a timeout: its last observation, no action, no reward. What is left out is then that row alone,
and row i of the Q-learning table is step i of the dataset.
Source: D4RL, d4rl/__init__.py.
"""

from pathlib import Path

import h5py
import numpy as np

from feedbackgen.types import Trajectories


def write_d4rl(path: Path, flat: Trajectories) -> None:
    """Write ``observations, actions, rewards, terminals, timeouts``; float32 and bool, gzip.

    Args:
        path: the file.
        flat: with rewards.
    """
    assert flat.rewards is not None  # asked for with rewards
    n_rows = flat.n_steps + flat.n_episodes
    fillers = flat.starts[1:] + np.arange(flat.n_episodes)
    steps = np.delete(np.arange(n_rows), fillers)
    with h5py.File(path, "w") as file:
        for name, values, filling in (
            ("observations", flat.observations, flat.final_observations),
            ("actions", flat.actions, 0),
            ("rewards", flat.rewards, 0),
        ):
            rows = np.empty((n_rows, *values.shape[1:]), dtype=np.float32)
            rows[steps], rows[fillers] = values, filling
            file.create_dataset(name, data=rows, compression="gzip")
        terminals, timeouts = np.zeros(n_rows, dtype=bool), np.zeros(n_rows, dtype=bool)
        terminals[steps], timeouts[fillers] = flat.terminations, True
        file.create_dataset("terminals", data=terminals, compression="gzip")
        file.create_dataset("timeouts", data=timeouts, compression="gzip")
