"""Bullet-Safety-Gym against its own code, environments of the user's, and MetaDrive's adapter.

MetaDrive's assets are downloaded when it first starts, which a test may not: a stand-in with the interface of
metadrive-simulator 0.4.3 takes its place.
"""

import random
import sys
import types

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box

from feedbackgen import TASKS, get_task, make_env, make_env_batch
from feedbackgen.collect import collect
from feedbackgen.environments import bullet, is_installed, make
from feedbackgen.episodes import dataset_info, load_episode
from feedbackgen.errors import DataError, SimulatorMissing, TaskError
from feedbackgen.recipe import Recipe
from feedbackgen.replay import replay

BULLET = [name for name, task in TASKS.items() if task.suite == "bullet-safety-gym"]


def upstream_episode(name: str, seed: int) -> list[tuple]:
    """A first episode of upstream's environment, as upstream makes it, random actions and all."""
    bullet._load_builder()
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    env = gymnasium.make(name, disable_env_checker=True)
    observation, _ = env.reset()
    rng, steps = np.random.default_rng(seed), [(observation, 0.0, 0.0, False, False)]
    while not any(steps[-1][3:]):
        action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        steps.append((observation, reward, info["cost"], terminated, truncated))
    env.close()
    return steps


@pytest.mark.simulator
@pytest.mark.parametrize("name", BULLET)
def test_bullet_is_upstreams_to_the_last_bit_whatever_was_played_before(name):
    batch, rngs = make_env_batch(name, 2), {}
    for lane, seed in ((0, 5), (1, 6), (0, 7)):  # the third in an environment that has played
        expected = upstream_episode(name, seed)
        rngs[lane] = np.random.default_rng(seed)
        np.testing.assert_array_equal(batch.reset(lane, seed), expected[0][0])
        for step, (observation, reward, cost, terminated, truncated) in enumerate(expected[1:]):
            action = rngs[lane].uniform(-1, 1, batch.action_space.shape)
            came = batch.step(action[None], [lane])
            np.testing.assert_array_equal(came.observations[0], observation, err_msg=f"step {step}")
            ends = (came.terminated[0], came.truncated[0])
            assert (came.rewards[0], came.costs[0], *ends) == (reward, cost, terminated, truncated)
    batch.close()


@pytest.mark.simulator
def test_bullet_leaves_the_users_random_streams_and_stdout_alone_and_closes_its_worlds(capfd):
    env = make_env("SafetyBallRun-v0")
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    expected = np.random.random(), random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    for seed in range(1030):  # Bullet holds 1024 worlds at most
        env.reset(seed=seed)
    assert (np.random.random(), random.random()) == expected  # noqa: NPY002
    assert capfd.readouterr().out == ""
    env.close()


@pytest.mark.simulator
@pytest.mark.parametrize("name", ["SafetyBallRun-v0", "SafetyBallCircle-v0"])
def test_bullet_draws_what_moves_without_opengl(name):
    env = make_env(name)
    env.reset(seed=0)
    before = env.render(width=64, height=48)
    for _ in range(20):
        env.step([1.0, 0.5])
    after = env.render(width=64, height=48)
    assert before.shape == (48, 64, 3) and before.dtype == np.uint8 and before.std() > 5
    assert not np.array_equal(before, after)
    env.close()


@pytest.mark.simulator
def test_bullet_is_collected_by_any_number_of_workers_and_replayed(tmp_path):
    recipe = Recipe(task="SafetyCarRun-v0", policies={"random": 1.0}, n_episodes=3)
    alone, shared = (collect(recipe, workers=workers, root=tmp_path / str(workers)) for workers in (1, 2))
    assert alone.fingerprint == shared.fingerprint
    assert not replay(alone.path, 2).from_states
    assert alone.cost_limit == 20.0 and alone.horizon == 200
    with pytest.raises(
        DataError, match="only Safety-Gymnasium's tasks have a state to store; collect it without --state"
    ):
        collect(Recipe(task="SafetyCarRun-v0", policies={"random": 1.0}, n_episodes=1, record_states=True))


def test_without_bullet_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "bullet_safety_gym", None)
    with pytest.raises(SimulatorMissing, match=r"pip install --no-deps bullet-safety-gym==1\.4\.0"):
        make_env("SafetyBallRun-v0")


def test_a_task_is_known_to_be_installed_by_the_package_that_its_environment_comes_from(monkeypatch):
    monkeypatch.setattr(make, "find_spec", lambda package: None if package == "bullet_safety_gym" else object())
    assert not is_installed("SafetyCarRun-v0")
    assert is_installed("SafetyCarCircle1-v0") and is_installed("SafetySwimmerVelocity-v1")
    with pytest.raises(TaskError, match="SafetyCarFly"):
        is_installed("SafetyCarFly-v0")


class Slope(gymnasium.Env):
    """A point on a line; beyond 1 it costs half."""

    observation_space = gymnasium.spaces.Dict({"place": Box(-np.inf, np.inf, (1,)), "speed": Box(-1, 1, (2,))})
    action_space = Box(-1.0, 1.0, (1,))

    def __init__(self, tells_cost: bool = True, action_space=None):
        self.tells_cost = tells_cost
        self.action_space = action_space or self.action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1, 1)
        return self._observe(), {}

    def step(self, action):
        self.place += float(action[0])
        info = {"cost": 0.5 * (abs(self.place) > 1)} if self.tells_cost else {}
        return self._observe(), -abs(self.place), abs(self.place) > 3, False, info

    def _observe(self):
        return {"place": np.float32([self.place]), "speed": np.zeros(2, dtype=np.float32)}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's that registers environments when it is imported."""
    module = types.ModuleType("own_suite")
    module.Slope = Slope
    monkeypatch.setitem(sys.modules, "own_suite", module)
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.envs.registration.registry))
    monkeypatch.setattr(gymnasium, "registry", gymnasium.envs.registration.registry)
    options = {
        "Slope-v0": {},
        "SlopeSilent-v0": {"tells_cost": False},
        "SlopeChoice-v0": {"action_space": gymnasium.spaces.Discrete(2)},
        "SlopeFree-v0": {"action_space": Box(-np.inf, np.inf, (1,))},
    }
    for name, kwargs in options.items():
        gymnasium.register(name, entry_point="own_suite:Slope", kwargs=kwargs, max_episode_steps=20)
    gymnasium.register("SlopeEndless-v0", entry_point="own_suite:Slope")
    yield
    get_task.__globals__["_registered_task"].cache_clear()


def test_an_environment_of_ones_own_is_collected_replayed_and_made_again_by_minari(own):
    recipe = Recipe(task="own_suite:Slope-v0", policies={"random": 1.0}, n_episodes=30, seed=4)
    info = collect(recipe)
    assert info.dataset_id == "feedbackgen/Slope-v0/custom-v0" and info.horizon == 20
    assert (info.observation_dim, info.action_low, info.action_high) == (3, (-1.0,), (1.0,))
    episode = load_episode(info.path, 0)
    places = episode.observations[1:, 0]
    np.testing.assert_array_equal(episode.costs, 0.5 * (np.abs(places) > 1))
    replay(info.path, 29)
    dataset = minari.load_dataset(info.dataset_id)
    assert isinstance(dataset.recover_environment().unwrapped, Slope)
    assert dataset_info(info.path).environment == "own_suite:Slope-v0"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("SlopeSilent-v0", DataError, r"its step tells no cost; expected a number as info\['cost'\]"),
        ("SlopeChoice-v0", TaskError, "expected actions of one bounded row of numbers, got Discrete"),
        ("SlopeFree-v0", TaskError, "expected actions of one bounded row of numbers, got Box"),
        ("SlopeEndless-v0", TaskError, "its episodes have no end; register it with max_episode_steps"),
        ("no_such_module:Slope-v0", TaskError, "Gymnasium cannot make it: .*no_such_module"),
        ("SlopeAbsent-v0", TaskError, "unknown task 'SlopeAbsent-v0'; .* MODULE:ID names an environment of your own"),
    ],
)
def test_an_environment_that_cannot_be_collected_is_refused_and_nothing_left(own, datasets, name, error, message):
    with pytest.raises(error, match=message):
        collect(Recipe(task=name, policies={"random": 1.0}, n_episodes=1))
    assert not [path for path in datasets.rglob("*") if path.is_file()]


class SafeMetaDriveEnv:
    """A stand-in for MetaDrive's: a road of ten steps, at 15 m/s, with one lidar reading at 0.05 after the fifth."""

    def __init__(self, config):
        self.config = config
        self.action_space, self.observation_space = Box(-1.0, 1.0, (2,)), Box(0.0, 1.0, (259,))
        self.engine = None

    def reset(self, seed=None):
        assert seed == 0  # of one scenario
        if self.engine is None:
            self.engine = types.SimpleNamespace(traffic_manager=Traffic())
        self.n_steps = 0
        return self._observe(), {}

    def step(self, action):
        self.n_steps += 1
        info = {
            "velocity": 15.0,
            "cost": float(self.n_steps == 8),
            "arrive_dest": self.n_steps == 10,
            "crash": False,
            "out_of_road": False,
            "max_step": False,
        }
        return self._observe(), 1.0, False, False, info

    def _observe(self):
        observation = np.full(259, 0.5, dtype=np.float32)
        observation[0] = self.engine.traffic_manager.draw
        if self.n_steps > 5:
            observation[100] = 0.05
        return observation

    def close(self):
        pass


class Traffic:
    draw = 0.0

    def seed(self, seed):
        self.draw = np.random.default_rng(seed).random()


@pytest.fixture
def metadrive(monkeypatch):
    modules = {
        "metadrive": {},
        "metadrive.envs": {"SafeMetaDriveEnv": SafeMetaDriveEnv},
        "metadrive.manager": {},
        "metadrive.manager.traffic_manager": {"TrafficMode": types.SimpleNamespace(Hybrid="hybrid")},
    }
    for name, values in modules.items():
        module = types.ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    yield
    get_task.__globals__["_registered_task"].cache_clear()


def test_metadrive_has_dsrls_roads_costs_and_limits_and_its_traffic_goes_by_the_seed(metadrive):
    task = get_task("SafeMetaDrive-mediummean-v0")
    assert (task.dsrl.file, task.cost_limits) == ("SafeMetaDrive-mediummean-v0-50-1000.hdf5", (10.0, 20.0, 40.0))
    batch = make_env_batch(task.name, 16)
    assert batch.n_environments == 1  # MetaDrive allows one in a process
    config = batch.environments[0].unwrapped._env.config
    assert config["map_config"] == {"type": "block_sequence", "config": "XST"} and config["traffic_density"] == 0.15
    first, other, again = (batch.reset(0, seed)[0] for seed in (3, 4, 3))
    assert first == again != other
    costs, ended = [], False
    while not ended:
        outcome = batch.step(np.zeros((1, 2)))
        costs.append(outcome.costs[0])
        ended = outcome.terminated[0]
    # Speed: 1e-2 * (15 - 10); nearness: 1e-2 * (0.1 - 0.05)^2; a crash at the eighth step.
    expected = np.full(10, 0.05)
    expected[5:] += 2.5e-5
    expected[7] += 1.0
    np.testing.assert_allclose(costs, expected, rtol=1e-6)
