"""Collection killed at any moment, and resumed: nothing lost, nothing twice, the bytes of an undisturbed run."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from feedbackgen.collect import collect
from feedbackgen.errors import OutputExists
from feedbackgen.jobs import list_jobs, play_jobs
from feedbackgen.recipe import Recipe, recipe_text
from feedbackgen.seeding import stream

pytestmark = pytest.mark.simulator

RECIPE = Recipe(
    task="SafetyHalfCheetahVelocity-v1",
    policies={"expert+noise=0.1": 0.5, "random": 0.5},
    n_episodes=12,
    max_episode_steps=150,
    name="test",
    cost_cap=140.0,
)
FBGEN = [sys.executable, "-W", "ignore", "-c", "from fbgen.main import main; main()"]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def in_a_child(action) -> int:
    """The pid of a copy of this process that does the action; it inherits warm imports and environments."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return child


def kill_at(root: Path, count: int) -> None:
    """Kill this process right before the count-th time that it touches a file below the root."""
    touched = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal touched
        if event.split(".")[0] in ("open", "os", "shutil") and any(str(root) in str(word) for word in arguments[:2]):
            touched += 1
            if touched == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def test_killed_at_random_moments_twenty_times_a_run_ends_with_the_bytes_of_an_undisturbed_one(tmp_path):
    play_jobs(RECIPE, list_jobs(RECIPE)[:1], lambda job, shard: None)  # children inherit the environment
    started = time.monotonic()
    collect(RECIPE, root=tmp_path / "undisturbed")
    duration = time.monotonic() - started
    undisturbed = contents(tmp_path / "undisturbed")
    rng = stream(0, "moments of killing")
    n_killed = n_complete = n_resumed = 0
    root = tmp_path / "killed"
    while n_killed < 20:
        n_resumed += root.exists()
        child = in_a_child(lambda: collect(RECIPE, root=root, resume=True))
        time.sleep(rng.uniform(0, duration))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            n_killed += 1
        else:  # it ended before the signal came
            assert os.WEXITSTATUS(status) == 0 and contents(root) == undisturbed
            n_complete += 1
            shutil.rmtree(root)
    collect(RECIPE, root=root, resume=True)
    assert contents(root) == undisturbed
    assert n_resumed >= 10


@pytest.mark.parametrize("replacing", [False, True])
def test_killed_before_any_touch_of_a_file_a_run_can_be_resumed(tmp_path, replacing):
    recipe = replace(RECIPE, n_episodes=3, max_episode_steps=5, cost_cap=None)
    play_jobs(recipe, list_jobs(recipe)[:1], lambda job, shard: None)
    collect(recipe, root=tmp_path / "undisturbed")
    undisturbed = contents(tmp_path / "undisturbed")
    count, killed = 0, True
    while killed:
        count += 1
        root = tmp_path / f"killed-{count}"
        if replacing:
            collect(replace(recipe, seed=1), root=root)

        def run(root=root, count=count):
            kill_at(root, count)
            collect(recipe, root=root, force=replacing)

        _, status = os.waitpid(in_a_child(run), 0)
        killed = os.WIFSIGNALED(status)
        collect(recipe, root=root, resume=True, force=replacing)
        assert contents(root) == undisturbed, count
        shutil.rmtree(root)
    assert count > 20  # so many moments there are


def test_two_workers_killed_with_their_parent_leave_what_one_process_ends(tmp_path):
    collect(RECIPE, root=tmp_path / "undisturbed")
    (tmp_path / "recipe.toml").write_text(recipe_text(RECIPE))
    root = tmp_path / "killed"
    partial = (root / RECIPE.dataset_id).with_name(".test-v0.partial")
    with subprocess.Popen(
        [*FBGEN, "collect", "--recipe", "recipe.toml", "--workers", "2"],
        env={**os.environ, "MINARI_DATASETS_PATH": str(root)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as process:
        while not list(partial.glob("*.npz")) and process.poll() is None:
            time.sleep(0.001)
        process.kill()
    collect(RECIPE, root=root, resume=True)
    assert contents(root) == contents(tmp_path / "undisturbed")


def test_an_interrupted_replacement_is_not_taken_for_the_dataset_that_it_replaces(tmp_path):
    first = collect(RECIPE, root=tmp_path)

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(RECIPE, root=tmp_path, force=True, progress=interrupt)
    with pytest.raises(OutputExists, match="exists; use --force to replace it"):
        collect(RECIPE, root=tmp_path, resume=True)
    assert collect(RECIPE, root=tmp_path, resume=True, force=True) == first


def test_a_run_that_had_ended_is_left_as_it_is(tmp_path):
    first = collect(RECIPE, root=tmp_path)
    before = first.path.stat().st_mtime_ns
    assert collect(RECIPE, root=tmp_path, resume=True) == first
    assert first.path.stat().st_mtime_ns == before
