"""Safety-Gymnasium's 71 tasks behind our contract, from upstream's own code."""

import os
import sys
import weakref

if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    # Headless: MuJoCo reads this when it is imported, and would look for a display otherwise.
    os.environ.setdefault("MUJOCO_GL", "egl")

import mujoco
import numpy as np

from feedbackgen.environments.batch import STATE
from feedbackgen.environments.navigation import NavigationBatch
from feedbackgen.environments.velocity import VelocityBatch
from feedbackgen.errors import DataError, MissingDependency
from feedbackgen.tasks import Task
from feedbackgen.types import FloatArray, require_finite

GROUND = 25  # times as wide as upstream's, where robots run straight on


def make_batch(task: Task, n_environments: int, *, to_draw: bool = False) -> NavigationBatch | VelocityBatch:
    """``n`` environments of one task that step together; those that are not to be drawn leave scenery out."""
    if task.suite == "safety-navigation":
        return NavigationBatch(task, n_environments, to_draw=to_draw)
    return VelocityBatch(task, n_environments)


class SafetyEnv:
    """One Safety-Gymnasium task: a batch of one.

    ``reset`` returns ``(observation, info)``, ``step`` returns ``(observation, reward, cost, terminated, truncated,
    info)``; the step's cost is 0 or 1, and ``info`` of both holds every cost term under upstream's name.
    """

    def __init__(self, task: Task):
        self.task = task.name
        self.horizon = task.horizon
        self._navigation = task.suite == "safety-navigation"
        self._batch = make_batch(task, 1, to_draw=True)
        self.observation_space = self._batch.observation_space
        self.action_space = self._batch.action_space
        self._renderer: mujoco.Renderer | None = None
        self._has_ground = False
        self._drawn: tuple = ()  # model, width and height that the renderer was made for

    @property
    def cost_terms(self) -> tuple[str, ...]:
        """Names of the parts of the cost; known after the first reset."""
        return self._batch.cost_terms

    @property
    def model(self) -> mujoco.MjModel:
        return self._batch.model(0)

    @property
    def data(self) -> mujoco.MjData:
        return self._batch.data(0)

    def reset(self, *, seed: int | None = None) -> tuple[FloatArray, dict]:
        """Start an episode; the same seed gives the same layout and state, no seed a fresh one."""
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        observation = self._batch.reset(0, seed)
        return observation, dict.fromkeys(self.cost_terms, 0.0)

    def step(self, action: FloatArray) -> tuple[FloatArray, float, float, bool, bool, dict]:
        """Take one step.

        Raises:
            DataError: an action of a wrong shape or not finite, or no episode is under way.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != self.action_space.shape:
            raise DataError(f"action of {self.task}: expected shape {self.action_space.shape}, got {action.shape}")
        require_finite(f"action of {self.task}", action)
        observations, rewards, costs, terminated, truncated, terms = self._batch.step(action[None])
        info = {name: float(values[0]) for name, values in terms.items()}
        return observations[0], float(rewards[0]), float(costs[0]), bool(terminated[0]), bool(truncated[0]), info

    def get_state(self) -> FloatArray:
        """The simulator's state, and where the bodies of this episode's layout stand, (S,)."""
        return self._batch.get_state(0)

    def set_state(self, state: FloatArray) -> None:
        """Put the simulator where `get_state` found it, in an episode of the same task."""
        size = mujoco.mj_stateSize(self.model, STATE)
        expected = size + self.model.nbody * 7
        if np.shape(state) != (expected,):
            raise DataError(f"state of {self.task}: expected shape ({expected},), got {np.shape(state)}")
        positions, quaternions = np.split(state[size:], [self.model.nbody * 3])
        self.model.body_pos[:] = positions.reshape(-1, 3)
        self.model.body_quat[:] = quaternions.reshape(-1, 4)
        mujoco.mj_setState(self.model, self.data, state[:size], STATE)
        mujoco.mj_forward(self.model, self.data)
        self._batch.recall(0)

    def render(self, *, width: int = 480, height: int = 480, camera: str | None = None) -> np.ndarray:
        """What a camera sees, (height, width, 3) uint8; by default from above (navigation) or beside (velocity).

        Raises:
            MissingDependency: no OpenGL library can draw without a display.
        """
        wanted = (self.model, width, height)
        if self._renderer is None or self._drawn != wanted:
            self._close_renderer()
            self._prepare_drawing(width, height)
            try:
                self._renderer = mujoco.Renderer(self.model, height=height, width=width)
            except Exception as error:  # each GL backend raises errors of its own
                raise MissingDependency(
                    f"cannot render with MUJOCO_GL={os.environ.get('MUJOCO_GL')} ({error}); install a GL library "
                    "(Debian: apt install libegl1, or libosmesa6 with MUJOCO_GL=osmesa)"
                ) from error
            self._drawn = wanted
            # Its own finaliser would run too late at exit, when the GL library is gone.
            self._finalise_renderer = weakref.finalize(self, self._renderer.close)
        everything = mujoco.MjvOption()
        everything.geomgroup[:] = 1  # upstream puts hazards, goals and the like in groups that are hidden by default
        self._renderer.update_scene(self.data, camera=camera or self._default_camera(), scene_option=everything)
        # A mirroring floor takes as long again as all the rest, without a graphics card.
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        return self._renderer.render()

    def close(self) -> None:
        self._close_renderer()
        self._batch.close()

    def _prepare_drawing(self, width: int, height: int) -> None:
        """What is drawn and nothing of what is simulated: pictures of that size, and ground as far as one runs."""
        model = self.model
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        if not self._navigation and not self._has_ground:
            # A fast robot leaves upstream's ground, and without it one sees no speed; collisions know no edge anyway.
            planes = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
            model.geom_size[planes, :2] *= GROUND
            for material in set(model.geom_matid[planes]) - {-1}:
                model.mat_texrepeat[material] *= GROUND
            self._has_ground = True

    def _default_camera(self):
        if not self._navigation:
            return "track"
        camera = mujoco.MjvCamera()
        camera.lookat = (0.0, 0.0, 0.0)
        camera.distance, camera.azimuth, camera.elevation = 7.0, 90.0, -60.0
        return camera

    def _close_renderer(self) -> None:
        if self._renderer is not None:
            self._finalise_renderer()
            self._renderer = None
