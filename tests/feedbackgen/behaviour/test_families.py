"""Training of one network for all cautions: what it is paid for, and that a killed run ends with the same bytes."""

import numpy as np
import pytest

from feedbackgen.behaviour.families import MEMBERS, train_family
from feedbackgen.behaviour.ppo import Settings, _ramp
from feedbackgen.behaviour.worlds import FORWARD_VELOCITY, TrainingWorlds
from feedbackgen.errors import PolicyError
from feedbackgen.tasks import get_task

TASK = "SafetyHopperVelocity-v1"
QUICK = Settings(n_steps=672, schedule=960, penalty=1.0, n_environments=2, steps_per_update=16, batch_size=16)


def quick(out, seed=0, **changes):
    return train_family(TASK, seed=seed, out=out, command="by hand", n_episodes=1, settings=QUICK, **changes)


@pytest.mark.simulator
def test_a_training_that_is_killed_goes_on_to_the_same_bytes(tmp_path):
    heard = []
    infos = quick(tmp_path / "whole", progress=lambda done, total: heard.append((done, total)))
    assert [info.name for info in infos] == list(MEMBERS)
    assert heard[-1] == (11672, 11672) and heard == sorted(heard)

    def kill(done, total):
        if done > 640:  # in the second stage of 640 steps
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "killed", progress=kill)
    assert not (tmp_path / "killed" / "expert.npz").exists()
    quick(tmp_path / "killed")
    for name in [*(f"{member}.npz" for member in MEMBERS), "policies.json"]:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    with pytest.raises(PolicyError, match=f"holds a training for {TASK} with seed 0, not for {TASK} with seed 1; use"):
        quick(tmp_path / "whole", seed=1)


@pytest.mark.simulator
@pytest.mark.parametrize("task", FORWARD_VELOCITY)
def test_the_observation_holds_the_speed_that_the_cost_is_about(task):
    worlds = TrainingWorlds(task, 2, penalty=0.0, seed=0)
    worlds.restart(0)
    place, bound = FORWARD_VELOCITY[task]
    assert f"{bound:g} m/s" in get_task(task).cost_meaning
    rng = np.random.default_rng(0)
    before = [worlds.batch.data(lane).qpos[0] for lane in range(2)]
    seen = []
    for _ in range(20):
        observations, last, *_ = worlds.step(rng.uniform(-1, 1, (2, worlds.action_dim)))
        seen.append(last[:, place])
        if not np.array_equal(observations, last):
            return  # fell
    environment = worlds.batch.environments[0]
    moved = (worlds.batch.data(0).qpos[0] - before[0]) / (20 * environment.dt)
    assert np.mean(seen, axis=0)[0] == pytest.approx(moved, abs=0.25)


def test_penalties_grow_between_two_shares_of_the_schedule():
    assert [_ramp(QUICK, share) for share in (0.0, 0.2, 0.4, 0.6, 0.9)] == pytest.approx([0.0, 0.0, 0.5, 1.0, 1.0])


@pytest.mark.simulator
def test_the_penalty_is_for_speed_above_the_target_and_for_cost_with_caution():
    worlds = TrainingWorlds(TASK, 1, penalty=2.0, seed=0)
    worlds.restart(0)
    worlds.batch.environments[0].set_state(worlds.batch.data(0).qpos.copy(), np.array([1.5, 0.0, 0.0, 0.0, 0.0, 0.0]))
    worlds.caution[:] = 1.0
    worlds.strictness = 0.0
    state = worlds.batch.data(0).qpos.copy(), worlds.batch.data(0).qvel.copy()
    _, last, unshaped, *_ = worlds.step(np.zeros((1, 3)))
    worlds.batch.environments[0].set_state(*state)
    worlds.caution[:] = 1.0
    worlds.strictness = 0.5
    _, _, shaped, *_ = worlds.step(np.zeros((1, 3)))
    bound = 0.7402
    excess = last[0, 5] - 0.85 * bound
    assert excess > 0 and unshaped[0] - shaped[0] == pytest.approx(0.5 * (2.0 * excess + 1.0))
