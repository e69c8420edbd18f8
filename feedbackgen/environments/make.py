"""One door to every environment."""

from typing import TYPE_CHECKING

from feedbackgen.errors import SimulatorMissing
from feedbackgen.tasks import get_task

if TYPE_CHECKING:
    from feedbackgen.environments.safety_gymnasium import SafetyEnv

INSTALL_SIMULATOR = "pip install 'feedbackgen[sim]' && pip install --no-deps safety-gymnasium==1.0.0"


def make_env(task: str) -> "SafetyEnv":
    """Make a task's environment.

    ``reset(seed=...)`` returns ``(observation, info)``; ``step(action)`` returns ``(observation, reward, cost,
    terminated, truncated, info)``. Environments neither pickle nor deepcopy: make them in the process that steps them.

    Raises:
        TaskError: no such task.
        SimulatorMissing: MuJoCo or safety-gymnasium is not installed.
    """
    known = get_task(task)
    try:
        # Upstream is loaded when the first of its environments is made.
        from feedbackgen.environments.safety_gymnasium import SafetyEnv

        return SafetyEnv(known)
    except ModuleNotFoundError as error:
        raise SimulatorMissing(
            f"{task} needs the simulator ({error.name} is not installed): {INSTALL_SIMULATOR}"
        ) from error
