"""What inspection says of six segments, worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
from samples import DATASET, TASK, make_episode

from feedbackgen.answers import rate
from feedbackgen.episodes import write_dataset
from feedbackgen.feedback import Feedback, Oracle, Preferences, SafetyLabels, Segments
from feedbackgen.inspection import as_json, curve, examine, inspect_dataset, inspect_feedback
from feedbackgen.label import LabelConfig, label
from feedbackgen.plots import plot_dataset, plot_feedback
from feedbackgen.statistics import binomial_interval
from feedbackgen.store import open_feedback, write_feedback
from feedbackgen.types import Outcomes

# Four steps each; the second episode pays at its first two steps, above the limit of 1.
OUTCOMES = Outcomes(
    rewards=np.array([1.0, 1, 1, 1, 2, 2, 2, 2]),
    costs=np.array([0.0, 0, 0, 0, 1, 1, 0, 0]),
    starts=np.array([0, 4, 8]),
)
ATTRIBUTES = {"horizon": 4, "cost_limit": 1.0, "segment_length": 2, "safety_bound": 0.5}
# Safe with return 2; unsafe with return 4; safe, though of the unsafe episode, with return 4.
FEEDBACK = Feedback(
    segments=Segments(episode=np.int32([0, 1, 1]), start=np.int32([0, 0, 2]), length=np.int32([2, 2, 2])),
    preferences=Preferences(
        pair=np.int32([[0, 1], [2, 0], [0, 2]]), label=np.float32([1, 1, 0.5]), annotator=np.zeros(3, np.int32)
    ),
    safety=SafetyLabels(segment=np.int32([0, 1, 2]), label=np.int8([1, -1, 1]), annotator=np.zeros(3, np.int32)),
    oracle=Oracle(
        segment_return=np.array([2.0, 4, 4]),
        segment_cost=np.array([0.0, 2, 0]),
        preference_probability=np.float32([0.95, 0.05, 0.5]),
        preference_clean=np.float32([1, 0, 0.5]),
        preference_flipped=np.array([False, True, False]),
        safety_clean=np.int8([1, -1, 1]),
        safety_flipped=np.zeros(3, bool),
    ),
    attributes=ATTRIBUTES,
)


@pytest.fixture
def found():
    return examine(FEEDBACK, OUTCOMES, ATTRIBUTES, name="tiny")


def test_margins_are_in_deviations_of_return_differences(found):
    # Returns of all six segments: 2, 2, 2, 4, 4, 4; their deviation is 1.
    assert found.margins == pytest.approx([np.sqrt(2), -np.sqrt(2), np.sqrt(2)])
    assert (found.n_equal_labels, found.n_equal_returns) == (1, 0)
    assert found.margin_quartiles == pytest.approx([np.sqrt(2)] * 3)


def test_a_label_for_the_lower_return_is_an_error_and_ties_count_for_nothing(found):
    assert found.rates["preference_error"] == rate(None, 1, 2)
    assert found.errors.n.tolist() == [2] and found.errors.share.tolist() == [0.5]


def test_preference_and_safety_part_where_the_preferred_is_unsafe_and_the_other_safe(found):
    assert found.disagrees.tolist() == [True, False, False]
    assert found.rates["unsafe_preferred_to_safe"] == rate(None, 1, 2)


def test_where_they_part_is_told_by_labels_too(found):
    assert found.rates["unsafe_preferred_to_safe, by labels"] == rate(None, 1, 2)
    # The last segment called unsafe, by one label of one: it is dispreferred to a safe one, so nothing parts there.
    safety = replace(FEEDBACK.safety, label=np.int8([-1, -1, -1]))
    flipped = examine(replace(FEEDBACK, safety=safety), OUTCOMES, ATTRIBUTES, name="tiny")
    assert flipped.rates["unsafe_preferred_to_safe, by labels"] == rate(None, 0, 2)


def test_reliability_is_told_before_and_after_flips(found):
    assert found.drawn.at == pytest.approx([0.05, 0.95])
    assert found.drawn.share.tolist() == [0, 1]
    assert found.stored.share.tolist() == [1, 1]


def test_safe_segments_of_unsafe_episodes_grow_rarer_with_length(found):
    assert found.purity.lengths.tolist() == [1, 2, 4]
    assert found.purity.unsafe == pytest.approx([2 / 8, 2 / 6, 1 / 2])
    assert found.purity.from_unsafe == pytest.approx([2 / 6, 1 / 4, 0])
    assert found.labels == {2: rate(None, 1, 2)}


def test_the_plane_says_what_of_it_was_asked_about(found):
    assert found.plane.there.tolist() == [[3, 0, 0], [1, 1, 1]]
    assert found.plane.asked.tolist() == [[1, 0, 0], [1, 0, 1]]
    assert (found.plane.n_reached, found.plane.n_cells, found.plane.limit) == (3, 4, 0.25)


def test_a_curve_has_the_bins_that_hold_anything_with_wilsons_intervals():
    found = curve(np.array([0.1, 0.2, 0.5, 0.9]), np.array([False, True, True, True]), np.array([0.3, 0.5, 0.95]))
    assert found.at == pytest.approx([0.15, 0.7])
    assert found.share.tolist() == [0.5, 1] and found.n.tolist() == [2, 2]
    assert (found.low[0], found.high[0]) == binomial_interval(1, 2)


def test_what_is_realised_by_the_arrays_is_what_the_store_states():
    write_episodes()
    label(DATASET, LabelConfig(n_pairs=200, segment_length=(4, 9), noise=0.2, beta=1.0))
    stated = open_feedback(DATASET).attributes["statistics"]
    found = inspect_feedback(DATASET)
    decided = found.errors.n.sum()
    assert found.errors.share @ found.errors.n / decided == pytest.approx(stated["preference_error"]["realised"])
    assert found.rates["safety_flips"] == stated["safety_flips"]
    assert found.plane.asked.sum() == stated["segments"]


def test_peoples_feedback_is_inspected_without_what_only_a_teacher_knows(tmp_path):
    info = write_episodes()
    label(DATASET, LabelConfig(n_pairs=50, segment_length=8))
    simulated = open_feedback(DATASET)
    keys = ("dataset_id", "dataset_fingerprint", "task")
    people = replace(
        simulated, attributes={key: simulated.attributes[key] for key in keys} | {"source": "human"}, oracle=None
    )
    write_feedback(info.path / "feedback" / "people.zarr", people)
    found = inspect_feedback(f"{DATASET}/people")
    assert found.drawn is None and found.stored is None
    known = inspect_feedback(DATASET)
    assert found.rates["preference_error"]["realised"] == known.rates["preference_error"]["realised"]
    assert found.rates["unsafe_preferred_to_safe"] == known.rates["unsafe_preferred_to_safe"]
    assert found.purity.from_unsafe.tolist() == known.purity.from_unsafe.tolist()
    plot_feedback(found, title="t", path=tmp_path / "people.png")
    assert (tmp_path / "people.png").stat().st_size > 10_000


def test_data_without_costs_are_inspected_by_their_returns_alone(tmp_path):
    write_episodes(costs=np.nan)
    label(DATASET, LabelConfig(n_pairs=50, segment_length=8))
    found = inspect_feedback(DATASET)
    assert found.purity is None and found.plane is None and "unsafe_preferred_to_safe" not in found.rates
    assert inspect_dataset(DATASET).purity is None
    plot_feedback(found, title="t", path=tmp_path / "a.png")


def test_a_dataset_is_inspected_by_its_episodes():
    write_episodes()
    found = inspect_dataset(DATASET)
    assert found.rates["safe"] == rate(None, 6, 12)
    assert found.unsafe_better == pytest.approx(36 / 66)  # each fast episode is better than each slow one
    assert found.lengths.tolist() == [40] * 12
    # 40 steps lie within the first tenth of 500.
    assert found.cost_over_time["fast"][0] == 1 and found.cost_over_time["slow"][0] == 0
    assert np.isnan(found.cost_over_time["fast"][1:]).all()


def test_pictures_depend_on_their_content_alone(tmp_path, found):
    write_episodes()
    episodes = inspect_dataset(DATASET)
    for name in ("a", "b"):
        plot_feedback(found, title="t", path=tmp_path / f"{name}.png")
        plot_dataset(
            episodes,
            np.arange(2.0),
            np.arange(2.0),
            ("x", "y"),
            cost_limit=1,
            title="t",
            path=tmp_path / f"{name}-dataset.png",
        )
    for kind in ("", "-dataset"):
        assert (tmp_path / f"a{kind}.png").read_bytes() == (tmp_path / f"b{kind}.png").read_bytes()


def test_json_has_null_for_what_is_not_known(found):
    written = as_json(found)
    assert written["purity"]["from_unsafe"] == pytest.approx([2 / 6, 1 / 4, 0]) and "margins" not in written
    assert written["labels"] == {"2": rate(None, 1, 2)}
    assert as_json(replace(found, purity=replace(found.purity, unsafe=np.array([np.nan]))))["purity"]["unsafe"] == [
        None
    ]


def write_episodes(costs: float = 1.0):
    """Six slow episodes without costs, six fast ones with a cost at each step."""
    episodes = [make_episode(index, unsafe=index % 2 == 1) for index in range(12)]
    fast = np.array([one.policy == "fast" for one in episodes])
    levels = np.where(fast | np.isnan(costs), costs, 0.0)
    episodes = [
        replace(one, costs=np.full(40, level), cost_terms={}) for one, level in zip(episodes, levels, strict=True)
    ]
    return write_dataset(DATASET, episodes, task=TASK)
