"""What the server acknowledged is never lost, whenever it is killed."""

import http.client
import itertools
import json
import signal
import threading

import numpy as np
import pytest
from people import free_port, open_session, start_server

from feedbackgen.annotation.answers import Answers
from feedbackgen.annotation.sessions import PREFERENCES


def call(connection, key, method, path, body=None):
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    content = json.loads(response.read())
    assert response.status == 200, content
    return content


def answer_until_killed(server, port, key, acknowledged, run, *, n_answers, delay):
    """Answer at full speed, and note what was acknowledged; after some answers, kill the server a moment later."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    state = call(connection, key, "GET", "/api/state")
    for number in itertools.count():
        if number == n_answers:
            threading.Timer(delay, server.send_signal, [signal.SIGKILL]).start()
        if (asked := state["asked"]) is None:
            return
        choices = ["left", "right"] if asked["kind"] == PREFERENCES else ["safe", "unsafe"]
        answer = choices[asked["query"] % 2]
        body = {"query": asked["query"], "answer": answer, "seconds": 1, "request": f"run-{run}-query-{asked['query']}"}
        state = call(connection, key, "POST", "/api/answer", body)
        acknowledged[asked["query"]] = answer


@pytest.mark.slow
def test_no_acknowledged_answer_is_lost_by_kills_at_random_moments():
    answers = open_session(30, n_queries=200, n_annotators=1)
    key = answers.key(answers.join("Ada"))
    answers.close()
    rng = np.random.default_rng()  # other moments in every run
    acknowledged, n_killed, kept = {}, 0, {}
    for run in range(100):
        port = free_port()
        server = start_server(answers.path, port)
        moment = {"n_answers": int(rng.integers(60)), "delay": float(rng.uniform(0, 0.05))}
        try:
            answer_until_killed(server, port, key, acknowledged, run, **moment)
        except (OSError, http.client.HTTPException):
            n_killed += 1
        finally:
            server.kill()
            server.wait()
        again = Answers(answers.path)
        kept = {answer.query: answer.answer for answer in again.answers()}
        again.close()
        assert acknowledged.items() <= kept.items(), f"run {run}, killed after {moment}"
        assert len(kept) - len(acknowledged) <= n_killed  # at most the one under way at each kill
        if len(kept) == 200:
            break
    assert len(kept) == 200 and n_killed >= 2
