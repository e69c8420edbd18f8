"""Episodes played on an existing Ray cluster, their shards back through its object store: the only importer of ray."""

import logging
import socket
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from feedbackgen import arithmetic
from feedbackgen.errors import FeedbackgenError, MissingDependency, StoreError
from feedbackgen.jobs import Job, play_jobs, split_jobs
from feedbackgen.provenance import versions
from feedbackgen.recipe import Recipe

ANSWER_SECONDS = 5.0  # within which a head node is to answer
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
HTTP2_SETTINGS = 4  # the frame that a server answers with first


def play_on_cluster(
    address: str, recipe: Recipe, jobs: Sequence[Job]
) -> Generator[list[tuple[Job, bytes]], None, None]:
    """Play the episodes on all CPUs of a cluster; yields shards as they come home, a few at a time.

    Args:
        address: ``HOST:PORT`` of the head node; this machine is one of the cluster's.
        recipe: what is collected.
        jobs: its episodes, in any order.

    Raises:
        StoreError: nobody answers there, a worker died again and again, or a node runs other software.
        DataError: as `feedbackgen.jobs.play_jobs`.
        MissingDependency: ray is not installed.
    """

    def calls():
        for part in split_jobs(jobs, n_cpus):
            yield recipe, part, versions()

    require_answer(address)
    with _connected(address) as ray:
        n_cpus = _count_cpus(ray)
        for (_, part, _), shards in _call_each(ray, address, _play_part, calls()):
            yield list(zip(part, shards, strict=True))


def call_on_cluster(
    address: str, function: Callable[..., Any], calls: Iterable[tuple]
) -> Generator[tuple[tuple, Any], None, None]:
    """Call a function of a module with each of the arguments, one call to a CPU; yields arguments and result.

    Args:
        address: ``HOST:PORT`` of the head node; this machine is one of the cluster's.
        function: its files are on a file system that all nodes share.
        calls: arguments of each call.

    Raises:
        StoreError: nobody answers there, a worker died again and again, or a node runs other software.
        MissingDependency: ray is not installed.
    """
    require_answer(address)
    with _connected(address) as ray:
        expected = versions()
        guarded = ((expected, function, *arguments) for arguments in calls)
        for (_, _, *arguments), result in _call_each(ray, address, _call_guarded, guarded):
            yield tuple(arguments), result


def _call_each(
    ray: Any, address: str, function: Callable[..., Any], calls: Iterable[tuple]
) -> Generator[tuple[tuple, Any], None, None]:
    remote, waiting = ray.remote(num_cpus=1)(function), iter(calls)
    running: dict[Any, tuple] = {}

    def submit() -> None:
        arguments = next(waiting, None)
        if arguments is not None:
            running[remote.remote(*arguments)] = arguments

    # Twice as many as run at a time keep every CPU busy, and the object store small.
    for _ in range(2 * _count_cpus(ray)):
        submit()
    while running:
        ended, _ = ray.wait(list(running), num_returns=1)
        submit()
        arguments = running.pop(ended[0])
        with _failures_named(address):
            result = ray.get(ended[0])
        yield arguments, result


def _count_cpus(ray: Any) -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _call_guarded(expected: dict[str, str], function: Callable[..., Any], *arguments: Any) -> Any:
    _require_same_bytes(expected)
    return function(*arguments)


def require_answer(address: str) -> None:
    """Make sure that a Ray head node may be there, within seconds; Ray itself would try for minutes.

    Raises:
        StoreError: the address is none, or nobody answers there.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise StoreError(f"--ray {address}: expected HOST:PORT of the cluster's head node, 10.0.0.1:6379 say")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(HTTP2_GREETING)
            frame = connection.recv(9)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StoreError(
            f"--ray {address}: no answer ({reason}); is the cluster up? `ray start --head` prints its address"
        ) from error
    if len(frame) < 4 or frame[3] != HTTP2_SETTINGS:
        raise StoreError(
            f"--ray {address}: something answers, but no Ray head node; `ray start --head` prints its address"
        )


def _play_part(recipe: Recipe, jobs: list[Job], expected: dict[str, str]) -> list[bytes]:
    """On a node of the cluster: shards in the order of the jobs."""
    _require_same_bytes(expected)
    shards: dict[int, bytes] = {}
    play_jobs(recipe, jobs, lambda job, shard: shards.__setitem__(job.number, shard))
    return [shards[job.number] for job in jobs]


def _require_same_bytes(expected: dict[str, str]) -> None:
    found = versions()
    others = [f"{name} {found.get(name)} instead of {version}" for name, version in expected.items()
              if found.get(name) != version]  # fmt: skip
    if others:
        raise StoreError(
            f"node {socket.gethostname()} runs {', '.join(others)}; install the same on every node, "
            "or the bytes would depend on who plays"
        )
    if arithmetic.came_too_late():
        settings = " ".join(f"{name}='{value}'" for name, value in arithmetic.common().items())
        raise StoreError(
            f"node {socket.gethostname()} imported numpy before feedbackgen, and rounds as on few processors; start "
            f"Ray there with {settings}, or the bytes would depend on who plays"
        )


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingDependency("--ray needs the package ray: pip install 'feedbackgen[ray]'") from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise StoreError(
            f"--ray {address}: cannot join the cluster ({_first_sentence(error)}); this command runs on one of "
            "its machines"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()  # tasks of a driver that has gone are cancelled


@contextmanager
def _failures_named(address: str) -> Iterator[None]:
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, FeedbackgenError):
            raise error.cause from None
        reason = f"{type(error.cause).__name__}: {_first_sentence(error.cause)}"
        raise StoreError(
            f"--ray {address}: a node could not play ({reason}); is feedbackgen installed on every node, with the "
            "simulator?"
        ) from error
    except RayError as error:
        raise StoreError(
            f"--ray {address}: a worker died again and again ({_first_sentence(error)}); finished episodes are kept "
            "for --resume"
        ) from error


def _first_sentence(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].partition(". ")[0]
