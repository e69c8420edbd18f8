"""Which way each task's policies are made: a search of controllers, one network for all cautions, or several."""

from collections.abc import Callable
from pathlib import Path

from feedbackgen.behaviour.controllers import parameters_of
from feedbackgen.behaviour.zoo import PolicyInfo
from feedbackgen.errors import PolicyError

# The ways import the simulator and torch, so each is loaded when it is gone.
BY_BRANCHES = ("SafetyPointCircle1-v0", "SafetyHalfCheetahVelocity-v1")
BY_FAMILY = ("SafetyAntVelocity-v1", "SafetyHopperVelocity-v1", "SafetyWalker2dVelocity-v1")


def train_population(
    task: str, *, seed: int, out: Path, progress: Callable[[int, int], None] | None = None, n_episodes: int = 50
) -> list[PolicyInfo]:
    """Make, measure and write every policy of a task; a killed run goes on where it was.

    Args:
        task: one of DSRL's navigation and velocity tasks, or of Bullet's for Ball and Car.
        seed: fixes every draw; the same seed on the same machine and versions gives the same weights.
        out: folder for ``<name>.npz`` and ``policies.json``.
        progress: called with the part done and all there is to do.
        n_episodes: episodes each policy's quality is measured on.

    Raises:
        PolicyError: no training plan for the task, or the folder holds another run.
        MissingDependency: the extra that the task's way needs is not installed.
    """
    command = f"fbgen policies train {task} --seed {seed}"
    if task in BY_BRANCHES:
        from feedbackgen.behaviour.training import train_branches

        return train_branches(task, seed=seed, out=out, command=command, progress=progress, n_episodes=n_episodes)
    if task in BY_FAMILY:
        from feedbackgen.behaviour.families import train_family

        return train_family(task, seed=seed, out=out, command=command, progress=progress, n_episodes=n_episodes)
    try:
        parameters_of(task)
    except PolicyError as error:
        planned = ", ".join((*BY_BRANCHES, *BY_FAMILY))
        raise PolicyError(f"no training plan for {task}: neither one of {planned}; nor ({error})") from error
    from feedbackgen.behaviour.search import search_population

    return search_population(task, seed=seed, out=out, command=command, progress=progress, n_episodes=n_episodes)
