"""The named teachers against the formulas of the code that they are named after."""

import math

import numpy as np
import pytest

from feedbackgen.errors import RecipeError
from feedbackgen.label import LabelConfig, label_trajectories
from feedbackgen.presets import PRESETS, annotators
from feedbackgen.segments import discounted_sums
from feedbackgen.teacher import Teacher, answer, judge
from feedbackgen.types import Outcomes

# Four segments of three steps, each an episode of its own; the horizon is three steps too.
REWARDS = np.array([[1.0, 0.0, 5.0], [4.0, 2.0, 1.0], [0.2, 0.1, 0.1], [6.0, 0.0, 0.0]])
MEAN_RETURN = 19.4 / 4  # of an episode, and so of a segment
ALL_PAIRS = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3], [1, 0]])


def bpref_label(first, second, draw, *, beta=-1.0, gamma=1.0, mistake=0.0, skip=0.0, equal=0.0, flips=False):
    """``RewardModel.get_label`` of B-Pref for one pair; thresholds are given, in reward.

    None where it skips, -1 where it finds both equal; ``draw`` stands for torch's Bernoulli.
    """
    if skip > 0 and not max(first.sum(), second.sum()) > skip:
        return None
    margin = abs(first.sum() - second.sum())
    discount = gamma ** np.arange(len(first))[::-1]
    first_return, second_return = (first * discount).sum(), (second * discount).sum()
    label = int(first_return < second_return)
    if beta > 0:
        probability = 1 / (1 + math.exp(-beta * (second_return - first_return)))
        label = int(draw < probability)
    if flips and mistake > 0:
        label = 1 - label
    return -1 if margin < equal else label


def imitation_probability(first, second, *, temperature=1.0, discount=1.0, threshold=50.0):
    """``SyntheticGatherer``: the probability that the first is preferred."""
    weights = discount ** np.arange(len(first))
    difference = np.clip(((second - first) * weights).sum() / temperature, -threshold, threshold)
    return 1 / (1 + math.exp(difference))


def put(teacher: Teacher, *, draws=None, mistakes=None, pairs=ALL_PAIRS):
    starts = np.arange(0, 13, 3)
    values = discounted_sums(REWARDS.ravel(), starts, 3, discount=teacher.discount, discount_from=teacher.discount_from)
    found = judge(teacher, values=values, mean_return=MEAN_RETURN)
    quiet = np.full(len(pairs), 0.999)
    return found, answer(
        found,
        REWARDS.sum(axis=1),
        pairs,
        draws=quiet if draws is None else draws,
        mistakes=quiet if mistakes is None else mistakes,
    )


def test_the_oracle_is_b_prefs_but_for_exact_ties():
    _, said = put(PRESETS["oracle"])
    assert said.label.tolist() == [1, 0, 0.5, 0, 0, 1, 0]
    assert [bpref_label(REWARDS[a], REWARDS[b], 0.0) for a, b in ALL_PAIRS] == [1, 0, 0, 0, 0, 1, 0]


def test_the_stochastic_teacher_answers_with_b_prefs_probability():
    _, said = put(PRESETS["stochastic"])
    differences = [1.0, -5.6, 0.0, -6.6, -1.0, 5.6, -1.0]  # by hand
    assert said.probability == pytest.approx([1 / (1 + math.exp(-difference)) for difference in differences])
    draws = np.random.default_rng(0).random(2000)
    # Ours draws whether the teacher errs, so of the better second its complement is B-Pref's.
    _, many = put(PRESETS["stochastic"], draws=draws, pairs=np.tile([[0, 1]], (2000, 1)))
    assert many.label.tolist() == [bpref_label(REWARDS[0], REWARDS[1], 1 - draw, beta=1.0) for draw in draws]


def test_the_myopic_teacher_forgets_the_first_steps_as_b_prefs_does():
    found, said = put(PRESETS["myopic"])
    # By hand: 0.81 + 5, 3.24 + 1.8 + 1, 0.162 + 0.09 + 0.1, 4.86.
    assert found.values == pytest.approx([5.81, 6.04, 0.352, 4.86])
    expected = [bpref_label(REWARDS[a], REWARDS[b], 0.0, gamma=0.9) for a, b in ALL_PAIRS]
    assert said.label.tolist() == expected == [1, 0, 0, 0, 0, 1, 0]


def test_the_mistaken_teacher_flips_a_tenth():
    mistakes = np.array([0.05, 0.15, 0.0, 0.099, 0.1, 0.0, 0.5])
    _, said = put(PRESETS["mistake"], mistakes=mistakes)
    assert said.label.tolist() == [0, 0, 0.5, 1, 0, 0, 0]
    untied = [row for row in range(7) if row != 2]
    for row in untied:
        first, second = REWARDS[ALL_PAIRS[row]]
        assert said.label[row] == bpref_label(first, second, 0.0, mistake=0.1, flips=mistakes[row] < 0.1)


def test_the_skipping_teacher_refuses_pairs_in_which_nothing_happens():
    pairs = np.array([[0, 2], [2, 2]])
    found, said = put(PRESETS["skip"], pairs=pairs)
    assert found.skip_threshold == pytest.approx(0.485)
    expected = [bpref_label(REWARDS[a], REWARDS[b], 0.0, skip=0.485) for a, b in pairs]
    assert said.answered.tolist() == [label is not None for label in expected] == [True, False]


def test_the_equal_teacher_has_a_band():
    # A band of 0.3 of the mean, 1.455, holds the pair whose returns differ by 1.
    for factor, band, expected in ((0.1, 0.485, [1, 0.0]), (0.3, 1.455, [0.5, 0.0])):
        teacher = Teacher(beta=math.inf, equal=factor)
        found, said = put(teacher, pairs=np.array([[0, 1], [0, 2]]))
        assert found.equal_threshold == pytest.approx(band)
        assert said.label.tolist() == expected
        theirs = [bpref_label(REWARDS[0], REWARDS[b], 0.0, equal=band) for b in (1, 2)]
        assert [0.5 if label == -1 else label for label in theirs] == expected


def test_b_prefs_code_squares_its_factors_and_gives_ties_to_the_first():
    found, said = put(PRESETS["bpref-code"])
    # set_teacher_thres_skip(new_margin * eps) multiplies by eps once more: 0.01 of the mean instead of 0.1.
    assert found.skip_threshold == found.equal_threshold == pytest.approx(0.01 * MEAN_RETURN)
    as_meant, _ = put(PRESETS["skip"])
    assert as_meant.skip_threshold == pytest.approx(0.1 * MEAN_RETURN)
    theirs = [bpref_label(REWARDS[a], REWARDS[b], 0.0, skip=0.0485, equal=0.0485) for a, b in ALL_PAIRS]
    assert said.answered.all() and theirs == [1, 0, -1, 0, 0, 1, 0]
    assert said.label.tolist() == [0.5 if label == -1 else label for label in theirs]
    without_band = Teacher(**{**vars(PRESETS["bpref-code"]), "equal": 0.0})
    assert put(without_band)[1].label.tolist() == [bpref_label(REWARDS[a], REWARDS[b], 0.0) for a, b in ALL_PAIRS]
    # The pair of small returns would be skipped by the teacher as meant.
    assert put(PRESETS["skip"], pairs=np.array([[2, 2]]))[1].answered.tolist() == [False]
    assert put(PRESETS["bpref-code"], pairs=np.array([[2, 2]]))[1].answered.tolist() == [True]


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_imitations_teacher_answers_with_its_probability(discount):
    teacher = Teacher(**{**vars(PRESETS["imitation"]), "discount": discount})
    _, said = put(teacher)
    expected = [1 - imitation_probability(REWARDS[a], REWARDS[b], discount=discount) for a, b in ALL_PAIRS]
    assert said.probability == pytest.approx(expected)
    if discount == 1.0:
        assert expected[0] == pytest.approx(1 / (1 + math.exp(-1)))  # 6 against 7
    # Early steps count more: 1 + 0 + 4.05 against 4 + 1.8 + 0.81.
    else:
        assert expected[0] == pytest.approx(1 / (1 + math.exp(-(6.61 - 5.05))))


def test_imitations_teacher_tosses_a_coin_on_a_tie():
    draws = np.array([0.49, 0.51])
    _, said = put(PRESETS["imitation"], draws=draws, pairs=np.array([[0, 3], [0, 3]]))
    assert imitation_probability(REWARDS[0], REWARDS[3]) == 0.5
    assert said.probability.tolist() == [0.5, 0.5] and said.label.tolist() == [1, 0]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_labels_a_dataset(name):
    rng = np.random.default_rng(0)
    outcomes = Outcomes(
        rewards=rng.random(2000), costs=np.float64(rng.random(2000) < 0.1), starts=np.arange(0, 2001, 100)
    )
    config = LabelConfig(n_pairs=300, segment_length=10, teachers=(name,))
    feedback = label_trajectories(outcomes, config, cost_limit=10.0, horizon=100)
    assert feedback.attributes["annotators"] == [name]
    assert 0 < len(feedback.preferences) <= 300 and len(feedback.safety) == 300


def test_words_set_parameters_and_shares():
    oracle, noisy = annotators(["oracle:3", "mistake+noise=0.3+error-rate=0.2:1"], {})
    assert (oracle.name, oracle.share, oracle.teacher) == ("oracle", 0.75, PRESETS["oracle"])
    assert (noisy.name, noisy.share) == ("mistake+noise=0.3+error-rate=0.2", 0.25)
    assert (noisy.teacher.noise, noisy.teacher.error_rate) == (0.3, 0.2)
    assert [annotator.share for annotator in annotators(["oracle", "mistake"], {})] == [0.5, 0.5]


def test_what_a_word_states_wins_over_what_is_set_for_all():
    quiet, noisy, sure = annotators(["oracle", "oracle+noise=0.3", "oracle+beta=2"], {"noise": 0.1, "error_rate": 0.2})
    assert (quiet.teacher.noise, noisy.teacher.noise) == (0.1, 0.3)
    assert (quiet.teacher.error_rate, sure.teacher.error_rate, sure.teacher.beta) == (0.2, None, 2.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["oracel"], "--teacher oracel: no such teacher; did you mean oracle?"),
        (["zzz"], "--teacher zzz: no such teacher; there are calibrated, oracle, stochastic, myopic, mistake, skip"),
        (["oracle", "oracle"], "--teacher oracle: expected each teacher once; add up the shares"),
        (["oracle:1", "mistake"], "--teacher: expected a share for each or for none, got 1 of 2"),
        (["oracle:0"], "--teacher oracle:0: expected NAME:SHARE with a share above 0, got '0'"),
        (["oracle:half"], "--teacher oracle:half: expected NAME:SHARE with a share above 0, got 'half'"),
        (["oracle+noize=0.1"], "--teacher oracle+noize=0.1: unknown parameter 'noize'; expected noise"),
        (["oracle+noise=much"], "--teacher oracle+noise=much: noise: expected a number, got 'much'"),
        (["oracle+noise=0.7"], "--noise: expected a probability in [0, 0.5] (above it labels would say the opposite)"),
        (["oracle+beta=1+error-rate=0.1"], "--beta and --error-rate: expected one of them, got both"),
    ],
)  # fmt: skip
def test_a_word_that_names_no_teacher_is_refused(words, message):
    with pytest.raises(RecipeError) as refusal:
        annotators(words, {})
    assert str(refusal.value).startswith(message)
