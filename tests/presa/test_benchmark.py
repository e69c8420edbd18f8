import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from pyarrow import parquet

from feedbackgen.errors import DataError, RecipeError, StoreError
from presa import benchmark
from presa.benchmark import BenchmarkRecipe, _write_results, load_benchmark, read_table, run_benchmark

TINY = BenchmarkRecipe(
    tasks=("SafetyPointCircle1-mixed",), methods=("bc", "bc-safe"), seeds=(3,), n_pairs=(40,), segment_lengths=(16,)
)
FBGEN = [sys.executable, "-W", "ignore", "-c", "from fbgen.main import main; main()"]
TEXT = """
tasks = ["SafetyPointCircle1-mixed"]
methods = ["bc", "bc-safe"]
seeds = [3]
n_episodes = 11
n_pairs = [40]
segment_lengths = [16]
evaluation_episodes = 1
settings.bc.cloning.n_steps = 20
settings.bc-safe.cloning.n_steps = 30
"""


def test_every_combination_is_a_run_of_its_own():
    recipe = replace(TINY, seeds=(0, 1), noises=(0.0, 0.1), n_pairs=(10, 20))
    cells = recipe.cells()
    assert len(cells) == 2 * 2 * 2 * 2
    assert len({cell.feedback for cell in cells}) == 2 * 2 * 2  # methods share their feedback
    assert cells[0].labelling().noise == 0.0 and cells[0].labelling().seed == 0


def test_what_ships_can_be_read_and_core_has_ten_tasks_and_the_test_seeds():
    core = load_benchmark("core")
    assert len(core.tasks) == 10 and len(core.optional_tasks) == 2
    assert core.seeds == (10, 11, 12, 13, 14) and core.noises == (0.0, 0.1)
    quick = load_benchmark("quick")
    assert (len(quick.tasks), len(quick.methods)) == (2, 3)
    for name, factor in (("noise", "noises"), ("pairs", "n_pairs"), ("segment-length", "segment_lengths")):
        sweep = load_benchmark(name)
        assert len(getattr(sweep, factor)) == 5 and sweep.seeds == (0, 1, 2)
    assert load_benchmark("unsafe-share").unsafe_shares[0] == 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": ()}, "seeds: expected a list with at least one value"),
        ({"seeds": (1, 1)}, "seeds: expected each value once"),
        ({"seeds": (-1,)}, "seeds: expected integers >= 0"),
        ({"optional_tasks": "SafetyCarRun-mixed"}, "optional_tasks: expected a list, got 'SafetyCarRun-mixed'"),
        ({"optional_tasks": TINY.tasks}, "optional_tasks: SafetyPointCircle1-mixed is one of the tasks already"),
        ({"methods": ("prsea",)}, "unknown method 'prsea'; did you mean presa"),
        ({"methods": ("presa:papr",)}, "presa has no preset 'papr'"),
        ({"settings": {"cpl": {}}}, "settings.cpl: expected one of the methods, bc, bc-safe"),
        ({"settings": {"bc": {"n_step": 1}}}, "unknown key 'n_step'"),
        ({"noises": (0.7,)}, "noise"),
        ({"evaluation_episodes": 0}, "evaluation_episodes: expected an integer >= 1, got 0"),
    ],
)
def test_a_recipe_is_checked_before_anything_runs(change, message):
    with pytest.raises(RecipeError, match=message):
        replace(TINY, **change)


def test_an_optional_task_is_run_where_its_simulator_is(monkeypatch):
    recipe = replace(TINY, optional_tasks=("SafetyCarRun-mixed",))
    monkeypatch.setattr(benchmark, "is_installed", lambda task: task != "SafetyCarRun-v0")
    assert {cell.task for cell in recipe.cells()} == {"SafetyPointCircle1-mixed"}
    monkeypatch.setattr(benchmark, "is_installed", lambda task: True)
    assert {cell.task for cell in recipe.cells()} == {"SafetyPointCircle1-mixed", "SafetyCarRun-mixed"}
    with pytest.raises(RecipeError, match="SafetyCarFly"):
        replace(TINY, optional_tasks=("SafetyCarFly-mixed",))


def test_a_file_is_read_or_refused_in_one_line(tmp_path):
    with pytest.raises(RecipeError, match="none of that name ships; there are core, noise, pairs, quick"):
        load_benchmark("corr")
    for text, message in (
        ("tasks = [", "not valid TOML"),
        ("task = []", "unknown key 'task'; expected tasks"),
        ("tasks = ['a']", "no methods"),
    ):
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(RecipeError, match=message):
            load_benchmark(tmp_path / "bad.toml")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StoreError, match="not empty and no benchmark; choose another --out"):
        run_benchmark(TINY, tmp_path)


@pytest.mark.simulator
def test_a_killed_benchmark_goes_on_where_it_was_and_does_nothing_twice(tmp_path):
    (tmp_path / "tiny.toml").write_text(TEXT)
    process = subprocess.Popen([*FBGEN, "benchmark", "tiny.toml", "--out", "out"], cwd=tmp_path)
    runs = tmp_path / "out/runs/SafetyPointCircle1-mixed/noise0-pairs40-length16-unsafe0-seed3"
    first = runs / "bc/benchmark.json"
    deadline = time.monotonic() + 120
    while not first.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out/results.parquet").exists()
    policy = (runs / "bc/policy.safetensors").stat().st_mtime_ns

    results = run_benchmark(load_benchmark(tmp_path / "tiny.toml"), tmp_path / "out")
    assert (runs / "bc/policy.safetensors").stat().st_mtime_ns == policy
    rows = parquet.read_table(results).to_pylist()
    assert [row["method"] for row in rows] == ["bc", "bc-safe"]
    assert {row["task"] for row in rows} == {"SafetyPointCircle1-v0"} and {row["seed"] for row in rows} == {3}
    assert "n_steps = 30" in rows[1]["config"] and "torch" in rows[1]["versions"]
    assert rows[0]["train_seconds"] > 0 and len(rows[0]["feedback_sha256"]) == 64

    with pytest.raises(StoreError, match="holds a benchmark of another recipe; choose another --out"):
        run_benchmark(TINY, tmp_path / "out")

    # Trained by another default, say, since the package was upgraded: trained anew, and that alone.
    config = (runs / "bc/config.toml").read_text()
    (runs / "bc/config.toml").write_text(config.replace("n_steps = 20", "n_steps = 19"))
    safe_policy = (runs / "bc-safe/policy.safetensors").stat().st_mtime_ns
    again = run_benchmark(load_benchmark(tmp_path / "tiny.toml"), tmp_path / "out")
    assert (runs / "bc/config.toml").read_text() == config
    assert (runs / "bc/policy.safetensors").stat().st_mtime_ns > policy
    assert (runs / "bc-safe/policy.safetensors").stat().st_mtime_ns == safe_policy
    outcome = [(row["method"], row["return"], row["cost"]) for row in rows]
    assert [(row["method"], row["return"], row["cost"]) for row in parquet.read_table(again).to_pylist()] == outcome


@pytest.mark.simulator
def test_runs_known_from_elsewhere_are_taken_as_they_are_and_data_must_agree(tmp_path):
    (tmp_path / "tiny.toml").write_text(TEXT)
    recipe = load_benchmark(tmp_path / "tiny.toml")
    known = run_benchmark(recipe, tmp_path / "here")
    rows = parquet.read_table(known).to_pylist()

    text = TEXT.replace("seeds = [3]", "seeds = [2, 3]").replace('["bc", "bc-safe"]', '["bc-safe", "bc"]')
    (tmp_path / "wider.toml").write_text(text)
    wider = load_benchmark(tmp_path / "wider.toml")
    subprocess.run(
        [*FBGEN, "benchmark", "wider.toml", "--out", "there", "--known", "here/results.parquet"],
        cwd=tmp_path,
        check=True,
    )
    merged = parquet.read_table(tmp_path / "there/results.parquet")
    assert [(row["seed"], row["method"]) for row in merged.to_pylist()] == [
        (2, "bc-safe"), (2, "bc"), (3, "bc-safe"), (3, "bc"),
    ]  # fmt: skip
    assert merged.to_pylist()[2:] == rows[::-1]
    run = tmp_path / "there/runs/SafetyPointCircle1-mixed/noise0-pairs40-length16-unsafe0-seed3"
    assert not run.exists()
    # With all known, no dataset is needed; other settings make other runs.
    run_benchmark(recipe, tmp_path / "all", known=[known])
    assert not (tmp_path / "all/datasets").exists()
    longer = replace(recipe, settings={**recipe.settings, "bc": {"cloning.n_steps": 21}})
    run_benchmark(longer, tmp_path / "longer", known=[known])
    assert {path.name for path in (tmp_path / "longer").glob("runs/*/*/*")} == {"bc"}

    with pytest.raises(StoreError, match=r"its datasets are cut to 11 episodes .*, this recipe's to 12"):
        run_benchmark(replace(recipe, n_episodes=12), tmp_path / "twelve", known=[known])
    table = parquet.read_table(known)
    other = [{**row, "dataset_fingerprint": "0" * 64} for row in rows]
    parquet.write_table(
        type(table).from_pylist(other).replace_schema_metadata(table.schema.metadata), tmp_path / "other.parquet"
    )
    with pytest.raises(StoreError, match=r"of another SafetyPointCircle1-mixed .fingerprint 00000000, not "):
        run_benchmark(wider, tmp_path / "data", known=[tmp_path / "other.parquet"])


@pytest.mark.simulator
def test_parts_that_machines_have_run_are_gathered_without_a_run(tmp_path):
    (tmp_path / "tiny.toml").write_text(TEXT.replace("seeds = [3]", "seeds = [2, 3]"))
    whole = load_benchmark(tmp_path / "tiny.toml")
    with pytest.raises(DataError, match="nothing to gather, no run of the recipe is done here or in what is known"):
        run_benchmark(whole, tmp_path / "whole", gather=True)
    assert not (tmp_path / "whole").exists()
    first, second = (run_benchmark(replace(whole, seeds=(seed,)), tmp_path / f"{seed}") for seed in (2, 3))
    known = ["--known", "2/results.parquet", "--known", "3/results.parquet"]
    subprocess.run([*FBGEN, "benchmark", "tiny.toml", "--out", "whole", *known, "--gather"], cwd=tmp_path, check=True)
    assert parquet.read_table(tmp_path / "whole/results.parquet").to_pylist() == [
        row for part in (first, second) for row in parquet.read_table(part).to_pylist()
    ]
    assert not (tmp_path / "whole/datasets").exists()

    # What is missing is left out and can be told; what the folder holds is there.
    wider = replace(whole, seeds=(2, 3, 4))
    about, _ = read_table(run_benchmark(wider, tmp_path / "wider", known=[second], gather=True))
    assert (about["n_runs"], about["n_done"]) == (6, 2)
    gathered = run_benchmark(replace(whole, seeds=(2,)), tmp_path / "2", gather=True)
    assert parquet.read_table(gathered).num_rows == 2

    # Of a run in two files the first counts; files of two datasets have nothing to say to each other.
    table = parquet.read_table(second)
    for name, change in {"later": {"return": -1.0}, "other": {"dataset_fingerprint": "0" * 64}}.items():
        rows = [{**row, **change} for row in table.to_pylist()]
        changed = type(table).from_pylist(rows).replace_schema_metadata(table.schema.metadata)
        parquet.write_table(changed, tmp_path / f"{name}.parquet")
    results = run_benchmark(whole, tmp_path / "whole", known=[second, tmp_path / "later.parquet"], gather=True)
    assert parquet.read_table(results).to_pylist() == table.to_pylist()
    with pytest.raises(StoreError, match=r"of another SafetyPointCircle1-mixed .fingerprint 00000000, not "):
        run_benchmark(whole, tmp_path / "two", known=[first, tmp_path / "other.parquet"], gather=True)


@pytest.mark.simulator
def test_a_method_that_reads_no_labels_is_trained_once_for_all_of_them(tmp_path):
    (tmp_path / "tiny.toml").write_text(TEXT)
    recipe = replace(load_benchmark(tmp_path / "tiny.toml"), noises=(0.0, 0.2))
    rows = parquet.read_table(run_benchmark(recipe, tmp_path / "out")).to_pylist()
    assert [(row["noise"], row["method"]) for row in rows] == [
        (0.0, "bc"), (0.0, "bc-safe"), (0.2, "bc"), (0.2, "bc-safe"),
    ]  # fmt: skip
    assert len(list((tmp_path / "out").glob("runs/*/*/bc"))) == 1
    assert len(list((tmp_path / "out").glob("runs/*/*/bc-safe"))) == 2
    assert rows[0]["return"] == rows[2]["return"] and rows[0]["train_seconds"] > rows[2]["train_seconds"] == 0

    # Nor is it trained again where it is known from elsewhere.
    part = run_benchmark(replace(recipe, noises=(0.0,)), tmp_path / "part", known=[tmp_path / "out/results.parquet"])
    again = parquet.read_table(run_benchmark(recipe, tmp_path / "again", known=[part], gather=True)).to_pylist()
    assert again == rows[:3]


@pytest.mark.simulator
def test_an_interrupted_benchmark_leaves_the_results_so_far(tmp_path):
    (tmp_path / "tiny.toml").write_text(TEXT)
    recipe = load_benchmark(tmp_path / "tiny.toml")

    def stage(name):
        def report(done, total):
            if name == "train and evaluate" and done == 1:
                raise KeyboardInterrupt

        return report

    with pytest.raises(KeyboardInterrupt):
        run_benchmark(recipe, tmp_path / "out", progress=stage)
    assert [row["method"] for row in parquet.read_table(tmp_path / "out/results.parquet").to_pylist()] == ["bc"]


def test_damage_is_not_read_as_other_numbers(tmp_path):
    rng = np.random.default_rng(0)
    rows = {cell: [{"return": float(value)} for value in rng.random(300)] for cell in TINY.cells()}
    results = _write_results(tmp_path, TINY, rows)
    whole, intact = results.read_bytes(), read_table(results)
    assert len(intact[1]) == 600
    pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # behind them lies the footer
    n_refused = 0
    for place in rng.integers(4, pages, 100):
        results.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert read_table(results) == intact  # a page header's statistics, which nobody reads
        except StoreError:
            n_refused += 1
    assert n_refused > 90
