"""``fbgen import``, ``fbgen export``: data and feedback from and to other people's formats."""

from pathlib import Path
from typing import Annotated

import typer

from fbgen.data import Force
from fbgen.show import print_pairs, say

FORMATS = "dsrl, omnisafe, cpl, imitation, uni-rlhf, preference-transformer, parquet, torch"
DatasetId = Annotated[str | None, typer.Option(help="Minari id to store it under.")]
Task = Annotated[str | None, typer.Option(help="The registry's or DSRL's name, or one of your own with --horizon.")]
Horizon = Annotated[int | None, typer.Option(help="Steps of an episode, for a task of your own.")]
CostLimit = Annotated[float | None, typer.Option(help="Per episode; default the task's.")]
DropTail = Annotated[bool, typer.Option("--drop-tail", help="Leave out steps after the last flag.")]

imports = typer.Typer(no_args_is_help=True, help="Make a dataset of another format's file.")


@imports.command("dsrl")
def import_dsrl(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An HDF5 file of DSRL's layout.")],
    task: Task = None,
    horizon: Horizon = None,
    cost_limit: CostLimit = None,
    dataset_id: DatasetId = None,
    drop_tail: DropTail = False,
    force: Force = False,
) -> None:
    """Import a DSRL file; its 38 names say which task it is.

    fbgen import dsrl SafetyPointCircle1Gymnasium-v0-200-1098.hdf5
    """
    from feedbackgen.interop.dsrl import import_dsrl as read
    from feedbackgen.interop.foreign import ForeignTask

    asked = ForeignTask(name=task, horizon=horizon, cost_limit=cost_limit)
    _show(read(file, asked, dataset_id=dataset_id, drop_tail=drop_tail, force=force))


@imports.command("minari")
def import_minari(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Minari id, or path.")],
    task: Annotated[str | None, typer.Option(help="What to call the task; default its environment.")] = None,
    horizon: Annotated[int | None, typer.Option(help="Steps of an episode; default the environment's.")] = None,
    cost: Annotated[str, typer.Option(help="Which of the infos tells each step's cost.")] = "cost",
    cost_limit: CostLimit = None,
    dataset_id: DatasetId = None,
    force: Force = False,
) -> None:
    """Import a dataset that Minari made; without costs it can be asked for preferences alone.

    fbgen import minari D4RL/pointmaze/umaze-v2
    """
    from feedbackgen.interop.foreign import ForeignTask
    from feedbackgen.interop.minari_datasets import import_minari as read

    asked = ForeignTask(name=task, horizon=horizon, cost_limit=cost_limit)
    _show(read(dataset, asked, cost=cost, dataset_id=dataset_id, force=force))


@imports.command("omnisafe")
def import_omnisafe(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An npz file of OmniSafe's layout.")],
    task: Task = None,
    horizon: Horizon = None,
    cost_limit: CostLimit = None,
    dataset_id: DatasetId = None,
    drop_tail: DropTail = False,
    force: Force = False,
) -> None:
    """Import an OmniSafe file; its name may begin with the task's.

    fbgen import omnisafe SafetyPointCircle1-v0_data.npz
    """
    from feedbackgen.interop.foreign import ForeignTask
    from feedbackgen.interop.omnisafe import import_omnisafe as read

    asked = ForeignTask(name=task, horizon=horizon, cost_limit=cost_limit)
    _show(read(file, asked, dataset_id=dataset_id, drop_tail=drop_tail, force=force))


@imports.command("cpl")
def import_cpl(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An npz file of CPL's old layout, with labels.")],
    task: Task = None,
    horizon: Horizon = None,
    dataset_id: DatasetId = None,
    force: Force = False,
) -> None:
    """Import preferences of CPL, IPL or WiseRL: segments become episodes, labels become feedback.

    fbgen import cpl preferences.npz --task SafetyPointCircle1-v0
    """
    from feedbackgen.interop.cpl import import_cpl as read
    from feedbackgen.interop.foreign import ForeignTask

    _show(read(file, ForeignTask(name=task, horizon=horizon), dataset_id=dataset_id, force=force))


def export(
    what: Annotated[str, typer.Argument(metavar="X", help="A dataset, or feedback: DATASET/NAME or a .zarr path.")],
    format_: Annotated[str, typer.Option("--format", help=f"One of {FORMATS}.")],
    out: Annotated[Path | None, typer.Option(help="File or folder to write; dsrl has one of its own.")] = None,
    python: Annotated[Path | None, typer.Option(help="Of imitation: the interpreter that has it.")] = None,
    force: Force = False,
) -> None:
    """Write a dataset or feedback in another format, with its conventions.

    fbgen export feedbackgen/SafetyPointCircle1-v0/mixed-v0 --format dsrl --out data.hdf5
    """
    from feedbackgen.interop.exports import export as write

    print(write(what, format_, out, python=python, force=force))


def _show(imported) -> None:
    info = imported.info
    for note in imported.notes:
        say(note)
    pairs: dict[str, object] = {
        "dataset": info.dataset_id,
        "path": info.path,
        "task": info.task,
        "episodes": info.n_episodes,
        "steps": info.n_steps,
        "returns": f"{info.return_min:.2f} to {info.return_max:.2f}",
        "costs": f"up to {info.cost_max:g}, limit {info.cost_limit:g}" if info.has_costs else "none told",
        "fingerprint": info.fingerprint[:16],
    }
    if imported.feedback is not None:
        pairs["feedback"] = imported.feedback
    print_pairs(pairs)
