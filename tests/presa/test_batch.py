from dataclasses import fields, replace

import h5py
import numpy as np
import pytest
import torch
from samples import DATASET, make_dataset
from torch.utils.data import DataLoader

from feedbackgen.episodes import dataset_info
from feedbackgen.errors import DataError
from feedbackgen.label import LabelConfig, label
from feedbackgen.seeding import stream
from presa.batch import Batch, Batches, feedback_hash, learning_data, load_learning_data, sample_segment_steps

BOX = (np.array([-1.0]), np.array([1.0]))


def test_observations_are_standardised_and_actions_scaled_to_the_box(trajectories, feedback):
    data = learning_data(trajectories, feedback, np.array([-2.0]), np.array([4.0]))
    assert data.observations.mean().item() == pytest.approx(0, abs=1e-5)
    assert data.observations.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert data.actions[0, 0].item() == pytest.approx((trajectories.actions[0, 0] - 1) / 3)


def test_a_segment_starts_at_the_row_of_its_first_step(data, feedback):
    assert data.segment_starts[7] == feedback.segments.episode[7] * 40 + feedback.segments.start[7]


def test_each_step_of_a_segment_comes_once_when_as_many_are_drawn_as_it_has():
    rows, places = sample_segment_steps(np.array([100]), np.array([16]), 16, np.random.default_rng(0))
    assert rows.tolist() == [list(range(100, 116))]
    assert places.tolist() == [list(range(16))]


def test_steps_are_drawn_evenly_whatever_the_length():
    starts, lengths = np.zeros(60_000, dtype=int), np.full(60_000, 7)
    places = sample_segment_steps(starts, lengths, 4, np.random.default_rng(0))[1]
    assert np.bincount(places.ravel()) / 60_000 == pytest.approx(np.full(7, 4 / 7), abs=0.01)


def test_a_single_step_stands_for_itself():
    rows, _ = sample_segment_steps(np.array([5]), np.array([1]), 3, np.random.default_rng(0))
    assert rows.tolist() == [[5, 5, 5]]


def test_a_learner_may_not_see_rewards(trajectories, feedback):
    with pytest.raises(DataError, match="may not see rewards"):
        learning_data(replace(trajectories, rewards=np.zeros(trajectories.n_steps)), feedback, *BOX)


def test_values_that_are_not_finite_are_refused(trajectories, feedback):
    observations = trajectories.observations.copy()
    observations[3, 0] = np.nan
    with pytest.raises(DataError, match="observations: expected finite values, got nan"):
        learning_data(replace(trajectories, observations=observations), feedback, *BOX)


def test_an_unbounded_action_box_is_refused(trajectories, feedback):
    with pytest.raises(DataError, match="action box: expected finite bounds"):
        learning_data(trajectories, feedback, np.array([-np.inf]), np.array([np.inf]))


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("segments", "episode", 99, "an episode is outside 0..59"),
        ("segments", "start", 39, "reaches outside episode"),
        ("preferences", "pair", 600, "preferences: a label names a segment outside 0..599"),
        ("preferences", "label", 0.7, "expected labels 0, 0.5 or 1"),
        ("safety", "segment", -1, "safety labels: a label names a segment outside"),
        ("safety", "label", 0, "expected .1 .safe. or -1"),
    ],
)
def test_feedback_that_does_not_fit_is_refused(trajectories, feedback, part, name, value, message):
    values = getattr(getattr(feedback, part), name).copy()
    values[0] = value
    broken = replace(feedback, **{part: replace(getattr(feedback, part), **{name: values})})
    with pytest.raises(DataError, match=message):
        learning_data(trajectories, broken, *BOX)


def test_the_hash_follows_the_labels_and_ignores_the_oracle(feedback):
    labels = feedback.safety.label.copy()
    labels[0] *= -1
    changed = replace(feedback, safety=replace(feedback.safety, label=labels))
    assert feedback_hash(feedback) != feedback_hash(changed)
    assert feedback_hash(feedback) == feedback_hash(replace(feedback, oracle=None))


@pytest.fixture
def store():
    make_dataset()
    label(DATASET, LabelConfig(n_pairs=50, n_safety=40, segment_length=8, cost_limit=100.0))
    return DATASET


def assert_equal(one: Batch, other: Batch):
    for field in fields(Batch):
        assert torch.equal(getattr(one, field.name), getattr(other, field.name)), field.name


def test_a_batch_holds_all_steps_of_its_segments_with_their_labels(data):
    batch = Batches(data, n_pairs=5, n_safety=3, n_batches=1, seed=0)[0]
    assert batch.pair_observations.shape == (5, 2, 16, 1) and batch.safety_actions.shape == (3, 16, 1)
    assert batch.pair_mask.all() and batch.safety_mask.all()
    pair = stream(0, "batch", 0).integers(len(data.pairs), size=5)
    for place, segments in enumerate(data.pairs[pair]):
        for side, segment in enumerate(segments):
            first = data.segment_starts[segment]
            assert torch.equal(batch.pair_observations[place, side], data.observations[first : first + 16])
            assert torch.equal(batch.pair_actions[place, side], data.actions[first : first + 16])
        assert batch.preferences[place] == data.preferences[pair[place]]
    assert set(batch.safety_labels.tolist()) <= {-1, 1}


def test_a_shorter_segment_ends_in_masked_copies_of_its_last_step(trajectories, feedback):
    lengths = feedback.segments.length.copy()
    lengths[::2] = 3
    segments = replace(feedback.segments, length=lengths)
    data = learning_data(trajectories, replace(feedback, segments=segments), *BOX)
    batch = Batches(data, n_pairs=64, n_batches=1, seed=0)[0]
    assert set(batch.pair_mask.sum(-1).unique().tolist()) == {3, 16}
    short = batch.pair_mask.sum(-1) == 3
    actions = batch.pair_actions[short]
    assert torch.equal(actions[:, 3:], actions[:, 2:3].expand(-1, 13, -1))


def test_mapped_and_in_memory_batches_are_equal_bit_by_bit(store):
    memory, mapped = (
        Batches(load_learning_data(store, mapped=mapped), n_pairs=16, n_safety=8, n_batches=20, seed=3)
        for mapped in (False, True)
    )
    for one, other in zip(memory, mapped, strict=True):
        assert_equal(one, other)


def test_batches_depend_on_seed_and_number_alone(data):
    batches = Batches(data, n_pairs=4, n_safety=4, n_batches=6, seed=1)
    assert_equal(list(batches)[4], batches[4])
    assert not torch.equal(batches[3].pair_observations, batches[4].pair_observations)
    other = Batches(data, n_pairs=4, n_safety=4, n_batches=6, seed=2)
    assert not torch.equal(other[4].pair_observations, batches[4].pair_observations)


def test_a_torch_loader_with_workers_gives_the_same_batches_in_order(store):
    batches = Batches(load_learning_data(store, mapped=True), n_pairs=4, n_batches=5, seed=1)
    loader = DataLoader(batches, batch_size=None, num_workers=1)
    for one, other in zip(loader, batches, strict=True):
        assert_equal(one, other)


def test_a_batch_may_hold_pairs_alone_or_safety_labels_alone(data):
    assert Batches(data, n_pairs=2, n_batches=1, seed=0)[0].safety_observations.shape == (0, 0, 1)
    assert Batches(data, n_pairs=0, n_safety=2, n_batches=1, seed=0)[0].pair_observations.shape == (0, 2, 0, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_pairs": -1}, "n_pairs: expected an integer >= 0, got -1"),
        ({"n_safety": -1}, "n_safety: expected an integer >= 0, got -1"),
        ({"n_batches": 0}, "n_batches: expected an integer >= 1, got 0"),
        ({"seed": -1}, "seed: expected an integer >= 0, got -1"),
    ],
)
def test_a_number_out_of_range_is_refused(data, values, message):
    with pytest.raises(DataError, match=message):
        Batches(data, **{"n_pairs": 1, "n_batches": 1, "seed": 0, **values})


def test_batches_of_labels_that_are_not_there_are_refused(trajectories, feedback):
    none = replace(feedback.safety, segment=np.empty(0, np.int32), label=np.empty(0, np.int8))
    data = learning_data(trajectories, replace(feedback, safety=none), *BOX)
    with pytest.raises(DataError, match="the feedback holds none; use n_safety=0"):
        Batches(data, n_pairs=1, n_safety=1, n_batches=1, seed=0)
    none = replace(feedback.preferences, pair=np.empty((0, 2), np.int32), label=np.empty(0, np.float32))
    data = learning_data(trajectories, replace(feedback, preferences=none), *BOX)
    with pytest.raises(DataError, match="the loader learns from preferences, the feedback holds none"):
        Batches(data, n_pairs=1, n_batches=1, seed=0)


def test_neither_mode_reads_rewards_or_costs(store):
    with h5py.File(dataset_info(store).path / "data/main_data.hdf5", "a") as file:
        for episode in file.values():
            del episode["rewards"], episode["infos"]
    for mapped in (False, True):
        data = load_learning_data(store, mapped=mapped)
        assert len(Batches(data, n_pairs=2, n_batches=1, seed=0)[0].preferences) == 2
