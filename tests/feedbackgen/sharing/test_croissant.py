"""The metadata, judged by MLCommons' own library."""

import mlcroissant
import numpy as np
from samples import DATASET

from feedbackgen.sharing.croissant import NAME
from feedbackgen.store import open_feedback


def test_mlcroissant_accepts_the_metadata_and_reads_the_labels(published):
    croissant = mlcroissant.Dataset(jsonld=str(published / NAME))
    assert not croissant.metadata.ctx.issues.errors
    names = {record_set.name for record_set in croissant.metadata.record_sets}
    assert names == {"episodes", "default-preferences", "default-safety"}
    feedback = open_feedback(DATASET)
    records = list(croissant.records("default-preferences"))
    labels = [record["default-preferences/label"] for record in records]
    np.testing.assert_array_equal(labels, feedback.preferences.label)
    second = feedback.segments.start[feedback.preferences.pair[:, 1]]
    np.testing.assert_array_equal([record["default-preferences/second_start"] for record in records], second)
    assert len(list(croissant.records("episodes"))) == 12
