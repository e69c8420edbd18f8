"""Behaviour policies: what acts while a dataset is collected."""

from feedbackgen.behaviour.policies import load_policy, parse_share
from feedbackgen.behaviour.zoo import PolicyInfo, list_policies

__all__ = ["PolicyInfo", "list_policies", "load_policy", "parse_share"]
