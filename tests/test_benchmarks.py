"""The contenders of the benchmarks still run; how fast they are is measured by hand."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name):
    specification = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def label(tmp_path, monkeypatch):
    module = load("label")
    monkeypatch.setattr(module, "N_EPISODES", 12)
    monkeypatch.setattr(module, "N_STEPS", 300)
    module.make_dataset(tmp_path / "rewards.npy")
    return module


@pytest.mark.parametrize(
    "contender",
    ["ours", "ours_on_disk", "draw_flat", "draw_windows", "draw_minari", "draw_torch", "draw_mapped"],
)
def test_each_contender_of_labelling_does_as_many_as_it_is_asked_for(label, contender):
    assert label.IMPORTS.keys() >= {contender}
    run = getattr(label, contender)(20)
    assert run() == run() == 20


@pytest.fixture
def train(tmp_path, monkeypatch):
    module = load("train")
    monkeypatch.setattr(module, "N_EPISODES", 12)
    monkeypatch.setattr(module, "N_STEPS", 100)
    monkeypatch.setattr(module, "N_PAIRS", 3)
    monkeypatch.setattr(module, "N_SAFETY", 4)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    yield module
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize(
    ("contender", "arguments"),
    [
        ("products", {"n_rows": 192}),
        ("updates", {"method": "cloning"}),
        ("updates", {"method": "cpl", "n_segment_steps": 64}),
        ("updates", {"method": "presa", "n_segment_steps": 16}),
    ],
)
def test_each_contender_of_learning_takes_as_many_updates_as_it_is_asked_for(train, contender, arguments, precision):
    run = getattr(train, contender)(**arguments, precision=precision)
    assert run(2) == run(2) == 2


@pytest.mark.simulator
def test_the_parts_of_a_run_are_timed_and_its_policy_is_evaluated_in_every_way(train, tmp_path, monkeypatch):
    from feedbackgen.environments import upstream

    monkeypatch.setattr(upstream, "_put_right_world", upstream._put_right_world)  # one way replaces it
    short = {"cloning.n_steps": 3, "refining.n_steps": 3, "n_steps": 3, "n_pairs": 3, "n_safety_segments": 4}
    run, seconds = train.whole_run(tmp_path, n_episodes=12, n_evaluated=1, overrides=short)
    parts = ["loading", "cloning", "refining", "presa", "records", "evaluating"]
    assert [part for part in seconds if part in parts] == parts and min(seconds.values()) >= 0
    assert train.acting(str(run))(1) == train.physics(str(run))(1) == 1000
    ways = [train.side_by_side, train.one_by_one, train.upstream]
    assert [way(str(run))(1) for way in ways] == [1000, 1000, 1000]


@pytest.mark.simulator
def test_the_load_on_the_annotation_server_loses_no_answer(tmp_path):
    figures = tmp_path / "figures.json"
    options = ["--seconds", "2", "--rate", "40", "--json", figures]
    subprocess.run([sys.executable, BENCHMARKS / "annotate.py", *options], check=True, capture_output=True)
    found = json.loads(figures.read_text())
    assert found["errors"] == 0 and found["requests"] > 40
    assert found["acknowledged"] == found["answers_in_the_file"] >= found["requests"] // 2 - 4
