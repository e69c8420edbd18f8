import json
from dataclasses import asdict
from pathlib import Path

import pytest
from pyarrow import Table, parquet

from feedbackgen.errors import DataError, StoreError
from feedbackgen.plots import pyplot
from presa import benchmark_report
from presa.benchmark import BenchmarkRecipe, _write_results
from presa.benchmark_report import latex_table, markdown_table, read_results, write_report

RECIPE = BenchmarkRecipe(
    tasks=("SafetyPointCircle1-mixed",), methods=("presa", "bc"), seeds=(0, 1), noises=(0.0, 0.1), evaluation_episodes=2
)
# Mean return of both seeds, and mean cost, at each noise; the limit is 25 and returns go from 0 to 50.
CELLS = {
    ("presa", 0.0): [(40, 10), (30, 20)],
    ("bc", 0.0): [(45, 20), (20, 100)],
    ("presa", 0.1): [(30, 30), (30, 20)],
    ("bc", 0.1): [(45, 120), (45, 100)],
}


@pytest.fixture
def results(tmp_path):
    rows = []
    for (method, noise), cells in CELLS.items():
        for seed, (mean_return, mean_cost) in enumerate(cells):
            run = {"task": "SafetyPointCircle1-v0", "method": method, "preset": "default", "seed": seed}
            run |= {"noise": noise, "n_pairs": 10, "segment_length": 64, "unsafe_share": 0.0, "cost_limit": 25.0}
            run |= {"return_min": 0.0, "return_max": 50.0, "train_seconds": 3600.0, "evaluate_seconds": 0.0}
            rows += [run | {"return": mean_return + by, "cost": mean_cost + by} for by in (-5.0, 5.0)]
    about = {"benchmark": json.dumps({**asdict(RECIPE), "n_runs": 8, "n_done": 8})}
    path = tmp_path / "results.parquet"
    parquet.write_table(Table.from_pylist(rows).replace_schema_metadata(about), path)
    return path


def test_a_run_is_the_mean_of_its_episodes_beside_the_limit(results):
    read = read_results(results)
    assert len(read.runs) == 8 and read.methods == ["presa", "bc"]
    run = read.runs[1]
    assert (run.seed, run.return_, run.cost) == (1, 30.0, 20.0)
    assert (run.normalised_return, run.normalised_cost) == (0.6, 0.8)
    assert run.cost_error == pytest.approx(5.0)  # 15 and 25: standard deviation 7.07, over the root of 2
    assert run.safe_share == 1.0  # 15 and 25
    assert read.runs[4].safe_share == 0.5  # 25 and 35


def test_the_page_says_what_ran_and_what_came_of_it(results, tmp_path):
    page = write_report(results, tmp_path / "page/benchmark.md", latex=tmp_path / "tables.tex")
    text = page.read_text()
    assert "8 of 8 runs are done" in text and "8.00 hours of CPU time" in text
    assert "Not every method" not in text
    assert "This is not the suite `core`" in text
    clean, noisy = text.split("## Noise 0.1")
    # safe: both of presa's seeds, one of bc's. Two cells leave nothing out: 0.7, and (0.9 + 0) / 2.
    assert "| presa | 60.0 | 2 | 100% [100%, 100%] | 0.70 " in clean
    assert "| bc | 60.0 | 2 | 50% [0%, 100%] | 0.45 " in clean
    # 40 and 30 against 45 and 20: each beats 20 only.
    assert "| 0.50 [" in clean and "| +0.25 [" in clean
    assert "| SafetyPointCircle1-v0 | bc | 32.5 | 20.0 (5.0), 100.0 (5.0) | 25 | 50% |" in clean
    assert "| presa | 60.0 | 2 | 50% [0%, 100%] | 0.30 " in noisy
    pictures = {path.name for path in (page.parent / "images").iterdir()}
    assert "benchmark-noise.png" in pictures and len(pictures) == 5
    assert all(f"(images/{name})" in text for name in pictures)
    assert (tmp_path / "tables.tex").read_text().count(r"\begin{tabular}") == 4


def test_methods_are_compared_on_the_cells_that_both_have_run(results, tmp_path):
    table = parquet.read_table(results)

    def page_of(**seeds):
        rows = [row for row in table.to_pylist() if row["seed"] in seeds[row["method"]]]
        path = tmp_path / "part.parquet"
        parquet.write_table(Table.from_pylist(rows).replace_schema_metadata(table.schema.metadata), path)
        return write_report(path, tmp_path / "benchmark.md").read_text()

    shared = page_of(presa=(0, 1), bc=(1,))
    assert "**Not every method has run every cell.** Seeds of presa: 0, 1; bc: 1. " in shared
    # By seed 1: 30 at 20 against 20 at 100, of 50; unsafe counts 0.
    assert "| bc | 60.0 | 1 | 0% | 0.00 | 0.40 | 4.00 | 1.00 | +0.60 |" in shared
    assert "| bc | 60.0 | 1 | 0% | 0.00 | 0.40 | 4.00 |  |  |" in page_of(presa=(0,), bc=(1,))


def test_minutes_are_of_the_runs_that_took_any_and_one_episode_has_no_error(results, tmp_path):
    table = parquet.read_table(results)
    rows = table.to_pylist()[::2]  # one of the two episodes
    rows[0]["train_seconds"], rows[1]["train_seconds"] = None, 0.0  # interrupted; the run of other feedback too
    parquet.write_table(Table.from_pylist(rows).replace_schema_metadata(table.schema.metadata), results)
    text = write_report(results, tmp_path / "benchmark.md").read_text()
    assert "6.00 hours of CPU time, without 1 runs that were interrupted." in text
    assert "| presa | 60.0 | 2 |" in text
    assert "| SafetyPointCircle1-v0 | presa | 30.0 | 5.0 (nan), 15.0 (nan) | 25 | 100% |" in text


def test_the_legend_names_a_method_that_the_first_task_lacks(results, tmp_path, monkeypatch):
    table = parquet.read_table(results)
    first = [row for row in table.to_pylist() if row["method"] == "presa"]
    second = [row | {"task": "SafetyPointGoal1-v0"} for row in table.to_pylist()]
    parquet.write_table(Table.from_pylist(first + second).replace_schema_metadata(table.schema.metadata), results)
    drawn = {}
    monkeypatch.setattr(benchmark_report, "save", lambda figure, path: drawn.update({path.name: figure}))
    write_report(results, tmp_path / "page/benchmark.md")
    planes = [figure for name, figure in drawn.items() if len(figure.axes) == 2]
    assert planes and all(
        [text.get_text() for text in figure.legends[0].get_texts()] == ["presa", "bc"] for figure in planes
    )
    pyplot().close("all")


def test_a_sweep_leaves_out_a_method_that_it_has_no_run_of(results, tmp_path):
    # cpl alone, with 20 pairs: it is in the sweep over pairs, not in that over noise, where there are 10.
    table = parquet.read_table(results)
    rows = table.to_pylist()
    rows += [row | {"method": "cpl", "n_pairs": 20} for row in rows if row["method"] == "bc" and row["noise"] == 0.0]
    parquet.write_table(Table.from_pylist(rows).replace_schema_metadata(table.schema.metadata), results)
    page = write_report(results, tmp_path / "page/benchmark.md")
    pictures = {path.name for path in (page.parent / "images").iterdir()}
    assert {"benchmark-noise.png", "benchmark-n-pairs.png"} <= pictures


def test_the_page_in_the_documentation_is_what_its_results_give(tmp_path):
    docs = Path(__file__).parents[2] / "docs"
    page = write_report(docs / "results/core.parquet", tmp_path / "benchmark.md")
    assert page.read_text() == (docs / "benchmark.md").read_text()


def test_tables_in_markdown_and_latex():
    assert markdown_table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | --: |\n| x | 1 |"
    table = latex_table(["a", "b"], [["x_1", "50%"]], "Safe & sound")
    assert r"x\_1 & 50\% \\" in table and r"\caption{Safe \& sound}" in table and r"\begin{tabular}{lr}" in table


def test_another_file_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no such file; `fbgen benchmark` writes"):
        read_results(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(StoreError, match="not the results of a benchmark"):
        read_results(tmp_path / "text.parquet")
    parquet.write_table(Table.from_pylist([{"a": 1}]), tmp_path / "other.parquet")
    with pytest.raises(StoreError, match="not the results of a benchmark"):
        read_results(tmp_path / "other.parquet")


def test_results_without_a_run_are_refused_and_not_a_page(tmp_path):
    path = _write_results(tmp_path, RECIPE, {})  # what Ctrl-C leaves before the first run is done
    with pytest.raises(DataError, match=r"none of 8 runs is done; the same `fbgen benchmark` goes on"):
        read_results(path)
