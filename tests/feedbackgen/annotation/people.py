"""Sessions, and people who answer them, for the tests of annotation."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from samples import DATASET, make_dataset

from feedbackgen.annotation.answers import Answers, answers_path, create_answers
from feedbackgen.annotation.sessions import SessionConfig, make_plan

HERE = Path(__file__).parent
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


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_server(path: Path, port: int, film: Path | None = None) -> subprocess.Popen:
    """The session's server in a process of its own, once it takes requests."""
    # The root comes along, or else the folder tests/feedbackgen passes for the package.
    places = [HERE.parents[2], HERE, HERE.parents[1], *filter(None, [os.environ.get("PYTHONPATH")])]
    search = os.pathsep.join(map(str, places))
    arguments = [str(path), str(port), *([] if film is None else [str(film)])]
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(HERE / "still_server.py"), *arguments],
        env=os.environ | {"PYTHONPATH": search}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout.readline() == f"http://127.0.0.1:{port}/\n"
    return server


class StillClips:
    """Clips without a simulator, all the same or told apart; remembers what was expected."""

    def __init__(self, film: bytes | None = None):
        self.film, self.expected = film, []

    async def clip(self, episode: int, start: int) -> bytes:
        return self.film or CLIP + bytes([episode % 256, start % 256])

    def expect(self, clips) -> None:
        self.expected = list(clips)
