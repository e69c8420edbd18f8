"""Datasets at URLs, here those of fsspec's file system in memory."""

import json
import sys

import fsspec
import numpy as np
import pytest
from samples import DATASET, make_dataset

from feedbackgen import load_trajectories, open_feedback
from feedbackgen.episodes import dataset_info
from feedbackgen.errors import DataError, MissingDependency, StoreError
from feedbackgen.files import cache_root
from feedbackgen.label import LabelConfig, label
from feedbackgen.remote import fetch_dataset, fetch_feedback

URL = "memory://bucket/small-v0"
SMALL = LabelConfig(n_pairs=30, n_safety=20, segment_length=8, cost_limit=100.0)


def upload(info):
    system = fsspec.filesystem("memory")
    if system.exists("/bucket"):
        system.rm("/bucket", recursive=True)
    system.put(str(info.path), "/bucket/small-v0", recursive=True)
    return system


@pytest.fixture
def system():
    """The file system, with a dataset and its feedback named default and other."""
    info = make_dataset()
    label(DATASET, SMALL)
    label(DATASET, SMALL, name="other")
    yield upload(info)
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.mark.parametrize("name", ["", "/default", "/other", "/feedback/default.zarr", "/"])
def test_feedback_at_a_url_is_that_on_disk(system, name):
    local, remote = open_feedback(DATASET), open_feedback(URL + name)
    assert np.array_equal(remote.preferences.pair, local.preferences.pair)
    assert np.array_equal(remote.safety.label, local.safety.label)
    assert remote.attributes == local.attributes


def test_trajectories_at_a_url_are_those_on_disk(system):
    local, remote = (load_trajectories(place, with_rewards=True) for place in (DATASET, URL))
    assert np.array_equal(remote.observations, local.observations)
    assert np.array_equal(remote.costs, local.costs)


def test_a_file_url_works_too(system):
    assert dataset_info(dataset_info(DATASET).path.as_uri()).fingerprint == dataset_info(DATASET).fingerprint


def test_files_come_once_and_again_when_they_changed(system):
    copy = fetch_feedback(URL)
    times = {path: path.stat().st_mtime_ns for path in copy.parent.parent.rglob("*") if path.is_file()}
    assert fetch_feedback(URL) == copy
    assert {path: path.stat().st_mtime_ns for path in times} == times

    label(DATASET, LabelConfig(n_pairs=5, n_safety=5, segment_length=8, cost_limit=100.0), force=True)
    system.rm("/bucket/small-v0/feedback/default.zarr", recursive=True)
    store = dataset_info(DATASET).path / "feedback" / "default.zarr"
    system.put(str(store), "/bucket/small-v0/feedback/default.zarr", recursive=True)
    assert len(open_feedback(URL).preferences) == 5
    assert fetch_feedback(URL) == copy

    upload(make_dataset(n_episodes=4, force=True))
    assert dataset_info(URL).n_episodes == 4
    assert fetch_dataset(URL) != copy.parent.parent


def test_a_copy_that_breaks_off_leaves_nothing_under_its_name(system, monkeypatch):
    def broken(remote, local, **options):
        raise ConnectionError("the line went dead")

    monkeypatch.setattr(type(system), "get_file", lambda self, *arguments: broken(*arguments))
    with pytest.raises(DataError, match=r"memory://bucket/small-v0/data/.*: cannot be read \(the line went dead\)"):
        fetch_dataset(URL)
    assert not [path for path in cache_root().rglob("*") if path.name in ("data", ".data.draft")]
    monkeypatch.undo()
    assert fetch_dataset(URL).is_dir()


def test_a_file_cut_short_is_refused(system, monkeypatch):
    whole = type(system).get_file

    def short(self, remote, local, **options):
        whole(self, remote, local, **options)
        with open(local, "r+b") as file:
            file.truncate(10)

    monkeypatch.setattr(type(system), "get_file", short)
    with pytest.raises(DataError, match=r"data/.*: 10 of \d+ bytes came; try again"):
        fetch_dataset(URL)


def test_a_full_disk_is_one_line(system, monkeypatch):
    def full(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(system), "get_file", full)
    with pytest.raises(StoreError, match=r"cannot write .*data: No space left on device"):
        fetch_dataset(URL)


@pytest.mark.parametrize("url", ["memory://bucket/nothing", "memory://bucket/small-v0/feedback"])
def test_a_url_without_a_dataset_is_named(system, url):
    with pytest.raises(DataError, match=r"no dataset there; expected memory://.*/data/metadata.json"):
        fetch_dataset(url)


def test_feedback_that_is_not_there_is_named_with_its_place(system):
    with pytest.raises(StoreError, match="no feedback named 'third'; expected memory://bucket/small-v0/feedback/third"):
        open_feedback(f"{URL}/third")


def test_a_store_apart_from_its_dataset_is_refused(system):
    with pytest.raises(DataError, match=r"expected it at <dataset>/feedback/default.zarr"):
        open_feedback("memory://bucket/default.zarr")


def test_an_unknown_kind_of_address_is_one_line():
    with pytest.raises(DataError, match=r"nowhere://x/data: cannot be read \(Protocol not known: nowhere\); is the"):
        dataset_info("nowhere://x")


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingDependency, match=r"pip install 'feedbackgen\[publish\]'"):
        dataset_info(URL)


def test_labels_are_not_written_into_a_copy(system):
    with pytest.raises(DataError, match="feedback is written beside a dataset on disk; copy it there first"):
        label(URL, SMALL)


def test_a_changed_fingerprint_is_noticed(system):
    metadata = json.loads(system.cat_file("/bucket/small-v0/data/metadata.json"))
    metadata["fbgen"]["fingerprint"] = "0" * 64
    system.pipe_file("/bucket/small-v0/data/metadata.json", json.dumps(metadata).encode())
    with pytest.raises(DataError, match="label it again"):
        open_feedback(URL)
