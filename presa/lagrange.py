"""Multipliers that enforce a constraint: by dual ascent, or by a controller of its violation."""

import warnings

UPDATES_AT_CAP = 200  # in a row, before we warn


class Multiplier:
    """Rises while the constraint is violated, falls while it is met, never below 0 or above its cap."""

    def __init__(self, initial: float, rate: float, cap: float, averaging: float):
        """
        Args:
            initial: value before the first update.
            rate: step per unit of violation.
            cap: upper bound; may be infinite.
            averaging: decay of the violation's moving average, 0 (none) to below 1.
        """
        self.value = initial
        self.violation = 0.0  # moving average of threshold - value
        self.n_updates_at_cap = 0  # in a row
        self._rate, self._cap, self._averaging = rate, cap, averaging

    def update(self, violation: float) -> None:
        """One step of dual ascent; a positive violation says the constraint is not met."""
        self.violation = self._averaging * self.violation + (1 - self._averaging) * violation
        self.value = min(max(self.value + self._rate * self.violation, 0.0), self._cap)
        self.n_updates_at_cap = self.n_updates_at_cap + 1 if self.value >= self._cap else 0

    def warn_at_cap(self) -> None:
        """Say that it rests at its cap, once, after `UPDATES_AT_CAP` updates there."""
        if self.n_updates_at_cap == UPDATES_AT_CAP:
            warnings.warn(
                f"the constraint is not met and its multiplier rests at the cap {self._cap}; "
                "the cap is now what trades return against safety",
                stacklevel=2,
            )

    def state(self) -> tuple[float, float, float]:
        return self.value, self.violation, float(self.n_updates_at_cap)

    def load_state(self, state: tuple[float, float, float]) -> None:
        self.value, self.violation = state[0], state[1]
        self.n_updates_at_cap = int(state[2])


class PIDMultiplier:
    """Proportional, integral and derivative control of a violation, each part never below 0.

    Source: Stooke et al., "Responsive Safety in Reinforcement Learning by PID Lagrangian Methods", ICML 2020.
    """

    def __init__(self, proportional: float, integral: float, derivative: float):
        self._gains = (proportional, integral, derivative)
        self._sum = 0.0
        self._last = 0.0

    def update(self, violation: float) -> float:
        """The multiplier for a violation; a positive one says that the constraint is not met."""
        proportional, integral, derivative = self._gains
        rise = max(violation - self._last, 0.0)
        self._sum = max(self._sum + violation, 0.0)
        self._last = violation
        return proportional * max(violation, 0.0) + integral * self._sum + derivative * rise

    def state(self) -> tuple[float, float]:
        return self._sum, self._last

    def load_state(self, state: tuple[float, float]) -> None:
        self._sum, self._last = state
