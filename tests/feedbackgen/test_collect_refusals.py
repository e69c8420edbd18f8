"""What goes wrong while collecting: one line that says what and how to go on, nothing half-written, nothing lost."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest

from feedbackgen import jobs as jobs_module
from feedbackgen.behaviour.zoo import WEIGHTS
from feedbackgen.collect import collect
from feedbackgen.errors import DataError, StoreError
from feedbackgen.recipe import Recipe, recipe_text

pytestmark = pytest.mark.simulator

TASK = "SafetyPointCircle1-v0"
RECIPE = Recipe(task=TASK, policies={"random": 1.0}, n_episodes=24, max_episode_steps=30, name="test")
FBGEN = [sys.executable, "-W", "ignore", "-c", "from fbgen.main import main; main()"]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture
def undisturbed(tmp_path):
    collect(RECIPE, root=tmp_path / "undisturbed")
    return contents(tmp_path / "undisturbed")


def collected(*words, **options) -> str:
    """The one line in which the command refuses."""
    result = subprocess.run([*FBGEN, "collect", *map(str, words)], capture_output=True, text=True, **options)
    assert result.returncode == 1 and result.stdout == "", result.stdout
    assert result.stderr.startswith("fbgen: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_a_worker_that_dies_is_one_line_and_what_had_ended_is_kept(tmp_path, undisturbed):
    def kill_one(done, total):
        # Called again for what had ended before; by then both may be gone, or go between listing and killing.
        for child in multiprocessing.active_children()[:1] if done else []:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)

    root = tmp_path / "killed"
    longer = replace(RECIPE, n_episodes=96)
    with pytest.raises(
        StoreError,
        match=r"a worker process died \(out of memory\?\); try fewer --workers, and --resume; a script of your own",
    ):
        collect(longer, workers=2, root=root, progress=kill_one)
    assert not (root / longer.dataset_id).exists()
    seen = []
    collect(longer, root=root, resume=True, progress=lambda done, total: seen.append(done))
    assert seen[0] > 0
    collect(longer, root=tmp_path / "whole")
    assert contents(root) == contents(tmp_path / "whole")


@pytest.mark.parametrize("failure", [mujoco.FatalError("mj_stackAlloc: out of memory"), UnboundLocalError("cost")])
def test_a_simulator_that_fails_names_the_episode_and_what_had_ended_is_kept(
    tmp_path, undisturbed, monkeypatch, failure
):
    forward, n_calls = mujoco.mj_forward, 0

    def fail(model, data):
        nonlocal n_calls
        n_calls += 1
        if n_calls > 30 * 16 + 100:  # in the second round of episodes
            raise failure
        forward(model, data)

    root = tmp_path / "failed"
    monkeypatch.setattr(mujoco, "mj_forward", fail)
    message = (
        rf"{TASK}: the simulator failed in an episode of random \(reset seed \d+, step \d+\).*: "
        rf"{type(failure).__name__}: .*; finished episodes are kept for --resume"
    )
    with pytest.raises(DataError, match=message):
        collect(RECIPE, root=root)
    assert not (root / RECIPE.dataset_id).exists()
    monkeypatch.setattr(mujoco, "mj_forward", forward)
    seen = []
    collect(RECIPE, root=root, resume=True, progress=lambda done, total: seen.append(done))
    assert seen[0] == 16
    assert contents(root) == undisturbed


def test_observations_that_are_not_finite_name_policy_and_seed(monkeypatch):
    batch = jobs_module.make_env_batch(TASK, 16)
    step = batch.step

    def blurred(actions, lanes):
        transitions = step(actions, lanes)
        transitions.observations[0, 3] = np.nan
        return transitions

    monkeypatch.setattr(batch, "step", blurred)
    monkeypatch.setattr(jobs_module, "_environments", lambda task: batch)
    with pytest.raises(
        DataError, match=rf"{TASK}, an episode of random \(reset seed \d+\): observations: expected finite"
    ):
        collect(RECIPE)


def test_a_policy_that_acts_nan_is_named(monkeypatch):
    monkeypatch.setattr("feedbackgen.behaviour.policies._uniform", lambda low, high, rng: low * np.nan)
    with pytest.raises(
        DataError, match=r"policy random: its action at step 0 of an episode \(reset seed \d+\) is not finite"
    ):
        collect(RECIPE)


def test_a_policy_file_of_another_task_or_with_nans_is_one_line(datasets):
    other = WEIGHTS / "SafetyHalfCheetahVelocity-v1" / "expert.npz"
    error = collected(TASK, "-n", 1, "--policy", other)
    assert f"policy file {other}: trained for SafetyHalfCheetahVelocity-v1, not for {TASK}" in error
    with np.load(WEIGHTS / TASK / "expert.npz") as file:
        arrays = dict(file)
    arrays["bias_0"] = arrays["bias_0"] * np.nan
    np.savez("broken.npz", **arrays)
    error = collected(TASK, "-n", 1, "--policy", "broken.npz")
    assert "policy file broken.npz: " in error and "not finite; train it again" in error
    assert not datasets.exists()


def test_a_recipe_that_makes_no_sense_is_one_line(datasets):
    text = recipe_text(RECIPE)
    Path("recipe.toml").write_text(text.replace("max_episode_steps", "max_episode_step"))
    error = collected("--recipe", "recipe.toml")
    assert "recipe recipe.toml: unknown key 'max_episode_step'; did you mean max_episode_steps?" in error
    Path("recipe.toml").write_text(text.replace('"random" = 1.0', '"random" = 0.5\n"expert" = 0.4'))
    error = collected("--recipe", "recipe.toml")
    assert "recipe recipe.toml: shares of the policies: expected a sum of 1, got 0.9" in error
    assert not datasets.exists()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("size", [5_000, 120_000])  # of the largest file: less than a shard, than the dataset
def test_a_full_disk_is_one_line_and_a_larger_one_goes_on(datasets, undisturbed, workers, size):
    Path("recipe.toml").write_text(recipe_text(RECIPE))
    error = collected(
        "--recipe", "recipe.toml", "--workers", workers,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )  # fmt: skip
    target = datasets / RECIPE.dataset_id
    assert f"cannot write {target}: File too large; nothing was left under that name" in error
    assert not target.exists() and not list(datasets.rglob("*draft*"))
    collect(RECIPE, resume=True)
    assert contents(datasets) == undisturbed
