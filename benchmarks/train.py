"""How fast policies learn and are evaluated, against the matrix products that a step cannot do without.

Updates of CPL, PreSa and cloning on random data in the shapes of a task, one thread; the products of their forward and
backward pass alone, at the same shapes, are the floor. Then a whole run on data that is collected for it, timed by
part, and its evaluation side by side, one by one, and in upstream's environment. The contenders take turns in one run,
each in a process of its own, and what counts is their CPU time. Run by hand: ``make bench-train``.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # as training has it
TASK = "SafetyPointGoal1-v0"  # 60 numbers an observation
POLICIES = {"random": 0.1, "medium": 0.2, "expert": 0.3, "safe-expert": 0.4}  # of the collected data
LENGTH = 64  # steps of a segment
N_EPISODES, N_STEPS = 200, 1000  # of the random data
N_PAIRS, N_SAFETY, N_CLONED = 96, 192, 256  # pairs, safety segments and cloned steps of an update
N_DRAWN = 16  # steps that stand for a segment, where not all do
PRECISIONS = ("exact", "fast")
N_ROWS = {"cloning": N_CLONED, "cpl": 2 * N_PAIRS, "presa": 2 * N_PAIRS + N_SAFETY}  # steps or segments of an update
SEED = 0


def products(n_rows: int, precision: str = "exact", device: str = "cpu"):
    """The matrix products of one update and nothing else: forward, weights' gradients, all but the first inputs'."""
    import torch

    from feedbackgen.tasks import get_task
    from presa.policy import PolicyConfig

    set_precision(precision)
    task = get_task(TASK)
    network = PolicyConfig()
    n_inputs = task.observation_dim * (1 + network.encoding_bins)
    n_outputs = network.n_components * (task.action_dim + 1)
    sizes = list(pairwise([n_inputs, *network.hidden_sizes, n_outputs]))
    with torch.device(device):
        inputs = [torch.rand(n_rows, n_inputs) for n_inputs, _ in sizes]
        outputs = [torch.empty(n_rows, n_outputs) for _, n_outputs in sizes]
        gradients = [torch.rand(n_rows, n_outputs) for _, n_outputs in sizes]
        layers = [(torch.rand(n_outputs, n_inputs), torch.rand(n_outputs)) for n_inputs, n_outputs in sizes]
    weight_gradients = [torch.empty_like(weight) for weight, _ in layers]
    input_gradients = [torch.empty_like(values) for values in inputs]

    def run(n_updates: int) -> int:
        for _ in range(n_updates):
            for (weight, bias), given, out in zip(layers, inputs, outputs, strict=True):
                torch.addmm(bias, given, weight.T, out=out)
            for layer in reversed(range(len(layers))):
                torch.mm(gradients[layer].T, inputs[layer], out=weight_gradients[layer])
                if layer:
                    torch.mm(gradients[layer], layers[layer][0], out=input_gradients[layer])
        return n_updates

    return run


def updates(method: str, n_segment_steps: int = 0, precision: str = "exact", device: str = "cpu"):
    """Updates of a method after its reference, or of cloning, drawing of minibatches and logged figures included."""
    import torch

    from presa.algorithms.bc import BCConfig
    from presa.algorithms.cpl import CPLConfig
    from presa.algorithms.presa import PreSaConfig
    from presa.cloning import CloningConfig
    from presa.memory import freed_memory_kept
    from presa.methods import METHODS

    set_precision(precision)
    torch.use_deterministic_algorithms(True)  # as training does, and keeps its memory
    none = CloningConfig(n_steps=0)
    configs = {
        "cloning": lambda: BCConfig(cloning=CloningConfig(batch_size=N_CLONED)),
        "cpl": lambda: CPLConfig(cloning=none, n_pairs=N_PAIRS, n_segment_steps=n_segment_steps),
        "presa": lambda: PreSaConfig(
            cloning=none,
            refining=none,
            n_pairs=N_PAIRS,
            n_safety_segments=N_SAFETY,
            n_segment_steps=n_segment_steps,
            departure_threshold=0.0,  # the bound needs a reference that is refined
        ),
    }
    data = random_data().to(torch.device(device))
    learner = METHODS["bc" if method == "cloning" else method].learner(data, configs[method](), SEED)
    n_done = 0

    def run(n_updates: int) -> int:
        nonlocal n_done
        with freed_memory_kept():
            for _ in range(n_updates):
                learner.update(n_done)
                n_done += 1
        return n_updates

    return run


def random_data():
    """Steps in the shapes of the task, as many segments as pairs and safety labels need, labels that agree."""
    import numpy as np
    import torch

    from feedbackgen.tasks import get_task
    from presa.batch import LearningData

    task, rng = get_task(TASK), np.random.default_rng(SEED)
    n_segments = 5 * N_EPISODES
    starts = np.arange(N_EPISODES + 1) * N_STEPS
    episodes = rng.integers(N_EPISODES, size=n_segments)
    pairs = rng.integers(n_segments, size=(n_segments, 2))
    return LearningData(
        observations=torch.from_numpy(rng.standard_normal((starts[-1], task.observation_dim), dtype=np.float32)),
        actions=torch.from_numpy(rng.uniform(-1, 1, (starts[-1], task.action_dim)).astype(np.float32)),
        episode_starts=starts,
        segment_episodes=episodes,
        segment_starts=starts[episodes] + rng.integers(N_STEPS - LENGTH + 1, size=n_segments),
        segment_lengths=np.full(n_segments, LENGTH),
        pairs=pairs,
        preferences=(episodes[pairs[:, 1]] > episodes[pairs[:, 0]]).astype(np.float32),
        safety_segments=np.arange(n_segments),
        safety_labels=np.where(episodes % 2, 1, -1),
        observation_mean=np.zeros(task.observation_dim),
        observation_std=np.ones(task.observation_dim),
        action_low=np.full(task.action_dim, -1.0),
        action_high=np.full(task.action_dim, 1.0),
    )


def set_precision(name: str) -> None:
    import torch

    from presa.training import PRECISIONS as NAMES

    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(NAMES[name])


def side_by_side(run_folder: str):
    """Our evaluation: a run's policy in many environments, made for it."""
    from presa.evaluation import _play_episodes

    return lambda n_episodes: sum(n_steps for *_, n_steps in _play_episodes(Path(run_folder), TASK, seeds(n_episodes)))


def one_by_one(run_folder: str):
    """The same policy in our environment, an episode at a time."""
    from feedbackgen.environments import make_env

    env = make_env(TASK)
    return _alone(run_folder, lambda seed: env.reset(seed=seed), env.step)


def upstream(run_folder: str):
    """The same policy in Safety-Gymnasium's own code, its sky of 191 MB and its parsing included."""
    from feedbackgen.environments import upstream as loader
    from feedbackgen.tasks import get_task

    loader._put_right_world = lambda world: None
    env = loader.load_builder()(task_id=TASK, config={"agent_name": get_task(TASK).robot})
    return _alone(run_folder, lambda seed: env.reset(seed=seed), env.step)


def _alone(run_folder: str, reset, step):
    import numpy as np

    from presa.acting import load_any_policy

    policy, rng = load_any_policy(run_folder), np.random.default_rng(0)

    def run(n_episodes: int) -> int:
        n_steps = 0
        for seed in seeds(n_episodes):
            observation, _ = reset(seed)
            ended = False
            while not ended:
                observation, _, _, terminated, truncated, _ = step(policy.act(observation, rng))
                ended = terminated or truncated
                n_steps += 1
        return n_steps

    return run


def acting(run_folder: str):
    """The policy alone, for as many environments side by side as an evaluation has."""
    import numpy as np

    from feedbackgen.tasks import get_task
    from presa.acting import load_any_policy
    from presa.evaluation import N_LANES

    task, policy, rng = get_task(TASK), load_any_policy(run_folder), np.random.default_rng(0)
    observations = rng.random((N_LANES, task.observation_dim))

    def run(n_episodes: int) -> int:
        n_rounds = -(-n_episodes * task.horizon // N_LANES)
        for _ in range(n_rounds):
            policy.act_together(observations, [rng] * N_LANES)
        return n_rounds * N_LANES

    return run


def physics(run_folder: str):
    """MuJoCo alone, for as many environments, with random controls: nobody looks, nobody is rewarded."""
    import numpy as np

    from feedbackgen.environments import make_env_batch
    from feedbackgen.tasks import get_task
    from presa.evaluation import N_LANES

    batch, rng = make_env_batch(TASK, N_LANES), np.random.default_rng(0)
    space, horizon = batch.action_space, get_task(TASK).horizon

    def run(n_episodes: int) -> int:
        n_rounds = -(-n_episodes * horizon // N_LANES)
        for step in range(n_rounds):
            if step % horizon == 0:
                for lane in range(N_LANES):
                    batch.reset(lane, SEED + lane)
            for simulation in batch._simulations.values():
                simulation.advance(rng.uniform(space.low, space.high))
        return n_rounds * N_LANES

    return run


def seeds(n_episodes: int) -> list[int]:
    from feedbackgen.seeding import derived_seed

    return [derived_seed(SEED, "evaluation", index) for index in range(n_episodes)]


def whole_run(folder: Path, n_episodes: int, n_evaluated: int, overrides: dict) -> tuple[Path, dict[str, float]]:
    """Collect, label, train PreSa and evaluate it; the run's folder, and CPU seconds by part."""
    import warnings

    from feedbackgen.collect import collect
    from feedbackgen.label import LabelConfig, label
    from feedbackgen.recipe import Recipe
    from presa.batch import load_learning_data
    from presa.evaluation import evaluate
    from presa.methods import METHODS
    from presa.training import fit, resolve_config

    warnings.simplefilter("ignore")
    seconds: dict[str, float] = defaultdict(float)

    def timed(part: str, function, *arguments, **named):
        started = time.process_time()
        result = function(*arguments, **named)
        seconds[part] += time.process_time() - started
        return result

    class Timed(METHODS["presa"].learner):
        def update(self, step: int):
            started = time.process_time()
            phase, values = super().update(step)
            seconds[phase] += time.process_time() - started
            return phase, values

    recipe = Recipe(task=TASK, name="bench", n_episodes=n_episodes, seed=SEED, policies=POLICIES)
    info = timed("collecting", collect, recipe)
    timed("labelling", label, recipe.dataset_id, LabelConfig(n_pairs=100 * n_episodes, segment_length=LENGTH))
    data = timed("loading", load_learning_data, recipe.dataset_id)
    _, config = resolve_config("presa", None, overrides)
    provenance = {"method": "presa", "seed": SEED, "task": TASK, "cost_limit": info.cost_limit}
    run = timed("training", fit, data, config, provenance, learner=Timed, out=folder / "run")
    seconds["records"] = seconds.pop("training") - sum(seconds[name] for name in ("cloning", "refining", "presa"))
    timed("evaluating", evaluate, run, n_episodes=n_evaluated)
    return run, dict(seconds)


def serve(pipe, contender: str, arguments: dict) -> None:
    """Run when asked; answer with items, seconds and page faults. A GPU's seconds are the wall's, others the CPU's."""
    import warnings

    warnings.simplefilter("ignore")
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  upstream prints warnings of its own
    run = globals()[contender](**arguments)
    clock = time.process_time if arguments.get("device", "cpu") == "cpu" else wall_after_the_gpu
    pipe.send("ready")
    while size := pipe.recv():
        faults, started = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, clock()
        n_items = run(size)
        seconds = clock() - started
        pipe.send((n_items, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults))


def wall_after_the_gpu() -> float:
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def take_turns(contenders: dict[str, tuple[str, dict, int]], n_rounds: int) -> dict[str, dict[str, float]]:
    """Medians of each contender, given by function, arguments and size of a turn; the first round warms up."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name, (function, arguments, _) in contenders.items():
        pipes[name], theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, function, arguments))
        process.start()
        theirs.close()  # where the process dies, recv raises instead of waiting
        pipes[name].recv()
        processes.append(process)
    answers: dict[str, list[tuple[int, float, int]]] = {name: [] for name in contenders}
    for turn in range(n_rounds + 1):
        for name, (*_, size) in contenders.items():
            pipes[name].send(size)
            answer = pipes[name].recv()
            answers[name] += [answer] if turn else []
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(0)
        process.join()
    return {
        name: {
            "per_second": statistics.median(n_items / seconds for n_items, seconds, _ in each),
            "page_faults": statistics.median(n_faults / n_items for n_items, _, n_faults in each),
        }
        for name, each in answers.items()
    }


def learning(method: str, n_rounds: int, n_updates: int, device: str) -> dict[str, dict[str, float]]:
    """Rates of a method's updates and of their products, by precision and by the steps that stand for a segment."""
    contenders = {}
    for precision in PRECISIONS:
        for n_steps in (1,) if method == "cloning" else (LENGTH, N_DRAWN):
            part = precision if method == "cloning" else f"{precision}, {n_steps} steps"
            where = {"precision": precision, "device": device}
            contenders[part] = ("updates", {"method": method, "n_segment_steps": n_steps, **where}, n_updates)
            contenders[f"{part}: products"] = ("products", {"n_rows": N_ROWS[method] * n_steps, **where}, n_updates)
    figures = take_turns(contenders, n_rounds)
    for part in contenders:
        if f"{part}: products" in figures:
            figures[part]["of_products"] = figures[part]["per_second"] / figures[f"{part}: products"]["per_second"]
    return figures


def evaluation(run: Path, n_rounds: int, n_episodes: int) -> dict[str, dict[str, float]]:
    """Rates of an evaluation in steps; one by one, fewer episodes tell."""
    few = max(n_episodes // 10, 1)
    sizes = {"side_by_side": n_episodes, "one_by_one": few, "upstream": few}
    sizes |= {"acting": n_episodes, "physics": n_episodes}
    return take_turns({name: (name, {"run_folder": str(run)}, size) for name, size in sizes.items()}, n_rounds)


def show(title: str, figures: dict[str, dict[str, float]], unit: str) -> None:
    print(f"{title}\n  {'':28}{unit + '/s':>12}{'ms':>10}{'of products':>13}{'page faults':>13}")
    for name, values in figures.items():
        share = f"{values['of_products']:13.0%}" if "of_products" in values else " " * 13
        rate = values["per_second"]
        print(f"  {name:28}{rate:12,.1f}{1e3 / rate:10.3f}{share}{values['page_faults']:13,.1f}", flush=True)


def ratios(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """What is wanted of CPL and PreSa: fast against exact, and sub-sampled against all steps."""
    rate = {name: values["per_second"] for name, values in figures.items()}
    return {
        "fast_to_exact": rate[f"fast, {LENGTH} steps"] / rate[f"exact, {LENGTH} steps"],
        "sampled_to_all": rate[f"exact, {N_DRAWN} steps"] / rate[f"exact, {LENGTH} steps"],
    }


def run_and_evaluate(n_collected: int, n_rounds: int, n_episodes: int, figures: dict) -> None:
    """A whole run and its evaluation, into ``figures``."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        run, figures["whole_run"] = whole_run(Path(folder), n_collected, n_episodes, {})
        print(f"a whole run of presa on {n_collected} episodes: CPU seconds by part")
        for part, seconds in figures["whole_run"].items():
            print(f"  {part:28}{seconds:12.1f}", flush=True)
        figures["evaluation"] = evaluation(run, n_rounds, n_episodes)
    show(f"evaluation of {n_episodes} episodes", figures["evaluation"], "steps")
    rate = {name: values["per_second"] for name, values in figures["evaluation"].items()}
    to = figures["ratios"]["evaluation"] = {name: rate["side_by_side"] / each for name, each in rate.items()}
    print(f"  side by side {to['one_by_one']:.1f} times one by one, {to['upstream']:.1f} times upstream; "
          f"physics takes {to['physics']:.0%}, the policy {to['acting']:.0%}")  # fmt: skip


def has_amx() -> bool:
    path = Path("/proc/cpuinfo")
    return path.exists() and "amx_tile" in path.read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=100, help="of a turn")
    parser.add_argument("--methods", nargs="+", choices=N_ROWS, default=list(N_ROWS), help="whose updates are timed")
    parser.add_argument("--collect", type=int, default=100, help="episodes that the whole run learns from; 0: no run")
    parser.add_argument("--episodes", type=int, default=50, help="of the evaluation")
    parser.add_argument("--device", default="cpu", help="cpu or cuda[:N], for the updates and products")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    figures: dict = {
        "machine": platform.platform(), "amx": has_amx(), "device": options.device, "python": platform.python_version(),
        "torch": version("torch"), "numpy": version("numpy"), "learning": {}, "ratios": {},
    }  # fmt: skip
    clock = "CPU time" if options.device == "cpu" else "wall time"
    print(f"{options.device}, {clock}, median of {options.rounds} rounds; random data in the shapes of {TASK}; "
          f"{N_PAIRS} pairs, {N_SAFETY} safety segments, {LENGTH} steps; {'' if has_amx() else 'no '}AMX")  # fmt: skip
    for method in options.methods:
        n_updates = options.updates * (20 if method == "cloning" else 1)
        figures["learning"][method] = learning(method, options.rounds, n_updates, options.device)
        show(method, figures["learning"][method], "updates")
        if method != "cloning":
            figures["ratios"][method] = ratios(figures["learning"][method])
            print("  fast {fast_to_exact:.2f} times exact; {n} of {all} steps {sampled_to_all:.2f} times all".format(
                  n=N_DRAWN, all=LENGTH, **figures["ratios"][method]))  # fmt: skip
    if options.collect:
        run_and_evaluate(options.collect, options.rounds, options.episodes, figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
