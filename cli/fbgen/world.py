"""``fbgen tasks``, ``fbgen policies``, ``fbgen doctor``: what there is."""

from pathlib import Path
from typing import Annotated

import typer

from fbgen.show import print_json, print_pairs, print_table, progress_bar, say

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def tasks(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show one task in detail.")] = None,
    as_json: Json = False,
) -> None:
    """List the tasks, or show one in detail."""
    from dataclasses import asdict

    from feedbackgen.tasks import TASKS, get_task

    chosen = [get_task(name)] if name else list(TASKS.values())
    if as_json:
        print_json({"tasks": [{**asdict(task), "gymnasium_id": task.gymnasium_id} for task in chosen]})
        return
    if name is None:
        columns = ("task", "suite", "observations", "actions", "steps", "cost limits")
        rows = [
            (task.name, task.suite, task.observation_dim, task.action_dim, task.horizon, _numbers(task.cost_limits))
            for task in chosen
        ]
        print_table(columns, rows)
        return
    task = chosen[0]
    pairs: dict[str, object] = {
        "task": task.name,
        "Gymnasium id": task.environment or f"{task.gymnasium_id}  (after `import feedbackgen`)",
        "suite": task.suite,
        "robot": task.robot,
        "observation": f"{task.observation_dim} numbers",
        "action": f"{task.action_dim} numbers, from {_numbers(task.action_low)} to {_numbers(task.action_high)}",
        "horizon": f"{task.horizon} steps",
        "cost": task.cost_meaning,
        "cost limit": f"{task.default_cost_limit:g} an episode; the field also reports {_numbers(task.cost_limits)}",
    }
    if task.dsrl is not None:
        pairs["DSRL"] = (
            f"{task.dsrl.file}: {task.dsrl.n_episodes} episodes, returns {task.dsrl.return_min:g} to "
            f"{task.dsrl.return_max:g}, costs up to {task.dsrl.cost_max:g}"
        )
    print_pairs(pairs)


class _TaskOrCommand(typer.core.TyperGroup):
    """`fbgen policies TASK` lists a task's policies; `fbgen policies train TASK` trains them."""

    def resolve_command(self, ctx, args):
        if args and args[0] not in self.commands:
            return "list", self.commands["list"], args
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx, args):
        # Options before a task, and no task at all, mean the list too.
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


policies = typer.Typer(cls=_TaskOrCommand, help="List the policies that ship, or train anew.")


@policies.command("list")
def list_policies(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="Only this task's policies.")] = None,
    as_json: Json = False,
) -> None:
    """List shipped policies with their measured return and cost: `fbgen policies [TASK]`."""
    from dataclasses import asdict

    from feedbackgen.behaviour import list_policies as shipped
    from feedbackgen.behaviour.zoo import HOW_TO_MAKE

    infos = shipped(task)
    if as_json:
        entries = [{"return": info.return_, "cost": info.cost_return, **asdict(info)} for info in infos]
        print_json({"policies": entries})
        return
    if not infos:
        say(f"{task} ships no policies yet: use `random`; {HOW_TO_MAKE}")
        return
    rows = [
        (
            info.task,
            info.name,
            f"{info.return_:.1f} ± {info.return_std:.1f}",
            f"{info.cost_return:.1f} ± {info.cost_std:.1f}",
            f"{info.safe_share:.0%}",
            info.description,
        )
        for info in infos
    ]
    print_table(("task", "policy", "return", "cost", "safe", "trained"), rows)
    say(
        "± is one standard deviation of episodes; `random` acts on every task; NAME+noise=0.3, NAME+epsilon=0.1 perturb"
    )


@policies.command("train")
def train_policies(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task with a training plan.")],
    seed: Annotated[int, typer.Option(min=0, help="Fixes every draw.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the weights; default policies/TASK.")] = None,
    show_progress: Annotated[bool | None, typer.Option("--progress/--no-progress", "-P")] = None,
) -> None:
    """Train, measure and write a task's population; an interrupted run goes on where it was."""
    from feedbackgen.behaviour.populations import train_population

    folder = out or Path("policies") / task
    with progress_bar("training", show_progress) as progress:
        infos = train_population(task, seed=seed, out=folder, progress=progress)
    print_table(
        ("policy", "return", "cost"), [(info.name, f"{info.return_:.1f}", f"{info.cost_return:.1f}") for info in infos]
    )
    say(f"weights in {folder}; use one with --policy {folder}/NAME.npz")


def doctor() -> None:
    """Say what is installed, and where datasets live."""
    import os
    from importlib.util import find_spec

    from feedbackgen.episodes import datasets_root
    from feedbackgen.provenance import versions

    parts = {
        "sim": ("mujoco", "safety_gymnasium", "xmltodict"),
        "train": ("torch", "safetensors", "tensorboard"),
        "wandb": ("wandb",),
        "bullet": ("pybullet", "bullet_safety_gym"),
        "zoo": ("stable_baselines3",),
        "plot": ("matplotlib",),
        "ray": ("ray",),
        "video": ("imageio", "imageio_ffmpeg"),
    }
    packages = ("feedbackgen", "numpy", "gymnasium", "minari", "zarr", "mujoco", "safety-gymnasium", "torch")
    pairs: dict[str, object] = {**versions(packages)}
    for extra, modules in parts.items():
        missing = [module for module in modules if find_spec(module) is None]
        pairs[f"extra {extra}"] = f"missing {', '.join(missing)}" if missing else "installed"
    pairs["datasets"] = datasets_root()
    pairs["MUJOCO_GL"] = os.environ.get("MUJOCO_GL", "not set (egl is tried without a display)")
    print_pairs(pairs)


def _numbers(values) -> str:
    distinct = dict.fromkeys(values)
    return ", ".join(f"{value:g}" for value in distinct)
