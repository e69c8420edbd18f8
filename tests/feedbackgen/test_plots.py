"""Pictures exist, and depend on their content alone."""

import numpy as np

from feedbackgen.plots import legend_entries, plot_returns, pyplot


def test_a_scatter_plot_is_the_same_file_twice(tmp_path):
    for name in ("a.png", "b.png"):
        plot_returns(
            np.array([1.0, 2.0]),
            np.array([0.0, 30.0]),
            ("x", "y"),
            cost_limit=25,
            title="t",
            path=tmp_path / "new" / name,
        )
    first, second = ((tmp_path / "new" / name).read_bytes() for name in ("a.png", "b.png"))
    assert first[:4] == b"\x89PNG" and first == second


def test_a_legend_beside_several_panels_names_what_is_in_any_of_them_once():
    figure, panels = pyplot().subplots(1, 2)
    for panel, names in zip(panels, (("presa", "bc"), ("presa", "cpl")), strict=True):
        for name in names:
            panel.plot([0, 1], label=name)
    handles, labels = legend_entries(panels)
    assert labels == ["presa", "bc", "cpl"]
    assert [handle.get_label() for handle in handles] == labels
    pyplot().close(figure)
