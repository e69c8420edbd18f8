"""The tasks: what they are called, how long they last, what a cost means, and which limits the field uses."""

from dataclasses import dataclass
from difflib import get_close_matches

from feedbackgen.errors import TaskError


@dataclass(frozen=True, kw_only=True)
class DsrlDataset:
    """The dataset of DSRL (Liu et al., 2023) on the same task, whose extremes normalise returns in the field."""

    file: str
    n_episodes: int
    return_min: float
    return_max: float
    cost_max: float


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of Safety-Gymnasium 1.0.0."""

    name: str  # upstream's id
    suite: str  # safety-navigation or safety-velocity
    robot: str
    kind: str  # Goal, Button, ..., or upstream's module of a velocity task
    level: int  # difficulty, 0 to 2; a velocity task's version
    horizon: int  # steps
    observation_dim: int
    action_low: tuple[float, ...]  # (A,)
    action_high: tuple[float, ...]  # (A,)
    cost_meaning: str
    dsrl: DsrlDataset | None
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
    """Look a task up.

    Raises:
        TaskError: no such task; the message names the nearest.
    """
    if name in TASKS:
        return TASKS[name]
    near = get_close_matches(name, TASKS, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    raise TaskError(f"unknown task {name!r}; {hint}`fbgen tasks` lists all {len(TASKS)}")


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
# Source: DSRL, dsrl/infos.py: file, episodes, least and greatest return, greatest cost.
_DSRL = {
    "CarButton1": ("SafetyCarButton1Gymnasium-v0-250-2656.hdf5", 2656, 0.002893, 44.42, 250),
    "CarButton2": ("SafetyCarButton2Gymnasium-v0-300-3755.hdf5", 3755, 0.001767, 41.995, 300),
    "CarCircle1": ("SafetyCarCircle1Gymnasium-v0-250-1271.hdf5", 1271, 8.037, 24.942, 250),
    "CarCircle2": ("SafetyCarCircle2Gymnasium-v0-400-940.hdf5", 940, 5.113, 25.95, 398),
    "CarGoal1": ("SafetyCarGoal1Gymnasium-v0-120-1671.hdf5", 1671, 0.01223, 39.908, 120),
    "CarGoal2": ("SafetyCarGoal2Gymnasium-v0-200-4105.hdf5", 4105, 0.001033, 28.903, 200),
    "CarPush1": ("SafetyCarPush1Gymnasium-v0-200-2871.hdf5", 2871, 0.0137, 16.304, 200),
    "CarPush2": ("SafetyCarPush2Gymnasium-v0-250-4407.hdf5", 4407, 0.0002939, 15.142, 250),
    "PointButton1": ("SafetyPointButton1Gymnasium-v0-200-2268.hdf5", 2268, 0.008822, 41.193, 200),
    "PointButton2": ("SafetyPointButton2Gymnasium-v0-250-3288.hdf5", 3288, 0.01411, 42.899, 250),
    "PointCircle1": ("SafetyPointCircle1Gymnasium-v0-200-1098.hdf5", 1098, 20.07, 61.728, 200),
    "PointCircle2": ("SafetyPointCircle2Gymnasium-v0-300-895.hdf5", 895, 20.48, 54.022, 299),
    "PointGoal1": ("SafetyPointGoal1Gymnasium-v0-100-2022.hdf5", 2022, 0.01196, 30.071, 100),
    "PointGoal2": ("SafetyPointGoal2Gymnasium-v0-200-3442.hdf5", 3442, 0.002617, 27.718, 200),
    "PointPush1": ("SafetyPointPush1Gymnasium-v0-150-2379.hdf5", 2379, 0.0014, 16.519, 150),
    "PointPush2": ("SafetyPointPush2Gymnasium-v0-200-3242.hdf5", 3242, 0.001244, 14.691, 200),
    "AntVelocity": ("SafetyAntVelocityGymnasium-v1-250-2249.hdf5", 2249, 6.152, 2976.3, 250),
    "HalfCheetahVelocity": ("SafetyHalfCheetahVelocityGymnasium-v1-250-2495.hdf5", 2495, 5.751, 2806.9, 250),
    "HopperVelocity": ("SafetyHopperVelocityGymnasium-v1-250-2240.hdf5", 2240, 37.05, 1911.4, 250),
    "SwimmerVelocity": ("SafetySwimmerVelocityGymnasium-v1-200-1686.hdf5", 1686, 0.07114, 238.96, 200),
    "Walker2dVelocity": ("SafetyWalker2dVelocityGymnasium-v1-300-2729.hdf5", 2729, 18.67, 3418.2, 300),
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
        dsrl=_dsrl(f"{robot}{kind}{level}"),
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
        dsrl=_dsrl(f"{robot}Velocity"),
    )


def _dsrl(name: str) -> DsrlDataset | None:
    if name not in _DSRL:
        return None
    file, n_episodes, return_min, return_max, cost_max = _DSRL[name]
    return DsrlDataset(
        file=file, n_episodes=n_episodes, return_min=return_min, return_max=return_max, cost_max=cost_max
    )


_ALL = [
    *(
        _navigation_task(robot, kind, level)
        for robot in _SENSORS
        for kind, lidars in _LIDARS.items()
        for level in range(len(lidars))
    ),
    *(_velocity_task(robot) for robot in _VELOCITY),
]
TASKS = {task.name: task for task in _ALL}
