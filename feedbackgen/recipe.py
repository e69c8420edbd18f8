"""What to collect: a recipe is a task, a mixture of behaviour policies, a number of episodes and a seed."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path

from feedbackgen.behaviour import parse_share
from feedbackgen.errors import RecipeError
from feedbackgen.tasks import get_task

NAME = re.compile(r"[-\w]+")
# In a checkout the recipes lie beside the packages; the wheel brings them inside the package.
RECIPE_FOLDERS = (Path(__file__).parent.parent / "datasets", Path(__file__).parent / "recipes")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A dataset to be collected.

    Raises:
        RecipeError: a value is out of range.
        TaskError: no such task.
    """

    task: str
    policies: Mapping[str, float]  # behaviour policy -> share of the episodes; shares add up to 1
    n_episodes: int
    seed: int = 0
    name: str = "custom"  # of the dataset: feedbackgen/<task>/<name>-v<version>
    version: int = 0
    record_states: bool = False  # store the simulator's state at each step
    cost_cap: float | None = None  # an episode above this cost is drawn again
    max_episode_steps: int | None = None  # truncate episodes earlier than the task does
    description: str = field(default="")

    def __post_init__(self):
        get_task(self.task)
        _check(isinstance(self.n_episodes, int) and self.n_episodes >= 1, "n_episodes", "at least 1", self.n_episodes)
        _check(isinstance(self.seed, int) and self.seed >= 0, "seed", "an integer >= 0", self.seed)
        _check(isinstance(self.version, int) and self.version >= 0, "version", "an integer >= 0", self.version)
        _check(NAME.fullmatch(self.name), "name", "letters, digits, - and _ (no dots)", self.name)
        _check(self.cost_cap is None or self.cost_cap >= 0, "cost_cap", "a cost >= 0", self.cost_cap)
        steps = self.max_episode_steps
        _check(steps is None or (isinstance(steps, int) and steps >= 1), "max_episode_steps", "at least 1", steps)
        _check(len(self.policies) > 0, "policies", "at least one", dict(self.policies))
        for policy, share in self.policies.items():
            _check(isinstance(share, int | float) and share > 0, f"share of {policy}", "a number above 0", share)
        total = sum(self.policies.values())
        _check(abs(total - 1) < 1e-6, "shares of the policies", "a sum of 1", total)

    @property
    def dataset_id(self) -> str:
        task = self.task.rpartition(":")[2]  # without the module that registers it
        return f"feedbackgen/{task}/{self.name}-v{self.version}"


def load_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe from a TOML file, or by the name of one that ships.

    Raises:
        RecipeError: no such file or name, not TOML, an unknown key, or a value out of range.
    """
    path = _find(recipe)
    try:
        text = path.read_text()
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe {path}: not valid TOML ({error})") from error
    return parse_recipe(text, f"recipe {path}")


def parse_recipe(text: str, place: str) -> Recipe:
    """Read a recipe from TOML.

    Args:
        place: where it stands, for messages.

    Raises:
        RecipeError: not TOML, an unknown key, or a value out of range.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{place}: not valid TOML ({error})") from error
    known = [entry.name for entry in fields(Recipe)]
    for key in values:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(known)}"
            raise RecipeError(f"{place}: unknown key {key!r}; {hint}")
    for key in ("task", "policies", "n_episodes"):
        if key not in values:
            raise RecipeError(f"{place}: no {key}")
    try:
        return Recipe(**values)
    except RecipeError as error:
        raise RecipeError(f"{place}: {error}") from error


def recipe_text(recipe: Recipe) -> str:
    """A recipe as TOML, always in the same order."""
    lines = []
    for entry in fields(Recipe):
        value = getattr(recipe, entry.name)
        if entry.name != "policies" and value is not None:
            lines.append(f"{entry.name} = {_toml(value)}")
    lines += ["", "[policies]"]
    lines += [f"{_toml(policy)} = {share!r}" for policy, share in recipe.policies.items()]
    return "\n".join(lines) + "\n"


def mixture(policies: Iterable[str]) -> dict[str, float]:
    """Shares from the words of the command line: all with a share, or none, which means equal shares.

    Raises:
        PolicyError: a share that is no number above 0.
        RecipeError: a policy named twice, or only some with a share.
    """
    parsed = [parse_share(policy) for policy in policies]
    names = [name for name, _ in parsed]
    for name in names:
        _check(names.count(name) == 1, "policies", "each one once", name)
    given = [share for _, share in parsed if share is not None]
    if not given:
        return {name: 1 / len(names) for name in names}
    _check(len(given) == len(parsed), "shares of the policies", "one for each policy or for none", f"{len(given)}")
    return dict(zip(names, given, strict=True))


def episodes_per_policy(recipe: Recipe) -> dict[str, int]:
    """Whole episodes from shares, by largest remainder, so that they add up."""
    exact = {policy: share * recipe.n_episodes for policy, share in recipe.policies.items()}
    counts = {policy: int(value + 1e-9) for policy, value in exact.items()}
    by_remainder = sorted(exact, key=lambda policy: counts[policy] - exact[policy])
    for policy in by_remainder[: recipe.n_episodes - sum(counts.values())]:
        counts[policy] += 1
    return counts


def _find(recipe: str | Path) -> Path:
    path = Path(recipe)
    if path.is_file():
        return path
    for folder in RECIPE_FOLDERS:
        if (folder / recipe / "recipe.toml").is_file():
            return folder / recipe / "recipe.toml"
    names = sorted({path.parent.name for folder in RECIPE_FOLDERS for path in folder.glob("*/recipe.toml")})
    raise RecipeError(f"recipe {recipe}: no such file, and no recipe of that name ships; there are {', '.join(names)}")


def _toml(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)


def _check(good, name: str, expected: str, came) -> None:
    if not good:
        raise RecipeError(f"{name}: expected {expected}, got {came}")
