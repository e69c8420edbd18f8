"""Every command line shown to users is run, in order; training is cut short."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from samples import make_dataset

ROOT = Path(__file__).parents[1]
FBGEN = [sys.executable, "-W", "ignore", "-c", "from fbgen.main import main; main()"]
SHORT = ["--set", "cloning.n_steps=100", "--set", "refining.n_steps=100", "--set", "n_steps=100"]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.simulator
@pytest.mark.slow
def test_the_readmes_tour_runs_as_it_stands():
    readme = ROOT / "README.md"
    commands = [line for block in blocks(readme, "bash") for line in block.splitlines() if line.startswith("fbgen ")]
    assert len(commands) >= 8
    for command in commands:
        arguments = shlex.split(command, comments=True)[1:]
        if arguments[0] == "train":
            arguments += SHORT
        result = subprocess.run([*FBGEN, *arguments], capture_output=True, text=True)
        assert result.returncode == 0, f"{command}\n{result.stderr}"
    for code in blocks(readme, "python"):
        result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
        assert result.returncode == 0, f"{code}\n{result.stderr}"


@pytest.mark.simulator
def test_the_collecting_pages_replay_runs_as_it_stands():
    page = ROOT / "docs" / "collecting.md"
    commands = blocks(page, "bash")[-1].splitlines()
    assert [command.split()[1] for command in commands] == ["collect", "replay"]
    for command, cut in zip(commands, (["--max-episode-steps", "20"], ["--size", "64"]), strict=True):
        result = subprocess.run([*FBGEN, *shlex.split(command)[1:], *cut], capture_output=True, text=True)
        assert result.returncode == 0, f"{command}\n{result.stderr}"


@pytest.mark.simulator
def test_the_python_of_the_environments_page_runs():
    for code in blocks(ROOT / "docs" / "environments.md", "python"):
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)


def test_the_loops_of_the_loading_page_run_on_a_small_dataset(tmp_path, monkeypatch):
    make_dataset(dataset_id="feedbackgen/SafetyPointCircle1-v0/tour-v0")
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "loading.md"
    commands = [line for block in blocks(page, "bash") for line in block.splitlines()]
    for command in commands:
        arguments = shlex.split(command, comments=True)[1:]
        arguments += SHORT if arguments[0] == "train" else []
        subprocess.run([*FBGEN, *arguments], check=True, capture_output=True)
    bucket = (tmp_path / "datasets/feedbackgen/SafetyPointCircle1-v0").as_uri()
    code = "\n".join(blocks(page, "python")).replace("s3://bucket", bucket)
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    loop = blocks(page, "python")[0].strip().splitlines()
    assert len([line for line in loop if line]) == 5


def test_the_commands_of_the_page_on_other_formats_run_on_a_small_dataset(tmp_path, monkeypatch):
    make_dataset(dataset_id="feedbackgen/SafetyPointCircle1-v0/tour-v0")
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "interop.md"
    commands = [line for block in blocks(page, "bash") for line in block.splitlines() if line.startswith("fbgen ")]
    label = "fbgen label feedbackgen/SafetyPointCircle1-v0/tour-v0 --pairs 20 --segment-length 8"
    for command in [label, *commands]:
        result = subprocess.run([*FBGEN, *shlex.split(command)[1:]], capture_output=True, text=True)
        assert result.returncode == 0, f"{command}\n{result.stderr}"
    code = "\n".join(blocks(page, "python"))
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_readmes_two_commands_are_targets_of_the_makefile():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    shown = set(re.findall(r"^make (\w+)", "\n".join(blocks(ROOT / "README.md", "bash")), flags=re.MULTILINE))
    assert shown == {"demo", "test"} and shown <= targets


def test_every_link_to_a_file_leads_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
