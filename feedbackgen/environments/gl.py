"""Which OpenGL library draws without a display, chosen before MuJoCo is imported."""

import os
import subprocess
import sys

from feedbackgen.dsrl import BULLET
from feedbackgen.errors import MissingDependency
from feedbackgen.tasks import TASKS

BACKENDS = ("egl", "osmesa")  # the faster first
PROBE = "import mujoco; context = mujoco.GLContext(8, 8); context.make_current()"
PROBE_SECONDS = 60.0


def choose_gl() -> str:
    """Set ``MUJOCO_GL`` to a library that draws on this machine, unless it is set or there is a display.

    Each is tried in a process of its own: a library may be there and yet find no device, and some end the process.

    Returns:
        The chosen library; ``display`` where MuJoCo needs none.

    Raises:
        MissingDependency: none of them draws.
    """
    chosen = os.environ.get("MUJOCO_GL")
    if chosen:
        return chosen
    if sys.platform != "linux" or os.environ.get("DISPLAY"):
        return "display"
    for backend in BACKENDS:
        if _draws(backend):
            os.environ["MUJOCO_GL"] = backend
            return backend
    raise MissingDependency(
        "no GL library draws without a display (tried MUJOCO_GL=egl and osmesa); install one "
        "(Debian: apt install libegl1 libgl1-mesa-dri, or libosmesa6)"
    )


def prepare_drawing(task: str) -> None:
    """`choose_gl`, for the tasks that MuJoCo draws; Bullet needs no OpenGL.

    Raises:
        MissingDependency: no library draws.
    """
    if task not in TASKS or TASKS[task].suite != BULLET:
        choose_gl()


def _draws(backend: str) -> bool:
    environment = os.environ | {"MUJOCO_GL": backend}
    try:
        result = subprocess.run(
            [sys.executable, "-c", PROBE], env=environment, capture_output=True, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False
    return result.returncode == 0
