"""Safety-Gymnasium's navigation tasks, many at once: equal to upstream's code, without its per-step overhead.

A reset, and the placing of a new goal, are upstream's own code. A step is ours: one pass of sensors instead of three,
none in the substeps, no names to look up, and lidar, rewards and costs of all environments at a time.
"""

import itertools
import warnings
from functools import lru_cache

import mujoco
import numpy as np

from feedbackgen.environments.batch import STATE, Transitions, checked_actions, leave_untimed, simulator_state
from feedbackgen.environments.layouts import use_fast_layouts
from feedbackgen.environments.upstream import drawable, load_builder, load_resampling_error
from feedbackgen.tasks import Task
from feedbackgen.types import BoolArray, FloatArray, IntArray

N_SUBSTEPS = 10
N_BINS = 16  # of a lidar
BIN = 2 * np.pi / N_BINS
OWN_NEXT_LAST = np.array([0, 1, -1])[:, None, None]  # bins that show an object
NO_SENSORS = int(mujoco.mjtDisableBit.mjDSBL_SENSOR)
SLEEP = int(getattr(mujoco.mjtEnableBit, "mjENBL_SLEEP", 0))  # since MuJoCo 3.4
AT_REST = 1e-12  # m/s and rad/s; what lies still has the 1e-14 that rounding gives it
# A coordinate (m) from here on is hardly ever moved, by its last bit, by what lies still: 1e-15 m/s, for a substep.
OFF_AXIS = 2.0**-5
DRIFT = 1.7e-15  # m/s


class NavigationBatch:
    """``n`` environments of one task that step together; each is reset by itself.

    An environment that has ended is stepped again only after its reset.
    """

    def __init__(self, task: Task, n_environments: int, *, to_draw: bool = False):
        self.task, self.kind, self.horizon = task.name, task.kind, task.horizon
        self._to_draw = to_draw
        # The Point touches nothing but what it runs into, so what lies elsewhere changes no bit of its motion.
        self._may_rest = bool(SLEEP) and not to_draw and (task.robot, task.kind) == ("Point", "Goal")
        with warnings.catch_warnings(), drawable(to_draw):
            # Upstream bounds its spaces by float64's largest number, which Gymnasium's float32 check overflows on.
            warnings.simplefilter("ignore")
            self.builders = [
                _builder()(task_id=task.name, config={"agent_name": task.robot}) for _ in range(n_environments)
            ]
        for each in self.builders:
            use_fast_layouts(each.task.random_generator)
        self.action_space = self.builders[0].action_space
        self.observation_space = self.builders[0].observation_space
        self.n_steps = np.full(n_environments, -1)  # of each episode; -1 when none is under way
        self.cost_terms: tuple[str, ...] = ()
        self._world: _World | None = None
        self._simulations: dict[int, _Simulation] = {}
        self._memory: dict[str, FloatArray] = {name: np.zeros(n_environments) for name in _MEMORY}

    @property
    def n_environments(self) -> int:
        return len(self.builders)

    def model(self, lane: int) -> mujoco.MjModel:
        return self.builders[lane].task.model

    def data(self, lane: int) -> mujoco.MjData:
        if lane in self._simulations:
            self._simulations[lane].stay_awake()
        return self.builders[lane].task.data

    def reset(self, lane: int, seed: int) -> FloatArray:
        """Start an episode in one environment; returns its observation, (O,)."""
        builder = self.builders[lane]
        with drawable(self._to_draw):
            observation, _ = builder.reset(seed=seed)
        if self._world is None:
            self._world = _World(builder, may_rest=self._may_rest)
            self.cost_terms = self._world.cost_terms
        self._simulations[lane] = _Simulation(builder, self._world)
        self.n_steps[lane] = 0
        self._remember(lane)
        return observation

    def step(self, actions: FloatArray, lanes: IntArray | None = None) -> Transitions:
        """Take one step in every environment, or in those of ``lanes`` alone.

        Args:
            actions: (n, A), in the order of the lanes.
            lanes: (n,), each at most once.

        Raises:
            DataError: actions of a wrong shape or not finite, or a lane has no episode under way.
        """
        lanes = np.arange(self.n_environments) if lanes is None else np.asarray(lanes)
        actions = checked_actions(self, actions, lanes)
        leave_untimed()
        simulations = [self._simulations[int(lane)] for lane in lanes]
        controls = np.clip(actions, simulations[0].low, simulations[0].high)
        for simulation, control in zip(simulations, controls, strict=True):
            simulation.advance(control)
        state = _State(simulations, lanes, [self.builders[lane].task for lane in lanes])
        rewards, achieved = self._rewards(state)
        terms = self._costs(state)
        costs = np.max(list(terms.values()), axis=0) if terms else np.zeros(len(lanes))
        terminated = np.zeros(len(lanes), dtype=bool)
        for index in np.flatnonzero(achieved | state.world.has_buttons):
            terminated[index] = self._after_step(lanes[index], bool(achieved[index]))
            if achieved[index]:
                state.read(int(index))
        if state.world.dies:
            terminated |= state.agent[:, 2] <= 0.08
        self.n_steps[lanes] += 1
        truncated = self.n_steps[lanes] >= self.horizon
        observations = state.world.observe(state)
        self.n_steps[lanes[terminated | truncated]] = -1
        return Transitions(observations, rewards, costs, terminated, truncated, terms)

    def get_state(self, lane: int) -> FloatArray:
        """State of one environment's simulator, (S,)."""
        return simulator_state(self.model(lane), self.data(lane))

    def recall(self, lane: int) -> None:
        """Take the present distances for those of the step before, after the state was set from outside."""
        self._rewards(_State([self._simulations[lane]], np.array([lane]), [self.builders[lane].task]))

    def close(self) -> None:
        for builder in self.builders:
            builder.close()

    def _after_step(self, lane: int, achieved: bool) -> bool:
        """Upstream's own end of a step: timers and new goals; True where no goal can be placed any more."""
        task = self.builders[lane].task
        task.specific_step()
        if not achieved:
            return False
        task.update_layout()
        try:
            task.update_world()
        except load_resampling_error():
            return True
        self._remember(lane)
        return False

    def _remember(self, lane: int) -> None:
        """What rewards compare with: upstream's task knows it after a reset or a new goal."""
        task = self.builders[lane].task
        for name, values in self._memory.items():
            value = getattr(task, name, None)
            values[lane] = 0.0 if value is None else value

    def _rewards(self, state: "_State") -> tuple[FloatArray, BoolArray]:
        world, memory, lanes = state.world, self._memory, state.lanes
        never = np.zeros(len(lanes), dtype=bool)
        if self.kind == "Circle":
            x, y = state.agent[:, 0], state.agent[:, 1]
            u, v = state.velocity[:, 0], state.velocity[:, 1]
            # A scalar's square is libm's pow, which an array's multiplication can miss by the last bit.
            radius = np.sqrt(np.array([a**2 for a in x]) + np.array([b**2 for b in y]))
            along = ((-u * y + v * x) / radius) / (1 + np.abs(radius - world.circle_radius))
            return _clipped(along * world.reward_factor), never
        if self.kind == "Run":
            far = [np.linalg.norm(position - [[0, -1e3]]) for position in state.agent[:, :2]]
            potential = -np.array(far) * world.reward_factor
            rewards = potential - memory["old_potential"][lanes]
            memory["old_potential"][lanes] = potential
            return rewards, never
        if self.kind == "Push":
            box = _distance(state.box - state.agent)
            box_to_goal = _distance(state.box - state.goal)
            last_box = memory["last_dist_box"][lanes]
            rewards = (last_box - box) * (last_box > 0.0)
            rewards = rewards + (memory["last_box_goal"][lanes] - box_to_goal)
            memory["last_dist_box"][lanes], memory["last_box_goal"][lanes] = box, box_to_goal
            achieved = box_to_goal <= world.goal_size
        else:
            distance = _distance(state.goal[:, :2] - state.agent[:, :2])
            rewards = memory["last_dist_goal"][lanes] - distance
            memory["last_dist_goal"][lanes] = distance
            achieved = distance <= world.goal_size if self.kind == "Goal" else self._pressed(state)
        return _clipped(rewards + achieved), achieved

    def _pressed(self, state: "_State") -> BoolArray:
        pressed = state.world.button[state.touched]
        return state.any_contact(pressed == self._goal_buttons(state)[state.touching])

    def _costs(self, state: "_State") -> dict[str, FloatArray]:
        """Every cost term as 0 or 1, under upstream's names."""
        world = state.world
        terms = {}
        for name in world.cost_terms:
            if name == "cost_hazards":
                distance = _distance(state.positions[:, world.hazards, :2] - state.agent[:, None, :2])
                unsafe = np.any(world.hazard_size - distance > 0, axis=1)
            elif name == "cost_out_of_boundary":
                unsafe = np.abs(state.agent[:, 0]) > world.boundary
                if world.n_walls == 4:
                    unsafe |= np.abs(state.agent[:, 1]) > world.boundary
            elif name == "cost_vases_velocity":
                unsafe = np.array([simulation.moves_a_vase() for simulation in state.simulations])
            elif name == "cost_buttons":
                unsafe = self._wrongly_pressed(state)
            else:
                unsafe = state.any_contact(world.touchable[name][state.touched])
            terms[name] = unsafe.astype(np.float64)
        return terms

    def _wrongly_pressed(self, state: "_State") -> BoolArray:
        pressed = state.world.button[state.touched]
        wrong = (pressed >= 0) & (pressed != self._goal_buttons(state)[state.touching])
        return state.any_contact(wrong) & np.array([task.buttons.timer == 0 for task in state.tasks])

    def _goal_buttons(self, state: "_State") -> IntArray:
        return np.array([task.buttons.goal_button for task in state.tasks])


@lru_cache
def _builder() -> type:
    return load_builder()


_MEMORY = ("last_dist_goal", "last_dist_box", "last_box_goal", "old_potential")


class _World:
    """What all worlds of a task share: where sensors, bodies and geoms stand in its model."""

    def __init__(self, builder, *, may_rest: bool):
        task, model = builder.task, builder.task.model
        self.may_rest = may_rest and model.ntree > 1
        self.cost_terms = tuple(name for name in builder.cost if name != "cost_sum")
        self.dies = type(task.agent).__name__ == "Ant"
        self.reward_factor = getattr(task, "reward_factor", 1.0)
        self.agent_body = model.body("agent").id
        self.unneeded = _unneeded_stages(model)
        self._read_obstacles(task, model)
        self._read_geoms(task, model)
        self._read_sensors(task, model)

    def _read_obstacles(self, task, model) -> None:
        obstacles = {obstacle.name: obstacle for obstacle in task._obstacles}
        self.goal_body = model.body("goal").id if "goal" in obstacles else None
        self.goal_size: float = obstacles["goal"].size if "goal" in obstacles else 0.0
        self.box_body = model.body("push_box").id if "push_box" in obstacles else None
        self.circle_radius = obstacles["circle"].radius if "circle" in obstacles else None
        self.gremlins = obstacles.get("gremlins")
        walls = obstacles.get("sigwalls")
        self.boundary: float = walls.locate_factor if walls else np.inf
        self.n_walls: int = walls.num if walls else 0
        self.max_distance = task.lidar_conf.max_dist
        # Every object some lidar sees, in the order of the lidars; body -1 is the circle, always at the origin.
        bodies: list[int] = []
        lidars: list[int] = []
        self.lidar_names: list[str] = []
        places = {}
        for obstacle in task._obstacles:
            if not obstacle.is_lidar_observed:
                continue
            names = _body_names(obstacle)
            places[obstacle.name] = np.arange(len(bodies), len(bodies) + len(names))
            bodies += [model.body(name).id if name else -1 for name in names]
            lidars += [len(self.lidar_names)] * len(names)
            self.lidar_names.append(f"{obstacle.name}_lidar")
        self.bodies, self.lidars = np.array(bodies, dtype=int), np.array(lidars, dtype=int)
        self.hazards = self.bodies[places["hazards"]] if "hazards" in places else None
        self.hazard_size: float = obstacles["hazards"].size if "hazards" in obstacles else 0.0
        self.vase_bodies = [model.body(f"vase{index}").id for index in range(_number(obstacles.get("vases")))]
        self.vase_velocity = obstacles["vases"].velocity_threshold if "vases" in obstacles else None

    def _read_geoms(self, task, model) -> None:
        names = [model.geom(index).name for index in range(model.ngeom)]
        own = set(task.agent.body_info.geom_names)
        self.is_agent = np.array([name in own for name in names])

        def starting(word: str) -> BoolArray:
            return np.array([name.startswith(word) for name in names])

        self.touchable = {
            "cost_vases_contact": starting("vase"),
            "cost_pillars": starting("pillar"),
            "cost_gremlins": starting("gremlin"),
        }
        n_buttons = _number(getattr(task, "buttons", None))
        self.has_buttons = n_buttons > 0
        buttons = [f"button{index}" for index in range(n_buttons)]
        # Of each geom the button's number, or -1.
        self.button = np.array([buttons.index(name) if name in buttons else -1 for name in names])

    def _read_sensors(self, task, model) -> None:
        agent = task.agent
        hinges, balls = set(agent.sensor_info.hinge_pos_names), set(agent.sensor_info.ballquat_names)
        copies: list[tuple[int, int]] = []  # sensordata -> observation
        self.hinges: list[tuple[int, int]] = []
        self.balls: list[tuple[int, int]] = []
        self.lidar_at: dict[str, int] = {}
        at = 0
        for name, space in task.obs_info.obs_space_dict.spaces.items():
            size = int(np.prod(space.shape))
            if name.endswith("_lidar"):
                self.lidar_at[name] = at
            else:
                sensor = model.sensor(name).id
                address, dim = int(model.sensor_adr[sensor]), int(model.sensor_dim[sensor])
                if name in hinges:
                    self.hinges.append((address, at))
                elif name in balls:
                    self.balls.append((address, at))
                else:
                    skipped = dim - size  # a free joint's height stands behind its x and y
                    copies += [(address + skipped + offset, at + offset) for offset in range(size)]
            at += size
        self.observation_dim = at
        self.copy_from, self.copy_to = (np.array(column, dtype=int) for column in zip(*copies, strict=True))
        self.hinge_from = np.array([address for address, _ in self.hinges], dtype=int)
        self.hinge_to = np.array([place for _, place in self.hinges], dtype=int)

    def observe(self, state: "_State") -> FloatArray:
        """Observations of all environments, (n, O)."""
        n_environments = len(state.agent)
        observations = np.empty((n_environments, self.observation_dim))
        observations[:, self.copy_to] = state.sensors[:, self.copy_from]
        if self.hinges:
            angles = state.sensors[:, self.hinge_from]
            observations[:, self.hinge_to] = np.sin(angles)
            observations[:, self.hinge_to + 1] = np.cos(angles)
        for address, place in self.balls:
            matrix = np.zeros(9)
            for index in range(n_environments):
                mujoco.mju_quat2Mat(matrix, state.sensors[index, address : address + 4])
                observations[index, place : place + 9] = matrix
        if self.lidar_names:
            readings = self._lidar(state)
            for lidar, name in enumerate(self.lidar_names):
                place = self.lidar_at[name]
                observations[:, place : place + N_BINS] = readings[:, lidar]
        if self.has_buttons:
            place = self.lidar_at["buttons_lidar"]
            for index, task in enumerate(state.tasks):
                if task.buttons.timer != 0:
                    observations[index, place : place + N_BINS] = 0.0
        return observations

    def _lidar(self, state: "_State") -> FloatArray:
        """Closeness of the nearest object in each direction, (n, lidars, bins); neighbouring bins share an object."""
        n_environments, n_lidars = len(state.agent), len(self.lidar_names)
        ego = _egocentric(state.positions[:, self.bodies], state.agent, state.rotation)
        z = ego[..., 0] + 1j * ego[..., 1]
        closeness = np.maximum(0, self.max_distance - np.abs(z)) / self.max_distance
        angle = np.angle(z) % (np.pi * 2)
        bins = (angle / BIN).astype(int)
        alias = (angle - BIN * bins) / BIN
        shares = np.stack([closeness, alias * closeness, (1 - alias) * closeness])
        first_bin = (np.arange(n_environments)[:, None] * n_lidars + self.lidars) * N_BINS
        places = first_bin + (bins + OWN_NEXT_LAST) % N_BINS
        readings = np.zeros(n_environments * n_lidars * N_BINS)
        np.maximum.at(readings, places.ravel(), shares.ravel())  # flat: numpy is fast there alone
        return readings.reshape(n_environments, n_lidars, N_BINS)


class _Simulation:
    """One environment's physics during an episode; upstream compiles a model for each."""

    def __init__(self, builder, world: _World):
        self.world = world
        self.model, self.data = builder.task.model, builder.task.data
        self.random = builder.task.random_generator.random_generator
        self.sensors, self.xpos, self.ctrl = self.data.sensordata, self.data.xpos, self.data.ctrl
        self.qvel = self.data.qvel
        self.rotation = self.data.xmat[world.agent_body].reshape(3, 3)
        self.gremlins_at = self.data.mocap_pos.T
        self.option = self.model.opt
        self.low, self.high = self.model.actuator_ctrlrange.T
        self.jacobian = np.zeros((3, self.model.nv))
        self.flags = int(self.option.disableflags) | world.unneeded
        self.is_euler = self.option.integrator == mujoco.mjtIntegrator.mjINT_EULER
        self.may_rest = world.may_rest
        self.others = self.qvel[int(np.sum(self.model.dof_treeid == 0)) :]  # the robot is the first tree
        self.before_rest: FloatArray | None = None  # state, and what was done since
        self.controls: list[FloatArray] = []
        if self.may_rest:
            self.option.sleep_tolerance = AT_REST

    def advance(self, control: FloatArray) -> None:
        """One step, in which what lies still is left to lie.

        MuJoCo lets it sleep, which takes its noise of 1e-15 m/s from it. When it is touched it has to have that back,
        so all since it came to rest is done again, awake.
        """
        self.random.random_sample()  # upstream draws one here: how many substeps there are, always all
        if not self.may_rest:
            self._advance(control)
            return
        if self.before_rest is None:
            if not self._others_stay():
                self._advance(control)
                return
            self.before_rest = np.empty(mujoco.mj_stateSize(self.model, STATE))
            mujoco.mj_getState(self.model, self.data, self.before_rest, STATE)
        self.controls.append(control)
        n_awake = self.data.ntree_awake
        self.option.enableflags = SLEEP
        self._advance(control)
        self.option.enableflags = 0
        if self.data.ntree_awake > n_awake or not self._others_rest():
            self.catch_up()

    def stay_awake(self) -> None:
        """Let nothing sleep until the next reset: who looks at the state once, to record it, looks at it each step."""
        self.catch_up()
        self.may_rest = False

    def catch_up(self) -> None:
        """Do awake what was done while others slept."""
        if self.before_rest is None:
            return
        model, data = self.model, self.data
        mujoco.mj_setState(model, data, self.before_rest, STATE)
        self.option.disableflags = self.flags | NO_SENSORS
        for control in self.controls:
            self.ctrl[:] = control
            mujoco.mj_step(model, data, nstep=N_SUBSTEPS)
        self.option.disableflags = self.flags
        mujoco.mj_forward(model, data)
        self.before_rest = None
        self.controls.clear()

    def _others_rest(self) -> bool:
        return bool(np.max(np.abs(self.others)) < AT_REST)

    def _others_stay(self) -> bool:
        """Whether they rest, and stand, but for 1e-15 now and then, at the same numbers until they are touched."""
        if not self._others_rest() or np.max(np.abs(self.others.reshape(-1, 6)[:, :2])) > DRIFT:
            return False
        return bool(np.min(np.abs(self.xpos[self.world.vase_bodies, :2])) > OFF_AXIS)

    def _advance(self, control: FloatArray) -> None:
        """Ten substeps without sensors, then all that is derived from the new state."""
        model, data = self.model, self.data
        self.ctrl[:] = control
        self.option.disableflags = self.flags | NO_SENSORS
        gremlins = self.world.gremlins
        if gremlins is None and self.is_euler:
            # Positions and velocities are known from the last mj_forward: the first substep is its second half.
            mujoco.mj_step2(model, data)
            mujoco.mj_step(model, data, nstep=N_SUBSTEPS - 1)
        elif gremlins is None:
            mujoco.mj_step(model, data, nstep=N_SUBSTEPS)
        else:
            (x, y, z), travel = self.gremlins_at, gremlins.travel
            z.fill(gremlins.size)
            for _ in range(N_SUBSTEPS):
                phase = data.time
                x.fill(np.sin(phase) * travel)
                y.fill(np.cos(phase) * travel)
                mujoco.mj_step(model, data)
        self.option.disableflags = self.flags
        mujoco.mj_forward(model, data)

    def velocity(self, body: int) -> FloatArray:
        """A body's velocity in the world, (3,), m/s."""
        mujoco.mj_jacBody(self.model, self.data, self.jacobian, None, body)
        return np.dot(self.jacobian, self.qvel)

    def moves_a_vase(self) -> bool:
        bound = self.world.vase_velocity
        return any(np.sqrt(np.sum(np.square(self.velocity(body)))) >= bound for body in self.world.vase_bodies)


class _State:
    """What all environments' sensors and positions read, in arrays of n rows."""

    def __init__(self, simulations: list[_Simulation], lanes: IntArray, tasks: list):
        world, n_environments = simulations[0].world, len(simulations)
        self.world, self.simulations, self.lanes, self.tasks = world, simulations, lanes, tasks
        self.sensors = np.empty((n_environments, len(simulations[0].sensors)))
        # Of all bodies; behind them, at index -1, the circle's middle.
        self.positions = np.zeros((n_environments, len(simulations[0].xpos) + 1, 3))
        self.rotation = np.empty((n_environments, 3, 3))
        self.velocity = np.empty((n_environments, 3))
        self.agent = self.positions[:, world.agent_body]
        self.goal = self.positions[:, world.goal_body or 0]
        self.box = self.positions[:, world.box_body or 0]
        for index in range(n_environments):
            self.read(index)
        if world.has_buttons or any(name in world.touchable for name in world.cost_terms):
            self._read_contacts()

    def read(self, index: int) -> None:
        simulation = self.simulations[index]
        self.sensors[index] = simulation.sensors
        self.positions[index, :-1] = simulation.xpos
        self.rotation[index] = simulation.rotation
        if self.world.circle_radius is not None:
            self.velocity[index] = simulation.velocity(self.world.agent_body)

    def _read_contacts(self) -> None:
        """Which geom touches the agent (or it touches itself), and in which environment, one for each contact."""
        pairs = [simulation.data.contact.geom for simulation in self.simulations]
        first, second = np.concatenate(pairs).T
        lanes = np.repeat(np.arange(len(pairs)), [len(each) for each in pairs])
        of_agent = self.world.is_agent
        touching = of_agent[first] | of_agent[second]
        self.touched = np.where(of_agent[first], second, first)[touching]
        self.touching = lanes[touching]

    def any_contact(self, chosen: BoolArray) -> BoolArray:
        """Whether one of an environment's contacts with its agent is chosen, (n,)."""
        found = np.zeros(len(self.simulations), dtype=bool)
        found[self.touching[chosen]] = True
        return found


def _unneeded_stages(model: mujoco.MjModel) -> int:
    """Disable flags of what costs time in this world and changes no bit."""
    flags = 0
    if model.ntree == 1:
        # All that moves is one island, with or without a search for islands.
        flags |= mujoco.mjtDisableBit.mjDSBL_ISLAND
    if _contacts_come_in_order(model):
        flags |= mujoco.mjtDisableBit.mjDSBL_MIDPHASE
    return int(flags)


def _contacts_come_in_order(model: mujoco.MjModel) -> bool:
    """Whether contacts of two bodies are in the same order without the tree of bounding boxes, which few geoms need.

    After the tree MuJoCo sorts contacts by their geoms, each pair with the lower type first; without it they stand as
    the geoms do. Another order would round forces in another way.
    """
    bodies = [range(first, first + n) for first, n in zip(model.body_geomadr, model.body_geomnum, strict=True)]
    for own, others in itertools.combinations(bodies, 2):
        found = [sorted(pair, key=lambda geom: model.geom_type[geom]) for pair in itertools.product(own, others)]
        if found != sorted(found):
            return False
    return True


def _body_names(obstacle) -> list[str]:
    """Names of an obstacle's bodies; the circle has none that moves."""
    if obstacle.name == "circle":
        return [""]
    if not hasattr(obstacle, "num"):
        return [obstacle.name]
    suffix = "obj" if obstacle.name == "gremlins" else ""
    return [f"{obstacle.name[:-1]}{index}{suffix}" for index in range(obstacle.num)]


def _number(obstacle) -> int:
    return 0 if obstacle is None else obstacle.num


def _egocentric(positions: FloatArray, agent: FloatArray, rotation: FloatArray) -> FloatArray:
    """Positions as the agent sees them, (n, K, 2), from the world's, (n, K, 3), which are written over."""
    positions[..., 2] = 0.0
    positions -= agent[:, None]
    # Vector by vector, as upstream does it: a product of whole matrices rounds in another way.
    return np.matmul(positions[:, :, None, :], rotation[:, None])[:, :, 0, :2]


def _distance(differences: FloatArray) -> FloatArray:
    return np.sqrt(np.sum(np.square(differences), axis=-1))


def _clipped(rewards: FloatArray) -> FloatArray:
    return np.clip(rewards, -10.0, 10.0)
