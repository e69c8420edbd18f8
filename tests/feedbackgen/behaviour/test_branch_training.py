"""Training by branches: what each goes on from, what it tells of its progress, and a killed one's bytes."""

import pytest

from feedbackgen.behaviour import training
from feedbackgen.behaviour.training import Branch, Population, train_branches
from feedbackgen.errors import PolicyError

TASK = "SafetyPointCircle1-v0"
STEPS = 2 * training.N_ENVIRONMENTS  # of an update, here
QUICK = Population(
    branches=(
        Branch(source=None, penalty=0.0, snapshots={"medium": STEPS, "expert": 3 * STEPS}),
        Branch(source="medium", penalty=1.0, snapshots={"safe-expert": 2 * STEPS}),
    ),
    hidden=(4,),
)
TOTAL = 5 * STEPS + 3 * 500  # with an episode of each policy to measure it


@pytest.fixture
def quick(monkeypatch):
    pytest.importorskip("stable_baselines3")
    monkeypatch.setattr(training, "STEPS_PER_UPDATE", 2)
    monkeypatch.setitem(training.POPULATIONS, TASK, QUICK)

    def train(out, *, seed=0, progress=None):
        return train_branches(TASK, seed=seed, out=out, command="by hand", progress=progress, n_episodes=1)

    return train


@pytest.mark.simulator
def test_a_training_that_is_killed_goes_on_with_its_branch_to_the_same_bytes(tmp_path, quick):
    heard = []
    infos = quick(tmp_path / "whole", progress=lambda done, total: heard.append((done, total)))
    assert [info.name for info in infos] == ["medium", "expert", "safe-expert"]
    assert infos[2].description == f"{2 * STEPS} steps at 1 reward per unsafe step, from medium"
    assert heard[-1] == (TOTAL, TOTAL) and heard == sorted(heard)

    def kill_in_the_second_branch(done, total):
        if done > 3 * STEPS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "killed", progress=kill_in_the_second_branch)
    assert (tmp_path / "killed" / "expert.npz").exists() and not (tmp_path / "killed" / "safe-expert.npz").exists()
    first = (tmp_path / "killed" / "expert.npz").stat().st_mtime_ns
    quick(tmp_path / "killed")
    assert (tmp_path / "killed" / "expert.npz").stat().st_mtime_ns == first  # kept
    for name in ("medium.npz", "expert.npz", "safe-expert.npz", "policies.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    with pytest.raises(PolicyError, match=f"holds a training for {TASK} with seed 0, not for {TASK} with seed 1; use"):
        quick(tmp_path / "whole", seed=1)
