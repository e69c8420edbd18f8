"""Controllers: policies of a handful of parameters, for Point and Car in navigation tasks, for Swimmer, and on Bullet.

The Point's and the Car's read the lidars. Positions and velocities are as the agent sees them, in m and m/s: x ahead of
the Point (to the right of the Car, which drives along y), y to its left. The Swimmer's is linear in the observation.
Bullet's agents see where they are and how fast in the world's axes, in which their ways are planned.
Nothing here rounds differently in a batch: no complex products, no sums over rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feedbackgen.behaviour.weight_files import CONTROLLER, read_weight_file, write_weight_file
from feedbackgen.dsrl import BULLET
from feedbackgen.errors import PolicyError
from feedbackgen.tasks import get_task
from feedbackgen.types import FloatArray

N_BINS = 16  # of a lidar
LIDARS = {  # in the order of the observation, whose last entries they are
    "Goal": ("goal", "hazards", "vases"),
    "Button": ("buttons", "goal", "gremlins", "hazards"),
    "Push": ("goal", "hazards", "pillars", "push_box"),
    "Circle": ("circle",),
}
LIDAR_REACH = {"Goal": 3.0, "Button": 3.0, "Push": 3.0, "Circle": 6.0}  # m
FAR = 1e6  # m; where nothing stands

_EDGES = 2 * np.pi / N_BINS * np.arange(N_BINS + 1)
_EDGE_X, _EDGE_Y = np.cos(_EDGES), np.sin(_EDGES)
_N_HEADINGS = 32
_HEADING_X = np.cos(2 * np.pi / _N_HEADINGS * np.arange(_N_HEADINGS))
_HEADING_Y = np.sin(2 * np.pi / _N_HEADINGS * np.arange(_N_HEADINGS))

Vector = tuple[FloatArray, FloatArray]  # x and y, of the same shape

# What the search may vary: parameter -> (least, greatest, start).
_POINT = {"thrust_gain": (1.0, 6.0, 4.0), "turn_gain": (1.0, 6.0, 3.0)}
_CAR = {"thrust_gain": (0.3, 4.0, 0.6), "turn_gain": (1.0, 8.0, 5.8)}
_DRIVES = {"Point": _POINT, "Car": _CAR}
_SPEED = {"speed": (0.4, 3.0, 1.4)}  # m/s
_AVOIDANCE = {
    "caution": (-1.0, 4.0, 0.0),  # weight of what is in the way; below 0 it attracts
    "lookahead": (0.3, 1.6, 0.8),  # m
}
PARAMETERS = {
    "Goal": _SPEED | _AVOIDANCE | {"hazard_radius": (0.1, 0.6, 0.3), "vase_radius": (0.05, 0.5, 0.25)},
    "Button": _SPEED
    | {
        "caution": (-1.0, 4.0, 0.3),
        "lookahead": (0.3, 1.6, 0.5),
        "hazard_radius": (0.1, 0.6, 0.25),
        "gremlin_radius": (0.1, 0.8, 0.3),
        "button_radius": (0.05, 0.5, 0.3),
    },
    "Push": _SPEED
    | {
        "caution": (-1.0, 4.0, 0.0),
        "lookahead": (0.3, 1.6, 0.6),
        "hazard_radius": (0.1, 0.7, 0.3),
        "pillar_radius": (0.1, 0.7, 0.3),
        "aligned": (0.0, 0.95, 0.46),  # cosine between the ways to the box and on to the goal, where pushing begins
        "centring": (0.2, 4.0, 1.8),  # how strongly it steers back to the line through both
        "orbit": (0.4, 0.9, 0.5),  # m from the box's centre on the way round it
        "room": (0.3, 0.7, 0.52),  # m from the box's centre that it needs to turn
        "orbit_pace": (0.3, 1.0, 0.94),  # share of the speed on the way round it
    },
    "Circle": _SPEED
    | {
        "radius": (0.8, 1.7, 1.55),  # m
        "wall": (0.7, 1.7, 1.7),  # m from the centre that it keeps to, across each boundary
        "lead": (0.1, 2.0, 0.8),  # m ahead on the way it steers to
        "speed_at_wall": (0.2, 3.0, 1.0),  # m/s where the boundary is near
    },
}
_BULLETS_CIRCLE = {
    "radius": (3.0, 7.5, 6.5),  # m; the circle's is 7
    "wall": (3.0, 8.0, 8.0),  # m from the centre that it keeps to, across each boundary; they stand at 6
    "lead": (0.3, 5.0, 2.0),  # m ahead on the way it steers to
}
_BULLETS_RUN = {
    "lane": (-3.0, 3.0, 0.0),  # m to the left of the track's middle that it keeps to; the boundaries stand at 2
    "centring": (0.2, 4.0, 1.0),  # m/s back to it, per m off it
}
BULLET_PARAMETERS = {  # of robot and kind; speeds in m/s
    ("Ball", "Circle"): _BULLETS_CIRCLE | {"speed": (0.5, 9.0, 5.0), "speed_at_wall": (0.5, 9.0, 5.0)},
    ("Ball", "Run"): _BULLETS_RUN | {"speed": (0.5, 12.0, 5.0)},
    ("Car", "Circle"): _BULLETS_CIRCLE | {"speed": (0.3, 5.0, 2.0), "speed_at_wall": (0.3, 5.0, 2.0)},
    ("Car", "Run"): _BULLETS_RUN | {"speed": (0.3, 5.0, 2.0)},
}
_BULLETS_DRIVES = {
    "Ball": {"force_gain": (0.2, 4.0, 1.0)},
    "Car": {"thrust_gain": (0.3, 4.0, 1.0), "turn_gain": (0.5, 6.0, 2.0)},
}
# Each joint is driven by the other's angle, a quarter of a period apart: a wave runs down the body.
_UNDULATION = {
    "joint_0_1": 1.0,
    "joint_0_2": -4.0,
    "joint_0_6": 0.3,
    "joint_1_1": 4.0,
    "joint_1_2": -2.0,
    "joint_1_7": 0.3,
}
SWIMMER = {
    "speed": (0.1, 1.0, 1.0),  # share of the greatest torque
    "gain": (0.05, 2.0, 1.0),  # of all weights together; a low one makes small strokes
} | {  # the weight of each observation
    name: (-4.0, 4.0, _UNDULATION.get(name, 0.0))
    for name in (f"joint_{joint}_{entry}" for joint in range(2) for entry in range(8))
}


@dataclass(frozen=True, kw_only=True)
class ControllerPolicy:
    """Acts without memory on the observation alone."""

    name: str
    task: str
    parameters: Mapping[str, float]  # those of `parameters_of`

    def act(self, observation: FloatArray, rng: np.random.Generator) -> FloatArray:
        return self.act_together(observation[None], [rng])[0]

    def act_together(self, observations: FloatArray, rngs: Sequence[np.random.Generator]) -> FloatArray:
        """Actions (n, 2) for observations (n, O); a row's bits depend on no other row. Draws nothing."""
        task = get_task(self.task)
        if task.kind == "swimmer":
            return _swim(observations, self.parameters)
        if task.suite == BULLET:
            return _act_in_bullet(task.robot, task.kind, observations, self.parameters)
        wish = wished_velocity(task.robot, task.kind, task.level, observations, self.parameters)
        velocity = observations[:, 3], observations[:, 4]
        drive = _drive_point if task.robot == "Point" else _drive_car
        return drive(wish, velocity, self.parameters)


def parameters_of(task: str) -> dict[str, tuple[float, float, float]]:
    """A controller's parameters with the least and greatest value that the search tries, and its start.

    Raises:
        PolicyError: there is no controller for the task.
    """
    known = get_task(task)
    if known.kind == "swimmer":
        return SWIMMER
    if known.suite == BULLET and known.robot in _BULLETS_DRIVES:
        return BULLET_PARAMETERS[known.robot, known.kind] | _BULLETS_DRIVES[known.robot]
    if known.suite == BULLET or known.kind not in PARAMETERS or known.robot not in _DRIVES or known.level == 0:
        raise PolicyError(
            f"no controller for {task}; there is one for the Swimmer, for Bullet's Ball and Car, and for Point and Car "
            f"in {', '.join(PARAMETERS)} 1 and 2"
        )
    return PARAMETERS[known.kind] | _DRIVES[known.robot]


def wished_velocity(
    robot: str, kind: str, level: int, observations: FloatArray, parameters: Mapping[str, float]
) -> Vector:
    """The velocity to aim at in a navigation task, (n,) each, as the agent sees it."""
    if kind == "Circle":
        return _round_the_circle(level, observations, parameters)
    n_lidars = len(LIDARS[kind])
    lidars = observations[:, -N_BINS * n_lidars :].reshape(len(observations), n_lidars, N_BINS)
    seen = {name: lidars[:, index] for index, name in enumerate(LIDARS[kind])}
    goal = nearest_object(seen["goal"], LIDAR_REACH[kind])
    around = _obstacles(kind, level, seen, goal, parameters)
    if kind == "Push":
        target, pace = _push(robot, goal, nearest_object(seen["push_box"], LIDAR_REACH[kind]), parameters)
    else:
        target, pace = goal, np.ones(len(observations))
    heading = clear_heading(target, around, parameters["caution"], parameters["lookahead"])
    speed = parameters["speed"] * pace
    return speed * heading[0], speed * heading[1]


def nearest_object(readings: FloatArray, reach: float) -> Vector:
    """Where the one object of a lidar stands, (n,) each, from readings (n, 16); ``reach`` ahead where none is seen."""
    rows = np.arange(len(readings))
    first = readings.argmax(axis=1)
    closeness = readings[rows, first]
    # The next bin reads the closeness times how far the object lies across this bin.
    across = readings[rows, (first + 1) % N_BINS] / np.maximum(closeness, 1e-9)
    return _place(first, across, reach * (1.0 - closeness))


def seen_objects(readings: FloatArray, reach: float) -> Vector:
    """Where the objects of a lidar stand, (n, 16) each: one for each bin that reads more than both beside it."""
    after, before = np.roll(readings, -1, axis=1), np.roll(readings, 1, axis=1)
    closeness = np.maximum(readings, 1e-9)
    # Others may raise the neighbours' readings; the two bounds meet where the object stands alone.
    least, most = np.maximum(1.0 - before / closeness, 0.0), np.minimum(after / closeness, 1.0)
    across = np.where(least <= most, (least + most) / 2, 0.5)
    bins = np.broadcast_to(np.arange(N_BINS), readings.shape)
    x, y = _place(bins, across, reach * (1.0 - readings))
    peak = (readings > 0) & (readings >= after) & (readings >= before)
    return np.where(peak, x, FAR), np.where(peak, y, FAR)


def _place(bins, across: FloatArray, distance: FloatArray) -> Vector:
    x = _EDGE_X[bins] + across * (_EDGE_X[bins + 1] - _EDGE_X[bins])
    y = _EDGE_Y[bins] + across * (_EDGE_Y[bins + 1] - _EDGE_Y[bins])
    scale = distance / np.sqrt(x * x + y * y)
    return x * scale, y * scale


def _obstacles(kind, level, seen, goal: Vector, parameters) -> list[tuple[Vector, float]]:
    """Where what should be avoided stands, each with the radius to keep off it."""
    reach = LIDAR_REACH[kind]
    around = [(seen_objects(seen["hazards"], reach), parameters["hazard_radius"])]
    if kind == "Goal" and level > 1:
        around.append((seen_objects(seen["vases"], reach), parameters["vase_radius"]))
    if kind == "Push":
        around.append((seen_objects(seen["pillars"], reach), parameters["pillar_radius"]))
    if kind == "Button":
        around.append((seen_objects(seen["gremlins"], reach), parameters["gremlin_radius"]))
        x, y = seen_objects(seen["buttons"], reach)
        is_goal = np.square(x - goal[0][:, None]) + np.square(y - goal[1][:, None]) < 0.04
        around.append(((np.where(is_goal, FAR, x), np.where(is_goal, FAR, y)), parameters["button_radius"]))
    return around


def clear_heading(
    target: Vector, obstacles: Sequence[tuple[Vector, float]], caution: float, lookahead: float
) -> Vector:
    """The unit vector, of 32 and the one to the target, that trades the way to the target for what stands in the way.

    Args:
        target: (n,) each.
        obstacles: places, (n, P) each, and the radius to keep off them.
        caution: weight of the worst obstacle in the way.
        lookahead: how far obstacles matter, m.
    """
    distance = np.sqrt(target[0] * target[0] + target[1] * target[1])
    towards = target[0] / np.maximum(distance, 1e-6), target[1] / np.maximum(distance, 1e-6)
    if caution == 0.0:
        return towards
    n = len(distance)
    x = np.concatenate([np.broadcast_to(_HEADING_X, (n, _N_HEADINGS)), towards[0][:, None]], axis=1)
    y = np.concatenate([np.broadcast_to(_HEADING_Y, (n, _N_HEADINGS)), towards[1][:, None]], axis=1)
    score = x * towards[0][:, None] + y * towards[1][:, None]
    reach = np.minimum(lookahead, distance + 0.1)
    for (place_x, place_y), radius in obstacles:
        away = np.sqrt(place_x * place_x + place_y * place_y)
        urgency = np.clip(1.2 - (away - radius) / lookahead, 0.0, 1.2) * (away < reach[:, None] + radius)
        along = x[:, :, None] * place_x[:, None, :] + y[:, :, None] * place_y[:, None, :]
        beside = np.abs(x[:, :, None] * place_y[:, None, :] - y[:, :, None] * place_x[:, None, :])
        in_the_way = np.where((along > 0) & (beside < radius), 1.0 - 0.5 * beside / radius, 0.0)
        score = score - caution * (in_the_way * urgency[:, None, :]).max(axis=2)
    best = score.argmax(axis=1)
    rows = np.arange(n)
    return x[rows, best], y[rows, best]


def _push(robot: str, goal: Vector, box: Vector, parameters) -> tuple[Vector, FloatArray]:
    """Where to drive to bring the box to the goal, as far off as the box is, and how fast, in [0, 1]."""
    onward_x, onward_y = goal[0] - box[0], goal[1] - box[1]
    length = np.maximum(np.sqrt(onward_x * onward_x + onward_y * onward_y), 1e-6)
    onward_x, onward_y = onward_x / length, onward_y / length
    # The agent as the box sees it, with u towards the goal; aligned is 1 where it stands right behind the box.
    u = -(box[0] * onward_x + box[1] * onward_y)
    v = box[0] * onward_y - box[1] * onward_x
    away = np.maximum(np.sqrt(u * u + v * v), 1e-6)
    aligned, aside = -u / away, np.abs(v) / away
    # Round the box to its rear, at a distance; the better aligned, the more it pushes inwards instead.
    turn = np.where(aligned > 0, np.minimum(parameters["centring"] * aside, 1.0), 1.0)
    round_u, round_v = -turn * aside, -turn * aligned * np.where(v > 0, 1.0, -1.0)
    push = np.clip((aligned - parameters["aligned"]) / (1.0 - parameters["aligned"]), 0.0, 1.0)
    outwards = (1.0 - push) * np.clip(4.0 * (parameters["orbit"] - away), -1.0, 1.0) - push
    wish_u, wish_v = round_u + outwards * u / away, round_v + outwards * v / away
    length = np.maximum(np.sqrt(wish_u * wish_u + wish_v * wish_v), 1e-6)
    near = np.clip((away - parameters["orbit"]) / 0.3, 0.0, 1.0)
    pace = np.maximum(np.maximum(push, near), parameters["orbit_pace"])
    scale = away / length
    x = (wish_u * onward_x - wish_v * onward_y) * scale
    y = (wish_u * onward_y + wish_v * onward_x) * scale
    # Beside the box it cannot turn: where the way lies across its axis, it first backs out.
    along, across = (x, y) if robot == "Point" else (y, x)
    stuck = (away < parameters["room"]) & (np.abs(across) > np.abs(along))
    out = -away * np.where((box[0] if robot == "Point" else box[1]) > 0, 1.0, -1.0)
    along, across = np.where(stuck, out, along), np.where(stuck, 0.0, across)
    return (along, across) if robot == "Point" else (across, along), np.where(stuck, 1.0, pace)


def _round_the_circle(level: int, observations: FloatArray, parameters) -> Vector:
    """Anticlockwise along the circle, or along the boundaries where they cut it."""
    x, y = nearest_object(observations[:, -N_BINS:], LIDAR_REACH["Circle"])
    # The magnetic field points along the world's -y, and half a unit is its strength.
    cosine, sine = -2.0 * observations[:, 10], -2.0 * observations[:, 9]
    # The agent's place in the world, from the centre's place before it.
    world_x, world_y = -(cosine * x - sine * y), -(sine * x + cosine * y)
    way_x, way_y = _round_the_centre(world_x, world_y, parameters, four_boundaries=level > 1)
    return cosine * way_x + sine * way_y, cosine * way_y - sine * way_x


def _round_the_centre(
    world_x: FloatArray, world_y: FloatArray, parameters: Mapping[str, float], *, four_boundaries: bool
) -> Vector:
    """The velocity to aim at in the world, (n,) each: anticlockwise, inside boundaries across x, or across y too."""
    radius = np.maximum(np.sqrt(world_x * world_x + world_y * world_y), 1e-6)
    lead, wall = parameters["lead"], parameters["wall"]
    # A point ahead on the way: as far along the tangent, then onto the circle, then inside the boundaries.
    ahead_x = world_x / radius * parameters["radius"] - lead * world_y / radius
    ahead_y = world_y / radius * parameters["radius"] + lead * world_x / radius
    size = parameters["radius"] / np.sqrt(ahead_x * ahead_x + ahead_y * ahead_y)
    ahead_x, ahead_y = np.clip(ahead_x * size, -wall, wall), ahead_y * size
    closeness = np.abs(world_x) / wall
    if four_boundaries:
        ahead_y = np.clip(ahead_y, -wall, wall)
        closeness = np.maximum(closeness, np.abs(world_y) / wall)
    way_x, way_y = ahead_x - world_x, ahead_y - world_y
    length = np.maximum(np.sqrt(way_x * way_x + way_y * way_y), 1e-6)
    near = np.clip(4.0 * closeness - 3.0, 0.0, 1.0)
    speed = (parameters["speed"] + near * (parameters["speed_at_wall"] - parameters["speed"])) / length
    return way_x * speed, way_y * speed


def _drive_point(wish: Vector, velocity: Vector, parameters) -> FloatArray:
    """Thrust along x and turn, (n, 2): the lacking velocity is brought onto the axis, forwards or backwards."""
    lacking_x, lacking_y = wish[0] - velocity[0], wish[1] - velocity[1]
    size = np.sqrt(lacking_x * lacking_x + lacking_y * lacking_y)
    angle = _half_turn_angle(lacking_x, lacking_y, size)
    strength = np.minimum(size / 0.3, 1.0)
    thrust = np.clip(parameters["thrust_gain"] * lacking_x, -1.0, 1.0)
    turn = np.clip(parameters["turn_gain"] * angle * strength, -1.0, 1.0)
    return np.stack([thrust, turn], axis=1)


def _drive_car(wish: Vector, velocity: Vector, parameters) -> FloatArray:
    """The wheels' torques, (n, 2): the axis (y) is turned onto the way, and it drives forwards or backwards."""
    # With y taken for ahead, x is to the right.
    ahead, left = wish[1], -wish[0]
    size = np.sqrt(ahead * ahead + left * left)
    angle = _half_turn_angle(ahead, left, size)
    thrust = np.clip(parameters["thrust_gain"] * (ahead - velocity[1]), -1.0, 1.0)
    turn = np.clip(parameters["turn_gain"] * angle, -1.0, 1.0)
    return np.clip(np.stack([turn - thrust, -turn - thrust], axis=1), -1.0, 1.0)


def _act_in_bullet(robot: str, kind: str, observations: FloatArray, parameters) -> FloatArray:
    """The Ball's force or the Car's throttle and steering, (n, 2)."""
    x, y = 10.0 * observations[:, 0], 10.0 * observations[:, 1]
    if kind == "Circle":
        # Clockwise, so that y is mirrored.
        way_x, mirrored_y = _round_the_centre(x, -y, parameters, four_boundaries=False)
        wish = way_x, -mirrored_y
    else:
        wish = np.full(len(x), parameters["speed"]), parameters["centring"] * (parameters["lane"] - y)
    if robot == "Ball":
        velocity = 5.0 * observations[:, 2], 5.0 * observations[:, 3]
        force = [parameters["force_gain"] * (wish[axis] - velocity[axis]) for axis in range(2)]
        return np.clip(np.stack(force, axis=1), -1.0, 1.0)
    # It starts with its rear to the way, and backs: ahead is behind its heading.
    cosine, sine = -observations[:, 5], -observations[:, 4]
    ahead, left = cosine * wish[0] + sine * wish[1], cosine * wish[1] - sine * wish[0]
    speed = cosine * observations[:, 2] + sine * observations[:, 3]
    size = np.sqrt(ahead * ahead + left * left)
    angle = _half_turn_angle(np.abs(ahead), left, size)  # one end always goes first
    throttle = -np.clip(parameters["thrust_gain"] * (size - speed), -1.0, 1.0)
    return np.stack([throttle, -np.clip(parameters["turn_gain"] * angle, -1.0, 1.0)], axis=1)


def _half_turn_angle(ahead: FloatArray, left: FloatArray, size: FloatArray) -> FloatArray:
    """About the angle in radians by which to turn the axis, either end first; a right angle gives 2."""
    return 2.0 * left * np.where(ahead < 0, -1.0, 1.0) / np.maximum(size + np.abs(ahead), 1e-9)


def _swim(observations: FloatArray, parameters) -> FloatArray:
    actions = np.zeros((len(observations), 2))
    for joint in range(2):
        for entry in range(observations.shape[1]):
            actions[:, joint] += parameters[f"joint_{joint}_{entry}"] * observations[:, entry]
    return parameters["speed"] * np.clip(parameters["gain"] * actions, -1.0, 1.0)


def save_controller(policy: ControllerPolicy, path: Path) -> None:
    """Write a weight file: the header names the parameters."""
    header = {"kind": CONTROLLER, "task": policy.task, "parameters": list(policy.parameters)}
    write_weight_file(path, header, {"values": np.array(list(policy.parameters.values()), dtype=np.float64)})


def load_controller(path: Path, *, name: str, task: str) -> ControllerPolicy:
    """Read a weight file.

    Raises:
        PolicyError: no weight file of this task's with finite values, or without the parameters of its controller.
    """
    header, arrays = read_weight_file(path, task=task)
    expected, names = list(parameters_of(task)), header.get("parameters")
    if names != expected or arrays.get("values", np.empty(0)).shape != (len(expected),):
        raise PolicyError(f"policy file {path}: expected the parameters {', '.join(expected)}, got {names}")
    values = [float(value) for value in arrays["values"]]
    return ControllerPolicy(name=name, task=task, parameters=dict(zip(names, values, strict=True)))
