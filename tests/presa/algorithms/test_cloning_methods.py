from dataclasses import replace

import numpy as np
import pytest
import torch

from feedbackgen.errors import DataError
from presa.algorithms.bc import BCConfig, BehaviourCloning
from presa.algorithms.bc_safe import BCSafeConfig, SafeBehaviourCloning
from presa.algorithms.reference import Reference, ReferenceConfig


def learnt_gain(learner) -> float:
    for step in range(learner.n_steps):
        learner.update(step)
    with torch.no_grad():
        below, above = learner.policy(torch.tensor([[-1.0], [1.0]])).flatten().tolist()
    return (above - below) / 2


def test_bc_of_one_gaussian_clones_the_mean_of_all_episodes(data, small_config):
    config = BCConfig(policy=replace(small_config.policy, n_components=1), cloning=small_config.cloning)
    assert learnt_gain(BehaviourCloning(data, config, 0)) == pytest.approx(0.3, abs=0.08)  # (0.9 + 0.4 - 0.4) / 3


def test_bc_safe_clones_the_mean_of_the_safe_episodes(data, small_config):
    config = BCSafeConfig(policy=small_config.policy, cloning=small_config.cloning)
    assert learnt_gain(SafeBehaviourCloning(data, config, 0)) == pytest.approx(0.0, abs=0.08)  # (0.4 - 0.4) / 2


def test_the_reference_clones_the_safe_and_preferred_episodes(noisy_data, small_config):
    config = ReferenceConfig(policy=small_config.policy, cloning=small_config.cloning, refining=small_config.refining)
    assert 0.2 < learnt_gain(Reference(noisy_data, config, 0)) < 0.45


def test_bc_needs_no_label(data, small_config):
    bare = replace(
        data, pairs=data.pairs[:0], preferences=data.preferences[:0], safety_segments=data.safety_segments[:0],
        safety_labels=data.safety_labels[:0],
    )  # fmt: skip
    config = BCConfig(policy=small_config.policy, cloning=replace(small_config.cloning, n_steps=1))
    assert np.isfinite(learnt_gain(BehaviourCloning(bare, config, 0)))


def test_bc_safe_refuses_labels_that_are_all_unsafe(data, small_config):
    config = BCSafeConfig(policy=small_config.policy, cloning=small_config.cloning)
    with pytest.raises(DataError, match="all 600 labels say unsafe"):
        SafeBehaviourCloning(replace(data, safety_labels=-np.abs(data.safety_labels)), config, 0)
