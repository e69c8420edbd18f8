"""The arrows of docs/architecture.md: imports point down, some packages have one importer, the oracle stays shut."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"feedbackgen": ROOT / "feedbackgen", "presa": ROOT / "presa", "fbgen": ROOT / "cli" / "fbgen"}
FILES = {path: package for package, folder in PACKAGES.items() for path in folder.rglob("*.py")}
MAY_IMPORT = {"feedbackgen": set(), "presa": {"feedbackgen"}, "fbgen": {"feedbackgen", "presa"}}
TRUE_REWARDS = ROOT / "presa" / "true_rewards.py"
TELL_REWARDS = {"iterate_episodes", "load_episode", "load_outcomes", "load_trajectories", "episode_returns"}
REFERENCE_ALGORITHMS = {"algorithms/cpq.py", "algorithms/bcq_lag.py", "algorithms/cdt.py"}
SINGLE_IMPORTERS = {
    "zarr": "feedbackgen/store.py",
    "minari": ("feedbackgen/episodes.py", "feedbackgen/interop/"),
    "h5py": ("feedbackgen/episodes.py", "feedbackgen/interop/"),
    "imitation": "feedbackgen/interop/imitation_writer.py",
    "ray": "feedbackgen/cluster.py",
    "safety_gymnasium": "feedbackgen/environments/",
    "mujoco": "feedbackgen/environments/",
    "bullet_safety_gym": "feedbackgen/environments/bullet.py",
    "metadrive": "feedbackgen/environments/metadrive.py",
    "huggingface_hub": "feedbackgen/sharing/places.py",
    "fsspec": "feedbackgen/",
    "stable_baselines3": "feedbackgen/behaviour/training.py",
    "wandb": "presa/weights_and_biases.py",
}


def imports(path: Path) -> set[str]:
    """Full names of all modules a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_imports_point_down():
    for path, package in FILES.items():
        own = {name.split(".")[0] for name in imports(path)} & PACKAGES.keys()
        assert own <= MAY_IMPORT[package] | {package}, path


@pytest.mark.parametrize("module", SINGLE_IMPORTERS)
def test_some_packages_have_a_single_importer(module):
    for path in FILES:
        if module in {name.split(".")[0] for name in imports(path)}:
            assert path.relative_to(ROOT).as_posix().startswith(SINGLE_IMPORTERS[module]), path


def test_algorithms_never_import_each_other():
    for path in (ROOT / "presa" / "algorithms").glob("*.py"):
        assert not any(name.startswith("presa.algorithms") for name in imports(path)), path


def test_the_learner_never_asks_for_the_oracle_or_for_rewards():
    """Neither by an argument nor by a function that gives rewards unasked; presa/true_rewards.py alone may."""
    for path, package in FILES.items():
        if package == "presa":
            for node in ast.walk(ast.parse(path.read_text())):
                if path != TRUE_REWARDS and isinstance(node, ast.keyword):
                    asked = node.arg in ("with_oracle", "with_rewards")
                    assert not asked or (isinstance(node.value, ast.Constant) and node.value.value is False), path
                assert not (isinstance(node, ast.Attribute) and node.attr == "oracle"), path
                assert not (isinstance(node, ast.Constant) and str(node.value).startswith("oracle")), path
            if path != TRUE_REWARDS:
                names = {name.removeprefix("feedbackgen.episodes.") for name in imports(path)}
                assert not names & {"feedbackgen.episodes", "feedbackgen.episodes.*", *TELL_REWARDS}, path


def test_only_the_methods_for_reference_reach_the_true_rewards():
    importers = {
        path.relative_to(ROOT / "presa").as_posix()
        for path in FILES
        if any(name.startswith("presa.true_rewards") for name in imports(path))
    }
    assert importers <= {"training.py", "critics.py", *REFERENCE_ALGORITHMS}
    for path in (ROOT / "presa" / "algorithms").glob("*.py"):
        if f"algorithms/{path.name}" not in REFERENCE_ALGORITHMS:
            assert not any(name.startswith("presa.critics") for name in imports(path)), path


def loaded_after(code: str) -> set[str]:
    """Top-level modules in memory after running some code in a fresh interpreter."""
    script = f"{code}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_feedbackgen_imports_neither_torch_nor_the_simulator():
    modules = "feedbackgen, feedbackgen.collect, feedbackgen.label, feedbackgen.store, feedbackgen.behaviour"
    assert not loaded_after(f"import {modules}") & {"torch", "mujoco", "safety_gymnasium", "matplotlib", "ray"}


def test_the_commands_help_imports_nothing_heavy():
    code = "import sys; sys.argv = ['fbgen', '--help']\nfrom fbgen.main import app\ntry: app()\nexcept SystemExit: pass"
    heavy = {"numpy", "torch", "gymnasium", "minari", "zarr", "h5py", "feedbackgen", "presa"}
    assert not loaded_after(code) & heavy


def test_the_wheel_has_three_packages_and_never_the_name_datasets():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    tops = {wheel["sources"].get(folder, folder).split("/")[0] for folder in wheel["only-include"]}
    assert tops == {"feedbackgen", "presa", "fbgen"}
