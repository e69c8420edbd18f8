"""A stored episode played again, and held against what was stored: exact, or refused."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feedbackgen.environments import make_env
from feedbackgen.episodes import dataset_info, load_episode
from feedbackgen.errors import DataError
from feedbackgen.files import refuse_existing
from feedbackgen.provenance import versions
from feedbackgen.types import Episode
from feedbackgen.video import write_video


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What was replayed; every observation, reward and cost was the stored one."""

    index: int
    policy: str
    seed: int
    n_steps: int
    return_: float
    cost_return: float
    from_states: bool  # otherwise from seed and actions


def replay(
    dataset: str | Path, index: int, *, video: Path | None = None, size: int = 480, force: bool = False
) -> Replay:
    """Play an episode again, from its recorded states where there are some, else from its seed and actions.

    Args:
        dataset: Minari id or path.
        index: of the episode.
        video: where to write what a camera sees before each step and after the last, as MP4.
        size: of the video, in pixels.
        force: replace the video.

    Raises:
        DataError: no such episode, or an observation, reward or cost is not the stored one.
        OutputExists: the video is there and ``force`` is not given.
        MissingDependency: the simulator, or a video's encoder, is not installed.
    """
    if video is not None:
        refuse_existing(Path(video), force=force)
    episode = load_episode(dataset, index)
    place = f"dataset {dataset}, episode {index}"
    if episode.seed < 0:
        raise DataError(f"{place}: no reset seed was recorded; collect the dataset with `fbgen collect`")
    info = dataset_info(dataset)
    env = make_env(info.task)
    try:
        moments = _moments(env, episode, f"{place}{_other_software(info.versions)}")
        if video is None:
            for _ in moments:
                pass
        else:
            write_video((env.render(width=size, height=size) for _ in moments), Path(video))
    finally:
        env.close()
    return Replay(
        index=index,
        policy=episode.policy,
        seed=episode.seed,
        n_steps=episode.n_steps,
        return_=episode.return_,
        cost_return=episode.cost_return,
        from_states=episode.states is not None,
    )


def _moments(env, episode: Episode, place: str) -> Iterator[int]:
    """The environment before each step and after the last; what comes out of each step is compared."""
    observation, _ = env.reset(seed=episode.seed)
    _require_same(place, 0, "observation", observation, episode.observations[0])
    for step in range(episode.n_steps):
        _put_back(env, episode, step)
        yield step
        observation, reward, cost, *_ = env.step(episode.actions[step])
        _require_same(place, step + 1, "observation", observation, episode.observations[step + 1])
        _require_same(place, step + 1, "reward", reward, episode.rewards[step])
        if episode.has_costs:
            _require_same(place, step + 1, "cost", cost, episode.costs[step])
    _put_back(env, episode, episode.n_steps)
    yield episode.n_steps


def _put_back(env, episode: Episode, step: int) -> None:
    # Where it stands there already it is left alone: rewards of AntVelocity also know the substep before.
    if episode.states is not None and not np.array_equal(env.get_state(), episode.states[step]):
        env.set_state(episode.states[step])


def _require_same(place: str, step: int, name: str, came, stored) -> None:
    if not np.array_equal(came, stored):
        difference = np.max(np.abs(np.asarray(came) - stored))
        raise DataError(
            f"{place}: after {step} steps the {name} differs from the stored one by up to {difference:.3g}; "
            "only the versions and the kind of machine that collected it replay it"
        )


def _other_software(recorded: dict[str, str]) -> str:
    here = versions()
    others = [
        f"{name} {recorded[name]}, here {here.get(name, 'none')}"
        for name in ("mujoco", "numpy", "safety-gymnasium")
        if name in recorded and recorded[name] != here.get(name)
    ]
    return f" (recorded with {'; '.join(others)})" if others else ""
