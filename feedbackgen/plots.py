"""Pictures of datasets and of feedback."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from feedbackgen.errors import MissingDependency
from feedbackgen.inspection import Curve, DatasetInspection, FeedbackInspection
from feedbackgen.types import FloatArray

SHOWN, ASKED, UNSAFE = "#2b6ca3", "#e08214", "#c0392b"


def pyplot():
    """Matplotlib's pyplot without a display.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependency("pictures need matplotlib: pip install 'feedbackgen[plot]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "savefig.dpi": 150})
    return plt


def save(figure, path: Path) -> None:
    """Write a picture whose bytes depend on its content alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None} if path.suffix == ".png" else None, bbox_inches="tight")
    pyplot().close(figure)


def plot_returns(
    returns: FloatArray,
    cost_returns: FloatArray,
    policies: Sequence[str],
    *,
    cost_limit: float,
    title: str,
    path: Path,
) -> None:
    """Scatter of each episode's return against its cost, coloured by behaviour policy; the limit is drawn."""
    figure, axes = pyplot().subplots(figsize=(6.4, 4.2))
    _draw_episodes(axes, returns, cost_returns, policies, cost_limit)
    axes.set_title(title)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    save(figure, path)


def plot_feedback(inspection: FeedbackInspection, *, title: str, path: Path) -> None:
    """How the teacher erred, what was asked about, and where preference and safety part, a panel for each."""
    plt = pyplot()
    panels: list[Callable] = [_draw_rates]
    if inspection.drawn is not None and inspection.stored is not None:
        panels.append(_draw_reliability)
    panels += [_draw_errors, _draw_margins]
    if inspection.purity is not None:
        panels += [_draw_purity, _draw_plane]
    _draw(plt, panels, inspection, title, path)


def plot_dataset(
    inspection: DatasetInspection,
    returns: FloatArray,
    cost_returns: FloatArray,
    policies: Sequence[str],
    *,
    cost_limit: float,
    title: str,
    path: Path,
) -> None:
    """Episodes on the plane of return and cost, purity of their safe segments, and cost along them."""
    plt = pyplot()
    panels: list[Callable] = [lambda axes, _: _draw_episodes(axes, returns, cost_returns, policies, cost_limit)]
    if inspection.purity is not None:
        panels += [_draw_cost_over_time, _draw_purity]
    _draw(plt, panels, inspection, title, path, beside=True)


def legend_entries(panels) -> tuple[list, list[str]]:
    """Handles and labels of everything drawn in any of several panels, each label once."""
    entries: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    return list(entries.values()), list(entries)


def _draw(plt, panels: Sequence[Callable], inspection, title: str, path: Path, *, beside: bool = False) -> None:
    """Up to three panels a row; with the first one's legend beside them all."""
    n_rows = -(-len(panels) // 3)
    n_columns = -(-len(panels) // n_rows)
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=(4.4 * n_columns, 3.5 * n_rows), squeeze=False, layout="constrained"
    )
    for place, axis in enumerate(axes.ravel()):
        if place < len(panels):
            panels[place](axis, inspection)
        else:
            axis.set_axis_off()
    if beside:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def _draw_rates(axes, inspection: FeedbackInspection) -> None:
    rates = {name: rate for name, rate in inspection.rates.items() if rate["realised"] is not None}
    for row, rate in enumerate(rates.values()):
        axes.plot([rate["low"], rate["high"]], [row, row], color=SHOWN, linewidth=2, solid_capstyle="butt")
        axes.plot(rate["realised"], row, "o", color=SHOWN, markersize=4)
        if rate["expected"] is not None:
            axes.plot(rate["expected"], row, "|", color=ASKED, markersize=13, markeredgewidth=1.8)
    axes.plot([], [], "o-", color=SHOWN, markersize=4, label="realised, 95 % interval")
    axes.plot([], [], "|", color=ASKED, markersize=11, markeredgewidth=1.8, linestyle="none", label="requested")
    axes.set_yticks(range(len(rates)), [name.replace("_", " ") for name in rates], fontsize=8)
    axes.set_ylim(len(rates) - 0.4, -0.6)
    axes.set(xlabel="share", title="Rates")
    axes.set_xlim(left=min(-0.01, axes.get_xlim()[0]))
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.3, -0.14), ncols=2)


def _draw_reliability(axes, inspection: FeedbackInspection) -> None:
    assert inspection.drawn is not None and inspection.stored is not None
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--")
    _draw_curve(axes, inspection.drawn, "drawn", SHOWN, "o", line="none")
    _draw_curve(axes, inspection.stored, "stored, after flips", ASKED, "s", line="none")
    axes.set(
        xlabel="teacher's P(second preferred)",
        ylabel="share that prefers the second",
        title="Reliability of the teacher",
        xlim=(-0.03, 1.03),
        ylim=(-0.03, 1.03),
    )
    axes.legend(frameon=False, loc="upper left")


def _draw_errors(axes, inspection: FeedbackInspection) -> None:
    _draw_curve(axes, inspection.errors, None, SHOWN, "o")
    axes.axhline(0.5, color="0.7", linewidth=1, linestyle="--")
    axes.set(
        xlabel="margin of returns (deviations)",
        ylabel="labels that prefer the lower return",
        title="Errors by margin",
        ylim=(-0.02, 0.6),
    )
    axes.set_xlim(left=0)


def _draw_margins(axes, inspection: FeedbackInspection) -> None:
    sizes, disagrees = np.abs(inspection.margins), inspection.disagrees
    edges = np.linspace(0, max(float(sizes.max(initial=0)), 1e-9), 31)
    axes.hist([sizes[disagrees], sizes[~disagrees]], bins=edges, stacked=True, color=[UNSAFE, "0.75"])
    axes.set(
        xlabel="margin of returns (deviations)",
        ylabel="pairs",
        title=f"Margins; {inspection.n_equal_labels:,} of {len(sizes):,} labelled equal",
    )
    if inspection.purity is not None:
        axes.text(
            0.97,
            0.95,
            f"{inspection.rates['unsafe_preferred_to_safe']['realised'] or 0:.1%} of the decided prefer\n"
            "an unsafe segment to a safe one",
            color=UNSAFE,
            ha="right",
            va="top",
            transform=axes.transAxes,
        )


def _draw_purity(axes, inspection: FeedbackInspection | DatasetInspection) -> None:
    purity = inspection.purity
    assert purity is not None
    axes.plot(purity.lengths, purity.unsafe, "-", color=UNSAFE, marker=".", label="segments that are unsafe")
    axes.plot(
        purity.lengths, purity.from_unsafe, "-", color=SHOWN, marker=".", label="safe segments of unsafe episodes"
    )
    if isinstance(inspection, FeedbackInspection):
        for index, (length, rate) in enumerate(inspection.labels.items()):
            text = "segments labelled safe of unsafe episodes" if index == 0 else None
            axes.plot([length, length], [rate["low"], rate["high"]], color=ASKED, linewidth=2)
            axes.plot(length, rate["realised"], "D", color=ASKED, markersize=4, label=text)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="segment length (steps)", ylabel="share", title="Purity of safe segments", ylim=(-0.02, 1.02))
    axes.legend(frameon=False, fontsize=8, loc="upper right")


def _draw_plane(axes, inspection: FeedbackInspection) -> None:
    plane = inspection.plane
    assert plane is not None
    grid = plane.cost_edges, plane.return_edges
    axes.pcolormesh(*grid, np.ma.masked_equal(plane.there > 0, False), cmap="Greys", vmin=0, vmax=6)
    counts = np.ma.masked_equal(plane.asked, 0)
    shades = axes.pcolormesh(*grid, counts, cmap="viridis", norm="log", vmin=1)
    axes.figure.colorbar(shades, ax=axes, label="segments asked about")
    axes.axvline(plane.limit, color=UNSAFE, linewidth=1, linestyle="--")
    axes.set(
        xlabel="cost of a step (dashed: limit)",
        ylabel="return of a step",
        title=f"Coverage: {plane.n_reached} of {plane.n_cells} cells",
    )


def _draw_cost_over_time(axes, inspection: DatasetInspection) -> None:
    for name, colour in _colours(list(inspection.cost_over_time)).items():
        means = inspection.cost_over_time[name]
        axes.plot((np.arange(len(means)) + 0.5) / len(means), means, color=colour, marker=".", label=name)
    axes.set(xlabel="part of the horizon", ylabel="mean cost of a step", title="Cost along the episode", xlim=(0, 1))
    axes.set_ylim(bottom=0)


def _draw_curve(axes, curve: Curve, label: str | None, colour: str, marker: str, line: str = "-") -> None:
    axes.vlines(curve.at, curve.low, curve.high, color=colour, linewidth=1.5, alpha=0.6)
    axes.plot(
        curve.at, curve.share, color=colour, marker=marker, markersize=4, linestyle=line, linewidth=1, label=label
    )


def _draw_episodes(
    axes, returns: FloatArray, cost_returns: FloatArray, policies: Sequence[str], cost_limit: float
) -> None:
    names = np.array(policies)
    for name, colour in _colours(list(dict.fromkeys(policies))).items():
        rows = names == name
        axes.scatter(cost_returns[rows], returns[rows], s=14, color=colour, alpha=0.7, linewidths=0, label=name)
    axes.axvline(cost_limit, color="crimson", linewidth=1, linestyle="--", label=f"cost limit {cost_limit:g}")
    axes.set(xlabel="cost of the episode (unsafe steps)", ylabel="return of the episode", title="Episodes")


def _colours(names: Sequence[str]) -> dict[str, Any]:
    shades = pyplot().get_cmap("viridis")([index / max(1, len(names) - 1) for index in range(len(names))])
    return dict(zip(names, shades, strict=True))
