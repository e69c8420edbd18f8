"""Recipes run again give the same bytes, trajectories and labels alike."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from samples import DATASET, TASK, make_dataset

from feedbackgen import arithmetic
from feedbackgen.collect import collect
from feedbackgen.errors import DataError
from feedbackgen.label import LabelConfig, label
from feedbackgen.recipe import RECIPE_FOLDERS, Recipe, load_recipe
from feedbackgen.sharing.catalogue import combine
from feedbackgen.sharing.rebuild import rebuild
from feedbackgen.sharing.transfer import publish, pull

RECIPES = sorted({path.parent.name for folder in RECIPE_FOLDERS for path in folder.glob("*/recipe.toml")})
SHORT = Recipe(task=TASK, policies={"expert": 0.5, "safe-expert": 0.5}, n_episodes=6, max_episode_steps=300, name="a")


@pytest.mark.simulator
def test_a_pulled_bundle_is_built_again(tmp_path, monkeypatch):
    info = collect(SHORT)
    label(info.path, LabelConfig(n_pairs=150, segment_length=10, beta=float("inf"), noise=0.2))
    there = publish(info.dataset_id, str(tmp_path / "published")).place
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "elsewhere"))
    pulled = Path(pull([there]).place)
    results = rebuild(pulled)
    assert [(result.part, result.equal) for result in results] == [("trajectories", True), ("feedback default", True)]
    with h5py.File(pulled / "data" / "main_data.hdf5", "r+") as file:
        file["episode_0/rewards"][0] += 1
    first = rebuild(pulled)[0]
    assert not first.equal and first.detail.endswith("on a processor of another kind, or changed since?")
    monkeypatch.setattr(arithmetic, "came_too_late", lambda: True)
    assert "numpy was imported before feedbackgen" in rebuild(pulled)[0].detail
    metadata = pulled / "data" / "metadata.json"
    content = json.loads(metadata.read_text())
    content["fbgen"]["versions"]["mujoco"] = "2.3.3"
    metadata.write_text(json.dumps(content))
    first = rebuild(pulled)[0]
    assert not first.equal and "built again" in first.detail and "mujoco 2.3.3 here" in first.detail


@pytest.mark.simulator
def test_a_combination_is_built_again():
    parts = [collect(SHORT), collect(replace(SHORT, name="b", seed=1))]
    info = combine([part.dataset_id for part in parts], f"feedbackgen/{TASK}/both-v0")
    assert [result.equal for result in rebuild(info.dataset_id)] == [True]


def test_without_a_recipe_nothing_can_be_built_again():
    make_dataset()
    with pytest.raises(DataError, match="holds no recipe, so it cannot be built again"):
        rebuild(DATASET)


@pytest.mark.simulator
@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_that_ships_gives_equal_bytes(name):
    info = collect(replace(load_recipe(name), n_episodes=6, max_episode_steps=150))
    assert [result.equal for result in rebuild(info.dataset_id)] == [True]
