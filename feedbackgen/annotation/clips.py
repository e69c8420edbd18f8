"""Clips of segments: frames from recorded states or an exact replay, encoded once and kept by content."""

import asyncio
import hashlib
import json
import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from feedbackgen.environments import make_env
from feedbackgen.environments.gl import prepare_drawing
from feedbackgen.episodes import dataset_info, load_episode
from feedbackgen.errors import DataError, FeedbackgenError, RecipeError, StoreError
from feedbackgen.files import refuse_existing
from feedbackgen.provenance import versions
from feedbackgen.types import Episode
from feedbackgen.video import write_video

CLIP_VERSION = 1  # of how clips are made; another one leaves the cache alone
DEFAULT_SIZE = 360  # pixels, wide and high
LEAST_SIZE, MOST_SIZE = 64, 1080
MAX_EXPECTED = 256  # clips that are rendered ahead of those who answer
NICENESS = 10  # of the process that renders


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Which segment, of what, and how large.

    Raises:
        RecipeError: a segment or size that cannot be.
    """

    dataset: str  # Minari id or path
    fingerprint: str  # of its contents
    episode: int
    start: int  # first step
    length: int  # steps; one frame more
    size: int = DEFAULT_SIZE  # pixels, wide and high

    def __post_init__(self):
        if not (LEAST_SIZE <= self.size <= MOST_SIZE and self.size % 2 == 0):
            raise RecipeError(
                f"--size: expected an even number from {LEAST_SIZE} to {MOST_SIZE} pixels, got {self.size}"
            )

    @property
    def key(self) -> str:
        """The same for the same content, and for no other; a file name."""
        content = asdict(self) | {"dataset": "", "version": CLIP_VERSION, "renderer": versions(("mujoco",))}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:40]


def clips_root() -> Path:
    """Where rendered clips are kept: ``$XDG_CACHE_HOME/feedbackgen/clips``, or below ``~/.cache``."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "feedbackgen" / "clips"


def parse_segment(text: str) -> tuple[int, int, int]:
    """``EPISODE:START:LENGTH`` as numbers.

    Raises:
        RecipeError: anything else.
    """
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts) or int(parts[2]) == 0:
        raise RecipeError(f"segment {text!r}: expected EPISODE:START:LENGTH, for example 3:120:64")
    episode, start, length = (int(part) for part in parts)
    return episode, start, length


def render_segment(
    dataset: str | Path, segment: str, out: str | Path, *, size: int = DEFAULT_SIZE, force: bool = False
) -> Path:
    """Write one segment, ``EPISODE:START:LENGTH``, as an MP4.

    Raises:
        DataError: no such segment, or a replay that gives other observations than were recorded.
        MissingDependency: the simulator, a GL library or the encoder is missing.
        OutputExists: the file is there and ``force`` is not given.
    """
    out = Path(out)
    refuse_existing(out, force=force)
    episode, start, length = parse_segment(segment)
    fingerprint = dataset_info(dataset).fingerprint
    clip = Clip(dataset=str(dataset), fingerprint=fingerprint, episode=episode, start=start, length=length, size=size)
    studio = Studio()
    try:
        write_video(studio.frames(clip), out)
    finally:
        studio.close()
    return out


class Studio:
    """Draws clips, one after the other; keeps the environment and the latest episode."""

    def __init__(self):
        self._env = None
        self._episode: tuple[tuple[str, int], Episode] | None = None

    def frames(self, clip: Clip) -> Iterator[np.ndarray]:
        """Frames before each step and after the last, each (size, size, 3) uint8.

        Raises:
            DataError: no such segment, or a replay that gives other observations than were recorded.
        """
        place = f"dataset {clip.dataset}, episode {clip.episode}"
        episode = self._load(clip)
        end = clip.start + clip.length
        if end > episode.n_steps:
            raise DataError(f"{place}: has {episode.n_steps} steps; expected at least {end} for this segment")
        env = self._environment(dataset_info(clip.dataset).task)
        drawn = _from_states(env, episode, clip) if episode.states is not None else _replayed(env, episode, clip, place)
        for _ in drawn:
            yield env.render(width=clip.size, height=clip.size)

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def _load(self, clip: Clip) -> Episode:
        wanted = (clip.dataset, clip.episode)
        if self._episode is None or self._episode[0] != wanted:
            self._episode = (wanted, load_episode(clip.dataset, clip.episode))
        return self._episode[1]

    def _environment(self, task: str):
        if self._env is None or self._env.task != task:
            self.close()
            prepare_drawing(task)
            self._env = make_env(task)
        return self._env


def _from_states(env, episode: Episode, clip: Clip) -> Iterator[int]:
    """Put the environment into each recorded state of the segment, one after the other."""
    assert episode.states is not None
    env.reset(seed=max(episode.seed, 0))
    for step in range(clip.start, clip.start + clip.length + 1):
        env.set_state(episode.states[step])
        yield step


def _replayed(env, episode: Episode, clip: Clip, place: str) -> Iterator[int]:
    """Play the episode again up to the segment's end; each observation must be the recorded one, to the last bit."""
    if episode.seed < 0:
        raise DataError(f"{place}: neither states nor a reset seed were recorded; collect it with `fbgen collect`")
    observation, _ = env.reset(seed=episode.seed)
    for step in range(clip.start + clip.length + 1):
        if not np.array_equal(observation, episode.observations[step]):
            raise DataError(
                f"{place}: a replay gives another observation at step {step} than was recorded, so a clip would show "
                "something else; collect the dataset on this machine and these versions, or with --state"
            )
        if step >= clip.start:
            yield step
        if step < clip.start + clip.length:
            observation = env.step(episode.actions[step])[0]


class ClipRoom:
    """A session's clips: from the cache, or rendered by a process of their own, the most urgent first."""

    def __init__(
        self,
        dataset: str | Path,
        length: int,
        *,
        size: int = DEFAULT_SIZE,
        ahead: Iterable[tuple[int, int]] = (),
        cache: Path | None = None,
    ):
        """
        Args:
            dataset: Minari id or path.
            length: steps of every segment.
            size: pixels, wide and high.
            ahead: episodes and first steps of clips that are rendered when nothing else is to do.
            cache: instead of `clips_root`.
        """
        info = dataset_info(dataset)
        self._dataset, self._fingerprint, self._length, self._size = str(info.path), info.fingerprint, length, size
        self._cache = clips_root() if cache is None else cache
        self._waiting: dict[Clip, Future[Path]] = {}  # someone looks at an empty frame; the latest is served first
        self._expected: dict[Clip, None] = {}  # in the order of asking
        self._ahead = iter([self._clip(*clip) for clip in ahead])
        self._change = threading.Condition()
        self._closed = False
        self._pool: ProcessPoolExecutor | None = None
        self._thread = threading.Thread(target=self._work, name="clips", daemon=True)
        self._clip(0, 0)  # refuses a size that cannot be
        self._thread.start()

    async def clip(self, episode: int, start: int) -> bytes:
        """An MP4; rendered now if it is not there yet.

        Raises:
            DataError: a replay that gives other observations than were recorded.
            MissingDependency: the simulator, a GL library or the encoder is missing.
            StoreError: the rendering process died.
        """
        clip = self._clip(episode, start)
        path = self._path(clip)
        if not path.is_file():
            with self._change:
                future = self._waiting.setdefault(clip, Future())
                self._change.notify()
            path = await asyncio.wrap_future(future)
        return path.read_bytes()

    def expect(self, clips: Sequence[tuple[int, int]]) -> None:
        """Render these next, in the background."""
        with self._change:
            for clip in (self._clip(*clip) for clip in clips):
                if clip not in self._expected and not self._path(clip).is_file():
                    self._expected[clip] = None
            while len(self._expected) > MAX_EXPECTED:  # whoever waited for the oldest is past it
                self._expected.pop(next(iter(self._expected)))
            self._change.notify()

    def close(self) -> None:
        """Stop rendering; what is under way is ended."""
        with self._change:
            self._closed = True
            self._change.notify()
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._thread.join()

    def _clip(self, episode: int, start: int) -> Clip:
        return Clip(
            dataset=self._dataset,
            fingerprint=self._fingerprint,
            episode=episode,
            start=start,
            length=self._length,
            size=self._size,
        )

    def _path(self, clip: Clip) -> Path:
        key = clip.key
        return self._cache / key[:2] / f"{key}.mp4"

    def _work(self) -> None:
        failed: dict[Clip, FeedbackgenError] = {}
        while (clip := self._next()) is not None:
            path, error = self._path(clip), failed.get(clip)
            if error is None and not path.is_file():
                try:
                    self._render(clip, path)
                except FeedbackgenError as raised:
                    error = raised
                    # A dead process may be another one's fault; a replay that differs differs again.
                    if not isinstance(raised, StoreError):
                        failed[clip] = raised
            with self._change:
                future = self._waiting.pop(clip, None)
            if future is not None:
                if error is None:
                    future.set_result(path)
                else:
                    future.set_exception(error)
        with self._change:
            for future in self._waiting.values():
                future.set_exception(StoreError("the server is closing"))

    def _next(self) -> Clip | None:
        """The next clip to render; waits for one, and ends with the room."""
        with self._change:
            while not self._closed:
                if self._waiting:
                    return next(reversed(self._waiting))
                if self._expected:
                    first = next(iter(self._expected))
                    del self._expected[first]
                    return first
                if (clip := next(self._ahead, None)) is not None:
                    return clip
                self._change.wait()
        return None

    def _render(self, clip: Clip, path: Path) -> None:
        if self._pool is None:
            # Not a fork: GL libraries and threads do not survive one.
            self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        try:
            self._pool.submit(_render_in_process, clip, path).result()
        except BrokenProcessPool as error:
            self._pool = None
            raise StoreError("the process that renders clips died; it is started again for the next one") from error


_studio: Studio | None = None  # of this process; made by the first clip


def _render_in_process(clip: Clip, path: Path) -> None:
    global _studio
    if _studio is None:
        os.nice(NICENESS)
        _studio = Studio()
    write_video(_studio.frames(clip), path)
