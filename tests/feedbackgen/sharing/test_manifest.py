import json

import pytest

from feedbackgen.errors import DataError, StoreError
from feedbackgen.sharing.manifest import (
    FORMAT_VERSION,
    FileEntry,
    Manifest,
    file_entry,
    manifest_bytes,
    parse_manifest,
)

# sha256 of "abc", FIPS 180-2 appendix B.1
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def make_manifest(**changes):
    values = {
        "dataset_id": "lab/data-v0",
        "task": "SafetyPointCircle1-v0",
        "fingerprint": "f" * 64,
        "licence": "cc-by-4.0",
        "citation": "",
        "authors": ("Ada",),
        "mirrors": ("s3://bucket/data-v0",),
        "seeds": {"collect": 0},
        "versions": {"numpy": "2.0"},
        "facts": {"dataset": {}, "feedback": {}},
        "files": {"data/main_data.hdf5": FileEntry(3, ABC)},
    }
    return Manifest(**(values | changes))


def test_a_manifest_comes_back_as_it_was_written():
    manifest = make_manifest()
    assert parse_manifest(manifest_bytes(manifest), "here") == manifest
    assert manifest.n_bytes == 3


def test_a_file_is_measured_and_hashed(tmp_path):
    (tmp_path / "file").write_text("abc")
    assert file_entry(tmp_path / "file") == FileEntry(3, ABC)


def test_no_byte_of_a_manifest_can_change_unnoticed():
    written = manifest_bytes(make_manifest())
    for position in range(len(written)):
        changed = bytearray(written)
        changed[position] ^= 1
        with pytest.raises((DataError, StoreError), match="here: "):
            parse_manifest(bytes(changed), "here")


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/passwd", "data/../../outside", "data\\..\\x", "c:/x", "", "./data", "a//b", "data/."]
)
def test_a_path_that_climbs_out_is_refused(path):
    written = manifest_bytes(make_manifest(files={path: FileEntry(3, ABC)}))
    with pytest.raises(DataError, match="leaves the bundle; do not trust its source"):
        parse_manifest(written, "here")


def test_an_id_that_climbs_out_is_refused():
    with pytest.raises(DataError, match="leaves the bundle"):
        parse_manifest(manifest_bytes(make_manifest(dataset_id="../../bin")), "here")


def test_a_bundle_of_a_newer_format_asks_for_an_upgrade():
    content = json.loads(manifest_bytes(make_manifest())) | {"version": FORMAT_VERSION + 1}
    with pytest.raises(StoreError, match=rf"here: bundle of format {FORMAT_VERSION + 1}.*upgrade feedbackgen"):
        parse_manifest(json.dumps(content).encode(), "here")


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"schema": "other"}'])
def test_what_is_no_manifest_is_refused(text):
    with pytest.raises(DataError, match=r"here: manifest\.json: "):
        parse_manifest(text, "here")
