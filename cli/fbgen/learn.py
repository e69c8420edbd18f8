"""``fbgen train``, ``evaluate``, ``report``, ``benchmark``: from feedback to a policy, and how good and safe it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from fbgen.show import Progress, print_json, print_pairs, print_table, progress_bar, require_torch, say

Force = Annotated[bool, typer.Option("--force", "-f", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
ShowProgress = Annotated[
    bool | None, typer.Option("--progress/--no-progress", "-P", help="Bar; default on a terminal.")
]


def train(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="presa, a baseline, or NAME.py, a file of your own.")],
    feedback: Annotated[str, typer.Argument(metavar="FEEDBACK", help="A store's path, DATASET[/NAME], or a URL.")],
    seed: Annotated[int, typer.Option(help="Fixes every draw.")] = 0,
    config: Annotated[
        str | None, typer.Option(help="A preset (default; paper or osrl, where there is one) or a TOML file.")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE on top; repeat.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    force: Force = False,
    mapped: Annotated[bool, typer.Option("--mapped", help="Data larger than memory: leave it on disk.")] = False,
    precision: Annotated[
        str, typer.Option(help="exact, or fast: less time, other bits; products rounded with AMX and on GPUs (TF32).")
    ] = "exact",
    device: Annotated[str, typer.Option(help="cpu or cuda[:N].")] = "cpu",
    wandb: Annotated[
        str | None,
        typer.Option(metavar="PROJECT", help="Log to Weights & Biases too; WANDB_MODE=offline needs no account."),
    ] = None,
    show_progress: ShowProgress = None,
) -> None:
    """Train a policy on feedback alone.

    The true rewards and costs stay hidden from the learner, but for cpq, bcq-lag and cdt, baselines for reference.

    fbgen train presa feedbackgen/SafetyPointCircle1-v0/mixed-v0 --seed 0 --out runs/presa
    """
    overrides = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"expected KEY=VALUE, got {setting!r}", param_hint="--set")
        overrides[key] = value
    try:
        from presa.training import train as train_policy
    except ModuleNotFoundError as error:
        require_torch(error)
    with progress_bar("updates", show_progress) as bar:
        run = train_policy(
            method,
            feedback,
            seed=seed,
            config=config,
            overrides=overrides,
            out=out,
            resume=resume,
            force=force,
            mapped=mapped,
            precision=precision,
            device=device,
            wandb_project=wandb,
            progress=lambda done, total, phase, values: bar(done, total, _standing(phase, values)),
            warn=lambda message: say(f"warning: {message}"),
        )
    print(run)


def _standing(phase: str, values: Mapping[str, float]) -> str:
    """How a training stands, for its bar."""
    parts = [phase]
    if "multiplier" in values:
        parts.append(f"multiplier {values['multiplier']:.2f}")
    if "constraint_value" in values:
        value, threshold = values["constraint_value"], values["constraint_threshold"]
        parts.append(f"constraint {value:.2f} of {threshold:.2f}, {'met' if value >= threshold else 'not met'}")
    return ", ".join(parts)


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    episodes: Annotated[int, typer.Option("--episodes", "-n", help="At least 50 to compare methods.")] = 50,
    seed: Annotated[int, typer.Option(help="Fixes the reset seed of each episode.")] = 1000,
    stratified: Annotated[
        bool, typer.Option("--stratified", help="Starts that cover the arena evenly; navigation tasks.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the result is the same.")] = 1,
    video: Annotated[Path | None, typer.Option(help="Also write an MP4 of the first episode.")] = None,
    as_json: Json = False,
    show_progress: ShowProgress = None,
) -> None:
    """Let a run's last policy act.

    Every episode's return and cost is stored in the run's folder.
    """
    try:
        from presa.evaluation import evaluate as evaluate_run
        from presa.report import as_json as summary_json
        from presa.report import summarise
    except ModuleNotFoundError as error:
        require_torch(error)
    with progress_bar("episodes", show_progress) as progress:
        evaluate_run(
            run,
            n_episodes=episodes,
            seed=seed,
            stratified=stratified,
            workers=workers,
            video=video,
            progress=progress,
        )
    summaries = summarise([run])
    if as_json:
        print_json(summary_json(summaries))
        return
    summary = summaries[0]
    print_pairs(
        {
            "return": f"{summary.return_mean:.2f} ({_interval(summary.return_interval)})",
            "cost": f"{summary.cost_mean:.2f} ({_interval(summary.cost_interval)}), median {summary.cost_median:g}",
            "normalised return": f"{summary.normalised_return:.3f}",
            "normalised cost": f"{summary.normalised_cost:.3f} of the limit {summary.cost_limit:g}",
            "safe episodes": f"{summary.safe_share:.0%}",
        }
    )
    if video is not None:
        say(f"video in {video}")


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of evaluated runs.")],
    plot: Annotated[Path | None, typer.Option(help="Write a picture of return against cost.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers as JSON; - is stdout.")] = None,
) -> None:
    """Compare evaluated runs.

    Seeds of the same method and feedback are pooled; intervals are bootstrapped.
    """
    try:
        from presa.report import as_json, plot_summaries, summarise
    except ModuleNotFoundError as error:
        require_torch(error)
    summaries = summarise(runs)
    if plot is not None:
        plot_summaries(summaries, plot)
    if json_file is not None and str(json_file) == "-":
        print_json(as_json(summaries))
        return
    if json_file is not None:
        import json

        from feedbackgen.files import complete_or_absent

        with complete_or_absent(json_file, force=True) as draft:
            draft.write_text(json.dumps(as_json(summaries), indent=1) + "\n")
    columns = (
        "method", "feedback", "seeds", "return", "95 %", "cost", "95 %", "median cost", "safe episodes",
        "norm. return", "norm. cost", "",
    )  # fmt: skip
    rows = [
        (
            summary.label,
            summary.feedback,
            summary.n_seeds,
            f"{summary.return_mean:.1f}",
            _interval(summary.return_interval),
            f"{summary.cost_mean:.1f}",
            _interval(summary.cost_interval),
            f"{summary.cost_median:.1f}",
            f"{summary.safe_share:.0%}",
            f"{summary.normalised_return:.2f}",
            f"{summary.normalised_cost:.2f}",
            "safe" if summary.safe else "unsafe",
        )
        for summary in summaries
    ]
    print_table(columns, rows, title=f"{summaries[0].task}, {summaries[0].n_episodes} episodes a seed")


def benchmark(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A TOML file, or one that ships: quick, core.")],
    out: Annotated[Path | None, typer.Option(help="Folder; default benchmark-RECIPE.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with one thread and one run at a time.")] = 1,
    ray: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Instead: a Ray cluster whose nodes share the folder.")
    ] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option(metavar="RESULTS", help="Results from elsewhere: runs that are not run again; repeat."),
    ] = None,
    gather: Annotated[bool, typer.Option("--gather", help="Run nothing; write the results of what is done.")] = False,
    show_progress: ShowProgress = None,
) -> None:
    """Run tasks x methods x seeds x kinds of feedback: collect, label, train and evaluate.

    The same command goes on with what was interrupted, and leaves alone what is done. Ctrl-C writes the results so far.
    Parts that several machines ran become one: `fbgen benchmark RECIPE --known a.parquet --known b.parquet --gather`.

    fbgen benchmark quick --workers 2
    """
    if ray is not None and workers > 1:
        raise typer.BadParameter("give either --workers or --ray; a cluster uses all its CPUs")
    from contextlib import ExitStack

    try:
        from presa.benchmark import load_benchmark, run_benchmark
    except ModuleNotFoundError as error:
        require_torch(error)
    with ExitStack() as bars:

        def stage(name: str) -> Progress:
            bars.close()  # of the stage before
            return bars.enter_context(progress_bar(name, show_progress))

        chosen = load_benchmark(recipe)
        folder = out or Path(f"benchmark-{Path(recipe).stem}")
        results = run_benchmark(
            chosen, folder, workers=workers, ray=ray, known=known or (), gather=gather, progress=stage
        )
    print(results)


def benchmark_report(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="The results.parquet of a benchmark.")],
    out: Annotated[Path, typer.Option(help="The page; pictures go to images/ beside it.")] = Path("benchmark.md"),
    latex: Annotated[Path | None, typer.Option(help="Also write the tables in LaTeX.")] = None,
) -> None:
    """Write the page of a benchmark: tables with intervals, and pictures.

    fbgen benchmark-report benchmark-quick/results.parquet --out quick.md
    """
    try:
        from presa.benchmark_report import write_report
    except ModuleNotFoundError as error:
        require_torch(error)
    print(write_report(results, out, latex=latex))


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.1f} to {interval[1]:.1f}"
