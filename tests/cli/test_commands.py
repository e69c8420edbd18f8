"""The command, end to end and message by message."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from fbgen import main as main_module
from samples import DATASET, TASK, make_dataset, make_episode

from feedbackgen.episodes import load_trajectories, write_dataset
from feedbackgen.tasks import TASKS

FBGEN = [sys.executable, "-W", "ignore", "-c", "from fbgen.main import main; main()"]
QUICK = ["--set", "cloning.n_steps=100", "--set", "refining.n_steps=100", "--set", "n_steps=100"]
SMALL = [*QUICK, "--set", "n_pairs=8", "--set", "n_safety_segments=8", "--set", "policy.hidden_sizes=[8]"]


@pytest.fixture
def fbgen(monkeypatch, capsys):
    """Run a command in this process: exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fbgen", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main_module.main()
        captured = capsys.readouterr()
        return exit_.value.code or 0, captured.out, captured.err

    yield run
    signal.signal(signal.SIGINT, signal.default_int_handler)


def one_line(error: str) -> str:
    """The message of a refusal: a single line that names the command."""
    assert error.startswith("fbgen: ") and error.count("\n") == 1, error
    return error


def test_tasks_are_listed_and_shown(fbgen):
    code, out, _ = fbgen("tasks")
    assert code == 0 and out.count("Safety") == 79
    code, out, _ = fbgen("tasks", TASK)
    assert "500 steps" in out and "beyond a boundary" in out and "SafetyPointCircle1Gymnasium-v0" in out
    code, out, _ = fbgen("tasks", "--json")
    assert len(json.loads(out)["tasks"]) == 79


def test_policies_are_listed_for_people_and_machines(fbgen):
    code, out, _ = fbgen("policies", TASK)
    assert code == 0 and "safe-expert" in out
    code, out, _ = fbgen("policies", TASK, "--json")
    entries = json.loads(out)["policies"]
    assert {"name", "return", "cost"} <= set(entries[0])
    assert json.loads(fbgen("policies", "--json")[1])["policies"][0]["task"]
    code, out, error = fbgen("policies", "SafetyAntRun0-v0")
    assert code == 0 and out == "" and "SafetyAntRun0-v0 ships no policies yet" in error


@pytest.mark.simulator
@pytest.mark.parametrize("task", TASKS)
def test_twenty_random_steps_of_every_task_are_collected(fbgen, task):
    code, _, _ = fbgen("collect", task, "-n", 1, "--policy", "random", "--max-episode-steps", 20)
    assert code == 0
    flat = load_trajectories(f"feedbackgen/{task}/custom-v0", with_rewards=True)
    assert flat.n_steps == 20 or flat.terminations[-1]  # an Ant may fall before


@pytest.mark.simulator
def test_the_main_job_from_collection_to_report(fbgen, tmp_path):
    name = f"feedbackgen/{TASK}/tour-v0"
    mixture = ["--policy", "expert:0.5", "--policy", "safe-expert:0.5"]
    code, out, _ = fbgen("collect", TASK, "-n", 4, *mixture, "--name", "tour", "--plot", "returns.png")
    assert code == 0 and name in out and Path("returns.png").is_file()
    code, out, _ = fbgen("label", name, "--pairs", 200, "--segment-length", 32, "--noise", 0.1)
    assert code == 0 and "preference flips" in out
    code, out, _ = fbgen("inspect", f"{name}/default")
    assert code == 0 and "safety flips" in out
    code, out, _ = fbgen("inspect", name)
    assert code == 0 and "fingerprint" in out
    for method in ("presa", "bc"):
        settings = QUICK if method == "presa" else QUICK[:2]
        code, out, _ = fbgen("train", method, name, *settings, "--out", f"runs/{method}")
        assert code == 0 and out.strip() == f"runs/{method}"
        code, out, _ = fbgen("evaluate", f"runs/{method}", "--episodes", 2)
        assert code == 0 and "normalised cost" in out
    code, out, _ = fbgen("report", "runs/presa", "runs/bc", "--plot", "report.png", "--json", "report.json")
    assert code == 0 and "presa" in out and Path("report.png").is_file()
    assert len(json.loads(Path("report.json").read_text())["summaries"]) == 2


RESULTS = Path(__file__).parents[2] / "docs" / "results" / "core.parquet"


def test_the_page_of_a_benchmark_is_written_from_its_results(fbgen):
    code, out, _ = fbgen("benchmark-report", RESULTS, "--out", "pages/core.md", "--latex", "tables/core.tex")
    assert code == 0 and out == "pages/core.md\n"
    page, tables = Path("pages/core.md").read_text(), Path("tables/core.tex").read_text()
    assert page.startswith("# What the benchmark says") and "| presa |" in page
    assert all(Path("pages", picture).is_file() for picture in re.findall(r"\]\((images/[^)]+)\)", page))
    assert tables.count(r"\begin{tabular}") == tables.count(r"\end{tabular}") > 1 and r"presa & " in tables


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (None, "results.parquet: no such file; `fbgen benchmark` writes a results.parquet"),
        (lambda whole: whole[: len(whole) // 2], "results.parquet: damaged, or not the results of a benchmark"),
        (lambda whole: whole[:4] + bytes(64) + whole[68:], "results.parquet: damaged, or not the results"),
    ],
    ids=["absent", "cut off", "overwritten"],
)
def test_no_page_is_written_from_results_that_cannot_be_read(fbgen, damage, message):
    if damage is not None:
        Path("results.parquet").write_bytes(damage(RESULTS.read_bytes()))
    code, out, error = fbgen("benchmark-report", "results.parquet", "--out", "page.md")
    assert code == 1 and out == "" and not Path("page.md").exists()
    assert message in one_line(error)


def test_feedback_and_datasets_are_inspected_as_tables_pictures_and_json(fbgen):
    make_dataset()
    fbgen("label", DATASET, "--pairs", 60, "--segment-length", "4,8", "--noise", 0.1)
    code, out, _ = fbgen("inspect", f"{DATASET}/default", "--plot", "pictures/feedback.png")
    assert code == 0 and "unsafe preferred to safe" in out and "cells of returns and costs" in out
    code, out, _ = fbgen("inspect", DATASET, "--plot", "pictures/dataset.png")
    assert code == 0 and "safe ones of unsafe episodes" in out
    assert {path.name for path in Path("pictures").iterdir()} == {"feedback.png", "dataset.png"}
    for what, part in ((f"{DATASET}/default", "errors"), (DATASET, "cost_over_time")):
        found = json.loads(fbgen("inspect", what, "--json")[1])
        assert {"purity", "rates", part} <= found["inspection"].keys() and found["dataset_id"] == DATASET


@pytest.mark.simulator
def test_parallel_evaluation_gives_the_serial_result(fbgen):
    make_dataset()
    fbgen("label", DATASET, "--pairs", 50, "--segment-length", 8)
    fbgen("train", "bc", DATASET, *QUICK[:2], "--out", "run")
    results = []
    for workers in (1, 2):
        fbgen("evaluate", "run", "--episodes", 6, "--workers", workers)
        results.append(Path("run/evaluation.json").read_text())
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tasks", "SafetyPointGaol1-v0"], "unknown task 'SafetyPointGaol1-v0'; did you mean SafetyPointGoal1-v0"),
        (["collect", "Nowhere-v0", "-n", "1", "--policy", "random"], "unknown task 'Nowhere-v0'"),
        (["collect", TASK, "-n", "1", "--policy", "expret"], "unknown policy 'expret'"),
        (["collect", TASK, "-n", "0", "--policy", "random"], "n_episodes: expected at least 1, got 0"),
        (
            ["collect", "--env-id", "Pendulum-v1", "-n", "1", "--policy", "random"],
            "Pendulum-v1: its step tells no cost",
        ),
        (["collect", "--recipe", "nothing"], "recipe nothing: no such file"),
        (["collect", TASK, "-n", "1", "--policy", "random", "--ray", "localhost:1"], "--ray localhost:1: no answer"),
        (["label", "absent-v0"], "dataset absent-v0: not found"),
        (["train", "presa", "absent-v0"], "absent-v0"),
        (["train", "ppo", DATASET], "unknown method 'ppo'"),
        (["train", "bc", DATASET, "--precision", "low"], "precision: expected exact or fast, got 'low'"),
        (["train", "bc", DATASET, "--device", "cuda:99"], "device 'cuda:99': not on this machine; there is cpu"),
        (["evaluate", "absent"], "absent: no provenance.json; expected the folder of a finished `fbgen train`"),
        (["report", "absent"], "absent: no provenance.json"),
        (["inspect", "absent-v0"], "absent-v0"),
    ],
)
def test_what_is_not_there_is_named_in_one_line(fbgen, arguments, message):
    code, out, error = fbgen(*arguments)
    assert code == 1 and out == ""
    assert message in one_line(error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--noise", "1.2"], "--noise: expected a probability in [0, 0.5], got 1.2"),
        (["--segment-length", "64"], "segment"),
        (["--segment-length", "8", "--safety-threshold", "100"], "unsafe"),
    ],
)
def test_labels_that_cannot_be_given_are_refused(fbgen, arguments, message, datasets):
    make_dataset()
    code, _, error = fbgen("label", DATASET, "--pairs", 20, *arguments)
    assert code == 1 and message in one_line(error)
    assert not list((datasets / DATASET).glob("feedback/*"))


def test_label_takes_teachers_lengths_and_active_queries(fbgen):
    make_dataset()
    code, out, error = fbgen(
        *("label", DATASET, "--pairs", 60, "--segment-length", "6,8", "--unsafe-share", 0.5, "--name", "first"),
        *("--teacher", "oracle:0.5", "--teacher", "mistake+noise=0.2:0.5", "--miss-rate", 0.2, "--drift", 0.1),
    )
    assert code == 0 and "preference error of mistake+noise=0.2" in out, error
    active = ["label", DATASET, "--pairs", 20, "--segment-length", 8, "--queries", "k-center-entropy"]
    code, _, error = fbgen(*active, "--ensemble", f"{DATASET}/first", "--name", "second")
    assert code == 0, error
    code, _, error = fbgen(*active, "--name", "third")
    assert code == 1 and "--ensemble FEEDBACK" in one_line(error)
    code, _, error = fbgen("label", DATASET, "--ensemble", f"{DATASET}/first")
    assert code == 2 and "--queries" in error
    for option in ("--segment-length", "--margin"):
        code, _, error = fbgen("label", DATASET, option, "8,much")
        assert code == 2 and "numbers separated by commas" in error


def test_a_segment_longer_than_an_episode_names_the_longest(fbgen):
    make_dataset()
    code, _, error = fbgen("label", DATASET, "--pairs", 20, "--segment-length", 41)
    assert code == 1 and "40 steps" in one_line(error) and "--segment-length 40" in error


@pytest.mark.parametrize(("unsafe", "count"), [(False, "0 of 66"), (True, "66 of 66")])
def test_no_segment_of_one_kind_is_refused(fbgen, unsafe, count):
    write_dataset(DATASET, [make_episode(index, unsafe=unsafe) for index in range(6)], task=TASK)
    threshold = ["--safety-threshold", 0] if unsafe else []
    code, _, error = fbgen("label", DATASET, "--pairs", 20, "--segment-length", 30, *threshold)
    assert code == 1 and f"{count} segments" in one_line(error) and "are unsafe" in error


def test_feedback_of_a_changed_dataset_is_refused(fbgen):
    make_dataset()
    fbgen("label", DATASET, "--pairs", 20, "--segment-length", 8, "--name", "kept")
    feedback = Path(os.environ["MINARI_DATASETS_PATH"]) / DATASET / "feedback"
    kept = feedback.rename(feedback.parents[1] / "kept-aside")
    make_dataset(n_episodes=14, force=True)
    kept.rename(feedback)
    code, _, error = fbgen("train", "bc", f"{DATASET}/kept")
    assert code == 1 and "label it again" in one_line(error)


@pytest.mark.parametrize("command", ["collect", "label", "train"])
def test_output_that_exists_is_refused_without_force(fbgen, command):
    make_dataset()
    fbgen("label", DATASET, "--pairs", 20, "--segment-length", 8)
    fbgen("train", "bc", DATASET, *QUICK[:2], "--out", "run")
    arguments = {
        "collect": [TASK, "-n", 1, "--policy", "random", "--name", "small"],
        "label": [DATASET, "--pairs", 20, "--segment-length", 8],
        "train": ["bc", DATASET, *QUICK[:2], "--out", "run"],
    }[command]
    code, _, error = fbgen(command, *arguments)
    assert code == 1 and "exists" in one_line(error) and "--force" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["collect"],
        ["collect", TASK, "--recipe", "x"],
        ["collect", TASK, "--env-id", "x", "-n", "3", "--policy", "random"],
        ["collect", TASK, "-n", "3"],
        ["collect", TASK, "-n", "3", "--policy", "random", "--workers", "2", "--ray", "head:6379"],
        ["collect", "--recipe", "x", "--policy", "random"],
        ["train", "presa", DATASET, "--set", "n_steps"],
        ["policies", "train", TASK, "--seed", "-1"],
        ["evaluate"],
        ["nonsense"],
        ["label", DATASET, "--pairs", "many"],
    ],
)
def test_words_that_make_no_command_are_usage_errors(fbgen, arguments):
    code, out, error = fbgen(*arguments)
    assert code == 2 and out == "" and "Error" in error


def test_an_unknown_setting_names_the_nearest(fbgen):
    make_dataset()
    fbgen("label", DATASET, "--pairs", 20, "--segment-length", 8)
    code, _, error = fbgen("train", "presa", DATASET, "--set", "n_step=5")
    assert code == 1 and "n_steps" in one_line(error)


def test_a_full_disk_is_one_line(fbgen, monkeypatch):
    make_dataset()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("feedbackgen.store._write_array", full)
    code, _, error = fbgen("label", DATASET, "--pairs", 20, "--segment-length", 8)
    assert code == 1 and "No space left on device" in one_line(error)


@pytest.mark.parametrize(
    "arguments",
    [
        ["tasks"],
        ["tasks", TASK],
        ["tasks", "--json"],
        ["policies"],
        ["doctor"],
        ["inspect", DATASET],
        ["--help"],
        ["-v"],
    ],
)
def test_results_that_cannot_be_printed_are_one_line(arguments):
    make_dataset()
    with open("output", "w") as output:
        result = subprocess.run(
            [*FBGEN, *arguments],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),  # as if the disk were full
        )
    assert result.returncode == 1
    assert one_line(result.stderr).startswith("fbgen: standard output: File too large")


def test_a_place_that_cannot_be_written_is_one_line(fbgen):
    make_dataset()
    fbgen("label", DATASET, "--pairs", 20, "--segment-length", 8)
    Path("file").write_text("in the way")
    code, _, error = fbgen("train", "bc", DATASET, *QUICK[:2], "--out", "file/run")
    assert code == 1 and "file" in one_line(error)


def interrupted(arguments, until) -> subprocess.CompletedProcess:
    """Run a command in a process of its own, and send it Ctrl-C once a condition holds."""
    process = subprocess.Popen(
        [*FBGEN, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not until() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, out, error)


def test_ctrl_c_waits_for_the_end_of_an_import():
    """PyTorch's aborts the process where an exception is raised into it."""
    Path("interrupted.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('imported')\n")
    Path("script.py").write_text(
        "import time\nfrom fbgen import main\n\n"
        "def command():\n    import interrupted\n    time.sleep(60)\n\n"
        "main.app = command\nmain.main()\n"
    )
    result = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, timeout=50)
    assert (result.returncode, result.stdout) == (1, "imported\n")
    assert "interrupted" in one_line(result.stderr)


def test_a_ctrl_c_that_was_put_off_does_not_break_into_the_cleaning_up_after_a_second():
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGALRM)]
    try:
        main_module._on_interrupt(main_module._interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.01)  # as an import does that Ctrl-C has met
        with pytest.raises(main_module.Interrupted):
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)  # cleaning up
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)


@pytest.mark.simulator
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_in_collect_leaves_nothing_under_the_name(datasets, workers):
    target = datasets / f"feedbackgen/{TASK}/long-v0"
    partial = target.with_name(".long-v0.partial")
    result = interrupted(
        ["collect", TASK, "-n", 2000, "--policy", "random", "--name", "long", "--workers", workers],
        until=lambda: list(partial.glob("*.npz")),
    )
    assert result.returncode == 1 and "interrupted" in one_line(result.stderr)
    assert not target.exists()


def test_train_tells_warnings_in_one_line_each_and_shows_no_bar_off_a_terminal(fbgen):
    make_dataset()
    fbgen("label", DATASET, "--pairs", 50, "--segment-length", 8)
    capped = ["--set", "threshold=1.0", "--set", "multiplier_initial=5.0", "--set", "n_steps=300"]
    code, out, error = fbgen("train", "presa", DATASET, *SMALL, *capped, "--out", "run")
    assert code == 0 and out == "run\n"
    assert all(line.startswith("warning: ") for line in error.splitlines())
    assert error.count("its multiplier rests at the cap") == 1
    told = {line.partition(": ")[2] for line in Path("run/warnings.txt").read_text().splitlines()}
    assert told == {line.removeprefix("warning: ") for line in error.splitlines()}


def test_train_leaves_its_means_in_weights_and_biases_offline_and_no_process_behind(fbgen, tmp_path):
    pytest.importorskip("wandb")
    make_dataset()
    fbgen("label", DATASET, "--pairs", 50, "--segment-length", 8)
    command = [*FBGEN, "train", "presa", DATASET, *SMALL, "--out", "run", "--wandb", "safe"]
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "HOME": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        out, error = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, "run\n"), error
    (log,) = Path("run/wandb").glob("offline-run-*/*.wandb")
    assert log.stem == f"run-{Path('run/wandb_id.txt').read_text().strip()}"
    told = log.read_bytes()
    assert all(name in told for name in (b"safe", b"cloning/loss", b"presa/multiplier", b"segment_steps"))
    assert not Path("wandb").exists() and not (tmp_path / ".config").exists()
    serving = [path for path in Path("/proc").glob("[0-9]*/cmdline") if f"--pid\0{process.pid}\0" in command_line(path)]
    assert not serving


def command_line(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # that process has ended
        return ""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_on_a_terminal_the_bar_of_train_says_how_the_constraint_stands(fbgen):
    make_dataset()
    fbgen("label", DATASET, "--pairs", 50, "--segment-length", 8)
    master, slave = os.openpty()
    command = [*FBGEN, "train", "presa", DATASET, *SMALL, "--set", "threshold=0.1", "--out", "run"]
    with subprocess.Popen(command, stderr=slave, stdout=subprocess.PIPE, env=os.environ | {"COLUMNS": "80"}) as process:
        os.close(slave)
        shown = b""
        with suppress(OSError):  # Linux ends a terminal whose other side is closed so
            while part := os.read(master, 4096):
                shown += part
    os.close(master)
    assert process.returncode == 0
    assert re.search(rb"presa, multiplier 0\.\d\d, constraint 0\.\d\d of 0\.10, met", shown)


def test_ctrl_c_in_train_leaves_no_policy():
    make_dataset()
    subprocess.run(
        [*FBGEN, "label", DATASET, "--pairs", "50", "--segment-length", "8"], check=True, capture_output=True
    )
    result = interrupted(
        ["train", "bc", DATASET, "--set", "cloning.n_steps=1000000", "--out", "run"],
        until=lambda: Path("run/metrics.csv").is_file(),
    )
    assert result.returncode == 1 and "interrupted" in one_line(result.stderr)
    assert not Path("run/policy.safetensors").exists()


def test_ctrl_c_in_label_leaves_no_store(datasets):
    make_dataset(n_episodes=400)
    feedback = datasets / DATASET / "feedback"
    result = interrupted(
        ["label", DATASET, "--pairs", 300_000, "--segment-length", 3],
        until=lambda: feedback.is_dir() and any(feedback.iterdir()),
    )
    stores = list(feedback.iterdir()) if feedback.is_dir() else []
    if result.returncode == 0:  # it was done before the signal came
        assert [path.name for path in stores] == ["default.zarr"]
    else:
        assert "interrupted" in one_line(result.stderr)
        assert stores == []


@pytest.mark.simulator
def test_ctrl_c_in_evaluate_leaves_no_result():
    make_dataset()
    for arguments in (
        ["label", DATASET, "--pairs", "50", "--segment-length", "8"],
        ["train", "bc", DATASET, *QUICK[:2], "--out", "run"],
    ):
        subprocess.run([*FBGEN, *arguments], check=True, capture_output=True)
    started = time.monotonic()
    result = interrupted(["evaluate", "run", "--episodes", 5000], until=lambda: time.monotonic() > started + 5)
    assert result.returncode == 1 and "interrupted" in one_line(result.stderr)
    assert not Path("run/evaluation.json").exists()
