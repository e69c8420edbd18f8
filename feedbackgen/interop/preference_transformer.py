"""Preference Transformer's files, which cpl-human reads too: three pickles in a folder of the environment's name.

Sorted, they are ``indices_2_num<P>, indices_num<P>, label_human``, and there must be no fourth. Labels are a list of
int: 0 the first, 1 the second, -1 equal. Indices: first rows of the segments in the Q-learning table of the D4RL file
beside the folder.
Source: Preference Transformer, JaxPref/new_preference_transformer.py.
"""

import pickle
from pathlib import Path

from feedbackgen.files import complete_or_absent
from feedbackgen.interop.d4rl import write_d4rl
from feedbackgen.interop.foreign import dataset_name
from feedbackgen.interop.pairs import load_pairs, one_length, side_codes
from feedbackgen.interop.uni_rlhf import PICKLE_PROTOCOL

LAYOUT = "Preference Transformer's layout"


def export_preference_transformer(feedback: str | Path, out: Path, *, force: bool = False) -> Path:
    """Write a folder with ``human_label/<env>/`` and ``<env>.hdf5``.

    Raises:
        DataError: no preferences, or segments of several lengths.
        OutputExists: the folder is there and ``force`` is not given.
        StoreError: no such feedback, the disk is full, or the place cannot be written.
    """
    pairs = load_pairs(feedback, LAYOUT)
    one_length(pairs, LAYOUT)
    name = dataset_name(pairs.info.environment)
    with complete_or_absent(out, force=force) as draft:
        folder = draft / "human_label" / name
        folder.mkdir(parents=True)
        for file, values in (
            (f"indices_2_num{len(pairs)}", pairs.rows[:, 1]),
            (f"indices_num{len(pairs)}", pairs.rows[:, 0]),
            ("label_human", side_codes(pairs.labels).tolist()),
        ):
            (folder / file).write_bytes(pickle.dumps(values, protocol=PICKLE_PROTOCOL))
        write_d4rl(draft / f"{name}.hdf5", pairs.trajectories)
    return out
