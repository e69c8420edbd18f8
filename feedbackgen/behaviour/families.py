"""Populations of the velocity tasks: one run each of a network that knows how cautious to be, saved as it learns."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feedbackgen.behaviour.measuring import measure
from feedbackgen.behaviour.mlp import MLPPolicy, load_mlp, save_mlp
from feedbackgen.behaviour.ppo import OBSERVATION_CLIP, Settings, train
from feedbackgen.behaviour.worlds import TrainingWorlds
from feedbackgen.behaviour.zoo import PolicyInfo, claim, write_index
from feedbackgen.environments import make_env_batch
from feedbackgen.tasks import get_task

SNAPSHOTS = {
    "poor": 0.06,
    "novice": 0.15,
    "medium": 0.35,
    "expert": 0.7,
}  # shares of the schedule; training stops there
N_MEASURED_TOGETHER = 10


@dataclass(frozen=True, kw_only=True)
class Member:
    """A policy: a network as it was at a snapshot, with its caution fixed."""

    snapshot: str
    caution: float  # in [0, 1]


MEMBERS = {
    "poor": Member(snapshot="poor", caution=0.0),
    "novice": Member(snapshot="novice", caution=0.0),
    "medium": Member(snapshot="medium", caution=0.0),
    "safe-medium": Member(snapshot="medium", caution=1.0),
    "reckless-expert": Member(snapshot="expert", caution=0.0),
    "expert": Member(snapshot="expert", caution=0.4),
    "daring-expert": Member(snapshot="expert", caution=0.5),
    "brave-expert": Member(snapshot="expert", caution=0.6),
    "careful-expert": Member(snapshot="expert", caution=0.7),
    "wary-expert": Member(snapshot="expert", caution=0.85),
    "safe-expert": Member(snapshot="expert", caution=1.0),
}


def _settings(schedule: int) -> Settings:
    return Settings(
        n_steps=int(schedule * SNAPSHOTS["expert"]),
        schedule=schedule,
        penalty=3.0,
        n_environments=8,
        steps_per_update=256,
        batch_size=128,
        n_epochs=10,
        learning_rate=3e-4,
        target_kl=0.05,
    )


FAMILIES = {
    "SafetyAntVelocity-v1": _settings(3_000_000),
    "SafetyHopperVelocity-v1": _settings(2_000_000),
    "SafetyWalker2dVelocity-v1": _settings(2_000_000),
}


def train_family(
    task: str,
    *,
    seed: int,
    out: Path,
    command: str,
    progress: Callable[[int, int], None] | None = None,
    n_episodes: int = 50,
    settings: Settings | None = None,
) -> list[PolicyInfo]:
    """Train, export and measure one family; a killed run goes on from its last checkpoint, to the same bytes.

    Args:
        seed: fixes every draw.
        out: folder for ``<name>.npz``, ``policies.json`` and, in ``.training``, what a continued run needs.
        command: written beside each policy as what trained it.
        progress: called with environment steps done and in all.
        n_episodes: episodes each policy is measured on.
        settings: of the training; by default those planned for the task.

    Raises:
        PolicyError: no plan for the task, or the folder holds a training with another seed.
        MissingDependency: torch is not installed.
    """
    if settings is None:
        settings = FAMILIES[task]
    folder = out / ".training"
    claim(folder, task, seed)
    horizon = get_task(task).horizon
    n_total = settings.n_steps + horizon * n_episodes * len(MEMBERS)
    worlds = TrainingWorlds(task, settings.n_environments, penalty=settings.penalty, seed=seed)
    train(
        worlds,
        settings,
        seed=seed,
        checkpoint=folder / "checkpoint.pt",
        snapshots={int(settings.schedule * share): name for name, share in SNAPSHOTS.items()},
        save=lambda arrays, name: _save_snapshot(folder / f"{name}.npz", arrays),
        progress=None if progress is None else lambda done, _: progress(done, n_total),
    )
    batch = make_env_batch(task, N_MEASURED_TOGETHER)
    infos = []
    for name, member in MEMBERS.items():
        _export(folder / f"{member.snapshot}.npz", task, name, member.caution, out)
        n_steps = int(settings.schedule * SNAPSHOTS[member.snapshot])
        policy = load_mlp(out / f"{name}.npz", name=name, task=task)
        description = f"{n_steps:,} steps, caution {member.caution:g}"
        infos.append(measure(batch, policy, n_episodes=n_episodes, description=description, command=command))
        if progress:
            progress(settings.n_steps + horizon * n_episodes * len(infos), n_total)
    write_index(out, infos)
    return infos


def _save_snapshot(path: Path, arrays: dict) -> None:
    values = {name: arrays[name] for name in ("observation_mean", "observation_std", "action_std")}
    for layer, (weight, bias) in enumerate(zip(arrays["weights"], arrays["biases"], strict=True)):
        values |= {f"weight_{layer}": weight, f"bias_{layer}": bias}
    np.savez(path, **values)


def _export(snapshot: Path, task: str, name: str, caution: float, out: Path) -> None:
    """Fix the caution: its row of the first layer becomes part of the bias."""
    known = get_task(task)
    with np.load(snapshot) as file:
        n_layers = sum(key.startswith("weight_") for key in file)
        weights = [file[f"weight_{layer}"] for layer in range(n_layers)]
        biases = [file[f"bias_{layer}"] for layer in range(n_layers)]
        biases[0] = biases[0] + caution * weights[0][-1]
        weights[0] = weights[0][:-1]
        policy = MLPPolicy(
            name=name,
            task=task,
            weights=weights,
            biases=biases,
            activation="tanh",
            observation_mean=file["observation_mean"],
            observation_std=file["observation_std"],
            observation_clip=OBSERVATION_CLIP,
            action_std=file["action_std"],
            action_low=np.array(known.action_low),
            action_high=np.array(known.action_high),
        )
    save_mlp(policy, out / f"{name}.npz", half=True)
