"""``fbgen import`` and ``fbgen export``, message by message."""

import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from fbgen import main as main_module
from fbgen.exchange import FORMATS
from peers import cpl_arrays, dsrl_arrays, omnisafe_arrays, write_hdf5
from samples import DATASET, make_dataset

from feedbackgen.interop.exports import EXPORTS

FILE = "SafetyPointCircle1Gymnasium-v0-200-1098.hdf5"


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


def test_a_dsrl_file_is_imported_and_exported(fbgen):
    write_hdf5(FILE, dsrl_arrays() | {"extra": [1, 2]})
    code, out, err = fbgen("import", "dsrl", FILE)
    assert code == 0 and "SafetyPointCircle1-v0" in out and "left out: extra" in err
    dataset = "dsrl/SafetyPointCircle1-v0/SafetyPointCircle1Gymnasium-v0-200-1098-v0"
    assert dataset in out
    code, out, _ = fbgen("export", dataset, "--format", "dsrl", "--out", "out.hdf5")
    assert code == 0 and out == "out.hdf5\n" and Path("out.hdf5").is_file()


def test_omnisafe_and_cpl_files_are_imported_and_exported(fbgen):
    np.savez("data.npz", **omnisafe_arrays())
    code, out, _ = fbgen("import", "omnisafe", "data.npz", "--task", "PointCircle1", "--dataset-id", "mine/data-v0")
    assert code == 0 and "mine/data-v0" in out
    assert fbgen("export", "mine/data-v0", "--format", "omnisafe", "--out", "out.npz")[0] == 0
    np.savez("prefs.npz", **cpl_arrays())
    code, out, _ = fbgen("import", "cpl", "prefs.npz", "--task", "mine", "--horizon", 4)
    assert code == 0 and "cpl/mine/prefs-v0/feedback/default.zarr" in out and "none told" in out
    for format_, out in (("cpl", "p.npz"), ("uni-rlhf", "u"), ("preference-transformer", "t"), ("parquet", "q")):
        assert fbgen("export", "cpl/mine/prefs-v0", "--format", format_, "--out", out)[0] == 0
        assert Path(out).exists()


def test_the_formats_that_the_help_names_are_those_there_are():
    assert FORMATS.split(", ") == list(EXPORTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "dsrl", "absent.hdf5"], "absent.hdf5: no such file"),
        (["import", "dsrl", FILE, "--task", "PointGaol1"], "did you mean PointGoal1"),
        (["import", "minari", "absent-v0"], "`minari download absent-v0` fetches one"),
        (["import", "minari", DATASET], "is feedbackgen's own; use it as it is"),
        (["export", DATASET, "--format", "lerobot"], "--format lerobot: expected one of dsrl"),
        (["export", DATASET, "--format", "omnisafe"], "--format omnisafe: say where to with --out PATH"),
        (["export", DATASET, "--format", "cpl", "--out", "x.npz"], "no feedback named 'default'"),
        (["export", DATASET, "--format", "imitation", "--out", "x.pkl", "--python", "nopython"], "cannot be run"),
        (["export", DATASET, "--format", "torch", "--out", "x.pt", "--python", "p"], "goes with --format imitation"),
        (["export", "absent-v0", "--format", "dsrl"], "dataset absent-v0: not found"),
        (["export", DATASET, "--format", "dsrl", "--out", FILE], f"{FILE} exists; use --force"),
    ],
)
def test_what_cannot_be_exchanged_is_one_line(fbgen, arguments, message):
    make_dataset()
    write_hdf5(FILE, dsrl_arrays())
    code, out, err = fbgen(*arguments)
    assert code == 1 and not out
    assert err.startswith("fbgen: ") and err.count("\n") == 1 and message in err
