"""Layouts against upstream's own sampling: the same places, and as many random numbers used."""

import numpy as np
import pytest

from feedbackgen.environments.layouts import sample_layout, use_fast_layouts
from feedbackgen.environments.upstream import load_builder
from feedbackgen.tasks import get_task

pytestmark = pytest.mark.simulator


@pytest.mark.parametrize(
    "name", ["SafetyPointButton2-v0", "SafetyCarGoal2-v0", "SafetyPointPush2-v0", "SafetyAntRun0-v0"]
)
def test_layouts_are_upstreams(name):
    make = load_builder()
    config = {"agent_name": get_task(name).robot}
    reference, fast = (make(task_id=name, config=config) for _ in range(2))
    use_fast_layouts(fast.task.random_generator)
    for seed in range(3):
        for builder in (reference, fast):
            builder.reset(seed=seed)
        for _ in range(3):
            ours, theirs = (builder.task.random_generator.build_layout() for builder in (fast, reference))
            assert list(ours) == list(theirs)
            np.testing.assert_array_equal(list(ours.values()), list(theirs.values()))
            assert ours is fast.task.random_generator.layout
            following = [
                builder.task.random_generator.random_generator.random_sample() for builder in (fast, reference)
            ]
            assert following[0] == following[1]


def test_two_objects_in_a_crowded_box_keep_clear():
    boxes = {"first": (0.0, 1.0, 0.0, 1.0, 0.3), "second": (0.0, 1.0, 0.0, 1.0, 0.3)}
    random = np.random.RandomState(0)
    for _ in range(200):
        layout = sample_layout(random, boxes, margin=0.1)
        assert np.linalg.norm(layout["first"] - layout["second"]) >= 0.7
        assert all(place.min() >= 0 and place.max() <= 1 for place in layout.values())


def test_no_room_leaves_the_stream_where_it_was():
    boxes = dict.fromkeys(("first", "second"), (0.0, 1.0, 0.0, 1.0, 1.0))
    random, same = np.random.RandomState(3), np.random.RandomState(3)
    assert sample_layout(random, boxes, margin=0.0) is None
    assert random.random_sample() == same.random_sample()
