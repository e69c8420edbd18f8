"""A replay is the stored episode, bit by bit, or it is refused with the step and the difference."""

import json
from dataclasses import replace as changed

import h5py
import numpy as np
import pytest

from feedbackgen import replay as replay_module
from feedbackgen.collect import collect
from feedbackgen.environments import make_env
from feedbackgen.episodes import load_episode
from feedbackgen.errors import DataError, OutputExists
from feedbackgen.recipe import Recipe
from feedbackgen.replay import replay

pytestmark = pytest.mark.simulator

RECIPE = Recipe(
    task="SafetyPointGoal1-v0",
    policies={"random": 1.0},
    n_episodes=2,
    max_episode_steps=300,
    name="test",
    record_states=True,
)


def change(info, name, step, by):
    with h5py.File(info.path / "data/main_data.hdf5", "r+") as file:
        file[f"episode_1/{name}"][step] += by


@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize("task", ["SafetyPointButton1-v0", "SafetyRacecarGoal1-v0", "SafetyAntVelocity-v1"])
def test_an_episode_is_replayed_to_the_last_bit(task, states):
    info = collect(changed(RECIPE, task=task, record_states=states, max_episode_steps=100))
    done = replay(info.path, 1)
    stored = load_episode(info.path, 1)
    assert (done.n_steps, done.seed, done.return_) == (stored.n_steps, stored.seed, stored.return_)
    assert done.from_states is states


def test_recorded_states_put_a_simulator_back_that_went_astray():
    info = collect(changed(RECIPE, max_episode_steps=5))
    episode = load_episode(info.path, 1)
    env = make_env(RECIPE.task)
    env.reset(seed=episode.seed + 1)
    replay_module._put_back(env, episode, 3)
    np.testing.assert_array_equal(env.get_state(), episode.states[3])


def test_frames_are_drawn_at_each_recorded_state_and_the_last(monkeypatch, tmp_path):
    info = collect(changed(RECIPE, max_episode_steps=3))
    drawn = []
    monkeypatch.setattr(replay_module, "write_video", lambda frames, path: drawn.extend(frames))
    replay(info.path, 1, video=tmp_path / "episode.mp4", size=64)
    episode = load_episode(info.path, 1)
    env = make_env(RECIPE.task)
    env.reset(seed=episode.seed)
    assert len(drawn) == 4
    for frame, state in zip(drawn, episode.states, strict=True):
        env.set_state(state)
        np.testing.assert_array_equal(frame, env.render(width=64, height=64))
    env.close()


def test_a_video_is_written_once(tmp_path):
    info = collect(changed(RECIPE, max_episode_steps=5))
    video = tmp_path / "videos" / "episode.mp4"
    replay(info.path, 0, video=video, size=64)
    assert video.read_bytes()[4:8] == b"ftyp"
    with pytest.raises(OutputExists, match="use --force"):
        replay(info.path, 0, video=video, size=64)
    replay(info.path, 0, video=video, size=64, force=True)


@pytest.mark.parametrize(
    ("name", "word", "row", "step"),
    [("observations", "observation", 7, 7), ("rewards", "reward", 7, 8), ("infos/cost", "cost", 7, 7)],
)
def test_what_differs_is_named_with_its_step_and_nothing_is_written(tmp_path, name, word, row, step):
    info = collect(changed(RECIPE, max_episode_steps=20))
    change(info, name, row, 0.25)
    message = rf"episode 1: after {step} steps the {word} differs from the stored one by up to 0.25; only the versions"
    with pytest.raises(DataError, match=message):
        replay(info.path, 1, video=tmp_path / "episode.mp4", size=64)
    assert not list(tmp_path.glob("*.mp4"))
    replay(info.path, 0)


def test_other_software_is_named_where_a_replay_differs():
    info = collect(changed(RECIPE, max_episode_steps=5))
    file = info.path / "data/metadata.json"
    metadata = json.loads(file.read_text())
    metadata["fbgen"]["versions"]["mujoco"] = "3.3.6"
    file.write_text(json.dumps(metadata))
    assert replay(info.path, 1).n_steps == 5  # another version that does the same is fine
    change(info, "rewards", 0, 1.0)
    with pytest.raises(
        DataError, match=r"\(recorded with mujoco 3.3.6, here 3\.[0-9.]+\): after 1 steps the reward differs"
    ):
        replay(info.path, 1)


@pytest.mark.parametrize("index", [-1, 2])
def test_an_episode_that_is_not_there_is_refused(index):
    info = collect(changed(RECIPE, max_episode_steps=2))
    with pytest.raises(DataError, match=f"no episode {index}; expected one of 0 to 1"):
        replay(info.path, index)


def test_an_episode_without_a_seed_is_refused():
    info = collect(changed(RECIPE, max_episode_steps=2))
    with h5py.File(info.path / "data/main_data.hdf5", "r+") as file:
        del file["episode_1"].attrs["seed"]
    with pytest.raises(DataError, match="episode 1: no reset seed was recorded"):
        replay(info.path, 1)
