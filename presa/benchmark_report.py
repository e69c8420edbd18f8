"""The page of a benchmark, from its results alone: tables with intervals in Markdown and LaTeX, and pictures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feedbackgen.errors import DataError
from feedbackgen.files import complete_or_absent, writing_to
from feedbackgen.plots import legend_entries, pyplot, save
from feedbackgen.recipe import load_recipe
from feedbackgen.types import FloatArray
from presa.benchmark import FACTORS, load_benchmark, read_table
from presa.comparison import (
    improvement_probability,
    interquartile_mean,
    performance_profile,
    safe_cell_share,
    safe_only_return,
    stratified_interval,
)
from presa.report import method_label

OURS = "presa"  # compared with every other method
FACTOR_NAMES = {
    "noise": "probability of a flipped label",
    "n_pairs": "pairs, and safety labels",
    "segment_length": "steps of a segment",
    "unsafe_share": "share of unsafe segments (0: as they come)",
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One evaluated run, its episodes' means."""

    task: str
    method: str  # with its preset, unless that is the default, and whether it sees the true rewards
    seed: int
    feedback: tuple[float, ...]  # values of FACTORS
    return_: float
    cost: float
    cost_error: float  # its standard error over the episodes; not a number of but one
    cost_limit: float
    safe_share: float  # of its episodes
    normalised_return: float  # with the dataset's extremes, as DSRL
    normalised_cost: float  # 1 at the limit
    seconds: float  # of CPU time; not a number where it was interrupted, 0 where it is also the run of other feedback


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a results file holds."""

    runs: list[Run]
    n_episodes: int  # of each run
    n_runs: int  # that the recipe asks for
    recipe: dict[str, Any]

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(run.method for run in self.runs))

    @property
    def feedbacks(self) -> list[tuple[float, ...]]:
        return sorted({run.feedback for run in self.runs})

    def scores(
        self, column: str, method: str, feedback: tuple[float, ...], *, beside: str = ""
    ) -> dict[str, FloatArray]:
        """One column of a method's runs, seeds in order, by task; only of the cells that another has run too."""
        runs = sorted((run for run in self.runs if (run.method, run.feedback) == (method, feedback)), key=_by_seed)
        if beside:
            theirs = {(run.task, run.seed) for run in self.runs if (run.method, run.feedback) == (beside, feedback)}
            runs = [run for run in runs if (run.task, run.seed) in theirs]
        tasks = sorted({run.task for run in runs})
        return {task: np.array([getattr(run, column) for run in runs if run.task == task]) for task in tasks}


def read_results(path: Path) -> Results:
    """Read a benchmark's results.

    Raises:
        StoreError: no such file, or one that cannot be read as the results of a benchmark.
        DataError: it holds no run.
        MissingDependency: pyarrow is not installed.
    """
    recipe, rows = read_table(path)
    if not rows:
        raise DataError(f"{path}: none of {recipe['n_runs']} runs is done; the same `fbgen benchmark` goes on")
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        key = (row["task"], row["method"], row["preset"], row["seed"], *(row[factor] for factor in FACTORS))
        groups.setdefault(key, []).append(row)
    return Results(
        runs=[_run(rows) for rows in groups.values()],
        n_episodes=recipe["evaluation_episodes"],
        n_runs=recipe["n_runs"],
        recipe=recipe,
    )


def write_report(results: Path, out: Path, *, latex: Path | None = None) -> Path:
    """Write the page, and its pictures to ``images/`` beside it.

    Args:
        results: of `presa.benchmark.run_benchmark`.
        out: the page; replaced if it is there.
        latex: a file for the tables in LaTeX.

    Returns:
        The page.

    Raises:
        StoreError: the results cannot be read, or the page cannot be written.
    """
    read = read_results(results)
    parts = ["# What the benchmark says", _preface(read)]
    tables = []
    with writing_to(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        for feedback in read.feedbacks:
            name = _feedback_name(read, feedback)
            parts.append(f"## {name}")
            for title, columns, rows in (_overall(read, feedback), _by_task(read, feedback)):
                parts += [title, markdown_table(columns, rows)]
                tables.append(latex_table(columns, rows, f"{name}. {title}"))
        parts += [
            "## Pictures",
            *(f"![{title}](images/{name})" for name, title in _pictures(read, out.parent / "images")),
        ]
        with complete_or_absent(out, force=True) as draft:
            draft.write_text("\n\n".join(parts) + "\n")
    if latex is not None:
        with complete_or_absent(latex, force=True) as draft:
            draft.write_text("\n\n".join(tables) + "\n")
    return out


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---", *["--:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def latex_table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table in LaTeX, for the package booktabs."""
    body = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_latex(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
            r"\toprule",
            " & ".join(_latex(column) for column in columns) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _run(rows: list[dict]) -> Run:
    first = rows[0]
    returns, costs = (np.array([row[column] for row in rows]) for column in ("return", "cost"))
    spread, limit = first["return_max"] - first["return_min"], first["cost_limit"]
    times = [first["train_seconds"], first["evaluate_seconds"]]
    return Run(
        task=first["task"],
        method=method_label(first["method"], first["preset"], first.get("sees_rewards", False)),
        seed=first["seed"],
        feedback=tuple(first[factor] for factor in FACTORS),
        return_=float(returns.mean()),
        cost=float(costs.mean()),
        cost_error=float(costs.std(ddof=1) / np.sqrt(len(costs))) if len(costs) > 1 else float("nan"),
        cost_limit=limit,
        safe_share=float(np.mean(costs <= limit)),
        normalised_return=float(returns.mean() - first["return_min"]) / spread if spread > 0 else 0.0,
        normalised_cost=float(costs.mean()) / limit if limit > 0 else float(costs.mean()) + 1.0,
        seconds=float("nan") if None in times else sum(times),
    )


def _preface(results: Results) -> str:
    seeds = sorted({run.seed for run in results.runs})
    tasks = sorted({run.task for run in results.runs})
    hours = np.nansum([run.seconds for run in results.runs]) / 3600
    n_unknown = sum(np.isnan(run.seconds) for run in results.runs)
    n_circle = results.recipe.get("circle_episodes")
    circle = f", and on Circle for {n_circle} with stratified starts" if n_circle else ""
    core = load_benchmark("core")
    test_seeds = sorted(set(seeds) & set(core.seeds))
    lines = [
        "Written by `fbgen benchmark-report` from a results file; all words and numbers below come from that file.",
        f"{len(results.runs)} of {results.n_runs} runs are done. Tasks: {', '.join(tasks)}. Methods: "
        f"{', '.join(results.methods)}. Seeds: {', '.join(map(str, seeds))}. Each run's last policy acts for "
        f"{results.n_episodes} episodes{circle}. Training and evaluation took {hours:.2f} hours of CPU time"
        + (f", without {n_unknown} runs that were interrupted." if n_unknown else "."),
    ]
    cells = {
        method: {(run.task, run.seed, run.feedback) for run in results.runs if run.method == method}
        for method in results.methods
    }
    if any(own != cells[results.methods[0]] for own in cells.values()):
        named = "; ".join(
            f"{method}: {', '.join(map(str, sorted({seed for _, seed, _ in own})))}" for method, own in cells.items()
        )
        lines.append(
            f"**Not every method has run every cell.** Seeds of {named}. What compares two is of the cells that both "
            "have run."
        )
    core_tasks = {load_recipe(task).task for task in core.tasks}
    if not core_tasks <= set(tasks) or len(test_seeds) < len(core.seeds):
        lines.append(
            f"**This is not the suite `core`** ({len(core.tasks)} tasks, seeds {', '.join(map(str, core.seeds))}), "
            "and no claim about a method rests on it."
        )
    if results.recipe["n_episodes"]:
        lines.append(f"Each dataset was cut to {results.recipe['n_episodes']} episodes.")
    if results.recipe["settings"]:
        settings = ", ".join(f"`{method}`" for method in results.recipe["settings"])
        lines.append(f"Trained by other settings than their own (the results' column `config`): {settings}.")
    lines.append(
        "A cell is one task and seed. It is safe when its mean cost is at most the limit. Returns are normalised with "
        "the dataset's extremes (0 to 1), costs with the limit (1). IQM is the interquartile mean over all cells; "
        "*safe-only* counts the return of unsafe cells as 0. In brackets stand 95 % intervals, by a bootstrap that "
        "draws seeds within tasks; with one seed there is nothing to draw, and they are left out. In parentheses "
        "stands the standard error of a run's mean cost over its episodes."
    )
    return "\n\n".join(lines)


def _feedback_name(results: Results, feedback: tuple[float, ...]) -> str:
    """Values of the factors that vary, and always the noise."""
    varying = [len({other[index] for other in results.feedbacks}) > 1 or index == 0 for index in range(len(FACTORS))]
    named = [
        f"{factor.replace('_', ' ').replace('n pairs', 'pairs')} {value:g}"
        for factor, value, varies in zip(FACTORS, feedback, varying, strict=True)
        if varies
    ]
    return ", ".join(named).capitalize()


def _overall(results: Results, feedback: tuple[float, ...]) -> tuple[str, list[str], list[list[str]]]:
    columns = [
        "method", "CPU minutes a run", "cells", "safe cells", "safe-only IQM", "IQM of return", "IQM of cost",
        f"P({OURS} returns more)", f"{OURS} ahead, safe-only",
    ]  # fmt: skip
    rows = []
    for method in results.methods:
        returns, costs = (
            results.scores(column, method, feedback) for column in ("normalised_return", "normalised_cost")
        )
        if not returns:
            continue
        row = [
            method,
            _minutes(run for run in results.runs if run.method == method),
            str(sum(map(len, returns.values()))),
            _with_interval(safe_cell_share, costs, form=".0%"),
            _with_interval(safe_only_return, returns, costs, paired=True),
            _with_interval(interquartile_mean, returns),
            _with_interval(interquartile_mean, costs),
        ]
        rows.append([*row, *_compared(results, feedback, method)])
    return "Over all tasks and seeds:", columns, rows


def _compared(results: Results, feedback: tuple[float, ...], method: str) -> tuple[str, str]:
    """P(ours returns more), and by how much ours is ahead, on the cells that both have run."""
    ours, theirs = (
        [results.scores(column, one, feedback, beside=other) for column in ("normalised_return", "normalised_cost")]
        for one, other in ((OURS, method), (method, OURS))
    )
    if method == OURS or not ours[0]:
        return "", ""
    probability = _with_interval(improvement_probability, ours[0], theirs[0])
    return probability, _with_interval(_ahead, *ours, *theirs, paired=True, form="+.2f")


def _minutes(runs: Iterable[Run]) -> str:
    """Mean CPU time of the runs whose time is known."""
    seconds = [run.seconds for run in runs if run.seconds > 0]
    return f"{np.mean(seconds) / 60:.1f}" if seconds else ""


def _ahead(returns, costs, other_returns, other_costs) -> float:
    return safe_only_return(returns, costs) - safe_only_return(other_returns, other_costs)


def _by_task(results: Results, feedback: tuple[float, ...]) -> tuple[str, list[str], list[list[str]]]:
    rows = []
    for method in results.methods:
        table = {
            name: results.scores(name, method, feedback)
            for name in ("return_", "cost", "cost_error", "safe_share", "cost_limit")
        }
        for task, returns in table["return_"].items():
            costs, limit = table["cost"][task], table["cost_limit"][task][0]
            seeds = zip(costs, table["cost_error"][task], strict=True)
            rows.append(
                [
                    task,
                    method,
                    f"{returns.mean():.1f}",
                    ", ".join(f"{cost:.1f} ({error:.1f})" for cost, error in seeds),
                    f"{limit:g}",
                    f"{np.mean(costs <= limit):.0%}",
                    f"{table['safe_share'][task].mean():.0%}",
                ]
            )
    columns = ["task", "method", "mean return", "mean cost by seed (error)", "limit", "safe seeds", "safe episodes"]
    return "By task:", columns, sorted(rows, key=lambda row: row[0])


def _with_interval(statistic, *tables, paired: bool = False, form: str = ".2f") -> str:
    value = statistic(*tables)
    if all(len(seeds) < 2 for seeds in tables[0].values()):
        return format(value, form)
    low, high = stratified_interval(statistic, *tables, paired=paired)
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _pictures(results: Results, folder: Path) -> list[tuple[str, str]]:
    """Draw what the results allow; file names and titles."""
    drawn = []
    for index, feedback in enumerate(results.feedbacks):
        name = _feedback_name(results, feedback)
        _draw_plane(results, feedback, folder / f"benchmark-plane-{index}.png")
        drawn.append((f"benchmark-plane-{index}.png", f"Return against cost of each method, limit at 1. {name}"))
        _draw_profiles(results, feedback, folder / f"benchmark-profiles-{index}.png")
        drawn.append(
            (f"benchmark-profiles-{index}.png", f"Share of runs above a return, unsafe runs counted 0. {name}")
        )
    for index, factor in enumerate(FACTORS):
        if len({feedback[index] for feedback in results.feedbacks}) > 1:
            _draw_sweep(results, index, folder / f"benchmark-{factor.replace('_', '-')}.png")
            drawn.append((f"benchmark-{factor.replace('_', '-')}.png", f"What changes with the {FACTOR_NAMES[factor]}"))
    return drawn


def _draw_plane(results: Results, feedback: tuple[float, ...], path: Path) -> None:
    """A panel for each task: each run a small mark, each method's mean a large one."""
    tasks = sorted({run.task for run in results.runs})
    n_rows = -(-len(tasks) // 5)
    n_columns = -(-len(tasks) // n_rows)
    size = (1.6 + 2.8 * n_columns, 2.9 * n_rows)
    figure, axes = pyplot().subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")
    for panel in axes.flat[len(tasks) :]:
        panel.set_axis_off()
    for task, panel in zip(tasks, axes.flat, strict=False):
        panel.axvspan(-1, 1, color="#2a9d5c", alpha=0.10, linewidth=0)
        panel.axvline(1, color="#2a9d5c", linewidth=1, linestyle="--")
        for method in results.methods:
            costs, returns = (
                results.scores(column, method, feedback).get(task, np.empty(0))
                for column in ("normalised_cost", "normalised_return")
            )
            if len(costs):
                style = _style(results, method)
                panel.scatter(costs, returns, s=12, alpha=0.5, linewidths=0, **style)
                panel.scatter(costs.mean(), returns.mean(), s=55, label=method, **style)
        panel.set_title(task, fontsize=8)
        shown = [run for run in results.runs if (run.task, run.feedback) == (task, feedback)]
        heights = [run.normalised_return for run in shown]
        highest_cost = max([1.0, *(run.normalised_cost for run in shown)])
        panel.set_xlim(-0.04 * highest_cost, 1.08 * highest_cost)
        panel.set_ylim(min([0.0, *heights]) - 0.06, max([1.0, *heights]) + 0.06)
    figure.supxlabel("cost / limit", fontsize=9)
    figure.supylabel("normalised return", fontsize=9)
    figure.legend(*legend_entries(axes.flat), frameon=False, loc="outside right center")
    save(figure, path)


def _draw_profiles(results: Results, feedback: tuple[float, ...], path: Path) -> None:
    figure, panel = pyplot().subplots(figsize=(5.4, 3.2))
    thresholds = np.linspace(0, 1, 201)
    for method in results.methods:
        returns, costs = (
            results.scores(column, method, feedback) for column in ("normalised_return", "normalised_cost")
        )
        if returns:
            safe = {task: np.where(costs[task] <= 1, values, 0.0) for task, values in returns.items()}
            colour = _style(results, method)["color"]
            panel.plot(thresholds, performance_profile(safe, thresholds), color=colour, label=method)
    panel.set(xlabel="normalised return, unsafe runs 0", ylabel="share of runs above", ylim=(-0.02, 1.02), xlim=(0, 1))
    panel.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, path)


def _draw_sweep(results: Results, index: int, path: Path) -> None:
    """Three curves of each method against one factor, other factors at the values most runs have."""
    feedbacks = [run.feedback for run in results.runs]
    usual = max(sorted(set(feedbacks)), key=feedbacks.count)
    values = sorted({feedback[index] for feedback in feedbacks})
    figure, panels = pyplot().subplots(1, 3, figsize=(10.4, 2.9), layout="constrained")
    for method in results.methods:
        rows = []
        for value in values:
            feedback = (*usual[:index], value, *usual[index + 1 :])
            returns, costs = (
                results.scores(column, method, feedback) for column in ("normalised_return", "normalised_cost")
            )
            if returns:
                row = (safe_only_return(returns, costs), interquartile_mean(costs), safe_cell_share(costs))
                rows.append((value, *row))
        if not rows:
            continue
        shown, *curves = np.array(rows).T
        for panel, curve in zip(panels, curves, strict=True):
            panel.plot(shown, curve, markersize=5, label=method, **_style(results, method))
    for panel, title in zip(
        panels, ("safe-only IQM of return", "IQM of cost / limit", "share of safe cells"), strict=True
    ):
        panel.set(title=title, xlabel=FACTOR_NAMES[FACTORS[index]])
        panel.set_ylim(-0.04, 1.04 * max(1.0, panel.get_ylim()[1]))
    panels[1].axhline(1, color="#2a9d5c", linewidth=1, linestyle="--")
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="outside right center")
    save(figure, path)


def _style(results: Results, method: str) -> dict[str, Any]:
    index = results.methods.index(method)
    return {"color": f"C{index % 10}", "marker": "osD^vP*X<>"[index % 10]}


def _latex(text: str) -> str:
    for character in "%_&#":
        text = text.replace(character, f"\\{character}")
    return text


def _by_seed(run: Run) -> int:
    return run.seed
