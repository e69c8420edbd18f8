"""The algorithms there are, and what a file of a user's own must hold to be one more.

``fbgen train mine.py FEEDBACK`` runs the algorithm in mine.py, whose ``METHOD`` is a `Method`.
"""

import dataclasses
import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from feedbackgen.errors import RecipeError
from presa.algorithms import bc, bc_safe, bcq_lag, cdt, cpl, cpl_safety_first, cpq, presa, reference, safe_rlhf, trac
from presa.candidates import CandidatePolicy
from presa.policy import GaussianPolicy
from presa.transformer import DecisionTransformer


class Learner(Protocol):
    """An algorithm at work, built as ``learner(data, config, seed)`` from a `presa.batch.LearningData`.

    One that sees rewards is built from a `presa.true_rewards.RewardedData` instead.
    """

    n_steps: int  # updates in all
    policy: GaussianPolicy | CandidatePolicy | DecisionTransformer  # what is saved after the last

    def update(self, step: int) -> tuple[str, dict[str, float]]:
        """Take update ``step`` of 0 .. n_steps - 1; the phase's name, and what to log, ``loss`` among it.

        What it draws must follow from the seed and ``step`` alone, so that a resumed run ends with the same bytes.
        """

    def state(self) -> dict[str, Tensor]:
        """All that going on after an interruption needs."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` gave."""


class Method(NamedTuple):
    """What there is to know of an algorithm to run it."""

    config: type  # a frozen dataclass; its fields may be dataclasses in turn
    presets: Mapping[str, Any]  # configurations by name, ``default`` among them
    learner: type  # a `Learner`
    sees_rewards: bool = False  # True: it learns from the true rewards and costs, for reference only
    reads_labels: bool = True  # False: any feedback on a dataset gives the same policy


METHODS = {
    "bc": Method(bc.BCConfig, bc.PRESETS, bc.BehaviourCloning, reads_labels=False),
    "bc-safe": Method(bc_safe.BCSafeConfig, bc_safe.PRESETS, bc_safe.SafeBehaviourCloning),
    "reference": Method(reference.ReferenceConfig, reference.PRESETS, reference.Reference),
    "cpl": Method(cpl.CPLConfig, cpl.PRESETS, cpl.CPL),
    "cpl-safety-first": Method(
        cpl_safety_first.CPLSafetyFirstConfig, cpl_safety_first.PRESETS, cpl_safety_first.CPLSafetyFirst
    ),
    "safe-rlhf": Method(safe_rlhf.SafeRLHFConfig, safe_rlhf.PRESETS, safe_rlhf.SafeRLHF),
    "trac": Method(trac.TraCConfig, trac.PRESETS, trac.TraC),
    "presa": Method(presa.PreSaConfig, presa.PRESETS, presa.PreSa),
    "bcq-lag": Method(bcq_lag.BCQLagConfig, bcq_lag.PRESETS, bcq_lag.BCQLag, sees_rewards=True, reads_labels=False),
    "cpq": Method(cpq.CPQConfig, cpq.PRESETS, cpq.CPQ, sees_rewards=True, reads_labels=False),
    "cdt": Method(cdt.CDTConfig, cdt.PRESETS, cdt.CDT, sees_rewards=True, reads_labels=False),
}


def find_method(name: str) -> Method:
    """An algorithm by its name, or from a user's file.

    Args:
        name: one of METHODS, or the path of a Python file.

    Raises:
        RecipeError: no such name or file, or the file does not hold an algorithm.
    """
    if name in METHODS:
        return METHODS[name]
    if name.endswith(".py"):
        return _load(Path(name))
    near = get_close_matches(name, METHODS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(METHODS)}, or the file of your own, NAME.py"
    raise RecipeError(f"unknown method {name!r}; {hint}")


def method_name(method: str) -> str:
    """What a method is called in results: a file of the user's by its name without the folder and ``.py``."""
    return Path(method).stem if method.endswith(".py") else method


def method_hash(method: str) -> str | None:
    """SHA-256 of the user's file; of ours, the version of the package says all."""
    return hashlib.sha256(Path(method).read_bytes()).hexdigest() if method.endswith(".py") else None


def _load(path: Path) -> Method:
    if not path.is_file():
        raise RecipeError(f"method {path}: no such file")
    if path.stem in METHODS:
        raise RecipeError(f"method {path}: {path.stem} is the name of one of ours; rename the file")
    return _imported(path, method_hash(str(path)))


@lru_cache
def _imported(path: Path, content_hash: str | None) -> Method:
    """Run the file, once as long as it stays the same: its configurations are of one class then."""
    module_name = f"presa_user_method_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything
        raise RecipeError(f"method {path}: importing it failed ({type(error).__name__}: {error})") from error
    method = getattr(module, "METHOD", None)
    if not isinstance(method, Method):
        raise RecipeError(f"method {path}: no METHOD; expected METHOD = Method(config, presets, learner)")
    if not (isinstance(method.config, type) and dataclasses.is_dataclass(method.config)):
        raise RecipeError(f"method {path}: expected a dataclass as config, got {method.config!r}")
    if "default" not in method.presets or not all(isinstance(each, method.config) for each in method.presets.values()):
        raise RecipeError(f"method {path}: expected presets of {method.config.__name__}, 'default' among them")
    return method
