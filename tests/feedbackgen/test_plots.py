"""Pictures exist, and depend on their content alone."""

import numpy as np

from feedbackgen.plots import plot_returns


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
