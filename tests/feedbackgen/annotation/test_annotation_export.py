import numpy as np
import pytest
from people import answer_all, open_session
from samples import DATASET, make_dataset

from feedbackgen.annotation.aggregation import dawid_skene, majority
from feedbackgen.annotation.export import export_answers, merge_feedback, to_feedback
from feedbackgen.annotation.sessions import PREFERENCES, SAFETY
from feedbackgen.errors import DataError, OutputExists, RecipeError
from feedbackgen.label import LabelConfig, label
from feedbackgen.store import open_feedback


def first_and_safe(number, query):
    return "first" if query.kind == PREFERENCES else "safe"


def second_and_unsafe(number, query):
    return "second" if query.kind == PREFERENCES else "unsafe"


def test_raw_answers_become_one_label_each_about_the_clips_that_were_shown():
    answers = open_session()
    place = answers.join("Ada")
    answer_all(answers, place, first_and_safe)
    summary = export_answers(DATASET, "human", aggregation="raw")
    feedback = open_feedback(summary.path)
    # 20 questions, 2 of which are gold.
    assert (len(feedback.preferences), len(feedback.safety)) == (9, 9)
    assert set(feedback.preferences.label) == {0.0} and set(feedback.safety.label) == {1}
    clips = list(zip(feedback.segments.episode.tolist(), feedback.segments.start.tolist(), strict=True))
    asked = [answers.queries[a.query] for a in answers.answers() if answers.queries[a.query].gold is None]
    pairs = [tuple(clips[index] for index in pair) for pair in feedback.preferences.pair]
    assert pairs == [query.clips for query in asked if query.kind == PREFERENCES]
    assert set(feedback.segments.length) == {10}


def test_a_store_says_who_when_how_long_and_that_it_was_people():
    answers = open_session()
    answer_all(answers, answers.join("Ada"), first_and_safe)
    attributes = open_feedback(export_answers(DATASET, "human", aggregation="raw").path).attributes
    assert attributes["source"] == "human"
    assert attributes["annotators"] == [answers.pseudonym(0)]
    assert attributes["seconds"] == {PREFERENCES: [2.0] * 9, SAFETY: [2.0] * 9}
    assert len(attributes["times"][SAFETY]) == 9
    assert "Ada" not in repr(attributes)
    assert attributes["statistics"]["median_seconds"] == 2.0


def test_answers_that_cannot_tell_are_no_labels_and_equal_is_a_half():
    answers = open_session()
    answer_all(answers, answers.join("Ada"), lambda number, query: "equal" if query.kind == PREFERENCES else "unsure")
    feedback = to_feedback(answers, aggregation="raw")
    assert set(feedback.preferences.label) == {0.5} and len(feedback.safety) == 0
    assert feedback.attributes["statistics"]["cannot_tell"] == 9


def test_gold_questions_are_exported_only_on_request():
    answers = open_session()
    answer_all(answers, answers.join("Ada"), first_and_safe)
    assert len(to_feedback(answers, aggregation="raw", with_gold=True).safety) == 10


def test_the_majority_of_three_wins_and_a_tie_of_two_is_left_out():
    answers = open_session(overlap=1.0)
    for name, choose in (("Ada", first_and_safe), ("Eve", first_and_safe), ("Zoe", second_and_unsafe)):
        answer_all(answers, answers.join(name), choose)
    feedback = to_feedback(answers, aggregation="majority")
    assert (len(feedback.preferences), len(feedback.safety)) == (9, 9)
    assert set(feedback.preferences.label) == {0.0} and set(feedback.safety.label) == {1}
    assert feedback.attributes["annotators"] == ["majority"]

    assert majority([(0, "Ada", 1.0), (0, "Eve", 0.0), (1, "Ada", 1.0)]) == {1: 1.0}


def test_dawid_and_skene_believe_two_reliable_annotators_over_three_who_guess():
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=300).astype(float)
    said = []
    for name, error in (("a", 0.05), ("b", 0.05), ("c", 0.5), ("d", 0.5), ("e", 0.5)):
        wrong = rng.random(300) < error
        said += [(question, name, float(abs(truth[question] - wrong[question]))) for question in range(300)]
    weighed, counted = dawid_skene(said), majority(said)
    errors = [
        np.mean([labels[question] != truth[question] for question in range(300)]) for labels in (weighed, counted)
    ]
    # Two of five percent that disagree leave a coin, 0.5 * 2 * 0.05 * 0.95 + 0.05^2 = 0.05; a majority of five with
    # three guessing errs 0.05 + more: 0.0025 * 7/8 + 0.095 * 0.5 + 0.9025 * 1/8 = 0.16. Half-widths of 300: 0.03, 0.05.
    assert errors[0] < 0.09 and errors[1] > 0.10


def test_dawid_and_skene_agree_with_the_majority_of_equally_good_annotators():
    said = [(0, "a", 1.0), (0, "b", 1.0), (0, "c", 0.0), (1, "a", 0.0), (1, "b", 0.0), (1, "c", 0.0), (2, "a", 1.0),
            (2, "b", 1.0), (2, "c", 1.0)]  # fmt: skip
    assert dawid_skene(said) == majority(said) == {0: 1.0, 1: 0.0, 2: 1.0}
    assert dawid_skene([(0, "a", 1.0), (0, "b", 0.0)]) == {}
    assert dawid_skene([]) == {}


def test_dawid_and_skene_of_one_annotator_repeat_what_was_said():
    assert dawid_skene([(0, "a", 1.0), (1, "a", 0.0), (2, "a", 0.5)]) == {0: 1.0, 1: 0.0, 2: 0.5}


def test_people_and_the_simulated_teacher_merge_into_one_store():
    answers = open_session()
    answer_all(answers, answers.join("Ada"), first_and_safe)
    export_answers(DATASET, "human", aggregation="raw")
    label(DATASET, LabelConfig(n_pairs=30, segment_length=10), name="simulated")
    parts = [open_feedback(f"{DATASET}/{name}") for name in ("human", "simulated")]
    merged = open_feedback(merge_feedback([f"{DATASET}/human", f"{DATASET}/simulated"], "both"))
    assert (len(merged.preferences), len(merged.safety)) == (9 + 30, 9 + 30)
    assert merged.attributes["annotators"] == [answers.pseudonym(0), *parts[1].attributes["annotators"]]
    assert merged.attributes["source"] == "human+simulated"
    assert merged.preferences.annotator.tolist() == [0] * 9 + [1] * 30
    rows = [
        (feedback.segments.episode[pair], feedback.segments.start[pair])
        for feedback, pair in [(part, pair) for part in parts for pair in part.preferences.pair]
    ]
    for (episode, start), pair in zip(rows, merged.preferences.pair, strict=True):
        assert (merged.segments.episode[pair] == episode).all() and (merged.segments.start[pair] == start).all()


def test_simulated_teachers_of_two_stores_stay_two_when_they_merge():
    make_dataset()
    for name, noise in (("one", 0.0), ("two", 0.3)):
        label(DATASET, LabelConfig(n_pairs=30, segment_length=8, noise=noise), name=name)  # the same pairs
    merged = open_feedback(merge_feedback([f"{DATASET}/one", f"{DATASET}/two"], "both"))
    assert merged.attributes["annotators"] == ["calibrated", "calibrated (2)"]
    assert merged.preferences.annotator.tolist() == [0] * 30 + [1] * 30
    assert merged.preferences.pair[:30].tolist() == merged.preferences.pair[30:].tolist()


def test_stores_of_different_segment_lengths_do_not_merge():
    make_dataset()
    for length in (5, 10):
        label(DATASET, LabelConfig(n_pairs=30, segment_length=length), name=f"of-{length}")
    with pytest.raises(DataError, match=r"merge: .*/of-5, .*/of-10 differ in their segment length; expected the same"):
        merge_feedback([f"{DATASET}/of-5", f"{DATASET}/of-10"], "both")
    with pytest.raises(DataError, match="merge: expected two feedback stores or more"):
        merge_feedback([f"{DATASET}/of-5"], "both")


def test_refusals_of_an_export():
    answers = open_session()
    with pytest.raises(DataError, match=r"no answers to export yet \(gold questions aside\)"):
        export_answers(DATASET, "human")
    with pytest.raises(RecipeError, match="--labels: expected one of raw, majority, dawid-skene, got mean"):
        export_answers(DATASET, "human", aggregation="mean")
    with pytest.raises(DataError, match="no annotation session; start one with"):
        export_answers(DATASET, "other")
    answer_all(answers, answers.join("Ada"), first_and_safe)
    export_answers(DATASET, "human")
    with pytest.raises(OutputExists, match="exists; use --force"):
        export_answers(DATASET, "human")
    export_answers(DATASET, "human", force=True)


def test_answers_about_other_data_are_not_exported(tmp_path):
    answers = open_session()
    answer_all(answers, answers.join("Ada"), first_and_safe)
    answers.close()
    kept = answers.path.rename(tmp_path / answers.path.name)
    make_dataset(14, force=True)
    answers.path.parent.mkdir(exist_ok=True)
    kept.rename(answers.path)
    with pytest.raises(
        DataError, match=r"asks about a dataset with fingerprint .*start another session with --feedback"
    ):
        export_answers(DATASET, "human")
