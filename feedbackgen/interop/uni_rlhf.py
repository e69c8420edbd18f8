"""Uni-RLHF's preference files (Clean-Offline-RLHF): three pickles of arrays, found by their names.

Labels of people: int (P,), 0 the first, 1 the second, -1 equal. Of a teacher: float64 (P, 2), one-hot, 0.5 and 0.5 when
equal. Indices: first rows of the segments in the Q-learning table of the D4RL file beside the folder.
Source: Clean-Offline-RLHF, rlhf/train_reward_model.py.
"""

import pickle
from pathlib import Path

import numpy as np

from feedbackgen.files import complete_or_absent
from feedbackgen.interop.d4rl import write_d4rl
from feedbackgen.interop.foreign import dataset_name
from feedbackgen.interop.pairs import Pairs, load_pairs, one_length, side_codes

LAYOUT = "Uni-RLHF's layout"
DOMAIN = "mujoco"  # of the loader's four, the one for arrays of numbers
PICKLE_PROTOCOL = 4  # Python 3.8 reads it, which the peers run on


def export_uni_rlhf(feedback: str | Path, out: Path, *, force: bool = False) -> Path:
    """Write a folder with ``<env>_human_labels/`` or ``<env>_fake_labels/``, and ``<env>.hdf5``.

    Raises:
        DataError: no preferences, or segments of several lengths.
        OutputExists: the folder is there and ``force`` is not given.
        StoreError: no such feedback, the disk is full, or the place cannot be written.
    """
    pairs = load_pairs(feedback, LAYOUT)
    length = one_length(pairs, LAYOUT)
    name = dataset_name(pairs.info.environment)
    kind = "fake" if pairs.simulated else "human"
    # Any text does where Uni-RLHF has a uuid; this one says which data the rows belong to.
    suffix = f"domain_{DOMAIN}_env_{name}_num_{len(pairs)}_len_{length}_{pairs.info.fingerprint[:32]}.pkl"
    with complete_or_absent(out, force=force) as draft:
        folder = draft / f"{name}_{kind}_labels"
        folder.mkdir(parents=True)
        for file, values in (
            (f"{kind}_label_{suffix}", one_hot(pairs) if pairs.simulated else side_codes(pairs.labels)),
            (f"indices_1_{suffix}", pairs.rows[:, 0]),
            (f"indices_2_{suffix}", pairs.rows[:, 1]),
        ):
            (folder / file).write_bytes(pickle.dumps(values, protocol=PICKLE_PROTOCOL))
        write_d4rl(draft / f"{name}.hdf5", pairs.trajectories)
    return out


def one_hot(pairs: Pairs) -> np.ndarray:
    """Labels as P(first preferred), P(second preferred), (P, 2), float64."""
    second = pairs.labels.astype(np.float64)
    return np.stack([1 - second, second], axis=1)
