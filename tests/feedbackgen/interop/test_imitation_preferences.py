"""imitation's files, written by another interpreter; here with a package that checks and stores what imitation does."""

import pickle
import sys
import textwrap

import numpy as np
import pytest
from samples import DATASET, make_dataset

from feedbackgen.errors import DataError, MissingDependency, OutputExists, StoreError
from feedbackgen.interop.imitation_preferences import export_imitation

# imitation 1.0.1's fields, checks and order of sides; kept as plain values, so that they can be read without it.
TYPES = """
    import dataclasses
    import numpy as np

    @dataclasses.dataclass(frozen=True)
    class TrajectoryWithRew:
        obs: np.ndarray
        acts: np.ndarray
        infos: object
        terminal: bool
        rews: np.ndarray

        def __post_init__(self):
            if len(self.obs) != len(self.acts) + 1:
                raise ValueError("expected one more observations than actions")
            if len(self.acts) == 0:
                raise ValueError("Degenerate trajectory: must have at least one action.")
            if self.rews.shape != (len(self.acts),) or not np.issubdtype(self.rews.dtype, np.floating):
                raise ValueError("rewards must be 1D floats, one for each action")
"""
COMPARISONS = """
    import dataclasses
    import pickle
    import numpy as np

    class PreferenceDataset:
        def __init__(self):
            self.fragments1, self.fragments2, self.preferences = [], [], np.array([])

        def push(self, fragments, preferences):
            fragments1, fragments2 = zip(*fragments)
            if preferences.shape != (len(fragments),):
                raise ValueError("Unexpected preferences shape")
            if preferences.dtype != np.float32:
                raise ValueError("preferences should have dtype float32")
            self.fragments1.extend(fragments1)
            self.fragments2.extend(fragments2)
            self.preferences = np.concatenate((self.preferences, preferences))

        def save(self, path):
            sides = [[dataclasses.asdict(one) for one in side] for side in (self.fragments1, self.fragments2)]
            with open(path, "wb") as file:
                pickle.dump((*sides, self.preferences), file)
"""
SERIALIZE = """
    import dataclasses
    import os
    import pickle

    def save(path, trajectories):
        os.makedirs(path)
        with open(os.path.join(path, "trajectories"), "wb") as file:
            pickle.dump([dataclasses.asdict(one) for one in trajectories], file)
"""


@pytest.fixture
def imitation(tmp_path, monkeypatch):
    """A place on the other interpreter's path with the parts of imitation that are used."""
    root = tmp_path / "site" / "imitation"
    for name, code in (
        ("data/types", TYPES),
        ("data/serialize", SERIALIZE),
        ("algorithms/preference_comparisons", COMPARISONS),
    ):
        file = root / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(code))
    for folder in (root, root / "data", root / "algorithms"):
        (folder / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(root.parent))
    return root


def test_preferences_are_of_the_first_and_fragments_have_their_last_observation(tmp_path, imitation, make_feedback):
    episodes, _ = make_feedback()
    first, second, preferences = pickle.loads(export_imitation(f"{DATASET}/default", tmp_path / "p.pkl").read_bytes())
    assert preferences.tolist() == [1, 0, 0.5, 0]  # of labels 0, 1, 0.5, 1
    np.testing.assert_array_equal(first[0]["obs"], episodes[0].observations[14:21])
    np.testing.assert_array_equal(first[0]["acts"], episodes[0].actions[14:20])
    np.testing.assert_array_equal(second[0]["rews"], episodes[1].rewards[:6])
    np.testing.assert_array_equal(second[2]["obs"], episodes[4].observations[2:9])
    # Segments 0, 3 and 4 end with their episodes, of 20, 23 and 24 steps.
    assert [one["terminal"] for one in first] == [True, False, True, False]
    assert [one["terminal"] for one in second] == [False, True, False, True]
    assert first[0]["infos"] is None


def test_segments_may_be_of_several_lengths(tmp_path, imitation, make_feedback):
    episodes, _ = make_feedback(lengths=[6, 3, 6, 6, 5, 5])
    _, second, _ = pickle.loads(export_imitation(f"{DATASET}/default", tmp_path / "p.pkl").read_bytes())
    assert [len(one["acts"]) for one in second] == [3, 6, 5, 6]
    np.testing.assert_array_equal(second[0]["obs"], episodes[1].observations[:4])


def test_a_dataset_becomes_trajectories(tmp_path, imitation, make_feedback):
    episodes, _ = make_feedback()
    trajectories = pickle.loads((export_imitation(DATASET, tmp_path / "out") / "trajectories").read_bytes())
    for mine, theirs in zip(episodes, trajectories, strict=True):
        np.testing.assert_array_equal(theirs["obs"], mine.observations)
        np.testing.assert_array_equal(theirs["acts"], mine.actions)
        np.testing.assert_array_equal(theirs["rews"], mine.rewards)
        assert theirs["terminal"] is True


def test_an_interpreter_without_imitation_is_one_line(tmp_path, make_feedback, monkeypatch):
    make_feedback()
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(empty))
    with pytest.raises(MissingDependency, match=r"has no imitation; name the interpreter .* with --python"):
        export_imitation(DATASET, tmp_path / "p.pkl")
    with pytest.raises(MissingDependency, match=r"--python .*/none: cannot be run \(No such file"):
        export_imitation(DATASET, tmp_path / "p.pkl", python=tmp_path / "none")
    assert not (tmp_path / "p.pkl").exists() and not list(tmp_path.glob(".p.pkl*"))


def test_what_imitation_refuses_is_one_line(tmp_path, imitation, make_feedback):
    make_feedback()
    file = imitation / "algorithms" / "preference_comparisons.py"
    file.write_text(file.read_text().replace("np.float32", "np.float16"))
    with pytest.raises(StoreError, match=r"failed \(ValueError: preferences should have dtype float32\); nothing was"):
        export_imitation(f"{DATASET}/default", tmp_path / "p.pkl", python=sys.executable)
    assert not list(tmp_path.glob("*.pkl"))


def test_no_preferences_and_nothing_overwritten(tmp_path, imitation, make_feedback):
    make_feedback(n_pairs=0)
    with pytest.raises(DataError, match="imitation's layout holds preferences, and there are none"):
        export_imitation(f"{DATASET}/default", tmp_path / "p.pkl")
    (tmp_path / "p.pkl").touch()
    with pytest.raises(OutputExists, match="use --force"):
        export_imitation(DATASET, tmp_path / "p.pkl")
    make_dataset(force=True)
    with pytest.raises(StoreError, match="no feedback named 'other'"):
        export_imitation(f"{DATASET}/other", tmp_path / "q.pkl")
