import json
import random
from dataclasses import replace

import h5py
import numpy as np
import pytest

from feedbackgen.errors import DataError
from feedbackgen.sharing.manifest import NAME, file_entry, manifest_bytes, parse_manifest
from feedbackgen.sharing.verify import verify


def all_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def restated(folder, **changes):
    """Write the manifest anew so that every hash agrees with what lies there now."""
    manifest = parse_manifest((folder / NAME).read_bytes(), "test")
    files = {path: file_entry(folder / path) for path in manifest.files}
    (folder / NAME).write_bytes(manifest_bytes(replace(manifest, files=files, **changes)))


def test_a_published_bundle_is_proven(published):
    manifest, faults = verify(published)
    assert faults == []
    assert {path.relative_to(published).as_posix() for path in all_files(published)} == {*manifest.files, NAME}


def test_a_single_byte_flipped_in_any_file_names_that_file(published):
    drawn = random.Random(0)
    for path in all_files(published):
        content = bytearray(path.read_bytes())
        position = drawn.randrange(len(content))
        content[position] ^= 1 << drawn.randrange(8)
        original = path.read_bytes()
        path.write_bytes(content)
        name = path.relative_to(published).as_posix()
        if name == NAME:
            with pytest.raises(DataError, match=NAME):
                verify(published)
        else:
            _, faults = verify(published)
            assert len(faults) == 1 and faults[0].startswith(f"{name}: expected sha256"), faults
        path.write_bytes(original)
    assert verify(published)[1] == []


def test_an_absent_a_truncated_and_an_additional_file_are_named(published):
    (published / "recipe-old.toml").write_text("x")
    (published / "returns.png").unlink()
    data = published / "data" / "main_data.hdf5"
    data.write_bytes(data.read_bytes()[:-100])
    faults = dict(line.split(": ", 1) for line in verify(published)[1])
    assert faults.keys() == {"recipe-old.toml", "returns.png", "data/main_data.hdf5"}
    assert "not in the manifest" in faults["recipe-old.toml"] and "absent" in faults["returns.png"]


def test_hashes_that_agree_do_not_hide_other_data(published):
    with h5py.File(published / "data" / "main_data.hdf5", "r+") as file:
        file["episode_0/actions"][0] = 0.5
    restated(published)
    assert any("data/main_data.hdf5: fingerprint" in fault for fault in verify(published)[1])


def test_values_that_are_not_finite_are_found(published):
    with h5py.File(published / "data" / "main_data.hdf5", "r+") as file:
        file["episode_3/observations"][2, 1] = np.nan
    restated(published)
    assert any("episode 3" in fault and "finite" in fault for fault in verify(published)[1])


def test_a_card_that_says_otherwise_is_found(published):
    card = published / "README.md"
    card.write_text(card.read_text().replace("12 episodes", "1,200 episodes"))
    restated(published)
    assert verify(published)[1] == ["README.md: not what the data and the manifest give"]


def test_facts_that_are_not_the_datas_are_found(published):
    facts = json.loads((published / NAME).read_text())["facts"]
    facts["dataset"]["safe_episodes"] += 1
    restated(published, facts=facts)
    assert f"{NAME}: facts of the dataset are not those of the data" in verify(published)[1]


def test_tables_that_are_not_the_labels_are_found(published):
    from pyarrow import parquet

    path = published / "labels" / "default-safety.parquet"
    table = parquet.read_table(path)
    parquet.write_table(table.slice(1), path)
    restated(published)
    assert "labels/default-safety.parquet: not the labels of the data" in verify(published)[1]


@pytest.mark.parametrize(
    "damage",
    [lambda whole: whole[: len(whole) // 2], lambda whole: whole[:4] + bytes(64) + whole[68:]],
    ids=["cut off", "overwritten"],
)
def test_tables_that_cannot_be_read_are_found(published, damage):
    """Published so: the manifest's hash is that of the damaged file."""
    path = published / "labels" / "default-safety.parquet"
    path.write_bytes(damage(path.read_bytes()))
    restated(published)
    assert "labels/default-safety.parquet: not the labels of the data" in verify(published)[1]


def test_a_plain_folder_is_no_bundle(tmp_path):
    with pytest.raises(DataError, match=r"no manifest\.json; `fbgen publish` makes bundles"):
        verify(tmp_path)
