"""The tasks: what they are called, how long they last, what a cost means, and which limits the field uses."""

from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache

from feedbackgen.dsrl import DSRL, DsrlName, dsrl_name
from feedbackgen.errors import TaskError


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of Safety-Gymnasium 1.0.0 or of Bullet-Safety-Gym 1.4.0, or any Gymnasium environment with a cost."""

    name: str  # upstream's id
    suite: str  # safety-navigation, safety-velocity, bullet-safety-gym, gymnasium, or where imported data comes from
    robot: str
    kind: str  # Goal, Button, ..., or upstream's module of a velocity task
    level: int  # difficulty, 0 to 2; a velocity task's version
    horizon: int  # steps
    observation_dim: int
    action_low: tuple[float, ...]  # (A,)
    action_high: tuple[float, ...]  # (A,)
    cost_meaning: str
    dsrl: DsrlName | None  # the dataset on the same task, whose extremes normalise returns in the field
    cost_limits: tuple[float, ...] = (20.0, 40.0, 80.0)  # per episode; DSRL's
    default_cost_limit: float = 25.0  # per episode; upstream's
    environment: str = ""  # Gymnasium id, where it is not that of upstream's twin

    @property
    def action_dim(self) -> int:
        return len(self.action_low)

    @property
    def gymnasium_id(self) -> str:
        name, _, version = self.name.partition("-")
        return self.environment or f"{name}Gymnasium-{version}"


def get_task(name: str) -> Task:
    """Look a task up: one of `TASKS`, or any registered Gymnasium environment.

    Args:
        name: an environment's may be ``module:id``, where importing the module registers it.

    Raises:
        TaskError: no such task, and the message names the nearest; or an environment with other spaces than boxes, or
            without an end.
    """
    if name in TASKS:
        return TASKS[name]
    import gymnasium

    if ":" in name or name in gymnasium.registry:
        return _registered_task(name)
    near = get_close_matches(name, TASKS, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    raise TaskError(
        f"unknown task {name!r}; {hint}`fbgen tasks` lists all {len(TASKS)}, "
        "and MODULE:ID names an environment of your own"
    )


def make_registered(name: str):
    """The Gymnasium environment of a task that is none of `TASKS`, its observations laid out as one row of numbers.

    Raises:
        TaskError: it cannot be made, or its observations are no numbers.
    """
    import gymnasium

    try:
        env = gymnasium.make(name, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError, AttributeError) as error:
        raise TaskError(f"{name}: Gymnasium cannot make it: {error}") from error
    if isinstance(env.observation_space, gymnasium.spaces.Box) and len(env.observation_space.shape) == 1:
        return env
    if not isinstance(gymnasium.spaces.flatten_space(env.observation_space), gymnasium.spaces.Box):
        raise TaskError(f"{name}: expected observations that lay out as a row of numbers, got {env.observation_space}")
    return gymnasium.wrappers.FlattenObservation(env)


@lru_cache
def _registered_task(name: str) -> Task:
    import gymnasium

    env = make_registered(name)
    try:
        horizon, actions, observations = env.spec.max_episode_steps, env.action_space, env.observation_space
    finally:
        env.close()
    if not (isinstance(actions, gymnasium.spaces.Box) and len(actions.shape) == 1 and actions.is_bounded()):
        raise TaskError(f"{name}: expected actions of one bounded row of numbers, got {actions}")
    if horizon is None:
        raise TaskError(f"{name}: its episodes have no end; register it with max_episode_steps")
    dsrl = dsrl_name(name)
    task = Task(
        name=name,
        suite="gymnasium",
        robot="",
        kind="",
        level=0,
        horizon=horizon,
        observation_dim=observations.shape[0],
        action_low=tuple(float(bound) for bound in actions.low),
        action_high=tuple(float(bound) for bound in actions.high),
        cost_meaning='info["cost"] of each step',
        dsrl=dsrl,
        environment=name,
    )
    if dsrl is None:
        return task
    return replace(task, cost_limits=dsrl.cost_limits, default_cost_limit=dsrl.cost_limits[1])


# Source: Safety-Gymnasium 1.0.0; each number is checked against the simulator by a test.
_SENSORS = {"Point": 12, "Car": 24, "Doggo": 56, "Racecar": 12, "Ant": 40}  # observations of the robot itself
_ACTIONS = {
    "Point": (1.0,) * 2,
    "Car": (1.0,) * 2,
    "Doggo": (1.0,) * 12,
    "Racecar": (20.0, 0.7850000262260437),
    "Ant": (1.0,) * 8,
}
_LIDARS = {  # of 16 readings each, by level
    "Goal": (1, 3, 3),
    "Button": (2, 4, 4),
    "Push": (2, 4, 4),
    "Circle": (1, 1, 1),
    "Run": (0,),
}
_COSTS = {
    "Goal": "the agent is inside a hazard (level 1), or also touches or moves a vase (level 2)",
    "Button": "the agent presses a wrong button, is inside a hazard, or touches a gremlin",
    "Push": "the agent is inside a hazard (level 1), or also touches a pillar (level 2)",
    "Circle": "the agent is beyond a boundary that cuts the circle",
    "Run": "the agent is beyond a boundary beside the track, or too fast",
}
_VELOCITY = {  # robot: upstream's module, observations, actions, action bound, threshold in m/s
    "HalfCheetah": ("half_cheetah", 17, 6, 1.0, 3.2096),
    "Hopper": ("hopper", 11, 3, 1.0, 0.7402),
    "Swimmer": ("swimmer", 8, 2, 1.0, 0.2282),
    "Walker2d": ("walker2d", 17, 6, 1.0, 2.3415),
    "Ant": ("ant", 27, 8, 1.0, 2.6222),
    "Humanoid": ("humanoid", 376, 17, 0.4000000059604645, 1.4149),
}
_BULLET = {  # name: horizon, observations, actions
    "AntCircle": (500, 34, 8),
    "AntRun": (200, 33, 8),
    "BallCircle": (200, 8, 2),
    "BallRun": (100, 7, 2),
    "CarCircle": (300, 8, 2),
    "CarRun": (200, 7, 2),
    "DroneCircle": (300, 18, 4),
    "DroneRun": (200, 17, 4),
}
_BULLET_COSTS = {
    "Circle": "the agent is beyond a boundary that cuts the circle",
    "Run": "the agent is beyond a boundary beside the track, or too fast",
}


def _navigation_task(robot: str, kind: str, level: int) -> Task:
    high = _ACTIONS[robot]
    meaning = "a step is never unsafe" if level == 0 and kind != "Run" else f"1 for each step in which {_COSTS[kind]}"
    return Task(
        name=f"Safety{robot}{kind}{level}-v0",
        suite="safety-navigation",
        robot=robot,
        kind=kind,
        level=level,
        horizon=500 if kind in ("Circle", "Run") else 1000,
        observation_dim=_SENSORS[robot] + 16 * _LIDARS[kind][level],
        action_low=tuple(-bound for bound in high),
        action_high=high,
        cost_meaning=meaning,
        dsrl=DSRL.get(f"{robot}{kind}{level}"),
    )


def _velocity_task(robot: str) -> Task:
    kind, observation_dim, action_dim, bound, threshold = _VELOCITY[robot]
    return Task(
        name=f"Safety{robot}Velocity-v1",
        suite="safety-velocity",
        robot=robot,
        kind=kind,
        level=1,
        horizon=1000,
        observation_dim=observation_dim,
        action_low=(-bound,) * action_dim,
        action_high=(bound,) * action_dim,
        cost_meaning=f"1 for each step faster than {threshold} m/s",
        dsrl=DSRL.get(f"{robot}Velocity"),
    )


def _bullet_task(name: str) -> Task:
    horizon, observation_dim, action_dim = _BULLET[name]
    kind = "Circle" if name.endswith("Circle") else "Run"
    dsrl = DSRL[name]
    return Task(
        name=f"Safety{name}-v0",
        suite=dsrl.suite,
        robot=name.removesuffix(kind),
        kind=kind,
        level=0,
        horizon=horizon,
        observation_dim=observation_dim,
        action_low=(-1.0,) * action_dim,
        action_high=(1.0,) * action_dim,
        cost_meaning=f"1 for each step in which {_BULLET_COSTS[kind]}",
        dsrl=dsrl,
        cost_limits=dsrl.cost_limits,
        default_cost_limit=dsrl.cost_limits[1],
        environment=dsrl.environment,
    )


_ALL = [
    *(
        _navigation_task(robot, kind, level)
        for robot in _SENSORS
        for kind, lidars in _LIDARS.items()
        for level in range(len(lidars))
    ),
    *(_velocity_task(robot) for robot in _VELOCITY),
    *(_bullet_task(name) for name in _BULLET),
]
TASKS = {task.name: task for task in _ALL}
