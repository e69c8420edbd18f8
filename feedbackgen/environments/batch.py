"""What every batch of environments shares: the step's result, the check of its actions, the simulator's state."""

from typing import NamedTuple

import mujoco
import numpy as np

from feedbackgen.errors import DataError
from feedbackgen.types import BoolArray, FloatArray, IntArray, require_finite

STATE = mujoco.mjtState.mjSTATE_INTEGRATION


class Transitions(NamedTuple):
    """One step of n environments."""

    observations: FloatArray  # (n, O)
    rewards: FloatArray  # (n,)
    costs: FloatArray  # (n,), 0 or 1
    terminated: BoolArray  # (n,)
    truncated: BoolArray  # (n,)
    cost_terms: dict[str, FloatArray]  # each (n,)


def checked_actions(batch, actions, lanes: IntArray) -> FloatArray:
    """Actions as float64, (n, A), for lanes that are all in an episode.

    Raises:
        DataError: a lane has no episode under way, or actions of a wrong shape or not finite.
    """
    if np.any(batch.n_steps[lanes] < 0):
        raise DataError(f"{batch.task}: step before reset, or after the end of the episode; call reset first")
    actions = np.asarray(actions, dtype=np.float64)
    expected = (len(lanes), *batch.action_space.shape)
    if actions.shape != expected:
        raise DataError(f"action of {batch.task}: expected shape {expected}, got {actions.shape}")
    require_finite(f"action of {batch.task}", actions)
    return actions


def leave_untimed() -> None:
    """Keep MuJoCo from reading the clock around every stage of every substep, which takes 6 to 11 % of a step.

    Its Python package starts these timers anew with each ``MjData``; a callback that the user has set stays.
    """
    if mujoco.get_mjcb_time() is None:
        mujoco.set_mjcb_time(None)


def simulator_state(model: mujoco.MjModel, data: mujoco.MjData) -> FloatArray:
    """The simulator's state, and where the bodies of this episode's layout stand, (S,)."""
    state = np.empty(mujoco.mj_stateSize(model, STATE))
    mujoco.mj_getState(model, data, state, STATE)
    return np.concatenate([state, model.body_pos.ravel(), model.body_quat.ravel()])
