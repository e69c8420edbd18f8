"""One door to every environment."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from feedbackgen.dsrl import BULLET
from feedbackgen.errors import SimulatorMissing
from feedbackgen.tasks import Task, get_task

if TYPE_CHECKING:
    from feedbackgen.environments.gymnasium_suites import GymnasiumBatch, GymnasiumEnv
    from feedbackgen.environments.navigation import NavigationBatch
    from feedbackgen.environments.safety_gymnasium import SafetyEnv
    from feedbackgen.environments.velocity import VelocityBatch

OURS = ("safety-navigation", "safety-velocity")
# Of both simulators the pins cannot be met, so each comes without its dependencies.
INSTALL_SIMULATOR = "pip install 'feedbackgen[sim]' && pip install --no-deps safety-gymnasium==1.0.0"
INSTALL_BULLET = "pip install 'feedbackgen[bullet]' && pip install --no-deps bullet-safety-gym==1.4.0"


def make_env(task: str) -> "SafetyEnv | GymnasiumEnv":
    """Make a task's environment.

    ``reset(seed=...)`` returns ``(observation, info)``; ``step(action)`` returns ``(observation, reward, cost,
    terminated, truncated, info)``. Environments neither pickle nor deepcopy: make them in the process that steps them.

    Raises:
        TaskError: no such task.
        SimulatorMissing: MuJoCo or safety-gymnasium, or Bullet-Safety-Gym, is not installed.
    """
    known = get_task(task)
    with _simulator(known):
        if known.suite not in OURS:
            from feedbackgen.environments.gymnasium_suites import GymnasiumEnv

            return GymnasiumEnv(known)
        # Upstream is loaded when the first of its environments is made.
        from feedbackgen.environments.safety_gymnasium import SafetyEnv

        return SafetyEnv(known)


def make_env_batch(task: str, n_environments: int) -> "NavigationBatch | VelocityBatch | GymnasiumBatch":
    """Make ``n`` environments of a task that step together in one thread, several times faster than one by one.

    ``reset(lane, seed)`` starts one of them and returns its observation, (O,); ``step(actions, lanes=None)`` steps all,
    or those of ``lanes``, and returns `Transitions`. A lane that has ended is to be reset before its next step. What
    comes out of a lane does not depend on the others, nor on how many there are. Environments of other suites step in
    turn, and there may be fewer than asked for.

    Raises:
        TaskError: no such task.
        SimulatorMissing: MuJoCo or safety-gymnasium, or Bullet-Safety-Gym, is not installed.
    """
    known = get_task(task)
    with _simulator(known):
        if known.suite not in OURS:
            from feedbackgen.environments.gymnasium_suites import GymnasiumBatch

            return GymnasiumBatch(known, n_environments)
        from feedbackgen.environments.safety_gymnasium import make_batch

        return make_batch(known, n_environments)


def is_installed(task: str) -> bool:
    """Whether the package that a task's environment comes from is here.

    Raises:
        TaskError: no such task.
    """
    suite = get_task(task).suite
    package = "bullet_safety_gym" if suite == BULLET else "safety_gymnasium" if suite in OURS else "gymnasium"
    return find_spec(package) is not None


@contextmanager
def _simulator(task: Task) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        install = INSTALL_BULLET if task.suite == BULLET else INSTALL_SIMULATOR
        raise SimulatorMissing(f"{task.name} needs the simulator ({error.name} is not installed): {install}") from error
