"""The two shapes trajectories travel in: one episode, and all episodes of a dataset laid flat."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from feedbackgen.errors import DataError

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.integer]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode. ``T`` steps; observations and states have one row more.

    Costs are NaN throughout where data made elsewhere tells none.

    Raises:
        DataError: an array has a wrong shape or holds a value that is not finite.
    """

    observations: FloatArray  # (T + 1, O)
    actions: FloatArray  # (T, A)
    rewards: FloatArray  # (T,)
    costs: FloatArray  # (T,), of the step itself
    cost_terms: dict[str, FloatArray] = field(default_factory=dict)  # upstream's name -> (T,)
    terminations: BoolArray  # (T,)
    truncations: BoolArray  # (T,)
    seed: int  # given to reset; -1 where data made elsewhere tells none
    policy: str  # behaviour policy id
    states: FloatArray | None = None  # (T + 1, S), simulator states

    def __post_init__(self):
        n_steps = len(self.actions)
        if n_steps == 0:
            raise DataError("episode: expected at least one step, got none")
        steps = {"rewards": self.rewards, "costs": self.costs, "terminations": self.terminations}
        steps |= {"truncations": self.truncations} | self.cost_terms
        for name, values in steps.items():
            if np.shape(values) != (n_steps,):
                raise DataError(f"{name}: expected shape ({n_steps},), got {np.shape(values)}")
        rows = {"observations": self.observations}
        if self.states is not None:
            rows["states"] = self.states
        for name, values in rows.items():
            if values.ndim != 2 or len(values) != n_steps + 1:
                raise DataError(f"{name}: expected {n_steps + 1} rows for {n_steps} actions, got shape {values.shape}")
        if self.actions.ndim != 2:
            raise DataError(f"actions: expected shape (T, A), got {self.actions.shape}")
        for name, values in (steps | rows | {"actions": self.actions}).items():
            if name != "costs" or self.has_costs:
                require_finite(name, values)

    @property
    def n_steps(self) -> int:
        return len(self.actions)

    @property
    def has_costs(self) -> bool:
        return not np.isnan(self.costs).all()

    @property
    def return_(self) -> float:
        return float(self.rewards.sum())

    @property
    def cost_return(self) -> float:
        return float(self.costs.sum())


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """A whole dataset in flat memory: the steps of episode ``i`` are ``starts[i]:starts[i + 1]``.

    ``rewards`` and ``costs`` are None when opened for a learner, who may never see them. Costs are NaN throughout where
    the dataset tells none.
    """

    observations: FloatArray  # (n_steps, O), the observation before each step
    final_observations: FloatArray  # (n_episodes, O)
    actions: FloatArray  # (n_steps, A)
    terminations: BoolArray  # (n_steps,)
    starts: IntArray  # (n_episodes + 1,), int64
    rewards: FloatArray | None = None  # (n_steps,)
    costs: FloatArray | None = None  # (n_steps,)
    policies: tuple[str, ...] | None = None  # behaviour policy of each episode

    @property
    def n_episodes(self) -> int:
        return len(self.starts) - 1

    @property
    def n_steps(self) -> int:
        return int(self.starts[-1])

    @property
    def lengths(self) -> IntArray:
        return np.diff(self.starts)


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What a teacher looks at: rewards and costs of a whole dataset, without observations and actions."""

    rewards: FloatArray  # (n_steps,)
    costs: FloatArray  # (n_steps,)
    starts: IntArray  # (n_episodes + 1,), int64


def require_finite(name: str, values: FloatArray) -> None:
    """Refuse NaN and infinity, naming the first place.

    Raises:
        DataError: a value is not finite.
    """
    if np.issubdtype(values.dtype, np.inexact) and not np.isfinite(values).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise DataError(f"{name}: expected finite values, got {values[place]} at index {place}")
