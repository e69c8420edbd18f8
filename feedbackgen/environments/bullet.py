"""Bullet-Safety-Gym 1.4.0, the fork that DSRL recorded, as Gymnasium environments that their seed determines.

Upstream draws from numpy's global stream whatever seed reset is given, and a Car's or Drone's controller remembers the
episode before. So each episode is played in a world made anew, as upstream's first one, under a seed of its own.
"""

import ctypes
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from feedbackgen.tasks import Task


class BulletEnv(gymnasium.Env):
    """One task; ``info["cost"]`` is 0 or 1."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, task: Task):
        self._builder = _load_builder()
        self._layout = gymnasium.spec(task.name).kwargs
        self._horizon = task.horizon
        self._world: Any = None
        self._n_steps = 0
        self.action_space = Box(
            np.array(task.action_low, dtype=np.float32), np.array(task.action_high, dtype=np.float32)
        )
        self.observation_space = Box(-np.inf, np.inf, (task.observation_dim,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        self.close()
        with _global_streams(seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # upstream's spaces overflow Gymnasium's check of them
            self._world = self._builder.EnvironmentBuilder(**self._layout)
            observation, info = self._world.reset()
        self._n_steps = 0
        return observation, info

    def step(self, action):
        observation, reward, terminated, _, info = self._world.step(action)
        self._n_steps += 1
        return observation, float(reward), terminated, self._n_steps >= self._horizon, info

    def render(self, *, width: int = 480, height: int = 480) -> np.ndarray:
        """From upstream's camera, which goes along with robots that run, (height, width, 3) uint8; needs no OpenGL."""
        client, camera = self._world.bc, self._world.world.camera
        target = np.array(camera.cam_base_pos, dtype=float)
        if self._layout["task"] == "RunTask":
            target[:2] = self._world.agent.get_position()[:2]
        view = client.computeViewMatrixFromYawPitchRoll(
            cameraTargetPosition=target,
            distance=camera.cam_dist,
            yaw=camera.cam_yaw,
            pitch=camera.cam_pitch,
            roll=0,
            upAxisIndex=2,
        )
        projection = client.computeProjectionMatrixFOV(fov=60, aspect=width / height, nearVal=0.1, farVal=100.0)
        pixels = client.getCameraImage(width, height, view, projection, renderer=client.ER_TINY_RENDERER)[2]
        return np.asarray(pixels, dtype=np.uint8).reshape(height, width, 4)[:, :, :3]

    def close(self):
        if self._world is not None:
            self._world.close()
            self._world = None


def _load_builder() -> ModuleType:
    with redirect_stderr(sys.__stderr__):  # upstream's silencing knows no other
        import bullet_safety_gym  # noqa: F401  registers the layouts
        from bullet_safety_gym.envs import builder

    # Upstream's own leaves a file descriptor open with each world.
    builder.RedirectStream = _silenced
    return builder


@contextmanager
def _silenced(*_) -> Iterator[None]:
    """Keep away from stdout what Bullet, which is C, prints when a world is made."""
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    libc.fflush(None)
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        libc.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


@contextmanager
def _global_streams(seed: int) -> Iterator[None]:
    """Upstream's streams of random numbers start from the seed, and the user's own go on afterwards as if untouched."""
    numpys, pythons = np.random.get_state(), random.getstate()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpys)  # noqa: NPY002
        random.setstate(pythons)
