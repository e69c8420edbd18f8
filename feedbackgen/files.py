"""Files and folders that appear complete or not at all."""

import fcntl
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feedbackgen.errors import OutputExists, StoreError


def cache_root() -> Path:
    """For what can be made or fetched anew: ``$FEEDBACKGEN_CACHE``, or ``feedbackgen`` in ``~/.cache`` or its like."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FEEDBACKGEN_CACHE") or Path(base) / "feedbackgen")


@contextmanager
def complete_or_absent(target: Path, *, force: bool) -> Iterator[Path]:
    """Yield a hidden sibling of the target to write to; it takes the target's name when the block ends well.

    Raises:
        OutputExists: the target is there and ``force`` is not given.
        StoreError: the disk is full, or the place cannot be written.
    """
    refuse_existing(target, force=force)
    draft = target.with_name(f".{target.name}.draft")
    with writing_to(target):
        _remove(draft)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
            replace(draft, target)
        finally:
            _remove(draft)


def replace(draft: Path, target: Path) -> None:
    """Put a file or folder in the target's place; the old one is gone only once the new one stands there."""
    old = target.with_name(f".{target.name}.old")
    if target.is_dir():
        _remove(old)
        target.rename(old)
    draft.replace(target)
    _remove(old)  # also what a process that was killed here has left


def refuse_existing(target: Path, *, force: bool) -> None:
    if target.exists() and not force:
        raise OutputExists(f"{target} exists; use --force to replace it, or another name")


@contextmanager
def writing_to(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one line that names the target."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"cannot write {target}: {reason}; nothing was left under that name") from error


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """One process at a time, by a hidden file beside the target; who comes second finds what the first has made.

    Raises:
        StoreError: the place cannot be written.
    """
    with writing_to(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_name(f".{target.name}.lock").open("a")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Make Ctrl-C wait for the block's end: an exception in its midst would leave a library's threads at odds."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    held: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)


class PatientFile:
    """A new file for a library that cannot stop half-way, as HDF5, which must write even to close.

    What the system refuses is noted once and raised by `check`; all writing after it is let go by.
    """

    def __init__(self, path: Path):
        self._file = open(path, "xb+", buffering=0)  # noqa: SIM115  closed by `close`
        self._refusal: OSError | None = None

    def check(self) -> None:
        """Raise what the system refused, if it did."""
        if self._refusal is not None:
            raise self._refusal

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readinto(self, buffer) -> int:
        return self._file.readinto(buffer)

    def write(self, content) -> int:
        rest = memoryview(content)
        while rest and self._refusal is None:
            try:
                rest = rest[self._file.write(rest) :]
            except OSError as error:
                self._refusal = error
        return len(content)

    def truncate(self, size: int) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._refusal = self._refusal or error
            return size

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self._file.close()
        self.check()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
