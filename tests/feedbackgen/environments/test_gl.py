import numpy as np
import pytest

from feedbackgen.environments import gl, make_env
from feedbackgen.errors import MissingDependency


@pytest.fixture
def headless(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("MUJOCO_GL", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(("there", "chosen"), [({"egl", "osmesa"}, "egl"), ({"osmesa"}, "osmesa")])
def test_the_first_library_that_draws_is_chosen(headless, there, chosen):
    headless.setattr(gl, "_draws", lambda backend: backend in there)
    assert gl.choose_gl() == chosen
    assert gl.os.environ["MUJOCO_GL"] == chosen


def test_no_library_that_draws_is_one_line_with_the_way_out(headless):
    headless.setattr(gl, "_draws", lambda backend: False)
    with pytest.raises(
        MissingDependency, match=r"no GL library draws without a display .*apt install libegl1"
    ) as caught:
        gl.choose_gl()
    assert "\n" not in str(caught.value)
    assert "MUJOCO_GL" not in gl.os.environ


def test_what_is_set_and_a_display_are_left_alone(headless):
    headless.setenv("DISPLAY", ":0")
    assert gl.choose_gl() == "display"
    headless.setenv("MUJOCO_GL", "osmesa")
    assert gl.choose_gl() == "osmesa"


@pytest.mark.simulator
def test_a_library_that_is_none_does_not_draw():
    assert not gl._draws("no-such-library")


@pytest.mark.simulator
@pytest.mark.parametrize("task", ["SafetyPointGoal1-v0", "SafetyHopperVelocity-v1"])
def test_drawing_changes_nothing_of_what_is_simulated(task):
    observations = []
    for drawn in (False, True):
        env = make_env(task)
        seen = [env.reset(seed=1)[0]]
        for _ in range(5):
            if drawn:
                env.render(width=64, height=64)
            seen.append(env.step(np.full(env.action_space.shape, 0.3))[0])
        observations.append(seen)
        env.close()
    assert np.array_equal(*observations)
