import dataclasses
import errno
import json
import shutil

import numpy as np
import pytest

from feedbackgen import store
from feedbackgen.episodes import dataset_info, write_dataset
from feedbackgen.errors import DataError, OutputExists, StoreError
from feedbackgen.feedback import Feedback, Oracle, Preferences, SafetyLabels, Segments
from feedbackgen.provenance import folder_hash
from feedbackgen.store import feedback_path, open_feedback, resolve_feedback, write_feedback
from feedbackgen.tasks import get_task
from feedbackgen.types import Episode

TASK = get_task("SafetyPointCircle1-v0")
DATASET = "feedbackgen/tiny-v0"
APART = "preferences/pair: expected segments that share no step"
TWICE = {"segment": np.int32([2, 2]), "label": np.int8([1, -1]), "annotator": np.int32([0, 0])}
ONCE = ": expected each question once of an annotator, got the same at indices 0 and 1"
FEEDBACK = Feedback(
    segments=Segments(episode=np.int32([0, 0, 1]), start=np.int32([0, 6, 2]), length=np.int32([4, 4, 4])),
    preferences=Preferences(
        pair=np.int32([[0, 1], [2, 0]]), label=np.float32([1, 0.5]), annotator=np.zeros(2, dtype=np.int32)
    ),
    safety=SafetyLabels(segment=np.int32([2]), label=np.int8([-1]), annotator=np.zeros(1, dtype=np.int32)),
    oracle=Oracle(
        segment_return=np.array([1.0, 2.0, 1.0]),
        segment_cost=np.array([0.0, 0.0, 3.0]),
        preference_probability=np.float32([0.9, 0.5]),
        preference_clean=np.float32([1, 0.5]),
        preference_flipped=np.array([False, False]),
        safety_clean=np.int8([1]),
        safety_flipped=np.array([True]),
    ),
    attributes={"dataset_id": DATASET, "task": TASK.name},
)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A dataset of two episodes of ten steps, and the path of its feedback."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    write_dataset(DATASET, [make_episode(seed) for seed in range(2)], task=TASK.name)
    return feedback_path(DATASET)


def make_episode(seed, n_steps=10):
    rng = np.random.default_rng(seed)
    return Episode(
        observations=rng.normal(size=(n_steps + 1, TASK.observation_dim)),
        actions=rng.uniform(-1, 1, size=(n_steps, TASK.action_dim)),
        rewards=rng.normal(size=n_steps),
        costs=np.zeros(n_steps),
        terminations=np.zeros(n_steps, dtype=bool),
        truncations=np.arange(n_steps) == n_steps - 1,
        seed=seed,
        policy="some",
    )


def write(path, feedback=FEEDBACK, **options):
    attributes = feedback.attributes | {"dataset_fingerprint": dataset_info(DATASET).fingerprint}
    return write_feedback(path, dataclasses.replace(feedback, attributes=attributes), **options)


def with_array(group, **arrays):
    return dataclasses.replace(FEEDBACK, **{group: dataclasses.replace(getattr(FEEDBACK, group), **arrays)})


def edit_json(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def edit_attributes(path, **values):
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    edit_json(path / "zarr.json", attributes=attributes | values)


def test_what_was_written_is_read_back(path):
    read = open_feedback(write(path), with_oracle=True)
    for group in ("segments", "preferences", "safety", "oracle"):
        for entry in dataclasses.fields(getattr(FEEDBACK, group)):
            one, other = (getattr(getattr(feedback, group), entry.name) for feedback in (FEEDBACK, read))
            if entry.name == "further":
                assert one == other == {}
                continue
            assert np.array_equal(one, other)
            assert one.dtype == other.dtype
    assert read.attributes["schema"] == "feedbackgen/feedback"
    assert read.attributes["version"] == 1
    assert read.attributes["task"] == TASK.name


def test_the_same_feedback_gives_the_same_bytes(path):
    assert folder_hash(write(path)) == folder_hash(write(path.with_name("other.zarr")))


def test_a_store_without_oracle_and_without_safety_labels_is_read_back(path):
    empty = SafetyLabels(segment=np.int32([]), label=np.int8([]), annotator=np.int32([]))
    read = open_feedback(write(path, dataclasses.replace(FEEDBACK, oracle=None, safety=empty)))
    assert len(read.safety) == 0
    assert read.oracle is None


def test_the_oracle_is_not_touched_unless_asked_for(path):
    write(path)
    shutil.rmtree(path / "oracle")
    (path / "oracle").write_text("nothing here to be read")
    assert open_feedback(path).oracle is None
    with pytest.raises(DataError, match="no array oracle/segment_return"):
        open_feedback(path, with_oracle=True)


def test_feedback_is_found_by_path_by_dataset_and_by_name(path, monkeypatch):
    write(path)
    write(path.with_name("people.zarr"))
    assert resolve_feedback(path) == resolve_feedback(DATASET) == resolve_feedback(f"{DATASET}/default") == path
    assert resolve_feedback(path.parent.parent) == path
    assert resolve_feedback(f"{DATASET}/people") == path.with_name("people.zarr")
    monkeypatch.chdir(path.parent)
    assert open_feedback("people.zarr").attributes["task"] == TASK.name


def test_an_absent_name_is_refused_with_those_that_are_there(path):
    write(path)
    with pytest.raises(StoreError) as refusal:
        open_feedback(f"{DATASET}/defualt")
    assert str(refusal.value) == (
        f"dataset {DATASET}: no feedback named 'defualt'; there is default; to make one, run `fbgen label {DATASET}`"
    )
    with pytest.raises(StoreError, match=r"no feedback named 'gone'; there is default"):
        open_feedback(path.with_name("gone.zarr"))


def test_an_unlabelled_dataset_is_refused_with_the_command(path):
    with pytest.raises(StoreError, match=f"there is none yet; to make one, run `fbgen label {DATASET}`"):
        open_feedback(DATASET)


def test_an_absent_dataset_is_refused(path):
    with pytest.raises(DataError, match=f"did you mean {DATASET}"):
        open_feedback("feedbackgen/tinny-v0")


def test_a_store_is_not_replaced_without_force(path):
    write(path)
    with pytest.raises(OutputExists, match="use --force"):
        write(path)


def test_a_full_disk_keeps_the_old_store_and_leaves_nothing_behind(path, monkeypatch):
    before = folder_hash(write(path))
    original = store._write_array

    def fail_late(group, name, *rest):
        if name == "annotator":
            raise OSError(errno.ENOSPC, "No space left on device")
        original(group, name, *rest)

    monkeypatch.setattr(store, "_write_array", fail_late)
    with pytest.raises(StoreError, match=r"default\.zarr: No space left on device") as refusal:
        write(path, force=True)
    assert "\n" not in str(refusal.value)
    assert folder_hash(path) == before
    assert [entry.name for entry in path.parent.iterdir()] == ["default.zarr"]


def test_a_place_that_cannot_be_written_is_refused_in_one_line(path):
    path.parent.write_text("a file where the folder should be")
    with pytest.raises(StoreError, match=r"cannot write .*default\.zarr"):
        write(path)


def test_another_schema_or_version_is_refused(path):
    edit_attributes(write(path), version=2)
    with pytest.raises(StoreError, match="format version 2, this release reads 1"):
        open_feedback(path)
    edit_attributes(path, schema="something/else")
    with pytest.raises(StoreError, match="schema 'something/else', expected 'feedbackgen/feedback'"):
        open_feedback(path)


def test_a_folder_that_is_no_store_is_refused(path):
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match="not a readable Zarr v3 group"):
        open_feedback(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="not a readable Zarr v3 group"):
        open_feedback(path)


def test_other_trajectories_than_those_labelled_are_refused(path):
    edit_attributes(write(path), dataset_fingerprint="abc" * 20)
    fingerprint = dataset_info(DATASET).fingerprint
    with pytest.raises(DataError) as refusal:
        open_feedback(path)
    assert str(refusal.value) == (
        f"feedback {path}: was labelled on a dataset with fingerprint abcabcabcabc…, "
        f"but {DATASET} now has {fingerprint[:12]}…; label it again"
    )


def test_a_store_away_from_its_dataset_is_refused(path, tmp_path):
    moved = tmp_path / "elsewhere" / "default.zarr"
    shutil.copytree(write(path), moved)
    with pytest.raises(DataError, match=r"expected it at <dataset>/feedback/default\.zarr"):
        open_feedback(moved)


@pytest.mark.parametrize("name", ["dataset_id", "dataset_fingerprint", "task"])
def test_a_missing_attribute_is_refused(path, name):
    edit_attributes(write(path), **{name: None})
    with pytest.raises(DataError, match=f"attribute {name}: expected a text, got None"):
        open_feedback(path)


def test_a_missing_array_is_refused(path):
    shutil.rmtree(write(path) / "safety" / "label")
    with pytest.raises(DataError, match="no array safety/label; label the dataset again"):
        open_feedback(path)


@pytest.mark.parametrize("name", ["segments/start", "preferences/label", "safety/label", "preferences/annotator"])
def test_a_lost_chunk_is_refused(path, name):
    shutil.rmtree(write(path) / name / "c")
    with pytest.raises(DataError, match=f"{name}: expected .* got .* at index 0"):
        open_feedback(path)


def test_a_damaged_chunk_is_refused(path):
    chunk = write(path) / "preferences" / "pair" / "c" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[-6] ^= 0xFF
    chunk.write_bytes(content)
    with pytest.raises(DataError, match="array preferences/pair is damaged; label the dataset again"):
        open_feedback(path)


def test_a_wrong_dtype_or_shape_is_refused(path):
    write(path)
    edit_json(path / "safety" / "segment" / "zarr.json", data_type="uint32", fill_value=0)
    with pytest.raises(DataError, match=r"safety/segment: expected int32 of shape \(1,\), got uint32"):
        open_feedback(path)
    with pytest.raises(
        DataError, match=r"preferences/pair: expected int32 of shape \(2, 2\), got int32 of shape \(2,\)"
    ):
        write(path, with_array("preferences", pair=np.int32([0, 1])), force=True)
    with pytest.raises(
        DataError, match=r"oracle/safety_clean: expected int8 of shape \(1,\), got int8 of shape \(2,\)"
    ):
        write(path, with_array("oracle", safety_clean=np.int8([1, 1])), force=True)


@pytest.mark.parametrize(
    ("group", "arrays", "message"),
    [
        ("preferences", {"label": np.float32([1, 0.7])}, "preferences/label: expected one of 0, 0.5, 1, got 0.7 at"),
        ("preferences", {"label": np.float32([np.nan, 1])}, "preferences/label: expected one of 0, 0.5, 1, got nan"),
        ("safety", {"label": np.int8([0])}, "safety/label: expected one of -1, 1, got 0 at index 0"),
        ("preferences", {"pair": np.int32([[0, 1], [3, 0]])}, "preferences/pair: expected one of 3 segments, got 3 at"),
        ("safety", {"segment": np.int32([-1])}, "safety/segment: expected one of 3 segments, got -1 at index 0"),
        ("safety", {"annotator": np.int32([-2])}, "safety/annotator: expected at least 0, got -2 at index 0"),
        ("segments", {"length": np.int32([4, 0, 4])}, "segments/length: expected at least 1, got 0 at index 1"),
        ("preferences", {"pair": np.int32([[0, 1], [2, 2]])}, APART + ", got 2 and 2 at index 1"),
        ("segments", {"start": np.int32([0, 3, 2])}, APART + ", got 0 and 1 at index 0"),
        ("preferences", {"pair": np.int32([[0, 1], [1, 0]])}, "preferences/pair" + ONCE),
        ("safety", TWICE, "safety/segment" + ONCE),
        ("oracle", {"safety_clean": np.int8([2])}, "oracle/safety_clean: expected one of -1, 1, got 2 at index 0"),
    ],
)  # fmt: skip
def test_an_entry_outside_its_set_is_not_written(path, group, arrays, message):
    with pytest.raises(DataError) as refusal:
        write(path, with_array(group, **arrays))
    assert str(refusal.value).startswith(message)
    assert not path.exists()


def test_two_annotators_may_be_asked_the_same(path):
    both = {"pair": np.int32([[0, 1], [1, 0]]), "annotator": np.int32([0, 1])}
    assert len(open_feedback(write(path, with_array("preferences", **both))).preferences) == 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"start": np.int32([0, 7, 2])}, "segment 1 is steps 7 to 11 of episode 0, which has 10 steps in"),
        ({"episode": np.int32([0, 0, 2])}, "segment 2 is steps 2 to 6 of episode 2, which is not among 2 episodes in"),
    ],
)
def test_a_reference_outside_an_episode_is_refused(path, arrays, message):
    write(path, with_array("segments", **arrays))
    with pytest.raises(DataError, match=f"{message} {DATASET}; label it again"):
        open_feedback(path)
