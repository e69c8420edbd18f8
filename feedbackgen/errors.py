"""The errors we raise for bad input: one line that names the thing, what was expected, and the way out."""


class FeedbackgenError(Exception):
    """Anything the user can put right; the command line prints it as one line and exits with 1."""


class TaskError(FeedbackgenError, ValueError):
    """A task that does not exist, or that cannot do what was asked."""


class DataError(FeedbackgenError, ValueError):
    """Trajectories or arrays that are absent, damaged, of a wrong shape, or not finite."""


class RecipeError(FeedbackgenError, ValueError):
    """A recipe or configuration with an unknown key, a wrong type, or a value out of range."""


class PolicyError(FeedbackgenError, ValueError):
    """A behaviour policy that does not exist, belongs to another task, or holds no usable weights."""


class StoreError(FeedbackgenError, OSError):
    """A feedback store, checkpoint or run folder that cannot be read or written."""


class OutputExists(StoreError):
    """An output that is already there; nothing is overwritten without force."""


class MissingDependency(FeedbackgenError, ImportError):
    """An optional package that the asked work needs."""


class SimulatorMissing(MissingDependency):
    """The simulator packages are not installed."""
