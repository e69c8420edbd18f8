"""Recipes, from files and from the command line."""

from dataclasses import replace

import pytest

from feedbackgen.errors import PolicyError, RecipeError, TaskError
from feedbackgen.recipe import RECIPE_FOLDERS, Recipe, episodes_per_policy, load_recipe, mixture, recipe_text

RECIPE = Recipe(task="SafetyPointCircle1-v0", policies={"expert": 0.3, "random": 0.7}, n_episodes=10, cost_cap=250.0)


def test_a_recipe_survives_its_text(tmp_path):
    (tmp_path / "recipe.toml").write_text(recipe_text(RECIPE))
    assert load_recipe(tmp_path / "recipe.toml") == RECIPE


def test_quotes_in_a_description_survive_too(tmp_path):
    recipe = replace(RECIPE, description='says "safe" \\ unsafe')
    (tmp_path / "recipe.toml").write_text(recipe_text(recipe))
    assert load_recipe(tmp_path / "recipe.toml") == recipe


def test_every_recipe_that_ships_loads():
    names = [path.parent.name for path in RECIPE_FOLDERS[0].glob("*/recipe.toml")]
    assert "SafetyPointCircle1-mixed" in names
    for name in names:
        assert load_recipe(name).n_episodes >= 100


@pytest.mark.parametrize(
    ("shares", "n_episodes", "counts"),
    [
        ((0.5, 0.5), 3, (2, 1)),
        ((0.3, 0.5, 0.2), 10, (3, 5, 2)),
        ((1 / 3, 1 / 3, 1 / 3), 10, (4, 3, 3)),
        ((0.05, 0.95), 4, (0, 4)),
    ],
)
def test_shares_become_whole_episodes_that_add_up(shares, n_episodes, counts):
    policies = {f"policy{index}": share for index, share in enumerate(shares)}
    assert tuple(episodes_per_policy(replace(RECIPE, policies=policies, n_episodes=n_episodes)).values()) == counts


def test_policies_without_shares_get_equal_ones():
    assert mixture(["a", "b"]) == {"a": 0.5, "b": 0.5}
    assert mixture(["a:0.3", "b:0.7"]) == {"a": 0.3, "b": 0.7}


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        (["a:0.3", "b"], "expected one for each policy or for none"),
        (["a", "a"], "expected each one once, got a"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(policies, message):
    with pytest.raises(RecipeError, match=message):
        mixture(policies)


def test_a_share_that_is_no_number_is_refused():
    with pytest.raises(PolicyError, match="expected NAME:SHARE"):
        mixture(["a:x"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": {"a": 0.5, "b": 0.4}}, "shares of the policies: expected a sum of 1, got 0.9"),
        ({"policies": {"a": -1.0, "b": 2.0}}, "share of a: expected a number above 0, got -1.0"),
        ({"policies": {}}, "policies: expected at least one"),
        ({"n_episodes": 0}, "n_episodes: expected at least 1, got 0"),
        ({"seed": -1}, "seed: expected an integer >= 0, got -1"),
        ({"name": "noise0.1"}, r"name: expected letters, digits, - and _ \(no dots\), got noise0.1"),
        ({"cost_cap": -1.0}, "cost_cap: expected a cost >= 0, got -1.0"),
    ],
)
def test_a_value_out_of_range_is_named(changes, message):
    with pytest.raises(RecipeError, match=message):
        replace(RECIPE, **changes)


def test_an_unknown_task_is_refused():
    with pytest.raises(TaskError, match="unknown task 'Nowhere-v0'"):
        replace(RECIPE, task="Nowhere-v0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task = ", "not valid TOML"),
        ('task = "SafetyPointCircle1-v0"\nepisodes = 3', "unknown key 'episodes'; did you mean n_episodes"),
        ('task = "SafetyPointCircle1-v0"\nn_episodes = 3', "no policies"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, message):
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(RecipeError, match=rf"recipe .*recipe.toml: {message}"):
        load_recipe(tmp_path / "recipe.toml")


def test_an_unknown_recipe_names_those_that_ship():
    with pytest.raises(RecipeError, match=r"recipe nothing: no such file.*there are .*SafetyPointCircle1-mixed"):
        load_recipe("nothing")
