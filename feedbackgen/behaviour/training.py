"""Train a population for one task: a reckless run with snapshots, and penalised branches from its middle.

Source: proximal policy optimisation by Stable-Baselines3 (extra ``zoo``). A branch continues a snapshot on
``reward - penalty * cost`` with the penalty fixed: multipliers that grow without a cap destroyed the return.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from feedbackgen.behaviour.measuring import measure
from feedbackgen.behaviour.mlp import MLPPolicy, load_mlp, save_mlp
from feedbackgen.behaviour.zoo import PolicyInfo, claim, write_index
from feedbackgen.environments import make_env, make_env_batch
from feedbackgen.errors import MissingDependency
from feedbackgen.seeding import derived_seed
from feedbackgen.tasks import get_task

N_ENVIRONMENTS = 8
STEPS_PER_UPDATE = 256  # of each environment
N_MEASURED_TOGETHER = 10


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A run on the penalised reward; its snapshots are shipped under the names given."""

    source: str | None  # the snapshot it continues; None starts afresh
    penalty: float  # reward per unsafe step
    snapshots: dict[str, int]  # policy name -> environment steps of this branch


@dataclass(frozen=True, kw_only=True)
class Population:
    """How one task's policies are trained."""

    branches: tuple[Branch, ...]
    discount: float = 0.99
    learning_rate: float = 3e-4
    entropy_bonus: float = 0.0
    hidden: tuple[int, ...] = (64, 64)


POPULATIONS = {
    "SafetyPointCircle1-v0": Population(
        branches=(
            Branch(source=None, penalty=0.0, snapshots={"poor": 60_000, "medium": 200_000, "expert": 1_000_000}),
            Branch(source="medium", penalty=0.2, snapshots={"careful-medium": 100_000, "careful-expert": 500_000}),
            Branch(source="medium", penalty=1.0, snapshots={"safe-poor": 600_000}),
            Branch(source="safe-poor", penalty=1.0, snapshots={"safe-medium": 300_000, "safe-expert": 800_000}),
            Branch(source="safe-poor", penalty=0.3, snapshots={"wary-expert": 500_000}),
        ),
    ),
    "SafetyHalfCheetahVelocity-v1": Population(
        branches=(
            Branch(
                source=None,
                penalty=0.0,
                snapshots={"poor": 150_000, "novice": 300_000, "medium": 500_000, "expert": 2_000_000},
            ),
            Branch(source="medium", penalty=4.0, snapshots={"careful-medium": 200_000, "careful-expert": 800_000}),
            Branch(source="medium", penalty=12.0, snapshots={"safe-medium": 200_000, "safe-expert": 800_000}),
        ),
    ),
}


def train_branches(
    task: str,
    *,
    seed: int,
    out: Path,
    command: str,
    progress: Callable[[int, int], None] | None = None,
    n_episodes: int = 50,
) -> list[PolicyInfo]:
    """Train, measure and write every policy of a task's population.

    A policy whose weight file is already in ``out`` is kept, so a killed run goes on with the next branch.

    Args:
        task: a task in POPULATIONS.
        seed: fixes every draw; the same seed on the same machine and versions gives the same weights.
        out: folder for ``<name>.npz`` and ``policies.json``.
        command: written beside each policy as what trained it.
        progress: called with environment steps done and in all.
        n_episodes: episodes each policy's quality is measured on.

    Raises:
        PolicyError: the folder holds a training with another seed.
        MissingDependency: the extra ``zoo`` is not installed.
    """
    population = POPULATIONS[task]
    branches = population.branches
    claim(out / ".training", task, seed)
    horizon = get_task(task).horizon
    n_total = sum(max(branch.snapshots.values()) + horizon * n_episodes * len(branch.snapshots) for branch in branches)
    n_done = 0
    for index, branch in enumerate(branches):
        if not all((out / f"{name}.npz").is_file() for name in branch.snapshots):
            _train_branch(
                task, population, branch, derived_seed(seed, "population", index), out, n_done, n_total, progress
            )
        n_done += max(branch.snapshots.values())
    batch = make_env_batch(task, N_MEASURED_TOGETHER)
    infos = []
    for branch in branches:
        for name, n_steps in branch.snapshots.items():
            description = f"{n_steps:,} steps at {branch.penalty:g} reward per unsafe step"
            if branch.source:
                description += f", from {branch.source}"
            policy = load_mlp(out / f"{name}.npz", name=name, task=task)
            infos.append(measure(batch, policy, n_episodes=n_episodes, description=description, command=command))
            n_done += horizon * n_episodes
            if progress:
                progress(n_done, n_total)
    write_index(out, infos)
    return infos


def _train_branch(task, population, branch, seed, out, n_done, n_total, progress) -> None:
    try:
        import gymnasium
        import torch
        from stable_baselines3 import PPO
        from stable_baselines3.common.callbacks import BaseCallback
        from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
    except ImportError as error:
        raise MissingDependency(
            f"training behaviour policies needs {error.name}: pip install 'feedbackgen[zoo]'"
        ) from error

    class Penalised(gymnasium.Env):
        """The task with ``reward - penalty * cost`` and Gymnasium's five values."""

        def __init__(self, index):
            self.env = make_env(task)
            self.index = index
            self.n_episodes = 0
            self.observation_space = self.env.observation_space
            self.action_space = self.env.action_space

        def reset(self, *, seed=None, options=None):
            # Upstream starts every unseeded episode alike; name each one.
            self.n_episodes += 1
            return self.env.reset(seed=derived_seed(seed_of_run, "train", self.index, self.n_episodes))

        def step(self, action):
            observation, reward, cost, terminated, truncated, info = self.env.step(np.float64(action))
            return observation, reward - branch.penalty * cost, terminated, truncated, info

    class Snapshots(BaseCallback):
        """Writes each snapshot when its number of steps is reached, and reports progress."""

        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            if progress:
                progress(n_done + min(self.num_timesteps, n_steps), n_total)
            for name, at in branch.snapshots.items():
                if self.num_timesteps >= at and not (out / f"{name}.npz").is_file():
                    _save(self.model, environments, task, name, out)

    seed_of_run = seed
    n_steps = max(branch.snapshots.values())
    torch.set_num_threads(1)
    environments = VecNormalize(
        DummyVecEnv([partial(Penalised, index) for index in range(N_ENVIRONMENTS)]),
        gamma=population.discount,
    )
    if branch.source:
        source = out / f".{branch.source}.training"
        environments = VecNormalize.load(str(source / "normaliser.pkl"), environments.venv)
        model = PPO.load(source / "model.zip", env=environments, seed=seed, device="cpu")
    else:
        model = PPO(
            "MlpPolicy",
            environments,
            n_steps=STEPS_PER_UPDATE,
            batch_size=256,
            n_epochs=10,
            gamma=population.discount,
            learning_rate=population.learning_rate,
            ent_coef=population.entropy_bonus,
            policy_kwargs={"net_arch": list(population.hidden), "log_std_init": -0.5},
            seed=seed,
            device="cpu",
        )
    model.learn(n_steps, callback=Snapshots(), reset_num_timesteps=True)
    for name in branch.snapshots:
        if not (out / f"{name}.npz").is_file():
            _save(model, environments, task, name, out)
    environments.close()


def _save(model, environments, task: str, name: str, out: Path) -> None:
    """The weight file, and beside it what a branch needs to go on from here."""
    folder = out / f".{name}.training"
    folder.mkdir(exist_ok=True)
    model.save(folder / "model.zip")
    environments.save(str(folder / "normaliser.pkl"))
    layers = [*model.policy.mlp_extractor.policy_net[::2], model.policy.action_net]
    statistics = environments.obs_rms
    policy = MLPPolicy(
        name=name,
        task=task,
        weights=[layer.weight.detach().numpy().T for layer in layers],
        biases=[layer.bias.detach().numpy() for layer in layers],
        activation="tanh",
        observation_mean=statistics.mean,
        observation_std=np.sqrt(statistics.var + environments.epsilon),
        observation_clip=environments.clip_obs,
        action_std=np.exp(model.policy.log_std.detach().numpy()),
        action_low=model.action_space.low,
        action_high=model.action_space.high,
    )
    save_mlp(policy, out / f"{name}.npz")
