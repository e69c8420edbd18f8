import json
import re
import socket

import pytest
from fastapi.testclient import TestClient
from people import CLIP, StillClips, open_session

from feedbackgen.annotation.server import (
    HEADERS,
    JOIN_BURST,
    MAX_ADDRESSES,
    MAX_BODY,
    PAGES,
    Door,
    _bound,
    _Rates,
    create_app,
)
from feedbackgen.annotation.sessions import PREFERENCES
from feedbackgen.errors import RecipeError

TOKEN = "a-token-of-the-test"


class Visitor:
    """A browser's side of the interface."""

    def __init__(self, answers, *, door=None, clips=None, facts=None, base="http://127.0.0.1:8377"):
        self.clips = clips or StillClips()
        app = create_app(answers, self.clips, door or Door(), facts=facts)
        self.client = TestClient(app, base_url=base, client=("127.0.0.1", 5))
        self.key = None

    def join(self, name="Ada", **body):
        response = self.post("/api/join", {"name": name} | body)
        assert response.status_code == 200, response.text
        self.key = response.json()["key"]
        return self

    def headers(self):
        return {} if self.key is None else {"Authorization": f"Bearer {self.key}"}

    def get(self, path, **headers):
        return self.client.get(path, headers=self.headers() | headers)

    def post(self, path, body, **headers):
        return self.client.post(path, json=body, headers=self.headers() | headers)

    def reply(self, **change):
        asked = self.get("/api/state").json()["asked"]
        answer = "left" if asked["kind"] == PREFERENCES else "safe"
        body = {"query": asked["query"], "answer": answer, "seconds": 1.5, "request": f"request-{asked['query']}"}
        return self.post("/api/answer", body | change)


@pytest.fixture
def answers():
    return open_session()


@pytest.fixture
def ada(answers):
    return Visitor(answers).join()


def test_the_page_is_three_files_of_ours_and_nothing_from_elsewhere(answers):
    visitor = Visitor(answers)
    for path, (_, kind) in PAGES.items():
        response = visitor.get(path)
        assert (response.status_code, response.headers["content-type"]) == (200, kind)
        addresses = re.findall(r"""(?:src|href|url|import|fetch)\\s*[=(]\\s*["'`]?(https?:|//)""", response.text)
        assert addresses == []
        for name, value in HEADERS.items():
            assert response.headers[name] == value


def test_a_session_goes_from_joining_to_the_last_answer(ada, answers):
    about = ada.get("/api/session").json()
    assert about["name"] == "Ada" and about["asks"] == ["preferences", "safety"]
    for number in range(20):
        state = ada.reply().json()
        assert (state["answered"], state["total"]) == (number + 1, 20)
    assert state["asked"] is None and len(answers.answers()) == 20


def test_no_answer_of_the_interface_tells_reward_cost_policy_or_gold(ada):
    texts = [ada.get(path).text for path in ("/api/session", "/api/state")] + [ada.reply().text]
    for text in texts:
        assert not re.search(
            "reward|return|episode|policy|gold|swapped|slow|fast\\b", text.replace("as fast as", "")
        ), text


def test_facts_are_shown_when_asked_for(answers):
    visitor = Visitor(answers, facts=lambda clip: {"policy": f"of {clip[0]}"}).join()
    asked = visitor.get("/api/state").json()["asked"]
    assert len(asked["facts"]) == 2 and asked["facts"][0]["policy"].startswith("of ")


def test_undo_asks_again(ada):
    first = ada.get("/api/state").json()["asked"]
    ada.reply()
    state = ada.post("/api/undo", {"request": "undo-request"}).json()
    assert state["asked"] == first and state["answered"] == 0


def test_clips_are_those_of_the_question_from_left_to_right(ada, answers):
    asked = answers.state(0).asked
    for side, (episode, start) in enumerate(asked.clips):
        response = ada.get(f"/api/clip/{asked.query}/{side}")
        assert response.content == CLIP + bytes([episode, start])
        assert response.headers["content-type"] == "video/mp4"


def test_the_clips_of_the_next_questions_are_expected(ada, answers):
    ada.get("/api/state")
    state = answers.state(0)
    assert ada.clips.expected == [clip for asked in (state.asked, *state.upcoming) for clip in asked.clips]


@pytest.mark.parametrize("key", [None, "", "0.", "0." + "0" * 40, "1.x", "é"])
def test_without_a_key_of_ones_own_nothing_is_told(ada, key):
    ada.key = None
    headers = {} if key is None else {"Authorization": f"Bearer {key}".encode()}
    for path in ("/api/session", "/api/state", "/api/clip/0/0"):
        response = ada.client.get(path, headers=headers)
        assert response.status_code == 401 and "this link is not valid" in response.json()["error"]
    for path in ("/api/answer", "/api/undo"):
        body = {"query": 0, "answer": "left", "seconds": 1, "request": "a-request"} if "answer" in path else {
            "request": "a-request"
        }  # fmt: skip
        assert ada.client.post(path, json=body, headers=headers).status_code == 401


def test_joining_needs_the_token_where_there_is_one(answers):
    visitor = Visitor(answers, door=Door(host="0.0.0.0", token=TOKEN))
    for token in ({}, {"token": "wrong"}, {"token": TOKEN + "x"}, {"token": None}):
        response = visitor.post("/api/join", {"name": "Eve"} | token)
        assert response.status_code == 401 and "wrong token" in response.json()["error"]
    assert answers.annotators() == {}
    assert visitor.join("Ada", token=TOKEN).get("/api/state").status_code == 200


def test_guessing_is_slowed_down(answers):
    visitor = Visitor(answers, door=Door(host="0.0.0.0", token=TOKEN))
    codes = [
        visitor.post("/api/join", {"name": "Eve", "token": f"{i}"}).status_code for i in range(int(JOIN_BURST) + 5)
    ]
    assert codes[0] == 401 and codes[-1] == 429
    assert visitor.get("/api/state").status_code == 429


@pytest.mark.parametrize("token", [None, "short"])
def test_other_machines_are_let_in_only_with_a_token(token):
    message = "--host 0.0.0.0 lets other machines in and needs --token" if token is None else "--token: expected at le"
    with pytest.raises(RecipeError, match=message):
        Door(host="0.0.0.0", token=token)
    assert Door().is_local and Door(host="::1").is_local and Door(host="localhost").is_local
    assert not Door(host="example.org", token=TOKEN).is_local


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/annotate.css/../../__init__.py",
        "//etc/passwd",
        "/static/index.html",
        "/index.html",
        "/docs",
        "/openapi.json",
        "/api/clip/../../etc/passwd",
        "/api/clip/0/..%2f..%2fetc%2fpasswd",
        "/api/clip/0/-1",
        "/api/clip/0/2",
        "/api/clip/99999999999999999999999999/0",
        "/api/clip/0%00/0",
        "/api/clip/1e3/0",
    ],
)
def test_no_path_leads_to_a_file(ada, path):
    response = ada.get(path)
    assert response.status_code in (404, 422), response.text
    assert "root:" not in response.text and len(response.content) < 300


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "evil.example:8377"}, 421),
        ({"Host": ""}, 421),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Origin": "http://127.0.0.1:8377", "Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_posting_from_elsewhere_is_refused(ada, answers, headers, status):
    response = ada.client.post("/api/undo", content=b'{"request": "a-request"}', headers={
        "Content-Type": "application/json"} | ada.headers() | headers)  # fmt: skip
    assert response.status_code == status, response.text


def test_a_link_elsewhere_may_open_the_page_and_nothing_more(ada):
    assert ada.get("/", **{"Sec-Fetch-Site": "cross-site"}).status_code == 200
    assert ada.get("/api/state", **{"Sec-Fetch-Site": "cross-site"}).status_code == 403


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "best"}, "answer: Input should be"),
        ({"answer": None}, "answer: Input should be"),
        ({"answer": "safe"}, "answer: expected one of left, right, equal, unsure"),
        ({"query": "0"}, "query: Input should be a valid integer"),
        ({"query": 1.5}, "query: Input should be a valid integer"),
        ({"query": True}, "query: Input should be a valid integer"),
        ({"query": 10**30}, "this question is not one of yours"),
        ({"seconds": -1}, "seconds: Input should be greater than or equal to 0"),
        ({"seconds": "1"}, "seconds: Input should be a valid number"),
        ({"seconds": 1e300}, "seconds: expected a number from 0 to 86400"),
        ({"request": "x"}, "request: expected 8 to 64"),
        ({"request": "x" * 65}, "request: String should have at most 64 characters"),
        ({"place": 0}, "place: Extra inputs are not permitted"),
    ],
)
def test_a_malformed_answer_is_refused_with_a_reason(ada, answers, change, message):
    response = ada.reply(**change)
    assert response.status_code in (409, 422) and message in response.json()["error"]
    assert answers.history() == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"query": NaN}', b"\xff\xfe", b'"left"'])
def test_a_body_that_is_no_answer_is_refused(ada, answers, body):
    response = ada.client.post(
        "/api/answer", content=body, headers=ada.headers() | {"Content-Type": "application/json"}
    )
    assert response.status_code == 422 and response.json()["error"]
    assert answers.history() == []


def test_an_oversized_body_is_refused_whether_or_not_it_says_so(ada, answers):
    def parts():
        for _ in range(10):
            yield b" " * MAX_BODY

    headers = ada.headers() | {"Content-Type": "application/json"}
    for body in (b" " * (MAX_BODY + 1), parts()):
        response = ada.client.post("/api/answer", content=body, headers=headers)
        assert response.status_code == 413
        assert response.json()["error"] == f"expected at most {MAX_BODY} bytes"
    assert answers.history() == []


def test_other_methods_are_refused(ada):
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert ada.client.request(method, "/api/answer").status_code == 405


def test_too_many_requests_at_once_are_refused_until_time_has_passed(ada, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("feedbackgen.annotation.server.time.monotonic", lambda: now[0])
    rates = _Rates(rate=10, burst=20)
    assert [rates.allows("a") for _ in range(22)] == [True] * 20 + [False] * 2
    assert rates.allows("b")
    now[0] = 0.55
    assert [rates.allows("a") for _ in range(6)] == [True] * 5 + [False]
    ada.client.app.rates = _Rates(rate=10, burst=1)
    assert [ada.get("/api/state").status_code for _ in range(2)] == [200, 429]


def test_only_so_many_addresses_are_remembered():
    rates = _Rates(rate=10, burst=20)
    for number in range(MAX_ADDRESSES + 50):
        rates.allows(f"{number}")
    assert len(rates.buckets) == MAX_ADDRESSES


def test_a_name_that_is_taken_is_refused(ada):
    response = ada.post("/api/join", {"name": "ada"})
    assert response.status_code == 409 and "the name ada is taken" in response.json()["error"]


def test_what_the_machine_lacks_is_in_the_log_and_not_on_the_page(answers, caplog):
    class NoClips(StillClips):
        async def clip(self, episode, start):
            raise RecipeError("cannot render in /home/ada/secret")

    visitor = Visitor(answers, clips=NoClips()).join()
    query = answers.state(0).asked.query
    response = visitor.get(f"/api/clip/{query}/0")
    assert response.status_code == 503 and "secret" not in response.text
    assert "cannot render in /home/ada/secret" in caplog.text


def test_the_interface_never_tells_where_files_lie(ada, answers):
    texts = [ada.get(path).text for path in ("/", "/api/session", "/api/state", "/nowhere")]
    assert not any(str(answers.path.parent) in text or "site-packages" in text for text in texts)
    assert json.loads(texts[-1])["error"] == "Not Found"


def test_small_packets_leave_at_once():
    # asyncio turns Nagle's delays off on sockets whose protocol is named; otherwise each answer waits 40 ms.
    with _bound(Door(port=0)) as listener:
        assert listener.proto == socket.IPPROTO_TCP
