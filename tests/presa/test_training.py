import csv
import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from feedbackgen.episodes import write_dataset
from feedbackgen.errors import DataError, OutputExists, RecipeError, StoreError
from feedbackgen.label import LabelConfig, label
from feedbackgen.types import Episode
from presa import lagrange
from presa.algorithms.presa import PreSa
from presa.checkpoint import load_policy
from presa.training import COLUMNS, fit, train

PROVENANCE = {"method": "presa", "seed": 3, "task": "two-states", "dataset_fingerprint": "d", "feedback_sha256": "f"}


@pytest.fixture
def config(small_config):
    """Two phases of the reference end off the grid on which states are saved."""
    cloning = replace(small_config.cloning, n_steps=250, batch_size=32)
    return replace(small_config, cloning=cloning, refining=cloning, n_steps=350, n_pairs=8, n_safety_segments=8)


def interrupted_at(step):
    def progress(done, *_):
        if done == step:
            raise KeyboardInterrupt

    return progress


def interrupted(data, config, out, step):
    with pytest.raises(KeyboardInterrupt):
        fit(data, config, PROVENANCE, out=out, progress=interrupted_at(step))


def test_a_run_folder_holds_policy_configuration_provenance_and_metrics(data, config, tmp_path):
    calls = []
    run = fit(data, config, PROVENANCE, out=tmp_path / "run", progress=lambda *done: calls.append(done))
    assert calls[-1][:3] == (850, 850, "presa")
    assert calls[-1][3].keys() >= {"multiplier", "constraint_value", "constraint_threshold"}
    record = json.loads((run / "provenance.json").read_text())
    assert record["method"] == "presa"
    assert {"versions", "created", "host", "estimates"} <= record.keys()
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["step"] for row in rows] == ["100", "200", "300", "400", "500", "600", "700", "800", "850"]
    assert [row["phase"] for row in rows] == ["cloning"] * 2 + ["refining"] * 3 + ["presa"] * 4
    assert list((run / "tensorboard").glob("events.out.*"))
    assert not (run / "training_state.safetensors").exists()
    assert load_policy(run).task == "two-states"


@pytest.fixture
def warning_config(config, monkeypatch):
    """The multiplier rests at its cap from the start, and is soon reported."""
    monkeypatch.setattr(lagrange, "UPDATES_AT_CAP", 5)
    return replace(config, multiplier_initial=5.0, multiplier_rate=1.0, threshold=1.0)


def test_a_warning_is_told_as_it_comes_and_stays_in_the_run_folder(data, warning_config, tmp_path, recwarn):
    events = []
    run = fit(
        data,
        warning_config,
        PROVENANCE,
        out=tmp_path / "run",
        progress=lambda done, *_: events.append(done),
        warn=events.append,
    )
    told = [event for event in events if isinstance(event, str)]
    assert len(told) == 1 and "its multiplier rests at the cap 5.0" in told[0]
    assert events.index(told[0]) < events.index(600)
    assert (run / "warnings.txt").read_text() == f"600: {told[0]}\n"
    assert not [warning for warning in recwarn if warning.category is UserWarning]


def test_a_warning_is_pythons_where_nobody_is_told(data, warning_config, tmp_path):
    with pytest.warns(UserWarning, match="rests at the cap"):
        fit(data, warning_config, PROVENANCE, out=tmp_path / "run")


def test_a_silenced_warning_stays_in_the_run_folder_and_comes_once_in_a_resumed_run(data, warning_config, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        interrupted(data, warning_config, tmp_path / "run", 600)
        fit(data, warning_config, PROVENANCE, out=tmp_path / "run", resume=True)
        assert len((tmp_path / "run" / "warnings.txt").read_text().splitlines()) == 1
        fit(data, replace(warning_config, multiplier_max=9.0), PROVENANCE, out=tmp_path / "run", force=True)
    assert "the cap 9.0" in (tmp_path / "run" / "warnings.txt").read_text()


def test_a_run_without_a_warning_has_no_file_of_them(data, config, tmp_path, recwarn):
    assert not (fit(data, config, PROVENANCE, out=tmp_path / "run") / "warnings.txt").exists()
    assert not [warning for warning in recwarn if warning.category is UserWarning]


def test_the_same_seed_gives_the_same_bytes(data, config, tmp_path):
    runs = [fit(data, config, PROVENANCE, out=tmp_path / name) for name in ("one", "two")]
    for name in ("policy.safetensors", "metrics.csv", "config.toml"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()


def test_another_seed_gives_another_policy(data, config, tmp_path):
    one = fit(data, config, PROVENANCE, out=tmp_path / "one")
    two = fit(data, config, PROVENANCE | {"seed": 4}, out=tmp_path / "two")
    assert (one / "policy.safetensors").read_bytes() != (two / "policy.safetensors").read_bytes()


@pytest.mark.parametrize("n_steps", [250, 220])  # the reference ends at 500, where the state is saved, or before
def test_a_resumed_run_equals_an_undisturbed_one(data, config, tmp_path, n_steps):
    config = replace(
        config, cloning=replace(config.cloning, n_steps=n_steps), refining=replace(config.refining, n_steps=n_steps)
    )
    undisturbed = fit(data, config, PROVENANCE, out=tmp_path / "undisturbed")
    interrupted(data, config, tmp_path / "resumed", 700)
    assert not (tmp_path / "resumed" / "policy.safetensors").exists()
    resumed = fit(data, config, PROVENANCE, out=tmp_path / "resumed", resume=True)
    for name in ("policy.safetensors", "metrics.csv"):
        assert (resumed / name).read_bytes() == (undisturbed / name).read_bytes()


def test_resuming_before_the_first_state_starts_again(data, config, tmp_path):
    interrupted(data, config, tmp_path / "run", 100)
    run = fit(data, config, PROVENANCE, out=tmp_path / "run", resume=True)
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + 9


def test_resuming_a_finished_run_changes_nothing(data, config, tmp_path):
    run = fit(data, config, PROVENANCE, out=tmp_path / "run")
    before = (run / "policy.safetensors").stat().st_mtime_ns
    fit(data, config, PROVENANCE, out=run, resume=True)
    assert (run / "policy.safetensors").stat().st_mtime_ns == before


def test_another_configuration_or_seed_cannot_resume_a_run(data, config, tmp_path):
    interrupted(data, config, tmp_path / "run", 600)
    with pytest.raises(StoreError, match="cannot be resumed, it differs in seed, config"):
        fit(data, replace(config, threshold=0.5), PROVENANCE | {"seed": 9}, out=tmp_path / "run", resume=True)


def test_nothing_is_overwritten_without_force(data, config, tmp_path):
    interrupted(data, config, tmp_path / "run", 100)
    with pytest.raises(OutputExists, match="is unfinished; --resume continues it"):
        fit(data, config, PROVENANCE, out=tmp_path / "run")
    fit(data, config, PROVENANCE, out=tmp_path / "run", force=True)
    with pytest.raises(OutputExists, match="use --force to replace it"):
        fit(data, config, PROVENANCE, out=tmp_path / "run")


def test_force_never_empties_a_folder_that_is_no_run(data, config, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExists, match="is no run folder"):
        fit(data, config, PROVENANCE, out=tmp_path)
    with pytest.raises(StoreError, match="nothing was removed"):
        fit(data, config, PROVENANCE, out=tmp_path, force=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_diverging_training_stops_with_one_line_and_no_policy(data, config, tmp_path):
    config = replace(config, learning_rate=1e30, cloning=replace(config.cloning, n_steps=0))
    with pytest.raises(DataError, match="lower the learning rate"):
        fit(data, replace(config, reference="all", departure_threshold=0.0), PROVENANCE, out=tmp_path / "run")
    assert not (tmp_path / "run" / "policy.safetensors").exists()


def point_circle_episode(index: int) -> Episode:
    rng = np.random.default_rng(index)
    return Episode(
        observations=rng.standard_normal((61, 28)),
        actions=rng.uniform(-1, 1, (60, 2)).astype(np.float32),
        rewards=rng.standard_normal(60),
        costs=np.full(60, float(index % 2)),
        terminations=np.zeros(60, dtype=bool),
        truncations=np.arange(60) == 59,
        seed=index,
        policy="random",
    )


@pytest.fixture
def store(tmp_path):
    episodes = (point_circle_episode(index) for index in range(16))
    info = write_dataset(
        "feedbackgen/SafetyPointCircle1-v0/tiny-v0", episodes, task="SafetyPointCircle1-v0", root=tmp_path
    )
    return label(info.path, LabelConfig(n_pairs=40, segment_length=16)).path


SHORT = {"cloning.n_steps": 5, "refining.n_steps": 5, "policy.hidden_sizes": [4],
         "aggregation.preference_sharpness": 0}  # fmt: skip


def test_a_policy_is_trained_from_a_store_on_disk_and_says_from_which(store, tmp_path):
    run = train("reference", store, seed=0, overrides=SHORT, out=tmp_path / "run")
    record = json.loads((run / "provenance.json").read_text())
    assert (record["task"], record["horizon"], record["preset"]) == ("SafetyPointCircle1-v0", 500, "default")
    assert record["dataset_id"] == "feedbackgen/SafetyPointCircle1-v0/tiny-v0"
    assert {"return_min", "return_max", "cost_limit", "feedback", "feedback_sha256"} <= record.keys()
    assert load_policy(run).act(np.zeros(28)).shape == (2,)


def test_what_only_the_teacher_knows_changes_nothing(store, tmp_path):
    before = train("reference", store, seed=0, overrides=SHORT, out=tmp_path / "before")
    # Only the chunks: the store must still look whole to its reader.
    for chunks in store.glob("oracle/*/c"):
        shutil.rmtree(chunks)
    after = train("reference", store, seed=0, overrides=SHORT, out=tmp_path / "after")
    assert (before / "policy.safetensors").read_bytes() == (after / "policy.safetensors").read_bytes()


def test_steps_left_on_disk_give_the_same_policy(store, tmp_path):
    overrides = SHORT | {"n_steps": 5, "n_pairs": 8, "n_safety_segments": 8}
    runs = [
        train("presa", store, seed=0, overrides=overrides, mapped=mapped, out=tmp_path / f"run{mapped}")
        for mapped in (False, True)
    ]
    assert (runs[0] / "policy.safetensors").read_bytes() == (runs[1] / "policy.safetensors").read_bytes()


def test_a_run_is_named_after_task_feedback_method_preset_and_seed(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = train("bc", store, seed=7, overrides={"cloning.n_steps": 1})
    assert run.as_posix() == "runs/SafetyPointCircle1-v0/default-bc-default-seed7"


def test_a_negative_seed_is_refused(store):
    with pytest.raises(RecipeError, match="seed: expected an integer >= 0, got -1"):
        train("bc", store, seed=-1)


def test_the_precision_of_products_holds_during_training_alone(data, config, tmp_path):
    seen = set()

    class Watched(PreSa):
        def update(self, step):
            seen.add(torch.get_float32_matmul_precision())
            return super().update(step)

    for precision in ("exact", "fast"):
        fit(data, config, PROVENANCE | {"precision": precision}, learner=Watched, out=tmp_path / precision)
        assert torch.get_float32_matmul_precision() == "highest"
        assert seen == {{"exact": "highest", "fast": "medium"}[precision]}
        seen.clear()


def test_a_run_records_its_precision_and_another_cannot_resume_it(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = train("bc", store, seed=0, overrides={"cloning.n_steps": 1}, precision="fast")
    assert run.name == "default-bc-default-fast-seed0"
    assert json.loads((run / "provenance.json").read_text())["precision"] == "fast"
    with pytest.raises(StoreError, match="cannot be resumed, it differs in precision"):
        train("bc", store, seed=0, overrides={"cloning.n_steps": 1}, out=run, resume=True)


def test_a_run_that_names_no_precision_is_exact(data, config, tmp_path):
    interrupted(data, config, tmp_path / "run", 700)
    fit(data, config, PROVENANCE | {"precision": "exact"}, out=tmp_path / "run", resume=True)


def test_an_unknown_precision_is_refused(store):
    with pytest.raises(RecipeError, match="precision: expected exact or fast, got 'sloppy'"):
        train("bc", store, seed=0, precision="sloppy")
