"""D4RL's Q-learning table of a file that `fbgen export --format uni-rlhf` or `preference-transformer` wrote.

Put it beside Clean-Offline-RLHF's or Preference Transformer's code, in place of ``d4rl.qlearning_dataset(env)``: it
needs neither D4RL nor the environment, only numpy and h5py.
"""

import h5py
import numpy as np


def qlearning_table(path):
    """Observations, actions, next observations, rewards and ends, one row a step, without the rows of timeouts."""
    with h5py.File(path, "r") as file:
        data = {name: file[name][()] for name in ("observations", "actions", "rewards", "terminals", "timeouts")}
    kept = np.flatnonzero(~data["timeouts"][:-1])  # D4RL leaves out the last row, whatever it is
    return {
        "observations": data["observations"][kept],
        "actions": data["actions"][kept],
        "next_observations": data["observations"][kept + 1],
        "rewards": data["rewards"][kept],
        "dones": data["terminals"][kept].astype(np.float32),
    }
