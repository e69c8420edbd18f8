"""Pictures of a dataset."""

from collections.abc import Sequence
from pathlib import Path

from feedbackgen.errors import MissingDependency
from feedbackgen.types import FloatArray


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
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    names = list(dict.fromkeys(policies))
    colours = plt.get_cmap("viridis")([index / max(1, len(names) - 1) for index in range(len(names))])
    for name, colour in zip(names, colours, strict=True):
        rows = [index for index, policy in enumerate(policies) if policy == name]
        axes.scatter(cost_returns[rows], returns[rows], s=14, color=colour, alpha=0.7, linewidths=0, label=name)
    axes.axvline(cost_limit, color="crimson", linewidth=1, linestyle="--", label=f"cost limit {cost_limit:g}")
    axes.set(xlabel="cost of the episode (unsafe steps)", ylabel="return of the episode", title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    save(figure, path)
