"""A Ray cluster plays the same episodes; one that is not there, or that fails, is one line within seconds."""

import math
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from feedbackgen import cluster
from feedbackgen.collect import collect
from feedbackgen.episodes import dataset_info
from feedbackgen.errors import DataError, MissingDependency, StoreError
from feedbackgen.jobs import list_jobs
from feedbackgen.recipe import Recipe

RECIPE = Recipe(
    task="SafetyPointCircle1-v0",
    policies={"expert+noise=0.1": 0.5, "random": 0.5},
    n_episodes=36,
    max_episode_steps=20,
    name="test",
)
FBGEN = [sys.executable, "-W", "ignore", "-c", "from fbgen.main import main; main()"]
# Two nodes of one CPU each, until the standard input is closed.
NODES = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster()
for host in ("127.0.0.2", "127.0.0.3"):
    cluster.add_node(node_ip_address=host, num_cpus=1, object_store_memory=80 << 20, include_dashboard=False)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def address():
    """Of a cluster of two nodes on the loopback device; it inherits this process's environment."""
    pytest.importorskip("ray")
    # Sockets live in its folder, whose path must be short.
    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder,
        subprocess.Popen(
            [sys.executable, "-c", NODES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder},
        ) as nodes,
    ):
        yield nodes.stdout.readline().strip()
        nodes.stdin.close()


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.simulator
@pytest.mark.slow
def test_two_nodes_write_the_bytes_of_one_process_and_of_two(address, tmp_path):
    one = collect(RECIPE, root=tmp_path / "one")
    two = collect(RECIPE, root=tmp_path / "two", workers=2)
    seen = []
    nodes = collect(RECIPE, root=tmp_path / "nodes", ray=address, progress=lambda done, total: seen.append(done))
    assert one.fingerprint == two.fingerprint == nodes.fingerprint
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "nodes")
    assert seen[0] == 0 and seen[-1] == 36 and len(seen) > 3  # shards came home bit by bit


@pytest.mark.simulator
@pytest.mark.slow
def test_the_commands_of_the_collecting_page_write_one_fingerprint(address):
    page = (Path(__file__).parents[2] / "docs" / "collecting.md").read_text()
    commands = [line for line in re.findall(r"^fbgen (collect .*)", page, flags=re.MULTILINE) if "-n 64" in line]
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command.replace("10.0.0.1:6379", address))
        words[words.index("-n") + 1] = "4"
        subprocess.run([*FBGEN, *words], check=True, capture_output=True)
    names = [words.split(" --name ")[1].split()[0] for words in commands]
    assert len({dataset_info(f"feedbackgen/SafetyPointCircle1-v0/{name}-v0").fingerprint for name in names}) == 1


@pytest.mark.simulator
@pytest.mark.slow
def test_a_run_on_the_cluster_goes_on_where_another_process_was_interrupted(address, tmp_path):
    collect(RECIPE, root=tmp_path / "undisturbed")

    def interrupt(done, total):
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(RECIPE, root=tmp_path / "resumed", progress=interrupt)
    seen = []
    collect(RECIPE, root=tmp_path / "resumed", resume=True, ray=address, progress=lambda done, _: seen.append(done))
    assert seen[0] == 9
    assert contents(tmp_path / "undisturbed") == contents(tmp_path / "resumed")


@pytest.mark.simulator
@pytest.mark.slow
def test_an_error_on_a_node_is_the_one_line_that_it_is_at_home(address, datasets):
    capped = replace(RECIPE, policies={"poor": 1.0}, n_episodes=1, cost_cap=0.0, max_episode_steps=None)
    with pytest.raises(DataError, match="policy poor: 50 episodes in a row cost more than cost_cap 0; raise the cap"):
        collect(capped, ray=address)


@pytest.mark.simulator
@pytest.mark.slow
def test_a_node_with_other_software_is_refused(address, monkeypatch):
    here = {**cluster.versions(), "mujoco": "1.2.3"}
    monkeypatch.setattr(cluster, "versions", lambda: here)
    with pytest.raises(StoreError, match=r"node .* runs mujoco 3.* instead of 1\.2\.3; install the same on every node"):
        collect(RECIPE, ray=address)


def test_a_node_that_rounds_otherwise_is_refused(monkeypatch):
    monkeypatch.setattr(cluster.arithmetic, "came_too_late", lambda: True)
    with pytest.raises(
        StoreError, match=r"node .* rounds as on few processors; start Ray there with OPENBLAS_CORETYPE='H"
    ):
        cluster._play_part(RECIPE, [], cluster.versions())


@pytest.mark.simulator
@pytest.mark.slow
def test_a_node_whose_worker_dies_each_time_is_one_line(address, monkeypatch):
    def die(recipe, jobs, expected):
        os._exit(1)

    monkeypatch.setattr(cluster, "_play_part", die)
    with pytest.raises(StoreError, match=r"a worker died again and again .* finished episodes are kept for --resume"):
        list(cluster.play_on_cluster(address, RECIPE, list_jobs(RECIPE)[:1]))


@pytest.mark.slow
def test_a_node_without_our_packages_is_one_line(address, monkeypatch):
    monkeypatch.setattr(cluster, "_play_part", _of_a_module_that_nodes_lack)
    with pytest.raises(
        StoreError, match=r"a node could not play \(RuntimeError: .* failed to import .*; is feedbackgen installed"
    ) as error:
        list(cluster.play_on_cluster(address, RECIPE, list_jobs(RECIPE)[:1]))
    assert len(str(error.value)) < 300


def _of_a_module_that_nodes_lack(recipe, jobs, expected):
    return []


def test_an_address_where_nobody_listens_is_one_line_at_once(datasets):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(
            StoreError, match=rf"--ray 127.0.0.1:{port}: no answer \(Connection refused\); is the cluster up"
        ):
            collect(RECIPE, ray=f"127.0.0.1:{port}")
    assert time.monotonic() - started < 10
    assert not datasets.exists()


def test_a_listener_that_keeps_silent_is_one_line_within_seconds(monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(StoreError, match=rf"--ray 127.0.0.1:{port}: no answer \(timed out\)"):
            cluster.require_answer(f"127.0.0.1:{port}")


def test_another_service_is_not_taken_for_ray():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer).start()
        with pytest.raises(StoreError, match="something answers, but no Ray head node"):
            cluster.require_answer(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize("address", ["auto", "6379", ":6379", "head:port", "ray://head:10001", "head:"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(StoreError, match=f"--ray {address}: expected HOST:PORT of the cluster's head node"):
        cluster.require_answer(address)


def test_without_ray_the_way_to_get_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(cluster, "require_answer", lambda address: None)
    with pytest.raises(MissingDependency, match=r"--ray needs the package ray: pip install 'feedbackgen\[ray\]'"):
        list(cluster.play_on_cluster("head:6379", RECIPE, []))


@pytest.mark.slow
def test_any_function_of_a_module_is_called_on_the_nodes(address):
    calls = [(3, 4), (6, 8), (5, 12)]
    results = dict(cluster.call_on_cluster(address, math.hypot, calls))
    assert results == {(3, 4): 5.0, (6, 8): 10.0, (5, 12): 13.0}
