"""The fast navigation tasks against upstream's own code on the installed mujoco: equal to the last bit.

Per task three environments in one batch, each with a seed of its own: a full episode, half of it random and half of it
seeking the goal, then two shorter ones after later resets.
"""

import mujoco
import numpy as np
import pytest

from feedbackgen.environments import make_env, make_env_batch
from feedbackgen.environments.navigation import _unneeded_stages
from feedbackgen.environments.upstream import load_builder
from feedbackgen.errors import DataError
from feedbackgen.tasks import TASKS, get_task

pytestmark = pytest.mark.simulator

NAVIGATION = [name for name, task in TASKS.items() if task.suite == "safety-navigation"]
SEEDS = (0, 1, 2)
LATER_EPISODES = (120, 60)  # steps of each, after the full one
MIDPHASE = int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)
STATE = mujoco.mjtState.mjSTATE_INTEGRATION


class Reference:
    """Upstream's environment, and the actions that both take."""

    def __init__(self, task, seed: int):
        self.task = task
        self.env = load_builder()(task_id=task.name, config={"agent_name": task.robot})
        self.seed, self.rng = seed, np.random.default_rng(seed)
        self.lengths = list(LATER_EPISODES)
        self.n_steps_left = task.horizon
        self.action = np.zeros(self.env.action_space.shape)

    def reset(self, seed: int) -> np.ndarray:
        self.n_steps = 0
        return self.env.reset(seed=seed)[0]

    def act(self) -> np.ndarray:
        low, high = self.env.action_space.low, self.env.action_space.high
        if (self.n_steps // 100) % 2 == 1 and self.task.robot in ("Point", "Car", "Racecar"):
            return np.clip(steer(self.env.task, self.task.robot), low, high)
        if self.rng.random() < 0.1 or self.n_steps == 0:
            self.action = self.rng.uniform(low, high)
        return self.action


def steer(task, robot: str) -> np.ndarray:
    """Drive at the goal, or at what stands between."""
    aim = task.push_box.pos if hasattr(task, "push_box") else task.goal.pos if hasattr(task, "goal") else np.zeros(3)
    x, y = task._ego_xy(np.asarray(aim)[:2])
    angle = np.arctan2(y, x)
    if robot == "Car":  # its front is where y falls
        return np.array([1.0 - angle, 1.0 + angle]) * 0.02
    return np.array([0.5, np.clip(angle, -1, 1)]) if robot == "Point" else np.array([10.0, np.clip(angle, -0.7, 0.7)])


@pytest.mark.parametrize("name", NAVIGATION)
def test_a_batch_is_upstreams_to_the_last_bit(name):
    task = get_task(name)
    batch = make_env_batch(name, len(SEEDS))
    references = [Reference(task, seed) for seed in SEEDS]
    for lane, reference in enumerate(references):
        np.testing.assert_array_equal(batch.reset(lane, reference.seed), reference.reset(reference.seed))
    lanes = np.arange(len(SEEDS))
    while len(lanes):
        for lane in lanes:
            place_at_goal(references[lane], batch, lane)
        actions = np.array([references[lane].act() for lane in lanes])
        transitions = batch.step(actions, lanes)
        for index, lane in enumerate(lanes):
            compare(references[lane], actions[index], batch, lane, transitions, index)
            step_on(references[lane], batch, lane, bool(transitions.terminated[index] | transitions.truncated[index]))
        lanes = np.array([lane for lane in lanes if references[lane].n_steps_left > 0], dtype=int)
    batch.close()


@pytest.mark.parametrize("kind", ["Goal2", "Button2", "Push2", "Circle2", "Run0"])
def test_one_environment_is_upstreams_to_the_last_bit(kind):
    name = f"SafetyCar{kind}-v0"
    env, reference = make_env(name), Reference(get_task(name), 0)
    for seed in SEEDS[:2]:
        observation, _ = env.reset(seed=seed)
        np.testing.assert_array_equal(observation, reference.reset(seed))
        for reference.n_steps in range(150):
            action = reference.act()
            *came, info = env.step(action)
            *expected, upstreams = reference.env.step(action)
            np.testing.assert_array_equal(came[0], expected[0])
            assert came[1:] == [float(expected[1]), float(expected[2]), *expected[3:]]
            assert info == {term: float(upstreams.get(term, 0.0)) for term in info}
            np.testing.assert_array_equal(env.data.qpos, reference.env.task.data.qpos)
            np.testing.assert_array_equal(env.data.qvel, reference.env.task.data.qvel)
    env.close()


def compare(reference, action, batch, lane, transitions, index) -> None:
    observation, reward, cost, terminated, truncated, info = reference.env.step(action)
    place = f"lane {lane}, step {reference.n_steps}"
    np.testing.assert_array_equal(transitions.observations[index], observation, err_msg=place)
    assert transitions.rewards[index] == reward, place
    assert transitions.costs[index] == cost, place
    for term, values in transitions.cost_terms.items():
        assert values[index] == float(info.get(term, 0.0)), (place, term)
    # Upstream leaves a term out where it does not count, the buttons' while they rest, say; we give 0.
    assert {term for term in info if term.startswith("cost_")} - {"cost_sum"} <= set(transitions.cost_terms)
    assert (transitions.terminated[index], transitions.truncated[index]) == (terminated, truncated), place
    np.testing.assert_array_equal(simulator_state(batch.model(lane), batch.data(lane)),
                                  simulator_state(reference.env.task.model, reference.env.task.data))  # fmt: skip


def simulator_state(model, data) -> np.ndarray:
    state = np.empty(mujoco.mj_stateSize(model, STATE))
    mujoco.mj_getState(model, data, state, STATE)
    return np.concatenate([state, model.body_pos.ravel()])


def place_at_goal(reference, batch, lane) -> None:
    """What does not get there by itself, a box or a robot on legs, is carried to the goal now and then."""
    task = reference.env.task
    body = "push_box" if hasattr(task, "push_box") else "agent"
    drives = reference.task.robot in ("Point", "Car", "Racecar") and body == "agent"
    if not hasattr(task, "goal") or drives or reference.n_steps % 97 != 96:
        return
    for model, data in ((batch.model(lane), batch.data(lane)), (task.model, task.data)):
        joint = model.body(body).jntadr[0]
        assert model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE
        address = model.jnt_qposadr[joint]
        data.qpos[address : address + 2] = task.goal.pos[:2] + 0.05
        mujoco.mj_forward(model, data)


def step_on(reference, batch, lane, ended: bool) -> None:
    reference.n_steps += 1
    reference.n_steps_left -= 1
    if ended and reference.n_steps_left > 0:
        reset_both(reference, batch, lane)
    elif reference.n_steps_left == 0 and reference.lengths:
        reference.n_steps_left = reference.lengths.pop(0)
        reset_both(reference, batch, lane)


def reset_both(reference, batch, lane) -> None:
    reference.seed += 100
    np.testing.assert_array_equal(batch.reset(lane, reference.seed), reference.reset(reference.seed))


def test_a_lane_is_the_same_alone_and_among_others():
    alone, many = make_env_batch("SafetyCarGoal2-v0", 1), make_env_batch("SafetyCarGoal2-v0", 4)
    for lane in range(4):
        many.reset(lane, lane)
    alone.reset(0, 2)
    actions = np.random.default_rng(0).uniform(-0.02, 0.02, (60, 4, 2))
    for action in actions:
        one, all_four = alone.step(action[2:3]), many.step(action)
        np.testing.assert_array_equal(one.observations[0], all_four.observations[2])
        assert (one.rewards[0], one.costs[0]) == (all_four.rewards[2], all_four.costs[2])


def test_some_lanes_can_step_while_others_wait():
    batch, same = (make_env_batch("SafetyPointButton2-v0", 2) for _ in range(2))
    for each in (batch, same):
        each.reset(0, 5), each.reset(1, 6)
    actions = np.random.default_rng(0).uniform(-1, 1, (40, 2, 2))
    together = [same.step(action).observations for action in actions]
    first = [batch.step(action[:1], [0]).observations[0] for action in actions]
    second = [batch.step(action[1:], [1]).observations[0] for action in actions]
    np.testing.assert_array_equal(np.array(together), np.stack([first, second], axis=1))


def test_a_lane_without_an_episode_is_not_stepped():
    batch = make_env_batch("SafetyPointGoal1-v0", 2)
    batch.reset(0, 0)
    with pytest.raises(DataError, match="SafetyPointGoal1-v0: step before reset, or after the end of the episode"):
        batch.step(np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"action of SafetyPointGoal1-v0: expected shape \(1, 2\), got \(2, 2\)"):
        batch.step(np.zeros((2, 2)), [0])


@pytest.mark.parametrize("name", ["SafetyPointGoal1-v0", "SafetyPointGoal2-v0"])
def test_what_lies_still_sleeps_and_wakes_to_the_last_bit(name):
    """A batch lets vases sleep until they are touched; one environment never does."""
    n_lanes, n_steps = 6, 300
    batch, environments = make_env_batch(name, n_lanes), [make_env(name) for _ in range(n_lanes)]
    start = [batch.reset(lane, lane) for lane in range(n_lanes)]
    for lane, env in enumerate(environments):
        np.testing.assert_array_equal(start[lane], env.reset(seed=lane)[0])
    vases = [env.data.qpos[3:].copy() for env in environments]
    n_asleep = 0
    rng = np.random.default_rng(1)
    for step in range(n_steps):
        actions = rng.uniform(-1.0, 1.0, (n_lanes, 2))
        actions[::2] = [drive_at("vase0", env) for env in environments[::2]]
        transitions = batch.step(actions)
        n_asleep += sum(batch.builders[lane].task.data.ntree_awake == 1 for lane in range(n_lanes))
        for lane, env in enumerate(environments):
            observation, *rest, info = env.step(actions[lane])
            np.testing.assert_array_equal(transitions.observations[lane], observation, err_msg=f"{lane}, step {step}")
            assert rest[:2] == [transitions.rewards[lane], transitions.costs[lane]]
            assert info == {term: values[lane] for term, values in transitions.cost_terms.items()}
    moved = 0
    for lane, env in enumerate(environments):
        np.testing.assert_array_equal(batch.get_state(lane), env.get_state())
        moved += np.max(np.abs(env.data.qpos[3:] - vases[lane])) > 0.01
        env.close()
    assert moved > 0
    assert (n_asleep > 0) == hasattr(mujoco.mjtEnableBit, "mjENBL_SLEEP")


def test_a_lane_whose_state_is_looked_at_stays_awake():
    batch = make_env_batch("SafetyPointGoal1-v0", 2)
    for lane in range(2):
        batch.reset(lane, 0)
    data = [builder.task.data for builder in batch.builders]
    for _ in range(60):
        batch.get_state(1)
        transitions = batch.step(np.zeros((2, 2)))
        np.testing.assert_array_equal(transitions.observations[0], transitions.observations[1])
    assert data[1].ntree_awake == 2
    assert data[0].ntree_awake == (1 if hasattr(mujoco.mjtEnableBit, "mjENBL_SLEEP") else 2)
    np.testing.assert_array_equal(batch.get_state(0), batch.get_state(1))


def drive_at(body: str, env) -> np.ndarray:
    robot = env.data.body("agent")
    x, y, _ = (env.data.body(body).xpos - robot.xpos) @ robot.xmat.reshape(3, 3)
    return np.array([0.7, np.clip(np.arctan2(y, x), -1.0, 1.0)])


def test_a_step_is_not_timed_unless_the_user_asks_for_it():
    batch = make_env_batch("SafetyPointGoal1-v0", 1)
    batch.reset(0, 0)
    timers = batch.data(0).timer.duration.copy()
    batch.step(np.zeros((1, 2)))
    np.testing.assert_array_equal(batch.data(0).timer.duration, timers)

    def clock() -> float:
        clock.calls += 1
        return float(clock.calls)

    clock.calls = 0
    mujoco.set_mjcb_time(clock)
    try:
        batch.step(np.zeros((1, 2)))
    finally:
        mujoco.set_mjcb_time(None)
    assert clock.calls > 0
    assert batch.data(0).timer.duration.sum() > timers.sum()


def test_cameras_and_shapes_that_touch_nothing_are_left_out_of_batches():
    batch, env = make_env_batch("SafetyPointGoal1-v0", 1), make_env("SafetyPointGoal1-v0")
    batch.reset(0, 0)
    env.reset(seed=0)
    model = batch.model(0)
    assert [model.geom(geom).name for geom in range(model.ngeom)] == ["floor", "agent", "pointarrow", "vase0"]
    assert (model.ncam, model.nlight) == (0, 0)
    assert (env.model.ngeom, env.model.ncam, env.model.nlight) == (13, 4, 1)
    np.testing.assert_array_equal(batch.get_state(0), env.get_state())


@pytest.mark.parametrize(
    ("own", "other", "in_order"),
    [
        (("sphere", "box"), ("cylinder",), True),  # 1-3, then 3-2: the box is the higher type
        (("box", "sphere"), ("cylinder",), False),  # 3-1, then 2-3, which sorts before
        (("box", "box"), ("box", "box"), True),
        (("box", "box"), ("sphere", "sphere"), False),  # 3-1, 4-1, 3-2, 4-2
    ],
)
def test_boxes_around_bodies_are_left_out_where_contacts_keep_their_order(own, other, in_order):
    def contacts(flags: int) -> list:
        model.opt.disableflags = flags
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        return data.contact.geom.tolist()

    model = mujoco.MjModel.from_xml_string(_touching(own, other))
    assert (_unneeded_stages(model) & MIDPHASE == MIDPHASE) == in_order
    assert (contacts(0) == contacts(MIDPHASE)) == in_order
    assert sorted(contacts(0)) == sorted(contacts(MIDPHASE)) != []


def _touching(*bodies) -> str:
    """Bodies in one place, each of geoms of these types; a plane to be geom 0."""
    geoms = ["".join(f'<geom type="{kind}" size=".1 .1 .1"/>' for kind in kinds) for kinds in bodies]
    return (
        '<mujoco><worldbody><geom type="plane" size="1 1 1" pos="0 0 -9"/>'
        + "".join(f'<body pos="0 0 {0.01 * place}"><freejoint/>{each}</body>' for place, each in enumerate(geoms))
        + "</worldbody></mujoco>"
    )


def test_meshes_that_are_only_looked_at_are_left_out_of_batches():
    batch, env = make_env_batch("SafetyRacecarGoal0-v0", 1), make_env("SafetyRacecarGoal0-v0")
    batch.reset(0, 0)
    env.reset(seed=0)
    assert (batch.model(0).nmesh, env.model.nmesh) == (1, 11)
    np.testing.assert_array_equal(batch.get_state(0), env.get_state())
    np.testing.assert_array_equal(batch.model(0).body_inertia, env.model.body_inertia)
