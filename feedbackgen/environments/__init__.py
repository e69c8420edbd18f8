"""Environments of every suite behind one contract."""

from feedbackgen.environments.make import is_installed, make_env, make_env_batch

__all__ = ["is_installed", "make_env", "make_env_batch"]
