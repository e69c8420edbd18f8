"""Collection: equal bytes whatever the workers and interruptions; complete or absent."""

import hashlib
import multiprocessing
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import minari
import numpy as np
import pytest

from feedbackgen import collect as collect_module
from feedbackgen import jobs as jobs_module
from feedbackgen.behaviour import load_policy
from feedbackgen.collect import collect
from feedbackgen.environments import make_env
from feedbackgen.episodes import list_datasets, load_trajectories
from feedbackgen.errors import DataError, OutputExists, PolicyError
from feedbackgen.recipe import Recipe
from feedbackgen.rollout import rollout
from feedbackgen.seeding import derived_seed, stream

pytestmark = pytest.mark.simulator

RECIPE = Recipe(
    task="SafetyPointCircle1-v0", policies={"expert": 0.4, "random": 0.6}, n_episodes=5, seed=3, name="test"
)


def file_hash(info) -> str:
    return hashlib.sha256((info.path / "data/main_data.hdf5").read_bytes()).hexdigest()


def test_two_workers_write_the_bytes_of_one(tmp_path):
    serial = collect(RECIPE, root=tmp_path / "serial")
    parallel = collect(RECIPE, root=tmp_path / "parallel", workers=2)
    assert file_hash(serial) == file_hash(parallel)
    metadata = [(info.path / "data/metadata.json").read_text() for info in (serial, parallel)]
    assert metadata[0] == metadata[1]


@pytest.mark.parametrize("task", ["SafetyDoggoGoal2-v0", "SafetyRacecarPush2-v0"])
def test_a_worker_needs_less_than_150_mb(task):
    peaks = []

    def read_peaks(done, total):
        for worker in multiprocessing.active_children():
            # A process that starts or ends has no memory to tell of, and soon no file either: the pool
            # may reap a worker between the listing and the reading.
            with suppress(FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/{worker.pid}/status").read_text()
                peaks.extend(int(peak) for peak in re.findall(r"VmHWM:\s+(\d+) kB", status))

    short = replace(RECIPE, task=task, policies={"random": 1.0}, n_episodes=32, max_episode_steps=10)
    collect(short, workers=2, progress=read_peaks)
    assert 30_000 < max(peaks) < 150_000  # numpy and MuJoCo alone take more than the first


def test_an_episode_is_the_rollout_of_its_own_seed_and_stream():
    info = collect(RECIPE)
    flat = load_trajectories(info.path, with_rewards=True)
    env = make_env(RECIPE.task)
    alone = rollout(
        env,
        load_policy(RECIPE.task, "expert"),
        seed=derived_seed(3, "reset", "expert", 1, 0),
        rng=stream(3, "rollout", "expert", 1, 0),
    )
    steps = slice(flat.starts[1], flat.starts[2])
    np.testing.assert_array_equal(flat.observations[steps], alone.observations[:-1])
    np.testing.assert_array_equal(flat.actions[steps], alone.actions)
    assert flat.policies == ("expert", "expert", "random", "random", "random")


def test_replaying_the_stored_actions_gives_the_stored_observations_rewards_and_costs():
    collect(RECIPE)
    dataset = minari.load_dataset(RECIPE.dataset_id)
    episode = next(dataset.iterate_episodes(episode_indices=[0]))
    env = dataset.recover_environment()
    observation, _ = env.reset(seed=int(next(iter(dataset.storage.get_episode_metadata([0])))["seed"]))
    np.testing.assert_array_equal(observation, episode.observations[0])
    for step in range(50):
        observation, reward, _, _, info = env.step(episode.actions[step])
        np.testing.assert_array_equal(observation, episode.observations[step + 1])
        assert reward == episode.rewards[step]
        assert info["cost"] == episode.infos["cost"][step + 1]


def test_a_resumed_run_ends_with_the_bytes_of_an_undisturbed_one(tmp_path):
    undisturbed = collect(RECIPE, root=tmp_path / "undisturbed")

    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(RECIPE, root=tmp_path / "resumed", progress=interrupt)
    assert not (tmp_path / "resumed" / RECIPE.dataset_id).exists()
    seen = []
    resumed = collect(RECIPE, root=tmp_path / "resumed", resume=True, progress=lambda done, total: seen.append(done))
    assert seen[0] == 2
    assert file_hash(resumed) == file_hash(undisturbed)
    assert not list(resumed.path.parent.glob(".*"))


def test_an_episode_above_the_cost_cap_is_drawn_again():
    info = collect(replace(RECIPE, policies={"medium": 1.0}, n_episodes=6, cost_cap=200.0))
    assert (
        info.cost_max <= 200.0 < collect(replace(RECIPE, policies={"medium": 1.0}, n_episodes=6), force=True).cost_max
    )


def test_a_cap_that_no_episode_meets_is_one_line(monkeypatch):
    monkeypatch.setattr(jobs_module, "MAX_DRAWS", 2)
    with pytest.raises(DataError, match="policy poor: 2 episodes in a row cost more than cost_cap 1; raise the cap"):
        collect(replace(RECIPE, policies={"poor": 1.0}, n_episodes=1, cost_cap=1.0))


def test_recorded_states_put_the_simulator_back_exactly():
    info = collect(replace(RECIPE, policies={"expert": 1.0}, n_episodes=1, record_states=True))
    episode = next(minari.load_dataset(info.dataset_id).iterate_episodes())
    env = make_env(RECIPE.task)
    env.reset(seed=0)
    for step in (0, 17, 200):
        env.set_state(episode.infos["state"][step])
        observation, reward, cost, *_ = env.step(episode.actions[step])
        np.testing.assert_array_equal(observation, episode.observations[step + 1])
        assert (reward, cost) == (episode.rewards[step], episode.infos["cost"][step + 1])


def test_an_unknown_policy_is_refused_before_anything_is_written(datasets):
    with pytest.raises(PolicyError, match="unknown policy 'expret'"):
        collect(replace(RECIPE, policies={"expret": 1.0}))
    assert not datasets.exists()


def test_a_second_writer_is_refused(datasets):
    partial = (datasets / RECIPE.dataset_id).with_name(".test-v0.partial")
    with (
        collect_module._only_writer(partial),
        pytest.raises(OutputExists, match="another fbgen collect is writing this dataset"),
    ):
        collect(RECIPE)
    assert list_datasets() == []


def test_another_recipes_episodes_are_not_resumed(datasets):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(RECIPE, progress=interrupt)
    with pytest.raises(OutputExists, match="holds episodes of another recipe"):
        collect(replace(RECIPE, seed=4), resume=True)
