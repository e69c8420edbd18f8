"""Safety-Gymnasium's 71 tasks behind our contract, from upstream's own code."""

import os
import sys
import warnings
import weakref
from functools import lru_cache

if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    # Headless: MuJoCo reads this when it is imported, and would look for a display otherwise.
    os.environ.setdefault("MUJOCO_GL", "egl")

import mujoco
import numpy as np

from feedbackgen.environments.upstream import load_builder, load_velocity_class
from feedbackgen.errors import DataError, MissingDependency
from feedbackgen.tasks import Task
from feedbackgen.types import FloatArray, require_finite

STATE = mujoco.mjtState.mjSTATE_INTEGRATION


class SafetyEnv:
    """One Safety-Gymnasium task.

    ``reset`` returns ``(observation, info)``, ``step`` returns ``(observation, reward, cost, terminated, truncated,
    info)``; the step's cost is 0 or 1, and ``info`` of both holds every cost term under upstream's name.
    """

    def __init__(self, task: Task):
        self.task = task.name
        self.horizon = task.horizon
        self._navigation = task.suite == "safety-navigation"
        with warnings.catch_warnings():
            # Upstream bounds its spaces by float64's largest number, which Gymnasium's float32 check overflows on.
            warnings.simplefilter("ignore")
            if self._navigation:
                self._env = _builder()(task_id=task.name, config={"agent_name": task.robot})
            else:
                self._env = _velocity_class(task.kind)()
        self.observation_space = self._env.observation_space
        self.action_space = self._env.action_space
        self.cost_terms: tuple[str, ...] = ()
        self._n_steps: int | None = None  # of this episode; None before a reset and after the end
        self._renderer: mujoco.Renderer | None = None
        self._drawn: tuple = ()  # model, width and height that the renderer was made for

    @property
    def model(self) -> mujoco.MjModel:
        return self._env.task.model if self._navigation else self._env.model

    @property
    def data(self) -> mujoco.MjData:
        return self._env.task.data if self._navigation else self._env.data

    def reset(self, *, seed: int | None = None) -> tuple[FloatArray, dict]:
        """Start an episode; the same seed gives the same layout and state, no seed a fresh one."""
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        observation, _ = self._env.reset(seed=seed)
        self._n_steps = 0
        if self._navigation:
            self.cost_terms = tuple(name for name in self._env.cost if name != "cost_sum")
        return observation, dict.fromkeys(self.cost_terms, 0.0)

    def step(self, action: FloatArray) -> tuple[FloatArray, float, float, bool, bool, dict]:
        """Take one step.

        Raises:
            DataError: an action of a wrong shape or not finite, or no episode is under way.
        """
        if self._n_steps is None:
            raise DataError(f"{self.task}: step before reset, or after the end of the episode; call reset first")
        action = np.asarray(action, dtype=np.float64)
        if action.shape != self.action_space.shape:
            raise DataError(f"action of {self.task}: expected shape {self.action_space.shape}, got {action.shape}")
        require_finite(f"action of {self.task}", action)
        observation, reward, cost, terminated, truncated, upstream_info = self._env.step(action)
        self._n_steps += 1
        truncated = bool(truncated or self._n_steps >= self.horizon)
        info = {name: float(upstream_info.get(name, 0.0)) for name in self.cost_terms}
        if terminated or truncated:
            self._n_steps = None
        return observation, float(reward), float(cost), bool(terminated), truncated, info

    def get_state(self) -> FloatArray:
        """The simulator's state, and where the bodies of this episode's layout stand, (S,)."""
        state = np.empty(mujoco.mj_stateSize(self.model, STATE))
        mujoco.mj_getState(self.model, self.data, state, STATE)
        return np.concatenate([state, self.model.body_pos.ravel(), self.model.body_quat.ravel()])

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

    def render(self, *, width: int = 480, height: int = 480, camera: str | None = None) -> np.ndarray:
        """What a camera sees, (height, width, 3) uint8; by default from above (navigation) or beside (velocity).

        Raises:
            MissingDependency: no OpenGL library can draw without a display.
        """
        wanted = (self.model, width, height)
        if self._renderer is None or self._drawn != wanted:
            self._close_renderer()
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
        return self._renderer.render()

    def close(self) -> None:
        self._close_renderer()
        self._env.close()

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


@lru_cache
def _builder() -> type:
    return load_builder()


@lru_cache
def _velocity_class(kind: str) -> type:
    return load_velocity_class(kind)
