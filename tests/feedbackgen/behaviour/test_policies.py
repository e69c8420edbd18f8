"""From the words of the command line to something that acts."""

import numpy as np
import pytest

from feedbackgen.behaviour import list_policies, load_policy, parse_share
from feedbackgen.errors import PolicyError

TASK = "SafetyPointCircle1-v0"


def test_random_actions_fill_the_action_box():
    policy = load_policy(TASK, "random")
    rng = np.random.default_rng(0)
    actions = np.array([policy.act(np.zeros(28), rng) for _ in range(2000)])
    assert actions.shape == (2000, 2)
    assert actions.min() < -0.99 and actions.max() > 0.99
    # Mean of 2000 uniforms on [-1, 1]: standard error 0.013; four of them.
    assert np.abs(actions.mean(axis=0)).max() < 0.052


def test_each_population_reaches_from_poor_to_expert_and_from_safe_to_reckless():
    for task, low, high in (("SafetyPointCircle1-v0", 20.0, 50.0), ("SafetyHalfCheetahVelocity-v1", 1500.0, 5000.0)):
        infos = list_policies(task)
        assert infos[0].return_ < low and infos[-1].return_ > high
        assert min(info.cost_return for info in infos) < 25 and max(info.cost_return for info in infos) > 100


def test_action_noise_has_the_scale_that_was_asked_for():
    quiet = load_policy(TASK, "expert")
    noisy = load_policy(TASK, "expert+noise=0.01")
    observation = quiet.observation_mean
    centre = quiet.act(observation, np.random.default_rng(0))
    inside = np.abs(centre) < 0.9  # clipping would cut the noise
    assert inside.any()
    rng = np.random.default_rng(1)
    differences = np.array([noisy.act(observation, rng) - centre for _ in range(4000)])[:, inside]
    assert differences.std() == pytest.approx(0.01, rel=0.05)


def test_epsilon_one_is_the_random_policy_in_distribution():
    policy = load_policy(TASK, "expert+epsilon=1")
    rng = np.random.default_rng(0)
    actions = np.array([policy.act(np.zeros(28), rng) for _ in range(2000)])
    assert actions.std(axis=0) == pytest.approx([3**-0.5] * 2, rel=0.06)


@pytest.mark.parametrize(
    "spec", ["random", "expert", "expert+sample", "medium+noise=0.3", "poor+noise=0.1+epsilon=0.5+sample"]
)
def test_acting_together_gives_each_row_the_bits_it_has_alone(spec):
    policy = load_policy(TASK, spec)
    observations = np.random.default_rng(0).standard_normal((33, 28))
    for n_rows in (1, 2, 7, 16, 33):
        rows = observations[:n_rows]
        together = policy.act_together(rows, [np.random.default_rng(index) for index in range(n_rows)])
        alone = [policy.act(row, np.random.default_rng(index)) for index, row in enumerate(rows)]
        np.testing.assert_array_equal(together, alone)


def test_uniform_draws_are_those_of_numpy():
    policy = load_policy(TASK, "random")
    drawn = policy.act(np.zeros(28), np.random.default_rng(5))
    np.testing.assert_array_equal(drawn, np.random.default_rng(5).uniform(policy.action_low, policy.action_high))


def test_a_share_is_split_off_at_the_last_colon():
    assert parse_share("expert:0.3") == ("expert", 0.3)
    assert parse_share("expert+noise=0.3:0.2") == ("expert+noise=0.3", 0.2)
    assert parse_share("random") == ("random", None)


@pytest.mark.parametrize("text", ["expert:0", "expert:-1", "expert:lots", "expert:inf", "expert:"])
def test_a_share_that_is_no_positive_number_is_refused(text):
    with pytest.raises(PolicyError, match="expected NAME:SHARE with a share above 0"):
        parse_share(text)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("expret", "unknown policy 'expret' for SafetyPointCircle1-v0; did you mean expert"),
        ("expert+nosie=1", "unknown modifier 'nosie'; expected one of noise, epsilon, sample"),
        ("expert+noise=-1", "noise expects a number >= 0, got '-1'"),
        ("expert+epsilon=2", r"epsilon expects a probability in \[0, 1\], got '2'"),
        ("random+noise=1", "random takes no modifiers"),
    ],
)
def test_a_policy_that_does_not_exist_is_refused_in_one_line(spec, message):
    with pytest.raises(PolicyError, match=message):
        load_policy(TASK, spec)


def test_a_task_without_policies_says_what_can_be_used():
    with pytest.raises(PolicyError, match=r"SafetyAntRun0-v0 ships none yet; use random or a weight file; .*DSRL's"):
        load_policy("SafetyAntRun0-v0", "expert")
