"""Datasets made with Minari itself: spaces of every kind, costs in infos or none, and what is refused."""

import json

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from samples import DATASET, make_dataset

from feedbackgen.episodes import episode_returns, iterate_episodes, list_datasets, load_trajectories
from feedbackgen.errors import DataError
from feedbackgen.interop.foreign import ForeignTask
from feedbackgen.interop.minari_datasets import import_minari
from feedbackgen.label import LabelConfig, label
from feedbackgen.store import open_feedback

# What Minari says of metadata left out.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")
ROW = spaces.Box(-2.0, 2.0, (3,), np.float32)
NAME = "elsewhere/some-v0"


def make_minari(observation_space=ROW, action_space=ROW, *, infos=None, lengths=(5, 4), env=None, name=NAME, **options):
    """Random values of the spaces, written by Minari's own code."""
    observation_space.seed(0), action_space.seed(1)
    buffers = []
    for index, length in enumerate(lengths):
        ends = [False] * (length - 1) + [True]
        buffers.append(
            EpisodeBuffer(
                id=index,
                seed=10 + index,
                observations=_stack(observation_space, [observation_space.sample() for _ in range(length + 1)]),
                actions=_stack(action_space, [action_space.sample() for _ in range(length)]),
                rewards=[0.5 * step for step in range(length)],
                terminations=ends if index else [False] * length,
                truncations=[False] * length if index else ends,
                infos=infos(length) if infos else None,
            )
        )
    return minari.create_dataset_from_buffers(
        name, buffers, env=env, observation_space=observation_space, action_space=action_space, **options
    )


def _stack(space, samples):
    if isinstance(space, spaces.Dict):
        return {name: _stack(part, [sample[name] for sample in samples]) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_stack(part, [sample[i] for sample in samples]) for i, part in enumerate(space.spaces))
    return samples


def test_episodes_come_as_they_are(tmp_path):
    source = make_minari(infos=lambda length: {"cost": np.arange(length + 1.0)}, algorithm_name="walk")
    imported = import_minari(NAME)
    assert imported.info.dataset_id == "imported/elsewhere/some-v0" and imported.notes == ()
    for mine, theirs in zip(iterate_episodes(imported.info.dataset_id), source.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(mine.observations, theirs.observations)
        np.testing.assert_array_equal(mine.actions, theirs.actions)
        np.testing.assert_array_equal(mine.rewards, theirs.rewards)
        np.testing.assert_array_equal(mine.terminations, theirs.terminations)
        np.testing.assert_array_equal(mine.costs, theirs.infos["cost"][1:])
        assert mine.observations.dtype == np.float32 and mine.policy == "walk"
    assert [episode.seed for episode in iterate_episodes(imported.info.dataset_id)] == [10, 11]
    assert imported.info.action_low == (-2.0,) * 3 and imported.info.horizon == 5
    assert imported.info.source["dataset_id"] == NAME
    again = minari.load_dataset(imported.info.dataset_id)
    assert again.total_steps == 9 and again.observation_space.shape == (3,)


def test_costs_may_come_without_the_resets_row_or_as_a_column_or_under_another_name():
    steps = {"cost": [1.0, 0.0, 2.0, 0.0, 1.0]}
    for index, (name, shape) in enumerate((("cost", (5,)), ("cost", (5, 1)), ("harm", (5,)))):
        values = np.reshape(steps["cost"], shape)
        make_minari(infos=lambda length, n=name, v=values: {n: v}, lengths=(5,), name=f"elsewhere/a{index}-v0")
        info = import_minari(f"elsewhere/a{index}-v0", cost=name).info
        assert load_trajectories(info.dataset_id, with_rewards=True).costs.tolist() == steps["cost"]


def test_cost_terms_stand_beside_the_cost_and_running_sums_do_not():
    def infos(length):
        zeros = np.zeros(length + 1)
        return {"cost": zeros, "cost_hazards": zeros, "cost_sum": np.arange(length + 1.0), "goal_met": zeros}

    make_minari(infos=infos)
    assert list(next(iterate_episodes(import_minari(NAME).info.dataset_id)).cost_terms) == ["cost_hazards"]


def test_without_costs_there_are_preferences_alone():
    make_minari(lengths=(12, 12))
    imported = import_minari(NAME)
    assert imported.notes == ("no infos['cost']: the dataset can be asked for preferences alone",)
    assert not imported.info.has_costs and np.isnan(episode_returns(imported.info.dataset_id)[1]).all()
    label(imported.info.dataset_id, LabelConfig(n_pairs=5, segment_length=3))
    feedback = open_feedback(imported.info.dataset_id)
    assert len(feedback.preferences) == 5 and len(feedback.safety) == 0


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"goal": ROW, "at": spaces.Box(0, 1, (2, 2), np.float64)}),
        spaces.Tuple((ROW, spaces.Discrete(3, start=-1))),
        spaces.Discrete(4),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Box(0, 255, (2, 3), np.uint8),
    ],
    ids=lambda space: type(space).__name__,
)
def test_spaces_of_every_kind_are_laid_out_as_gymnasium_flattens_them(space):
    source = make_minari(space, space)
    flat = load_trajectories(import_minari(NAME).info.dataset_id, with_rewards=False)
    raw = next(source.iterate_episodes())
    expected = [spaces.flatten(space, _at(space, raw.observations, step)) for step in range(6)]
    np.testing.assert_array_equal(flat.observations[:5], expected[:5])
    np.testing.assert_array_equal(flat.final_observations[0], expected[5])
    assert flat.actions.shape == (9, spaces.flatdim(space))


def _at(space, values, step):
    if isinstance(space, spaces.Dict):
        return {name: _at(part, values[name], step) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_at(part, value, step) for part, value in zip(space.spaces, values, strict=True))
    return values[step]


def test_the_environment_says_task_and_horizon_and_can_be_made_again():
    space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    env = gymnasium.make("MountainCarContinuous-v0")
    make_minari(env.observation_space, env.action_space, env=env)
    info = import_minari(NAME).info
    assert (info.task, info.environment, info.horizon) == ("MountainCarContinuous-v0",) * 2 + (999,)
    assert info.action_low == tuple(space.low) and info.cost_limit == 25.0
    again = minari.load_dataset(info.dataset_id).recover_environment()
    assert again.spec.id == "MountainCarContinuous-v0"
    told = import_minari(NAME, ForeignTask(name="car", horizon=50, cost_limit=3), force=True).info
    assert (told.task, told.horizon, told.cost_limit) == ("car", 50, 3.0)


def test_an_environment_of_the_registry_is_known_by_its_id():
    space = spaces.Box(-np.inf, np.inf, (28,), np.float64)
    env_id = "SafetyPointCircle1Gymnasium-v0"
    make_minari(space, spaces.Box(-1, 1, (2,), np.float64), env=gymnasium.spec(env_id))
    info = import_minari(NAME).info
    assert (info.task, info.environment, info.horizon) == ("SafetyPointCircle1-v0", env_id, 500)


def test_feedbackgens_own_needs_no_import():
    make_dataset()
    with pytest.raises(DataError, match="is feedbackgen's own; use it as it is"):
        import_minari(DATASET)


def test_what_is_not_there_is_named_with_minaris_command():
    with pytest.raises(
        DataError, match=r"dataset D4RL/door/human-v2: not found .*`minari download D4RL/door/human-v2`"
    ):
        import_minari("D4RL/door/human-v2")


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        (lambda length: np.zeros(length + 2), r"episode 0, infos\['cost'\]: expected 5 numbers, or 6 with"),
        (lambda length: np.full(length + 1, np.nan), r"infos\['cost'\]: expected finite values, got nan"),
    ],
)
def test_costs_that_are_none_are_named_and_nothing_written(costs, message):
    make_minari(infos=lambda length: {"cost": costs(length)})
    with pytest.raises(DataError, match=message):
        import_minari(NAME)
    assert list_datasets() == [NAME]


def test_a_space_that_is_no_numbers_is_named(datasets):
    make_minari()
    text = {"type": "Text", "max_length": 5, "min_length": 1, "charset": "abc"}
    change_metadata(datasets, observation_space=json.dumps(text))
    with pytest.raises(DataError, match="observations: a Text space cannot be laid out as numbers"):
        import_minari(NAME)


def test_a_value_that_is_not_finite_is_named(datasets):
    make_minari()
    with h5py.File(datasets / NAME / "data" / "main_data.hdf5", "a") as file:
        values = file["episode_1/rewards"]
        values[2] = np.inf
    with pytest.raises(
        DataError, match=r"dataset elsewhere/some-v0, episode 1, rewards: expected finite values, got inf"
    ):
        import_minari(NAME)
    assert list_datasets() == [NAME]


def test_a_version_that_minari_refuses_is_one_line(datasets):
    make_minari()
    change_metadata(datasets, minari_version="0.3.0")
    with pytest.raises(DataError, match=r"some-v0: Minari cannot read it \(The installed Minari version"):
        import_minari(NAME)


def change_metadata(datasets, **values):
    path = datasets / NAME / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
