"""NumPy archives, written one array at a time, and read with one line for what is wrong."""

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from feedbackgen.errors import DataError
from feedbackgen.types import FloatArray


def write_npz(path: Path, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write an archive as `numpy.savez` does, holding no more than the array at hand; the same bytes for the same."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, values in arrays:
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(values), allow_pickle=False)


def read_npz(path: Path, names: Sequence[str], layout: str) -> dict[str, FloatArray]:
    """Read arrays of numbers by their names.

    Raises:
        DataError: no such file, no readable archive, or an array is missing or holds no numbers.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive.files]
            if missing:
                raise DataError(f"{path}: no {', '.join(missing)}; {layout} holds {', '.join(names)}")
            arrays = {name: archive[name] for name in names}
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise DataError(f"{path}: not a readable .npz file ({error}); was the download cut short?") from error
    for name, values in arrays.items():
        if values.dtype.kind not in "fiub":
            raise DataError(f"{path}, {name}: expected numbers, got {values.dtype}")
    return arrays
