import minari
import numpy as np
import pytest
from samples import DATASET, TASK, make_dataset, make_episode

from feedbackgen.episodes import content_fingerprint, dataset_info, episode_returns, iterate_episodes, write_dataset
from feedbackgen.errors import DataError, OutputExists
from feedbackgen.sharing.catalogue import combine, delete, local_datasets

BOTH = f"feedbackgen/{TASK}/both-v0"
OTHER = f"feedbackgen/{TASK}/other-v0"


def test_a_combination_keeps_seeds_policies_costs_and_recipes():
    write_dataset(DATASET, [make_episode(0), make_episode(1, unsafe=True)], task=TASK, recipe='name = "a"\n')
    write_dataset(OTHER, [make_episode(7, unsafe=True)], task=TASK, recipe='name = "b"\n')
    info = combine([DATASET, OTHER], BOTH)
    episodes = list(iterate_episodes(BOTH))
    assert [episode.seed for episode in episodes] == [0, 1, 7]
    assert [episode.policy for episode in episodes] == ["slow", "fast", "fast"]
    assert info.recipe.count("[[combined]]") == 2 and dataset_info(OTHER).fingerprint in info.recipe
    original = make_episode(7, unsafe=True)
    np.testing.assert_array_equal(episodes[2].cost_terms["cost_out_of_boundary"], original.costs)
    assert content_fingerprint(BOTH) == info.fingerprint
    assert minari.load_dataset(BOTH)[2].infos["cost"][1:].sum() == original.cost_return
    np.testing.assert_array_equal(episode_returns(BOTH)[1][2], original.cost_return)


def test_what_cannot_be_combined_is_refused():
    make_dataset()
    with pytest.raises(DataError, match="expected at least two datasets, got 1"):
        combine([DATASET], BOTH)
    make_dataset(dataset_id=BOTH)
    with pytest.raises(OutputExists, match="--force"):
        combine([DATASET, DATASET], BOTH)
    with pytest.raises(DataError, match=r"absent-v0: not found"):
        combine([DATASET, "absent-v0"], OTHER)


def test_a_deleted_dataset_is_gone_with_its_feedback(dataset, datasets):
    assert [info.dataset_id for info in local_datasets()[0]] == [dataset]
    folder = delete(dataset)
    assert folder == datasets / dataset and not any(path.is_file() for path in datasets.rglob("*"))
    assert local_datasets() == ([], [])
    with pytest.raises(DataError, match="not found"):
        delete(dataset)
