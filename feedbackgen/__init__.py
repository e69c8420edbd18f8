"""Make offline data and feedback on it."""

# ruff: noqa: E402
from feedbackgen import arithmetic

arithmetic.choose_common()  # before numpy is imported

from feedbackgen.environments import make_env, make_env_batch
from feedbackgen.environments.gymnasium_twins import register as _register_gymnasium_twins
from feedbackgen.environments.metadrive import register as _register_metadrive
from feedbackgen.tasks import TASKS, get_task

__all__ = ["TASKS", "get_task", "load_trajectories", "make_env", "make_env_batch", "open_feedback"]

_register_gymnasium_twins()
_register_metadrive()


def __getattr__(name: str):
    """Load the readers, which need h5py and zarr, when first asked for."""
    if name == "open_feedback":
        from feedbackgen.store import open_feedback

        return open_feedback
    if name == "load_trajectories":
        from feedbackgen.episodes import load_trajectories

        return load_trajectories
    raise AttributeError(f"module 'feedbackgen' has no attribute {name!r}")
