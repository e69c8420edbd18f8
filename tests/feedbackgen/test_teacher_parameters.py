"""Each parameter of the teacher shows in the labels, and a teacher who ignores it is found out.

Every check is made twice: on labels, where it must hold, and on labels of the same configuration given by a teacher in
whom that one parameter is reset to its default, where it must not. A check by counting holds within 4.5 standard
deviations: refused wrongly for about one seed in 150,000.
"""

import dataclasses
import math

import numpy as np
import pytest

from feedbackgen.label import LabelConfig, label_trajectories
from feedbackgen.teacher import Teacher
from feedbackgen.types import Outcomes

LENGTH, N_STEPS, N_EPISODES = 20, 200, 100
N_DEVIATIONS = 4.5
DEFAULT = Teacher()


def make_outcomes(*, whole=False):
    rng = np.random.default_rng(7)
    quality = np.repeat(rng.random(N_EPISODES), N_STEPS)
    rewards = rng.normal(size=N_EPISODES * N_STEPS) * 0.5 + quality
    return Outcomes(
        rewards=np.rint(rewards) if whole else rewards,
        costs=np.float64(rng.random(len(quality)) < 0.2 * quality),
        starts=np.arange(N_EPISODES + 1) * N_STEPS,
    )


OUTCOMES = make_outcomes()
WHOLE = make_outcomes(whole=True)
# The horizon is that of the episodes, so that the mean segment has the mean return.
MEAN_RETURN = OUTCOMES.rewards.sum() / N_EPISODES * LENGTH / N_STEPS


class Labels:
    """What a check looks at, recomputed from the referenced steps."""

    def __init__(self, feedback, outcomes):
        self.feedback, segments, pairs = feedback, feedback.segments, feedback.preferences.pair
        steps = (outcomes.starts[segments.episode] + segments.start)[:, None] + np.arange(LENGTH)
        self.rewards = outcomes.rewards[steps]
        self.first, self.second = self.rewards[pairs].transpose(1, 0, 2)
        self.differences = self.second.sum(axis=1) - self.first.sum(axis=1)
        self.label = feedback.preferences.label
        self.flipped = feedback.oracle.preference_flipped
        self.wrong = self.label != (self.differences > 0)
        safety = feedback.safety
        self.unsafe = outcomes.costs[steps].sum(axis=1)[safety.segment] > feedback.attributes["safety_bound"]
        self.called_unsafe = safety.label == -1

    def prefers(self, weights):
        return (self.second - self.first) @ weights > 0


def scale():
    windows = np.lib.stride_tricks.sliding_window_view(OUTCOMES.rewards.reshape(N_EPISODES, N_STEPS), LENGTH, axis=1)
    return math.sqrt(2) * windows.sum(axis=2).std()


def counted(happened, probability):
    """Whether as many of the trials happened as their probabilities let expect."""
    probability = np.broadcast_to(probability, happened.shape)
    spread = math.sqrt((probability * (1 - probability)).sum())
    return abs(happened.sum() - probability.sum()) <= N_DEVIATIONS * spread


def logistic(values):
    return 1 / (1 + np.exp(-values))


def position(labels):
    return np.arange(len(labels)) / (len(labels) - 1)


CHECKS = {
    "beta": (
        {"beta": 2.0},
        lambda seen: counted(seen.wrong, logistic(-2 * np.abs(seen.differences) / scale())),
    ),
    "beta_unit": (
        {"beta": 0.7, "beta_unit": "reward"},
        lambda seen: counted(seen.wrong, logistic(-0.7 * np.abs(seen.differences))),
    ),
    "error_rate": (
        {"error_rate": 0.2},
        lambda seen: counted(seen.wrong, 0.2),
    ),
    "discount": (
        {"beta": math.inf, "discount": 0.8},
        lambda seen: np.array_equal(seen.label, seen.prefers(0.8 ** np.arange(LENGTH)[::-1])),
    ),
    "discount_from": (
        {"beta": math.inf, "discount": 0.8, "discount_from": "start"},
        lambda seen: np.array_equal(seen.label, seen.prefers(0.8 ** np.arange(LENGTH))),
    ),
    "skip": (
        {"beta": math.inf, "skip": 0.5},
        lambda seen: (
            len(seen.label) < 20_000
            and np.all(np.maximum(seen.first.sum(axis=1), seen.second.sum(axis=1)) > 0.5 * MEAN_RETURN)
        ),
    ),
    "equal": (
        {"beta": math.inf, "equal": 0.3},
        lambda seen: np.array_equal(seen.label == 0.5, np.abs(seen.differences) < 0.3 * MEAN_RETURN),
    ),
    "squares_thresholds": (
        {"teachers": ("bpref-code+skip=0+equal=0.3",)},
        lambda seen: np.array_equal(seen.label == 0.5, np.abs(seen.differences) < 0.09 * MEAN_RETURN),
    ),
    "decides_ties": (
        {"teachers": ("imitation",)},
        lambda seen: not np.any(seen.label == 0.5) and counted(seen.label[seen.differences == 0] == 1, 0.5),
    ),
    "noise": (
        {"beta": math.inf, "preference_noise": 0.1},
        lambda seen: counted(seen.wrong, 0.1),
    ),
    "noise_margin": (
        {"beta": math.inf, "preference_noise": 0.4, "noise_margin": 0.5},
        lambda seen: counted(seen.wrong, 0.4 * np.exp(-np.abs(seen.differences) / (0.5 * scale()))),
    ),
    "drift": (
        {"beta": math.inf, "drift": 0.3},
        lambda seen: (
            counted(seen.wrong, 0.3 * position(seen.wrong))
            and counted(seen.wrong[:5000], 0.3 * position(seen.wrong)[:5000])
            and counted(seen.called_unsafe != seen.unsafe, 0.3 * position(seen.unsafe))
        ),
    ),
    "miss_rate": (
        {"miss_rate": 0.3},
        lambda seen: (
            counted(~seen.called_unsafe[seen.unsafe], 0.3) and not seen.called_unsafe[~seen.unsafe].any()
        ),
    ),
    "false_alarm_rate": (
        {"false_alarm_rate": 0.1},
        lambda seen: counted(seen.called_unsafe[~seen.unsafe], 0.1) and seen.called_unsafe[seen.unsafe].all(),
    ),
}  # fmt: skip


def ask(**values):
    outcomes = WHOLE if values.get("teachers") == ("imitation",) else OUTCOMES
    config = LabelConfig(n_pairs=20_000, n_safety=10_000, segment_length=LENGTH, seed=3, **values)
    return label_trajectories(outcomes, config, cost_limit=20.0, horizon=N_STEPS), outcomes


def test_every_parameter_is_checked():
    assert CHECKS.keys() == {entry.name for entry in dataclasses.fields(Teacher)}


@pytest.mark.parametrize("name", CHECKS)
def test_a_parameter_shows_in_the_labels(name):
    values, holds = CHECKS[name]
    assert holds(Labels(*ask(**values)))


@pytest.mark.parametrize("name", CHECKS)
def test_a_teacher_who_ignores_a_parameter_is_found_out(name, monkeypatch):
    values, holds = CHECKS[name]
    annotators = LabelConfig.annotators

    def without_it(config):
        return tuple(
            dataclasses.replace(
                annotator, teacher=dataclasses.replace(annotator.teacher, **{name: getattr(DEFAULT, name)})
            )
            for annotator in annotators(config)
        )

    monkeypatch.setattr(LabelConfig, "annotators", without_it)
    assert not holds(Labels(*ask(**values)))


MIXTURE = ("oracle:0.7", "mistake+noise=0.3:0.3")


def shares_and_noise_are_met(seen):
    by_second = seen.feedback.preferences.annotator == 1
    return by_second.sum() == 6000 and not seen.wrong[~by_second].any() and counted(seen.wrong[by_second], 0.3)


def test_each_annotator_of_a_mixture_has_a_share_and_errs_alone():
    feedback, outcomes = ask(teachers=MIXTURE)
    assert shares_and_noise_are_met(Labels(feedback, outcomes))
    assert feedback.attributes["annotators"] == ["oracle", "mistake+noise=0.3"]
    assert np.bincount(feedback.safety.annotator).tolist() == [7000, 3000]
    rates = feedback.attributes["statistics"]
    assert rates["preference_error of oracle"]["expected"] == 0
    assert rates["preference_error of mistake+noise=0.3"]["expected"] == pytest.approx(0.3)
    assert rates["preference_error"]["expected"] == pytest.approx(0.09)


def test_a_mixture_that_ignores_its_shares_is_found_out(monkeypatch):
    annotators = LabelConfig.annotators
    monkeypatch.setattr(
        LabelConfig,
        "annotators",
        lambda config: tuple(dataclasses.replace(annotator, share=0.5) for annotator in annotators(config)),
    )
    assert not shares_and_noise_are_met(Labels(*ask(teachers=MIXTURE)))


def fields_of(values, *names):
    return [getattr(values, name) for name in names]


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in ("drift", "miss_rate", "false_alarm_rate")])
def test_the_preference_channel_leaves_the_safety_channel_alone(name):
    changed, plain = ask(**CHECKS[name][0])[0], ask()[0]
    for one, other in zip(safety_columns(changed), safety_columns(plain), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("values", [{"miss_rate": 0.3}, {"false_alarm_rate": 0.3}, {"safety_noise": 0.3}])
def test_the_safety_channel_leaves_the_preference_channel_alone(values):
    changed, plain = ask(**values)[0], ask()[0]
    for one, other in zip(preference_columns(changed), preference_columns(plain), strict=True):
        assert np.array_equal(one, other)
    # And its own draws are the same: a flip at the lower rate is one at the higher.
    assert np.all(ask(safety_noise=0.4)[0].oracle.safety_flipped | ~ask(safety_noise=0.3)[0].oracle.safety_flipped)


def safety_columns(feedback):
    segments, safety, oracle = feedback.segments, feedback.safety, feedback.oracle
    return [
        segments.episode[safety.segment],
        segments.start[safety.segment],
        *fields_of(safety, "label", "annotator"),
        *fields_of(oracle, "safety_clean", "safety_flipped"),
    ]


def preference_columns(feedback):
    segments, preferences, oracle = feedback.segments, feedback.preferences, feedback.oracle
    return [
        segments.episode[preferences.pair],
        segments.start[preferences.pair],
        *fields_of(preferences, "label", "annotator"),
        *fields_of(oracle, "preference_clean", "preference_flipped", "preference_probability"),
    ]
