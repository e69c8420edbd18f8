"""The page on the format holds: its schema fits what we write, its reader reads it, and nothing is left to our code."""

import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from samples import DATASET, make_dataset

from feedbackgen.annotation.export import merge_feedback
from feedbackgen.feedback import FURTHER, LAYOUT
from feedbackgen.label import KINDS, LabelConfig, label
from feedbackgen.store import REQUIRED_ATTRIBUTES, open_feedback, resolve_feedback

PAGE = (Path(__file__).parents[2] / "docs" / "data-format.md").read_text()
(READER,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
SCHEMA = json.loads(files("feedbackgen").joinpath("feedback.schema.json").read_text())
CONFIGS = {
    "plain": {},
    "lengths": {"segment_length": (4, 8), "error_rate": 0.1, "noise": 0.1},
    "mixture": {"teachers": ("oracle:0.5", "mistake:0.5"), "unsafe_share": 0.5, "start_share": 0.3},
    "threshold": {"safety_threshold": 2.0, "teachers": ("bpref-code",), "drift": 0.1},
    "preferences": {"n_safety": 0},
    "all": {"kinds": KINDS, "rating_bins": 5, "cost_limit": 10.0},
}


@pytest.fixture
def stores():
    make_dataset()
    for name, values in CONFIGS.items():
        label(DATASET, LabelConfig(**{"n_pairs": 30, "segment_length": 8, **values}), name=name)
    merge_feedback([f"{DATASET}/plain", f"{DATASET}/mixture"], "merged")
    return [resolve_feedback(f"{DATASET}/{name}") for name in (*CONFIGS, "merged")]


def test_the_attributes_of_stores_fit_the_schema(stores):
    Draft202012Validator.check_schema(SCHEMA)
    for store in stores:
        attributes = json.loads((store / "zarr.json").read_text())["attributes"]
        errors = [error.message for error in Draft202012Validator(SCHEMA).iter_errors(attributes)]
        assert not errors, (store, errors)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", 2),
        ("dataset_fingerprint", "abc"),
        ("annotators", []),
        ("cost_limit", -1),
        ("statistics", {"ties": -1}),
    ],
)
def test_other_attributes_do_not_fit_the_schema(stores, name, value):
    attributes = dict(open_feedback(stores[0]).attributes)
    validator = Draft202012Validator(SCHEMA)
    assert not validator.is_valid(attributes | {name: value})
    assert {"schema", "version", *REQUIRED_ATTRIBUTES} == set(SCHEMA["required"])
    assert not any(validator.is_valid({k: v for k, v in attributes.items() if k != one}) for one in SCHEMA["required"])


def test_the_pages_tables_name_every_array_and_attribute(stores):
    for group, arrays in LAYOUT.items():
        for array, (dtype, _) in arrays.items():
            assert re.search(rf"\| `{group}/{array}` \| {dtype} ", PAGE), f"{group}/{array}"
    for group, arrays in FURTHER.items():
        for array in arrays.keys() - {"annotator"}:
            assert f"| `{group}/{array}` | {arrays[array][0]} " in PAGE, f"{group}/{array}"
    for attribute in open_feedback(stores[list(CONFIGS).index("all")]).attributes:
        assert f"`{attribute}`" in PAGE, attribute


def test_the_reader_of_thirty_lines_reads_what_we_write_with_numpy_and_zarr_alone(stores, tmp_path):
    assert len([line for line in READER.splitlines() if line.strip()]) <= 30
    code = f"""
import sys
for name in ("feedbackgen", "minari", "h5py", "gymnasium"):
    sys.modules[name] = None  # importing it would fail
{READER}
for number, path in enumerate({list(map(str, stores))}):
    arrays, attributes = read_feedback(path)
    np.savez(f"{{number}}.npz", **{{name.replace("/", "."): values for name, values in arrays.items()}})
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for number, store in enumerate(stores):
        ours, theirs = open_feedback(store), np.load(f"{number}.npz")
        for name in theirs:
            group, array = name.split(".")
            assert np.array_equal(theirs[name], getattr(getattr(ours, group), array)), (store, name)


@pytest.mark.parametrize(
    ("array", "value", "message"),
    [
        ("preferences/label", 0.7, "preferences/label has a label that is none"),
        ("preferences/pair", 10**6, "preferences/pair refers to what is not there"),
        ("segments/length", 0, "segments/length refers to what is not there"),
    ],
)
def test_the_reader_of_thirty_lines_refuses_what_the_page_forbids(stores, array, value, message):
    import zarr

    found = zarr.open_group(stores[0], mode="r+")[array]
    values = found[...]
    values.flat[0] = value
    found[...] = values
    names: dict = {}
    exec(READER, names)
    with pytest.raises(ValueError, match=message):
        names["read_feedback"](stores[0])
