"""Let the last policy of a run act, and write down every episode's return and cost."""

import json
from collections.abc import Callable
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from feedbackgen import arithmetic
from feedbackgen.environments import make_env, make_env_batch
from feedbackgen.errors import RecipeError, StoreError
from feedbackgen.files import writing_to
from feedbackgen.provenance import versions
from feedbackgen.rollout import Lane, Start, play
from feedbackgen.seeding import derived_seed, stream
from feedbackgen.tasks import get_task
from feedbackgen.video import write_video
from feedbackgen.workers import worker_pool
from presa.acting import for_one_episode, load_any_policy

FORMAT_VERSION = 1
EVALUATION_FILE = "evaluation.json"
N_LANES = 25  # episodes that a process plays side by side
N_CANDIDATES = 10  # starts drawn for each that is kept, where they are stratified


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Whole episodes of one run's last policy, acting by its mean; undiscounted sums."""

    returns: list[float]  # (n_episodes,)
    cost_returns: list[float]  # (n_episodes,)
    lengths: list[int]  # (n_episodes,), steps
    reset_seeds: list[int]  # (n_episodes,)
    seed: int  # of the evaluation
    cost_limit: float
    versions: dict[str, str]
    stratified: bool = False  # the reset seeds were chosen for starts that cover the arena evenly
    format_version: int = FORMAT_VERSION


def evaluate(
    run: str | Path,
    *,
    n_episodes: int = 50,
    seed: int = 1000,
    stratified: bool = False,
    workers: int = 1,
    video: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a run and store the result in its folder; the same whatever the number of workers.

    Args:
        run: folder of a finished run.
        n_episodes: at least 50 to compare methods.
        seed: fixes the reset seed of each episode.
        stratified: choose those by `stratified_seeds`, where a few bad starts would decide the mean cost.
        workers: processes, each with an environment of its own.
        video: also write the first episode as an MP4.
        progress: called with episodes done and in all.

    Raises:
        RecipeError: n_episodes or seed out of range, or stratified starts of a task without a robot in the plane.
        StoreError: no finished run, or its folder cannot be written.
        SimulatorMissing: the simulator is not installed.
        MissingDependency: a video was asked for, and its packages or a GL library are not there.
    """
    run = Path(run)
    if n_episodes < 1:
        raise RecipeError(f"episodes: expected at least 1, got {n_episodes}")
    if seed < 0:
        raise RecipeError(f"seed: expected an integer >= 0, got {seed}")
    provenance = read_provenance(run)
    load_any_policy(run)  # a damaged file must fail before episodes are played
    if stratified:
        seeds = stratified_seeds(provenance["task"], n_episodes, seed)
    else:
        seeds = [derived_seed(seed, "evaluation", index) for index in range(n_episodes)]
    episodes = _play(run, provenance["task"], seeds, workers, progress)
    evaluation = Evaluation(
        returns=[episode[0] for episode in episodes],
        cost_returns=[episode[1] for episode in episodes],
        lengths=[episode[2] for episode in episodes],
        reset_seeds=seeds,
        seed=seed,
        cost_limit=provenance["cost_limit"],
        versions=versions(),
        stratified=stratified,
    )
    with writing_to(run / EVALUATION_FILE):
        draft = run / f".{EVALUATION_FILE}.draft"
        draft.write_text(json.dumps(asdict(evaluation), indent=1) + "\n")
        draft.replace(run / EVALUATION_FILE)
    if video is not None:
        _film(run, provenance["task"], seeds[0], video)
    return evaluation


def stratified_seeds(task: str, n_episodes: int, seed: int) -> list[int]:
    """Reset seeds of one start from each of ``n_episodes`` strata of equal probability.

    The strata are by the direction in which the robot stands from the origin, and within that by its heading. Ten times
    as many starts are drawn as are kept; each stratum holds ten of them, and the first drawn is kept, so that a mean
    over the episodes estimates the mean over all starts.

    Raises:
        RecipeError: a task without a robot in the plane.
    """
    if get_task(task).suite != "safety-navigation":
        raise RecipeError(f"{task}: stratified starts need a robot in the plane, as navigation tasks have")
    env = make_env(task)
    candidates = [derived_seed(seed, "evaluation", index) for index in range(N_CANDIDATES * n_episodes)]
    bearings, headings = np.empty((2, len(candidates)))
    for index, candidate in enumerate(candidates):
        env.reset(seed=candidate)
        robot = env.data.body("agent")  # type: ignore[union-attr]  # a navigation task has it
        bearings[index] = np.arctan2(robot.xpos[1], robot.xpos[0])
        headings[index] = np.arctan2(robot.xmat[3], robot.xmat[0])
    env.close()
    kept = []
    for sector in np.array_split(np.argsort(bearings).reshape(n_episodes, -1), round(n_episodes**0.5)):
        starts = sector.ravel()
        kept += starts[np.argsort(headings[starts])].reshape(-1, N_CANDIDATES).min(axis=1).tolist()
    return [candidates[index] for index in kept]


def read_evaluation(run: str | Path) -> Evaluation:
    """What `evaluate` stored.

    Raises:
        StoreError: the run was not evaluated, or the file is damaged.
    """
    path = Path(run) / EVALUATION_FILE
    if not path.is_file():
        raise StoreError(f"{run}: not evaluated yet; use `fbgen evaluate {run}`")
    try:
        return Evaluation(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path}: damaged or of another version ({error}); evaluate again") from error


def read_provenance(run: str | Path) -> dict:
    """Where a run comes from.

    Raises:
        StoreError: not the folder of a run.
    """
    path = Path(run) / "provenance.json"
    if not path.is_file():
        raise StoreError(f"{run}: no provenance.json; expected the folder of a finished `fbgen train`")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise StoreError(f"{path}: damaged ({error}); train again") from error


def _play(run: Path, task: str, seeds: list[int], workers: int, progress) -> list[tuple[float, float, int]]:
    report = progress or (lambda done, total: None)
    report(0, len(seeds))
    if workers == 1 and not arithmetic.came_too_late():
        return _play_episodes(run, task, seeds, lambda n_done: report(n_done, len(seeds)))
    size = min(-(-len(seeds) // workers), N_LANES)
    jobs = [seeds[start : start + size] for start in range(0, len(seeds), size)]
    n_done = 0
    with worker_pool(workers) as pool:
        futures = [pool.submit(_play_episodes, run, task, job) for job in jobs]
        for future in as_completed(futures):
            n_done += len(future.result())
            report(n_done, len(seeds))
        return [episode for future in futures for episode in future.result()]


def _play_episodes(
    run: Path, task: str, seeds: list[int], report: Callable[[int], None] = lambda n_done: None
) -> list[tuple[float, float, int]]:
    """Return, cost and length of each episode, side by side; beside which others one is played changes no bit."""
    policy, waiting = load_any_policy(run), iter(enumerate(seeds))
    results: dict[int, tuple[float, float, int]] = {}

    def lane() -> Lane:
        for index, seed in waiting:
            episode = yield Start(policy=for_one_episode(policy), seed=seed, rng=stream(seed, "acts by its mean"))
            results[index] = episode.return_, episode.cost_return, episode.n_steps
            report(len(results))

    n_lanes = min(N_LANES, len(seeds))
    from threadpoolctl import threadpool_limits  # comes with the simulator

    with threadpool_limits(1):
        play(make_env_batch(task, n_lanes), [lane() for _ in range(n_lanes)])
    return [results[index] for index in range(len(seeds))]


def _film(run: Path, task: str, seed: int, path: Path) -> None:
    policy = load_any_policy(run)
    observe = getattr(policy, "observe", None)
    env = make_env(task)
    rng = np.random.default_rng(0)

    def frames():
        observation, _ = env.reset(seed=seed)
        ended = False
        while not ended:
            yield env.render()
            observation, reward, cost, terminated, truncated, _ = env.step(policy.act(observation, rng))
            if observe is not None:
                observe(reward, cost)
            ended = terminated or truncated

    write_video(frames(), path)
    env.close()
