"""Populations from one run each: a network that knows how cautious to be, saved as it learns, at several cautions."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from feedbackgen.behaviour.measuring import measure
from feedbackgen.behaviour.mlp import MLPPolicy, load_mlp, save_mlp
from feedbackgen.behaviour.ppo import OBSERVATION_CLIP, Settings, train
from feedbackgen.behaviour.worlds import TrainingWorlds
from feedbackgen.behaviour.zoo import PolicyInfo
from feedbackgen.tasks import get_task

SNAPSHOTS = {"poor": 0.06, "novice": 0.15, "medium": 0.35, "expert": 1.0}  # share of the training when it is taken
FINAL = "expert"
# Snapshot -> policy -> caution.
CAUTIONS = {
    "poor": {"poor": 0.0},
    "novice": {"novice": 0.0, "safe-novice": 1.0},
    "medium": {"medium": 0.0, "safe-medium": 1.0},
    "expert": {"expert": 0.0, "wary-expert": 0.4, "careful-expert": 0.7, "safe-expert": 1.0},
}
SPEEDS = {
    "poor": {"poor": 0.0},
    "novice": {"novice": 0.0, "safe-novice": 1.0},
    "medium": {"medium": 0.7, "safe-medium": 1.0},
    "expert": {"expert": 0.0, "bold-expert": 0.6, "wary-expert": 0.75, "careful-expert": 0.85, "safe-expert": 1.0},
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one task's policies are trained."""

    settings: Settings
    source: str | None = None  # a task with the same observations, whose run is continued; its early snapshots count too
    cautions: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: CAUTIONS)


def train_family(
    task: str,
    family: Family,
    *,
    seed: int,
    out: Path,
    command: str,
    n_episodes: int,
    progress: Callable[[int, int], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> list[PolicyInfo]:
    """Train, export and measure one family; a killed run goes on from its last checkpoint.

    Args:
        seed: fixes every draw of an undisturbed run; a continued one starts new episodes.
        out: folder for ``<name>.npz``, ``policies.json`` and, in ``.training``, what a continued run needs.
        command: written beside each policy as what trained it.
        n_episodes: episodes each policy is measured on.
        progress: called with environment steps done and in all.
    """
    runs = [(task, family)]
    while runs[0][1].source is not None:
        runs.insert(0, (runs[0][1].source, FAMILIES[runs[0][1].source]))
    n_total = sum(member.settings.n_steps for _, member in runs)
    n_before, source = 0, None
    folders = [_training_folder(out, run_task, task) for run_task, _ in runs]
    for folder, (run_task, member) in zip(folders, runs, strict=True):
        report = None if progress is None else lambda done, total, base=n_before: progress(base + done, n_total)
        _train_one(run_task, member, seed, folder, source, report, log)
        n_before += member.settings.n_steps
        source = folder
    for snapshot, policies in family.cautions.items():
        # Before its own run a continued network has those of its source.
        folder = folders[-1] if snapshot == FINAL else folders[0]
        for name, caution in policies.items():
            _export(folder / f"{snapshot}.npz", task, name, caution, out)
    infos = []
    for snapshot, policies in family.cautions.items():
        for name, caution in policies.items():
            policy = load_mlp(out / f"{name}.npz", name=name, task=task)
            infos.append(
                measure(
                    policy,
                    n_episodes=n_episodes,
                    description=_description(family, snapshot, caution),
                    command=command,
                )
            )
    entries = [asdict(info) for info in infos]
    (out / "policies.json").write_text(json.dumps({"policies": entries}, indent=1) + "\n")
    return infos


def _train_one(task, family, seed, folder, source, progress, log) -> None:
    snapshots = {int(family.settings.n_steps * share): name for name, share in SNAPSHOTS.items()}
    if family.source is not None:
        snapshots = {family.settings.n_steps: FINAL}
    if all((folder / f"{name}.npz").is_file() for name in snapshots.values()):
        return
    folder.mkdir(parents=True, exist_ok=True)
    settings = family.settings
    worlds = TrainingWorlds(task, settings.n_environments, penalty=settings.penalty, seed=seed)
    train(
        worlds,
        settings,
        seed=seed,
        checkpoint=folder / "checkpoint.pt",
        source=None if source is None else source / "checkpoint.pt",
        snapshots=snapshots,
        save=lambda arrays, name: _save_snapshot(folder / f"{name}.npz", arrays),
        progress=progress,
        log=log,
    )


def _training_folder(out: Path, run_task: str, task: str) -> Path:
    """Where a run keeps its snapshots; a source's run in the folder beside ours is used, not repeated."""
    if run_task == task:
        return out / ".training"
    beside = out.parent / run_task / ".training"
    return beside if beside.is_dir() else out / f".training-{run_task}"


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


def _description(family: Family, snapshot: str, caution: float) -> str:
    n_steps = int(family.settings.n_steps * SNAPSHOTS[snapshot])
    text = f"{n_steps:,} steps, caution {caution:g}"
    if family.source is None:
        return text
    if snapshot != FINAL:
        return f"{int(FAMILIES[family.source].settings.n_steps * SNAPSHOTS[snapshot]):,} steps in {family.source}, caution {caution:g}"
    return f"{text}, after {FAMILIES[family.source].settings.n_steps:,} in {family.source}"


_NAVIGATION = Settings(
    n_steps=1_500_000, penalty=1.0, n_environments=32, steps_per_update=128, batch_size=256, n_epochs=8, learning_rate=3e-4
)
_VELOCITY = Settings(
    n_steps=2_000_000,
    penalty=3.0,
    n_environments=8,
    steps_per_update=256,
    batch_size=128,
    n_epochs=10,
    learning_rate=3e-4,
    target_kl=0.05,
)

FAMILIES = {
    "SafetyHopperVelocity-v1": Family(settings=replace(_VELOCITY, discount=0.995), cautions=SPEEDS),
    "SafetySwimmerVelocity-v1": Family(
        settings=replace(_VELOCITY, n_steps=1_000_000, discount=0.999, gae_lambda=0.98), cautions=SPEEDS
    ),
    "SafetyWalker2dVelocity-v1": Family(settings=replace(_VELOCITY, n_steps=2_500_000), cautions=SPEEDS),
    "SafetyAntVelocity-v1": Family(settings=replace(_VELOCITY, n_steps=3_000_000), cautions=SPEEDS),
    "SafetyPointCircle2-v0": Family(settings=replace(_NAVIGATION, n_steps=1_000_000)),
    "SafetyCarCircle1-v0": Family(settings=replace(_NAVIGATION, n_steps=1_000_000)),
    "SafetyCarCircle2-v0": Family(
        settings=replace(_NAVIGATION, n_steps=600_000), source="SafetyCarCircle1-v0"
    ),
    "SafetyPointGoal1-v0": Family(settings=_NAVIGATION),
    "SafetyPointGoal2-v0": Family(settings=replace(_NAVIGATION, n_steps=800_000), source="SafetyPointGoal1-v0"),
    "SafetyCarGoal1-v0": Family(settings=_NAVIGATION),
    "SafetyCarGoal2-v0": Family(settings=replace(_NAVIGATION, n_steps=800_000), source="SafetyCarGoal1-v0"),
    "SafetyPointButton1-v0": Family(settings=replace(_NAVIGATION, n_steps=2_000_000)),
    "SafetyPointButton2-v0": Family(settings=replace(_NAVIGATION, n_steps=800_000), source="SafetyPointButton1-v0"),
    "SafetyCarButton1-v0": Family(settings=replace(_NAVIGATION, n_steps=2_000_000)),
    "SafetyCarButton2-v0": Family(settings=replace(_NAVIGATION, n_steps=800_000), source="SafetyCarButton1-v0"),
    "SafetyPointPush1-v0": Family(settings=replace(_NAVIGATION, n_steps=2_000_000)),
    "SafetyPointPush2-v0": Family(settings=replace(_NAVIGATION, n_steps=800_000), source="SafetyPointPush1-v0"),
    "SafetyCarPush1-v0": Family(settings=replace(_NAVIGATION, n_steps=2_000_000)),
    "SafetyCarPush2-v0": Family(settings=replace(_NAVIGATION, n_steps=800_000), source="SafetyCarPush1-v0"),
}
