"""OmniSafe's files: the way there and back, what its reader takes, and every file that is refused."""

from dataclasses import replace

import numpy as np
import pytest
from peers import omnisafe_arrays, read_as_omnisafe
from samples import DATASET, make_dataset, make_episode

from feedbackgen.episodes import episode_returns, list_datasets, load_trajectories, write_dataset
from feedbackgen.errors import DataError, OutputExists, RecipeError
from feedbackgen.interop.foreign import ForeignTask
from feedbackgen.interop.omnisafe import export_omnisafe, import_omnisafe

FILE = "SafetyPointCircle1-v0_mixed.npz"


def save(path, arrays):
    np.savez(path, **arrays)
    return path


def test_import_and_export_give_the_same_arrays(tmp_path):
    arrays = omnisafe_arrays()
    info = import_omnisafe(save(tmp_path / FILE, arrays)).info
    assert info.dataset_id == "omnisafe/SafetyPointCircle1-v0/SafetyPointCircle1-v0_mixed-v0"
    out = read_as_omnisafe(export_omnisafe(info.dataset_id, tmp_path / "out.npz"))
    for name, values in arrays.items():
        np.testing.assert_array_equal(out[name], values, err_msg=name)


def test_our_episodes_come_out_step_by_step(tmp_path):
    make_dataset()
    out = read_as_omnisafe(export_omnisafe(DATASET, tmp_path / "out.npz"))
    assert [len(out[name]) for name in out] == [480] * 6
    assert np.flatnonzero(out["done"][:, 0]).tolist() == list(range(39, 480, 40))
    returns, costs, _ = episode_returns(DATASET)
    np.testing.assert_allclose(out["cost"].reshape(12, 40).sum(axis=1), costs)
    np.testing.assert_allclose(out["reward"].reshape(12, 40).sum(axis=1), returns, rtol=1e-5)
    np.testing.assert_array_equal(out["next_obs"][39], np.float32(make_episode(0).observations[-1]))


def test_an_end_at_the_horizon_is_a_truncation_and_one_before_a_termination(tmp_path):
    file = save(tmp_path / "x.npz", omnisafe_arrays((5, 3), observation_dim=4))
    info = import_omnisafe(file, ForeignTask(name="mine", horizon=5)).info
    flat = load_trajectories(info.dataset_id, with_rewards=False)
    assert flat.terminations.tolist() == [False] * 7 + [True]


def test_the_task_comes_from_the_name_or_the_user(tmp_path):
    file = save(tmp_path / "data.npz", omnisafe_arrays())
    with pytest.raises(DataError, match="its name begins with no task's; say which task it holds with --task"):
        import_omnisafe(file)
    assert import_omnisafe(file, ForeignTask(name="PointCircle1")).info.task == "SafetyPointCircle1-v0"


def test_a_tail_that_is_not_done_is_refused_or_left_out(tmp_path):
    arrays = omnisafe_arrays()
    arrays["done"][-1] = 0
    file = save(tmp_path / FILE, arrays)
    with pytest.raises(DataError, match=r"the last 4 steps end without done; .*--drop-tail"):
        import_omnisafe(file)
    assert import_omnisafe(file, drop_tail=True).notes == ("left out: 4 steps after the last done",)


@pytest.mark.parametrize("name", ["obs", "action", "reward", "cost", "next_obs"])
def test_a_value_that_is_not_finite_is_named(tmp_path, name):
    arrays = omnisafe_arrays()
    arrays[name][6] = np.nan
    with pytest.raises(DataError, match=r"trajectory 1, \w+: expected finite values, got nan"):
        import_omnisafe(save(tmp_path / FILE, arrays))
    assert list_datasets() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"done": np.full((12, 1), 0.5, np.float32)}, r"done: expected 0 or 1, got 0\.5 at step 0"),
        ({"reward": np.zeros((11, 1))}, r"reward: expected shape \(12, 1\), got \(11, 1\)"),
        ({"action": np.zeros(12)}, r"action: expected shape \(12, width\), got \(12,\)"),
        ({"next_obs": np.zeros((12, 3))}, r"next_obs: expected shape \(12, 28\) as obs has, got \(12, 3\)"),
        ({"next_obs": np.zeros((12, 28))}, "next_obs: those of step 0 are not the observations of step 1"),
        ({"cost": np.array(["a"] * 12)}, "cost: expected numbers, got <U1"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        import_omnisafe(save(tmp_path / FILE, omnisafe_arrays() | change))


def test_a_file_that_is_no_such_archive_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.npz: no such file"):
        import_omnisafe(tmp_path / "absent.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match=r"not a readable \.npz file"):
        import_omnisafe(tmp_path / "bad.npz")
    arrays = omnisafe_arrays()
    del arrays["cost"]
    with pytest.raises(DataError, match="no cost; OmniSafe's layout holds obs, action"):
        import_omnisafe(save(tmp_path / FILE, arrays))


def test_what_the_layout_cannot_hold_is_refused_and_nothing_written(tmp_path):
    episode = make_episode(0)
    write_dataset(
        DATASET, [replace(episode, costs=episode.costs * np.nan, cost_terms={})], task="SafetyPointCircle1-v0"
    )
    with pytest.raises(DataError, match="OmniSafe's layout needs costs, and it was imported without"):
        export_omnisafe(DATASET, tmp_path / "out.npz")
    make_dataset(force=True)
    with pytest.raises(RecipeError, match=r"expected a name ending in \.npz"):
        export_omnisafe(DATASET, tmp_path / "out.hdf5")
    (tmp_path / "there.npz").touch()
    with pytest.raises(OutputExists, match="use --force"):
        export_omnisafe(DATASET, tmp_path / "there.npz")
    assert [path.name for path in tmp_path.glob("*.npz")] == ["there.npz"]
