"""A user's own algorithm, in one file of theirs."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from feedbackgen.errors import DataError, RecipeError, StoreError
from presa.benchmark import BenchmarkRecipe
from presa.checkpoint import load_policy
from presa.methods import METHODS, find_method, method_hash, method_name
from presa.training import fit, resolve_config

MINE = '''
"""Clone every step, half as fast as bc."""
from dataclasses import dataclass, field

from presa.algorithms.bc import BehaviourCloning
from presa.cloning import CloningConfig
from presa.methods import Method
from presa.policy import PolicyConfig


@dataclass(frozen=True, kw_only=True)
class MineConfig:
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    cloning: CloningConfig = field(default_factory=lambda: CloningConfig(n_steps=3, learning_rate=5e-4))


METHOD = Method(MineConfig, {"default": MineConfig()}, BehaviourCloning)
'''


EXAMPLE = str(Path(__file__).parents[2] / "examples" / "my_method.py")


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def test_a_users_file_is_trained_like_ours(mine, data, tmp_path):
    preset, config = resolve_config(str(mine), None, {"cloning.n_steps": 2})
    provenance = {"method": method_name(str(mine)), "method_sha256": method_hash(str(mine)), "seed": 0, "task": "t"}
    run = fit(data, config, provenance, learner=find_method(str(mine)).learner, out=tmp_path / "run")
    assert (preset, config.cloning.learning_rate, load_policy(run).method) == ("default", 5e-4, "mine")
    record = json.loads((run / "provenance.json").read_text())
    assert record["method_sha256"] == hashlib.sha256(MINE.encode()).hexdigest()


def test_a_run_of_a_file_that_has_changed_is_not_resumed(mine, data, tmp_path):
    learner, (_, config) = find_method(str(mine)).learner, resolve_config(str(mine))
    about = {"method": "mine", "seed": 0, "task": "t"}
    fit(data, config, about | {"method_sha256": method_hash(str(mine))}, learner=learner, out=tmp_path / "run")
    mine.write_text(MINE + "\n")
    changed = about | {"method_sha256": method_hash(str(mine))}
    with pytest.raises(StoreError, match="differs in method_sha256"):
        fit(data, config, changed, learner=learner, out=tmp_path / "run", resume=True)


@pytest.fixture
def example_config(small_config):
    settings = {"policy": small_config.policy, "cloning": replace(small_config.cloning, learning_rate_final=1.0)}
    return replace(find_method(EXAMPLE).presets["default"], **settings, n_steps=400, n_pairs=16)


def test_the_example_learns_the_safe_and_preferred_action(data, example_config):
    learner = find_method(EXAMPLE).learner(data, example_config, 0)
    for step in range(learner.n_steps):
        learner.update(step)
    below, above = learner.policy(torch.tensor([[-1.0], [1.0]])).flatten().tolist()
    assert (above - below) / 2 == pytest.approx(0.4, abs=0.15)


def test_the_example_resumes_to_the_same_bytes(data, example_config, tmp_path):
    def stop(done, *_):
        if done == 600:
            raise KeyboardInterrupt

    def run(name, **options):
        about = {"method": "my_method", "seed": 0, "task": "t"}
        learner = find_method(EXAMPLE).learner
        return fit(data, example_config, about, learner=learner, out=tmp_path / name, **options)

    with pytest.raises(KeyboardInterrupt):
        run("killed", progress=stop)
    assert not (tmp_path / "killed" / "policy.safetensors").exists()
    policies = [run("undisturbed"), run("killed", resume=True)]
    assert len({(policy / "policy.safetensors").read_bytes() for policy in policies}) == 1


def test_the_example_asks_for_a_winner_that_is_not_unsafe(data, example_config):
    unsafe = replace(data, safety_labels=np.full_like(data.safety_labels, -1))
    with pytest.raises(DataError, match="every winner is labelled unsafe"):
        find_method(EXAMPLE).learner(unsafe, example_config, 0)


def test_a_users_file_is_imported_once_until_it_changes(mine, tmp_path):
    counting = "from pathlib import Path\nPath('imports').open('a').write('x')\n"
    mine.write_text(MINE + counting)
    _, config = resolve_config(str(mine))
    assert isinstance(config, find_method(str(mine)).config)
    assert Path("imports").read_text() == "x"
    mine.write_text(MINE + counting + "\n")
    find_method(str(mine))
    assert Path("imports").read_text() == "xx"


def test_ours_have_no_file_to_hash():
    assert {method_hash(name) for name in METHODS} == {None}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("absent.py", None, "no such file"),
        ("bc.py", MINE, "bc is the name of one of ours; rename the file"),
        ("broken.py", "def (", "importing it failed \\(SyntaxError"),
        ("empty.py", "", "no METHOD; expected METHOD = Method"),
        (
            "bare.py",
            "from presa.methods import Method\nMETHOD = Method(int, {}, int)",
            "expected a dataclass as config",
        ),
        ("lone.py", MINE.replace('"default"', '"fast"'), "presets of MineConfig, 'default' among them"),
    ],
)
def test_what_a_users_file_lacks_is_named(tmp_path: Path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        find_method(str(path))


def test_two_files_of_one_name_are_refused_in_a_benchmark(mine, tmp_path):
    other = tmp_path / "other" / "mine.py"
    other.parent.mkdir()
    other.write_text(MINE)
    with pytest.raises(RecipeError, match="two of them are called mine; rename one file"):
        BenchmarkRecipe(tasks=("SafetyPointCircle1-mixed",), methods=(str(mine), str(other)), seeds=(0,))
