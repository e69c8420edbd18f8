"""Controllers for one task, from reckless to safe and from poor to expert, found by a seeded search.

A stage varies the parameters of the best so far and keeps what scores higher: the mean of ``return - penalty * cost``
over a few episodes, confirmed on others. A slowed copy of what was found drives at a share of its speed.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from feedbackgen.behaviour.controllers import ControllerPolicy, parameters_of, save_controller
from feedbackgen.behaviour.measuring import measure, play_together
from feedbackgen.behaviour.zoo import PolicyInfo, write_index
from feedbackgen.environments import make_env_batch
from feedbackgen.errors import PolicyError
from feedbackgen.seeding import derived_seed, stream
from feedbackgen.tasks import get_task

N_TRIED, N_CONFIRMED = 6, 12  # episodes
SHARE_VARIED = 0.4  # of the parameters, in each trial
WIDE, NARROW = 0.25, 0.12  # standard deviation of a change, in ranges; wide for the first third of the trials


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One search; what it finds is shipped under its name."""

    name: str
    source: str | None  # the stage whose best it starts from; None starts from the starts of `parameters_of`
    penalty: float  # reward per unsafe step; a gain below 0, up to DSRL's greatest cost
    n_trials: int
    guess: Mapping[str, float] = field(default_factory=dict)  # the first trial's changes, of parameters that there are


STAGES = (
    Stage(name="expert", source=None, penalty=0.0, n_trials=20),
    Stage(name="careful-expert", source="expert", penalty=0.03, n_trials=8, guess={"caution": 1.0, "wall": 1.2}),
    Stage(name="safe-expert", source="careful-expert", penalty=0.25, n_trials=12, guess={"caution": 2.0, "wall": 1.0}),
    Stage(name="reckless-expert", source="expert", penalty=-0.03, n_trials=8, guess={"caution": -0.3}),
)
SLOWED = {  # name -> the stage it is a copy of, and its share of the speed
    "medium": ("expert", 0.55),
    "novice": ("expert", 0.25),
    "poor": ("expert", 0.08),
    "safe-medium": ("safe-expert", 0.55),
    "reckless-medium": ("reckless-expert", 0.55),
}


def search_population(
    task: str,
    *,
    seed: int,
    out: Path,
    command: str,
    progress: Callable[[int, int], None] | None = None,
    n_episodes: int = 50,
    stages: tuple[Stage, ...] = STAGES,
    slowed: Mapping[str, tuple[str, float]] = SLOWED,
) -> list[PolicyInfo]:
    """Search, measure and write a task's controllers; a killed search goes on where it was, to the same bytes.

    Args:
        seed: fixes every draw.
        out: folder for ``<name>.npz``, ``policies.json`` and, in ``.search.json``, what a continued search needs.
        command: written beside each policy as what made it.
        progress: called with episodes played and in all.
        n_episodes: episodes each policy is measured on.

    Raises:
        PolicyError: no controller for the task, or the folder holds a search with another seed.
    """
    ranges = parameters_of(task)
    out.mkdir(parents=True, exist_ok=True)
    found = _read_progress(out, task, seed)
    n_total = N_TRIED * sum(stage.n_trials for stage in stages) + n_episodes * (len(stages) + len(slowed))
    n_done = 0

    def played(n: int) -> None:
        nonlocal n_done
        n_done += n
        if progress:
            progress(n_done, n_total)

    batch = make_env_batch(task, N_CONFIRMED)
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
            played(N_TRIED)
    chosen = {stage.name: (found[stage.name]["parameters"], _description(stage)) for stage in stages}
    for name, (source, share) in slowed.items():
        parameters = found[source]["parameters"]
        slow = {key: value * share if key.startswith("speed") else value for key, value in parameters.items()}
        chosen[name] = (slow, f"{source} at {share:.0%} of its speed")
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
    if trial == 0 and stage.guess.keys() & ranges.keys():
        parameters = state["parameters"] | {name: stage.guess[name] for name in ranges if name in stage.guess}
    tried = _score(batch, task, parameters, stage, seed, "try", N_TRIED)
    if tried > state["tried"]:
        confirmed = _score(batch, task, parameters, stage, seed, "confirm", N_CONFIRMED)
        if tried * N_TRIED + confirmed * N_CONFIRMED > state["tried"] * N_TRIED + state["confirmed"] * N_CONFIRMED:
            state = {"parameters": parameters, "tried": tried, "confirmed": confirmed}
    return state | {"n_trials": trial + 1}


def _scores(batch, task: str, parameters, stage: Stage, seed: int) -> dict:
    return {
        "tried": _score(batch, task, parameters, stage, seed, "try", N_TRIED),
        "confirmed": _score(batch, task, parameters, stage, seed, "confirm", N_CONFIRMED),
    }


def _score(batch, task: str, parameters, stage: Stage, seed: int, purpose: str, n_episodes: int) -> float:
    """Mean penalised return over the same episodes for all candidates."""
    policy = ControllerPolicy(name=stage.name, task=task, parameters=parameters)
    seeds = [derived_seed(seed, "search", purpose, index) for index in range(n_episodes)]
    rngs = [stream(seed, "search", purpose, index) for index in range(n_episodes)]
    returns, cost_returns = play_together(batch, policy, seeds=seeds, rngs=rngs)
    known = get_task(task)
    if stage.penalty < 0 and known.dsrl is not None:
        cost_returns = np.minimum(cost_returns, known.dsrl.cost_max)
    return float(np.mean(returns - stage.penalty * cost_returns))


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
