"""Uni-RLHF and Preference Transformer: their loaders, by formula, find the same segments and sides."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from peers import qlearning_table, read_as_preference_transformer, read_as_uni_rlhf
from samples import DATASET

from feedbackgen.errors import DataError, OutputExists
from feedbackgen.interop.preference_transformer import export_preference_transformer
from feedbackgen.interop.uni_rlhf import export_uni_rlhf

ENV = "SafetyPointCircle1Gymnasium-v0"
SIDES = [[1, 0], [0, 1], [0.5, 0.5], [0, 1]]  # of labels 0, 1, 0.5, 1: weight of the first, of the second
EXPORTS = [export_uni_rlhf, export_preference_transformer]


@pytest.mark.parametrize("export", EXPORTS)
def test_row_i_of_the_qlearning_table_is_step_i_of_the_dataset(tmp_path, make_feedback, export):
    episodes, _ = make_feedback()
    table = qlearning_table(export(DATASET, tmp_path / "out") / f"{ENV}.hdf5")
    for name, of in (
        ("observations", lambda one: one.observations[:-1]),
        ("next_observations", lambda one: one.observations[1:]),
        ("actions", lambda one: one.actions),
        ("rewards", lambda one: one.rewards),
        ("terminals", lambda one: one.terminations),
    ):
        expected = np.concatenate([of(one) for one in episodes])
        np.testing.assert_array_equal(table[name], expected.astype(table[name].dtype), err_msg=name)


@pytest.mark.parametrize("source", ["simulated", "people"])
def test_uni_rlhf_finds_labels_by_name_and_their_segments(tmp_path, make_feedback, segment_of, source):
    episodes, feedback = make_feedback(source=source)
    out = export_uni_rlhf(DATASET, tmp_path / "out")
    fake = source == "simulated"
    labels, first, second = read_as_uni_rlhf(
        out, ENV, 4, 6, fake_label=fake, table=qlearning_table(out / f"{ENV}.hdf5")
    )
    assert labels.tolist() == SIDES and labels.dtype == np.float64
    for pair, (one, other) in enumerate(feedback.preferences.pair):
        np.testing.assert_array_equal(first[pair], segment_of(episodes, feedback, one))
        np.testing.assert_array_equal(second[pair], segment_of(episodes, feedback, other))


def test_preference_transformer_finds_three_files_by_their_order(tmp_path, make_feedback, segment_of):
    episodes, feedback = make_feedback()
    out = export_preference_transformer(DATASET, tmp_path / "out")
    folder = out / "human_label" / ENV
    assert sorted(file.name for file in folder.iterdir()) == ["indices_2_num4", "indices_num4", "label_human"]
    labels, first, second = read_as_preference_transformer(folder, 4, 6, qlearning_table(out / f"{ENV}.hdf5"))
    assert labels.tolist() == SIDES
    for pair, (one, other) in enumerate(feedback.preferences.pair):
        np.testing.assert_array_equal(first[pair], segment_of(episodes, feedback, one))
        np.testing.assert_array_equal(second[pair], segment_of(episodes, feedback, other))


@pytest.mark.parametrize("export", EXPORTS)
def test_what_the_layouts_cannot_hold_is_refused_and_nothing_written(tmp_path, make_feedback, export):
    make_feedback(lengths=[6, 6, 6, 6, 5, 5])
    with pytest.raises(DataError, match="layout holds segments of one length, and the feedback has 5 to 6 steps"):
        export(DATASET, tmp_path / "out")
    make_feedback(n_pairs=0)
    with pytest.raises(DataError, match="layout holds preferences, and there are none"):
        export(DATASET, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("export", EXPORTS)
def test_nothing_is_overwritten_without_force(tmp_path, make_feedback, export):
    make_feedback()
    out = export(DATASET, tmp_path / "out")
    with pytest.raises(OutputExists, match="use --force"):
        export(DATASET, out)
    assert export(DATASET, out, force=True) == out


def test_the_example_reads_the_same_table_without_d4rl(tmp_path, make_feedback):
    make_feedback()
    path = export_uni_rlhf(DATASET, tmp_path / "out") / f"{ENV}.hdf5"
    example = runpy.run_path(str(Path(__file__).parents[3] / "examples" / "qlearning_table.py"))
    table, expected = example["qlearning_table"](path), qlearning_table(path)
    expected["dones"] = expected.pop("terminals").astype(np.float32)
    assert table.keys() == expected.keys()
    for name, values in expected.items():
        assert table[name].dtype == np.float32
        np.testing.assert_array_equal(table[name], values, err_msg=name)
