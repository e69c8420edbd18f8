"""Jobs: split so that all are kept busy; their shards come home whole; what a process that plays them needs."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from samples import make_episode

from feedbackgen.errors import StoreError
from feedbackgen.jobs import N_LANES, Job, encode_episode, read_shard, shard_path, split_jobs, write_shard

PLAY = r"""
import re, sys
from feedbackgen.jobs import list_jobs, play_jobs
from feedbackgen.recipe import Recipe

recipe = Recipe(task=sys.argv[1], policies={"random": 1.0}, n_episodes=32, max_episode_steps=20)
play_jobs(recipe, list_jobs(recipe), lambda job, shard: None)
print(int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1]) * 1024 / 1e6)
"""


class Still:
    name = "still"


def jobs(count):
    return [Job(number=number, policy=Still(), index=number) for number in range(count)]


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
@pytest.mark.parametrize("count", [1, 5, 16, 17, 32, 33, 100, 2022])
def test_every_job_is_in_one_part_and_no_worker_gets_much_more_than_another(workers, count):
    parts = split_jobs(jobs(count), workers)
    assert [job.number for part in parts for job in part] == list(range(count))
    assert max(map(len, parts)) <= N_LANES
    # Rounds in which all workers have a part, of the same size but for the last.
    rounds = -(-len(parts) // workers)
    assert rounds * len(parts[0]) - count / workers < N_LANES


def test_an_episode_comes_home_as_it_was_played(tmp_path):
    episode = replace(make_episode(3), states=np.arange(82.0).reshape(41, 2))
    job = Job(number=7, policy=type("Policy", (), {"name": episode.policy})(), index=0)
    write_shard(tmp_path, job, encode_episode(episode))
    assert [path.name for path in tmp_path.iterdir()] == ["0000007.npz"]
    back = read_shard(tmp_path, job)
    for name, value in vars(episode).items():
        np.testing.assert_equal(getattr(back, name), value)


@pytest.mark.parametrize("content", [b"", b"PK", b"nonsense" * 100])
def test_a_damaged_shard_is_named(tmp_path, content):
    (job,) = jobs(1)
    shard_path(tmp_path, job).write_bytes(content)
    with pytest.raises(StoreError, match=r"0000000\.npz: damaged .*; delete this file and go on with --resume"):
        read_shard(tmp_path, job)


@pytest.mark.simulator
@pytest.mark.parametrize("task", ["SafetyPointGoal1-v0", "SafetyRacecarButton2-v0", "SafetyDoggoGoal2-v0"])
def test_a_process_that_plays_navigation_tasks_stays_below_150_megabytes(task):
    play = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAY, task], capture_output=True, text=True, check=True
    )
    assert float(play.stdout.split()[-1]) < 150
