"""Environments of every suite behind one contract."""

from feedbackgen.environments.make import make_env, make_env_batch

__all__ = ["make_env", "make_env_batch"]
