"""The contract of an environment, what was put right of upstream, and the messages."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import feedbackgen
from feedbackgen.environments import make_env
from feedbackgen.errors import DataError, MissingDependency, SimulatorMissing, TaskError

pytestmark = pytest.mark.simulator

NAVIGATION, VELOCITY = "SafetyPointGoal2-v0", "SafetyHalfCheetahVelocity-v1"


@pytest.mark.parametrize("task", [NAVIGATION, VELOCITY])
def test_the_same_seed_gives_the_same_episode_again(task):
    env = make_env(task)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (30, env.action_space.shape[0]))
    runs = []
    for seed in (7, 8, 7):
        first, _ = env.reset(seed=seed)
        runs.append(np.array([first, *(env.step(action)[0] for action in actions)]))
    np.testing.assert_array_equal(runs[0], runs[2])
    assert not np.array_equal(runs[0], runs[1])


@pytest.mark.parametrize(("task", "horizon"), [("SafetyPointCircle0-v0", 500), (VELOCITY, 1000)])
def test_an_episode_is_truncated_at_the_horizon_and_not_stepped_after(task, horizon):
    env = make_env(task)
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape)
    ends = [env.step(action)[4] for _ in range(horizon)]
    assert ends.index(True) == horizon - 1
    with pytest.raises(DataError, match="step before reset, or after the end of the episode; call reset first"):
        env.step(action)


def test_actions_may_be_lists_and_float32():
    env = make_env(NAVIGATION)
    env.reset(seed=0)
    first = env.step([0.5, 0.25])[0]
    env.reset(seed=0)
    np.testing.assert_array_equal(first, env.step(np.array([0.5, 0.25], dtype=np.float32))[0])


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([0.0], r"expected shape \(2,\), got \(1,\)"),
        ([0.0, np.nan], r"expected finite values, got nan at index \(1,\)"),
    ],
)
def test_a_bad_action_is_named(action, message):
    env = make_env(NAVIGATION)
    env.reset(seed=0)
    with pytest.raises(DataError, match=f"action of {NAVIGATION}: {message}"):
        env.step(action)


def test_a_state_put_back_replays_exactly():
    env = make_env("SafetyPointPush1-v0")
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (40, 2))
    for action in actions[:20]:
        env.step(action)
    state = env.get_state()
    ahead = [env.step(action)[0] for action in actions[20:]]
    env.reset(seed=5)
    env.set_state(state)
    for action, observation in zip(actions[20:], ahead, strict=True):
        np.testing.assert_array_equal(env.step(action)[0], observation)
    with pytest.raises(DataError, match="state of SafetyPointPush1-v0: expected shape"):
        env.set_state(state[:-1])


def test_resets_leave_no_memory_behind():
    code = """
import resource
from feedbackgen.environments import make_env
env = make_env("SafetyPointGoal1-v0")
for seed in range(50): env.reset(seed=seed)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for seed in range(200): env.reset(seed=seed)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 20_000  # KiB; upstream's sky alone was 191 MB a model


def test_the_sky_is_small():
    env = make_env(NAVIGATION)
    env.reset(seed=0)
    assert env.model.ntexdata < 1_000_000


@pytest.mark.parametrize("name", ["SafetyPointGoal1Gymnasium-v0", "SafetyHopperVelocityGymnasium-v1"])
def test_gymnasiums_own_checker_accepts_the_twin(name):
    assert feedbackgen.TASKS  # importing the package registers the twins
    check_env(gymnasium.make(name).unwrapped, skip_render_check=True)


def test_a_twin_reports_the_step_cost_in_its_info():
    twin, env = gymnasium.make("SafetyPointCircle1Gymnasium-v0"), make_env("SafetyPointCircle1-v0")
    observation, info = twin.reset(seed=3)
    np.testing.assert_array_equal(observation, env.reset(seed=3)[0])
    assert info["cost"] == 0.0
    costs = []
    for _ in range(200):
        action = np.array([1.0, 0.0])
        observation, reward, terminated, truncated, info = twin.step(action)
        expected = env.step(action)
        np.testing.assert_array_equal(observation, expected[0])
        assert (reward, info["cost"], terminated, truncated) == (expected[1], expected[2], expected[3], expected[4])
        costs.append(info["cost"])
    assert 0 < sum(costs) < 200


def test_a_picture_is_rgb():
    env = make_env(NAVIGATION)
    env.reset(seed=0)
    try:
        picture = env.render(width=160, height=120)
    except MissingDependency as error:
        pytest.skip(f"no OpenGL library on this machine: {error}")
    assert picture.shape == (120, 160, 3) and picture.dtype == np.uint8 and picture.std() > 5
    env.close()


def test_an_unknown_task_is_named():
    with pytest.raises(TaskError, match="unknown task 'PointGoal'"):
        make_env("PointGoal")


@pytest.mark.parametrize("package", ["mujoco", "safety_gymnasium", "xmltodict"])
def test_a_missing_simulator_package_says_what_to_install(package):
    code = f"""
import sys, importlib.abc
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "{package}": raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from feedbackgen.environments import make_env
from feedbackgen.errors import SimulatorMissing
try: make_env("SafetyPointGoal1-v0")
except SimulatorMissing as error: print(error)
"""
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert f"needs the simulator ({package} is not installed): pip install 'feedbackgen[sim]'" in result.stdout
    assert "pip install --no-deps safety-gymnasium==1.0.0" in result.stdout
    assert issubclass(SimulatorMissing, ImportError)


def test_upstream_is_imported_without_a_process_that_looks_for_glfw():
    # It would outlive a worker that is ended meanwhile, and complain on stderr.
    code = (
        "import subprocess, sys\n"
        "def refuse(*arguments, **options): raise AssertionError(arguments)\n"
        "subprocess.Popen = refuse\n"
        "from feedbackgen import make_env\n"
        "make_env('SafetyHopperVelocity-v1').reset(seed=0)\n"
        "assert 'glfw' in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
