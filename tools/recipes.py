"""Recipes, cards and the page of policies, from what was measured: ``python tools/recipes.py --help``.

Recipes and the page follow from the shipped policies' index alone. A card follows from a dataset that is collected for
it, with the recipe's shares and, unless told otherwise, fewer episodes.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from feedbackgen.behaviour import PolicyInfo, list_policies
from feedbackgen.recipe import Recipe, load_recipe
from feedbackgen.tasks import TASKS, Task, get_task

ROOT = Path(__file__).parents[1]
FOLDER, PAGE = ROOT / "datasets", ROOT / "docs" / "policies.md"
WANTED_RETURN, WANTED_SAFE_RETURN = 0.9, 0.6  # of DSRL's greatest return
BY_HAND = ("SafetyPointCircle1-v0",)  # the demo's recipe; its shares were chosen with its pictures in view
# Shares by policy, of all that a task may have; those it has are scaled to a sum of 1.
SHARES = {
    "expert": 12,
    "expert+noise": 6,
    "daring-expert": 8,
    "brave-expert": 8,
    "careful-expert": 12,
    "careful-expert+noise": 6,
    "wary-expert": 10,
    "safe-expert": 14,
    "safe-expert+noise": 6,
    "shy-expert": 8,
    "reckless-expert": 10,
    "reckless-medium": 6,
    "medium": 6,
    "careful-medium": 4,
    "safe-medium": 6,
    "novice": 4,
    "poor": 2,
}
NOISE = {"safety-navigation": 0.3, "safety-velocity": 0.1, "bullet-safety-gym": 0.3}
LEAST_SHARE_UNDER_CAP = 0.2  # of a policy's episodes, lest most of its work is thrown away


def anchored_tasks() -> list[Task]:
    """The tasks of Safety-Gymnasium and Bullet-Safety-Gym that DSRL has a dataset of."""
    return [task for task in TASKS.values() if task.dsrl is not None and task.suite in NOISE]


def recipe_name(task: Task) -> str:
    return f"{task.name.rpartition('-')[0]}-mixed"


def recipe_text(task: Task) -> str:
    """A recipe that spreads episodes over the plane; the cost is capped at ten limits, or DSRL's greatest if higher."""
    assert task.dsrl is not None
    cap = _cost_cap(task)
    shares = {}
    for info in list_policies(task.name):
        if np.mean(np.array(info.cost_returns) <= cap) >= LEAST_SHARE_UNDER_CAP:
            for suffix, words in (("", ""), ("+noise", f"+noise={NOISE[task.suite]:g}")):
                if info.name + suffix in SHARES:
                    shares[info.name + words] = SHARES[info.name + suffix]
    total = sum(shares.values())
    rounded = {name: round(share / total, 3) for name, share in shares.items()}
    first = next(iter(sorted(rounded, key=rounded.__getitem__, reverse=True)))
    rounded[first] = round(rounded[first] + 1.0 - sum(rounded.values()), 3)
    short = task.name.removeprefix("Safety").rpartition("-")[0]
    lines = [
        "# Episodes spread over the return-cost plane; written by tools/recipes.py from the policies' measured costs.",
        f'task = "{task.name}"',
        'name = "mixed"',
        "version = 0",
        f"n_episodes = {task.dsrl.n_episodes}",
        "seed = 0",
        f"cost_cap = {cap:.1f}",
        f'description = "{short} from poor to expert and from safe to reckless; as many episodes as DSRL has"',
        "",
        "[policies]",
        *(f'"{name}" = {share:.3f}' for name, share in rounded.items()),
    ]
    return "\n".join(lines) + "\n"


def _cost_cap(task: Task) -> float:
    assert task.dsrl is not None
    return max(10 * task.default_cost_limit, task.dsrl.cost_max)


def page_text() -> str:
    """docs/policies.md."""
    rows = [
        "| task | policies | best return | DSRL | largest cost | DSRL | best safe return | of DSRL's best | wanted |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for task in anchored_tasks():
        assert task.dsrl is not None
        infos = list_policies(task.name)
        if not infos:
            rows.append(
                f"| {task.name} | 0 | - | {task.dsrl.return_max:.1f} | - | {task.dsrl.cost_max:.0f} | - | - | |"
            )
            continue
        best, cost, safe = _extremes(infos, _cost_cap(task))
        shares = {
            title: _share(value, wanted)
            for title, value, wanted in (
                ("return", best, WANTED_RETURN * task.dsrl.return_max),
                ("cost", cost, task.dsrl.cost_max),
                ("safe return", safe, WANTED_SAFE_RETURN * task.dsrl.return_max),
            )
        }
        missed = ", ".join(f"{title} {share}%" for title, share in shares.items() if share < 100)
        rows.append(
            f"| {task.name} | {len(infos)} | {best:.1f} | {task.dsrl.return_max:.1f} | {cost:.0f} | "
            f"{task.dsrl.cost_max:.0f} | {_number(safe)} | {_ratio(safe, task)} | {missed or 'reached'} |"
        )
    return PAGE_TEXT.format(rows="\n".join(rows))


PAGE_TEXT = """# Behaviour policies

A population ships for tasks that DSRL (Liu et al., 2023) has a dataset of: from poor to expert, and from safe to
reckless. Each policy was measured on 50 whole episodes, the same reset seeds for all policies of a task.

```bash
fbgen policies                               # all of them, with return and cost
fbgen policies SafetyPointCircle1-v0         # one task's
```

`fbgen policies TASK --json` also gives the return and cost of every measured episode and the command that made the
policy: `fbgen policies train TASK --seed N` makes a task's population anew in `policies/TASK`. It shows what is done
and the time left, and when it is killed the same command goes on where it was (PointCircle1 and HalfCheetah: with the
branch it was at), to the same bytes on the same machine and versions.

## Beside DSRL

Best return, largest cost and best return of a safe episode (its cost at most DSRL's least limit: 20, on Bullet 10),
of the measured episodes that keep the recipe's cost cap; DSRL's are the extremes of its datasets, after its own
filtering. Wanted are 90 % of DSRL's best return, its largest cost, and a safe return of 60 % of its best; where one is
missed, the last column says how much of it is reached. `fbgen policies train TASK` makes a population anew, in a few
minutes of one core (Ant: about half an hour). Written by `python tools/recipes.py --page`.

{rows}

## How they are made

**Point and Car** (navigation tasks but PointCircle1): a controller that reads the lidars and steers by about ten
parameters: speed, gains, how far from hazards, gremlins, vases, pillars and wrong buttons it keeps, how it gets behind
the box, which way it takes round the circle. A seeded search varies the parameters of the best so far and keeps what
scores higher on `return - penalty * cost`, with the penalty 0 for `expert` and 0.25 for `safe-expert` (0.5 in Button).
The others are derived from those two: `careful-expert` and `wary-expert` lie between them, `reckless-*` are drawn to
what others avoid, `shy-expert` goes far round gremlins, `medium`, `novice` and `poor` drive slower. Where even the safe
expert's episodes cost more than the limit (Goal2, Button2, Push2 and CarButton1), a third search at penalty 2 finds
`timid`, and `guarded-expert` lies between the two. **Swimmer**: the
same search of a policy linear in the observation, from an undulation; `brave-` and `daring-expert` are the safe one
with larger strokes.

**Bullet's Ball and Car** (extra `bullet`): a controller that plans its way in the world, round the circle or along the
track, found likewise, with a penalty of 10 on Circle and of 50 on Run for `safe-expert`. `brave-` and `daring-expert`
go a little over the boundaries of the circle, or drift off the track after a while.

**Ant, Hopper, Walker2d** (extra `train`): proximal policy optimisation of one network that is told how cautious to be,
from 0 (up to 1.4 times the speed limit costs nothing) to 1 (a step's cost counts as much as a step's survival). The
shipped policies are snapshots of it with the caution fixed, in float16: those named `expert` of the last one, from
`reckless-expert` (0) over `expert`, `daring-`, `brave-`, `careful-` and `wary-` to `safe-expert` (1). Speed is learnt
before caution counts, so that `novice` and `medium` may run faster than `expert`, and cost more.

**PointCircle1, HalfCheetah** (extra `zoo`): proximal policy optimisation by Stable-Baselines3, a reckless run with
snapshots and penalised branches from its middle.

A policy's file is an `.npz`: a JSON header that names task and kind, and arrays. `--policy FILE.npz` uses one.
`NAME+noise=0.3` adds Gaussian noise of 0.3 half action ranges, `NAME+epsilon=0.1` a random action now and then.

## Recipes

`fbgen collect --recipe SafetyPointGoal1-mixed` collects as many episodes as DSRL has, spread over the return-cost
plane, none above ten cost limits (or DSRL's greatest cost, if that is more). Each task's folder in `datasets/` holds
the recipe, and a card with the scatter plot and how far it reaches beside DSRL; `python tools/recipes.py` writes them.
"""


def write_card(task: Task, n_episodes: int | None, workers: int) -> None:
    """Collect the task's mixture, and describe what came out."""
    from feedbackgen.collect import collect
    from feedbackgen.episodes import load_trajectories
    from feedbackgen.plots import plot_returns

    recipe = load_recipe(FOLDER / recipe_name(task) / "recipe.toml")
    small = replace(recipe, n_episodes=min(n_episodes or recipe.n_episodes, recipe.n_episodes))
    with tempfile.TemporaryDirectory() as folder:
        info = collect(small, root=Path(folder), workers=workers)
        flat = load_trajectories(info.path, with_rewards=True)
    assert flat.rewards is not None and flat.costs is not None and flat.policies is not None
    returns, costs = (np.add.reduceat(values, flat.starts[:-1]) for values in (flat.rewards, flat.costs))
    policies = list(flat.policies)
    out = FOLDER / recipe_name(task)
    plot_returns(
        returns,
        costs,
        policies,
        cost_limit=task.default_cost_limit,
        title=f"{task.name}, {len(returns):,} episodes",
        path=out / "scatter.png",
    )
    (out / "README.md").write_text(card_text(task, recipe, returns, costs, policies))


def card_text(task: Task, recipe: Recipe, returns, costs, policies: list[str]) -> str:
    """A dataset's card, from its episodes."""
    assert task.dsrl is not None
    low = task.cost_limits[0]
    safe = returns[costs <= low]
    best_safe = float(safe.max()) if len(safe) else None
    is_whole = len(returns) == recipe.n_episodes
    whole = "the whole dataset" if is_whole else f"{len(returns):,} episodes, drawn with the same shares"
    quantiles = [0.0, 0.1, 0.5, 0.9, 1.0]
    table = ["| | least | 10 % | median | 90 % | greatest |", "|---|--:|--:|--:|--:|--:|"]
    for title, values in (("return", returns), ("cost", costs)):
        table.append(f"| {title} | " + " | ".join(f"{value:.1f}" for value in np.quantile(values, quantiles)) + " |")
    by_policy = ["| policy | episodes | mean return | mean cost | safe |", "|---|--:|--:|--:|--:|"]
    names = np.array(policies)
    for name in recipe.policies:
        rows = names == name
        if rows.any():
            by_policy.append(
                f"| {name} | {rows.sum()} | {returns[rows].mean():.1f} | {costs[rows].mean():.1f} | "
                f"{np.mean(costs[rows] <= low):.0%} |"
            )
    cost_wanted = min(task.dsrl.cost_max, recipe.cost_cap or 0.0)
    wanted = [
        "| | here | DSRL | wanted | |",
        "|---|--:|--:|--:|---|",
        _wanted("best return", float(returns.max()), task.dsrl.return_max, WANTED_RETURN * task.dsrl.return_max),
        _wanted("largest cost", float(costs.max()), task.dsrl.cost_max, cost_wanted),
        _wanted("best safe return", best_safe, None, WANTED_SAFE_RETURN * task.dsrl.return_max),
    ]
    return "\n".join(
        [
            f"# {recipe_name(task)}\n",
            f"{recipe.description}. `fbgen collect --recipe {recipe_name(task)}` collects its "
            f"{recipe.n_episodes:,} episodes; an episode above cost {recipe.cost_cap:g} is drawn again.\n",
            f"The figures are of {whole}.\n",
            "![Return against cost of each episode](scatter.png)\n",
            *table,
            "",
            f"{np.mean(costs <= low):.0%} of the episodes are safe (cost at most {low:g}).\n",
            "## Beside DSRL\n",
            *wanted,
            "",
            "## Policies\n",
            *by_policy,
            "",
            "Written by `python tools/recipes.py --cards`.\n",
        ]
    )


def _wanted(title: str, value: float | None, anchor: float | None, wanted: float) -> str:
    share = _share(value, wanted)
    verdict = "reached" if share >= 100 else f"not reached: {share}% of it"
    there = "" if anchor is None else f"{anchor:.1f}"
    return f"| {title} | {_number(value)} | {there} | {wanted:.1f} | {verdict} |"


def _extremes(infos: list[PolicyInfo], cap: float) -> tuple[float, float, float | None]:
    """Best return, largest cost and best return of a safe episode, over all policies' episodes that keep the cap."""
    best = max(value for info in infos if (value := info.best_return(cap)) is not None)
    cost = max(value for info in infos for value in info.cost_returns if value <= cap)
    safe = [value for info in infos if (value := info.best_return(get_task(info.task).cost_limits[0])) is not None]
    return best, cost, max(safe, default=None)


def _share(value: float | None, wanted: float) -> int:
    """Whole percent, rounded down: 99.9 % is not all of it."""
    return 0 if value is None else max(int(100 * value / wanted), 0)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _ratio(value: float | None, task: Task) -> str:
    assert task.dsrl is not None
    return "-" if value is None else f"{value / task.dsrl.return_max:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", action="store_true", help="write the recipes of all tasks with policies")
    parser.add_argument("--page", action="store_true", help="write docs/policies.md")
    parser.add_argument("--cards", nargs="*", metavar="TASK", help="collect and write the cards of these tasks, or all")
    parser.add_argument("-n", type=int, default=200, help="episodes of a card; 0 for all (default 200)")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.recipes:
        for task in anchored_tasks():
            if list_policies(task.name) and task.name not in BY_HAND:
                folder = FOLDER / recipe_name(task)
                folder.mkdir(exist_ok=True)
                (folder / "recipe.toml").write_text(recipe_text(task))
    if arguments.page:
        PAGE.write_text(page_text())
    if arguments.cards is not None:
        for name in arguments.cards or [task.name for task in anchored_tasks() if list_policies(task.name)]:
            write_card(get_task(name), arguments.n or None, arguments.workers)


if __name__ == "__main__":
    main()
