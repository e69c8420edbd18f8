"""The numpy policy and its weight file."""

import numpy as np
import pytest

from feedbackgen.behaviour.mlp import MLPPolicy, load_mlp, save_mlp
from feedbackgen.errors import PolicyError

TASK = "SafetyPointCircle1-v0"


def small_policy(**changes) -> MLPPolicy:
    """Two observations, one hidden tanh unit, one action."""
    fields = {
        "name": "small",
        "task": TASK,
        "weights": [np.array([[1.0], [0.0]]), np.array([[2.0]])],
        "biases": [np.array([0.0]), np.array([0.5])],
        "activation": "tanh",
        "observation_mean": np.array([1.0, 0.0]),
        "observation_std": np.array([2.0, 1.0]),
        "observation_clip": 10.0,
        "action_std": np.array([0.1]),
        "action_low": np.array([-1.0]),
        "action_high": np.array([1.0]),
    }
    return MLPPolicy(**(fields | changes))


def test_the_action_is_the_clipped_mean_of_the_network():
    rng = np.random.default_rng(0)
    # standardised observation 0.1 -> tanh -> times 2 plus 0.5
    assert small_policy().act(np.array([1.2, 9.0]), rng) == pytest.approx([2 * np.tanh(0.1) + 0.5])
    assert small_policy().act(np.array([100.0, 0.0]), rng) == pytest.approx([1.0])


def test_sampling_adds_the_standard_deviation_of_training():
    rng = np.random.default_rng(0)
    policy = small_policy(sample=True, biases=[np.array([0.0]), np.array([0.0])])
    actions = np.array([policy.act(np.array([1.0, 0.0]), rng) for _ in range(4000)])
    # The standard error of a standard deviation 0.1 over 4000 draws is 0.0011; four of them.
    assert actions.std() == pytest.approx(0.1, abs=0.0045)


def test_a_weight_file_acts_as_the_policy_it_was_saved_from(tmp_path):
    policy = small_policy()
    save_mlp(policy, tmp_path / "small.npz")
    loaded = load_mlp(tmp_path / "small.npz", name="small", task=TASK)
    observation = np.array([0.3, -2.0])
    rng = np.random.default_rng(0)
    assert loaded.act(observation, rng) == pytest.approx(policy.act(observation, rng), abs=1e-6)


def test_a_weight_file_of_another_task_is_refused(tmp_path):
    save_mlp(small_policy(), tmp_path / "small.npz")
    with pytest.raises(PolicyError, match="trained for SafetyPointCircle1-v0, not for SafetyCarCircle1-v0"):
        load_mlp(tmp_path / "small.npz", name="small", task="SafetyCarCircle1-v0")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    save_mlp(small_policy(biases=[np.array([np.nan]), np.array([0.0])]), tmp_path / "small.npz")
    with pytest.raises(PolicyError, match="not finite"):
        load_mlp(tmp_path / "small.npz", name="small", task=TASK)


def test_an_absent_or_damaged_weight_file_is_named(tmp_path):
    with pytest.raises(PolicyError, match=r"absent.npz: no such file"):
        load_mlp(tmp_path / "absent.npz", name="absent", task=TASK)
    (tmp_path / "broken.npz").write_bytes(b"PK not really")
    with pytest.raises(PolicyError, match=r"broken.npz: not a weight file"):
        load_mlp(tmp_path / "broken.npz", name="broken", task=TASK)
