import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from feedbackgen.episodes import load_outcomes, write_dataset
from feedbackgen.errors import DataError, OutputExists, RecipeError
from feedbackgen.feedback import check_feedback
from feedbackgen.label import LabelConfig, label, label_trajectories
from feedbackgen.provenance import folder_hash
from feedbackgen.store import open_feedback
from feedbackgen.tasks import get_task
from feedbackgen.types import Episode, Trajectories

TASK = get_task("SafetyPointCircle1-v0")
DATASET = "feedbackgen/SafetyPointCircle1-v0/tiny-v0"
SMALL = LabelConfig(n_pairs=200, segment_length=20, noise=0.1, seed=4)


def make_trajectories(n_episodes=40, n_steps=200, seed=0):
    """Episodes of different quality; the cost of a step is 0 or 1."""
    rng = np.random.default_rng(seed)
    n_all = n_episodes * n_steps
    quality = np.repeat(rng.random(n_episodes), n_steps)
    return Trajectories(
        observations=np.zeros((n_all, 1)),
        final_observations=np.zeros((n_episodes, 1)),
        actions=np.zeros((n_all, 1)),
        terminations=np.zeros(n_all, dtype=bool),
        starts=np.arange(n_episodes + 1) * n_steps,
        rewards=rng.normal(size=n_all) + quality,
        costs=np.float64(rng.random(n_all) < 0.2 * quality),
        policies=("some",) * n_episodes,
    )


def answer(config=SMALL, *, trajectories=None, cost_limit=25.0, horizon=250, **values):
    trajectories = trajectories or make_trajectories()
    return label_trajectories(
        trajectories, dataclasses.replace(config, **values), cost_limit=cost_limit, horizon=horizon
    )


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    write_dataset(DATASET, [make_episode(seed) for seed in range(5)], task=TASK.name)
    return DATASET


def make_episode(seed, n_steps=60):
    rng = np.random.default_rng(seed)
    return Episode(
        observations=rng.normal(size=(n_steps + 1, TASK.observation_dim)),
        actions=rng.uniform(-1, 1, size=(n_steps, TASK.action_dim)),
        rewards=rng.normal(size=n_steps),
        costs=np.float64(rng.random(n_steps) < 0.1),
        terminations=np.zeros(n_steps, dtype=bool),
        truncations=np.arange(n_steps) == n_steps - 1,
        seed=seed,
        policy="some",
    )


def test_labels_are_recomputed_from_the_referenced_steps_alone():
    trajectories = make_trajectories()
    feedback = answer(trajectories=trajectories, beta=math.inf, noise=0.0)
    segments = feedback.segments
    first = trajectories.starts[segments.episode] + segments.start
    steps = first[:, None] + np.arange(20)
    returns, costs = trajectories.rewards[steps].sum(axis=1), trajectories.costs[steps].sum(axis=1)
    pairs = feedback.preferences.pair
    assert np.array_equal(feedback.preferences.label, returns[pairs[:, 1]] > returns[pairs[:, 0]])
    # A limit of 25 in 250 steps is 2 in 20.
    assert np.array_equal(feedback.safety.label, np.where(costs[feedback.safety.segment] <= 2, 1, -1))
    assert feedback.oracle.segment_return == pytest.approx(returns)
    assert np.array_equal(feedback.oracle.segment_cost, costs)


def test_what_is_answered_obeys_the_format():
    check_feedback(answer())


def test_the_oracle_tells_how_each_label_came_about():
    feedback = answer()
    oracle = feedback.oracle
    assert oracle.preference_flipped.any() and oracle.safety_flipped.any()
    flipped = np.where(oracle.preference_flipped, 1 - oracle.preference_clean, oracle.preference_clean)
    assert np.array_equal(feedback.preferences.label, flipped)
    assert np.array_equal(
        feedback.safety.label, np.where(oracle.safety_flipped, -oracle.safety_clean, oracle.safety_clean)
    )


def test_noise_on_one_channel_leaves_the_other_and_the_draws_alone():
    quiet, noisy = answer(safety_noise=0.0), answer(safety_noise=0.4)
    for one, other in ((quiet.segments, noisy.segments), (quiet.preferences, noisy.preferences)):
        for entry in dataclasses.fields(one):
            assert np.array_equal(getattr(one, entry.name), getattr(other, entry.name))
    assert np.array_equal(quiet.safety.segment, noisy.safety.segment)
    assert np.array_equal(quiet.oracle.safety_clean, noisy.oracle.safety_clean)
    other = answer(preference_noise=0.4)
    assert np.array_equal(answer().safety.label, other.safety.label)
    assert np.array_equal(answer().oracle.preference_clean, other.oracle.preference_clean)
    # A flip at the lower rate is also a flip at the higher one.
    assert np.all(other.oracle.preference_flipped | ~answer().oracle.preference_flipped)


def test_the_number_of_safety_labels_leaves_the_preferences_alone():
    few, many = answer(n_safety=50), answer(n_safety=150)
    assert np.array_equal(few.preferences.label, many.preferences.label)
    for side in (0, 1):
        rows = [(feedback.segments, feedback.preferences.pair[:, side]) for feedback in (few, many)]
        starts = [(segments.episode[row], segments.start[row]) for segments, row in rows]
        assert np.array_equal(starts[0], starts[1])


def test_another_seed_asks_about_other_segments():
    assert not np.array_equal(answer(seed=1).segments.start, answer(seed=2).segments.start)


def test_as_many_segments_as_pairs_are_judged_where_there_are_so_many():
    assert len(answer().safety) == 200
    assert len(answer(trajectories=make_trajectories(n_episodes=5, n_steps=25)).safety) == 30
    assert len(answer(n_safety=0).safety) == 0


def test_realised_rates_lie_in_the_binomial_interval_of_what_was_asked():
    config = LabelConfig(n_pairs=20_000, n_safety=7_000, segment_length=20, preference_noise=0.1, safety_noise=0.2)
    statistics = answer(config).attributes["statistics"]
    for name, expected, n_labels in (
        ("preference_flips", 0.1, 20_000),
        ("safety_flips", 0.2, 7_000),
        ("draw_errors", statistics["draw_errors"]["expected"], 20_000),
        ("preference_error", statistics["preference_error"]["expected"], 20_000),
    ):
        assert statistics[name]["expected"] == pytest.approx(expected)
        low, high = binom.interval(0.999, n_labels, expected)
        assert low <= statistics[name]["realised"] * n_labels <= high
        assert statistics[name]["low"] < statistics[name]["realised"] < statistics[name]["high"]


def test_an_error_rate_is_met_by_the_labels():
    statistics = answer(n_pairs=5000, error_rate=0.2, noise=0.0).attributes["statistics"]
    assert statistics["draw_errors"]["expected"] == pytest.approx(0.2, abs=0.01)
    low, high = binom.interval(0.999, 5000, statistics["draw_errors"]["expected"])
    assert low <= statistics["preference_error"]["realised"] * 5000 <= high


def test_ties_are_half_and_are_neither_errors_nor_flips():
    trajectories = make_trajectories()
    tied = dataclasses.replace(trajectories, rewards=np.repeat([0.1, 0.3], trajectories.n_steps // 2))
    feedback = answer(trajectories=tied, beta=math.inf, noise=0.5)
    statistics = feedback.attributes["statistics"]
    assert statistics["ties"] == np.sum(feedback.preferences.label == 0.5) > 0
    low, high = binom.interval(0.999, 200 - statistics["ties"], 0.5)
    assert low <= statistics["preference_error"]["realised"] * (200 - statistics["ties"]) <= high
    assert not feedback.oracle.preference_flipped[feedback.preferences.label == 0.5].any()


def drawn(feedback, trajectories):
    """First step, unsafe or not, of the segments of pairs and of the judged ones."""
    segments, bound = feedback.segments, feedback.attributes["safety_bound"]
    steps = (trajectories.starts[segments.episode] + segments.start)[:, None] + np.arange(20)
    unsafe = trajectories.costs[steps].sum(axis=1) > bound
    rows = feedback.preferences.pair.ravel(), feedback.safety.segment
    return [(segments.start[row], unsafe[row]) for row in rows]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.75])
def test_the_unsafe_share_is_met_exactly_in_pairs_and_in_safety_labels(share):
    trajectories = make_trajectories()
    feedback = answer(trajectories=trajectories, unsafe_share=share)
    for _, unsafe in drawn(feedback, trajectories):
        assert unsafe.mean() == share
    statistics = feedback.attributes["statistics"]
    assert statistics["unsafe_share"]["realised"] == statistics["unsafe_share of pairs"]["realised"] == share


def test_the_share_of_starts_is_met_exactly_beside_the_unsafe_share():
    trajectories = make_trajectories(n_episodes=400)
    for unsafe_share in (None, 0.4):
        feedback = answer(trajectories=trajectories, start_share=0.3, unsafe_share=unsafe_share, n_safety=100)
        for first_step, unsafe in drawn(feedback, trajectories):
            assert (first_step == 0).mean() == 0.3
            if unsafe_share is not None:
                assert unsafe.mean() == 0.4
    statistics = feedback.attributes["statistics"]
    assert statistics["start_share of pairs"]["realised"] == statistics["start_share"]["expected"] == 0.3


def test_as_many_segments_are_judged_as_the_shares_allow():
    feedback = answer(start_share=0.5)  # of 40 episodes
    assert len(feedback.safety) == 80 and len(feedback.preferences) == 200


def test_a_kind_that_is_not_there_is_refused():
    trajectories = make_trajectories(n_episodes=4)
    late = np.tile(np.arange(200) >= 100, 4).astype(float)
    with pytest.raises(DataError) as refusal:
        answer(trajectories=dataclasses.replace(trajectories, costs=late), unsafe_share=0.5, start_share=0.5)
    assert str(refusal.value) == (
        "--unsafe-share and --start-share: there is no segment that is unsafe at a start; leave --unsafe-share and "
        "--start-share out, or use another --segment-length"
    )


def test_stratified_segments_cover_returns_and_costs_evenly():
    trajectories = make_trajectories()
    rare = trajectories.costs * (np.random.default_rng(0).random(trajectories.n_steps) < 0.4)
    trajectories = dataclasses.replace(trajectories, costs=rare)
    covered = []
    for queries in ("uniform", "stratified"):
        feedback = answer(trajectories=trajectories, queries=queries, n_pairs=2000, n_safety=500)
        costs = feedback.oracle.segment_cost[feedback.preferences.pair.ravel()]
        covered.append(np.bincount(np.minimum(costs, 3).astype(int), minlength=4) / len(costs))
    # As they come, half of the segments cost nothing; quantiles make bins of 0, 1, 2, and more, with a quarter each.
    assert covered[0][0] > 0.45
    assert covered[1] == pytest.approx(1 / 4, abs=1e-3)
    assert len(feedback.safety) == 500


@pytest.mark.parametrize("margin", [(0.0, 0.1), (0.5, 1.0), (1.5, math.inf)])
def test_pairs_are_drawn_by_the_margin_of_their_returns(margin):
    feedback = answer(n_pairs=1000, margin=margin)
    returns = feedback.oracle.segment_return[feedback.preferences.pair]
    margins = np.abs(returns[:, 1] - returns[:, 0]) / feedback.attributes["statistics"]["return_scale"]
    assert np.all((margins >= margin[0]) & (margins <= margin[1]))
    assert margins.max() - margins.min() > 0.9 * (min(margin[1], 2.0) - margin[0])


def test_a_margin_that_no_pair_has_is_refused():
    with pytest.raises(DataError, match=r"only 0 of segments of length 20 .* found by --margin; use another --margin"):
        answer(margin=(50.0, 60.0), n_pairs=5)


def test_several_lengths_take_turns_in_one_store():
    trajectories = make_trajectories()
    feedback = answer(trajectories=trajectories, segment_length=(10, 20, 40), n_pairs=300, beta=math.inf, noise=0.0)
    check_feedback(feedback)
    pairs, segments = feedback.preferences.pair, feedback.segments
    lengths = segments.length[pairs]
    assert np.array_equal(lengths[:, 0], np.tile([10, 20, 40], 100))
    assert np.array_equal(lengths[:, 0], lengths[:, 1])
    assert np.bincount(segments.length[feedback.safety.segment]).tolist()[10::10] == [100, 100, 0, 100]
    assert feedback.attributes["safety_bound"] == [1.0, 2.0, 4.0]  # a limit of 25 in 250 steps
    first = trajectories.starts[segments.episode] + segments.start
    totals = [np.concatenate([[0], np.cumsum(values)]) for values in (trajectories.rewards, trajectories.costs)]
    returns, costs = (total[first + segments.length] - total[first] for total in totals)
    assert np.array_equal(feedback.preferences.label, returns[pairs[:, 1]] > returns[pairs[:, 0]])
    unsafe = costs > segments.length / 10 + 1e-6
    assert np.array_equal(feedback.safety.label == -1, unsafe[feedback.safety.segment])


def test_an_error_rate_is_met_at_each_length():
    feedback = answer(segment_length=(5, 50), n_pairs=8000, error_rate=0.2, noise=0.0)
    returns = feedback.oracle.segment_return[feedback.preferences.pair]
    wrong = feedback.preferences.label != (returns[:, 1] > returns[:, 0])
    low, high = binom.interval(0.999, 4000, 0.2)
    for place in (0, 1):
        assert low - 40 <= wrong[place::2].sum() <= high + 40  # beta is solved for on a sample of its own
    short, long = feedback.attributes["statistics"]["beta"]
    assert short != long


def test_a_tiring_teacher_tires_in_the_order_of_the_rows_whatever_the_length():
    feedback = answer(segment_length=(10, 20), n_pairs=8000, beta=math.inf, noise=0.0, drift=0.4)
    flipped = feedback.oracle.preference_flipped
    for place in (0, 1):
        for half, expected in ((slice(0, 2000), 0.1), (slice(2000, 4000), 0.3)):
            low, high = binom.interval(0.999, 2000, expected)
            assert low - 20 <= flipped[place::2][half].sum() <= high + 20


def test_pairs_that_are_skipped_are_not_stored():
    trajectories = make_trajectories()
    feedback = answer(trajectories=trajectories, skip=1.0, n_pairs=1000, segment_length=(10, 20))
    check_feedback(feedback)
    rate = feedback.attributes["statistics"]["skipped"]["realised"]
    assert 0.05 < rate < 0.5 and len(feedback.preferences) == round(1000 * (1 - rate))
    referenced = np.unique(np.append(feedback.preferences.pair, feedback.safety.segment))
    assert np.array_equal(referenced, np.arange(len(feedback.segments)))
    with pytest.raises(DataError, match=r"preferences: all 1000 pairs were skipped .*; use a lower --skip"):
        answer(skip=50.0, n_pairs=1000)


def test_the_safety_threshold_replaces_the_scaled_limit():
    feedback = answer(safety_threshold=0.0)
    assert feedback.attributes["safety_bound"] == 0.0
    judged = feedback.oracle.segment_cost[feedback.safety.segment]
    assert np.array_equal(feedback.oracle.safety_clean == -1, judged > 0)


def test_attributes_are_plain_json_also_with_an_infinite_beta():
    attributes = answer(beta=math.inf).attributes
    assert json.loads(json.dumps(attributes, allow_nan=False)) == attributes
    assert attributes["statistics"]["beta"] == attributes["teacher"]["beta"] == "inf"


@pytest.mark.parametrize(("cost_limit", "count"), [(1e6, 0), (0.0, 7240)])
def test_no_unsafe_or_no_safe_segment_is_refused_with_the_ways_out(cost_limit, count):
    trajectories = make_trajectories()
    if cost_limit == 0:
        trajectories = dataclasses.replace(trajectories, costs=np.ones(trajectories.n_steps))
    with pytest.raises(DataError) as refusal:
        answer(trajectories=trajectories, cost_limit=cost_limit)
    costs = "20 to 20" if cost_limit == 0 else "0 to 11"
    assert str(refusal.value) == (
        f"safety labels: {count} of 7240 segments of the dataset are unsafe (costs {costs}, "
        f"bound {cost_limit * 20 / 250:g}); use --safety-threshold or --cost-limit, "
        "or collect another mixture of policies"
    )


def test_a_rare_class_that_was_not_drawn_is_refused():
    trajectories = make_trajectories()
    rare = dataclasses.replace(trajectories, costs=np.float64(np.arange(trajectories.n_steps) < 3))
    with pytest.raises(DataError, match=r"0 of 200 drawn segments of the dataset are unsafe .*; use --unsafe-share, "):
        answer(trajectories=rare)


def test_trajectories_without_rewards_are_refused():
    with pytest.raises(DataError, match="the teacher needs rewards and costs"):
        answer(trajectories=dataclasses.replace(make_trajectories(), rewards=None))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"noise": 1.2}, "--noise: expected a probability in [0, 0.5], got 1.2"),
        ({"preference_noise": -0.1}, "--preference-noise: expected a probability in [0, 0.5], got -0.1"),
        (
            {"safety_noise": 0.51},
            "--safety-noise: expected a probability in [0, 0.5] (above it labels would say the opposite), got 0.51",
        ),
        ({"safety_noise": math.nan}, "--safety-noise: expected a probability in [0, 0.5], got nan"),
        ({"unsafe_share": 2}, "--unsafe-share: expected a share in (0, 1), got 2"),
        ({"n_pairs": 0}, "--pairs: expected an integer >= 1, got 0"),
        ({"n_pairs": 1.5}, "--pairs: expected an integer >= 1, got 1.5"),
        ({"n_safety": -1}, "--safety-labels: expected an integer >= 0, got -1"),
        ({"segment_length": (32, 0)}, "--segment-length: expected an integer >= 1, got 0"),
        ({"segment_length": (32, 32)}, "--segment-length: expected each length once, got (32, 32)"),
        ({"segment_length": ()}, "--segment-length: expected each length once, got ()"),
        ({"segment_length": (1, 2, 3), "n_pairs": 2}, "--pairs: expected at least 3, one per --segment-length, got 2"),
        (
            {"queries": "hard"},
            "--queries: expected one of uniform, stratified, disagreement, entropy, k-center, k-center-disagreement, "
            "k-center-entropy, got hard",
        ),
        ({"start_share": 1.0}, "--start-share: expected a share in (0, 1), got 1.0"),
        (
            {"start_share": 0.5, "queries": "stratified"},
            "--start-share and --queries stratified: expected one of them, got both",
        ),
        ({"margin": (2.0, 1.0)}, "--margin: expected LOW,HIGH with 0 <= LOW < HIGH, in deviations, got (2.0, 1.0)"),
        ({"segment_length": 0}, "--segment-length: expected an integer >= 1, got 0"),
        ({"seed": -1}, "--seed: expected an integer >= 0, got -1"),
        ({"beta": 0.0}, "--beta: expected a number above 0, or inf, got 0.0"),
        ({"beta": math.nan}, "--beta: expected a number above 0, or inf, got nan"),
        ({"error_rate": 0.5}, "--error-rate: expected a rate in [0, 0.5), got 0.5"),
        ({"cost_limit": -1.0}, "--cost-limit: expected a cost >= 0, got -1.0"),
        ({"safety_threshold": math.inf}, "--safety-threshold: expected a cost >= 0, got inf"),
        ({"beta": 1.0, "error_rate": 0.1}, "--beta and --error-rate: expected one of them, got both"),
        (
            {"cost_limit": 1.0, "safety_threshold": 0.1},
            "--cost-limit and --safety-threshold: expected one of them, got both",
        ),
        ({"teachers": ()}, "--teacher: expected at least one, got none"),
        ({"teachers": ("oracel",)}, "--teacher oracel: no such teacher; did you mean oracle?"),
    ],
)
def test_a_value_out_of_range_is_refused(values, message):
    with pytest.raises(RecipeError) as refusal:
        LabelConfig(**values)
    assert str(refusal.value) == message


def test_a_labelled_dataset_opens_with_the_labels_and_their_provenance(dataset):
    summary = label(dataset, SMALL)
    assert summary.path.name == "default.zarr"
    feedback = open_feedback(dataset, with_oracle=True)
    assert summary.statistics == feedback.attributes["statistics"]
    assert feedback.attributes["dataset_id"] == summary.dataset_id == dataset
    assert feedback.attributes["task"] == TASK.name
    assert feedback.attributes["cost_limit"] == TASK.default_cost_limit
    assert feedback.attributes["safety_bound"] == pytest.approx(TASK.default_cost_limit * 20 / TASK.horizon)
    assert len(feedback.preferences) == 200


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(dataset):
    paths = [
        label(dataset, dataclasses.replace(SMALL, seed=seed), name=name).path
        for name, seed in (("one", 4), ("two", 4), ("three", 5))
    ]
    hashes = [folder_hash(path) for path in paths]
    assert hashes[0] == hashes[1] != hashes[2]


def test_feedback_that_is_there_is_kept_without_force(dataset):
    path = label(dataset, SMALL).path
    before = folder_hash(path)
    with pytest.raises(OutputExists, match=r"default\.zarr exists; use --force"):
        label(dataset, dataclasses.replace(SMALL, seed=5))
    assert folder_hash(path) == before
    label(dataset, dataclasses.replace(SMALL, seed=5), force=True)
    assert folder_hash(path) != before


def test_nothing_is_written_when_no_segment_fits(dataset, tmp_path):
    with pytest.raises(DataError, match=f"segment length 61: longest episode of {dataset} has 60 steps"):
        label(dataset, dataclasses.replace(SMALL, segment_length=61))
    assert not (tmp_path / dataset / "feedback").exists()


def test_a_name_that_is_no_file_name_is_refused(dataset):
    with pytest.raises(DataError, match=r"feedback name '\.\./x': expected letters"):
        label(dataset, SMALL, name="../x")


def test_feedback_beside_the_trajectories_does_not_disturb_minari(dataset):
    import minari

    label(Path(minari.storage.get_dataset_path(dataset)), SMALL)
    assert minari.load_dataset(dataset).total_episodes == 5


def test_a_dataset_without_costs_is_asked_for_preferences_alone():
    episodes = [
        dataclasses.replace(episode, costs=np.full(episode.n_steps, np.nan))
        for episode in (make_episode(index) for index in range(4))
    ]
    info = write_dataset(DATASET, episodes, task=TASK.name)
    assert not info.has_costs and np.isnan(load_outcomes(DATASET).costs).all()
    label(DATASET, LabelConfig(n_pairs=20, segment_length=8))
    feedback = open_feedback(DATASET)
    assert len(feedback.preferences) == 20 and len(feedback.safety) == 0
    for asked in ({"n_safety": 5}, {"unsafe_share": 0.5}):
        with pytest.raises(DataError, match="imported without costs; leave --safety-labels and --unsafe-share out"):
            label(DATASET, LabelConfig(n_pairs=20, segment_length=8, **asked), name="other")
