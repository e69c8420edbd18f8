"""Workers: one thread each, gone with their parent, and a death is one line."""

import os
import signal
import subprocess
import sys
import time

import pytest

from feedbackgen.errors import StoreError
from feedbackgen.workers import ONE_THREAD, worker_pool

PARENT = """
import os, time
from feedbackgen.workers import worker_pool

if __name__ == "__main__":
    with worker_pool(2) as pool:
        print(*{pool.submit(os.getpid).result() for _ in range(20)} | set(pool._processes), flush=True)
        pool.submit(time.sleep, 1000).result()
"""


def is_running(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"  # nobody reaps an orphan in some containers
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_a_parent_that_was_killed(tmp_path, number):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert workers and all(map(is_running, workers))
        parent.send_signal(number)
        parent.wait()
        deadline = time.monotonic() + 20
        while any(map(is_running, workers)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(map(is_running, workers))


def test_a_worker_that_dies_is_one_line():
    with pytest.raises(StoreError, match="a worker process died"), worker_pool(1) as pool:
        pool.submit(os._exit, 1).result()


def test_a_worker_has_one_thread_whatever_the_parent_has(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with worker_pool(1) as pool:
        assert [pool.submit(os.getenv, name).result() for name in ONE_THREAD] == ["1", "1", "1"]
    assert (os.environ["OMP_NUM_THREADS"], os.environ.get("MKL_NUM_THREADS")) == ("7", None)
