"""Summaries, worked by hand."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from feedbackgen.errors import StoreError
from feedbackgen.plots import pyplot
from presa import report
from presa.evaluation import Evaluation
from presa.report import as_json, bootstrap_interval, method_label, plot_summaries, summarise

PROVENANCE = {
    "method": "presa", "preset": "default", "seed": 0, "task": "SafetyPointCircle1-v0",
    "dataset_id": "feedbackgen/SafetyPointCircle1-v0/mixed-v0", "feedback": "somewhere/noise0.zarr",
    "return_min": 10.0, "return_max": 60.0, "cost_limit": 25.0,
}  # fmt: skip


def make_run(folder, returns, costs, **changes):
    folder.mkdir()
    (folder / "provenance.json").write_text(json.dumps(PROVENANCE | changes))
    evaluation = Evaluation(
        returns=returns, cost_returns=costs, lengths=[500] * len(costs), reset_seeds=list(range(len(costs))),
        seed=1000, cost_limit=25.0, versions={},
    )  # fmt: skip
    (folder / "evaluation.json").write_text(json.dumps(asdict(evaluation)))
    return folder


def test_one_run_is_summarised_as_worked_by_hand(tmp_path):
    (summary,) = summarise([make_run(tmp_path / "a", [20.0, 30.0, 40.0], [0.0, 25.0, 80.0])])
    assert (summary.return_mean, summary.cost_mean, summary.cost_median) == (30.0, 35.0, 25.0)
    assert summary.safe_share == pytest.approx(2 / 3)  # a cost equal to the limit is safe
    assert summary.normalised_return == pytest.approx(0.4)
    assert summary.normalised_cost == pytest.approx(1.4)
    assert not summary.safe and summary.n_seeds == 1 and summary.n_episodes == 3
    assert as_json([summary])["summaries"][0]["safe"] is False


def test_seeds_count_alike_whatever_their_episodes(tmp_path):
    runs = [
        make_run(tmp_path / "a", [20.0], [10.0]),
        make_run(tmp_path / "b", [40.0, 40.0, 40.0], [30.0, 30.0, 30.0], seed=1),
    ]
    (summary,) = summarise(runs)
    assert (summary.return_mean, summary.cost_mean, summary.n_seeds) == (30.0, 20.0, 2)


def test_methods_and_feedback_are_kept_apart_in_the_order_given(tmp_path):
    runs = [
        make_run(tmp_path / "a", [1.0], [1.0], method="bc"),
        make_run(tmp_path / "b", [1.0], [1.0]),
        make_run(tmp_path / "c", [1.0], [1.0], feedback="somewhere/noise10.zarr"),
    ]
    assert [(summary.method, summary.feedback) for summary in summarise(runs)] == [
        ("bc", "noise0"), ("presa", "noise0"), ("presa", "noise10"),
    ]  # fmt: skip


def test_the_bootstrap_interval_of_a_mean_is_near_the_normal_one():
    sample = np.random.default_rng(0).standard_normal(400)
    low, high = bootstrap_interval([sample])
    half = 1.96 * sample.std() / np.sqrt(400)
    # The quantiles of 2000 resamples have a standard error near 5 % of the interval's half width.
    assert low == pytest.approx(sample.mean() - half, abs=0.2 * half)
    assert high == pytest.approx(sample.mean() + half, abs=0.2 * half)


def test_with_several_seeds_the_interval_covers_their_spread():
    low, high = bootstrap_interval([[0.0] * 50, [10.0] * 50, [20.0] * 50])
    assert low <= 4 and high >= 16


def test_a_sample_without_spread_has_no_interval():
    assert bootstrap_interval([[3.0, 3.0]]) == (3.0, 3.0)


def test_two_runs_of_one_seed_are_refused(tmp_path):
    runs = [make_run(tmp_path / name, [1.0], [1.0]) for name in "ab"]
    with pytest.raises(StoreError, match="another run of presa on noise0 has the same seed"):
        summarise(runs)


def test_a_run_that_was_not_evaluated_says_how_to(tmp_path):
    run = make_run(tmp_path / "a", [1.0], [1.0])
    (run / "evaluation.json").unlink()
    with pytest.raises(StoreError, match=r"a: not evaluated yet; use `fbgen evaluate"):
        summarise([run])


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"no provenance.json; expected the folder of a finished `fbgen train`"):
        summarise([tmp_path])


def test_a_damaged_evaluation_is_named(tmp_path):
    run = make_run(tmp_path / "a", [1.0], [1.0])
    (run / "evaluation.json").write_text('{"returns": [1')
    with pytest.raises(StoreError, match=r"evaluation.json: damaged or of another version"):
        summarise([run])


def test_the_picture_is_the_same_file_twice(tmp_path):
    summaries = summarise([make_run(tmp_path / "a", [20.0, 30.0], [0.0, 30.0])])
    for name in ("x.png", "y.png"):
        plot_summaries(summaries, tmp_path / name)
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()


def test_the_legend_names_a_method_that_the_last_panel_lacks(tmp_path, monkeypatch):
    runs = [
        make_run(tmp_path / "a", [20.0], [0.0]),
        make_run(tmp_path / "b", [20.0], [0.0], method="bc"),
        make_run(tmp_path / "c", [20.0], [0.0], feedback="somewhere/noise10.zarr"),
    ]
    drawn = []
    monkeypatch.setattr(report, "save", lambda figure, path: drawn.append(figure))
    plot_summaries(summarise(runs), tmp_path / "x.png")
    (figure,) = drawn
    assert [text.get_text() for text in figure.axes[-1].get_legend().get_texts()] == ["presa", "bc"]
    pyplot().close(figure)


def test_a_method_that_sees_the_true_rewards_is_marked():
    assert method_label("bc", "default", False) == "bc"
    assert method_label("presa", "paper", False) == "presa (paper)"
    assert method_label("cpq", "osrl", True) == "cpq (osrl, true rewards)"


def test_a_fast_run_is_told_from_an_exact_one_of_the_same_seed(tmp_path):
    runs = [make_run(tmp_path / "a", [1.0], [1.0]), make_run(tmp_path / "b", [1.0], [1.0], precision="fast")]
    assert [summary.label for summary in summarise(runs)] == ["presa", "presa (fast)"]
