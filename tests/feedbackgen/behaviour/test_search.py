"""The search of controllers: what it draws, what it keeps, and that a killed one ends with the same bytes."""

import json

import numpy as np
import pytest

from feedbackgen.behaviour import search
from feedbackgen.behaviour.controllers import load_controller, parameters_of
from feedbackgen.behaviour.search import Stage, Variant, search_population, varied
from feedbackgen.errors import PolicyError

TASK = "SafetyPointCircle2-v0"
STAGES = (
    Stage(name="expert", source=None, penalty=0.0, n_trials=3, n_tried=1, n_confirmed=1),
    Stage(
        name="safe-expert", source="expert", penalty=0.5, n_trials=2, n_tried=1, n_confirmed=1, guesses=({"wall": 0.9},)
    ),
)
VARIANTS = {
    "wary-expert": Variant(source="expert", towards="safe-expert", share=0.8),
    "poor": Variant(source="expert", speed=0.1),
    "reckless-expert": Variant(source="expert", changes={"caution": -1.0}),
}


def quick(out, seed=0, **changes):
    settings = {"n_episodes": 2, "stages": STAGES, "variants": VARIANTS, "command": "by hand"}
    return search_population(TASK, seed=seed, out=out, **(settings | changes))


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_copy_varies_two_fifths_of_the_parameters_inside_their_ranges():
    ranges = {str(index): (0.0, 1.0, 0.5) for index in range(100)}
    start = dict.fromkeys(ranges, 0.5)
    rng = np.random.default_rng(0)
    copies = np.array([list(varied(start, ranges, 0.3, rng).values()) for _ in range(100)])
    # A share of 0.4 among 10,000 draws: standard error 0.005; four of them.
    assert np.mean(copies != 0.5) == pytest.approx(0.4, abs=0.02)
    assert copies.min() == 0.0 and copies.max() == 1.0
    inside = copies[(copies != 0.5) & (copies > 0) & (copies < 1)]
    assert np.mean(np.abs(inside - 0.5)) > 0.1


@pytest.mark.parametrize("name", ["BallCircle", "BallRun", "CarCircle", "CarRun"])
def test_what_bullet_has_of_its_own_is_of_parameters_that_there_are(name):
    task = f"Safety{name}-v0"
    own = {key: each for key, each in search.variants_for(task).items() if search.VARIANTS.get(key) != each}
    assert len(own) == 3
    for changes in (*(each.changes for each in own.values()), *search.stages_for(task)[1].guesses):
        assert changes and changes.keys() <= parameters_of(task).keys()


@pytest.mark.simulator
def test_a_search_that_is_killed_goes_on_to_the_same_bytes(tmp_path):
    heard = []
    infos = quick(tmp_path / "whole", progress=lambda done, total: heard.append((done, total)))
    assert [info.name for info in infos] == ["expert", "safe-expert", "wary-expert", "poor"]
    assert heard[-1] == (13, 13) and [done for done, _ in heard] == sorted(done for done, _ in heard)

    for moment in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            quick(tmp_path / "killed", progress=_killer(moment))
    quick(tmp_path / "killed")
    assert files(tmp_path / "whole") == files(tmp_path / "killed")


def _killer(moment: int):
    def kill(done, total):
        if done == moment:
            raise KeyboardInterrupt

    return kill


@pytest.mark.simulator
def test_variants_are_made_of_what_was_found(tmp_path):
    quick(tmp_path)
    names = VARIANTS.keys() - {"reckless-expert"}
    load = {name: load_controller(tmp_path / f"{name}.npz", name=name, task=TASK).parameters for name in names}
    found = json.loads((tmp_path / ".search.json").read_text())["found"]
    expert, safe = found["expert"]["parameters"], found["safe-expert"]["parameters"]
    assert load["wary-expert"]["wall"] == pytest.approx(0.2 * expert["wall"] + 0.8 * safe["wall"], abs=1e-4)
    assert load["poor"]["speed"] == pytest.approx(0.1 * expert["speed"], abs=1e-4)
    assert load["poor"]["speed_at_wall"] == pytest.approx(0.1 * expert["speed_at_wall"], abs=1e-4)
    assert load["poor"]["radius"] == expert["radius"]
    # A controller without caution has no variant of another caution.
    assert not (tmp_path / "reckless-expert.npz").exists()


def test_what_scores_higher_is_kept_and_a_guess_is_tried_first(monkeypatch, tmp_path):
    walls = {"expert": [], "safe-expert": []}

    def score(batch, task, parameters, stage, seed, purpose, n_episodes):
        walls[stage.name].append(parameters["wall"])
        return -abs(parameters["wall"] - 0.9)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "_score", score)
    monkeypatch.setattr(search, "make_env_batch", lambda task, n: None)
    monkeypatch.setattr(search, "measure", stop)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path)
    found = json.loads((tmp_path / ".search.json").read_text())["found"]
    nearest = min(walls["expert"], key=lambda wall: abs(wall - 0.9))
    assert found["expert"]["parameters"]["wall"] == nearest and walls["expert"][0] == parameters_of(TASK)["wall"][2]
    assert walls["safe-expert"][:3] == [nearest, nearest, 0.9]
    assert found["safe-expert"]["parameters"]["wall"] == 0.9


def test_a_folder_of_another_seed_is_refused(tmp_path):
    (tmp_path / ".search.json").write_text(json.dumps({"task": TASK, "seed": 0, "found": {}}))
    with pytest.raises(PolicyError, match=f"holds a search for {TASK} with seed 0, not for {TASK} with seed 1; use an"):
        quick(tmp_path, seed=1)
