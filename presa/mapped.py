"""Rows of a file that is mapped instead of read: what does not fit into memory stays on disk."""

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from feedbackgen.errors import StoreError
from feedbackgen.types import IntArray

AROUND = 64 * 1024  # bytes that Linux maps around a place that is looked at
MAPPED_AT_MOST = 256 * 1024**2  # bytes of one file
ROWS_AT_ONCE = 1024  # gathered between two looks at how much is mapped


class MappedRows:
    """A float32 matrix in a .npy file that stands in for a tensor; indexing gathers rows.

    What was looked at is given back to the operating system before it could exceed ``MAPPED_AT_MOST``. Rows that are
    gathered go to ``device``.

    Raises:
        StoreError: the file is absent or damaged.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu"):
        self._path, self.device = path, torch.device(device)
        try:
            self._rows: np.memmap = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(f"{path}: absent or damaged ({error}); remove {path.parent}, it is made anew") from error
        self.shape = torch.Size(self._rows.shape)
        self._n_mapped = 0  # bytes, at most

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: IntArray | Tensor | slice) -> Tensor:
        """Copies of those rows, (*rows.shape, columns)."""
        if isinstance(rows, Tensor):
            rows = rows.cpu().numpy()
        wanted = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        flat = wanted.ravel()
        gathered = np.empty((len(flat), self.shape[1]), dtype=np.float32)
        for first in range(0, len(flat), ROWS_AT_ONCE):
            part = flat[first : first + ROWS_AT_ONCE]
            self._make_room(part)
            gathered[first : first + len(part)] = self._rows.take(part, axis=0)
        return torch.from_numpy(gathered.reshape(*wanted.shape, self.shape[1])).to(self.device)

    def split(self, n_rows: int) -> Iterator[Tensor]:
        """All rows in order, ``n_rows`` at a time."""
        return (self[first : first + n_rows] for first in range(0, len(self), n_rows))

    def to(self, device: torch.device) -> "MappedRows":
        """The same file for another device."""
        return MappedRows(self._path, device)

    def __reduce__(self):
        """Another process maps the file itself."""
        return MappedRows, (self._path, self.device)

    def _make_room(self, rows: IntArray) -> None:
        n_row_bytes = self._rows.strides[0]
        n_places = 1 + int(np.count_nonzero(np.diff(rows * n_row_bytes // AROUND)))
        n_bytes = n_places * (AROUND + max(n_row_bytes, AROUND))  # a row may reach into the next place
        if self._n_mapped + n_bytes > MAPPED_AT_MOST and hasattr(mmap, "MADV_DONTNEED"):
            self._rows._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
            self._n_mapped = 0
        self._n_mapped += n_bytes
