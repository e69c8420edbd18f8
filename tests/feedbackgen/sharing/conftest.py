"""A labelled dataset, made without a simulator, and its bundle."""

from pathlib import Path

import pytest
from samples import DATASET, make_dataset

from feedbackgen.label import LabelConfig, label
from feedbackgen.sharing.transfer import publish


@pytest.fixture
def dataset(datasets):
    """Id of a dataset of twelve episodes with feedback."""
    make_dataset()
    label(DATASET, LabelConfig(n_pairs=60, segment_length=8))
    return DATASET


@pytest.fixture
def published(dataset, tmp_path):
    """The folder of a published bundle."""
    return Path(publish(dataset, str(tmp_path / "published")).place)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Another machine's Minari folder, empty."""
    root = tmp_path / "elsewhere"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    return root
