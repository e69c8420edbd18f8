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


def serve(pipe, contender: str, task: str, n_steps: int) -> None:
    """Run when asked; answer with steps, CPU seconds and peak memory."""
    import warnings

    warnings.simplefilter("ignore")
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  upstream prints warnings of its own
    run = globals()[contender](task, n_steps, seed=0)
    pipe.send("ready")
    while pipe.recv() == "run":
        started = time.process_time()
        steps = run()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        pipe.send((steps, time.process_time() - started, peak))


def measure(task: str, n_rounds: int, n_steps: int | None) -> dict:
    """Rates of one task, steps per CPU second: the median of the rounds."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for contender in CONTENDERS:
        pipes[contender], theirs = context.Pipe()
        arguments = (theirs, contender, task, n_steps or get_task(task).horizon)
        process = context.Process(target=serve, args=arguments, daemon=True)
        process.start()
        pipes[contender].recv()
        processes.append(process)
    rates: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
    peaks = {}
    for _ in range(n_rounds):
        for contender, pipe in pipes.items():
            pipe.send("run")
            steps, seconds, peaks[contender] = pipe.recv()
            rates[contender].append(steps / seconds)
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send("stop")
        process.join()
    median = {contender: statistics.median(values) for contender, values in rates.items()}
    return {
        "task": task,
        "steps_per_second": median,
        "batched_to_upstream": median["batched"] / median["upstream"],
        "batched_to_skyless": median["batched"] / median["skyless"],
        "single_to_upstream": median["single"] / median["upstream"],
        "batched_to_mj_step": median["batched"] / median["mj_step"],
        "peak_mib": peaks,
    }


def end_to_end(task: str, n_episodes: int) -> dict:
    """``collect`` with files written, by one and by two workers, against the bare batched loop; wall seconds."""
    from feedbackgen.collect import collect
    from feedbackgen.recipe import Recipe

    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2):
            recipe = Recipe(task=task, name=f"bench{workers}", n_episodes=n_episodes, seed=0, policies={"random": 1.0})
            started = time.perf_counter()
            collect(recipe, workers=workers, root=Path(folder))
            seconds[workers] = time.perf_counter() - started
    n_steps = n_episodes * get_task(task).horizon
    return {"task": task, "steps_per_second": {workers: n_steps / spent for workers, spent in seconds.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=[*DSRL_NAVIGATION, *_velocity()])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="per environment and round, instead of a full episode")
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
    if options.json:
        options.json.write_text(json.dumps({"tasks": results, "geometric_mean": mean}, indent=2) + "\n")


def _velocity() -> list[str]:
    return [name for name, task in TASKS.items() if task.suite == "safety-velocity"]


if __name__ == "__main__":
    main()
