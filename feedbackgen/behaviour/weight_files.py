"""The files that policies live in: a header in JSON, with the policy's kind and task, and arrays of numbers."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from feedbackgen.errors import PolicyError
from feedbackgen.types import FloatArray

FORMAT_VERSION = 1
NETWORK, CONTROLLER = "network", "controller"


def write_weight_file(path: str | Path, header: dict, arrays: dict[str, FloatArray]) -> None:
    """Write header and arrays, in the precision they have; the same ones give the same bytes, whole or not at all."""
    values: dict[str, Any] = {"header": json.dumps({"format_version": FORMAT_VERSION, **header}), **arrays}
    path = Path(path)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, **values)
    partial.replace(path)


def read_weight_file(path: Path, *, task: str) -> tuple[dict, dict[str, FloatArray]]:
    """Header and arrays, these as float64.

    Raises:
        PolicyError: the file is absent, damaged, of another task or format, or holds values that are not finite.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            arrays = {key: file[key].astype(np.float64) for key in file if key != "header"}
        version, trained_for = header["format_version"], header["task"]
    except FileNotFoundError as error:
        raise PolicyError(f"policy file {path}: no such file") from error
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise PolicyError(f"policy file {path}: not a weight file of ours, or damaged ({error})") from error
    if version != FORMAT_VERSION:
        raise PolicyError(f"policy file {path}: format version {version}, this release reads {FORMAT_VERSION}")
    if trained_for != task:
        raise PolicyError(f"policy file {path}: trained for {trained_for}, not for {task}")
    for key, values in arrays.items():
        if not np.isfinite(values).all():
            raise PolicyError(f"policy file {path}: {key} holds values that are not finite; train it again")
    # The first files had no kind: they are all networks.
    return {"kind": NETWORK, **header}, arrays
