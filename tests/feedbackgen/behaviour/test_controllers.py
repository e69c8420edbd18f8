"""Controllers: the geometry of lidars and ways, on observations worked out by hand."""

import numpy as np
import pytest

from feedbackgen.behaviour.controllers import (
    LIDARS,
    ControllerPolicy,
    clear_heading,
    load_controller,
    nearest_object,
    parameters_of,
    save_controller,
    seen_objects,
    wished_velocity,
)
from feedbackgen.behaviour.policies import load_policy
from feedbackgen.behaviour.weight_files import write_weight_file
from feedbackgen.errors import PolicyError
from feedbackgen.tasks import TASKS, get_task

CONTROLLED = [name for name in TASKS if get_task(name).dsrl and get_task(name).suite == "safety-navigation"]


def starts(task: str) -> dict[str, float]:
    return {name: start for name, (_, _, start) in parameters_of(task).items()}


def lidar(*places: complex, reach: float = 3.0) -> np.ndarray:
    """Readings (16,) of objects at places in the complex plane, as upstream computes them."""
    readings = np.zeros(16)
    for place in places:
        closeness = max(0.0, reach - abs(place)) / reach
        position = np.angle(place) % (2 * np.pi) / (2 * np.pi / 16)
        index, across = int(position), position - int(position)
        shares = {index: closeness, (index + 1) % 16: across * closeness, (index - 1) % 16: (1 - across) * closeness}
        for at, value in shares.items():
            readings[at] = max(readings[at], value)
    return readings


def observation(task: str, velocity=(0.0, 0.0), magnetic=(0.0, -0.5), **lidars: np.ndarray) -> np.ndarray:
    known = get_task(task)
    values = np.zeros(known.observation_dim)
    values[3:5], values[9:11] = velocity, magnetic
    names = LIDARS[known.kind]
    values[-16 * len(names) :] = np.concatenate([lidars.get(name, np.zeros(16)) for name in names])
    return values


@pytest.mark.parametrize("place", [1 + 0j, 0.5 + 0.5j, -2j, -1.3 + 0.4j, 0.2 - 0.1j, 2.9 + 0.1j])
def test_an_object_is_found_where_it_stands(place):
    x, y = nearest_object(lidar(place)[None], 3.0)
    # Between the edges of a bin the direction is read off the chord, which bends it by less than 0.2 degrees.
    assert abs(x[0] + 1j * y[0] - place) < 0.004 * abs(place) + 1e-9


def test_what_is_not_seen_is_as_far_as_the_lidar_reaches():
    x, y = nearest_object(np.zeros((1, 16)), 3.0)
    assert (x[0], y[0]) == (3.0, 0.0)


def test_several_objects_are_told_apart_when_two_bins_lie_between_them():
    places = [1 + 0.1j, -0.5 + 1j, 0.3 - 1.2j]
    x, y = seen_objects(lidar(*places)[None], 3.0)
    found = x[0] + 1j * y[0]
    for place in places:
        assert np.abs(found - place).min() < 0.02
    assert np.sum(np.abs(found) < 3.0) == 3


def test_without_caution_the_way_is_straight():
    hazard = (np.array([[0.5]]), np.array([[0.0]]))
    x, y = clear_heading((np.array([2.0]), np.array([0.0])), [(hazard, 0.3)], 0.0, 1.0)
    assert (x[0], y[0]) == (1.0, 0.0)


def test_the_way_turns_off_a_hazard_and_back_once_it_is_behind():
    target = (np.array([2.0]), np.array([0.0]))
    x, y = clear_heading(target, [((np.array([[0.5]]), np.array([[0.05]])), 0.3)], 3.0, 1.0)
    # It passes on the right, for the hazard lies a little to the left, by at least the radius.
    assert y[0] < 0 and abs(x[0] * 0.05 - y[0] * 0.5) >= 0.3
    x, y = clear_heading(target, [((np.array([[-0.5]]), np.array([[0.05]])), 0.3)], 3.0, 1.0)
    assert (x[0], y[0]) == (1.0, 0.0)


def test_a_hazard_beyond_the_goal_is_not_in_the_way():
    x, y = clear_heading((np.array([0.5]), np.array([0.0])), [((np.array([[1.0]]), np.array([[0.0]])), 0.3)], 3.0, 2.0)
    assert (x[0], y[0]) == (1.0, 0.0)


def test_the_point_drives_to_a_goal_ahead_and_backs_to_one_behind():
    policy = ControllerPolicy(name="x", task="SafetyPointGoal1-v0", parameters=starts("SafetyPointGoal1-v0"))
    ahead = policy.act(observation(policy.task, goal=lidar(1 + 0j)), np.random.default_rng(0))
    behind = policy.act(observation(policy.task, goal=lidar(-1 + 0j)), np.random.default_rng(0))
    assert ahead == pytest.approx([1.0, 0.0]) and behind == pytest.approx([-1.0, 0.0], abs=1e-6)
    left = policy.act(observation(policy.task, goal=lidar(1 + 1j)), np.random.default_rng(0))
    assert left[0] > 0 and left[1] > 0


def test_the_cars_wheels_turn_alike_on_a_straight_way_and_apart_in_a_curve():
    policy = ControllerPolicy(name="x", task="SafetyCarGoal1-v0", parameters=starts("SafetyCarGoal1-v0"))
    ahead = policy.act(observation(policy.task, goal=lidar(1j)), np.random.default_rng(0))
    assert ahead[0] == pytest.approx(ahead[1]) and ahead[0] < 0  # negative torques drive along y
    right = policy.act(observation(policy.task, goal=lidar(1 + 1j)), np.random.default_rng(0))
    assert right[0] < right[1]


def test_on_the_circle_the_way_is_the_tangent():
    # At (1.5, 0) in the world with x ahead along the world's x: the centre lies behind, and round is to the left.
    seen = observation("SafetyPointCircle1-v0", circle=lidar(-1.5 + 0j, reach=6.0))
    parameters = starts("SafetyPointCircle1-v0") | {"radius": 1.5, "lead": 0.1, "speed": 2.0, "speed_at_wall": 2.0}
    x, y = wished_velocity("Point", "Circle", 1, seen[None], parameters)
    assert y[0] == pytest.approx(2.0, rel=0.01) and abs(x[0]) < 0.1
    # Turned to the left by a right angle, the same way is straight ahead.
    seen = observation("SafetyPointCircle1-v0", circle=lidar(1.5j, reach=6.0), magnetic=(-0.5, 0.0))
    x, y = wished_velocity("Point", "Circle", 1, seen[None], parameters)
    assert x[0] == pytest.approx(2.0, rel=0.01) and abs(y[0]) < 0.1


def test_a_boundary_cuts_the_way_at_level_1_across_x_and_at_level_2_across_y_too():
    parameters = starts("SafetyPointCircle1-v0") | {"radius": 1.5, "wall": 1.0, "speed": 1.0, "speed_at_wall": 1.0}
    # At (1, 0): along the boundary, not out over it.
    seen = observation("SafetyPointCircle1-v0", circle=lidar(-1 + 0j, reach=6.0))
    x, _ = wished_velocity("Point", "Circle", 1, seen[None], parameters)
    assert abs(x[0]) < 1e-6
    # At (0, 1): out towards the circle where y has no boundary, along it where it has.
    seen = observation("SafetyPointCircle1-v0", circle=lidar(-1j, reach=6.0))
    _, free = wished_velocity("Point", "Circle", 1, seen[None], parameters)
    _, bound = wished_velocity("Point", "Circle", 2, seen[None], parameters)
    assert free[0] > 0.1 and abs(bound[0]) < 1e-6


def test_the_box_is_pushed_from_behind_and_rounded_from_ahead():
    parameters = starts("SafetyPointPush1-v0") | {"caution": 0.0, "speed": 1.0}
    behind = observation("SafetyPointPush1-v0", push_box=lidar(0.4 + 0j), goal=lidar(1.4 + 0j))
    x, y = wished_velocity("Point", "Push", 1, behind[None], parameters)
    assert x[0] == pytest.approx(1.0, rel=1e-3) and abs(y[0]) < 1e-3
    # Between box and goal, and a little aside: away from the line more than towards the box.
    ahead = observation("SafetyPointPush1-v0", push_box=lidar(-0.6 + 0.05j), goal=lidar(1 + 0j))
    x, y = wished_velocity("Point", "Push", 1, ahead[None], parameters)
    assert abs(y[0]) > abs(x[0])
    # At the box's side, with the way on across the Point's axis: it backs out, for it cannot turn there.
    beside = observation("SafetyPointPush1-v0", push_box=lidar(0.35 + 0j), goal=lidar(0.35 + 1j))
    x, y = wished_velocity("Point", "Push", 1, beside[None], parameters)
    assert (x[0], y[0]) == (-1.0, 0.0)


def test_only_the_goal_button_may_be_touched():
    parameters = starts("SafetyPointButton1-v0") | {"caution": 3.0, "lookahead": 1.0, "button_radius": 0.3}
    buttons = lidar(0.6 + 0j, -1 + 0j)
    alone = observation("SafetyPointButton1-v0", buttons=buttons, goal=lidar(0.6 + 0j))
    x, _ = wished_velocity("Point", "Button", 1, alone[None], parameters)
    assert x[0] == pytest.approx(parameters["speed"], rel=1e-3)
    beyond = observation("SafetyPointButton1-v0", buttons=buttons, goal=lidar(-1 + 0.01j))
    x, _ = wished_velocity("Point", "Button", 1, beyond[None], parameters)
    assert x[0] < 0
    behind_another = observation("SafetyPointButton1-v0", buttons=buttons, goal=lidar(1.4 + 0j))
    x, y = wished_velocity("Point", "Button", 1, behind_another[None], parameters)
    assert abs(y[0]) > 0.3


def bullet(task: str, seen: list[float], **parameters: float) -> np.ndarray:
    """What the starts, with changes, do in one of Bullet's tasks."""
    known = get_task(task)
    policy = ControllerPolicy(name="x", task=task, parameters=starts(task) | parameters)
    values = np.zeros(known.observation_dim)
    values[: len(seen)] = seen
    return policy.act(values, np.random.default_rng(0))


def test_bullets_ball_is_pushed_by_what_its_velocity_lacks():
    # 1 m left of the middle, at 1 m/s along the track: it lacks 1 m/s ahead, and 1 m/s to the right.
    action = bullet("SafetyBallRun-v0", [0.0, 0.1, 0.2, 0.0], speed=2.0, centring=1.0, force_gain=0.5)
    assert action == pytest.approx([0.5, -0.5])
    # Once over the middle of its lane it is pushed back, whatever the lane.
    action = bullet("SafetyBallRun-v0", [0.0, 0.1, 0.4, 0.0], speed=2.0, centring=1.0, lane=1.5, force_gain=0.5)
    assert action == pytest.approx([0.0, 0.25])


def test_bullets_circle_is_gone_round_clockwise_inside_the_walls():
    round_it = {"radius": 7.0, "wall": 8.0, "lead": 0.3, "speed": 0.5, "speed_at_wall": 0.5, "force_gain": 1.0}
    top = bullet("SafetyBallCircle-v0", [0.0, 0.7], **round_it)
    assert top == pytest.approx([0.5, 0.0], abs=0.02)
    # At the wall, which stands inside the circle there: along it, not out over it.
    right = bullet("SafetyBallCircle-v0", [0.5, 0.0], **round_it | {"wall": 5.0})
    assert right == pytest.approx([0.0, -0.5], abs=1e-6)


def test_bullets_car_backs_along_its_way_and_steers_the_other_way_round():
    # Heading back along the track (sine 0, cosine -1), its rear goes ahead.
    straight = bullet("SafetyCarRun-v0", [0.0, 0.0, 0.0, 0.0, 0.0, -1.0], speed=2.0, thrust_gain=0.25)
    assert straight == pytest.approx([-0.5, 0.0])
    # 1 m to the left of the middle its rear must turn right; backing, that is a positive angle of the wheels.
    aside = bullet("SafetyCarRun-v0", [0.0, 0.1, 0.0, 0.0, 0.0, -1.0], speed=2.0, centring=1.0, turn_gain=0.5)
    assert aside[1] == pytest.approx(0.5 * 2.0 / (np.sqrt(5.0) + 2.0))


@pytest.mark.parametrize(
    "task",
    [
        *CONTROLLED,
        "SafetySwimmerVelocity-v1",
        *(f"Safety{name}-v0" for name in ("BallCircle", "BallRun", "CarCircle", "CarRun")),
    ],
)
def test_a_row_has_the_bits_it_has_alone(task):
    known = get_task(task)
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((33, known.observation_dim))
    if known.suite == "safety-navigation":
        n_readings = 16 * len(LIDARS[known.kind])
        places = [
            [lidar(*(rng.uniform(-2, 2, 3) + 1j * rng.uniform(-2, 2, 3))) for _ in LIDARS[known.kind]]
            for _ in range(33)
        ]
        observations[:, -n_readings:] = np.array(places).reshape(33, n_readings)
    low, high = np.array([bounds[:2] for bounds in parameters_of(task).values()]).T
    values = low + (high - low) * rng.random(len(low))
    policy = ControllerPolicy(name="x", task=task, parameters=dict(zip(parameters_of(task), values, strict=True)))
    for n_rows in (1, 2, 7, 16, 33):
        rows = observations[:n_rows]
        together = policy.act_together(rows, [rng] * n_rows)
        assert together.shape == (n_rows, known.action_dim) and np.abs(together).max() <= 1.0
        np.testing.assert_array_equal(together, [policy.act(row, rng) for row in rows])


def test_a_weight_file_gives_back_every_bit(tmp_path):
    parameters = {name: value / 3 for name, value in starts("SafetyPointGoal1-v0").items()}
    policy = ControllerPolicy(name="kept", task="SafetyPointGoal1-v0", parameters=parameters)
    save_controller(policy, tmp_path / "kept.npz")
    assert load_controller(tmp_path / "kept.npz", name="kept", task=policy.task) == policy
    assert load_policy(policy.task, str(tmp_path / "kept.npz")).parameters == parameters


def test_files_that_are_no_controllers_of_the_task_are_refused(tmp_path):
    task = "SafetyPointGoal1-v0"
    save_controller(ControllerPolicy(name="x", task=task, parameters=starts(task)), tmp_path / "x.npz")
    with pytest.raises(PolicyError, match="trained for SafetyPointGoal1-v0, not for SafetyPointGoal2-v0"):
        load_policy("SafetyPointGoal2-v0", str(tmp_path / "x.npz"))
    with pytest.raises(PolicyError, match=r"a controller has no Gaussian to sample from; use \+noise=SCALE"):
        load_policy(task, f"{tmp_path}/x.npz+sample")
    bad = starts(task) | {"speed": np.nan}
    save_controller(ControllerPolicy(name="x", task=task, parameters=bad), tmp_path / "nan.npz")
    with pytest.raises(PolicyError, match="values holds values that are not finite"):
        load_policy(task, str(tmp_path / "nan.npz"))
    save_controller(ControllerPolicy(name="x", task=task, parameters={"speed": 1.0}), tmp_path / "few.npz")
    with pytest.raises(PolicyError, match=r"expected the parameters speed, .*, got \['speed'\]"):
        load_policy(task, str(tmp_path / "few.npz"))
    write_weight_file(tmp_path / "tree.npz", {"kind": "tree", "task": task}, {})
    with pytest.raises(PolicyError, match="expected a network or a controller, got a tree"):
        load_policy(task, str(tmp_path / "tree.npz"))


def test_a_task_without_a_controller_is_refused():
    with pytest.raises(PolicyError, match="no controller for SafetyAntGoal1-v0; there is one for the Swimmer"):
        parameters_of("SafetyAntGoal1-v0")
    with pytest.raises(PolicyError, match=r"no controller for SafetyDroneRun-v0; .* for Bullet's Ball and Car"):
        parameters_of("SafetyDroneRun-v0")
