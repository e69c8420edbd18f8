"""Files as the peers make them, and their reading code, from what they publish."""

import h5py
import numpy as np

DSRL_KEYS = ("observations", "next_observations", "actions", "rewards", "costs", "terminals", "timeouts")


def dsrl_arrays(lengths=(5, 3, 4), *, observation_dim=28, action_dim=2, seed=0) -> dict[str, np.ndarray]:
    """Trajectories in a row; the second ends by ``terminals``, the others by ``timeouts``."""
    rng = np.random.default_rng(seed)
    observations, following, terminals, timeouts = [], [], [], []
    for index, length in enumerate(lengths):
        walk = rng.standard_normal((length + 1, observation_dim)).astype(np.float32)
        observations.append(walk[:-1])
        following.append(walk[1:])
        ends = np.arange(length) == length - 1
        terminals.append(ends & (index == 1))
        timeouts.append(ends & (index != 1))
    n_steps = sum(lengths)
    return {
        "observations": np.concatenate(observations),
        "next_observations": np.concatenate(following),
        "actions": rng.uniform(-1, 1, (n_steps, action_dim)).astype(np.float32),
        "rewards": rng.standard_normal(n_steps).astype(np.float32),
        "costs": (rng.random(n_steps) < 0.4).astype(np.float32),
        "terminals": np.concatenate(terminals),
        "timeouts": np.concatenate(timeouts),
    }


def write_hdf5(path, arrays):
    """A file as DSRL's `process_dataset.py` writes it."""
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, compression="gzip" if np.ndim(values) else None)
    return path


def read_as_dsrl(path, observation_dim: int, action_dim: int) -> dict[str, np.ndarray]:
    """What DSRL's `OfflineEnv.get_dataset` does with a file: every dataset loaded, the same checks, the same casts."""
    names, data = [], {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            data[name] = file[name][:]
    assert all(name in data for name in DSRL_KEYS)
    n_steps = data["observations"].shape[0]
    assert data["observations"].shape[1:] == (observation_dim,)
    assert data["actions"].shape[1:] == (action_dim,)
    for name in ("rewards", "costs", "terminals"):
        if data[name].shape == (n_steps, 1):
            data[name] = data[name][:, 0]
        assert data[name].shape == (n_steps,)
    return data | {name: data[name].astype("float32") for name in DSRL_KEYS[:5]}


def dsrl_returns(data) -> list[tuple[float, float]]:
    """Return and cost of each trajectory, cut as DSRL's `pre_process_data` cuts them."""
    last = np.where((data["terminals"] == 1) | (data["timeouts"] == 1))[0]
    starts = [0, *(last[:-1] + 1)]
    pieces = [slice(start, end + 1) for start, end in zip(starts, last, strict=True)]
    return [(float(data["rewards"][piece].sum()), float(data["costs"][piece].sum())) for piece in pieces]
