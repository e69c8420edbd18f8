"""CPL's old layout: the way there and back, which side a score means, and every file that is refused."""

import numpy as np
import pytest
from peers import cpl_arrays, read_as_cpl
from samples import DATASET

from feedbackgen.episodes import list_datasets, load_trajectories
from feedbackgen.errors import DataError, RecipeError, StoreError
from feedbackgen.interop.cpl import export_cpl, import_cpl
from feedbackgen.interop.foreign import ForeignTask
from feedbackgen.store import open_feedback

TASK = ForeignTask(name="SafetyPointCircle1-v0")


def save(path, arrays):
    np.savez(path, **arrays)
    return path


def test_import_and_export_give_the_same_arrays(tmp_path):
    arrays = cpl_arrays()
    imported = import_cpl(save(tmp_path / "prefs.npz", arrays), TASK)
    assert imported.info.n_episodes == 12 and not imported.info.has_costs
    out = export_cpl(imported.info.dataset_id, tmp_path / "out.npz")
    with np.load(out) as archive:
        assert sorted(archive.files) == sorted(arrays)
        for name, values in arrays.items():
            assert archive[name].dtype == np.float32
            np.testing.assert_array_equal(archive[name], values, err_msg=name)


def test_cpls_scores_are_high_for_the_preferred_segment(tmp_path, make_feedback, segment_of):
    episodes, feedback = make_feedback()
    data = read_as_cpl(export_cpl(DATASET, tmp_path / "out.npz"))
    # Labels 0, 1, 0.5, 1: the scores of the four first segments, then of the four second.
    assert data["score"].tolist() == [1, 0, 0.5, 0, 0, 1, 0.5, 1]
    for row, segment in enumerate([0, 2, 4, 5, 1, 3, 5, 0]):
        np.testing.assert_array_equal(data["obs"][row], segment_of(episodes, feedback, segment))
    np.testing.assert_array_equal(data["reward"][0], np.float32(episodes[0].rewards[14:20]))
    np.testing.assert_array_equal(data["action"][4], np.float32(episodes[1].actions[:6]))


def test_imported_labels_keep_their_side_and_ties(tmp_path):
    imported = import_cpl(save(tmp_path / "prefs.npz", cpl_arrays()), TASK)
    feedback = open_feedback(imported.feedback)
    assert feedback.preferences.label.tolist() == [0, 1, 0.5, 1, 0, 1] and len(feedback.safety) == 0
    flat = load_trajectories(imported.info.dataset_id, with_rewards=True)
    np.testing.assert_array_equal(flat.observations[4:8], cpl_arrays()["obs_2"][0])
    np.testing.assert_array_equal(flat.final_observations[0], flat.observations[3])
    assert np.isnan(flat.costs).all()


def test_the_same_feedback_gives_the_same_bytes(tmp_path, make_feedback):
    make_feedback()
    files = [export_cpl(DATASET, tmp_path / f"{name}.npz").read_bytes() for name in "ab"]
    assert files[0] == files[1]


def test_what_the_layout_cannot_hold_is_refused_and_nothing_written(tmp_path, make_feedback):
    out = tmp_path / "out.npz"
    make_feedback(lengths=[6, 6, 6, 6, 5, 5])
    with pytest.raises(
        DataError, match=r"CPL's layout holds segments of one length, and the feedback has 5 to 6 steps"
    ):
        export_cpl(DATASET, out)
    make_feedback(n_pairs=0)
    with pytest.raises(DataError, match="CPL's layout holds preferences, and there are none"):
        export_cpl(DATASET, out)
    make_feedback(action_scale=10.0)
    with pytest.raises(DataError, match=r"CPL's layout holds actions in \[-1, 1\], .* there are some of \d"):
        export_cpl(DATASET, out)
    make_feedback()
    with pytest.raises(RecipeError, match=r"expected a name ending in \.npz"):
        export_cpl(DATASET, tmp_path / "out")
    assert not out.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.full(6, 0.7)}, r"label: expected 0, 0\.5 or 1, got 0\.7 at index 0"),
        ({"label": np.zeros((6, 1))}, r"label: expected shape \(6,\), got \(6, 1\)"),
        ({"obs_1": np.zeros((6, 28))}, r"obs_1: expected shape \(pairs, steps, width\)"),
        ({"obs_2": np.zeros((6, 3, 28))}, r"obs_2: expected shape \(6, 4, 28\), got \(6, 3, 28\)"),
        ({"action_1": np.zeros((6, 4)), "action_2": np.zeros((6, 4))}, "action_1: expected shape"),
        ({"reward_2": np.full((6, 4), np.nan)}, "segment 2 of pair 0, rewards: expected finite values, got nan"),
        ({"obs_1": np.full((6, 4, 28), np.inf)}, "segment 1 of pair 0, observations: expected finite values, got inf"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        import_cpl(save(tmp_path / "prefs.npz", cpl_arrays() | change), TASK)
    assert list_datasets() == []


def test_the_task_must_be_said(tmp_path):
    with pytest.raises(DataError, match="does not say which task it holds; say so with --task NAME"):
        import_cpl(save(tmp_path / "prefs.npz", cpl_arrays()), ForeignTask())


def test_an_import_whose_feedback_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise StoreError("cannot write: No space left on device")

    monkeypatch.setattr("feedbackgen.interop.cpl.write_feedback", full)
    with pytest.raises(StoreError, match="No space left"):
        import_cpl(save(tmp_path / "prefs.npz", cpl_arrays()), TASK)
    assert list_datasets() == []
