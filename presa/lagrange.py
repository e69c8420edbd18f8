"""The multiplier that enforces a constraint ``value >= threshold`` by dual ascent."""


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

    def state(self) -> tuple[float, float, float]:
        return self.value, self.violation, float(self.n_updates_at_cap)

    def load_state(self, state: tuple[float, float, float]) -> None:
        self.value, self.violation = state[0], state[1]
        self.n_updates_at_cap = int(state[2])
