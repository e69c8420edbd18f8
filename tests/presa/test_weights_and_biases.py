"""A training in Weights & Biases: a stand-in keeps what it is told. tests/cli/test_commands.py has wandb itself."""

import math
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest

from feedbackgen.errors import MissingDependency, StoreError
from presa.training import fit

PROVENANCE = {"method": "presa", "seed": 3, "task": "two-states", "dataset_fingerprint": "d", "feedback_sha256": "f"}


@pytest.fixture
def config(small_config):
    """Four rows of metrics in each phase; a state is saved at 500."""
    cloning = replace(small_config.cloning, n_steps=200, batch_size=32)
    return replace(small_config, cloning=cloning, refining=cloning, n_steps=350, n_pairs=8, n_safety_segments=8)


class Run:
    """A run as wandb has them: its step is that of the last means, and after resuming the one behind."""

    def __init__(self, asked, step):
        self.asked, self.step = asked, step
        self.rows, self.exit_codes = {}, []

    def log(self, values, step):
        assert step >= self.step and step not in self.rows
        self.rows[step], self.step = values, step

    def finish(self, exit_code=0):
        self.exit_codes.append(exit_code)


@pytest.fixture
def wandb(monkeypatch):
    """Keeps the runs that were begun; `mode` is W&B's."""
    module, runs = ModuleType("wandb"), []
    module.Error, module.runs = type("Error", (Exception,), {}), runs
    module.Settings = dict
    settings = SimpleNamespace(mode="online")
    module.settings, module.setup = settings, lambda: SimpleNamespace(settings=settings)

    def init(**asked):
        known = [run for run in runs if run.asked["id"] == asked["id"]] if asked["resume"] else []
        runs.append(Run(asked, known[-1].step + 1 if known else 0))
        (asked["dir"] / "wandb").mkdir(exist_ok=True)
        return runs[-1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def interrupted(data, config, out, step, **asked):
    def progress(done, *_):
        if done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(data, config, PROVENANCE, out=out, progress=progress, **asked)


def test_it_is_told_name_configuration_and_the_means_and_asked_for_nothing_else(data, config, wandb, tmp_path):
    seen = {}
    fit(
        data,
        replace(config, log_ratio_clip=math.inf),
        PROVENANCE,
        out=tmp_path / "a-run",
        wandb_project="safe",
        progress=lambda done, _, phase, means: seen.update({done: (phase, means)}),
    )
    (run,) = wandb.runs
    assert (run.asked["project"], run.asked["name"], run.asked["dir"]) == ("safe", "a-run", tmp_path / "a-run")
    told = run.asked["config"]
    assert (told["method"], told["seed"], told["config"]["cloning"]["n_steps"]) == ("presa", 3, 200)
    assert told["config"]["log_ratio_clip"] == "Infinity"  # which JSON has not
    settings = run.asked["settings"]
    assert settings["console"] == "off" and settings["x_disable_stats"] and settings["disable_git"]
    assert list(run.rows) == [100, 200, 300, 400, 500, 600, 700, 750]
    for step, (phase, means) in seen.items():
        assert run.rows[step] == {f"{phase}/{name}": value for name, value in means.items() if math.isfinite(value)}
    assert run.exit_codes == [0]


def test_the_bytes_of_a_run_do_not_depend_on_it(data, config, wandb, tmp_path):
    without = fit(data, config, PROVENANCE, out=tmp_path / "without")
    beside = fit(data, config, PROVENANCE, out=tmp_path / "beside", wandb_project="safe")
    for name in ("policy.safetensors", "metrics.csv", "config.toml"):
        assert (beside / name).read_bytes() == (without / name).read_bytes()
    assert {path.name for path in beside.iterdir()} - {path.name for path in without.iterdir()} == {
        "wandb", "wandb_id.txt"
    }  # fmt: skip


@pytest.mark.parametrize("stop", [700, 300])  # behind the state that is saved at 500, and before any is
def test_a_resumed_run_goes_on_in_the_same_one_and_tells_nothing_twice(data, config, wandb, tmp_path, stop):
    interrupted(data, config, tmp_path / "run", stop, wandb_project="safe")
    fit(data, config, PROVENANCE, out=tmp_path / "run", wandb_project="safe", resume=True)
    first, second = wandb.runs
    assert first.asked["id"] == second.asked["id"] and first.exit_codes == [1]
    assert list(first.rows) == list(range(100, stop + 1, 100))
    assert list(second.rows) == [step for step in (400, 500, 600, 700, 750) if step > stop]


def test_an_offline_run_that_is_resumed_tells_all_again(data, config, wandb, tmp_path):
    wandb.settings.mode = "offline"
    whole = fit(data, config, PROVENANCE, out=tmp_path / "whole", wandb_project="safe")
    interrupted(data, config, tmp_path / "run", 700, wandb_project="safe")
    fit(data, config, PROVENANCE, out=tmp_path / "run", wandb_project="safe", resume=True)
    undisturbed, first, second = wandb.runs
    assert first.asked["id"] == second.asked["id"] != (whole / "wandb_id.txt").read_text().strip()
    assert list(second.rows) == list(undisturbed.rows)
    for step, values in second.rows.items():
        assert values == pytest.approx(undisturbed.rows[step], rel=1e-5)


def test_a_run_begun_without_it_is_told_from_the_start(data, config, wandb, tmp_path):
    interrupted(data, config, tmp_path / "run", 600)
    fit(data, config, PROVENANCE, out=tmp_path / "run", wandb_project="safe", resume=True)
    assert list(wandb.runs[0].rows) == [100, 200, 300, 400, 500, 600, 700, 750]


def test_starting_again_is_a_new_run(data, config, wandb, tmp_path):
    interrupted(data, config, tmp_path / "run", 300, wandb_project="safe")
    (tmp_path / "run" / "wandb" / "offline-run-1").mkdir()
    fit(data, config, PROVENANCE, out=tmp_path / "run", wandb_project="safe", force=True)
    assert wandb.runs[0].asked["id"] != wandb.runs[1].asked["id"]
    assert not (tmp_path / "run" / "wandb" / "offline-run-1").exists()


def test_a_run_that_it_does_not_take_is_one_line(data, config, wandb, tmp_path):
    def refuse(**_):
        raise wandb.Error("No API key configured.")

    wandb.init = refuse
    with pytest.raises(StoreError, match=r"^Weights & Biases, project safe: No API key configured\. \(WANDB_MODE="):
        fit(data, config, PROVENANCE, out=tmp_path / "run", wandb_project="safe")


def test_its_absence_names_the_extra_before_anything_is_written(data, config, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingDependency, match=r"--wandb needs the package wandb: pip install 'feedbackgen\[wandb\]'"):
        fit(data, config, PROVENANCE, out=tmp_path / "run", wandb_project="safe")
    assert not (tmp_path / "run").exists()
