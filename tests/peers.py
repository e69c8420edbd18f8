"""Files as the peers make them, and their reading code, from what they publish."""

import pickle

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


def omnisafe_arrays(lengths=(5, 3, 4), **options) -> dict[str, np.ndarray]:
    """The same trajectories as OmniSafe's collector saves them."""
    arrays = dsrl_arrays(lengths, **options)
    return {
        "obs": arrays["observations"],
        "action": arrays["actions"],
        "reward": arrays["rewards"][:, None],
        "cost": arrays["costs"][:, None],
        "next_obs": arrays["next_observations"],
        "done": (arrays["terminals"] | arrays["timeouts"]).astype(np.float32)[:, None],
    }


def read_as_omnisafe(path) -> dict[str, np.ndarray]:
    """What OmniSafe's `OfflineDataset` takes of a local file: six arrays, batched along their first dimension."""
    assert str(path).endswith(".npz")
    with np.load(path) as data:
        arrays = {name: data[name] for name in ("obs", "action", "reward", "cost", "next_obs", "done")}
    for name, values in arrays.items():
        assert values.dtype == np.float32 and values.ndim == 2 and len(values) == len(arrays["obs"]), name
    return arrays


def cpl_arrays(n_pairs=6, length=4, *, observation_dim=28, action_dim=2, seed=0) -> dict[str, np.ndarray]:
    """Preferences in CPL's old layout, one of them a tie."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for side in (1, 2):
        arrays[f"obs_{side}"] = rng.standard_normal((n_pairs, length, observation_dim)).astype(np.float32)
        arrays[f"action_{side}"] = rng.uniform(-1, 1, (n_pairs, length, action_dim)).astype(np.float32)
        arrays[f"reward_{side}"] = rng.standard_normal((n_pairs, length)).astype(np.float32)
    labels = np.arange(n_pairs) % 2
    return arrays | {"label": np.where(np.arange(n_pairs) == 2, 0.5, labels).astype(np.float32)}


def read_as_cpl(path) -> dict[str, np.ndarray]:
    """CPL's `FeedbackBuffer` on the old layout: all first segments, then all second, each with a score."""
    with np.load(path) as data:
        assert "label" in data and "obs_1" in data
        stacked = {name: np.concatenate([data[f"{name}_1"], data[f"{name}_2"]]) for name in ("obs", "action", "reward")}
        scores = np.concatenate([1 - data["label"], data["label"]])
    bound = 1 - 1e-5
    return stacked | {"action": np.clip(stacked["action"], -bound, bound), "score": scores}


def qlearning_table(path) -> dict[str, np.ndarray]:
    """`d4rl.qlearning_dataset` by its loop: no row of a timeout, and never the file's last row."""
    with h5py.File(path) as file:
        data = {name: file[name][()] for name in ("observations", "actions", "rewards", "terminals", "timeouts")}
    kept = [row for row in range(len(data["rewards"]) - 1) if not data["timeouts"][row]]
    table = {name: np.float32(data[name][kept]) for name in ("observations", "actions", "rewards")}
    following = np.float32(data["observations"][np.array(kept) + 1])
    return table | {"next_observations": following, "terminals": data["terminals"][kept]}


def read_as_uni_rlhf(data_dir, env: str, num_query: int, len_query: int, *, fake_label: bool, table):
    """Clean-Offline-RLHF's `train_reward_model.py`: files found by name, labels (P, 2), segments cut from a table."""
    folder = data_dir / f"{env}_{'fake' if fake_label else 'human'}_labels"
    suffix = f"domain_mujoco_env_{env}_num_{num_query}_len_{len_query}"
    matched = [file.name for file in folder.iterdir() if suffix in file.name]
    label_file, *index_files = sorted(matched)
    assert len(index_files) == 2
    saved, first, second = (pickle.loads((folder / name).read_bytes()) for name in (label_file, *index_files))
    if fake_label:
        labels = saved
    else:
        labels = np.zeros((len(saved), 2))
        labels[np.array(saved) == 0, 0] = 1.0
        labels[np.array(saved) == 1, 1] = 1.0
        labels[np.array(saved) == -1] = 0.5
    return labels, *(np.stack([table["observations"][i : i + len_query] for i in rows]) for rows in (first, second))


def read_as_preference_transformer(folder, num_query: int, len_query: int, table):
    """Preference Transformer: three files by their order, the last labels of the list."""
    second_file, first_file, label_file = sorted(file.name for file in folder.iterdir())
    second, first, saved = (
        pickle.loads((folder / name).read_bytes()) for name in (second_file, first_file, label_file)
    )
    assert isinstance(saved, list) and all(type(label) is int for label in saved)
    queries = range(len(saved) - num_query, len(saved))
    labels = np.zeros((num_query, 2))
    for row, query in enumerate(queries):
        labels[row] = {0: (1, 0), 1: (0, 1), -1: (0.5, 0.5)}[saved[query]]
    return labels, *(
        np.stack([table["observations"][rows[i] : rows[i] + len_query] for i in queries]) for rows in (first, second)
    )
