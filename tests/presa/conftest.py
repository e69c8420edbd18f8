"""A problem small enough to know its answer: two states, and three kinds of episode.

The state is -1 or +1 and the reward of an action a is ``a * state``. Reckless episodes act 0.9 * state and are unsafe,
good ones 0.4 * state, bad ones -0.4 * state; both are safe. So the safe and preferred action is 0.4 * state.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch

from feedbackgen.feedback import Feedback, Preferences, SafetyLabels, Segments
from feedbackgen.types import Trajectories
from presa.algorithms.presa import PreSaConfig
from presa.batch import learning_data
from presa.cloning import CloningConfig
from presa.policy import PolicyConfig
from presa.steps import ActionBox, steps_in_memory
from presa.training import fit
from presa.true_rewards import rewarded_data

LENGTH = 40  # steps of each episode
GAINS = np.array([0.9, 0.4, -0.4])  # reckless, good, bad


def make_trajectories(n_episodes: int = 60, seed: int = 0) -> Trajectories:
    rng = np.random.default_rng(seed)
    n_steps = n_episodes * LENGTH
    states = rng.choice([-1.0, 1.0], n_steps)
    gains = np.repeat(GAINS[np.arange(n_episodes) % 3], LENGTH)
    return Trajectories(
        observations=states[:, None],
        final_observations=np.ones((n_episodes, 1)),
        actions=(gains * states + 0.02 * rng.standard_normal(n_steps))[:, None],
        terminations=np.zeros(n_steps, dtype=bool),
        starts=np.arange(n_episodes + 1) * LENGTH,
    )


def make_feedback(n_episodes: int = 60, n_segments: int = 600, flip_rate: float = 0.0, seed: int = 0) -> Feedback:
    rng = np.random.default_rng(seed)
    episode = rng.integers(n_episodes, size=n_segments).astype(np.int32)
    gains = GAINS[episode % 3]
    pair = np.stack([np.arange(n_segments), rng.permutation(n_segments)], axis=1).astype(np.int32)
    label = np.where(gains[pair[:, 0]] == gains[pair[:, 1]], 0.5, gains[pair[:, 1]] > gains[pair[:, 0]])
    safe = np.where(gains > 0.7, -1, 1)
    flips = rng.random((2, n_segments)) < flip_rate
    return Feedback(
        segments=Segments(
            episode=episode,
            start=rng.integers(LENGTH - 16, size=n_segments).astype(np.int32),
            length=np.full(n_segments, 16, dtype=np.int32),
        ),
        preferences=Preferences(
            pair=pair,
            label=np.where(flips[0], 1 - label, label).astype(np.float32),
            annotator=np.zeros(n_segments, dtype=np.int32),
        ),
        safety=SafetyLabels(
            segment=np.arange(n_segments, dtype=np.int32),
            label=np.where(flips[1], -safe, safe).astype(np.int8),
            annotator=np.zeros(n_segments, dtype=np.int32),
        ),
        attributes={"task": "two-states"},
    )


@pytest.fixture
def trajectories():
    return make_trajectories()


@pytest.fixture
def feedback():
    return make_feedback()


@pytest.fixture
def noisy_feedback():
    return make_feedback(n_segments=1800, flip_rate=0.1)


@pytest.fixture
def data(trajectories, feedback):
    return learning_data(trajectories, feedback, np.array([-1.0]), np.array([1.0]))


@pytest.fixture
def noisy_data(trajectories, noisy_feedback):
    return learning_data(trajectories, noisy_feedback, np.array([-1.0]), np.array([1.0]))


@pytest.fixture
def small_config():
    """PreSa's default, small enough for a test."""
    cloning = CloningConfig(n_steps=300, batch_size=64, learning_rate=3e-3)
    return PreSaConfig(
        policy=PolicyConfig(hidden_sizes=(16,), encoding_bins=0),
        cloning=cloning,
        refining=cloning,
        n_steps=400,
        n_pairs=16,
        n_safety_segments=32,
        n_segment_steps=4,
    )


@pytest.fixture(autouse=True)
def one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def rewarded(trajectories):
    """The same problem with its true rewards ``a * state``; a step of a reckless episode costs 1, at most 10 may be."""
    states, actions = trajectories.observations, trajectories.actions
    box = ActionBox(low=np.array([-1.0]), high=np.array([1.0]))
    episodes = [slice(*bounds) for bounds in pairwise(trajectories.starts)]
    return rewarded_data(
        steps_in_memory(lambda: ((states[rows], actions[rows]) for rows in episodes), trajectories.n_steps, box),
        box,
        rewards=(actions * states)[:, 0],
        costs=((actions * states)[:, 0] > 0.65).astype(np.float64),
        final_observations=trajectories.final_observations,
        terminated=np.zeros(trajectories.n_episodes, dtype=bool),
        cost_limit=10.0,
        horizon=LENGTH,
    )


@pytest.fixture
def resumed(tmp_path):
    """Train, stop, and go on: the run, whose policy and metrics have to be those of an undisturbed one."""

    def train(data, config, provenance, stops=(600,)):
        undisturbed = fit(data, config, provenance, out=tmp_path / "undisturbed")
        for stop in stops:

            def interrupt(done, *_, stop=stop):
                if done == stop:
                    raise KeyboardInterrupt

            run = tmp_path / f"resumed-{stop}"
            with pytest.raises(KeyboardInterrupt):
                fit(data, config, provenance, out=run, progress=interrupt)
            fit(data, config, provenance, out=run, resume=True)
            for name in ("policy.safetensors", "metrics.csv"):
                assert (run / name).read_bytes() == (undisturbed / name).read_bytes()
        return run

    return train
