"""Environments of every suite behind one contract."""

from feedbackgen.environments.make import make_env

__all__ = ["make_env"]
