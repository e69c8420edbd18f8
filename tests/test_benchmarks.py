"""The contenders of the benchmarks still run; how fast they are is measured by hand."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.simulator
def test_the_load_on_the_annotation_server_loses_no_answer(tmp_path):
    figures = tmp_path / "figures.json"
    options = ["--seconds", "2", "--rate", "40", "--json", figures]
    subprocess.run([sys.executable, BENCHMARKS / "annotate.py", *options], check=True, capture_output=True)
    found = json.loads(figures.read_text())
    assert found["errors"] == 0 and found["requests"] > 40
    assert found["acknowledged"] == found["answers_in_the_file"] >= found["requests"] // 2 - 4
