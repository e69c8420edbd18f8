"""Where evaluation episodes start, and that each is played as if alone."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from feedbackgen.environments import make_env
from feedbackgen.errors import RecipeError
from feedbackgen.rollout import rollout
from feedbackgen.seeding import derived_seed
from presa import evaluation
from presa.acting import load_any_policy, save_any_policy
from presa.evaluation import N_CANDIDATES, evaluate, stratified_seeds
from presa.transformer import DecisionTransformer

CIRCLE = "SafetyPointCircle1-v0"
N_EPISODES = 16


def start_of(env, seed):
    """Direction from the origin and heading, by the simulator's joint positions."""
    env.reset(seed=seed)
    robot = env.data.body("agent").id
    x, y, _ = env.data.xpos[robot]
    matrix = env.data.xmat[robot].reshape(3, 3)
    return np.arctan2(y, x), np.arctan2(matrix[1, 0], matrix[0, 0])


@pytest.mark.simulator
def test_stratified_starts_are_one_from_each_of_equally_likely_strata():
    seeds = stratified_seeds(CIRCLE, N_EPISODES, seed=5)
    env = make_env(CIRCLE)
    drawn = [derived_seed(5, "evaluation", index) for index in range(N_CANDIDATES * N_EPISODES)]
    starts = np.array([start_of(env, seed) for seed in drawn])
    kept = [drawn.index(seed) for seed in seeds]
    assert len(set(kept)) == N_EPISODES
    # Four sectors of equally many starts, and in each of them four ranges of headings.
    sector = starts[:, 0].argsort().argsort() // (4 * N_CANDIDATES)
    for one in range(4):
        members = np.flatnonzero(sector == one)
        quarter = starts[members, 1].argsort().argsort() // N_CANDIDATES
        chosen = {int(quarter[np.flatnonzero(members == index)[0]]): index for index in kept if sector[index] == one}
        assert sorted(chosen) == [0, 1, 2, 3]
        # Within a stratum the first that was drawn, so neither its seed nor its place decides.
        assert all(index == members[quarter == stratum].min() for stratum, index in chosen.items())


@pytest.mark.simulator
def test_any_number_of_stratified_starts_can_be_had_and_the_seed_decides():
    for n_episodes in (1, 2, 7):
        assert len(set(stratified_seeds(CIRCLE, n_episodes, seed=0))) == n_episodes
    assert stratified_seeds(CIRCLE, 3, seed=0) == stratified_seeds(CIRCLE, 3, seed=0)
    assert stratified_seeds(CIRCLE, 3, seed=0) != stratified_seeds(CIRCLE, 3, seed=1)


def test_a_task_without_a_robot_in_the_plane_has_no_such_starts():
    with pytest.raises(RecipeError, match="SafetyHopperVelocity-v1: stratified starts need a robot in the plane"):
        stratified_seeds("SafetyHopperVelocity-v1", 10, seed=0)


@pytest.mark.simulator
def test_a_policy_that_remembers_plays_side_by_side_the_episodes_that_it_plays_alone(tmp_path):
    network = DecisionTransformer(28, 2, n_times=500, context=3, n_units=8, n_layers=1, n_heads=2, seed=0)
    network.target.copy_(torch.tensor([25.0, 40.0]))
    with torch.no_grad():
        network.action_head.weight.mul_(50)
    ones = np.ones(28)
    box = SimpleNamespace(
        observation_mean=0 * ones, observation_std=ones, action_low=-np.ones(2), action_high=np.ones(2)
    )
    save_any_policy(tmp_path / "policy.safetensors", network, box, task=CIRCLE, method="cdt")
    (tmp_path / "provenance.json").write_text(json.dumps({"task": CIRCLE, "cost_limit": 25.0}))
    together = evaluate(tmp_path, n_episodes=3)
    shared = evaluate(tmp_path, n_episodes=3, workers=2)
    assert (together.returns, together.cost_returns) == (shared.returns, shared.cost_returns)
    env = make_env(CIRCLE)
    alone = [
        rollout(env, load_any_policy(tmp_path), seed=seed, rng=np.random.default_rng(0))
        for seed in together.reset_seeds
    ]
    assert together.returns == [episode.return_ for episode in alone]
    assert len(set(together.returns)) == 3


def test_a_policy_that_observes_is_told_of_the_steps_that_are_filmed(monkeypatch, tmp_path):
    told, frames = [], []
    policy = SimpleNamespace(act=lambda *_: np.zeros(1), observe=lambda reward, cost: told.append((reward, cost)))
    steps = iter([(0, 1.0, 0.0, False, False, {}), (0, -2.0, 3.0, False, True, {})])
    env = SimpleNamespace(
        reset=lambda seed: (0, {}), step=lambda action: next(steps), render=lambda: "frame", close=lambda: None
    )
    monkeypatch.setattr(evaluation, "load_any_policy", lambda run: policy)
    monkeypatch.setattr(evaluation, "make_env", lambda task: env)
    monkeypatch.setattr(evaluation, "write_video", lambda shown, path: frames.extend(shown))
    evaluation._film(tmp_path, CIRCLE, 0, tmp_path / "film.mp4")
    assert told == [(1.0, 0.0), (-2.0, 3.0)]
    assert frames == ["frame"] * 2


WATCH = """
import sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            print("feedbackgen.arithmetic" in sys.modules)

sys.meta_path.insert(0, Watch())
import presa.evaluation
"""


def test_whoever_evaluates_first_has_numpys_arithmetic_chosen_before_numpy_comes():
    shown = subprocess.run([sys.executable, "-c", WATCH], check=True, capture_output=True, text=True)
    assert shown.stdout == "True\n"
