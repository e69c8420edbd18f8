import sqlite3
import stat

import pytest
from people import answer_all, open_session
from samples import DATASET

from feedbackgen.annotation.answers import Answers, Refused, answers_path, create_answers
from feedbackgen.annotation.sessions import PREFERENCES, SAFETY, SessionConfig, make_plan
from feedbackgen.errors import DataError, OutputExists, StoreError


def say(answers, place, answer=None, **options):
    """Answer what is asked next; returns the question."""
    asked = answers.state(place).asked
    answer = answer or {PREFERENCES: "left", SAFETY: "safe"}[asked.kind]
    options = {"seconds": 1.5, "request": f"request-{place}-{asked.query}-{answer}"} | options
    answers.answer(place, asked.query, answer, **options)
    return asked


def test_an_answer_moves_on_to_the_next_question():
    answers = open_session()
    place = answers.join("Ada")
    first = say(answers, place)
    state = answers.state(place)
    assert (first.position, state.asked.position) == (0, 1)
    assert (state.n_answered, state.n_queries, state.can_undo) == (1, 20, True)
    assert [asked.position for asked in state.upcoming] == [2, 3, 4]


def test_answers_are_there_when_the_file_is_opened_anew():
    answers = open_session()
    say(answers, answers.join("Ada"))
    again = Answers(answers.path)  # the first is still open, as after a kill
    assert [(answer.answer, answer.seconds) for answer in again.answers()] == [("left", 1.5)]
    assert again.key(0) == answers.key(0)


def test_the_log_is_synced_at_each_commit():
    answers = open_session()
    [(mode,)] = answers._rows("PRAGMA journal_mode")
    [(synchronous,)] = answers._rows("PRAGMA synchronous")
    assert (mode, synchronous) == ("wal", 2)  # 2: FULL


def test_undo_asks_the_latest_again_and_keeps_what_was_said():
    answers = open_session()
    place = answers.join("Ada")
    first, second = say(answers, place), say(answers, place, "right")
    assert answers.undo(place, request="undo-number-1")
    assert answers.state(place).asked == second
    assert answers.undo(place, request="undo-number-2")
    assert answers.state(place).asked == first
    assert not answers.state(place).can_undo
    assert not answers.undo(place, request="undo-number-3")
    history = [(query, answer) for _, query, answer, _ in answers.history()]
    assert history == [(first.query, "left"), (second.query, "right"), (second.query, None), (first.query, None)]


def test_a_change_of_mind_counts_and_both_are_kept():
    answers = open_session()
    place = answers.join("Ada")
    asked = say(answers, place)
    answers.answer(place, asked.query, "right", seconds=3.0, request="changed-my-mind")
    assert [(answer.answer, answer.seconds) for answer in answers.answers()] == [("right", 3.0)]
    assert [answer for _, _, answer, _ in answers.history()] == ["left", "right"]
    assert answers.state(place).n_answered == 1


def test_a_request_sent_twice_counts_once():
    answers = open_session()
    place = answers.join("Ada")
    asked = say(answers, place, request="the-same-request")
    assert not answers.answer(place, asked.query, "right", seconds=1.0, request="the-same-request")
    assert [answer.answer for answer in answers.answers()] == ["left"]
    assert answers.undo(place, request="the-same-undo") and not answers.undo(place, request="the-same-undo")


def test_the_verdict_is_about_the_clips_and_not_about_the_sides():
    answers = open_session()
    place = answers.join("Ada")
    answer_all(answers, place, lambda number, query: "second" if query.kind == PREFERENCES else "unsafe")
    said = answers.answers()
    assert {answer.verdict for answer in said} == {"second", "unsafe"}
    assert {answer.answer for answer in said if answer.verdict == "second"} == {"left", "right"}


def test_nobody_is_told_of_anothers_answers():
    answers = open_session()
    ada, eve = answers.join("Ada"), answers.join("Eve")
    before = answers.state(eve)
    answer_all(answers, ada, lambda number, query: "equal" if query.kind == PREFERENCES else "safe")
    assert answers.state(eve) == before


def test_a_clip_is_found_only_among_ones_own_questions():
    answers = open_session()
    ada, eve = answers.join("Ada"), answers.join("Eve")
    theirs = {row[0] for row in answers._rows("SELECT query FROM assignment WHERE place = ?", eve)}
    own = next(
        row[0] for row in answers._rows("SELECT query FROM assignment WHERE place = ?", ada) if row[0] not in theirs
    )
    asked = answers.state(ada).asked
    assert (answers.clip(ada, asked.query, 0), answers.clip(ada, asked.query, 1)) == asked.clips
    assert answers.clip(eve, own, 0) is None
    assert answers.clip(ada, asked.query, 2) is None and answers.clip(ada, asked.query, -1) is None


def test_the_time_left_goes_by_the_median_pace_from_the_third_answer_on():
    answers = open_session()
    place = answers.join("Ada")
    for seconds in (1.0, 2.0):
        say(answers, place, seconds=seconds)
    assert answers.state(place).seconds_left is None
    say(answers, place, seconds=600.0)
    assert answers.state(place).seconds_left == 2.0 * 17


def test_keys_open_ones_own_place_and_no_other():
    answers = open_session()
    ada = answers.join("Ada")
    key = answers.key(ada)
    assert answers.place_of(key) == ada
    for wrong in ("", "0", "0.", key[:-1], key + "0", "1" + key[1:], "x" + key, "999999999999." + key, "٣.a", "0.é"):
        assert answers.place_of(wrong) is None
    assert answers.place_of(answers.key(1)) is None  # a key of a place that nobody has yet


def test_pseudonyms_differ_and_say_nothing():
    answers = open_session()
    names = {answers.pseudonym(answers.join(name)) for name in ("Ada", "Eve", "Zoe")}
    assert len(names) == 3 and not any("ada" in name.lower() for name in names)


def test_the_history_cannot_be_changed():
    answers = open_session()
    say(answers, answers.join("Ada"))
    other = sqlite3.connect(answers.path)
    with pytest.raises(sqlite3.IntegrityError, match="answers are never changed"):
        other.execute("UPDATE event SET answer = 'right'")
    with pytest.raises(sqlite3.IntegrityError, match="answers are never deleted"):
        other.execute("DELETE FROM event")


def test_the_file_is_for_its_owner_alone():
    answers = open_session()
    answers.join("Ada")
    for path in answers.path.parent.glob("*.sqlite*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "name: expected 1 to 40 letters"),
        ("x" * 41, "name: expected 1 to 40 letters"),
        ("<b>", "name: expected 1 to 40 letters"),
        ("../etc", "name: expected 1 to 40 letters"),
        ("ADA", "the name ADA is taken; open the link that you were given, or use another name"),
    ],
)
def test_a_name_that_is_none_or_taken_is_refused(name, message):
    answers = open_session()
    answers.join("Ada")
    with pytest.raises(Refused, match=message):
        answers.join(name)


def test_no_more_join_than_there_are_places():
    answers = open_session(n_annotators=1)
    answers.join("Ada")
    with pytest.raises(Refused, match="all 1 places of this session are taken"):
        answers.join("Eve")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "safe"}, "answer: expected one of left, right, equal, unsure"),
        ({"answer": "LEFT"}, "answer: expected one of left"),
        ({"query": 10**9}, "this question is not one of yours"),
        ({"query": -1}, "this question is not one of yours"),
        ({"seconds": -0.1}, "seconds: expected a number from 0 to 86400"),
        ({"seconds": float("nan")}, "seconds: expected a number from 0"),
        ({"seconds": 1e9}, "seconds: expected a number from 0"),
        ({"request": "short"}, "request: expected 8 to 64 letters, digits, - or _"),
        ({"request": "../../etc/passwd"}, "request: expected 8 to 64"),
    ],
)
def test_an_answer_that_is_none_is_refused_and_leaves_no_trace(change, message):
    answers = open_session()
    place = answers.join("Ada")
    good = {"query": answers.state(place).asked.query, "answer": "left", "seconds": 1.0, "request": "a-fine-request"}
    options = good | change
    with pytest.raises(Refused, match=message):
        answers.answer(place, options.pop("query"), options.pop("answer"), **options)
    assert answers.history() == [] and answers.answers() == []
    with pytest.raises(Refused, match="request: expected"):
        answers.undo(place, request="no")


def test_a_session_is_never_written_over():
    answers = open_session()
    with pytest.raises(OutputExists, match="exists; use --force to replace it, or another name"):
        create_answers(answers.path, make_plan(DATASET, SessionConfig(n_queries=5, segment_length=10)))


def test_no_session_another_version_and_a_damaged_file_are_one_line_each():
    answers = open_session()
    with pytest.raises(DataError, match="no annotation session; start one with `fbgen annotate DATASET`"):
        Answers(answers_path(DATASET, "other"))
    with sqlite3.connect(answers.path) as connection:
        connection.execute("UPDATE about SET value = '2' WHERE name = 'version'")
    with pytest.raises(
        DataError, match="feedbackgen/annotation version 2, this release reads feedbackgen/annotation ver"
    ):
        Answers(answers.path)
    damaged = answers_path(DATASET, "damaged")
    damaged.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        Answers(damaged)
