"""Preferences and trajectories for imitation, written by imitation itself.

Its files are pickles of its own objects, and it needs an older Gymnasium than feedbackgen, so it usually lives in an
environment of its own: arrays are handed to the interpreter there, which writes them.
Source: imitation 1.0.1, imitation/algorithms/preference_comparisons.py and imitation/data/serialize.py.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from feedbackgen.episodes import load_trajectories
from feedbackgen.errors import MissingDependency, StoreError
from feedbackgen.files import complete_or_absent, refuse_existing
from feedbackgen.interop.imitation_writer import NO_IMITATION
from feedbackgen.interop.npz import write_npz
from feedbackgen.interop.pairs import load_pairs
from feedbackgen.interop.tables import open_content
from feedbackgen.types import BoolArray, IntArray, Trajectories

LAYOUT = "imitation's layout"


def export_imitation(what: str | Path, out: Path, *, python: Path | None = None, force: bool = False) -> Path:
    """Write feedback as a ``PreferenceDataset``, or a dataset as a folder of trajectories.

    A fragment has the observation after its last step too, and is terminal where its episode ends with it. Segments may
    be of several lengths. Its preferences are P(first preferred), the opposite of ours.

    Args:
        what: feedback, ``DATASET/NAME`` or a path; or a dataset.
        out: file for feedback, folder for a dataset.
        python: the interpreter that has imitation; default this one.
        force: replace what is there.

    Raises:
        MissingDependency: that interpreter has no imitation, or is none.
        DataError: the data is damaged, or the feedback holds no preferences.
        OutputExists: it is there and ``force`` is not given.
        StoreError: no such feedback, imitation failed, the disk is full, or the place cannot be written.
    """
    refuse_existing(out, force=force)
    if open_content(what).feedback is None:
        flat = load_trajectories(what, with_rewards=True)
        arrays = _arrays(flat, flat.starts[:-1], flat.lengths, np.arange(flat.n_episodes), None)
    else:
        pairs = load_pairs(what, LAYOUT)
        first_preferred = (1 - pairs.labels).astype(np.float32)
        # All first segments, then all second.
        rows, lengths, episodes = (values.T.reshape(-1) for values in (pairs.rows, pairs.lengths, pairs.episodes))
        arrays = _arrays(pairs.trajectories, rows, lengths, episodes, first_preferred)
    with complete_or_absent(out, force=force) as draft, _beside(draft) as folder:
        file = Path(folder) / "arrays.npz"
        write_npz(file, arrays)
        _run(Path(sys.executable) if python is None else python, file, draft)
    return out


def _arrays(
    flat: Trajectories, rows: IntArray, lengths: IntArray, episodes: IntArray, first_preferred: np.ndarray | None
) -> Iterator[tuple[str, np.ndarray]]:
    assert flat.rewards is not None  # asked for with rewards
    terminal: BoolArray = rows + lengths == flat.starts[1:][episodes]
    # With each episode's final observation behind its steps, a fragment's observations are a stretch too.
    steps = np.arange(flat.n_steps) + np.repeat(np.arange(flat.n_episodes), flat.lengths)
    observations = np.empty((flat.n_steps + flat.n_episodes, flat.observations.shape[1]))
    observations[steps] = flat.observations
    observations[flat.starts[1:] + np.arange(flat.n_episodes)] = flat.final_observations
    yield "observations", observations[_stretches(rows + episodes, lengths + 1)]
    yield "actions", flat.actions[_stretches(rows, lengths)]
    yield "rewards", flat.rewards[_stretches(rows, lengths)]
    yield "lengths", lengths
    yield "terminal", terminal
    if first_preferred is not None:
        yield "preferences", first_preferred


def _stretches(rows: IntArray, lengths: IntArray) -> IntArray:
    """The rows of all stretches, one behind the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(rows - before, lengths) + np.arange(int(lengths.sum()))


def _beside(draft: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=f".{draft.name}.", dir=draft.parent)


def _run(python: Path, arrays: Path, draft: Path) -> None:
    writer = Path(__file__).with_name("imitation_writer.py").read_text()
    try:
        # As a text, so that no module of this folder is taken for another of the same name there.
        result = subprocess.run(
            [str(python), "-c", writer, str(arrays.absolute()), str(draft.absolute())],
            cwd=arrays.parent,
            capture_output=True,
            text=True,
        )
    except OSError as error:
        raise MissingDependency(f"--python {python}: cannot be run ({error.strerror})") from error
    if result.returncode == NO_IMITATION:
        raise MissingDependency(
            f"--format imitation: {python} has no imitation; name the interpreter of an environment that has it with "
            "--python (pip install imitation, there)"
        )
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise StoreError(f"--format imitation: {python} failed ({last}); nothing was written")
