"""Every command line shown to users is run, in order; training is cut short."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from samples import DATASET, make_dataset

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
def test_the_collecting_pages_replay_and_own_policies_run_as_they_stand():
    page = ROOT / "docs" / "collecting.md"
    for code in blocks(page, "python"):
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
    commands = [command for block in blocks(page, "bash")[-2:] for command in block.splitlines()]
    assert [command.split()[1] for command in commands] == ["collect", "replay", "collect"]
    for command in commands:
        cut = {"collect": ["--max-episode-steps", "20"], "replay": ["--size", "64"]}[command.split()[1]]
        result = subprocess.run([*FBGEN, *shlex.split(command)[1:], *cut], capture_output=True, text=True)
        assert result.returncode == 0, f"{command}\n{result.stderr}"


def test_the_commands_of_the_page_on_policies_run():
    commands = commands_of(ROOT / "docs" / "policies.md")
    assert [command.split()[1] for command in commands] == ["policies", "policies"]
    run_all(commands)


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


def test_the_commands_of_the_page_on_teachers_run_on_a_small_dataset(tmp_path):
    make_dataset()
    page = ROOT / "docs" / "teacher.md"
    commands = [shlex.split(line, comments=True)[1:] for block in blocks(page, "bash") for line in block.splitlines()]
    commands = [[word.replace("DATASET", DATASET) for word in command] for command in commands]
    assert {command[0] for command in commands} == {"label", "inspect"}
    small = ["--pairs", "1", "--safety-labels", "40", "--segment-length", "8", "--cost-limit", "10", "--force"]
    commands = [command + (small if command[0] == "label" else []) for command in commands]
    code = f"from fbgen.main import app\nfor command in {commands!r}: app(command, standalone_mode=False)"
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


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


@pytest.mark.simulator
@pytest.mark.slow
@pytest.mark.parametrize("name", ["getting-started", "tutorial"])
def test_the_first_pages_run_from_top_to_bottom(name):
    commands = commands_of(ROOT / "docs" / f"{name}.md")
    assert len(commands) >= 7
    run_all(commands)


@pytest.mark.simulator
@pytest.mark.slow
def test_the_page_on_publishing_runs_against_servers_on_loopback(bucket, hub):
    commands = commands_of(ROOT / "docs" / "publishing.md")
    assert {command.split()[1] for command in commands} >= {"publish", "pull", "verify", "rebuild", "list", "combine"}
    collect = "fbgen collect SafetyPointCircle1-v0 -n 6 --policy expert --policy safe-expert --name"
    label = "fbgen label feedbackgen/SafetyPointCircle1-v0/tour-v0 --pairs 50 --segment-length 16"
    before = [f"{collect} tour", f"{collect} more --seed 1", label]
    run_all([*before, *(command.replace("s3://bucket/datasets", bucket) for command in commands)])


@pytest.mark.simulator
@pytest.mark.slow
def test_the_page_on_asking_people_runs_with_someone_who_answers():
    commands = commands_of(ROOT / "docs" / "annotating.md")
    serving = [command for command in commands if command.split()[1] == "annotate" and "--invite" in command]
    assert len(serving) == 1 and len(commands) >= 8
    first = commands.index(serving[0])
    run_all(commands[:first])
    server = subprocess.Popen([*FBGEN, *shlex.split(serving[0])[1:]], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline().startswith("open http://127.0.0.1:")
        address, key = server.stdout.readline().split()[-1].split("#key=")
        answer_everything(address, key)
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
    run_all(commands[first + 1 :])


def answer_everything(address: str, key: str) -> None:
    import httpx

    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        state = client.get("/api/state").raise_for_status().json()
        assert client.get(f"/api/clip/{state['asked']['query']}/0").raise_for_status().content[4:8] == b"ftyp"
        while (asked := state["asked"]) is not None:
            # Both sides come up, and so do both classes.
            answer = {"preferences": ("left", "right"), "safety": ("safe", "unsafe")}[asked["kind"]][
                asked["position"] % 2
            ]
            body = {"query": asked["query"], "answer": answer, "seconds": 1.0, "request": f"question-{asked['query']}"}
            state = client.post("/api/answer", json=body).raise_for_status().json()


@pytest.mark.simulator
@pytest.mark.slow
def test_an_algorithm_of_ones_own_is_trained_and_benchmarked_as_its_page_says():
    page, examples = ROOT / "docs" / "your-algorithm.md", ROOT / "examples"
    assert blocks(page, "python") == [(examples / "my_method.py").read_text()]
    assert f"```\n{(examples / 'my-benchmark.toml').read_text()}```" in page.read_text()
    shutil.copytree(examples, "examples")
    recipe = Path("examples/my-benchmark.toml")
    shorter = "cloning.n_steps = 20\nn_steps = 20\n"
    small = re.sub("seeds = .*", "seeds = [0]\nsegment_lengths = [16]\nevaluation_episodes = 1", recipe.read_text())
    small = re.sub(r"n_episodes = \d+", "n_episodes = 11", re.sub(r"n_pairs = \[\d+\]", "n_pairs = [40]", small))
    small += f"{shorter}[settings.presa]\nrefining.n_steps = 20\n{shorter}[settings.bc-safe]\ncloning.n_steps = 20\n"
    recipe.write_text(small)
    commands = commands_of(page)
    assert [command.split()[1] for command in commands] == ["train", "evaluate", "benchmark", "benchmark-report"]
    commands[0] += " --set n_steps=100"
    make_dataset(dataset_id="feedbackgen/SafetyPointCircle1-v0/tour-v0")
    run_all(["fbgen label feedbackgen/SafetyPointCircle1-v0/tour-v0 --pairs 50 --segment-length 8", *commands])
    assert "my_method" in Path("my-benchmark.md").read_text()


def commands_of(page: Path) -> list[str]:
    return [line for block in blocks(page, "bash") for line in block.splitlines() if line.startswith("fbgen ")]


def run_all(commands: list[str]) -> None:
    """Run each command as it stands, but for the sizes of a dataset, a training and an evaluation."""
    for command in commands:
        arguments = shlex.split(command, comments=True)[1:]
        arguments += {
            "collect": ["-n", "12"] if "--recipe" in arguments else [],
            "train": SHORT if "presa" in arguments else SHORT[:2],
            "evaluate": ["--episodes", "2"],
        }.get(arguments[0], [])
        result = subprocess.run([*FBGEN, *arguments], capture_output=True, text=True)
        assert result.returncode == 0, f"{command}\n{result.stderr}"


def test_the_site_builds_without_a_warning(tmp_path):
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "-q", "--site-dir", tmp_path]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    pages = {page.parent.name for page in tmp_path.glob("*/index.html")}
    assert {"tutorial", "publishing", "api", "data-format"} <= pages
    assert "make_env_batch" in (tmp_path / "api" / "index.html").read_text()
    # Nothing is fetched from another server.
    assert not re.search(r'(src|href)="https?://[^"]*\.(js|css|woff2?)"', (tmp_path / "index.html").read_text())


def test_each_page_with_commands_or_code_is_run_by_a_test():
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for page in (ROOT / "docs").glob("*.md"):
        if blocks(page, "bash") or blocks(page, "python"):
            assert f'"{page.stem}"' in tests or f'"{page.name}"' in tests, f"{page.name} has commands that no test runs"


def test_no_block_of_a_page_escapes_the_tests():
    """They run each line that begins with fbgen, and all Python: nothing else may stand in a block to be run."""
    installing = {"make demo", "make test", "pip install 'feedbackgen[all]'"}
    installing |= {"pip install --no-deps safety-gymnasium==1.0.0"}
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        fences = re.findall(r"^[ \t]*(?:```|~~~)([^\n]*)$", page.read_text(), flags=re.MULTILINE)
        assert set(fences[::2]) <= {"", "bash", "python"} and set(fences[1::2]) <= {""}, f"{page.name}: {fences}"
        assert fences.count("bash") + fences.count("python") == len(blocks(page, "bash") + blocks(page, "python"))
        for line in "".join(blocks(page, "bash")).splitlines():
            shown = line.partition("#")[0].strip()
            assert line.startswith("fbgen ") or shown in installing, f"{page.name}: no test runs {line!r}"


def test_the_readmes_two_commands_are_targets_of_the_makefile():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    shown = set(re.findall(r"^make (\w+)", "\n".join(blocks(ROOT / "README.md", "bash")), flags=re.MULTILINE))
    assert shown == {"demo", "test"} and shown <= targets


def test_every_link_to_a_file_leads_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
