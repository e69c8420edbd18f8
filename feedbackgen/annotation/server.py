"""The page's server: what an annotator may ask of it, and what it refuses; see docs/annotating.md on threats.

No path, name or number of a request reaches the file system: pages are read when the server starts, and a clip is
looked up among the questions of the one who asks.
"""

import asyncio
import hmac
import ipaddress
import json
import logging
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import urlsplit

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as AnyHTTPException

from feedbackgen.annotation.answers import Answers, Asked, Refused, State
from feedbackgen.errors import FeedbackgenError, RecipeError

DEFAULT_PORT = 8377
LEAST_TOKEN = 16  # characters
MAX_BODY = 4096  # bytes; an answer takes about 150
RATE, BURST = 400.0, 800.0  # requests a second of one address, and at once
JOIN_RATE, JOIN_BURST = 1.0, 20.0  # joining and wrong keys: those who guess are slowed down
MAX_ADDRESSES = 10_000  # whose rates are remembered
PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/annotate.css": ("annotate.css", "text/css; charset=utf-8"),
    "/annotate.js": ("annotate.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src blob:; img-src 'self' "
        "data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

LOG = logging.getLogger(__name__)


class Clips(Protocol):
    """Where clips come from."""

    async def clip(self, episode: int, start: int) -> bytes:
        """An MP4; rendered now if it is not there yet."""

    def expect(self, clips: Sequence[tuple[int, int]]) -> None:
        """Render these next, in the background."""


@dataclass(frozen=True, kw_only=True)
class Door:
    """Who may come in.

    Raises:
        RecipeError: another address than the machine's own without a token, or a token that is too short.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    token: str | None = None  # asked of whoever joins by name; a link of their own needs none

    def __post_init__(self):
        if self.token is not None and len(self.token) < LEAST_TOKEN:
            raise RecipeError(f"--token: expected at least {LEAST_TOKEN} characters, got {len(self.token)}")
        if not self.is_local and self.token is None:
            raise RecipeError(
                f"--host {self.host} lets other machines in and needs --token (or FBGEN_TOKEN), for example "
                f"{secrets.token_urlsafe(18)}"
            )

    @property
    def is_local(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def address(self, port: int) -> str:
        """Where browsers go, given the port that was bound."""
        everywhere = self.host in ("0.0.0.0", "::")
        host = socket.gethostname() if everywhere else f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port}/"


class Body(BaseModel):
    """What a request may hold, and nothing else."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Join(Body):
    """A new annotator's name, and the server's token where it has one."""

    name: str = Field(max_length=200)
    token: str | None = Field(default=None, max_length=200)


class Reply(Body):
    """An answer."""

    query: int
    answer: Literal["left", "right", "equal", "unsure", "safe", "unsafe"]
    seconds: float = Field(ge=0, allow_inf_nan=False)
    request: str = Field(max_length=64)


class Undo(Body):
    """Take the latest answer back."""

    request: str = Field(max_length=64)


def create_app(answers: Answers, clips: Clips, door: Door, *, facts: Callable[[tuple[int, int]], dict] | None = None):
    """The application: three files, and six requests that all but two need an annotator's key.

    Args:
        answers: the session.
        clips: where clips come from.
        door: who may come in.
        facts: what is shown under a clip, given its episode and first step; None: nothing.
    """
    pages = {path: (_page(name), kind) for path, (name, kind) in PAGES.items()}
    guesses = _Rates(JOIN_RATE, JOIN_BURST)

    @asynccontextmanager
    async def lifespan(app):
        for place in answers.annotators():
            _expect(clips, answers.state(place))
        yield

    # No pages of its own: FastAPI's load scripts from elsewhere.
    app = FastAPI(title="fbgen annotate", openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)

    def annotator(request: Request, authorization: Annotated[str, Header(max_length=200)] = "") -> int:
        place = answers.place_of(authorization.removeprefix("Bearer "))
        if place is None:
            if not guesses.allows(_address(request)):
                raise HTTPException(429, "too many wrong keys; wait a little")
            raise HTTPException(401, "this link is not valid; ask for another one")
        return place

    Place = Annotated[int, Depends(annotator)]

    def shown(asked: Asked | None) -> dict[str, Any] | None:
        if asked is None:
            return None
        question = {"query": asked.query, "kind": asked.kind, "position": asked.position, "n_clips": len(asked.clips)}
        return question if facts is None else question | {"facts": [facts(clip) for clip in asked.clips]}

    def status(place: int) -> dict[str, Any]:
        state = answers.state(place)
        _expect(clips, state)
        return {
            "asked": shown(state.asked),
            "upcoming": [shown(asked) for asked in state.upcoming],
            "answered": state.n_answered,
            "total": state.n_queries,
            "seconds_left": state.seconds_left,
            "can_undo": state.can_undo,
        }

    @app.post("/api/join")
    def join(body: Join, request: Request) -> dict[str, Any]:
        if not guesses.allows(_address(request)):
            raise HTTPException(429, "too many attempts; wait a little")
        if door.token is not None and not hmac.compare_digest(door.token.encode(), (body.token or "").encode()):
            raise HTTPException(401, "wrong token; open the address that `fbgen annotate` printed, token and all")
        return {"key": answers.key(answers.join(body.name))}

    @app.get("/api/session")
    def session(place: Place) -> dict[str, Any]:
        about = answers.about
        return {
            "name": answers.annotators()[place],
            "task": about["task"],
            "goal": about["goal"],
            "unsafe": about["cost_meaning"],
            "asks": about["config"]["asks"],
        }

    @app.get("/api/state")
    def state(place: Place) -> dict[str, Any]:
        return status(place)

    @app.post("/api/answer")
    def answer(body: Reply, place: Place) -> dict[str, Any]:
        answers.answer(place, body.query, body.answer, seconds=body.seconds, request=body.request)
        return status(place)

    @app.post("/api/undo")
    def undo(body: Undo, place: Place) -> dict[str, Any]:
        answers.undo(place, request=body.request)
        return status(place)

    @app.get("/api/clip/{query}/{side}")
    async def clip(query: int, side: int, place: Place) -> Response:
        wanted = answers.clip(place, query, side)
        if wanted is None:
            raise HTTPException(404, "no such clip among your questions")
        return Response(await clips.clip(*wanted), media_type="video/mp4")

    for path, (content, kind) in pages.items():
        app.get(path)(lambda content=content, kind=kind: Response(content, media_type=kind))

    @app.exception_handler(AnyHTTPException)
    async def refused(request, error):
        return JSONResponse({"error": str(error.detail)}, error.status_code)

    @app.exception_handler(RequestValidationError)
    async def malformed(request, error):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "body"
        return JSONResponse({"error": f"{place[:60]}: {first['msg']}"}, 422)

    @app.exception_handler(FeedbackgenError)
    async def failed(request, error):
        # What the machine lacks or where its files lie is no annotator's business: it is in the server's own log.
        if isinstance(error, Refused):
            return JSONResponse({"error": str(error)}, 409)
        LOG.error("%s", error)
        return JSONResponse({"error": "the server could not do this; whoever runs it finds the reason there"}, 503)

    return _Guard(app, door)


def serve(app, door: Door, *, started: Callable[[str], None] = lambda address: None) -> None:
    """Serve until Ctrl-C.

    Args:
        app: of `create_app`.
        door: whose host and port it is.
        started: called with the address once requests are taken.

    Raises:
        RecipeError: the port is taken, or the address is not this machine's.
    """
    with _bound(door) as listener, _interrupts_ignored():
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, proxy_headers=False,
                                timeout_keep_alive=30, limit_concurrency=512)  # fmt: skip
        server = uvicorn.Server(config)

        async def run() -> None:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            while not (server.started or serving.done()):
                await asyncio.sleep(0.01)
            if not serving.done():
                started(door.address(listener.getsockname()[1]))
            await serving

        asyncio.run(run())


class _Guard:
    """Every request comes through here: its host, origin, size and rate, before anything reads it."""

    def __init__(self, app, door: Door):
        self.app, self.door = app, door
        self.rates = _Rates(RATE, BURST)

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is None and scope["method"] == "POST":
            body = await _read_body(receive)
            if body is None:
                refusal = 413, f"expected at most {MAX_BODY} bytes"
            receive = _replay(body or b"")
        if refusal is not None:
            await _refuse(send, *refusal)
            return

        async def send_with_headers(message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = message | {"headers": [*message["headers"], *own]}
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def _refusal(self, scope, headers: dict[str, str]) -> tuple[int, str] | None:
        if not self.rates.allows(scope["client"][0] if scope.get("client") else ""):
            return 429, "too many requests; slow down"
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "expected GET or POST"
        # A page elsewhere may point a name of its own at this machine: it would send that name.
        host = headers.get("host", "")
        if self.door.is_local and urlsplit(f"//{host}").hostname not in ("127.0.0.1", "localhost", "::1"):
            return 421, "unknown host name"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "requests from other sites are refused"
        # A link on another site may open the page, and nothing more.
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and scope["path"] not in PAGES:
            return 403, "requests from other sites are refused"
        if scope["method"] == "POST":
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                return 415, "expected application/json"
            length = headers.get("content-length", "0")
            if not length.isdigit() or int(length[:12]) > MAX_BODY:
                return 413, f"expected at most {MAX_BODY} bytes"
        return None


class _Rates:
    """A bucket of requests for each address, that fills again with time."""

    def __init__(self, rate: float, burst: float):
        self.rate, self.burst = rate, burst
        self.buckets: dict[str, tuple[float, float]] = {}  # address: requests left, when that was

    def allows(self, address: str) -> bool:
        now = time.monotonic()
        left, then = self.buckets.pop(address, (self.burst, now))
        left = min(self.burst, left + (now - then) * self.rate)
        if len(self.buckets) >= MAX_ADDRESSES:
            self.buckets.pop(next(iter(self.buckets)))  # the one not heard of for longest
        self.buckets[address] = (left - 1 if left >= 1 else left, now)
        return left >= 1


async def _read_body(receive) -> bytes | None:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body"):
            return body


def _replay(body: bytes):
    messages: Iterator[dict[str, Any]] = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        return next(messages, {"type": "http.disconnect"})

    return receive


async def _refuse(send, status: int, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"} | HEADERS
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})


def _expect(clips: Clips, state: State) -> None:
    asked = [question for question in (state.asked, *state.upcoming) if question is not None]
    clips.expect([clip for question in asked for clip in question.clips])


def _page(name: str) -> bytes:
    return (files("feedbackgen.annotation") / "static" / name).read_bytes()


def _address(request) -> str:
    return request.client.host if request.client else ""


@contextmanager
def _bound(door: Door) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in door.host else socket.AF_INET
    # asyncio turns delays off (Nagle's) only where the protocol is named; each answer would wait 40 ms for them.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((door.host, door.port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise RecipeError(f"{door.host} port {door.port}: {reason}; use another --port or --host") from error
        yield listener


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Uvicorn ends well at Ctrl-C, and then raises the signal once more for whoever handled it before."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
