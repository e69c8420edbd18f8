"""The annotation server under load: ``fbgen annotate`` itself, and annotators who answer from another process.

At a steady rate of requests, half of them answers and half of them questions for what is next: errors, times of
response, the server's memory early and late, and whether every acknowledged answer is in the file. Run by hand:
``make bench-annotate``.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

N_ANNOTATORS = 4
DATASET = "feedbackgen/SafetyPointCircle1-v0/load-v0"
FBGEN = [sys.executable, "-W", "ignore", "-c", "from fbgen.main import main; main()"]
CHOICES = {"preferences": "left", "safety": "safe"}


class Annotator:
    """One connection that answers, and asks what is next."""

    def __init__(self, link: str):
        address, key = link.split("#key=")
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self.connection = http.client.HTTPConnection(address.removeprefix("http://").rstrip("/"), timeout=20)
        self.n_errors, self.n_acknowledged, self.seconds = 0, 0, []
        self.state = self.call("GET", "/api/state")

    def call(self, method: str, path: str, body: dict | None = None) -> dict | None:
        before = time.perf_counter()
        self.connection.request(method, path, None if body is None else json.dumps(body), self.headers)
        response = self.connection.getresponse()
        content = response.read()
        self.seconds.append(time.perf_counter() - before)
        if response.status != 200:
            self.n_errors += 1
            return None
        return json.loads(content)

    def step(self) -> None:
        """An answer, or the question for what is next, in turns."""
        if len(self.seconds) % 2:
            asked = self.state["asked"]
            answer = {"answer": CHOICES[asked["kind"]], "seconds": 1.0, "request": f"question-{asked['query']}"}
            content = self.call("POST", "/api/answer", {"query": asked["query"], **answer})
            self.n_acknowledged += content is not None
        else:
            content = self.call("GET", "/api/state")
        self.state = content or self.state


def drive(links: list[str], rate: float, seconds: float, results) -> None:
    """Send requests at a steady rate; late ones follow at once."""
    annotators = [Annotator(link) for link in links]
    start = time.perf_counter()

    def keep_asking(annotator: Annotator) -> None:
        n_sent = 0
        while (now := time.perf_counter() - start) < seconds:
            if n_sent >= now * rate / len(annotators):
                time.sleep(0.0005)
                continue
            annotator.step()
            n_sent += 1

    threads = [threading.Thread(target=keep_asking, args=(annotator,)) for annotator in annotators]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - start
    n_sent = sum(len(one.seconds) for one in annotators) - len(annotators)
    results.put(
        {
            "requests": n_sent,
            "requests_per_second": n_sent / elapsed,
            "errors": sum(one.n_errors for one in annotators),
            "acknowledged": sum(one.n_acknowledged for one in annotators),
            "median_ms": 1e3 * float(np.median(np.concatenate([one.seconds for one in annotators]))),
            "p99_ms": 1e3 * float(np.quantile(np.concatenate([one.seconds for one in annotators]), 0.99)),
        }
    )


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"MINARI_DATASETS_PATH": folder}
        collect = ["collect", "SafetyPointCircle1-v0", "-n", "24", "--policy", "random", "--name", "load"]
        subprocess.run([*FBGEN, *collect], check=True, env=environment, stdout=subprocess.DEVNULL)
        n_queries = int(arguments.rate * arguments.seconds / N_ANNOTATORS) + 10
        session = ["--queries", n_queries, "--annotators", N_ANNOTATORS, "--segment-length", 16, "--gold", 0]
        invited = [word for number in range(N_ANNOTATORS) for word in ("--invite", f"Person {number}")]
        command = [*FBGEN, "annotate", DATASET, *map(str, session), *invited, "--size", "64", "--port", "0"]
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            lines = [server.stdout.readline() for _ in range(1 + N_ANNOTATORS)]
            links = [line.rsplit(" ", 1)[1].strip() for line in lines[1:]]
            context = multiprocessing.get_context("spawn")
            results = context.Queue()
            driver = context.Process(target=drive, args=(links, arguments.rate, arguments.seconds, results))
            driver.start()
            time.sleep(arguments.seconds / 4)
            early = resident_mib(server.pid)
            figures = results.get(timeout=arguments.seconds + 60)
            figures |= {"mib_after_a_quarter": early, "mib_at_the_end": resident_mib(server.pid)}
            driver.join()
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
        answers = Path(folder) / DATASET / "feedback" / "human.answers.sqlite"
        [(figures["answers_in_the_file"],)] = sqlite3.connect(answers).execute(
            "SELECT count(*) FROM assignment WHERE answer IS NOT NULL"
        )
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):22} {round(value, 2)}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
