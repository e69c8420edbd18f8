"""One episode of one behaviour policy."""

import numpy as np

from feedbackgen.behaviour.policies import BehaviourPolicy
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
        policy: acts on each observation.
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
    terminated = truncated = False
    while not (terminated or truncated):
        # What is stored is what was acted: the action in the precision of the action space.
        action = np.asarray(policy.act(observation, rng), dtype=env.action_space.dtype)
        observation, reward, cost, terminated, truncated, info = env.step(action)
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
