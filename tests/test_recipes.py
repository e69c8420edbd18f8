"""The recipes that ship, and the page of policies: written by tools/recipes.py from the index, and up to date."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from feedbackgen.behaviour import PolicyInfo, list_policies, load_policy
from feedbackgen.recipe import episodes_per_policy, load_recipe
from feedbackgen.tasks import get_task

ROOT = Path(__file__).parents[1]
TOOL = runpy.run_path(str(ROOT / "tools" / "recipes.py"))
RECIPES = sorted((ROOT / "datasets").glob("*/recipe.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_a_recipe_loads_and_every_policy_in_it_ships(path):
    recipe = load_recipe(path)
    known = get_task(recipe.task)
    assert path.parent.name == f"{recipe.task.rpartition('-')[0]}-{recipe.name}"
    assert sum(episodes_per_policy(recipe).values()) == recipe.n_episodes
    for policy in recipe.policies:
        load_policy(recipe.task, policy)
    assert known.dsrl is not None and recipe.cost_cap is not None
    assert recipe.cost_cap >= min(known.dsrl.cost_max, 10 * known.default_cost_limit)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_a_recipe_is_what_the_tool_writes(path):
    task = get_task(load_recipe(path).task)
    if task.name in TOOL["BY_HAND"]:
        assert "demo" not in path.read_text()  # chosen by hand, see the tool
    else:
        assert path.read_text() == TOOL["recipe_text"](task)


def test_the_page_of_policies_is_what_the_tool_writes():
    assert (ROOT / "docs" / "policies.md").read_text() == TOOL["page_text"]()


def test_every_population_has_a_recipe():
    tasks = {load_recipe(path).task for path in RECIPES}
    assert tasks == {info.task for info in list_policies()}


def test_a_policy_that_hardly_ever_keeps_the_cap_is_left_out():
    for path in RECIPES:
        recipe = load_recipe(path)
        costs = {info.name: np.array(info.cost_returns) for info in list_policies(recipe.task)}
        if recipe.task not in TOOL["BY_HAND"]:
            for policy in recipe.policies:
                assert np.mean(costs[policy.split("+")[0]] <= recipe.cost_cap) >= 0.2


def test_a_card_says_how_far_it_got():
    task = get_task("SafetyPointGoal1-v0")
    recipe = load_recipe(ROOT / "datasets" / "SafetyPointGoal1-mixed" / "recipe.toml")
    # DSRL: best return 30.071, largest cost 100; wanted are 27.1, 100 and 18.0.
    card = TOOL["card_text"](task, recipe, np.array([28.0, 9.0]), np.array([60.0, 3.0]), ["expert", "poor"])
    assert "| best return | 28.0 | 30.1 | 27.1 | reached |" in card
    assert "| largest cost | 60.0 | 100.0 | 100.0 | not reached: 60% of it |" in card
    assert "| best safe return | 9.0 |  | 18.0 | not reached: 49% of it |" in card
    assert "2 episodes, drawn with the same shares" in card and "| expert | 1 | 28.0 | 60.0 | 0% |" in card


def test_the_page_counts_episodes_that_keep_the_cap():
    info = PolicyInfo(
        task="SafetyPointGoal1-v0",
        name="any",
        description="by hand",
        command="none",
        returns=(30.0, 20.0, 10.0),
        cost_returns=(251.0, 250.0, 20.0),
    )
    assert TOOL["_extremes"]([info], 250.0) == (20.0, 250.0, 10.0)
    assert TOOL["_share"](9.99, 10.0) == 99 and TOOL["_share"](10.0, 10.0) == 100 and TOOL["_share"](None, 1.0) == 0
