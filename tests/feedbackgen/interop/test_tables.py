"""Parquet and tensors: everything there, nothing copied, the conventions said."""

import sys

import numpy as np
import pytest
import torch
from pyarrow import parquet
from samples import DATASET, make_dataset, make_episode

from feedbackgen.episodes import dataset_info
from feedbackgen.errors import DataError, MissingDependency, StoreError
from feedbackgen.interop.tables import export_parquet, export_torch


def test_a_datasets_tensors_are_its_arrays(tmp_path):
    info = make_dataset()
    content = torch.load(export_torch(DATASET, tmp_path / "out.pt"), weights_only=True)
    assert content["dataset_fingerprint"] == info.fingerprint and content["horizon"] == 500
    assert content["observations"].shape == (480, 28) and content["observations"].dtype == torch.float32
    third = make_episode(3, unsafe=True)
    steps = slice(int(content["starts"][3]), int(content["starts"][4]))
    np.testing.assert_array_equal(content["costs"][steps], np.float32(third.costs))
    np.testing.assert_array_equal(content["final_observations"][3], np.float32(third.observations[-1]))
    assert "preference_label" not in content


def test_feedbacks_tensors_refer_to_rows(tmp_path, make_feedback, segment_of):
    episodes, feedback = make_feedback()
    content = torch.load(export_torch(f"{DATASET}/default", tmp_path / "out.pt"), weights_only=True)
    rows = content["segment_start"][content["preference_pair"]]
    steps = rows[..., None] + torch.arange(6)
    segments = content["observations"][steps]  # (P, 2, H, O)
    for pair, sides in enumerate(feedback.preferences.pair):
        for side, segment in enumerate(sides):
            np.testing.assert_array_equal(segments[pair, side], segment_of(episodes, feedback, segment))
    assert content["preference_label"].tolist() == [0, 1, 0.5, 1]
    assert content["safety_label"].tolist() == [1, -1] and content["safety_segment"].tolist() == [1, 4]
    assert content["preference"] == "P(second preferred): 1 the second, 0 the first, 0.5 equal"


def test_parquet_holds_steps_episodes_and_labels(tmp_path, make_feedback):
    episodes, _ = make_feedback()
    out = export_parquet(f"{DATASET}/default", tmp_path / "out")
    assert sorted(file.name for file in out.iterdir()) == [
        "episodes.parquet", "preferences.parquet", "safety.parquet", "steps.parquet",
    ]  # fmt: skip
    tables = {file.stem: parquet.read_table(file) for file in out.iterdir()}
    steps = tables["steps"].to_pydict()
    second = [row for row, episode in enumerate(steps["episode"]) if episode == 1]
    np.testing.assert_array_equal([steps["observation"][row] for row in second], episodes[1].observations[:-1])
    np.testing.assert_array_equal([steps["reward"][row] for row in second], episodes[1].rewards)
    assert tables["steps"].column_names[-2:] == ["cost", "cost_out_of_boundary"]
    listed = tables["episodes"].to_pydict()
    assert listed["n_steps"] == [20, 21, 22, 23, 24] and listed["seed"] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(listed["final_observation"][4], episodes[4].observations[-1])
    preferences = tables["preferences"].to_pydict()
    assert preferences["label"] == [0, 1, 0.5, 1] and preferences["first_start"] == [14, 3, 18, 2]
    assert preferences["second_episode"] == [1, 3, 4, 0] and preferences["first_length"] == [6] * 4
    assert tables["safety"].to_pydict()["label"] == [1, -1]
    said = tables["preferences"].schema.metadata
    assert said[b"preference"].startswith(b"P(second preferred)")
    assert said[b"dataset_fingerprint"].decode() == dataset_info(DATASET).fingerprint


@pytest.mark.parametrize(("export", "module"), [(export_torch, "torch"), (export_parquet, "pyarrow")])
def test_a_package_that_is_not_there_is_one_line(tmp_path, monkeypatch, export, module):
    make_dataset()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=rf"needs {module}; install it with pip install 'feedbackgen\["):
        export(DATASET, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("export", [export_torch, export_parquet])
def test_what_is_not_there_is_named(tmp_path, export):
    make_dataset()
    with pytest.raises(DataError, match="dataset absent-v0: not found"):
        export("absent-v0", tmp_path / "out")
    with pytest.raises(StoreError, match="no feedback named 'other'"):
        export(f"{DATASET}/other", tmp_path / "out")
