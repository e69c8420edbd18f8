"""Learn policies from feedback (PyTorch)."""

import feedbackgen  # noqa: F401  chooses numpy's arithmetic, before our modules import numpy
