"""The shipped policies: that each acts, that what is written about it holds, and that together they are small."""

from pathlib import Path

import numpy as np
import pytest

from feedbackgen.behaviour import PolicyInfo, list_policies, load_policy
from feedbackgen.behaviour.measuring import measure
from feedbackgen.behaviour.populations import train_population
from feedbackgen.behaviour.zoo import WEIGHTS, write_index
from feedbackgen.environments import make_env_batch
from feedbackgen.errors import PolicyError
from feedbackgen.tasks import get_task

MIB = 2**20
SHIPPED = sorted({info.task for info in list_policies()})
INFO = PolicyInfo(
    task="SafetyPointGoal1-v0",
    name="small",
    description="by hand",
    command="none",
    returns=(1.0, 3.0, 8.0, 4.0),
    cost_returns=(0.0, 25.0, 26.0, 20.0),
)


def test_the_summary_of_a_policy_follows_from_its_episodes():
    assert (INFO.n_episodes, INFO.return_, INFO.cost_return) == (4, 4.0, 17.75)
    assert INFO.return_std == pytest.approx(6.5**0.5)
    assert INFO.safe_share == 0.75  # the limit is 25
    assert (INFO.best_return(), INFO.best_return(25), INFO.best_return(20), INFO.best_return(-1)) == (
        8.0,
        4.0,
        4.0,
        None,
    )


def test_an_index_gives_back_what_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr("feedbackgen.behaviour.zoo.WEIGHTS", tmp_path)
    (tmp_path / INFO.task).mkdir()
    write_index(tmp_path / INFO.task, [INFO])
    assert list_policies(INFO.task) == [INFO]


@pytest.mark.parametrize("task", SHIPPED)
def test_every_shipped_policy_acts_on_its_tasks_spaces_and_names_its_command(task):
    known = get_task(task)
    observations = np.random.default_rng(0).random((3, known.observation_dim))
    infos = list_policies(task)
    assert {path.stem for path in (WEIGHTS / task).glob("*.npz")} == {info.name for info in infos}
    for info in infos:
        actions = load_policy(task, info.name).act_together(observations, [np.random.default_rng(0)] * 3)
        assert actions.shape == (3, known.action_dim) and np.isfinite(actions).all() and np.abs(actions).max() <= 1.0
        assert info.n_episodes == len(info.cost_returns) == 50 and np.isfinite(info.returns).all()
        assert info.command.startswith(f"fbgen policies train {task} --seed ")


def test_the_weight_files_are_small():
    sizes = [path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()]
    assert max(sizes) < MIB and sum(sizes) < 12 * MIB


@pytest.mark.parametrize("task", SHIPPED)
def test_each_population_spreads_from_poor_to_expert_and_from_safe_to_reckless(task):
    known, infos = get_task(task), list_policies(task)
    assert known.dsrl is not None
    assert infos[0].return_ < 0.5 * infos[-1].return_
    assert min(info.cost_return for info in infos) < known.default_cost_limit
    assert max(max(info.cost_returns) for info in infos) > 2 * known.default_cost_limit


@pytest.mark.simulator
@pytest.mark.parametrize(
    ("task", "name"), [("SafetyPointGoal1-v0", "expert"), ("SafetyPointCircle1-v0", "safe-expert")]
)
def test_a_measurement_is_reproduced(task, name):
    (shipped,) = [info for info in list_policies(task) if info.name == name]
    policy = load_policy(task, name)
    again = measure(make_env_batch(task, 2), policy, n_episodes=2, description="", command="")
    # Another processor may round otherwise, and an episode goes its own way from there: five standard deviations.
    assert abs(again.return_ - shipped.return_) < 5 * shipped.return_std
    assert abs(again.cost_return - shipped.cost_return) < 5 * max(shipped.cost_std, 1.0)


def test_a_task_without_a_plan_is_refused(tmp_path):
    with pytest.raises(PolicyError, match=r"no training plan for SafetyAntRun0-v0: neither one of .*; nor \(no contr"):
        train_population("SafetyAntRun0-v0", seed=0, out=Path(tmp_path))
