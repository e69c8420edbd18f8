"""Train any method on a feedback store: the run folder, its records, and going on after an interruption."""

import csv
import json
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch

from feedbackgen.episodes import dataset_info
from feedbackgen.errors import DataError, MissingDependency, OutputExists, RecipeError, StoreError
from feedbackgen.files import writing_to
from feedbackgen.provenance import versions
from feedbackgen.store import open_feedback, resolve_feedback
from presa.acting import load_any_policy, save_any_policy
from presa.batch import LearningData, dataset_learning_data, feedback_hash
from presa.checkpoint import POLICY_FILE, load_state, save_state
from presa.cloning import BLOCK
from presa.configuration import configuration_text, configured, read_configuration
from presa.memory import freed_memory_kept
from presa.methods import Learner, find_method, method_hash, method_name
from presa.true_rewards import RewardedData, dataset_rewarded_data
from presa.weights_and_biases import FOLDER, ID_FILE, LogMeans, forget_wandb, logging_to_wandb, require_wandb

STATE_FILE = "training_state.safetensors"
WARNINGS_FILE = "warnings.txt"  # a line each, behind the update by which it came
RUN_FILES = (
    POLICY_FILE, STATE_FILE, "config.toml", "provenance.json", "metrics.csv", WARNINGS_FILE, "evaluation.json",
)  # fmt: skip
LOG_EVERY = BLOCK  # updates per row of metrics
SAVE_EVERY = 5 * BLOCK  # updates between saved states; a multiple of LOG_EVERY
COLUMNS = (
    "step", "phase", "loss", "log_likelihood", "log_likelihood_safe", "log_likelihood_preferred",
    "preference_loss", "preference_accuracy", "preference_accuracy_safe",
    "constraint_value", "constraint_threshold", "constraint_met", "multiplier", "cloning_weight",
    "departure", "departure_of_reference", "departure_multiplier",
    "utility_safe", "utility_unsafe", "utility_centre", "log_ratio_safe",
    "classification_accuracy", "utility_desirable", "utility_undesirable",
    "value", "cost_value", "cost_value_limit",
)  # fmt: skip
# What a resumed run must share.
SAME_RUN = ("method", "method_sha256", "seed", "dataset_fingerprint", "feedback_sha256", "precision", "device")
# Of products of float32 matrices, as torch names it. Below the highest torch takes oneDNN's, which round the factors to
# bfloat16 on processors with AMX and on no others; on a GPU it allows TF32, which rounds them to 10 bits of fraction.
PRECISIONS = {"exact": "highest", "fast": "medium"}
PACKAGES = ("feedbackgen", "torch", "numpy", "safetensors", "minari", "zarr", "mujoco", "safety-gymnasium")

# Updates done, of how many, the phase, and the means of what it logs over the last of them.
Progress = Callable[[int, int, str, Mapping[str, float]], None]
Warn = Callable[[str], None]


def train(
    method: str,
    feedback: str | Path,
    *,
    seed: int,
    config: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    out: Path | None = None,
    resume: bool = False,
    force: bool = False,
    mapped: bool = False,
    precision: str = "exact",
    device: str = "cpu",
    wandb_project: str | None = None,
    progress: Progress | None = None,
    warn: Warn | None = None,
) -> Path:
    """Train a policy from a feedback store and the dataset it belongs to.

    Args:
        method: one of `presa.methods.METHODS`, or the path of a file that holds one of your own.
        feedback: path of a store, or ``DATASET[/NAME]``.
        seed: of the network and the minibatches.
        config: a preset, a TOML file, or values over the default preset; values may name their ``preset``.
        overrides: values over that, keys dotted into tables, for example ``{"cloning.n_steps": 2000}``.
        out: the run folder; left out, ``runs/<task>/<feedback>-<method>-<preset>-seed<seed>``.
        resume: go on with an interrupted run.
        force: replace the run.
        mapped: leave the steps on disk, for a dataset larger than memory; the policy is the same.
        precision: exact; or fast, for other products of matrices, whose factors are rounded on processors with AMX and
            on GPUs with TF32.
        device: ``cpu``, or ``cuda[:N]``; what is saved is the same kind of file, of other bits.
        wandb_project: log to Weights & Biases too; a resumed run goes on in the same one there.
        progress: called after each block of updates.
        warn: called with each warning, once, as it comes; left out, they are Python's, at the end.

    Returns:
        The run folder; its ``warnings.txt`` holds the warnings, if there were any.

    Raises:
        RecipeError: an unknown method, preset, key, device or precision, or a value out of range.
        DataError: feedback from which the method cannot learn.
        OutputExists: the run is there, and neither ``resume`` nor ``force`` is given.
        StoreError: the store or the run cannot be read, written or continued, or Weights & Biases takes no run.
        MissingDependency: TensorBoard, or wandb where it was asked for, is not installed.
    """
    preset, configuration = resolve_config(method, config, overrides)
    if seed < 0:
        raise RecipeError(f"seed: expected an integer >= 0, got {seed}")
    if precision not in PRECISIONS:
        raise RecipeError(f"precision: expected {' or '.join(PRECISIONS)}, got {precision!r}")
    _require_device(device)
    store = resolve_feedback(feedback)
    labels, info = open_feedback(store), dataset_info(store.parent.parent)
    if out is None:
        kind = preset if precision == "exact" else f"{preset}-{precision}"
        out = Path("runs") / info.task / f"{store.stem}-{method_name(method)}-{kind}-seed{seed}"
    if not resume and not force:
        _refuse_existing(out)
    chosen = find_method(method)
    data: LearningData | RewardedData
    if chosen.sees_rewards:
        data = dataset_rewarded_data(info, method_name(method), mapped=mapped)
    else:
        data = dataset_learning_data(info, labels, mapped=mapped)
    # The dataset's returns are for whoever evaluates; the learner gets `data` alone.
    provenance = {
        "method": method_name(method),
        "method_sha256": method_hash(method),
        "preset": preset,
        "seed": seed,
        "task": info.task,
        "dataset_id": info.dataset_id,
        "dataset_fingerprint": info.fingerprint,
        "return_min": info.return_min,
        "return_max": info.return_max,
        "cost_limit": info.cost_limit,
        "horizon": info.horizon,
        "feedback": str(store),
        "feedback_sha256": feedback_hash(labels),
        "sees_rewards": chosen.sees_rewards,
        "precision": precision,
    }
    return fit(
        data,
        configuration,
        provenance,
        learner=chosen.learner,
        out=out,
        resume=resume,
        force=force,
        device=device,
        wandb_project=wandb_project,
        progress=progress,
        warn=warn,
    )


def resolve_config(
    method: str, config: str | Path | Mapping[str, Any] | None = None, overrides: Mapping[str, Any] | None = None
) -> tuple[str, Any]:
    """The preset's name and the whole configuration; a TOML file or values lie over the preset they name.

    Raises:
        RecipeError: an unknown method, preset or key, or a value out of range.
    """
    presets = find_method(method).presets
    values: dict[str, Any] = {}
    if isinstance(config, Mapping):
        values = dict(config)
    elif config is not None and str(config) not in presets:
        if not Path(config).exists() and Path(config).suffix != ".toml":
            raise RecipeError(f"{method} has no preset {str(config)!r}, nor is there such a file; "
                              f"{_nearest(str(config), presets)}")  # fmt: skip
        values = read_configuration(Path(config))
    elif config is not None:
        values = {"preset": str(config)}
    preset = values.pop("preset", "default")
    if preset not in presets:
        raise RecipeError(f"{method} has no preset {preset!r}; {_nearest(str(preset), presets)}")
    return preset, configured(configured(presets[preset], values), overrides or {})


def fit(
    data: LearningData | RewardedData,
    config: Any,
    provenance: Mapping[str, Any],
    *,
    out: Path,
    learner: type[Learner] | None = None,
    resume: bool = False,
    force: bool = False,
    device: str = "cpu",
    wandb_project: str | None = None,
    progress: Progress | None = None,
    warn: Warn | None = None,
) -> Path:
    """Train on data in memory; ``provenance`` names at least method, seed and task. Raises as `train` does.

    The learner is that of the method, unless one is given. The precision is exact, unless ``provenance`` names another.
    """
    _require_device(device)
    if wandb_project is not None:
        require_wandb()
    if not resume and not force:
        _refuse_existing(out)
    provenance = {**provenance, "device": device}
    method, seed = provenance["method"], provenance["seed"]
    precision = PRECISIONS[provenance.get("precision", "exact")]
    with _one_deterministic_thread(precision), freed_memory_kept(), _told_warnings(out, warn) as tell:
        learning = (learner or find_method(method).learner)(data.to(torch.device(device)), config, seed)
        first = _begin(out, learning, config, provenance, resume=resume and not force)
        if first is None:
            return out
        tell(first)
        rows, phase = [], ""
        with _tensorboard(out, first) as writer, _wandb(wandb_project, out, config, provenance) as log_means:
            for step in range(first, learning.n_steps):
                phase, values = learning.update(step)
                rows.append(values)
                if (step + 1) % LOG_EVERY == 0 or step + 1 == learning.n_steps:
                    means = _log(out, writer, step + 1, phase, rows)
                    log_means(step + 1, phase, means)
                    tell(step + 1)
                    rows = []
                    if (step + 1) % SAVE_EVERY == 0:
                        save_state(out / STATE_FILE, learning.state(), {"step": step + 1})
                    if progress is not None:
                        progress(step + 1, learning.n_steps, phase, means)
        _require_finite_parameters(learning)
        save_any_policy(out / POLICY_FILE, learning.policy, data, task=provenance["task"], method=method)
        (out / STATE_FILE).unlink(missing_ok=True)
    return out


def _require_device(name: str) -> None:
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = ["cpu", *(["cuda"] if n_cuda else []), *(f"cuda:{index}" for index in range(n_cuda))]
    if name not in there:
        raise RecipeError(f"device {name!r}: not on this machine; there is {', '.join(there)}")


def _begin(out: Path, learner: Any, config: Any, provenance: Mapping[str, Any], *, resume: bool) -> int | None:
    """Make the run folder, or take up the one that is there; the first step to take, None when all are taken."""
    if resume and (out / "provenance.json").exists():
        _require_same_run(out, config, provenance)
        if (out / POLICY_FILE).exists():
            load_any_policy(out)
            return None
        if (out / STATE_FILE).exists():
            state, header = load_state(out / STATE_FILE)
            learner.load_state(state)
            _cut_metrics(out / "metrics.csv", header["step"])
            return header["step"]
    with writing_to(out):
        _clear(out)
        if not resume:  # what starts again because nothing was saved goes on in W&B all the same
            forget_wandb(out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "config.toml").write_text(configuration_text(config))
        record = {
            **provenance,
            "estimates": _estimates(learner),
            "versions": versions(PACKAGES),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": platform.platform(),
        }
        with (out / "metrics.csv").open("w", newline="") as file:
            csv.writer(file).writerow(COLUMNS)
        # Last, and by rename: a folder with this file holds a run that can be resumed.
        draft = out / ".provenance.json.draft"
        draft.write_text(json.dumps(record, indent=2) + "\n")
        draft.replace(out / "provenance.json")
    return 0


def _estimates(learner: Any) -> dict[str, float]:
    """What the learner concluded from the labels, for people."""
    beliefs = getattr(learner, "beliefs", None)
    if beliefs is None:
        return {}
    return {
        "safety_flip_rate": beliefs.safety_flip_rate,
        "preference_flip_rate": beliefs.preference_flip_rate,
        "safe_episode_share": float(beliefs.safe.mean()),
        "n_effective_episodes": beliefs.n_effective,
    }


def _require_same_run(out: Path, config: Any, provenance: Mapping[str, Any]) -> None:
    try:
        record = json.loads((out / "provenance.json").read_text())
        text = (out / "config.toml").read_text()
    except (OSError, ValueError) as error:
        raise StoreError(f"run {out}: its records are damaged ({error}); start again with --force") from error
    record, provenance = ({"precision": "exact", "device": "cpu", **each} for each in (record, provenance))
    different = [key for key in SAME_RUN if record.get(key) != provenance.get(key)]
    different += ["config"] if text != configuration_text(config) else []
    if different:
        raise StoreError(f"run {out}: cannot be resumed, it differs in {', '.join(different)}; use --force or --out")


def _refuse_existing(out: Path) -> None:
    if (out / POLICY_FILE).exists():
        raise OutputExists(f"run {out} exists; use --force to replace it, or another --out")
    if (out / "provenance.json").exists():
        raise OutputExists(f"run {out} is unfinished; --resume continues it, --force starts again")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputExists(f"{out} exists and is no run folder; choose another --out")


def _clear(out: Path) -> None:
    """Remove a run's own files and nothing else."""
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out}: a file stands where the run folder would be; choose another --out")
    if out.is_dir() and any(out.iterdir()) and not (out / "provenance.json").exists():
        ours = {*RUN_FILES, ".provenance.json.draft", "tensorboard", FOLDER, ID_FILE}
        started = {path.name for path in out.iterdir()} <= ours
        if not started:
            raise StoreError(f"{out}: not empty and no run folder; nothing was removed, choose another --out")
    for name in RUN_FILES:
        (out / name).unlink(missing_ok=True)
    for events in (out / "tensorboard").glob("events.out.*"):
        events.unlink()


def _log(out: Path, writer: Any, step: int, phase: str, rows: list[dict[str, float]]) -> dict[str, float]:
    """One row: means over the updates since the last, without those where a quantity was undefined."""
    # A phase may end within a row; the row is of the last phase then.
    rows = [row for row in rows if row.keys() == rows[-1].keys()]
    means = {}
    for name in rows[-1]:
        values = np.array([row[name] for row in rows])
        values = values[np.isfinite(values)]
        means[name] = float(values.mean()) if len(values) else float("nan")
    with writing_to(out / "metrics.csv"), (out / "metrics.csv").open("a", newline="") as file:
        csv.writer(file).writerow([step, phase, *(_cell(means.get(name)) for name in COLUMNS[2:])])
    for name, value in means.items():
        writer.add_scalar(f"{phase}/{name}", value, step)
    if not np.isfinite(means["loss"]):
        raise DataError(f"{phase}: the loss is not finite at update {step}; lower the learning rate")
    return means


def _cell(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.6g}"


def _cut_metrics(path: Path, step: int) -> None:
    """Drop rows that were written after the saved state; they will be written again."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    kept = rows[:1] + [row for row in rows[1:] if len(row) == len(COLUMNS) and int(row[0]) <= step]
    draft = path.with_name(f".{path.name}.draft")
    with writing_to(path):
        with draft.open("w", newline="") as file:
            csv.writer(file).writerows(kept)
        draft.replace(path)


@contextmanager
def _told_warnings(out: Path, warn: Warn | None) -> Iterator[Callable[[int], None]]:
    """What is yielded writes the warnings that came by an update into the run folder, each once, and tells of them."""
    passed_on: list[warnings.WarningMessage] = []

    def tell(step: int) -> None:
        path = out / WARNINGS_FILE
        known = {line.partition(": ")[2] for line in path.read_text().splitlines()} if path.exists() else set()
        for warning in caught:
            message = " ".join(str(warning.message).split())
            ours = warning.category is UserWarning
            if ours and message not in known:
                known.add(message)
                with writing_to(path), path.open("a") as file:
                    file.write(f"{step}: {message}\n")
                if warn is not None:
                    warn(message)
            if warn is None or not ours:
                passed_on.append(warning)
        caught.clear()

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            yield tell
    finally:
        for warning in [*passed_on, *caught]:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@contextmanager
def _tensorboard(out: Path, first: int) -> Iterator[Any]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependency("training needs tensorboard; pip install 'feedbackgen[train]'") from error
    writer = SummaryWriter(out / "tensorboard", purge_step=first + 1 if first else None)
    try:
        yield writer
    finally:
        writer.close()


@contextmanager
def _wandb(project: str | None, out: Path, config: Any, provenance: Mapping[str, Any]) -> Iterator[LogMeans]:
    if project is None:
        yield lambda step, phase, means: None
        return
    with logging_to_wandb(project, out, config, provenance) as log_means:
        with (out / "metrics.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                log_means(int(row["step"]), row["phase"], {name: float(row[name]) for name in COLUMNS[2:] if row[name]})
        yield log_means


@contextmanager
def _one_deterministic_thread(precision: str) -> Iterator[None]:
    """The same seed gives the same bytes: sums in parallel would differ in the last bits."""
    # cuBLAS reads it when it is first used, and torch refuses to be deterministic without it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    n_threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    precision_before = torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.set_float32_matmul_precision(precision_before)


def _require_finite_parameters(learner: Any) -> None:
    if not all(torch.isfinite(parameter).all() for parameter in learner.policy.parameters()):
        raise DataError("training diverged: the policy holds values that are not finite; lower the learning rate")


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
