"""Datasets that travel, by command."""

import json
import signal
import sys

import pytest
from fbgen import main as main_module
from samples import DATASET, make_dataset

from feedbackgen.label import LabelConfig, label


@pytest.fixture
def fbgen(monkeypatch, capsys):
    """Run a command in this process: exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fbgen", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main_module.main()
        captured = capsys.readouterr()
        return exit_.value.code or 0, captured.out, captured.err

    yield run
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_dataset_goes_out_comes_back_and_is_proven(fbgen, tmp_path, monkeypatch):
    make_dataset()
    label(DATASET, LabelConfig(n_pairs=60, segment_length=8))
    (tmp_path / "paper.bib").write_text("@misc{paper}")
    options = ["--to", tmp_path / "there", "--author", "Ada", "--citation", "paper.bib", "--licence", "mit"]
    code, out, _ = fbgen("publish", DATASET, *options)
    place = tmp_path / "there" / DATASET
    assert code == 0 and f"published at {place}" in out
    card = (place / "README.md").read_text()
    assert "license: mit" in card and "By Ada." in card and "@misc{paper}" in card
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "elsewhere"))
    assert json.loads(fbgen("list", tmp_path / "there", "--json")[1])["bundles"][0]["dataset_id"] == DATASET
    assert "60 preferences" in fbgen("show", place)[1]
    code, out, _ = fbgen("pull", place, "--json")
    assert code == 0 and json.loads(out)["bytes_moved"] > 0
    code, out, _ = fbgen("verify", DATASET)
    assert code == 0 and "all as published" in out
    assert DATASET in fbgen("list")[1] and "default" in fbgen("list", "local")[1]
    assert json.loads(fbgen("show", DATASET, "--json")[1])["facts"]["dataset"]["n_episodes"] == 12
    code, out, _ = fbgen("combine", DATASET, DATASET, "--dataset-id", "both-v0")
    assert code == 0 and "episodes  24" in out
    assert fbgen("delete", "both-v0", "--yes")[0] == 0 and "both-v0" not in fbgen("list")[1]


def test_faults_are_listed_and_end_in_one_line(fbgen, tmp_path):
    make_dataset()
    fbgen("publish", DATASET, "--to", tmp_path / "there")
    place = tmp_path / "there" / DATASET
    (place / "returns.png").write_bytes(b"other")
    code, out, error = fbgen("verify", place)
    assert code == 1 and out.startswith("returns.png: expected")
    assert error == f"fbgen: {place}: 1 fault in what was published; pull it again\n"
    assert len(json.loads(fbgen("verify", place, "--json")[1])["faults"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["publish", "absent-v0", "--to", "there"], "dataset absent-v0: not found"),
        (["publish", DATASET, "--to", "there", "--citation", "no.bib"], "--citation no.bib: no such file"),
        (["publish", DATASET, "--to", "ftpx://there"], "ftpx://there/"),
        (["pull", "nowhere"], "cannot read nowhere: no bundle there"),
        (["verify", "absent-v0"], "dataset absent-v0: not found"),
        (["rebuild", DATASET], "holds no recipe"),
        (["list", "nowhere"], "nowhere: no such folder"),
        (["show", "absent-v0"], "dataset absent-v0: not found"),
        (["delete", "absent-v0", "--yes"], "dataset absent-v0: not found"),
        (["combine", DATASET, "--dataset-id", "x-v0"], "expected at least two datasets, got 1"),
        (["combine", DATASET, DATASET, "--dataset-id", "x"], "dataset id 'x': expected"),
    ],
)
def test_bad_input_is_one_line(fbgen, arguments, message):
    make_dataset()
    code, _, error = fbgen(*arguments)
    assert code == 1 and error.startswith("fbgen: ") and error.count("\n") == 1 and message in error
