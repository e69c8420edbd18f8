"""Episodes to Minari and back."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import h5py
import minari
import numpy as np
import pytest
from samples import DATASET, TASK, make_dataset, make_episode

from feedbackgen.episodes import (
    content_fingerprint,
    dataset_info,
    episode_returns,
    iterate_episodes,
    list_datasets,
    load_outcomes,
    load_trajectories,
    write_dataset,
)
from feedbackgen.errors import DataError, OutputExists, StoreError


def test_what_was_written_comes_back_from_minaris_own_reader():
    make_dataset()
    dataset = minari.load_dataset(DATASET)
    assert dataset.total_episodes == 12 and dataset.total_steps == 480
    for index, episode in enumerate(dataset.iterate_episodes()):
        original = make_episode(index, unsafe=index % 2 == 1)
        np.testing.assert_array_equal(episode.observations, original.observations)
        np.testing.assert_array_equal(episode.actions, original.actions)
        np.testing.assert_array_equal(episode.rewards, original.rewards)
        np.testing.assert_array_equal(episode.truncations, original.truncations)


def test_the_cost_of_step_t_stands_at_t_plus_one_behind_a_leading_zero():
    make_dataset()
    episode = next(minari.load_dataset(DATASET).iterate_episodes(episode_indices=[1]))
    original = make_episode(1, unsafe=True)
    for name in ("cost", "cost_out_of_boundary"):
        assert episode.infos[name].shape == (original.n_steps + 1,)
        assert episode.infos[name].dtype == np.float64
        assert episode.infos[name][0] == 0.0
        np.testing.assert_array_equal(episode.infos[name][1:], original.costs)


def test_minaris_command_line_lists_and_shows_the_dataset():
    make_dataset()
    command = [sys.executable, "-c", "from minari.cli import app; app()"]
    for arguments in (["list", "local"], ["show", DATASET]):
        result = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}
        )
        assert result.returncode == 0, result.stderr
        assert "small-v0" in result.stdout


def test_flat_memory_holds_every_step_in_order_and_its_final_observations():
    make_dataset()
    flat = load_trajectories(DATASET, with_rewards=True)
    assert flat.n_episodes == 12 and flat.n_steps == 480
    third = make_episode(3, unsafe=True)
    steps = slice(flat.starts[3], flat.starts[4])
    np.testing.assert_array_equal(flat.observations[steps], third.observations[:-1])
    np.testing.assert_array_equal(flat.final_observations[3], third.observations[-1])
    np.testing.assert_array_equal(flat.costs[steps], third.costs)
    assert flat.policies[3] == "fast"


def test_a_learner_gets_neither_rewards_nor_costs_nor_policies():
    make_dataset()
    flat = load_trajectories(DATASET, with_rewards=False)
    assert flat.rewards is None and flat.costs is None and flat.policies is None


def test_a_teacher_reads_rewards_and_costs_alone():
    info = make_dataset()
    flat = load_trajectories(DATASET, with_rewards=True)
    with h5py.File(info.path / "data/main_data.hdf5", "a") as file:
        for index in range(info.n_episodes):
            del file[f"episode_{index}/observations"], file[f"episode_{index}/actions"]
    outcomes = load_outcomes(DATASET)
    for name in ("rewards", "costs", "starts"):
        np.testing.assert_array_equal(getattr(outcomes, name), getattr(flat, name))


def test_returns_and_costs_come_from_the_attributes():
    make_dataset()
    returns, costs, policies = episode_returns(DATASET)
    assert returns[1] == pytest.approx(make_episode(1, unsafe=True).return_)
    assert costs[0] == 0.0 and costs[1] == make_episode(1, unsafe=True).cost_return
    assert policies[:2] == ("slow", "fast")


def test_the_same_episodes_give_the_same_bytes():
    first, second = make_dataset(), make_dataset(dataset_id=DATASET.replace("small", "again"))
    hashes = {hashlib.sha256((info.path / "data/main_data.hdf5").read_bytes()).hexdigest() for info in (first, second)}
    assert len(hashes) == 1
    assert first.fingerprint == second.fingerprint


def test_the_fingerprint_changes_with_a_single_number():
    episode = make_episode(0)
    changed = replace(episode, rewards=episode.rewards + np.eye(1, episode.n_steps)[0] * 1e-12)
    infos = [write_dataset(f"test/{name}-v0", [one], task=TASK) for name, one in (("a", episode), ("b", changed))]
    assert infos[0].fingerprint != infos[1].fingerprint


def test_the_metadata_says_what_the_returns_and_costs_were():
    info = make_dataset()
    returns, costs, _ = episode_returns(DATASET)
    assert (info.return_min, info.return_max, info.cost_max) == (returns.min(), returns.max(), costs.max())
    assert info.cost_limit == 25.0 and info.horizon == 500
    assert info.versions["numpy"] == np.__version__


def test_a_dataset_that_exists_is_left_alone_without_force():
    make_dataset()
    with pytest.raises(OutputExists, match=r"small-v0 exists; use --force"):
        make_dataset()
    assert make_dataset(n_episodes=4, force=True).n_episodes == 4


def test_an_episode_that_fails_leaves_nothing_under_the_name(datasets):
    def broken():
        yield make_episode(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(DATASET, broken(), task=TASK)
    assert list_datasets() == []
    assert not (datasets / DATASET).exists()
    assert not list((datasets / DATASET).parent.glob(".*"))


def test_a_full_disk_is_one_line_and_leaves_nothing(datasets, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("feedbackgen.episodes._write_episode", full)
    with pytest.raises(StoreError, match=r"cannot write .*small-v0: No space left on device; nothing was left"):
        make_dataset()
    assert list_datasets() == []


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"cannot write .*small-v0: Not a directory"):
        make_dataset()


def test_an_absent_dataset_is_named_with_its_nearest():
    make_dataset()
    with pytest.raises(DataError, match=r"dataset .*smal-v0: not found under .*; did you mean .*small-v0\?"):
        dataset_info(DATASET.replace("small", "smal"))


def test_a_truncated_file_is_named():
    file = make_dataset().path / "data" / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match=r"main_data.hdf5: absent, truncated or damaged .* collect the dataset again"):
        load_trajectories(DATASET, with_rewards=True)


def test_another_format_version_is_refused():
    file = make_dataset().path / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata["fbgen"]["format_version"] = 2
    file.write_text(json.dumps(metadata))
    with pytest.raises(DataError, match="format version 2, this release reads 1"):
        dataset_info(DATASET)


def test_plain_minari_data_says_how_to_get_ours():
    file = make_dataset().path / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    del metadata["fbgen"]
    file.write_text(json.dumps(metadata))
    with pytest.raises(DataError, match="plain Minari without feedbackgen's metadata"):
        dataset_info(DATASET)


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "infos/cost"])
def test_a_value_that_is_not_finite_is_named_with_its_place(name):
    info = make_dataset()
    with h5py.File(info.path / "data/main_data.hdf5", "a") as file:
        values = file[f"episode_2/{name}"]
        values[5] = np.nan
    with pytest.raises(DataError, match=rf"episode 2, {name}: expected finite values, got nan at index \(5"):
        load_trajectories(DATASET, with_rewards=True)


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "infos/cost"])
def test_an_array_of_a_wrong_shape_is_named(name):
    info = make_dataset()
    with h5py.File(info.path / "data/main_data.hdf5", "a") as file:
        values = file[f"episode_2/{name}"][()]
        del file[f"episode_2/{name}"]
        file[f"episode_2/{name}"] = values[:-1]
    with pytest.raises(DataError, match=rf"episode 2, {name}: expected shape .*, got"):
        load_trajectories(DATASET, with_rewards=True)


def test_missing_costs_are_named():
    info = make_dataset()
    with h5py.File(info.path / "data/main_data.hdf5", "a") as file:
        del file["episode_0/infos/cost"]
    for load in (load_outcomes, partial(load_trajectories, with_rewards=True)):
        with pytest.raises(DataError, match="episode 0: no infos/cost"):
            load(DATASET)


def test_fewer_episodes_than_the_metadata_names_are_refused():
    info = make_dataset()
    with h5py.File(info.path / "data/main_data.hdf5", "a") as file:
        del file["episode_11"]
    for load in (load_outcomes, partial(load_trajectories, with_rewards=True)):
        with pytest.raises(DataError, match="metadata names 12 episodes, the file holds 11"):
            load(DATASET)


def test_an_episode_of_fewer_steps_than_the_metadata_names_is_refused():
    file = make_dataset().path / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    for n_steps, message in ((481, "metadata names 481 steps, the file holds 480"), (479, "episode 11: more steps")):
        file.write_text(json.dumps(metadata | {"total_steps": n_steps}))
        for load in (load_outcomes, partial(load_trajectories, with_rewards=True)):
            with pytest.raises(DataError, match=message):
                load(DATASET)


def test_an_id_that_minari_would_refuse_is_refused_before_writing():
    with pytest.raises(DataError, match=r"dataset id 'noise0\.1-v0': expected"):
        make_dataset(dataset_id="noise0.1-v0")


def test_observations_of_another_task_are_refused():
    with pytest.raises(DataError, match="episode 0, observations: expected 40 values a step, got 28"):
        write_dataset(DATASET, [make_episode(0)], task="SafetyCarCircle1-v0")


def test_no_episode_at_all_is_refused():
    with pytest.raises(DataError, match="expected at least one episode, got none"):
        write_dataset(DATASET, [], task=TASK)


def test_episodes_come_back_whole_and_give_the_stated_fingerprint():
    states = np.arange(41.0 * 3).reshape(41, 3)
    written = [replace(make_episode(0), states=states), make_episode(1, unsafe=True)]
    info = write_dataset(DATASET, written, task=TASK)
    for before, after in zip(written, iterate_episodes(DATASET), strict=True):
        assert after.cost_terms.keys() == before.cost_terms.keys()
        np.testing.assert_array_equal(after.observations, before.observations)
        np.testing.assert_array_equal(after.costs, before.costs)
        assert (after.seed, after.policy, after.states is None) == (before.seed, before.policy, before.states is None)
    np.testing.assert_array_equal(next(iterate_episodes(DATASET)).states, states)
    assert content_fingerprint(DATASET) == info.fingerprint


WRITE = r"""
import re
import numpy as np
from feedbackgen.episodes import write_dataset
from feedbackgen.types import Episode

def peak():
    return int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1]) / 1024

def episodes():
    for index in range(220):
        if index == 20:
            print(peak())
        yield Episode(
            observations=np.random.rand(1001, 60), actions=np.random.rand(1000, 2), rewards=np.zeros(1000),
            costs=np.zeros(1000), terminations=np.zeros(1000, bool), truncations=np.arange(1000) == 999, seed=index,
            policy="random", states=np.random.rand(1001, 60),
        )

info = write_dataset("long-v0", episodes(), task="SafetyPointGoal1-v0")
print(peak(), sum(path.stat().st_size for path in info.path.rglob("*.hdf5")) / 2**20)
"""


def test_a_writers_memory_does_not_grow_with_the_dataset():
    result = subprocess.run([sys.executable, "-c", WRITE], capture_output=True, text=True, check=True)
    early, late, size = map(float, result.stdout.split())
    assert size > 200  # MiB
    assert late - early < 20
