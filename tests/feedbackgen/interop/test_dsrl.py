"""DSRL's files: what its own reader makes of ours, the way there and back, and every file that is refused."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from peers import DSRL_KEYS, dsrl_arrays, dsrl_returns, read_as_dsrl, write_hdf5
from samples import DATASET, make_dataset, make_episode

from feedbackgen.dsrl import DSRL
from feedbackgen.episodes import episode_returns, list_datasets, load_trajectories, write_dataset
from feedbackgen.errors import DataError, OutputExists, TaskError
from feedbackgen.interop.dsrl import export_dsrl, import_dsrl
from feedbackgen.interop.foreign import ForeignTask, resolve_task
from feedbackgen.tasks import TASKS

FILE = "SafetyPointCircle1Gymnasium-v0-200-1098.hdf5"


def test_import_and_export_give_the_same_arrays(tmp_path):
    arrays = dsrl_arrays()
    imported = import_dsrl(write_hdf5(tmp_path / FILE, arrays))
    out = export_dsrl(imported.info.dataset_id, tmp_path / "out.hdf5")
    with h5py.File(out) as file:
        assert set(file) == set(DSRL_KEYS) and not file.attrs
        for name, values in arrays.items():
            assert file[name].dtype == values.dtype and file[name].compression == "gzip"
            np.testing.assert_array_equal(file[name][()], values, err_msg=name)


def test_dsrls_own_reader_finds_our_trajectories(tmp_path):
    make_dataset()
    data = read_as_dsrl(export_dsrl(DATASET, tmp_path / "out.hdf5"), 28, 2)
    assert data["terminals"].dtype == data["timeouts"].dtype == bool
    returns, costs, _ = episode_returns(DATASET)
    np.testing.assert_allclose(dsrl_returns(data), np.stack([returns, costs], axis=1), rtol=1e-5)
    first = make_episode(0)
    np.testing.assert_array_equal(data["next_observations"][39], first.observations[-1].astype(np.float32))


def test_an_episode_without_a_flag_at_its_end_is_ended_by_a_timeout(tmp_path):
    episode = make_episode(0)
    write_dataset(DATASET, [replace(episode, truncations=episode.terminations)], task="SafetyPointCircle1-v0")
    data = read_as_dsrl(export_dsrl(DATASET, tmp_path / "out.hdf5"), 28, 2)
    assert data["timeouts"].tolist() == [False] * 39 + [True]


def test_the_extremes_are_those_that_dsrl_normalises_by(tmp_path):
    arrays = dsrl_arrays()
    info = import_dsrl(write_hdf5(tmp_path / FILE, arrays)).info
    returns = [value for value, _ in dsrl_returns(arrays)]
    assert info.return_min == pytest.approx(min(returns), rel=1e-6)
    assert info.return_max == pytest.approx(max(returns), rel=1e-6)
    assert info.source == {"format": "dsrl", "file": FILE}
    assert load_trajectories(info.dataset_id, with_rewards=True).policies == ("dsrl",) * 3


def test_there_are_38_names_and_the_registry_agrees_with_those_it_knows():
    assert len(DSRL) == 38 and sum(entry.n_episodes for entry in DSRL.values()) == 76_093
    files = {entry.file: entry for entry in DSRL.values()}
    known = [task for task in TASKS.values() if task.dsrl is not None]
    assert len(known) >= 21
    for task in known:
        entry = files[task.dsrl.file]
        assert (entry.task, entry.horizon) == (task.name, task.horizon)
        assert (entry.return_min, entry.return_max, entry.cost_max, entry.n_episodes) == (
            task.dsrl.return_min, task.dsrl.return_max, task.dsrl.cost_max, task.dsrl.n_episodes,
        )  # fmt: skip


@pytest.mark.parametrize("short", DSRL)
def test_every_name_is_imported_and_dropped_in_under_it(tmp_path, monkeypatch, short):
    monkeypatch.setenv("DSRL_DATASET_DIR", str(tmp_path / "dsrl"))
    entry = DSRL[short]
    task = TASKS.get(entry.task)
    observation_dim, action_dim = (task.observation_dim, task.action_dim) if task else (9, 3)
    arrays = dsrl_arrays(observation_dim=observation_dim, action_dim=action_dim)
    imported = import_dsrl(write_hdf5(tmp_path / entry.file, arrays))
    assert imported.info.task == entry.task and imported.info.horizon == entry.horizon
    assert imported.info.environment == entry.environment
    assert imported.info.cost_limit in (25.0, *entry.cost_limits)
    assert imported.notes == (f"3 trajectories; DSRL's own file of that name has {entry.n_episodes}",)
    assert export_dsrl(imported.info.dataset_id) == tmp_path / "dsrl" / entry.file
    assert export_dsrl(imported.info.dataset_id, tmp_path / "dsrl", force=True).name == entry.file


def test_a_task_of_ones_own_needs_a_horizon_and_gets_a_file_name_by_dsrls_rule(tmp_path):
    file = write_hdf5(tmp_path / "mine.hdf5", dsrl_arrays(observation_dim=5))
    with pytest.raises(DataError, match=r"mine.hdf5: its name is none of DSRL's 38; say .* with --task NAME"):
        import_dsrl(file)
    with pytest.raises(TaskError, match=r"unknown task 'SafetyMine1-v0'; .*task of your own needs --horizon STEPS"):
        import_dsrl(file, ForeignTask(name="SafetyMine1-v0"))
    info = import_dsrl(file, ForeignTask(name="SafetyMine1-v0", horizon=5, cost_limit=2)).info
    assert (info.task, info.horizon, info.cost_limit, info.observation_dim) == ("SafetyMine1-v0", 5, 2.0, 5)
    assert info.dataset_id == "dsrl/SafetyMine1-v0/mine-v0" and info.action_high == (1.0, 1.0)
    out = export_dsrl(info.dataset_id, tmp_path)
    assert out.name == f"SafetyMine1-v0-{int(info.cost_max)}-3.hdf5"


def test_a_name_that_is_nearly_right_is_named():
    with pytest.raises(TaskError, match=r"unknown task 'PointGaol1'; did you mean PointGoal1"):
        resolve_task(ForeignTask(name="PointGaol1"), observation_dim=60, action_dim=2, place="x.hdf5")


@pytest.mark.parametrize(("option", "value"), [("horizon", 0), ("cost_limit", -1.0), ("cost_limit", np.inf)])
def test_a_horizon_or_limit_out_of_range_is_refused(option, value):
    with pytest.raises(TaskError, match=f"--{option.replace('_', '-')}: expected"):
        ForeignTask(name="mine", **{option: value})


def test_data_of_another_task_is_refused(tmp_path):
    file = write_hdf5(tmp_path / FILE, dsrl_arrays(observation_dim=27))
    with pytest.raises(
        DataError, match=r"observations: SafetyPointCircle1-v0 has 28 numbers a step, got 27; name anot"
    ):
        import_dsrl(file)
    assert list_datasets() == []


def test_a_tail_without_a_flag_is_refused_or_left_out(tmp_path):
    arrays = dsrl_arrays()
    arrays["timeouts"][-1] = False
    file = write_hdf5(tmp_path / FILE, arrays)
    with pytest.raises(DataError, match=r"the last 4 steps end without terminals or timeouts; .* --drop-tail"):
        import_dsrl(file)
    assert list_datasets() == []
    imported = import_dsrl(file, drop_tail=True)
    assert imported.info.n_steps == 8 and "left out: 4 steps after the last flag" in imported.notes


def test_a_file_without_any_flag_is_refused(tmp_path):
    arrays = dsrl_arrays() | {"timeouts": np.zeros(12, bool), "terminals": np.zeros(12, bool)}
    with pytest.raises(DataError, match="terminals or timeouts end no trajectory"):
        import_dsrl(write_hdf5(tmp_path / FILE, arrays), drop_tail=True)


def test_numbers_in_columns_are_squeezed_as_dsrls_reader_does(tmp_path):
    arrays = dsrl_arrays()
    columns = {name: arrays[name][:, None] for name in ("rewards", "costs", "terminals", "timeouts")}
    info = import_dsrl(write_hdf5(tmp_path / FILE, arrays | columns)).info
    np.testing.assert_array_equal(load_trajectories(info.dataset_id, with_rewards=True).costs, arrays["costs"])


def test_flags_stored_as_numbers_are_read_by_being_one(tmp_path):
    arrays = dsrl_arrays()
    numbers = {name: arrays[name].astype(np.float32) for name in ("terminals", "timeouts")}
    info = import_dsrl(write_hdf5(tmp_path / FILE, arrays | numbers)).info
    out = read_as_dsrl(export_dsrl(info.dataset_id, tmp_path / "out.hdf5"), 28, 2)
    np.testing.assert_array_equal(out["timeouts"], arrays["timeouts"])


def test_extra_datasets_are_left_out_by_name(tmp_path):
    extra = {"infos/goal": np.zeros(3), "metadata": np.zeros(2)}
    imported = import_dsrl(write_hdf5(tmp_path / FILE, dsrl_arrays() | extra))
    assert imported.notes[0] == "left out: infos/goal, metadata"


@pytest.mark.parametrize("name", DSRL_KEYS[:5])
def test_a_value_that_is_not_finite_is_named_with_its_trajectory(tmp_path, name):
    arrays = dsrl_arrays()
    arrays[name][6] = np.nan
    with pytest.raises(DataError, match=rf"trajectory 1, {name}: expected finite values, got nan"):
        import_dsrl(write_hdf5(tmp_path / FILE, arrays))
    assert list_datasets() == []


def test_costs_that_are_nan_throughout_are_refused_too(tmp_path):
    arrays = dsrl_arrays() | {"costs": np.full(12, np.nan, np.float32)}
    with pytest.raises(DataError, match=r"trajectory 0, costs: expected finite values, got nan"):
        import_dsrl(write_hdf5(tmp_path / FILE, arrays))


def test_flags_other_than_zero_and_one_are_refused(tmp_path):
    arrays = dsrl_arrays()
    arrays["terminals"] = arrays["terminals"] * 2
    with pytest.raises(DataError, match=r"terminals: expected 0 or 1, got 2 at step 7"):
        import_dsrl(write_hdf5(tmp_path / FILE, arrays))


def test_next_observations_that_break_off_are_refused(tmp_path):
    arrays = dsrl_arrays()
    arrays["next_observations"][5] += 1
    with pytest.raises(
        DataError, match=r"trajectory 1, next_observations: those of step 0 are not the observations of step 1"
    ):
        import_dsrl(write_hdf5(tmp_path / FILE, arrays))


@pytest.mark.parametrize("name", DSRL_KEYS)
def test_a_missing_key_or_a_wrong_shape_is_named(tmp_path, name):
    arrays = dsrl_arrays()
    with pytest.raises(DataError, match=rf"no {name}; a DSRL file holds observations, next_observations"):
        import_dsrl(write_hdf5(tmp_path / FILE, {key: values for key, values in arrays.items() if key != name}))
    with pytest.raises(DataError, match=rf"{name}: expected shape|observations: expected shape"):
        import_dsrl(write_hdf5(tmp_path / FILE, arrays | {name: arrays[name][:-1]}))


def test_an_absent_or_truncated_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent.hdf5: no such file"):
        import_dsrl(tmp_path / "absent.hdf5")
    file = write_hdf5(tmp_path / FILE, dsrl_arrays(lengths=(500, 500)))
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"not a readable HDF5 file .*was the download cut short\?"):
        import_dsrl(file)


def test_nothing_is_overwritten_without_force(tmp_path):
    file = write_hdf5(tmp_path / FILE, dsrl_arrays())
    info = import_dsrl(file).info
    with pytest.raises(OutputExists, match="exists; use --force"):
        import_dsrl(file)
    with pytest.raises(OutputExists, match="exists; use --force"):
        export_dsrl(info.dataset_id, file)
    assert import_dsrl(file, force=True).info == info
    assert export_dsrl(info.dataset_id, file, force=True) == file


def test_a_chunk_that_is_damaged_is_named(tmp_path):
    file = write_hdf5(tmp_path / FILE, dsrl_arrays(lengths=(500, 500)))
    with h5py.File(file) as source:
        chunk = source["actions"].id.get_chunk_info(0)
    content = bytearray(file.read_bytes())
    content[chunk.byte_offset + 20 : chunk.byte_offset + 60] = b"\0" * 40
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"trajectory \d, actions: damaged .*was the download cut short"):
        import_dsrl(file)
    assert list_datasets() == []


def test_a_dataset_without_costs_is_refused_and_nothing_written(tmp_path):
    episode = make_episode(0)
    nothing = np.full(episode.n_steps, np.nan)
    write_dataset(DATASET, [replace(episode, costs=nothing, cost_terms={})], task="SafetyPointCircle1-v0")
    with pytest.raises(DataError, match="DSRL's layout needs costs, and it was imported without"):
        export_dsrl(DATASET, tmp_path / "out.hdf5")
    assert not (tmp_path / "out.hdf5").exists()
