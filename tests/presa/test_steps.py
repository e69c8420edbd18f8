"""Steps in memory and steps in mapped files are the same numbers, and the files are bounded, shared and whole."""

import multiprocessing
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from samples import DATASET, TASK, make_dataset, make_episode

from feedbackgen.episodes import iterate_steps, load_trajectories, write_dataset
from feedbackgen.errors import DataError, StoreError
from feedbackgen.files import cache_root
from feedbackgen.label import LabelConfig, label
from presa.steps import ActionBox, mapped_steps, steps_in_memory

BOX = ActionBox(low=np.array([-1.0, -2.0]), high=np.array([1.0, 2.0]))


def in_memory(info, box=BOX):
    return steps_in_memory(lambda: iterate_steps(info.path), info.n_steps, box)


def test_mean_and_deviation_are_numpys_to_the_last_bit():
    steps = in_memory(make_dataset())
    observations = load_trajectories(DATASET, with_rewards=False).observations
    assert np.array_equal(steps.mean, observations.mean(axis=0))
    assert np.array_equal(steps.std, observations.std(axis=0))


def test_observations_are_clipped_at_ten_deviations_and_actions_scaled_to_the_box():
    observations = np.zeros((400, 1))
    observations[7] = 1.0
    actions = np.linspace(-1, 3, 400)[:, None]
    box = ActionBox(low=np.array([-1.0]), high=np.array([3.0]))
    steps = steps_in_memory(lambda: [(observations, actions)], 400, box)
    assert steps.observations.max() == 10.0  # (1 - 1/400) / std is 19.97
    assert steps.actions[[0, -1], 0].tolist() == [-1.0, 1.0]


def test_a_constant_feature_is_not_blown_up():
    steps = steps_in_memory(lambda: [(np.full((5, 1), 0.3), np.zeros((5, 2)))], 5, BOX)
    assert steps.std.tolist() == [1e-3] and abs(steps.observations).max() < 1e-6


def test_no_episode_at_all_is_refused():
    with pytest.raises(DataError, match="expected at least one episode, got none"):
        steps_in_memory(lambda: [], 0, BOX)


def test_mapped_files_hold_the_bits_of_memory():
    info = make_dataset()
    memory, mapped = in_memory(info), mapped_steps(info, BOX)
    for name in ("observations", "actions"):
        assert torch.equal(getattr(mapped, name)[:], getattr(memory, name))
    for name in ("starts", "mean", "std"):
        assert np.array_equal(getattr(mapped, name), getattr(memory, name))


def test_files_are_written_once_for_a_fingerprint_and_again_for_other_data():
    info = make_dataset()
    first = mapped_steps(info, BOX)
    times = {path: path.stat().st_mtime_ns for path in cache_root().rglob("*.npy")}
    mapped_steps(info, BOX)
    assert {path: path.stat().st_mtime_ns for path in cache_root().rglob("*.npy")} == times and len(times) == 2
    changed = make_dataset(n_episodes=4, force=True)
    assert len(mapped_steps(changed, BOX).observations) == 160 < len(first.observations)
    mapped_steps(changed, ActionBox(low=BOX.low, high=2 * BOX.high))
    assert len(list((cache_root() / "steps").iterdir())) == 6  # three folders and their locks


def test_a_failure_on_the_way_leaves_no_files(monkeypatch):
    info = make_dataset()

    def broken(*arguments):
        yield np.zeros((1, 28), np.float32), np.zeros((1, 2), np.float32)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("presa.steps._standardised", broken)
    with pytest.raises(StoreError, match="No space left on device"):
        mapped_steps(info, BOX)
    assert [path.suffix for path in (cache_root() / "steps").iterdir()] == [".lock"]


def test_files_of_a_process_killed_while_writing_are_made_anew():
    info = make_dataset()
    code = f"""
        import os, signal
        from feedbackgen.episodes import dataset_info
        from presa import steps
        whole = steps._standardised
        def killed(*arguments):
            for number, block in enumerate(whole(*arguments)):
                if number == 6:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield block
        steps._standardised = killed
        box = steps.ActionBox(low=steps.np.array({BOX.low.tolist()}), high=steps.np.array({BOX.high.tolist()}))
        steps.mapped_steps(dataset_info({DATASET!r}), box)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)]).returncode == -9
    assert len(list(cache_root().rglob("observations.npy"))) == 1  # of the draft
    assert torch.equal(mapped_steps(info, BOX).observations[:], in_memory(info).observations)
    assert len(list(cache_root().rglob("observations.npy"))) == 1


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FEEDBACKGEN_CACHE", str(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"cannot write .*: Not a directory"):
        mapped_steps(make_dataset(), BOX)


@pytest.mark.parametrize("content", ["", "{}", "no JSON"])
def test_damaged_files_are_named_with_the_way_out(content):
    info = make_dataset()
    mapped_steps(info, BOX)
    next(cache_root().rglob("header.json")).write_text(content)
    with pytest.raises(StoreError, match=r"damaged .*; remove it, it is made anew"):
        mapped_steps(info, BOX)


def _sum_of(info):
    return float(mapped_steps(info, BOX).observations[:].sum())


def test_processes_that_ask_at_once_share_the_files():
    info = make_dataset()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.map(_sum_of, [info] * 4)
    assert len(set(sums)) == 1
    assert len(list(cache_root().rglob("*.npy"))) == 2


def test_a_box_without_bounds_is_refused():
    with pytest.raises(DataError, match="action box: expected finite bounds"):
        ActionBox(low=np.array([-np.inf]), high=np.array([1.0]))


BOUNDED = """
    import resource, sys
    from feedbackgen.episodes import dataset_info
    from presa import mapped
    from presa.batch import Batches, load_learning_data

    def status(name):
        line = next(line for line in open("/proc/self/status") if line.startswith(name))
        return int(line.split()[1]) * 1024

    small = load_learning_data("test/small-v0", mapped=True)  # what is loaded late, is loaded now
    for batch in Batches(small, n_pairs=64, n_safety=64, n_batches=3, seed=0): pass
    mapped.MAPPED_AT_MOST = 2**22
    resource.setrlimit(resource.RLIMIT_DATA, (status("VmData") + 2**24, -1))
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
    before = status("VmRSS")
    data = load_learning_data("test/large-v0", mapped=sys.argv[1] == "mapped")
    total = 0.0
    for batch in Batches(data, n_pairs=64, n_safety=64, n_batches=30, seed=0):
        total += float(batch.pair_observations.sum()) + float(batch.safety_actions.sum())
    print(status("VmHWM") - before, total)
"""


def test_mapped_steps_need_little_memory_whatever_their_number():
    """24 MB of steps, 48 MB as stored: made and drawn from within 16 MB of own memory, 24 MB with mapped pages."""
    for name, n_steps, n_episodes in (("small", 400, 4), ("large", 5000, 40)):
        make_long_dataset(f"test/{name}-v0", n_episodes, n_steps)
        label(f"test/{name}-v0", LabelConfig(n_pairs=100, n_safety=100, segment_length=64, seed=0))

    def run(mode):
        command = [sys.executable, "-c", textwrap.dedent(BOUNDED), mode]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=variables)

    result = run("mapped")
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[0]) < 24 * 2**20
    # The bound is real: the whole of the steps does not fit below it.
    assert "MemoryError" in run("memory").stderr


def make_long_dataset(dataset_id, n_episodes, n_steps):
    write_dataset(
        dataset_id,
        (make_episode(index, n_steps=n_steps, unsafe=index % 2 == 1) for index in range(n_episodes)),
        task=TASK,
    )
