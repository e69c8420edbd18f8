"""How fast pairs are labelled and segments drawn, beside imitation, Minari and numpy, in one run.

The contenders take turns, each in a process of its own, and what counts is their CPU time. imitation needs versions of
its own: it is installed from PyPI into a side environment in the scratch folder, once. ``make bench-label``.
"""

import argparse
import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
TASK = "SafetyPointGoal1-v0"  # 60 numbers an observation
DATASET = f"feedbackgen/{TASK}/bench-v0"
LENGTH = 64  # steps of a segment
N_EPISODES, N_STEPS = 1000, 1000
N_DRAWN = 1024
IMITATION = "imitation==1.0.1"
A_TURN = 1.0  # CPU seconds at least
MIB = 2**20
# Loaded before memory is looked at.
IMPORTS = {
    "ours": ["feedbackgen.label"],
    "ours_on_disk": ["feedbackgen.label"],
    "imitation": ["imitation.algorithms.preference_comparisons"],
    "draw_flat": ["feedbackgen.gather", "feedbackgen.episodes"],
    "draw_windows": ["feedbackgen.episodes"],
    "draw_minari": ["minari"],
    "draw_torch": ["feedbackgen.label", "presa.batch"],
    "draw_mapped": ["feedbackgen.label", "presa.batch"],
}


def make_dataset(rewards: Path) -> None:
    """Random steps in the shapes of a task; rewards and costs of episodes differ as policies of mixed quality do."""
    import numpy as np

    from feedbackgen.episodes import write_dataset
    from feedbackgen.tasks import get_task
    from feedbackgen.types import Episode

    task, rng = get_task(TASK), np.random.default_rng(0)
    quality = rng.random(N_EPISODES)
    all_rewards = 0.02 * quality[:, None] + 0.1 * rng.normal(size=(N_EPISODES, N_STEPS))
    np.save(rewards, all_rewards)
    ends = np.arange(N_STEPS) == N_STEPS - 1
    write_dataset(
        DATASET,
        (
            Episode(
                observations=rng.random((N_STEPS + 1, task.observation_dim)),
                actions=rng.uniform(-1, 1, (N_STEPS, task.action_dim)),
                rewards=all_rewards[index],
                costs=np.float64(rng.random(N_STEPS) < 0.06 * quality[index]),
                terminations=np.zeros(N_STEPS, dtype=bool),
                truncations=ends,
                seed=index,
                policy="random",
            )
            for index in range(N_EPISODES)
        ),
        task=TASK,
    )


def ours(n_pairs: int):
    """Preferences and safety labels from rewards and costs in memory."""
    from feedbackgen.episodes import dataset_info, load_outcomes
    from feedbackgen.label import LabelConfig, label_trajectories

    outcomes, info = load_outcomes(DATASET), dataset_info(DATASET)
    config = LabelConfig(n_pairs=n_pairs, segment_length=LENGTH)

    def run() -> int:
        feedback = label_trajectories(outcomes, config, cost_limit=info.cost_limit, horizon=info.horizon)
        assert len(feedback.safety) == len(feedback.preferences)
        return len(feedback.preferences)

    return run


def ours_on_disk(n_pairs: int):
    """The same from the dataset on disk to a store on disk, read, written and summarised."""
    from feedbackgen.label import LabelConfig, label

    config = LabelConfig(n_pairs=n_pairs, segment_length=LENGTH)
    return lambda: label(DATASET, config, force=True).statistics["pairs"]


def imitation(n_pairs: int):
    """imitation's fragmenter and synthetic gatherer: preferences, no safety labels. Runs in its own environment."""
    import numpy as np
    from imitation.algorithms.preference_comparisons import RandomFragmenter, SyntheticGatherer
    from imitation.data.types import TrajectoryWithRew

    rewards = np.load(os.environ["BENCH_REWARDS"])
    observations, actions = np.zeros((N_STEPS + 1, 60)), np.zeros((N_STEPS, 2))
    trajectories = [TrajectoryWithRew(observations, actions, None, False, row) for row in rewards]
    rng = np.random.default_rng(0)
    fragmenter, gatherer = RandomFragmenter(rng=rng, warning_threshold=0), SyntheticGatherer(rng=rng)
    return lambda: len(gatherer(fragmenter(trajectories, LENGTH, n_pairs)))


def draw_flat(n_drawn: int):
    """Observations, actions and rewards of random segments, from flat memory."""
    import numpy as np

    from feedbackgen.episodes import load_trajectories
    from feedbackgen.gather import gather_segments, random_segments

    steps, rng = load_trajectories(DATASET, with_rewards=True), np.random.default_rng(0)
    arrays = (steps.observations, steps.actions, steps.rewards)

    def run() -> int:
        first = random_segments(steps.starts, n_drawn, LENGTH, rng)
        drawn = [gather_segments(values, first, LENGTH) for values in arrays]
        return len(drawn[0])

    return run


def draw_windows(n_drawn: int):
    """The same by numpy's sliding windows, across the ends of episodes."""
    import numpy as np
    from numpy.lib.stride_tricks import sliding_window_view

    from feedbackgen.episodes import load_trajectories

    steps, rng = load_trajectories(DATASET, with_rewards=True), np.random.default_rng(0)
    arrays = (steps.observations, steps.actions, steps.rewards)

    def run() -> int:
        first = rng.integers(steps.n_steps - LENGTH + 1, size=n_drawn)
        drawn = [sliding_window_view(values, LENGTH, axis=0)[first] for values in arrays]
        return len(drawn[0])

    return run


def draw_minari(n_drawn: int):
    """The same by Minari's ``sample_episodes``, a random segment of each."""
    import minari
    import numpy as np

    dataset, rng = minari.load_dataset(DATASET), np.random.default_rng(0)

    def run() -> int:
        drawn = []
        while len(drawn) < n_drawn:
            for episode in dataset.sample_episodes(min(n_drawn - len(drawn), N_EPISODES // 2)):
                part = slice(first := rng.integers(len(episode.rewards) - LENGTH + 1), first + LENGTH)
                drawn.append((episode.observations[part], episode.actions[part], episode.rewards[part]))
        stacked = [np.stack(values) for values in zip(*drawn, strict=True)]
        return len(stacked[0])

    return run


def draw_torch(n_drawn: int, *, mapped: bool = False):
    """Batches of pairs for a learner, in float32 tensors."""
    from feedbackgen.label import LabelConfig, label
    from presa.batch import Batches, load_learning_data

    label(DATASET, LabelConfig(n_pairs=100_000, segment_length=LENGTH), name="batches", force=True)
    data = load_learning_data(f"{DATASET}/batches", mapped=mapped)
    batches = iter(Batches(data, n_pairs=n_drawn // 2, n_batches=10**9, seed=0))
    return lambda: 2 * len(next(batches).preferences)


def draw_mapped(n_drawn: int):
    """The same from mapped files."""
    return draw_torch(n_drawn, mapped=True)


def serve(contender: str, n_items: int) -> None:
    """Run for a while when a line asks for it; answer with the rate of each call and peaks of memory."""
    import warnings

    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr
    for module in IMPORTS[contender]:
        importlib.import_module(module)
    imported = _peak()
    run = globals()[contender](n_items)
    loaded = _peak()
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        rates, spent = [], 0.0
        while spent < A_TURN:
            started = time.process_time()
            n_done = run()
            seconds = time.process_time() - started
            rates.append(n_done / seconds)
            spent += seconds
        print(json.dumps([rates, imported, loaded, _peak()]), file=answers, flush=True)


def compare(
    contenders: dict[str, int], n_rounds: int, scratch: Path, side: Path | None = None
) -> dict[str, dict[str, float]]:
    """Let contenders take turns; the median rate of each one's calls per CPU second, and its peak memory in MiB."""
    processes = {}
    for name, n_items in contenders.items():
        python = side / "bin" / "python" if name == "imitation" and side else sys.executable
        process = subprocess.Popen(
            [python, __file__, "--scratch", scratch, "--serve", name, str(n_items)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit(
                f"{name} did not start; run it alone: {python} {__file__} --scratch {scratch} --serve {name} {n_items}"
            )
        processes[name] = process
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    figures = {}
    # The first round warms caches and does not count.
    for turn in range(n_rounds + 1):
        for name, process in processes.items():
            print("run", file=process.stdin, flush=True)
            of_turn, imported, loaded, peak = json.loads(process.stdout.readline())
            if turn:
                rates[name] += of_turn
            figures[name] = {"loaded_mib": (loaded - imported) / MIB, "peak_mib": (peak - imported) / MIB}
    for process in processes.values():
        process.stdin.close()
        process.wait()
    return {name: {"per_second": statistics.median(rates[name]), **figures[name]} for name in contenders}


def side_environment(scratch: Path) -> Path:
    """A virtual environment with imitation, of the torch that is installed here."""
    side = scratch / "imitation"
    if not (side / "installed").exists():
        print(f"installing {IMITATION} into {side} ...", file=sys.stderr)
        torch = f"torch=={version('torch').partition('+')[0]}"
        pip = [side / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([sys.executable, "-m", "venv", "--clear", side], check=True)
        subprocess.run([*pip, torch], check=True)  # first and alone: nothing may bring another one
        subprocess.run([*pip, IMITATION, torch], check=True)
        (side / "installed").touch()
    return side


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--many", type=int, default=10_000_000, help="pairs of the one large call")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "feedbackgen-bench-label")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--serve", nargs=2, metavar=("CONTENDER", "ITEMS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    scratch = options.scratch.absolute()
    os.environ["MINARI_DATASETS_PATH"] = str(scratch / "datasets")
    os.environ["FEEDBACKGEN_CACHE"] = str(scratch / "cache")
    os.environ["BENCH_REWARDS"] = str(scratch / "rewards.npy")
    if options.serve:
        serve(options.serve[0], int(options.serve[1]))
        return
    scratch.mkdir(parents=True, exist_ok=True)
    side = side_environment(scratch)
    if not (scratch / "datasets" / DATASET).exists():
        make_dataset(scratch / "rewards.npy")
    size = sum(path.stat().st_size for path in (scratch / "datasets" / DATASET / "data").iterdir()) / MIB
    print(f"{N_EPISODES} episodes x {N_STEPS} steps, {size:.0f} MiB; segments of {LENGTH}; CPU time, median "
          f"call of {options.rounds} rounds; memory above that of the imports")  # fmt: skip

    n_pairs = options.pairs
    pairs = compare({"ours": n_pairs, "ours_on_disk": n_pairs, "imitation": n_pairs}, options.rounds, scratch, side)
    show("pairs with a preference and a safety label (imitation: preference alone)", pairs)
    to_imitation = pairs["ours"]["per_second"] / pairs["imitation"]["per_second"]
    print(f"  {to_imitation:.0f} times imitation; from disk to disk "
          f"{pairs['ours_on_disk']['per_second'] / pairs['imitation']['per_second']:.0f} times")  # fmt: skip

    many = compare({"ours_on_disk": options.many}, 1, scratch)
    show(f"{options.many:,} pairs in one call, from disk to disk", many)

    drawn = compare(
        {"draw_flat": N_DRAWN, "draw_windows": N_DRAWN, "draw_minari": N_DRAWN, "draw_torch": N_DRAWN,
         "draw_mapped": N_DRAWN},
        max(options.rounds, 5),
        scratch,
    )  # fmt: skip
    show(f"segments, {N_DRAWN} at a time", drawn)
    flat = drawn["draw_flat"]["per_second"]
    print(f"  {flat / drawn['draw_minari']['per_second']:.0f} times Minari's sample_episodes, "
          f"{flat / drawn['draw_windows']['per_second']:.0%} of numpy's sliding windows")  # fmt: skip
    if options.json:
        figures = {
            "machine": platform.platform(), "python": platform.python_version(), "numpy": version("numpy"),
            "minari": version("minari"), "imitation": IMITATION, "n_pairs": n_pairs, "n_many": options.many,
            "dataset_mib": size, "pairs": pairs, "many": many["ours_on_disk"], "segments": drawn,
            "to_imitation": to_imitation, "to_minari": flat / drawn["draw_minari"]["per_second"],
            "to_sliding_windows": flat / drawn["draw_windows"]["per_second"],
        }  # fmt: skip
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def show(title: str, figures: dict[str, dict[str, float]]) -> None:
    print(f"{title}\n  {'':16}{'per second':>12}{'data MiB':>10}{'peak MiB':>10}")
    for name, values in figures.items():
        print(f"  {name:16}{values['per_second']:12,.0f}{values['loaded_mib']:10.0f}{values['peak_mib']:10.0f}",
              flush=True)  # fmt: skip


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
