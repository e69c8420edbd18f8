from dataclasses import replace

import numpy as np
import pytest
import torch

from feedbackgen.errors import DataError, RecipeError
from presa.cloning import (
    CloningConfig,
    adam,
    observation_ranges,
    safe_segment_weights,
    set_learning_rate,
    step_distribution,
)
from presa.policy import GaussianPolicy, PolicyConfig

STARTS = np.array([0, 4, 8])


def test_steps_are_drawn_by_weight():
    config = CloningConfig(start_share=0.0)
    distribution = step_distribution(np.array([1, 1, 1, 1, 0, 0, 2, 2.0]), STARTS, config)
    assert distribution == pytest.approx([1 / 8] * 4 + [0, 0, 1 / 4, 1 / 4])


def test_starts_of_episodes_are_drawn_more_often():
    # half of the batch from the two first steps, half from all eight: 0.5 / 8 + 0.5 / 2
    distribution = step_distribution(np.ones(8), STARTS, CloningConfig(start_share=0.5, start_steps=1))
    assert distribution[[0, 4]] == pytest.approx([0.3125] * 2)
    assert distribution.sum() == pytest.approx(1.0)


def test_no_weight_at_all_is_refused():
    with pytest.raises(DataError, match="no step to clone"):
        step_distribution(np.zeros(8), STARTS, CloningConfig())


def test_a_step_weighs_as_much_as_there_are_safe_segments_that_hold_it(data):
    two = replace(
        data,
        segment_starts=np.array([0, 2, 10]), segment_lengths=np.array([4, 4, 4]), segment_episodes=np.zeros(3, int),
        safety_segments=np.array([0, 1, 2]), safety_labels=np.array([1, 1, -1]),
    )  # fmt: skip
    weights = safe_segment_weights(two)
    assert weights[:12].tolist() == [1, 1, 2, 2, 1, 1, 0, 0, 0, 0, 0, 0]


def test_the_learning_rate_runs_down_a_straight_line():
    optimizer = adam(GaussianPolicy(1, 1, PolicyConfig(hidden_sizes=(2,), encoding_bins=0), 0), 1.0)
    set_learning_rate(optimizer, CloningConfig(n_steps=10, learning_rate=1.0, learning_rate_final=0.2), 5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.6)


def test_ranges_leave_out_the_rarest_values_and_are_never_empty():
    rare = torch.zeros(10_000, 2)
    rare[:, 0] = torch.linspace(-1, 1, 10_000)
    rare[0, 0], rare[-1, 0] = -10.0, 10.0
    low, high = observation_ranges(rare)
    # 0.001 of 10,000 evenly spaced values lie beyond -0.998 and 0.998; the second observation never changes
    np.testing.assert_allclose([low[0], high[0]], [-0.998, 0.998], atol=1e-4)
    np.testing.assert_allclose([low[1], high[1]], [0.0, 0.01], atol=1e-6)


@pytest.mark.parametrize(
    "values", [{"n_steps": -1}, {"batch_size": 0}, {"learning_rate": 0.0}, {"start_share": 1.0}, {"start_steps": -1}]
)
def test_a_value_out_of_range_is_refused(values):
    with pytest.raises(RecipeError, match=next(iter(values))):
        CloningConfig(**values)


def test_the_cloning_loss_falls_with_the_gradient_of_the_likelihood():
    policy = GaussianPolicy(1, 1, PolicyConfig(hidden_sizes=(4,), encoding_bins=0), 0).double()
    observations, actions = torch.randn(3, 1, dtype=torch.float64), torch.rand(3, 1, dtype=torch.float64)
    weight = policy.network[2].weight
    policy.log_prob(observations, actions).mean().backward()
    with torch.no_grad():
        values = []
        for nudge in (1e-5, -2e-5):
            weight[0, 0] += nudge
            values.append(policy.log_prob(observations, actions).mean().item())
    assert weight.grad[0, 0].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)
