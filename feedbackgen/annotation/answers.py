"""The answers of people: one SQLite file beside the feedback store, each durable before the next question is shown.

What was said is a history of events that nothing changes: taking an answer back is an event too. Beside it stands what
follows from it, the present answer to each question, written in the same transaction.
"""

import hashlib
import hmac
import json
import math
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from feedbackgen.annotation.sessions import ANSWERS, Plan, Query
from feedbackgen.errors import DataError, StoreError
from feedbackgen.files import complete_or_absent, writing_to
from feedbackgen.store import feedback_path

SCHEMA, VERSION = "feedbackgen/annotation", 1
SUFFIX = ".answers.sqlite"
NAME = re.compile(r"\w[\w .'-]{0,39}")
REQUEST = re.compile(r"[-\w]{8,64}")
MAX_SECONDS = 86_400.0  # of one answer
N_PREFETCHED = 3  # questions whose clips are fetched ahead
N_PACED = 20  # latest answers that the time left goes by
WAIT = 10.0  # seconds for another process that writes
TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE query (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, clips TEXT NOT NULL, gold TEXT) STRICT;
CREATE TABLE annotator (
    place INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, joined REAL NOT NULL
) STRICT;
CREATE TABLE assignment (
    place INTEGER NOT NULL, position INTEGER NOT NULL, query INTEGER NOT NULL REFERENCES query,
    swapped INTEGER NOT NULL, answer TEXT, PRIMARY KEY (place, position)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX assignment_query ON assignment (place, query);
CREATE INDEX assignment_open ON assignment (place, position) WHERE answer IS NULL;
CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT, place INTEGER NOT NULL, query INTEGER NOT NULL,
    answer TEXT, seconds REAL, time REAL NOT NULL, request TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX event_request ON event (place, request);
CREATE INDEX event_query ON event (place, query, id);
CREATE INDEX event_latest ON event (place, id);
CREATE TRIGGER event_kept BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'answers are never deleted'); END;
CREATE TRIGGER event_fixed BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'answers are never changed'); END;
"""


class Refused(DataError):
    """A name or an answer that cannot be taken; the message is shown to the annotator."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question as an annotator sees it."""

    query: int
    kind: str
    position: int  # from 0
    clips: tuple[tuple[int, int], ...]  # episode and first step, from left to right


@dataclass(frozen=True, kw_only=True)
class State:
    """Where an annotator stands."""

    asked: Asked | None  # None: all are answered
    upcoming: tuple[Asked, ...]  # those after it
    n_answered: int
    n_queries: int
    seconds_left: float | None  # at the pace of the latest answers; None before the third
    can_undo: bool


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one annotator now says to one question."""

    place: int
    query: int
    position: int
    swapped: bool
    answer: str  # as it was clicked: left and right are those of the page
    seconds: float  # from the question to the answer
    time: float  # when, in seconds since 1970

    @property
    def verdict(self) -> str:
        """The answer about the query's clips, however they were shown: first or second for left or right."""
        if self.answer not in ("left", "right"):
            return self.answer
        return "second" if (self.answer == "right") != self.swapped else "first"


def answers_path(dataset: str | Path, name: str) -> Path:
    """Where the answers for a feedback store lie, there or not.

    Raises:
        DataError: no such dataset, or a name that is no file name.
    """
    store = feedback_path(dataset, name)
    return store.with_name(store.stem + SUFFIX)


def create_answers(path: Path, plan: Plan) -> None:
    """Write a session without answers; it appears complete or not at all.

    Raises:
        OutputExists: there is a session of that name.
        StoreError: the disk is full, or the place cannot be written.
    """
    about = {"schema": SCHEMA, "version": VERSION, "secret": secrets.token_hex(32), "created": time.time()} | plan.about
    with complete_or_absent(path, force=False) as draft, _sqlite_errors(path):
        # People's names and the secret behind their links: for the owner's eyes.
        draft.touch(mode=0o600)
        connection = sqlite3.connect(draft, isolation_level=None)
        try:
            connection.executescript("PRAGMA synchronous=FULL;" + TABLES + "BEGIN;")
            connection.executemany(
                "INSERT INTO about VALUES (?, ?)", [(name, json.dumps(value)) for name, value in about.items()]
            )
            connection.executemany(
                "INSERT INTO query VALUES (?, ?, ?, ?)",
                [(i, query.kind, json.dumps(query.clips), query.gold) for i, query in enumerate(plan.queries)],
            )
            connection.executemany(
                "INSERT INTO assignment VALUES (?, ?, ?, ?, NULL)",
                [
                    (place, position, assignment.query, assignment.swapped)
                    for place, assignments in enumerate(plan.assignments)
                    for position, assignment in enumerate(assignments)
                ],
            )
            connection.execute("COMMIT")
        finally:
            connection.close()


class Answers:
    """An open session; one connection, shared by threads.

    Raises:
        DataError: no session, or one of another version.
        StoreError: the file cannot be read or written.
    """

    def __init__(self, path: Path):
        self.path = path
        if not path.is_file():
            raise DataError(f"{path}: no annotation session; start one with `fbgen annotate DATASET`")
        self._lock = threading.RLock()
        with _sqlite_errors(path):
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=WAIT)
            # In WAL mode FULL syncs the log at each commit: what was acknowledged survives a loss of power.
            self._connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;")
            rows = self._connection.execute("SELECT name, value FROM about").fetchall()
        self.about: dict[str, Any] = {name: json.loads(value) for name, value in rows}
        if (self.about.get("schema"), self.about.get("version")) != (SCHEMA, VERSION):
            raise DataError(
                f"{path}: {self.about.get('schema')} version {self.about.get('version')}, this release reads "
                f"{SCHEMA} version {VERSION}"
            )
        self._secret = bytes.fromhex(self.about.pop("secret"))
        # The questions never change.
        self._queries = {
            row[0]: Query(kind=row[1], clips=tuple((e, s) for e, s in json.loads(row[2])), gold=row[3])
            for row in self._rows("SELECT id, kind, clips, gold FROM query")
        }

    @property
    def queries(self) -> dict[int, Query]:
        return self._queries

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def join(self, name: str) -> int:
        """Give a new annotator a place.

        Raises:
            Refused: a name that is no name, one that is taken, or no place is left.
        """
        name = " ".join(name.split())
        if not NAME.fullmatch(name):
            raise Refused("name: expected 1 to 40 letters, digits, spaces or any of . ' -")
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM annotator WHERE name = ?", (name,)).fetchone():
                raise Refused(f"the name {name} is taken; open the link that you were given, or use another name")
            place = connection.execute("SELECT count(*) FROM annotator").fetchone()[0]
            if place >= self.about["config"]["n_annotators"]:
                raise Refused(f"all {place} places of this session are taken")
            connection.execute("INSERT INTO annotator VALUES (?, ?, ?)", (place, name, time.time()))
        return int(place)

    def annotators(self) -> dict[int, str]:
        """Names of those who joined, by place."""
        return dict(self._rows("SELECT place, name FROM annotator ORDER BY place"))

    def key(self, place: int) -> str:
        """What an annotator's link carries; it opens that annotator's questions and nothing else."""
        return f"{place}.{self._digest(f'annotator {place}')[:40]}"

    def place_of(self, key: str) -> int | None:
        """The annotator whose key this is; None if it is nobody's."""
        number, _, _ = key.partition(".")
        if not (number.isascii() and number.isdigit() and len(number) <= 6):
            return None
        if not hmac.compare_digest(self.key(int(number)).encode(), key.encode()):
            return None
        known = self._rows("SELECT 1 FROM annotator WHERE place = ?", int(number))
        return int(number) if known else None

    def pseudonym(self, place: int) -> str:
        """A name that tells annotators apart, and nothing of them."""
        return f"annotator-{self._digest(f'pseudonym {place}')[:8]}"

    def state(self, place: int) -> State:
        """What an annotator is asked next, and how far they are."""
        with self._lock:
            rows = self._rows(
                "SELECT position, query, swapped FROM assignment WHERE place = ? AND answer IS NULL "
                "ORDER BY position LIMIT ?",
                place,
                1 + N_PREFETCHED,
            )
            [(n_queries, n_open)] = self._rows(
                "SELECT count(*), (SELECT count(*) FROM assignment WHERE place = :place AND answer IS NULL) "
                "FROM assignment WHERE place = :place",
                {"place": place},
            )
            paces = self._rows(
                "SELECT seconds FROM event WHERE place = ? AND answer IS NOT NULL ORDER BY id DESC LIMIT ?",
                place,
                N_PACED,
            )
        asked = [self._asked(*row) for row in rows]
        return State(
            asked=asked[0] if asked else None,
            upcoming=tuple(asked[1:]),
            n_answered=n_queries - n_open,
            n_queries=n_queries,
            seconds_left=median(pace for (pace,) in paces) * n_open if len(paces) >= 3 else None,
            can_undo=n_open < n_queries,
        )

    def open(self, place: int) -> list[Asked]:
        """What an annotator has not answered yet, in the order of asking."""
        rows = self._rows(
            "SELECT position, query, swapped FROM assignment WHERE place = ? AND answer IS NULL ORDER BY position",
            place,
        )
        return [self._asked(*row) for row in rows]

    def answer(self, place: int, query: int, answer: str, *, seconds: float, request: str) -> bool:
        """Record an answer; it is on the disk when this returns.

        Args:
            place: of the annotator.
            query: one of theirs; answered before, it is a change of mind, and the history keeps both.
            answer: one of `ANSWERS` of the query's kind.
            seconds: from the question to the answer.
            request: chosen by the caller, once for each answer: a second call with it changes nothing.

        Returns:
            Whether this was new.

        Raises:
            Refused: not a question of this annotator's, or not an answer to it.
        """
        if not REQUEST.fullmatch(request):
            raise Refused("request: expected 8 to 64 letters, digits, - or _")
        if not (math.isfinite(seconds) and 0 <= seconds <= MAX_SECONDS):
            raise Refused(f"seconds: expected a number from 0 to {MAX_SECONDS:g}")
        with self._transaction() as connection:
            if self._seen(place, request):
                return False
            known = self._queries.get(query)
            mine = "SELECT 1 FROM assignment WHERE place = ? AND query = ?"
            if known is None or connection.execute(mine, (place, query)).fetchone() is None:
                raise Refused("this question is not one of yours")
            if answer not in ANSWERS[known.kind]:
                raise Refused(f"answer: expected one of {', '.join(ANSWERS[known.kind])}")
            self._record(place, query, answer, seconds, request)
        return True

    def undo(self, place: int, *, request: str) -> bool:
        """Take the latest answer back; the question is asked again, and the history keeps what was said.

        Returns:
            Whether there was one to take back, and this request was new.

        Raises:
            Refused: a request that is none.
        """
        if not REQUEST.fullmatch(request):
            raise Refused("request: expected 8 to 64 letters, digits, - or _")
        with self._transaction() as connection:
            if self._seen(place, request):
                return False
            latest = connection.execute(
                "SELECT query FROM event JOIN assignment USING (place, query) WHERE place = ? "
                "AND event.answer IS NOT NULL AND assignment.answer IS NOT NULL ORDER BY event.id DESC LIMIT 1",
                (place,),
            ).fetchone()
            if latest is None:
                return False
            self._record(place, latest[0], None, None, request)
        return True

    def clip(self, place: int, query: int, side: int) -> tuple[int, int] | None:
        """Episode and first step of a clip, 0 on the left and 1 on the right; None if it is not shown to them."""
        if query not in self._queries:  # nor would SQLite take any integer
            return None
        rows = self._rows("SELECT position, query, swapped FROM assignment WHERE place = ? AND query = ?", place, query)
        clips = self._asked(*rows[0]).clips if rows else ()
        return clips[side] if 0 <= side < len(clips) else None

    def answers(self) -> list[Answer]:
        """All present answers, by annotator in the order of asking."""
        rows = self._rows(
            "SELECT place, query, position, swapped, assignment.answer, seconds, time FROM assignment "
            "JOIN event USING (place, query) WHERE assignment.answer IS NOT NULL AND event.id = "
            "(SELECT max(id) FROM event AS e WHERE e.place = assignment.place AND e.query = assignment.query) "
            "ORDER BY place, position"
        )
        return [
            Answer(place=p, query=q, position=i, swapped=bool(w), answer=a, seconds=s, time=t)
            for p, q, i, w, a, s, t in rows
        ]

    def history(self) -> list[tuple[int, int, str | None, str]]:
        """Every event in its order: place, query, answer (None: taken back), request."""
        return self._rows("SELECT place, query, answer, request FROM event ORDER BY id")

    def _asked(self, position: int, query: int, swapped: int) -> Asked:
        known = self._queries[query]
        clips = known.clips[::-1] if swapped else known.clips
        return Asked(query=query, kind=known.kind, position=position, clips=clips)

    def _record(self, place: int, query: int, answer: str | None, seconds: float | None, request: str) -> None:
        self._connection.execute(
            "INSERT INTO event (place, query, answer, seconds, time, request) VALUES (?, ?, ?, ?, ?, ?)",
            (place, query, answer, seconds, time.time(), request),
        )
        self._connection.execute(
            "UPDATE assignment SET answer = ? WHERE place = ? AND query = ?", (answer, place, query)
        )

    def _seen(self, place: int, request: str) -> bool:
        return bool(self._rows("SELECT 1 FROM event WHERE place = ? AND request = ?", place, request))

    def _digest(self, what: str) -> str:
        return hmac.new(self._secret, what.encode(), hashlib.sha256).hexdigest()

    def _rows(self, statement: str, *values: Any) -> list[tuple]:
        with self._lock, _sqlite_errors(self.path):
            named = values[0] if values and isinstance(values[0], dict) else values
            return self._connection.execute(statement, named).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _sqlite_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    with writing_to(path):
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {error}; nothing of this answer was kept") from error
