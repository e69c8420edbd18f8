"""Trajectories laid in a row, each step with the observation after it, as DSRL and OmniSafe store them."""

import numpy as np

from feedbackgen.episodes import DatasetInfo
from feedbackgen.errors import DataError
from feedbackgen.types import BoolArray, Episode, FloatArray, IntArray, require_finite


def trajectory_bounds(ends: BoolArray, *, drop_tail: bool, place: str, flags: str) -> IntArray:
    """First step of each trajectory and, last, the end of the last one, (n + 1,), int64.

    Args:
        ends: True at each trajectory's last step, (n_steps,).
        drop_tail: leave out steps after the last end, as the peers' readers do without a word.
        place: named in errors.
        flags: the flags' name in errors.

    Raises:
        DataError: no end at all, or steps after the last one and ``drop_tail`` is not given.
    """
    last_steps = np.flatnonzero(ends)
    if len(last_steps) == 0:
        raise DataError(f"{place}: {flags} end no trajectory; expected a flag at the last step of each")
    n_tail = len(ends) - 1 - int(last_steps[-1])
    if n_tail and not drop_tail:
        raise DataError(
            f"{place}: the last {n_tail} steps end without {flags}; "
            "flag the last one, or leave the tail out with --drop-tail"
        )
    return np.concatenate([[0], last_steps + 1])


def flat_episode(
    *,
    observations: FloatArray,
    next_observations: FloatArray,
    actions: FloatArray,
    rewards: FloatArray,
    costs: FloatArray,
    terminations: BoolArray,
    truncations: BoolArray,
    policy: str,
    following: str,
) -> Episode:
    """The episode of one trajectory's rows.

    Args:
        observations: (T, O).
        next_observations: (T, O), of which only the last is not also the next step's observation.
        actions: (T, A).
        rewards: (T,).
        costs: (T,).
        terminations: (T,).
        truncations: (T,).
        policy: what the data is called, as it names no behaviour policy.
        following: the peer's name of the next observations, in errors.

    Raises:
        DataError: a value is not finite, or a next observation is not that of the next step.
    """
    rewards, costs = rewards.astype(np.float64), costs.astype(np.float64)
    # An episode may do without costs, and holds a single next observation.
    for name, values in (("observations", observations), (following, next_observations), ("costs", costs)):
        require_finite(name, values)
    broken = np.any(next_observations[:-1] != observations[1:], axis=1)
    if broken.any():
        step = int(np.argmax(broken))
        raise DataError(
            f"{following}: those of step {step} are not the observations of step {step + 1}; "
            "a dataset holds one observation between two steps, so flag the break as an end"
        )
    return Episode(
        observations=np.concatenate([observations, next_observations[-1:]]),
        actions=actions,
        rewards=rewards,
        costs=costs,
        terminations=terminations,
        truncations=truncations,
        seed=-1,
        policy=policy,
    )


def ends_of(n_steps: int) -> BoolArray:
    """True at the last step alone, (n_steps,)."""
    return np.arange(n_steps) == n_steps - 1


def require_costs(info: DatasetInfo, layout: str) -> None:
    """Refuse a dataset that tells no costs."""
    if not info.has_costs:
        raise DataError(f"dataset {info.dataset_id}: {layout} needs costs, and it was imported without")
