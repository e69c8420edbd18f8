"""A training in Weights & Biases: the means that its metrics.csv has, its configuration and its name, nothing else."""

import json
import math
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from feedbackgen.errors import MissingDependency, StoreError
from feedbackgen.files import writing_to

FOLDER = "wandb"  # W&B's own, within the run's
ID_FILE = "wandb_id.txt"  # of the run in W&B, which a resumed run goes on with
OURS_ALONE: dict[str, Any] = {
    "console": "off", "disable_git": True, "disable_code": True, "x_disable_stats": True, "x_disable_meta": True,
    "x_disable_machine_info": True, "x_save_requirements": False,
}  # fmt: skip

# Updates done, the phase, and the means of what it logs over the last of them.
LogMeans = Callable[[int, str, Mapping[str, float]], None]


def require_wandb() -> None:
    """
    Raises:
        MissingDependency: wandb is not installed.
    """
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        raise MissingDependency("--wandb needs the package wandb: pip install 'feedbackgen[wandb]'") from error


@contextmanager
def logging_to_wandb(project: str, out: Path, config: Any, provenance: Mapping[str, Any]) -> Iterator[LogMeans]:
    """Begin a run in W&B, or go on with that of the run folder; what is yielded logs means of updates.

    A resumed training is to log again all that came before: what W&B has already is left alone. But what an
    interruption kept from it is missing there, and of an offline run, which cannot be asked, its newest part counts.

    Raises:
        StoreError: W&B takes no run, for want of an account, of a connection, or of a valid name of the project.
    """
    import wandb

    with writing_to(out / ID_FILE):
        if not (out / ID_FILE).exists():
            (out / ID_FILE).write_text(secrets.token_hex(8) + "\n")
    online = wandb.setup().settings.mode == "online"
    try:
        # Its warnings are not those of the training.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = wandb.init(
                project=project,
                name=out.name,
                id=(out / ID_FILE).read_text().strip(),
                dir=out,
                config={**provenance, "config": json.loads(json.dumps(asdict(config)), parse_constant=str)},
                resume="allow" if online else None,
                reinit="create_new",
                settings=wandb.Settings(**OURS_ALONE),
            )
    except wandb.Error as error:
        raise StoreError(
            f"Weights & Biases, project {project}: {error} (WANDB_MODE=offline needs no account; go on with --resume)"
        ) from error

    def log(step: int, phase: str, means: Mapping[str, float]) -> None:
        if step >= run.step:
            known = {f"{phase}/{name}": value for name, value in means.items() if math.isfinite(value)}
            run.log(known, step=step)

    try:
        yield log
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


def forget_wandb(out: Path) -> None:
    """Remove what a run folder holds of W&B; what was uploaded stays there."""
    (out / ID_FILE).unlink(missing_ok=True)
    if (out / FOLDER).is_dir():
        shutil.rmtree(out / FOLDER)
