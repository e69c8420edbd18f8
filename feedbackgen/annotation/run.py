"""From a dataset to a page that asks about it: opens or creates the session, and serves it until it is ended."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedbackgen.annotation.answers import Answers, answers_path, create_answers
from feedbackgen.annotation.clips import DEFAULT_SIZE, ClipRoom
from feedbackgen.annotation.export import require_same_data
from feedbackgen.annotation.sessions import Judge, SessionConfig, make_plan
from feedbackgen.environments.gl import prepare_drawing
from feedbackgen.episodes import dataset_info, episode_returns, load_outcomes
from feedbackgen.errors import MissingDependency, RecipeError

DEFAULT_SESSION = "human"


@dataclass(frozen=True, kw_only=True)
class Welcome:
    """What whoever started the server is told."""

    answers: Path
    n_queries: int  # of each annotator
    n_places: int
    join: str  # address for whoever has no link yet
    links: tuple[tuple[str, int, str], ...]  # name, answered, own address


def open_session(dataset: str | Path, name: str, wishes: Mapping[str, Any]) -> Answers:
    """The session of that name, created if there is none.

    Args:
        dataset: Minari id or path.
        name: of the session, and of the feedback that it becomes.
        wishes: fields of `SessionConfig` that were asked for; those of a session that is there must agree.

    Raises:
        DataError: the session asks about other data, or the dataset holds too little for its questions.
        RecipeError: a value is out of range, or the session was created with another.
    """
    path = answers_path(dataset, name)
    if not path.exists():
        plan = make_plan(dataset, SessionConfig(**wishes))
        path.parent.mkdir(exist_ok=True)
        create_answers(path, plan)
    answers = Answers(path)
    try:
        require_same_data(answers, dataset)
        config = answers.about["config"]
        for field, wish in wishes.items():
            there = tuple(config[field]) if isinstance(config[field], list) else config[field]
            if there != wish:
                raise RecipeError(
                    f"session {name}: was created with {field} {_shown(there)}, not {_shown(wish)}; its questions are "
                    "fixed: leave that flag out, or start another session with --feedback NAME"
                )
    except BaseException:
        answers.close()
        raise
    return answers


def annotate(
    dataset: str | Path,
    *,
    name: str = DEFAULT_SESSION,
    wishes: Mapping[str, Any],
    host: str,
    port: int,
    token: str | None = None,
    invited: Sequence[str] = (),
    size: int = DEFAULT_SIZE,
    welcome: Callable[[Welcome], None],
) -> None:
    """Serve a session until Ctrl-C.

    Args:
        dataset: Minari id or path.
        name: of the session, and of the feedback that it becomes.
        wishes: fields of `SessionConfig` that were asked for.
        host: 127.0.0.1, or with a token any address of this machine.
        port: 0 for any that is free.
        token: asked of whoever joins without a link of their own.
        invited: names of people who get a place and a link.
        size: of clips, in pixels.
        welcome: called once requests are taken.

    Raises:
        FeedbackgenError: see `open_session`; the address cannot be used; FastAPI, a simulator or a GL library is
            missing.
    """
    try:
        from feedbackgen.annotation.server import Door, create_app, serve
    except ImportError as error:
        raise MissingDependency(
            f"annotating needs FastAPI and uvicorn ({error.name} is missing): pip install 'feedbackgen[annotate]'"
        ) from error
    door = Door(host=host, port=port, token=token)
    prepare_drawing(dataset_info(dataset).task)
    answers = open_session(dataset, name, wishes)
    room = None
    try:
        known = {known.lower() for known in answers.annotators().values()}
        for person in invited:
            if person.lower() not in known:
                answers.join(person)
        config = answers.about["config"]
        room = ClipRoom(dataset, config["segment_length"], size=size, ahead=_ahead(answers))
        app = create_app(answers, room, door, facts=_facts(dataset, answers) if config["show"] else None)

        def started(address: str) -> None:
            links = tuple(
                (person, answers.state(place).n_answered, f"{address}#key={answers.key(place)}")
                for place, person in answers.annotators().items()
            )
            join = address if token is None else f"{address}#token={token}"
            welcome(
                Welcome(
                    answers=answers.path,
                    n_queries=config["n_queries"],
                    n_places=config["n_annotators"],
                    join=join,
                    links=links,
                )
            )

        serve(app, door, started=started)
    finally:
        if room is not None:
            room.close()
        answers.close()


def _ahead(answers: Answers) -> list[tuple[int, int]]:
    """Every clip that those who joined will see, in the order in which they do."""
    clips = dict.fromkeys(
        clip for place in answers.annotators() for asked in answers.open(place) for clip in asked.clips
    )
    return list(clips)


def _facts(dataset: str | Path, answers: Answers) -> Callable[[tuple[int, int]], dict[str, Any]]:
    """What is shown under a clip where the session was told to show it."""
    config = SessionConfig(**answers.about["config"])
    judge = Judge.of(dataset_info(dataset), load_outcomes(dataset), config)
    policies = episode_returns(dataset)[2]

    def facts(clip: tuple[int, int]) -> dict[str, Any]:
        [number] = judge.numbers([clip])
        known = {
            "reward": float(judge.returns[number]),
            "cost": float(judge.costs[number]),
            "policy": policies[clip[0]],
        }
        return {name: known[name] for name in config.show}

    return facts


def _shown(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else f"{value}"
