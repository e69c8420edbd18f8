"""Publish bundles and pull them: what was pulled is complete and proven, or was not pulled."""

import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from feedbackgen.episodes import datasets_root
from feedbackgen.errors import DataError, FeedbackgenError, OutputExists, StoreError
from feedbackgen.files import refuse_existing, replace, writing_to
from feedbackgen.sharing.bundle import Rights, bundle
from feedbackgen.sharing.manifest import NAME, FileEntry, Manifest, file_entry, manifest_bytes, parse_manifest
from feedbackgen.sharing.places import Place, join, open_place

Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What was moved, and where it lies now."""

    manifest: Manifest
    place: str
    n_moved: int  # bytes; those that an interrupted pull had brought before are not among them


def publish(
    dataset: str | Path,
    target: str,
    *,
    rights: Rights | None = None,
    repository: str | None = None,
    private: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Transfer:
    """Put a dataset, its feedback, card and manifest at a target.

    Args:
        dataset: Minari id or path.
        target: a folder or fsspec URL, below which the bundle lies under its id; or ``hf://org[/name]``.
        rights: licence, citation, authors and mirrors, for the card.
        repository: ``org/name`` on the hub, instead of what the target says.
        private: a new repository of the hub is not public.
        force: replace a bundle that is there.
        progress: called with bytes done and in all.

    Raises:
        DataError: the dataset or its feedback is damaged.
        OutputExists: a bundle is there, or another is being published there now.
        StoreError: the place cannot be written, or lost bytes.
    """
    with bundle(dataset, rights or Rights()) as content:
        hub = f"hf://{repository}" if repository is not None else target
        place = open_place(join(hub, content.manifest.dataset_id), private=private)
        counter = _Counter(content.manifest.n_bytes, progress)
        place.publish(content, force=force, report=counter)
        return Transfer(manifest=content.manifest, place=place.name, n_moved=counter.done)


def pull(
    sources: Sequence[str],
    *,
    root: Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Transfer:
    """Fetch a bundle into Minari's folder; interrupted, the next pull goes on where this one ended.

    Args:
        sources: where the bundle lies; a file that one lacks or has damaged comes from the next, and then from the
            mirrors that the manifest names.
        root: instead of Minari's folder.
        force: replace a dataset of that id that differs.
        progress: called with bytes done and in all.

    Raises:
        StoreError: no source answers, or all of them have some file damaged.
        DataError: the manifest is not what was published, or names a path outside the bundle.
        OutputExists: another dataset of that id is there, or is being pulled now.
    """
    places = {source: open_place(source) for source in sources}
    manifest = _first_manifest(places)
    for mirror in manifest.mirrors:
        with suppress(FeedbackgenError):  # one that cannot be opened here is no loss as long as others can
            places.setdefault(mirror, open_place(mirror))
    target = (root or datasets_root()) / manifest.dataset_id
    if _has(target, manifest):
        return Transfer(manifest=manifest, place=str(target), n_moved=0)
    refuse_existing(target, force=force)
    staging = target.with_name(f".{target.name}.pulling")
    counter = _Counter(manifest.n_bytes, progress)
    with writing_to(target), _only_puller(staging):
        for path in _paths(staging):
            if path not in manifest.files and not path.endswith(PART):
                (staging / path).unlink()  # of another version of the bundle
        for path, entry in manifest.files.items():
            _fetch(path, entry, places, staging, counter)
        _remove_scratch(staging)
        (staging / NAME).write_bytes(manifest_bytes(manifest))
        replace(staging, target)
    return Transfer(manifest=manifest, place=str(target), n_moved=counter.moved)


def read_manifest(source: str) -> Manifest:
    """The manifest of the bundle at a source.

    Raises:
        StoreError: no bundle there, or no answer.
        DataError: it is damaged.
    """
    return parse_manifest(open_place(source).read(NAME), source)


PART = ".part"


def _first_manifest(places: Mapping[str, Place]) -> Manifest:
    """The manifest from the first place that has one."""
    failures: list[FeedbackgenError] = []
    for source, place in places.items():
        try:
            return parse_manifest(place.read(NAME), source)
        except (StoreError, DataError) as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    raise StoreError("no source has the bundle: " + "; ".join(str(failure) for failure in failures))


def _fetch(path: str, entry: FileEntry, places: Mapping[str, Place], staging: Path, counter: "_Counter") -> None:
    target = staging / path
    if target.is_file() and file_entry(target) == entry:
        counter.skip(entry.size)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + PART)
    reasons = []
    for source, place in places.items():
        if part.is_file() and part.stat().st_size >= entry.size:
            part.unlink()
        had = part.stat().st_size if part.is_file() else 0
        counter.skip(had)
        try:
            place.fetch(path, part, entry.size, counter)
        except (StoreError, DataError) as error:
            counter.done -= had
            reasons.append(str(error))
            continue
        found = file_entry(part) if part.is_file() else None
        if found == entry:
            part.replace(target)
            return
        counter.done -= 0 if found is None else found.size
        part.unlink(missing_ok=True)
        came = "nothing" if found is None else f"{found.size:,} bytes"
        reasons.append(f"{source}: {path}: expected {entry.size:,} bytes of sha256 {entry.sha256[:12]}…, got {came}")
    raise StoreError("; ".join(reasons) + "; name another source, or ask who published it to publish again")


def _has(target: Path, manifest: Manifest) -> bool:
    file = target / NAME
    return file.is_file() and file.read_bytes() == manifest_bytes(manifest)


def _paths(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _remove_scratch(staging: Path) -> None:
    for folder in sorted(staging.rglob(".hub")):
        shutil.rmtree(folder)
    for part in staging.rglob(f"*{PART}"):
        part.unlink()


@contextmanager
def _only_puller(staging: Path) -> Iterator[None]:
    staging.mkdir(parents=True, exist_ok=True)
    lock = staging.with_name(f"{staging.name}.lock")
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputExists(f"{staging}: another fbgen pull is fetching this dataset; wait for it") from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


class _Counter:
    """Bytes done, told as they come."""

    def __init__(self, total: int, progress: Progress | None):
        self.total, self.progress = total, progress
        self.done = self.moved = 0

    def __call__(self, n_bytes: int) -> None:
        self.done += n_bytes
        self.moved += n_bytes
        self._tell()

    def skip(self, n_bytes: int) -> None:
        self.done += n_bytes
        self._tell()

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)
