"""How fast environments step, against upstream's source on the installed mujoco and against bare physics.

Full episodes with their resets and random actions, one thread; the contenders take turns in one run, each in a process
of its own, and what counts is their CPU time. Run by hand: ``make bench-collect``.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from feedbackgen.tasks import TASKS, get_task

os.environ.setdefault("OMP_NUM_THREADS", "1")
LANES = 16
DSRL_NAVIGATION = [
    f"Safety{robot}{kind}{level}-v0"
    for robot in ("Point", "Car")
    for kind in ("Button", "Circle", "Goal", "Push")
    for level in (1, 2)
]
CONTENDERS = ("upstream", "skyless", "single", "batched", "mj_step")


def upstream(task: str, n_steps: int, seed: int):
    """Upstream's source as it is, its sky of 191 MB and its parsing included."""
    from feedbackgen.environments import upstream as loader

    loader._put_right_world = lambda world: None
    return skyless(task, n_steps, seed)


def skyless(task: str, n_steps: int, seed: int):
    """Upstream's source behind our loader: its code, a small sky, its files parsed once."""
    import numpy as np

    from feedbackgen.environments import upstream as loader

    known = get_task(task)
    navigation = known.suite == "safety-navigation"
    if navigation:
        env = loader.load_builder()(task_id=task, config={"agent_name": known.robot})
    else:
        env = loader.load_velocity_class(known.kind)()
    rng = np.random.default_rng(seed)

    def run() -> int:
        env.reset(seed=seed)
        for step in range(n_steps):
            *_, terminated, truncated, _ = env.step(rng.uniform(env.action_space.low, env.action_space.high))
            if (terminated or truncated) and step + 1 < n_steps:
                env.reset(seed=seed + step)
        return n_steps

    return run


def single(task: str, n_steps: int, seed: int):
    """Our environment, one at a time."""
    import numpy as np

    from feedbackgen.environments import make_env

    env = make_env(task)
    rng = np.random.default_rng(seed)

    def run() -> int:
        env.reset(seed=seed)
        for step in range(n_steps):
            *_, terminated, truncated, _ = env.step(rng.uniform(env.action_space.low, env.action_space.high))
            if (terminated or truncated) and step + 1 < n_steps:
                env.reset(seed=seed + step)
        return n_steps

    return run


def batched(task: str, n_steps: int, seed: int):
    """Ours, many at once."""
    import numpy as np

    from feedbackgen.environments import make_env_batch

    batch = make_env_batch(task, LANES)
    space = batch.action_space
    rng = np.random.default_rng(seed)

    def run() -> int:
        for lane in range(LANES):
            batch.reset(lane, seed + lane)
        for step in range(n_steps):
            transitions = batch.step(rng.uniform(space.low, space.high, (LANES, *space.shape)))
            if step + 1 < n_steps:
                for lane in np.flatnonzero(transitions.terminated | transitions.truncated):
                    batch.reset(int(lane), seed + step * LANES + int(lane))
        return n_steps * LANES

    return run


def mj_step(task: str, n_steps: int, seed: int):
    """Physics alone: as many substeps, with random controls, from the state after a reset."""
    import mujoco
    import numpy as np

    from feedbackgen.environments import make_env

    env = make_env(task)
    env.reset(seed=seed)
    model, data, space = env.model, env.data, env.action_space
    start = env.get_state()
    n_substeps = 10 if get_task(task).suite == "safety-navigation" else env._batch.environments[0].frame_skip
    rng = np.random.default_rng(seed)

    def run() -> int:
        env.set_state(start)
        for _ in range(n_steps):
            data.ctrl[:] = rng.uniform(space.low, space.high)
            mujoco.mj_step(model, data, nstep=n_substeps)
        return n_steps

    return run


def alone(task: str, n_episodes: int, seed: int):
    """Our collection, files written, by one process."""
    return _collection(task, n_episodes, seed, workers=1)


def pair(task: str, n_episodes: int, seed: int):
    """Our collection, files written, by two worker processes and the one that writes."""
    return _collection(task, n_episodes, seed, workers=2)


def _collection(task: str, n_episodes: int, seed: int, workers: int):
    from feedbackgen import jobs
    from feedbackgen.collect import collect
    from feedbackgen.recipe import Recipe

    recipe = Recipe(task=task, name="benchmark", n_episodes=n_episodes, seed=seed, policies={"random": 1.0})

    def run() -> int:
        jobs._environments.cache_clear()  # making them is part of a collection
        with tempfile.TemporaryDirectory() as folder:
            return collect(recipe, workers=workers, root=Path(folder)).n_steps

    return run


def serve(pipe, contender: str, task: str, size: int) -> None:
    """Run when asked; answer with steps, CPU and wall seconds, and the peak memory of this process and its workers."""
    import warnings

    warnings.simplefilter("ignore")
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  upstream prints warnings of its own
    run = globals()[contender](task, size, seed=0)
    pipe.send("ready")
    while pipe.recv() == "run":
        cpu, wall = _cpu_seconds(), time.perf_counter()
        steps = run()
        wall = time.perf_counter() - wall
        for worker in multiprocessing.active_children():
            worker.join()
        cpu = _cpu_seconds() - cpu
        users = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        pipe.send((steps, cpu, wall, *(resource.getrusage(user).ru_maxrss / 1024 for user in users)))


def _cpu_seconds() -> float:
    """Of this process and of its workers that have ended."""
    usages = [resource.getrusage(user) for user in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def take_turns(task: str, sizes: dict[str, int], n_rounds: int) -> dict[str, list[tuple]]:
    """What each contender answers, round by round, when it is given its size."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for contender, size in sizes.items():
        pipes[contender], theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, contender, task, size))
        process.start()
        pipes[contender].recv()
        processes.append(process)
    answers: dict[str, list[tuple]] = {contender: [] for contender in sizes}
    for _ in range(n_rounds):
        for contender, pipe in pipes.items():
            pipe.send("run")
            answers[contender].append(pipe.recv())
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send("stop")
        process.join()
    return answers


def measure(task: str, n_rounds: int, n_steps: int | None) -> dict:
    """Rates of one task, steps per CPU second: the median of the rounds."""
    answers = take_turns(task, dict.fromkeys(CONTENDERS, n_steps or get_task(task).horizon), n_rounds)
    median = {name: statistics.median(steps / cpu for steps, cpu, *_ in each) for name, each in answers.items()}
    return {
        "task": task,
        "steps_per_second": median,
        "batched_to_upstream": median["batched"] / median["upstream"],
        "batched_to_skyless": median["batched"] / median["skyless"],
        "single_to_upstream": median["single"] / median["upstream"],
        "batched_to_mj_step": median["batched"] / median["mj_step"],
        "peak_mib": {name: each[-1][3] for name, each in answers.items()},
    }


def end_to_end(task: str, n_rounds: int, n_episodes: int) -> dict:
    """Collections with files written, by one process and by two workers, against the bare batched loop; wall time."""
    sizes = {"batched": get_task(task).horizon, "alone": n_episodes, "pair": n_episodes}
    answers = take_turns(task, sizes, n_rounds)
    median = {name: statistics.median(steps / wall for steps, _, wall, *_ in each) for name, each in answers.items()}
    return {
        "task": task,
        "n_episodes": n_episodes,
        "steps_per_second": median,
        "alone_to_batched": median["alone"] / median["batched"],
        "pair_to_alone": median["pair"] / median["alone"],
        "pair_cpu_to_alone": statistics.median(_cpu(answers["pair"])) / statistics.median(_cpu(answers["alone"])),
        "peak_mib": {
            "alone": answers["alone"][-1][3],
            "writer": answers["pair"][-1][3],
            "worker": answers["pair"][-1][4],
        },
    }


def _cpu(answers: list[tuple]) -> list[float]:
    return [cpu for _, cpu, *_ in answers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=[*DSRL_NAVIGATION, *_velocity()])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="per environment and round, instead of a full episode")
    parser.add_argument("--collect", nargs="*", default=["SafetyPointGoal1-v0"], help="tasks to collect, files written")
    parser.add_argument("--episodes", type=int, default=256, help="of each collection")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    print(f"steps per CPU second, median of {options.rounds} rounds; batched: {LANES} environments")
    print(f"{'task':28}" + "".join(f"{contender:>9}" for contender in CONTENDERS)
          + f"{'x upstream':>12}{'x skyless':>11}{'of mj_step':>12}{'MiB':>6}")  # fmt: skip
    results = []
    for task in options.tasks:
        result = measure(task, options.rounds, options.steps)
        results.append(result)
        rates = "".join(f"{result['steps_per_second'][contender]:9.0f}" for contender in CONTENDERS)
        print(f"{task:28}{rates}{result['batched_to_upstream']:11.1f}x{result['batched_to_skyless']:10.1f}x"
              f"{result['batched_to_mj_step']:12.0%}"
              f"{result['peak_mib']['batched']:6.0f}", flush=True)  # fmt: skip
    navigation = [result["batched_to_upstream"] for result in results if result["task"] in DSRL_NAVIGATION]
    mean = statistics.geometric_mean(navigation) if navigation else None
    if mean is not None:
        print(f"geometric mean over {len(navigation)} navigation tasks: {mean:.1f}x upstream")
    collections = []
    if options.collect:
        print(f"\ncollections of {options.episodes} episodes, files written: steps per second, wall; MiB at their peak")
        print(f"{'task':28}{'batched':>9}{'alone':>9}{'pair':>9}{'of batched':>12}{'pair':>8}{'its CPU':>9}"
              f"{'MiB alone':>11}{'writer':>8}{'worker':>8}")  # fmt: skip
    for task in options.collect:
        result = end_to_end(task, options.rounds, options.episodes)
        collections.append(result)
        rates, peaks = result["steps_per_second"], result["peak_mib"]
        print(f"{task:28}" + "".join(f"{rates[name]:9.0f}" for name in ("batched", "alone", "pair"))
              + f"{result['alone_to_batched']:12.0%}{result['pair_to_alone']:7.2f}x"
              + f"{result['pair_cpu_to_alone']:9.0%}"
              + f"{peaks['alone']:11.0f}{peaks['writer']:8.0f}{peaks['worker']:8.0f}", flush=True)  # fmt: skip
    if options.json:
        figures = {"tasks": results, "geometric_mean": mean, "collections": collections}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _velocity() -> list[str]:
    return [name for name, task in TASKS.items() if task.suite == "safety-velocity"]


if __name__ == "__main__":
    main()
