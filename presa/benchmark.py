"""Run many methods on many tasks, seeds and kinds of feedback, resumable, and gather every evaluated episode.

A benchmark is a folder: ``recipe.json``, ``datasets/``, ``runs/`` and, at the end, ``results.parquet``. Each stage
leaves what an earlier, killed run has finished, and goes on behind it; runs that another machine has done come in from
its results.
"""

import hashlib
import json
import time
import tomllib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from feedbackgen.cluster import call_on_cluster
from feedbackgen.collect import collect
from feedbackgen.environments import is_installed
from feedbackgen.episodes import dataset_info
from feedbackgen.errors import DataError, FeedbackgenError, MissingDependency, RecipeError, StoreError
from feedbackgen.files import complete_or_absent, locked, writing_to
from feedbackgen.label import LabelConfig, label
from feedbackgen.recipe import Recipe, load_recipe
from feedbackgen.store import feedback_path
from feedbackgen.tasks import Task, get_task
from feedbackgen.workers import worker_pool
from presa.configuration import configuration_text
from presa.evaluation import EVALUATION_FILE, evaluate, read_evaluation, read_provenance
from presa.methods import find_method, method_hash, method_name
from presa.training import resolve_config, train

SHIPPED = Path(__file__).parent / "benchmarks"
RESULTS_FILE = "results.parquet"
TIMES_FILE = "benchmark.json"  # in a run's folder
FACTORS = ("noise", "n_pairs", "segment_length", "unsafe_share")  # of the feedback
NOTHING_SPENT = {"train_seconds": 0.0, "evaluate_seconds": 0.0}  # by a run that serves other feedback too
RUN_COLUMNS = ("dataset_id", "method", "preset", "seed", *FACTORS, "config")  # of the results: what tells runs apart

Progress = Callable[[int, int], None]  # jobs done, of how many


@dataclass(frozen=True, kw_only=True)
class BenchmarkRecipe:
    """Every combination of task, method, seed and kind of feedback is one run.

    Raises:
        RecipeError: a value is out of range, or a method, preset or setting is unknown.
    """

    tasks: tuple[str, ...]  # recipes of datasets, by name or file
    methods: tuple[str, ...]  # METHOD or METHOD:PRESET
    seeds: tuple[int, ...]  # of labels and training
    optional_tasks: tuple[str, ...] = ()  # more tasks, where their simulator is installed
    noises: tuple[float, ...] = (0.0,)  # probability of flipping a label
    n_pairs: tuple[int, ...] = (10_000,)
    segment_lengths: tuple[int, ...] = (64,)  # steps
    unsafe_shares: tuple[float, ...] = (0.0,)  # of the labelled segments; 0: as they come
    n_episodes: int = 0  # of each dataset; 0: as many as its recipe says
    evaluation_episodes: int = 50
    circle_episodes: int = 0  # instead, with stratified starts, on Safety-Gymnasium's Circle; 0: as elsewhere
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of METHOD or METHOD:PRESET

    def __post_init__(self):
        lists = ("tasks", "optional_tasks", "methods", "seeds", "noises", "n_pairs", "segment_lengths", "unsafe_shares")
        for name in lists:
            values, needs_one = getattr(self, name), name != "optional_tasks"
            if not isinstance(values, list | tuple) or (needs_one and not values):
                expected = "a list with at least one value" if needs_one else "a list"
                raise RecipeError(f"{name}: expected {expected}, got {values!r}")
            if len(set(values)) < len(values):
                raise RecipeError(f"{name}: expected each value once, got {list(values)}")
            object.__setattr__(self, name, tuple(values))
        there = [task for task in self.optional_tasks if task in self.tasks]
        if there:
            raise RecipeError(f"optional_tasks: {there[0]} is one of the tasks already")
        if not all(type(seed) is int and seed >= 0 for seed in self.seeds):
            raise RecipeError(f"seeds: expected integers >= 0, got {list(self.seeds)}")
        for name, least in (("n_episodes", 0), ("evaluation_episodes", 1), ("circle_episodes", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise RecipeError(f"{name}: expected an integer >= {least}, got {value!r}")
        folders = [_run_name(str(method)) for method in self.methods]
        twice = [folder for folder in folders if folders.count(folder) > 1]
        if twice:
            raise RecipeError(f"methods: two of them are called {twice[0]}; rename one file")
        unused = [name for name in self.settings if name not in self.methods]
        if unused:
            raise RecipeError(f"settings.{unused[0]}: expected one of the methods, {', '.join(self.methods)}")
        for method in self.methods:
            self.resolved(str(method))
        for cell in self.cells():
            cell.labelling()

    def resolved(self, method: str) -> tuple[str, str]:
        """Name of the preset and whole configuration, as TOML, of one of the methods."""
        name, _, preset = method.partition(":")
        preset, config = resolve_config(name, preset or None, self.settings.get(method))
        return preset, configuration_text(config)

    def installed_tasks(self) -> tuple[str, ...]:
        """The tasks, and those of the optional ones that can be run here."""
        return self.tasks + tuple(task for task in self.optional_tasks if is_installed(load_recipe(task).task))

    def trained(self, cell: "Cell") -> "Cell":
        """The cell whose run serves this one: a method that reads no labels is trained once for all feedback."""
        if find_method(cell.method.partition(":")[0]).reads_labels:
            return cell
        return replace(
            cell,
            noise=self.noises[0],
            n_pairs=self.n_pairs[0],
            segment_length=self.segment_lengths[0],
            unsafe_share=self.unsafe_shares[0],
        )

    def cells(self) -> list["Cell"]:
        """All runs; seeds take turns last, so that what is there early covers every task and method."""
        return [
            Cell(
                task=task,
                method=method,
                seed=seed,
                noise=noise,
                n_pairs=n_pairs,
                segment_length=segment_length,
                unsafe_share=unsafe_share,
            )
            for seed, noise, n_pairs, segment_length, unsafe_share, task, method in product(
                self.seeds,
                self.noises,
                self.n_pairs,
                self.segment_lengths,
                self.unsafe_shares,
                self.installed_tasks(),
                self.methods,
            )
        ]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a benchmark."""

    task: str  # as the recipe names it
    method: str
    seed: int
    noise: float
    n_pairs: int
    segment_length: int
    unsafe_share: float

    @property
    def feedback(self) -> str:
        """Name of its feedback, shared by all methods."""
        noise, unsafe = (f"{share:g}".replace(".", "p") for share in (self.noise, self.unsafe_share))
        return f"noise{noise}-pairs{self.n_pairs}-length{self.segment_length}-unsafe{unsafe}-seed{self.seed}"

    def folder(self, out: Path) -> Path:
        return out / "runs" / Path(self.task).stem / self.feedback / _run_name(self.method)

    def labelling(self) -> LabelConfig:
        """What its teacher is asked."""
        return LabelConfig(
            noise=self.noise,
            n_pairs=self.n_pairs,
            segment_length=self.segment_length,
            unsafe_share=self.unsafe_share or None,
            seed=self.seed,
        )


def _run_name(method: str) -> str:
    name, _, preset = method.partition(":")
    return f"{method_name(name)}-{preset}" if preset else method_name(name)


def load_benchmark(recipe: str | Path) -> BenchmarkRecipe:
    """Read a benchmark from a TOML file, or by the name of one that ships.

    Raises:
        RecipeError: no such file or name, not TOML, an unknown key, or a value out of range.
    """
    path = Path(recipe)
    if not path.is_file():
        path = SHIPPED / f"{recipe}.toml"
    if not path.is_file():
        names = ", ".join(sorted(shipped.stem for shipped in SHIPPED.glob("*.toml")))
        raise RecipeError(f"benchmark {recipe}: no such file, and none of that name ships; there are {names}")
    try:
        values = tomllib.loads(path.read_text())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"benchmark {path}: not valid TOML ({error})") from error
    known = [entry.name for entry in fields(BenchmarkRecipe)]
    for key in values:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            raise RecipeError(
                f"benchmark {path}: unknown key {key!r}; expected {' or '.join(near) or ', '.join(known)}"
            )
    for key in ("tasks", "methods", "seeds"):
        if key not in values:
            raise RecipeError(f"benchmark {path}: no {key}")
    try:
        return BenchmarkRecipe(**values)
    except RecipeError as error:
        raise RecipeError(f"benchmark {path}: {error}") from error


def run_benchmark(
    recipe: BenchmarkRecipe,
    out: Path,
    *,
    workers: int = 1,
    ray: str | None = None,
    known: Sequence[Path] = (),
    gather: bool = False,
    progress: Callable[[str], Progress] | None = None,
) -> Path:
    """Collect, label, train and evaluate what is not there yet, then write the results, also if training is cut off.

    Args:
        recipe: what is run.
        out: the benchmark's folder; one that is there is gone on with.
        workers: processes, each with one thread and one run at a time.
        ray: address of a Ray cluster that runs it instead; its nodes share the folder.
        known: results of some of these runs from elsewhere; they are taken as they are, and not run again. Of several
            files that hold a run, the first counts.
        gather: only write the results of what is known and of what is done in the folder; run nothing.
        progress: called with the name of a stage; returns what is called with jobs done and in all.

    Returns:
        The results, a Parquet file with a row for each evaluated episode.

    Raises:
        RecipeError: no such dataset recipe.
        StoreError: the folder is of another recipe or cannot be written, no cluster answers, or the known results
            cannot be read or are of other data.
        DataError: some runs failed, and the results hold all others; or there is nothing to gather.
    """
    _require_pyarrow()
    data = {task: _data_recipe(recipe, task) for task in recipe.installed_tasks()}
    if len({entry.dataset_id for entry in data.values()}) < len(data):
        raise RecipeError("tasks: two recipes make a dataset of the same name")
    out = out.resolve()
    report = progress or (lambda stage: lambda done, total: None)
    with locked(out):
        rows = _known_rows(known, recipe, data)
        cells = [cell for cell in recipe.cells() if cell not in rows]
        if gather:
            rows |= _done_rows(out, recipe, cells)
            if not rows:
                raise DataError(f"{out}: nothing to gather, no run of the recipe is done here or in what is known")
            _require_same_data(rows, {})
            _claim(out, recipe)
            return _write_results(out, recipe, rows)
        _claim(out, recipe)
        paths = {task: out / "datasets" / data[task].dataset_id for task in dict.fromkeys(cell.task for cell in cells)}
        for task in paths:
            collect(
                data[task],
                workers=workers,
                ray=ray,
                resume=True,
                root=out / "datasets",
                progress=report(f"collect {task}"),
            )
        _require_same_data(rows, {task: dataset_info(path).fingerprint for task, path in paths.items()})
        stores = {(cell.task, cell.feedback): cell for cell in cells}.values()
        unlabelled = [
            (paths[cell.task], cell) for cell in stores if not feedback_path(paths[cell.task], cell.feedback).is_dir()
        ]
        failed = [failure for failure in _call(_label, unlabelled, workers, ray, report("label")) if failure]
        if failed:
            raise DataError(failed[0])
        runs = dict.fromkeys(recipe.trained(cell) for cell in cells)
        todo = [(out, paths[cell.task], recipe, cell) for cell in runs if not _is_done(out, recipe, cell)]
        try:
            failed = [failure for failure in _call(_run, todo, workers, ray, report("train and evaluate")) if failure]
        finally:
            rows |= _done_rows(out, recipe, cells)
            results = _write_results(out, recipe, rows)
    if failed:
        raise DataError(f"{len(failed)} of {len(todo)} runs failed, the others are in {results}; first: {failed[0]}")
    return results


def _data_recipe(recipe: BenchmarkRecipe, task: str) -> Recipe:
    entry = load_recipe(task)
    return replace(entry, n_episodes=recipe.n_episodes) if recipe.n_episodes else entry


def _claim(out: Path, recipe: BenchmarkRecipe) -> None:
    """Write the recipe down, or make sure that the folder is of this very one."""
    stamp = out / "recipe.json"
    text = json.dumps(asdict(recipe), indent=1, sort_keys=True) + "\n"
    if stamp.is_file():
        if stamp.read_text() != text:
            raise StoreError(f"{out} holds a benchmark of another recipe; choose another --out")
        return
    if out.is_dir() and any(out.iterdir()):
        raise StoreError(f"{out}: not empty and no benchmark; choose another --out")
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        with complete_or_absent(stamp, force=True) as draft:
            draft.write_text(text)


def _call(function, calls: Iterable[tuple], workers: int, ray: str | None, report: Progress) -> Iterator[str]:
    """Results of a function in the order they come, from processes of one thread each or a cluster's nodes."""
    calls = list(calls)
    report(0, len(calls))
    if not calls:
        return
    if ray is not None:
        for n_done, (_, result) in enumerate(call_on_cluster(ray, function, calls), start=1):
            report(n_done, len(calls))
            yield result
        return
    with worker_pool(min(workers, len(calls))) as pool:
        futures = [pool.submit(function, *arguments) for arguments in calls]
        for n_done, future in enumerate(as_completed(futures), start=1):
            report(n_done, len(calls))
            yield future.result()


def _label(dataset: Path, cell: Cell) -> str:
    """In a process of its own; what went wrong, or nothing."""
    try:
        label(dataset, cell.labelling(), name=cell.feedback)
    except FeedbackgenError as error:
        return f"{cell.task}, {cell.feedback}: {error}"
    return ""


def _run(out: Path, dataset: Path, recipe: BenchmarkRecipe, cell: Cell) -> str:
    """Train and evaluate one run in a process of its own; what went wrong, or nothing."""
    run, (method, _, preset) = cell.folder(out), cell.method.partition(":")
    stale = _is_stale(run, recipe, cell)
    interrupted = (run / "provenance.json").exists() and not stale
    try:
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the run's metrics say it too
            train(
                method,
                feedback_path(dataset, cell.feedback),
                seed=cell.seed,
                config=preset or None,
                overrides=recipe.settings.get(cell.method),
                out=run,
                resume=not stale,
                force=stale,
            )
        trained = time.process_time()
        n_episodes, stratified = _evaluated(recipe, get_task(read_provenance(run)["task"]))
        evaluate(run, n_episodes=n_episodes, stratified=stratified)
    except FeedbackgenError as error:
        return f"{run}: {error}"
    times = {
        # What a killed process had spent is not known.
        "train_seconds": None if interrupted else trained - start,
        "evaluate_seconds": time.process_time() - trained,
    }
    with complete_or_absent(run / TIMES_FILE, force=True) as draft:
        draft.write_text(json.dumps(times) + "\n")
    return ""


def _evaluated(recipe: BenchmarkRecipe, task: Task) -> tuple[int, bool]:
    """Number of evaluation episodes, and whether their starts are stratified."""
    stratified = recipe.circle_episodes > 0 and (task.suite, task.kind) == ("safety-navigation", "Circle")
    return (recipe.circle_episodes if stratified else recipe.evaluation_episodes), stratified


def _is_stale(run: Path, recipe: BenchmarkRecipe, cell: Cell) -> bool:
    """Whether a run was trained by another configuration, or from a file of the user's that has changed since."""
    if not (run / "provenance.json").is_file():
        return False
    trained = (read_provenance(run).get("method_sha256"), (run / "config.toml").read_text())
    return trained != (method_hash(cell.method.partition(":")[0]), recipe.resolved(cell.method)[1])


def _is_done(out: Path, recipe: BenchmarkRecipe, cell: Cell) -> bool:
    run = cell.folder(out)
    done = (run / EVALUATION_FILE).is_file() and (run / TIMES_FILE).is_file()
    return done and not _is_stale(run, recipe, cell)


def _known_rows(
    files: Iterable[Path], recipe: BenchmarkRecipe, data: Mapping[str, Recipe]
) -> dict[Cell, list[dict[str, Any]]]:
    """Those runs of results files that are this recipe's, each episode a row."""
    wanted = [(cell, _run_key(recipe, cell, data[cell.task])) for cell in recipe.cells()]
    found: dict[Cell, list[dict[str, Any]]] = {}
    for known in files:
        about, rows = read_table(known)
        if about["n_episodes"] != recipe.n_episodes:
            raise StoreError(
                f"{known}: its datasets are cut to {about['n_episodes']} episodes (0: not at all), this recipe's to "
                f"{recipe.n_episodes}"
            )
        runs: dict[tuple, list[dict[str, Any]]] = {}
        for row in rows:
            runs.setdefault(tuple(row[name] for name in RUN_COLUMNS), []).append(row)
        for cell, key in wanted:
            run = runs.get(key, [])
            if run and (len(run), run[0]["stratified"]) == _evaluated(recipe, get_task(data[cell.task].task)):
                found.setdefault(cell, run)
    for cell, _ in wanted:
        trained = recipe.trained(cell)
        if cell not in found and trained in found:
            factors = {name: getattr(cell, name) for name in FACTORS}
            found[cell] = [row | factors | NOTHING_SPENT for row in found[trained]]
    return found


def _run_key(recipe: BenchmarkRecipe, cell: Cell, data: Recipe) -> tuple:
    """What `RUN_COLUMNS` hold of a cell's run."""
    preset, config = recipe.resolved(cell.method)
    method = method_name(cell.method.partition(":")[0])
    return data.dataset_id, method, preset, cell.seed, *(getattr(cell, factor) for factor in FACTORS), config


def _done_rows(out: Path, recipe: BenchmarkRecipe, cells: Iterable[Cell]) -> dict[Cell, list[dict[str, Any]]]:
    """The runs of the folder that are done, each episode a row."""
    done = [cell for cell in cells if _is_done(out, recipe, recipe.trained(cell))]
    return {cell: list(_rows(out, cell, recipe.trained(cell))) for cell in done}


def _require_same_data(rows: Mapping[Cell, list[dict[str, Any]]], fingerprints: Mapping[str, str]) -> None:
    """All runs of a task are of one dataset, that of this machine if it is here."""
    seen = dict(fingerprints)
    for cell, episodes in rows.items():
        fingerprint = episodes[0]["dataset_fingerprint"]
        if seen.setdefault(cell.task, fingerprint) != fingerprint:
            raise StoreError(
                f"the known results are of another {cell.task} (fingerprint {fingerprint[:8]}, not "
                f"{seen[cell.task][:8]} as others or the one here); run them anew"
            )


def read_table(results: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The recipe that a results file was run by, with the number of its runs, and the file's rows.

    Raises:
        StoreError: no such file, or one that cannot be read as the results of a benchmark.
        MissingDependency: pyarrow is not installed.
    """
    _require_pyarrow()
    from pyarrow import parquet

    if not results.is_file():
        raise StoreError(f"{results}: no such file; `fbgen benchmark` writes a results.parquet")
    try:
        table = parquet.read_table(results, page_checksum_verification=True)
        return json.loads((table.schema.metadata or {})[b"benchmark"]), table.to_pylist()
    except (KeyError, ValueError, OSError) as error:
        raise StoreError(
            f"{results}: damaged, or not the results of a benchmark; `fbgen benchmark` writes a results.parquet"
        ) from error


def _write_results(out: Path, recipe: BenchmarkRecipe, rows: Mapping[Cell, list[dict[str, Any]]]) -> Path:
    from pyarrow import Table, parquet

    cells = [cell for cell in recipe.cells() if cell in rows]
    table = Table.from_pylist([row for cell in cells for row in rows[cell]])
    about = {"benchmark": json.dumps({**asdict(recipe), "n_runs": len(recipe.cells()), "n_done": len(cells)})}
    results = out / RESULTS_FILE
    with complete_or_absent(results, force=True) as draft:
        table = table.replace_schema_metadata(about)
        # Checksums: most damage to a page would else be read as other numbers.
        parquet.write_table(table, draft, compression="zstd", write_page_checksum=True)
    return results


def _rows(out: Path, cell: Cell, trained: Cell) -> Iterator[dict[str, Any]]:
    """A row for each episode; what holds of the whole run is repeated, and costs nothing in the file."""
    run = trained.folder(out)
    provenance, evaluation = read_provenance(run), read_evaluation(run)
    times = json.loads((run / TIMES_FILE).read_text()) if trained == cell else NOTHING_SPENT
    config = (run / "config.toml").read_text()
    about = {**asdict(cell), "task": provenance["task"], "method": provenance["method"], "preset": provenance["preset"]}
    about |= {name: provenance[name] for name in ("cost_limit", "return_min", "return_max", "dataset_id")}
    about |= {name: provenance[name] for name in ("dataset_fingerprint", "feedback_sha256")} | times
    about |= {
        "sees_rewards": provenance["sees_rewards"],
        "stratified": evaluation.stratified,
        "config": config,
        "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
        "versions": json.dumps(provenance["versions"], sort_keys=True),
    }
    columns = (evaluation.reset_seeds, evaluation.returns, evaluation.cost_returns, evaluation.lengths)
    for episode, values in enumerate(zip(*columns, strict=True)):
        yield about | {"episode": episode} | dict(zip(("reset_seed", "return", "cost", "n_steps"), values, strict=True))


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependency("a benchmark's results need pyarrow: pip install 'feedbackgen[parquet]'") from error
