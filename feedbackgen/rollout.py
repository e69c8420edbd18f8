"""Whole episodes of behaviour policies: one, or many side by side."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from feedbackgen.behaviour.policies import BatchPolicy, BehaviourPolicy
from feedbackgen.errors import DataError, FeedbackgenError
from feedbackgen.types import Episode, FloatArray


def rollout(
    env,
    policy: BehaviourPolicy,
    *,
    seed: int,
    rng: np.random.Generator,
    max_steps: int | None = None,
    record_states: bool = False,
) -> Episode:
    """Play one whole episode.

    Args:
        env: see `feedbackgen.environments.make_env`.
        policy: acts on each observation; told each step's reward and cost, if it has ``observe(reward, cost)``.
        seed: given to reset.
        rng: the policy's own randomness.
        max_steps: truncate the episode after so many, should it last longer.
        record_states: keep the simulator state before each step and after the last.

    Raises:
        DataError: the environment returned values that are not finite, or the policy an action that is not.
    """
    observation, _ = env.reset(seed=seed)
    observations: list[FloatArray] = [observation]
    actions: list[FloatArray] = []
    rewards, costs, terms = [], [], []
    states = [env.get_state()] if record_states else None
    observe = getattr(policy, "observe", None)
    terminated = truncated = False
    while not (terminated or truncated):
        # What is stored is what was acted: the action in the precision of the action space.
        action = np.asarray(policy.act(observation, rng), dtype=env.action_space.dtype)
        observation, reward, cost, terminated, truncated, info = env.step(action)
        if observe is not None:
            observe(reward, cost)
        truncated = truncated or len(actions) + 1 == max_steps
        observations.append(observation)
        actions.append(action)
        rewards.append(reward)
        costs.append(cost)
        terms.append([info[name] for name in env.cost_terms])
        if states is not None:
            states.append(env.get_state())
    n_steps = len(actions)
    last = np.arange(n_steps) == n_steps - 1
    return Episode(
        observations=np.array(observations),
        actions=np.array(actions),
        rewards=np.array(rewards),
        costs=np.array(costs),
        cost_terms=dict(zip(env.cost_terms, np.array(terms, dtype=np.float64).T, strict=True))
        if env.cost_terms
        else {},
        terminations=last & terminated,
        truncations=last & truncated,
        seed=seed,
        policy=policy.name,
        states=None if states is None else np.array(states),
    )


@dataclass(frozen=True, kw_only=True)
class Start:
    """How an episode begins, and who acts in it."""

    policy: BatchPolicy  # for this episode alone if it has ``observe(reward, cost)``, by which it is told of each step
    seed: int  # given to reset
    rng: np.random.Generator  # the policy's own randomness


# Yields how its next episode starts, and is sent that episode when it has ended.
Lane = Generator[Start, Episode, None]


def play(batch, lanes: Sequence[Lane], *, max_steps: int | None = None, record_states: bool = False) -> None:
    """Play the episodes of all lanes side by side, until none has another; each has the bits of `rollout`.

    Args:
        batch: at least as many environments as there are lanes, see `feedbackgen.environments.make_env_batch`.
        lanes: what is played, and what becomes of it.
        max_steps: truncate episodes after so many, should they last longer.
        record_states: keep the simulator state before each step and after the last.

    Raises:
        DataError: the simulator failed, or values that are not finite came up.
    """
    tracks: dict[int, _Track] = {}  # of the lanes that still play, by the index of their environment

    def begin(index: int, start: Start) -> None:
        with _named_failure(batch.task, [(start, 0)]):
            observation = batch.reset(index, start.seed)
            state = batch.get_state(index) if record_states else None
        tracks[index] = _Track(start, batch, observation, state, max_steps)

    for index, lane in enumerate(lanes):
        start = next(lane, None)
        if start is not None:
            begin(index, start)
    while tracks:
        indices, playing = list(tracks), list(tracks.values())
        actions = _act_together(playing).astype(batch.action_space.dtype)
        _require_finite_actions(playing, actions)
        with _named_failure(batch.task, [(track.start, track.n_steps) for track in playing]):
            observations, rewards, costs, terminated, truncated, terms = batch.step(actions, indices)
            states = [batch.get_state(index) if record_states else None for index in indices]
        for row, (index, track) in enumerate(zip(indices, playing, strict=True)):
            track.record(actions[row], observations[row], rewards[row], costs[row], states[row])
            for name, values in terms.items():
                track.terms[name][track.n_steps - 1] = values[row]
            cut = truncated[row] or track.n_steps == max_steps
            if terminated[row] or cut:
                del tracks[index]
                try:
                    start = lanes[index].send(_episode(batch.task, track, bool(terminated[row]), bool(cut)))
                except StopIteration:
                    continue
                begin(index, start)


class _Track:
    """What one episode has come to so far."""

    def __init__(self, start: Start, batch, observation: FloatArray, state: FloatArray | None, max_steps: int | None):
        n_steps = min(batch.horizon, max_steps or batch.horizon)
        self.start, self.n_steps, self.observation = start, 0, observation
        self.observe = getattr(start.policy, "observe", None)
        self.observations = np.empty((n_steps + 1, len(observation)), dtype=observation.dtype)
        self.observations[0] = observation
        self.actions = np.empty((n_steps, *batch.action_space.shape), dtype=batch.action_space.dtype)
        self.rewards, self.costs = np.empty(n_steps), np.empty(n_steps)
        self.terms = {name: np.empty(n_steps) for name in batch.cost_terms}
        self.states = None if state is None else np.empty((n_steps + 1, len(state)))
        if self.states is not None:
            self.states[0] = state

    def record(self, action, observation, reward, cost, state) -> None:
        step = self.n_steps
        self.actions[step], self.rewards[step], self.costs[step] = action, reward, cost
        self.n_steps = step + 1
        self.observations[step + 1] = self.observation = observation
        if self.observe is not None:
            self.observe(reward, cost)
        if self.states is not None:
            self.states[step + 1] = state

    def episode(self, terminated: bool, truncated: bool) -> Episode:
        n_steps = self.n_steps
        last = np.arange(n_steps) == n_steps - 1
        return Episode(
            observations=self.observations[: n_steps + 1],
            actions=self.actions[:n_steps],
            rewards=self.rewards[:n_steps],
            costs=self.costs[:n_steps],
            cost_terms={name: values[:n_steps] for name, values in self.terms.items()},
            terminations=last & terminated,
            truncations=last & truncated,
            seed=self.start.seed,
            policy=self.start.policy.name,
            states=None if self.states is None else self.states[: n_steps + 1],
        )


def _act_together(playing: list[_Track]) -> FloatArray:
    """Actions of all lanes, (n, A): one pass of each policy over the lanes it acts in."""
    rows_of: dict[int, list[int]] = {}
    for row, track in enumerate(playing):
        rows_of.setdefault(id(track.start.policy), []).append(row)
    observations = np.array([track.observation for track in playing])
    actions: list = [None] * len(playing)
    for rows in rows_of.values():
        policy = playing[rows[0]].start.policy
        acted = policy.act_together(observations[rows], [playing[row].start.rng for row in rows])
        for row, action in zip(rows, acted, strict=True):
            actions[row] = action
    return np.array(actions)


def _require_finite_actions(playing: list[_Track], actions: FloatArray) -> None:
    for row in np.flatnonzero(~np.isfinite(actions).all(axis=1))[:1]:
        track = playing[row]
        raise DataError(
            f"policy {track.start.policy.name}: its action at step {track.n_steps} of an episode "
            f"(reset seed {track.start.seed}) is not finite; train it again, or leave it out"
        )


def _episode(task: str, track: _Track, terminated: bool, truncated: bool) -> Episode:
    try:
        return track.episode(terminated, truncated)
    except DataError as error:
        start = track.start
        raise DataError(f"{task}, an episode of {start.policy.name} (reset seed {start.seed}): {error}") from error


@contextmanager
def _named_failure(task: str, playing: list[tuple[Start, int]]) -> Iterator[None]:
    try:
        yield
    except FeedbackgenError:
        raise
    except Exception as error:  # simulators raise whatever they like, upstream an UnboundLocalError among others
        places = [f"{start.policy.name} (reset seed {start.seed}, step {step})" for start, step in playing[:3]]
        places += [f"{len(playing) - 3} more"] if len(playing) > 3 else []
        raise DataError(
            f"{task}: the simulator failed in an episode of {' or '.join(places)}: {type(error).__name__}: {error}; "
            "finished episodes are kept for --resume, which fails here again; use another --seed or other policies"
        ) from error
