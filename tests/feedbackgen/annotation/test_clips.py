import asyncio
from dataclasses import replace

import numpy as np
import pytest
from samples import DATASET, make_dataset

from feedbackgen.annotation.clips import Clip, ClipRoom, Studio, clips_root, parse_segment, render_segment
from feedbackgen.collect import collect
from feedbackgen.episodes import dataset_info, iterate_episodes, write_dataset
from feedbackgen.errors import DataError, OutputExists, RecipeError
from feedbackgen.recipe import Recipe, mixture

NAVIGATION, VELOCITY, BULLET = "SafetyPointCircle1-v0", "SafetyHopperVelocity-v1", "SafetyCarRun-v0"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def collected(task, *, states=False, n_steps=12):
    recipe = Recipe(
        task=task, policies=mixture(["random"]), n_episodes=2, max_episode_steps=n_steps, record_states=states
    )
    return collect(recipe)


def clip_of(info, **options):
    own = {
        "dataset": info.dataset_id,
        "fingerprint": info.fingerprint,
        "episode": 1,
        "start": 3,
        "length": 5,
        "size": 64,
    }
    return Clip(**(own | options))


def frames_of(info, **options):
    studio = Studio()
    try:
        return np.array(list(studio.frames(clip_of(info, **options))))
    finally:
        studio.close()


@pytest.mark.simulator
@pytest.mark.parametrize("task", [NAVIGATION, VELOCITY])
def test_a_replay_reproduces_every_observation_and_shows_what_the_recorded_states_show(task):
    info = collected(task, states=True)
    from_states = frames_of(info)
    without = [replace(episode, states=None) for episode in iterate_episodes(info.dataset_id)]
    replayed = frames_of(write_dataset(f"feedbackgen/{task}/replayed-v0", without, task=task))
    assert from_states.shape == (6, 64, 64, 3) and from_states.dtype == np.uint8
    assert (from_states[0] != from_states[-1]).any()
    # Upstream's velocity tasks leave bodies where they were a sub-step ago, which one does not see.
    difference = np.abs(from_states.astype(float) - replayed)
    assert difference.mean() < 3 if task == VELOCITY else difference.max() == 0


@pytest.mark.simulator
def test_a_replay_of_bullet_reproduces_every_observation_and_draws_the_same_without_opengl(monkeypatch):
    # Drawn while nothing else can draw; a replay that gives another observation would be refused.
    monkeypatch.setattr("feedbackgen.environments.gl.BACKENDS", ())
    monkeypatch.delenv("MUJOCO_GL")
    info = collected(BULLET)
    once, again = frames_of(info), frames_of(info)
    assert once.shape == (6, 64, 64, 3)
    np.testing.assert_array_equal(once, again)
    assert (once[0] != once[-1]).any()


@pytest.mark.simulator
@pytest.mark.parametrize("task", [NAVIGATION, VELOCITY, BULLET])
def test_a_replay_that_differs_in_the_last_bit_of_one_observation_is_refused(task):
    info = collected(task)
    episodes = list(iterate_episodes(info.dataset_id))
    observations = episodes[1].observations.copy()
    observations[6, 0] = np.nextafter(observations[6, 0], np.inf)
    episodes[1] = replace(episodes[1], observations=observations)
    changed = write_dataset(f"feedbackgen/{task}/changed-v0", episodes, task=task)
    with pytest.raises(
        DataError, match=r"episode 1: a replay gives another observation at step 6 than was recorded, so"
    ):
        frames_of(changed)
    assert len(frames_of(changed, start=0, length=5)) == 6  # up to there all is as recorded


@pytest.mark.simulator
def test_an_episode_without_states_and_seed_cannot_be_shown():
    info = collected(NAVIGATION)
    episodes = [replace(episode, seed=-1) for episode in iterate_episodes(info.dataset_id)]
    nameless = write_dataset(f"feedbackgen/{NAVIGATION}/nameless-v0", episodes, task=NAVIGATION)
    with pytest.raises(DataError, match="episode 1: neither states nor a reset seed were recorded"):
        frames_of(nameless)


@pytest.mark.simulator
def test_a_film_has_a_frame_before_each_step_and_one_after_the_last(tmp_path):
    imageio = pytest.importorskip("imageio.v2")
    info = collected(NAVIGATION)
    path = render_segment(info.dataset_id, "1:2:8", tmp_path / "film.mp4", size=64)
    with imageio.get_reader(path) as film:
        assert sum(1 for _ in film) == 9
    with pytest.raises(OutputExists, match="exists; use --force"):
        render_segment(info.dataset_id, "1:2:8", path)


@pytest.mark.simulator
@pytest.mark.slow
def test_a_room_renders_in_a_process_of_its_own_and_keeps_what_it_rendered():
    info = collected(NAVIGATION)
    room = ClipRoom(info.dataset_id, 5, size=64, ahead=[(0, 0)])
    try:
        room.expect([(1, 2)])
        first = asyncio.run(room.clip(1, 3))
        assert first[4:8] == b"ftyp"
        assert asyncio.run(room.clip(1, 3)) == first
        asyncio.run(room.clip(1, 2))
        asyncio.run(room.clip(0, 0))
        assert len(list(clips_root().rglob("*.mp4"))) == 3
        with pytest.raises(DataError, match="has 12 steps; expected at least 14"):
            asyncio.run(room.clip(1, 9))
        [process] = room._pool._processes.values()
        process.kill()
        process.join()
        with pytest.raises(OSError, match="the process that renders clips died; it is started again"):
            asyncio.run(room.clip(0, 4))
        assert asyncio.run(room.clip(0, 4))[4:8] == b"ftyp"
    finally:
        room.close()
    again = ClipRoom(info.dataset_id, 5, size=64)
    assert asyncio.run(again.clip(1, 3)) == first
    assert again._pool is None  # nothing was rendered
    again.close()


def test_the_key_goes_by_content_and_not_by_place():
    clip = clip_of(make_dataset())
    assert replace(clip, dataset="elsewhere").key == clip.key
    for change in ({"fingerprint": "0"}, {"episode": 2}, {"start": 4}, {"length": 6}, {"size": 66}):
        assert replace(clip, **change).key != clip.key


@pytest.mark.parametrize("text", ["", "1", "1:2", "1:2:3:4", "a:b:c", "-1:0:5", "1:2:0", "1:2:٣", "../1:2:3"])
def test_a_segment_that_is_none_is_refused(text):
    with pytest.raises(RecipeError, match="expected EPISODE:START:LENGTH, for example 3:120:64"):
        parse_segment(text)


@pytest.mark.parametrize("size", [0, 62, 65, 4000])
def test_a_size_that_no_encoder_takes_is_refused(size):
    with pytest.raises(RecipeError, match=f"--size: expected an even number from 64 to 1080 pixels, got {size}"):
        clip_of(make_dataset(), size=size)


def test_a_segment_outside_the_dataset_is_refused(tmp_path):
    make_dataset()
    for segment, message in (
        ("99:0:5", "no episode 99; expected one of 0 to 11"),
        ("0:38:5", "has 40 steps; expected at"),
    ):
        with pytest.raises(DataError, match=message):
            render_segment(DATASET, segment, tmp_path / "film.mp4")
    assert list(tmp_path.glob("*.mp4")) == [] and list(tmp_path.glob(".*.mp4")) == []
    assert dataset_info(DATASET).n_episodes == 12
