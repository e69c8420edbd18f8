"""Controllers for one task, from reckless to safe and from poor to expert, found by a seeded search.

A stage varies the parameters of the best so far and keeps what scores higher: the mean of ``return - penalty * cost``
over a few episodes, confirmed on others. What lies between and beyond is derived from the two that were found.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from feedbackgen.behaviour.controllers import ControllerPolicy, parameters_of, save_controller
from feedbackgen.behaviour.measuring import measure, play_together
from feedbackgen.behaviour.zoo import PolicyInfo, write_index
from feedbackgen.dsrl import BULLET
from feedbackgen.environments import make_env_batch
from feedbackgen.errors import PolicyError
from feedbackgen.seeding import derived_seed, stream
from feedbackgen.tasks import get_task

N_TOGETHER = 12  # episodes that are played at a time
SHARE_VARIED = 0.4  # of the parameters, in each trial
WIDE, NARROW = 0.25, 0.12  # standard deviation of a change, in ranges; wide for the first third of the trials


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One search; what it finds is shipped under its name."""

    name: str
    source: str | None  # the stage whose best it starts from; None starts from the starts of `parameters_of`
    penalty: float  # reward per unsafe step
    n_trials: int
    n_tried: int = 6  # episodes of each trial
    n_confirmed: int = 12  # others, of each that scored higher; like n_tried at most N_TOGETHER
    guesses: tuple[Mapping[str, float], ...] = ()  # changes that the first trials try, of parameters that there are


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A policy derived from one that was found."""

    source: str  # a stage
    towards: str | None = None  # another stage, to which the parameters move
    share: float = 0.5  # of the way there
    speed: float = 1.0  # share of the source's
    changes: Mapping[str, float] = field(default_factory=dict)  # of parameters that there are


# Gremlins also cost those who keep clear of what stands still.
SHY = {"caution": 4.0, "lookahead": 1.0, "gremlin_radius": 0.6, "hazard_radius": 0.4}
EXPERT = Stage(name="expert", source=None, penalty=0.0, n_trials=16)
STAGES = (
    EXPERT,
    Stage(
        name="safe-expert",
        source="expert",
        penalty=0.25,
        n_trials=12,
        guesses=(
            {"caution": 0.3, "lookahead": 0.5, "wall": 1.1, "speed_at_wall": 0.8},
            {"caution": 1.0, "lookahead": 0.5, "wall": 1.0, "speed_at_wall": 0.8},
            {"caution": 2.0, "wall": 0.95, "radius": 1.4},
        ),
    ),
)
STAGES_OF = {
    # Gremlins come to the agent, so that it pays to go far round them.
    "Button": (
        EXPERT,
        Stage(
            name="safe-expert",
            source="expert",
            penalty=0.5,
            n_trials=12,
            guesses=(
                SHY,
                {"caution": 4.0, "lookahead": 0.8, "gremlin_radius": 0.45, "hazard_radius": 0.3, "button_radius": 0.2},
            ),
        ),
    ),
    "Push": (
        EXPERT,
        Stage(
            name="safe-expert",
            source="expert",
            penalty=0.25,
            n_trials=12,
            guesses=({"caution": 2.0, "lookahead": 0.5, "hazard_radius": 0.4, "pillar_radius": 0.3}, {"caution": 1.0}),
        ),
    ),
    # The Swimmer's parameters are many, its episodes cheap and nearly all alike.
    "swimmer": (
        Stage(name="expert", source=None, penalty=0.0, n_trials=150, n_tried=2, n_confirmed=4),
        Stage(
            name="safe-expert",
            source="expert",
            penalty=1.0,
            n_trials=150,
            n_tried=2,
            n_confirmed=4,
            guesses=({"speed": 0.4, "gain": 0.16}, {"speed": 0.3, "gain": 0.2}, {"speed": 0.6, "gain": 0.1}),
        ),
    ),
}
# A step's reward on Bullet is up to 7 on the circle, and 2 per m/s on the track.
BULLET_EXPERT = replace(EXPERT, n_trials=60)
BULLET_STAGES = {
    "Circle": (
        BULLET_EXPERT,
        Stage(
            name="safe-expert",
            source="expert",
            penalty=10.0,
            n_trials=60,
            guesses=({"wall": 5.5, "speed_at_wall": 3.0}, {"wall": 5.0, "speed_at_wall": 1.5}),
        ),
    ),
    "Run": (
        BULLET_EXPERT,
        Stage(name="safe-expert", source="expert", penalty=50.0, n_trials=60, guesses=({"speed": 2.0}, {"speed": 1.4})),
    ),
}
# Where so much stands or roams that even the safe expert's episodes cost more than the limit.
CROWDED = {
    "SafetyPointGoal2-v0",
    "SafetyCarGoal2-v0",
    "SafetyCarButton1-v0",
    "SafetyPointButton2-v0",
    "SafetyCarButton2-v0",
    "SafetyPointPush2-v0",
    "SafetyCarPush2-v0",
}
WIDE_BERTH = {"caution": 4.0, "lookahead": 1.6, "hazard_radius": 0.4, "gremlin_radius": 0.8, "button_radius": 0.2}
TIMID = Stage(
    name="timid",
    source="safe-expert",
    penalty=2.0,
    n_trials=8,
    n_tried=12,
    n_confirmed=12,
    guesses=(
        {
            "caution": 4.0,
            "lookahead": 1.0,
            "hazard_radius": 0.4,
            "vase_radius": 0.35,
            "pillar_radius": 0.4,
            "gremlin_radius": 0.6,
            "speed": 0.6,
        },
        WIDE_BERTH,
        WIDE_BERTH | {"speed": 1.4},
        WIDE_BERTH | {"hazard_radius": 0.6, "speed": 0.1},
    ),
)
SEEKING = {"caution": -0.5, "lookahead": 0.8, "hazard_radius": 0.3}  # drawn to what others avoid
VARIANTS = {  # left out where a task's controller does not know what changes, or its plan the stage
    "careful-expert": Variant(source="expert", towards="safe-expert"),
    "wary-expert": Variant(source="expert", towards="safe-expert", share=0.8),
    "shy-expert": Variant(source="safe-expert", changes=SHY),
    "guarded-expert": Variant(source="safe-expert", towards="timid"),
    # The Swimmer's: the safe one with larger strokes; half-way to the reckless one lies no gait at all.
    "brave-expert": Variant(source="safe-expert", changes={"gain": 0.06}),
    "daring-expert": Variant(source="safe-expert", changes={"gain": 0.07}),
    "reckless-expert": Variant(source="expert", changes=SEEKING),
    "medium": Variant(source="expert", speed=0.55),
    "safe-medium": Variant(source="safe-expert", speed=0.55),
    "reckless-medium": Variant(source="expert", speed=0.55, changes=SEEKING),
    "novice": Variant(source="expert", speed=0.25),
    "poor": Variant(source="expert", speed=0.08),
}
BULLET_VARIANTS = {
    "Circle": VARIANTS
    | {
        "brave-expert": Variant(source="safe-expert", changes={"wall": 6.0}),
        "daring-expert": Variant(source="safe-expert", changes={"wall": 6.3}),
        "reckless-expert": Variant(source="expert", changes={"radius": 7.5, "wall": 8.0}),
    },
    # They drift off the track, sooner or later.
    "Run": VARIANTS
    | {
        "brave-expert": Variant(source="safe-expert", speed=0.9, changes={"lane": 3.0, "centring": 0.25}),
        "daring-expert": Variant(source="safe-expert", speed=0.9, changes={"lane": 3.0, "centring": 0.4}),
        "reckless-medium": Variant(source="safe-expert", changes={"lane": 3.0, "centring": 0.8}),
    },
}


def stages_for(task: str) -> tuple[Stage, ...]:
    """The searches planned for a task."""
    known = get_task(task)
    if known.suite == BULLET:
        return BULLET_STAGES[known.kind]
    stages = STAGES_OF.get(known.kind, STAGES)
    return (*stages, TIMID) if task in CROWDED else stages


def variants_for(task: str) -> Mapping[str, Variant]:
    """What is derived from them."""
    known = get_task(task)
    return BULLET_VARIANTS[known.kind] if known.suite == BULLET else VARIANTS


def search_population(
    task: str,
    *,
    seed: int,
    out: Path,
    command: str,
    progress: Callable[[int, int], None] | None = None,
    n_episodes: int = 50,
    stages: tuple[Stage, ...] | None = None,
    variants: Mapping[str, Variant] | None = None,
) -> list[PolicyInfo]:
    """Search, measure and write a task's controllers; a killed search goes on where it was, to the same bytes.

    Args:
        seed: fixes every draw.
        out: folder for ``<name>.npz``, ``policies.json`` and, in ``.search.json``, what a continued search needs.
        command: written beside each policy as what made it.
        progress: called with episodes played and in all.
        n_episodes: episodes each policy is measured on.
        stages: the searches; by default those planned for the task.
        variants: what is derived from the stages, by name; by default likewise.

    Raises:
        PolicyError: no controller for the task, or the folder holds a search with another seed.
    """
    ranges = parameters_of(task)
    if stages is None:
        stages = stages_for(task)
    if variants is None:
        variants = variants_for(task)
    out.mkdir(parents=True, exist_ok=True)
    found = _read_progress(out, task, seed)
    names = {stage.name for stage in stages} | {None}
    variants = {
        name: each
        for name, each in variants.items()
        if each.changes.keys() <= ranges.keys() and {each.source, each.towards} <= names
    }
    n_total = sum(stage.n_tried * stage.n_trials for stage in stages) + n_episodes * (len(stages) + len(variants))
    n_done = 0

    def played(n: int) -> None:
        nonlocal n_done
        n_done += n
        if progress:
            progress(n_done, n_total)

    batch = make_env_batch(task, N_TOGETHER)
    for stage in stages:
        state = found.get(stage.name)
        if state is None:
            parameters = {name: start for name, (_, _, start) in ranges.items()}
            if stage.source is not None:
                parameters = found[stage.source]["parameters"]
            state = {"n_trials": 0, "parameters": parameters, **_scores(batch, task, parameters, stage, seed)}
        for trial in range(stage.n_trials):
            if trial >= state["n_trials"]:
                state = _try_another(batch, task, ranges, state, stage, seed, trial)
                found[stage.name] = state
                _write_progress(out, task, seed, found)
            played(stage.n_tried)
    chosen = {stage.name: (found[stage.name]["parameters"], _description(stage)) for stage in stages}
    for name, variant in variants.items():
        chosen[name] = _derived({key: state["parameters"] for key, state in found.items()}, variant)
    infos = []
    for name, (parameters, description) in chosen.items():
        policy = ControllerPolicy(name=name, task=task, parameters=parameters)
        save_controller(policy, out / f"{name}.npz")
        infos.append(measure(batch, policy, n_episodes=n_episodes, description=description, command=command))
        played(n_episodes)
    write_index(out, infos)
    return infos


def varied(
    parameters: Mapping[str, float],
    ranges: Mapping[str, tuple[float, float, float]],
    spread: float,
    rng: np.random.Generator,
) -> dict[str, float]:
    """A copy in which some parameters have changed by a Gaussian step, inside their ranges."""
    changed = {}
    for name, (low, high, _) in ranges.items():
        # Both are drawn for every parameter, so that the draws of one do not depend on another's.
        is_varied, step = rng.random() < SHARE_VARIED, rng.standard_normal() * spread * (high - low)
        value = parameters[name] + step if is_varied else parameters[name]
        changed[name] = round(float(min(max(value, low), high)), 4)
    return changed


def _try_another(batch, task, ranges, state, stage: Stage, seed: int, trial: int) -> dict:
    spread = WIDE if trial < stage.n_trials / 3 else NARROW
    parameters = varied(state["parameters"], ranges, spread, stream(seed, "search", task, stage.name, trial))
    if trial < len(stage.guesses):
        parameters = _changed(state["parameters"], stage.guesses[trial])
    tried = _score(batch, task, parameters, stage, seed, "try", stage.n_tried)
    if tried > state["tried"]:
        confirmed = _score(batch, task, parameters, stage, seed, "confirm", stage.n_confirmed)
        # Both are means: together they must be higher too.
        gain = (tried - state["tried"]) * stage.n_tried + (confirmed - state["confirmed"]) * stage.n_confirmed
        if gain > 0:
            state = {"parameters": parameters, "tried": tried, "confirmed": confirmed}
    return state | {"n_trials": trial + 1}


def _scores(batch, task: str, parameters, stage: Stage, seed: int) -> dict:
    return {
        "tried": _score(batch, task, parameters, stage, seed, "try", stage.n_tried),
        "confirmed": _score(batch, task, parameters, stage, seed, "confirm", stage.n_confirmed),
    }


def _score(batch, task: str, parameters, stage: Stage, seed: int, purpose: str, n_episodes: int) -> float:
    """Mean penalised return over the same episodes for all candidates."""
    policy = ControllerPolicy(name=stage.name, task=task, parameters=parameters)
    seeds = [derived_seed(seed, "search", purpose, index) for index in range(n_episodes)]
    rngs = [stream(seed, "search", purpose, index) for index in range(n_episodes)]
    returns, cost_returns = play_together(batch, policy, seeds=seeds, rngs=rngs)
    return float(np.mean(returns - stage.penalty * cost_returns))


def _derived(found: Mapping[str, Mapping[str, float]], variant: Variant) -> tuple[dict[str, float], str]:
    parameters, words = dict(found[variant.source]), variant.source
    if variant.towards is not None:
        other = found[variant.towards]
        share = variant.share
        parameters = {name: round((1.0 - share) * value + share * other[name], 4) for name, value in parameters.items()}
        words = f"{words}, {share:.0%} of the way to {variant.towards}"
    if variant.changes:
        parameters = _changed(parameters, variant.changes)
        words += ", " + ", ".join(f"{name} {value:g}" for name, value in variant.changes.items())
    if variant.speed != 1.0:
        for name in parameters:
            if name.startswith("speed"):
                parameters[name] = round(parameters[name] * variant.speed, 4)
        words += f" at {variant.speed:.0%} of its speed"
    return parameters, words


def _changed(parameters: Mapping[str, float], changes: Mapping[str, float]) -> dict[str, float]:
    return {name: changes.get(name, value) for name, value in parameters.items()}


def _description(stage: Stage) -> str:
    origin = f"from {stage.source}" if stage.source else "from the starts"
    return f"{stage.n_trials} trials {origin} at {stage.penalty:g} reward per unsafe step"


def _read_progress(out: Path, task: str, seed: int) -> dict:
    path = out / ".search.json"
    if not path.is_file():
        return {}
    state = json.loads(path.read_text())
    if (state["task"], state["seed"]) != (task, seed):
        raise PolicyError(
            f"{out}: holds a search for {state['task']} with seed {state['seed']}, not for {task} with seed {seed}; "
            "use another --out"
        )
    return state["found"]


def _write_progress(out: Path, task: str, seed: int, found: dict) -> None:
    partial = out / ".search.partial"
    partial.write_text(json.dumps({"task": task, "seed": seed, "found": found}))
    partial.replace(out / ".search.json")
