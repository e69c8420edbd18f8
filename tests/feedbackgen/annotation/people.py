"""Sessions, and people who answer them, for the tests of annotation."""

from samples import DATASET, make_dataset

from feedbackgen.annotation.answers import Answers, answers_path, create_answers
from feedbackgen.annotation.sessions import SessionConfig, make_plan

CLIP = b"\0\0\0\x18ftypisom, or so"


def open_session(n_episodes: int = 12, **options) -> Answers:
    """A small dataset, and a session of twenty questions on it for up to three annotators."""
    make_dataset(n_episodes)
    config = SessionConfig(**({"n_queries": 20, "n_annotators": 3, "segment_length": 10} | options))
    path = answers_path(DATASET, "human")
    path.parent.mkdir(exist_ok=True)
    create_answers(path, make_plan(DATASET, config))
    return Answers(path)


def answer_all(answers: Answers, place: int, choose) -> None:
    """Answer every question; ``choose`` gives the verdict on a query: first or second, safe or unsafe, ..."""
    while (asked := answers.state(place).asked) is not None:
        query = answers.queries[asked.query]
        verdict = choose(asked.query, query)
        if verdict in ("first", "second"):
            shown_first = asked.clips == query.clips
            verdict = "left" if (verdict == "first") == shown_first else "right"
        answers.answer(place, asked.query, verdict, seconds=2.0, request=f"{place}-question-{asked.query}")


class StillClips:
    """Clips without a simulator; remembers what was expected."""

    def __init__(self):
        self.expected: list[tuple[int, int]] = []

    async def clip(self, episode: int, start: int) -> bytes:
        return CLIP + bytes([episode % 256, start % 256])

    def expect(self, clips) -> None:
        self.expected = list(clips)
