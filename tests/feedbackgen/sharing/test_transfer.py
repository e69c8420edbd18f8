"""To a folder, a bucket and a hub, and back."""

import errno
import fcntl
import json
from pathlib import Path

import hub_server
import minari
import pytest
from samples import DATASET, make_dataset

from feedbackgen.errors import DataError, OutputExists, StoreError
from feedbackgen.sharing import places
from feedbackgen.sharing.bundle import Rights
from feedbackgen.sharing.manifest import NAME, manifest_bytes
from feedbackgen.sharing.places import join, list_bundles
from feedbackgen.sharing.transfer import publish, pull, read_manifest
from feedbackgen.sharing.verify import verify, verify_source

HUB = "hf://lab/feedbackgen-SafetyPointCircle1-v0-small-v0"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def target_of(kind: str, request, tmp_path) -> str:
    if kind == "folder":
        return str(tmp_path / "target")
    if kind == "bucket":
        return request.getfixturevalue("bucket")
    request.getfixturevalue("hub")
    return "hf://lab"


@pytest.mark.parametrize("kind", ["folder", "bucket", "hub"])
def test_what_was_published_comes_back_byte_by_byte(
    kind, request, dataset, published, elsewhere, tmp_path, monkeypatch
):
    target = target_of(kind, request, tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    there = publish(dataset, target).place
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(elsewhere))
    assert list_bundles(target) == [there]
    pulled = pull([there])
    assert pulled.n_moved == pulled.manifest.n_bytes
    assert contents(Path(pulled.place)) == contents(published)
    assert verify_source(there)[1] == []
    again = minari.load_dataset(DATASET)
    assert again.total_episodes == 12 and sum(episode.infos["cost"].sum() for episode in again) > 0
    # What is there is not fetched again.
    assert pull([there]).n_moved == 0


@pytest.mark.parametrize("kind", ["folder", "bucket", "hub"])
def test_a_bundle_is_replaced_only_with_force(kind, request, dataset, tmp_path):
    target = target_of(kind, request, tmp_path)
    there = publish(dataset, target).place
    with pytest.raises(OutputExists, match="exists; use --force"):
        publish(dataset, target)
    rights = Rights(licence="mit", citation="@misc{x}", authors=("Ada",), mirrors=("s3://other/place",))
    publish(dataset, target, rights=rights, force=True)
    manifest = read_manifest(there)
    assert (manifest.licence, manifest.citation, manifest.mirrors) == ("mit", "@misc{x}", ("s3://other/place",))


def test_a_name_that_exists_here_is_not_overwritten(published, elsewhere):
    make_dataset(n_episodes=2)
    with pytest.raises(OutputExists, match="exists; use --force"):
        pull([str(published)])
    assert minari.load_dataset(DATASET).total_episodes == 2
    pull([str(published)], force=True)
    assert minari.load_dataset(DATASET).total_episodes == 12


def interrupt_after(n_files: int, monkeypatch, kind=places.Folder):
    """Make a place fail as a broken connection would, after some files."""
    fetch, left = kind.fetch, n_files

    def failing(self, path, to, size, report):
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        fetch(self, path, to, size, report)

    monkeypatch.setattr(kind, "fetch", failing)


def test_an_interrupted_pull_leaves_nothing_and_goes_on(published, elsewhere, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(5, patch)
        pull([str(published)])
    assert not (elsewhere / DATASET).exists()
    pulled = pull([str(published)])
    entries = list(pulled.manifest.files.values())
    assert pulled.n_moved == sum(entry.size for entry in entries[5:])
    assert verify(Path(pulled.place))[1] == []


def test_a_file_cut_in_the_middle_goes_on_from_there(published, elsewhere, bucket, dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    there = publish(dataset, bucket).place
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(elsewhere))
    monkeypatch.setattr(places, "BLOCK_BYTES", 1000)
    staging = elsewhere / DATASET
    part = staging.with_name(f".{staging.name}.pulling") / "data" / "main_data.hdf5.part"
    part.parent.mkdir(parents=True)
    part.write_bytes((published / "data" / "main_data.hdf5").read_bytes()[:2500])
    pulled = pull([there])
    assert pulled.n_moved == pulled.manifest.n_bytes - 2500
    assert verify(Path(pulled.place))[1] == []


def test_a_damaged_file_comes_from_the_next_source(published, elsewhere, tmp_path, dataset, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    mirror = publish(dataset, str(tmp_path / "mirror")).place
    first = publish(dataset, str(tmp_path / "first"), rights=Rights(mirrors=(mirror,))).place
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(elsewhere))
    damaged = Path(first) / "data" / "main_data.hdf5"
    damaged.write_bytes(damaged.read_bytes()[:-7])
    pulled = pull([first])  # from the mirror that the manifest names
    assert (Path(pulled.place) / "data/main_data.hdf5").read_bytes() == (published / "data/main_data.hdf5").read_bytes()
    with pytest.raises(StoreError, match=r"data/main_data.hdf5: expected [\d,]+ bytes.*publish again"):
        (Path(mirror) / "data" / "main_data.hdf5").unlink()
        pull([first], root=tmp_path / "third")
    assert not (tmp_path / "third" / DATASET).exists()


def test_a_source_that_is_gone_gives_way_to_the_next(published, elsewhere, tmp_path):
    assert Path(pull([str(tmp_path / "gone"), str(published)]).place).is_dir()
    with pytest.raises(StoreError, match=r"no source has the bundle: cannot read .*gone.*; cannot read .*too"):
        pull([str(tmp_path / "gone"), str(tmp_path / "too")])


def test_a_manifest_that_climbs_out_writes_nothing(published, elsewhere, tmp_path):
    from dataclasses import replace

    manifest = read_manifest(str(published))
    files = dict(manifest.files)
    files["../../escaped"] = files.pop("README.md")
    (published / NAME).write_bytes(manifest_bytes(replace(manifest, files=files)))
    with pytest.raises(DataError, match="leaves the bundle; do not trust its source"):
        pull([str(published)])
    assert not elsewhere.exists()


def test_of_two_publishers_and_two_pullers_the_second_is_refused(dataset, published, elsewhere, tmp_path):
    target = tmp_path / "two" / DATASET
    target.parent.mkdir(parents=True)
    with open(target.with_name(f".{target.name}.publishing"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputExists, match="another fbgen publish is writing there; wait for it"):
            publish(str(tmp_path / "datasets" / DATASET), str(tmp_path / "two"))
    elsewhere.joinpath(DATASET).parent.mkdir(parents=True)
    name = elsewhere.joinpath(DATASET).name
    with open(elsewhere.joinpath(DATASET).with_name(f".{name}.pulling.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputExists, match="another fbgen pull is fetching this dataset; wait for it"):
            pull([str(published)])


def test_of_two_publishers_to_a_bucket_the_second_is_refused(dataset, bucket):
    place = places.open_place(join(bucket, DATASET))
    with place._lock(False):
        with pytest.raises(OutputExists, match=r"another fbgen publish is under way there.*--force"):
            publish(dataset, bucket)
        publish(dataset, bucket, force=True)
    assert verify_source(place.name)[1] == []


def test_an_upload_that_loses_bytes_is_noticed_and_taken_back(dataset, bucket, monkeypatch):
    place = places.open_place(join(bucket, DATASET))
    put = type(place.files).put_file

    def lossy(self, source, target, **options):
        if target.endswith("main_data.hdf5"):
            self.pipe_file(target, Path(source).read_bytes()[:-1])
        else:
            put(self, source, target, **options)

    monkeypatch.setattr(type(place.files), "put_file", lossy)
    with pytest.raises(StoreError, match=r"data/main_data.hdf5: [\d,]+ of [\d,]+ bytes arrived; publish again"):
        publish(dataset, bucket)
    assert place.files.find(place.root) == []


def test_a_full_disk_leaves_no_bundle(dataset, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(places.shutil, "copyfile", full)
    with pytest.raises(StoreError, match=r"cannot write .*No space left on device"):
        publish(dataset, str(tmp_path / "target"))
    assert not list((tmp_path / "target").rglob("*.json"))


def test_the_hub_gets_one_commit_a_tag_and_each_large_file_once(dataset, hub):
    publish(dataset, "hf://lab", private=True)
    repository = hub.repositories["lab/feedbackgen-SafetyPointCircle1-v0-small-v0"]
    assert len(repository.commits) == 2 and repository.private
    assert repository.tags == {"format-1": repository.commits[-1][0]}
    n_uploads = len(hub.uploads)
    publish(dataset, "hf://lab", force=True)
    assert len(hub.uploads) == n_uploads
    assert repository.tags == {"format-1": repository.commits[-1][0]}
    assert publish(dataset, "hf://ignored", repository="lab/chosen").place == "hf://lab/chosen"
    assert read_manifest(f"{HUB}@format-1").dataset_id == DATASET


def test_a_pull_from_the_hub_goes_on_after_a_failure(dataset, hub, elsewhere, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    publish(dataset, "hf://lab")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(elsewhere))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.fail_after = 4
    with pytest.raises(StoreError, match=f"cannot read {HUB}: "):
        pull([HUB])
    assert not (elsewhere / DATASET).exists()
    hub.fail_after = None
    pulled = pull([HUB])
    assert 0 < pulled.n_moved < pulled.manifest.n_bytes
    assert verify(Path(pulled.place))[1] == []


@pytest.mark.parametrize("name", ["lab/a b", "lab/-x", "lab/x..y", "lab/" + "x" * 100])
def test_a_name_that_the_hub_refuses_is_named(dataset, hub, name):
    with pytest.raises(StoreError, match=r"the hub refuses this name.*--repo-id"):
        publish(dataset, "hf://lab", repository=name)


def test_no_permission_and_no_network_are_told_apart(dataset, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub_server.READER)
    with pytest.raises(StoreError, match=r"cannot write to hf://lab/.*no permission.*hf auth login"):
        publish(dataset, "hf://lab")
    with pytest.raises(StoreError, match="cannot read hf://lab/absent: no such repository, or no permission"):
        read_manifest("hf://lab/absent")
    hub.close()
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr(hub, "close", lambda: None)
    with pytest.raises(StoreError, match=r"cannot read hf://lab/absent: no answer .*check the network"):
        read_manifest("hf://lab/absent")


def test_a_bucket_that_refuses_and_a_server_that_is_silent_are_told_apart(bucket, monkeypatch):
    with pytest.raises(StoreError, match="cannot read s3://absent/x: no bundle there"):
        read_manifest("s3://absent/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="cannot read s3://bucket/x: no answer"):
        read_manifest("s3://bucket/x")


def test_a_protocol_that_nobody_knows_is_named():
    with pytest.raises(StoreError, match=r"ftpx://host/x: .*expected a folder, a URL that fsspec knows"):
        read_manifest("ftpx://host/x")


def test_the_manifest_is_for_machines(published):
    content = json.loads((published / NAME).read_text())
    assert content["seeds"] == {"feedback": {"default": 0}}
    assert content["facts"]["feedback"]["default"]["preferences"] == 60
