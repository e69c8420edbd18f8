"""Rows of a file stand in for a tensor, in bounded memory."""

import pickle

import numpy as np
import pytest
import torch

from feedbackgen.errors import StoreError
from presa import mapped
from presa.mapped import MappedRows


@pytest.fixture
def matrix():
    return np.random.default_rng(0).normal(size=(5000, 7)).astype(np.float32)


@pytest.fixture
def rows(matrix, tmp_path):
    np.save(tmp_path / "rows.npy", matrix)
    return MappedRows(tmp_path / "rows.npy")


def test_gathered_rows_are_those_of_the_tensor(rows, matrix):
    tensor = torch.from_numpy(matrix)
    wanted = np.random.default_rng(1).integers(5000, size=(30, 2, 64))
    assert torch.equal(rows[wanted], tensor[wanted])
    assert torch.equal(rows[torch.from_numpy(wanted)], tensor[wanted])
    assert torch.equal(rows[10:20], tensor[10:20])
    assert rows[np.empty((3, 0), np.int64)].shape == (3, 0, 7)
    assert rows.shape == tensor.shape and len(rows) == 5000


def test_all_rows_come_in_order_in_parts_of_a_size(rows, matrix):
    parts = list(rows.split(1500))
    assert [len(part) for part in parts] == [1500, 1500, 1500, 500]
    assert torch.equal(torch.cat(parts), torch.from_numpy(matrix))


def test_what_is_gathered_may_be_changed_and_the_file_stays(rows, matrix):
    rows[:10].zero_()
    assert torch.equal(rows[:10], torch.from_numpy(matrix[:10]))


def test_pages_are_given_back_before_they_exceed_the_bound(rows, matrix, monkeypatch):
    monkeypatch.setattr(mapped, "MAPPED_AT_MOST", 2 * mapped.AROUND)
    wanted = np.random.default_rng(1).integers(5000, size=4000)
    assert torch.equal(rows[wanted], torch.from_numpy(matrix)[wanted])


def test_another_process_maps_the_file_itself(rows, matrix):
    assert len(pickle.dumps(rows)) < 500
    assert torch.equal(pickle.loads(pickle.dumps(rows))[:], torch.from_numpy(matrix))


def test_a_row_that_is_not_there_is_an_error(rows):
    with pytest.raises(IndexError):
        rows[np.array([5000])]


@pytest.mark.parametrize("content", [None, b"", b"no array"])
def test_a_damaged_file_is_named_with_the_way_out(tmp_path, content):
    if content is not None:
        (tmp_path / "rows.npy").write_bytes(content)
    with pytest.raises(StoreError, match=r"rows.npy: absent or damaged .*; remove .*, it is made anew"):
        MappedRows(tmp_path / "rows.npy")


def test_a_truncated_file_is_refused(rows, tmp_path):
    whole = (tmp_path / "rows.npy").read_bytes()
    (tmp_path / "rows.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="absent or damaged"):
        MappedRows(tmp_path / "rows.npy")
