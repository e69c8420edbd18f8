"""Where bundles lie: folders, whatever fsspec opens, and the Hugging Face Hub.

A place that holds no manifest holds no bundle: the manifest goes last.
"""

import contextlib
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from feedbackgen.errors import DataError, MissingDependency, OutputExists, StoreError
from feedbackgen.files import complete_or_absent
from feedbackgen.sharing import card
from feedbackgen.sharing.bundle import Bundle
from feedbackgen.sharing.manifest import FORMAT_VERSION, NAME

BLOCK_BYTES = 4 << 20
LOCK = ".publishing"
HUB = "hf://"
NO_ANSWER = {
    *("ConnectError", "ConnectTimeout", "ReadTimeout", "TransportError", "ConnectionError"),
    *("EndpointConnectionError", "ClientConnectorError", "OfflineModeIsEnabled", "LocalEntryNotFoundError"),
}

Report = Callable[[int], None]  # bytes moved


class Place(Protocol):
    """One bundle, somewhere."""

    name: str

    def read(self, path: str) -> bytes:
        """A small file's content; StoreError where it cannot be read."""

    def fetch(self, path: str, to: Path, size: int, report: Report) -> None:
        """Append to a file what it still lacks of the one at the place."""

    def publish(self, bundle: Bundle, *, force: bool, report: Report) -> None:
        """Put a bundle there, complete or not at all."""


def open_place(source: str, *, private: bool = False) -> Place:
    """The place of one bundle: a folder, an fsspec URL, or ``hf://org/name[@revision]``.

    Raises:
        StoreError: no such protocol, or a name that the hub refuses.
        MissingDependency: the protocol's package is not installed.
    """
    if source.startswith(HUB):
        return Hub(source, private=private)
    if "://" in source and not source.startswith("file://"):
        return Remote(source)
    return Folder(source.removeprefix("file://"))


def join(target: str, dataset_id: str) -> str:
    """Where a dataset lies below a target; the hub knows organisations and names only."""
    if not target.startswith(HUB):
        return f"{target.rstrip('/')}/{dataset_id}"
    address, _, revision = target.removeprefix(HUB).removeprefix("datasets/").partition("@")
    organisation, _, name = address.strip("/").partition("/")
    name = name or dataset_id.replace("/", "-")
    return f"{HUB}{organisation}/{name}" + (f"@{revision}" if revision else "")


class Folder:
    """A folder of this machine, or of one that is mounted."""

    def __init__(self, path: str):
        self.path = Path(path).expanduser()
        self.name = str(path)

    def read(self, path: str) -> bytes:
        with reading(self.name):
            return (self.path / path).read_bytes()

    def fetch(self, path: str, to: Path, size: int, report: Report) -> None:
        with reading(self.name), open(self.path / path, "rb") as source, open(to, "ab") as sink:
            source.seek(sink.tell())
            while block := source.read(BLOCK_BYTES):
                sink.write(block)
                report(len(block))

    def publish(self, bundle: Bundle, *, force: bool, report: Report) -> None:
        with _folder_lock(self.path), complete_or_absent(self.path, force=force) as draft:
            for path, file in bundle.sources.items():
                (draft / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, draft / path)
                report(file.stat().st_size)


class Remote:
    """A bucket, a web server, an archive: what fsspec opens."""

    def __init__(self, url: str):
        try:
            import fsspec
        except ImportError as error:
            raise MissingDependency(f"{url}: needs fsspec: pip install 'feedbackgen[publish]'") from error
        self.name = url.rstrip("/")
        try:
            self.files, self.root = fsspec.core.url_to_fs(self.name, skip_instance_cache=True, use_listings_cache=False)
        except ImportError as error:
            raise MissingDependency(f"{url}: {error}") from error
        except ValueError as error:
            raise StoreError(f"{url}: {error}; expected a folder, a URL that fsspec knows, or hf://org/name") from error

    def read(self, path: str) -> bytes:
        with reading(self.name):
            return self.files.cat_file(f"{self.root}/{path}")

    def fetch(self, path: str, to: Path, size: int, report: Report) -> None:
        with open(to, "ab") as sink:
            while (start := sink.tell()) < size:
                with reading(self.name):
                    block = self.files.cat_file(f"{self.root}/{path}", start=start, end=min(start + BLOCK_BYTES, size))
                if not block:
                    return  # shorter than it was; the hash will say so
                sink.write(block)
                report(len(block))

    def publish(self, bundle: Bundle, *, force: bool, report: Report) -> None:
        with self._lock(force):
            if self._exists(NAME):
                if not force:
                    raise OutputExists(f"{self.name} exists; use --force to replace it")
                with writing(self.name):
                    self.files.rm_file(f"{self.root}/{NAME}")  # from here on it is no bundle until it is the new one
            done: list[str] = []
            try:
                for path in sorted(bundle.sources, key=lambda path: path == NAME):
                    file = bundle.sources[path]
                    with writing(self.name):
                        self.files.put_file(str(file), f"{self.root}/{path}")
                        done.append(path)
                        arrived = int(self.files.info(f"{self.root}/{path}")["size"])
                    if arrived != file.stat().st_size:
                        raise StoreError(
                            f"{self.name}: {path}: {arrived:,} of {file.stat().st_size:,} bytes arrived; publish again"
                        )
                    report(arrived)
            except BaseException:
                for path in done:
                    with contextlib.suppress(Exception):  # the place may be gone; the first error is the one to tell
                        self.files.rm_file(f"{self.root}/{path}")
                raise
            with writing(self.name):
                self._remove_others(bundle)

    def _exists(self, path: str) -> bool:
        with reading(self.name):
            return self.files.exists(f"{self.root}/{path}")

    def _remove_others(self, bundle: Bundle) -> None:
        for file in self.files.find(self.root):
            path = file.removeprefix(self.root).lstrip("/")
            if path not in bundle.sources and path != LOCK:
                self.files.rm_file(file)

    @contextmanager
    def _lock(self, force: bool) -> Iterator[None]:
        lock = f"{self.root}/{LOCK}"
        who = json.dumps({"host": socket.gethostname(), "process": os.getpid()}).encode()
        with writing(self.name):
            if force:
                self.files.pipe_file(lock, who)
            else:
                try:
                    self.files.pipe_file(lock, who, mode="create")
                except FileExistsError as error:
                    raise self._under_way() from error
                except OSError as error:
                    if "PreconditionFailed" not in str(error) and "pre-conditions" not in str(error):
                        raise
                    raise self._under_way() from error
        try:
            yield
        finally:
            with contextlib.suppress(Exception):
                self.files.rm_file(lock)

    def _under_way(self) -> OutputExists:
        return OutputExists(
            f"{self.name}: another fbgen publish is under way there, or one was killed; wait, or take over with --force"
        )


class Hub:
    """A dataset repository of the Hugging Face Hub; the token comes by the hub's own means."""

    def __init__(self, url: str, *, private: bool = False):
        try:
            from huggingface_hub import HfApi
            from huggingface_hub.utils import HFValidationError, disable_progress_bars, validate_repo_id
        except ImportError as error:
            raise MissingDependency(f"{url}: needs huggingface_hub: pip install 'feedbackgen[publish]'") from error
        address, _, revision = url.removeprefix(HUB).removeprefix("datasets/").partition("@")
        self.repository, self.revision, self.private = address.strip("/"), revision or None, private
        self.name = f"{HUB}{self.repository}" + (f"@{revision}" if revision else "")
        try:
            validate_repo_id(self.repository)
        except HFValidationError as error:
            reason = " ".join(str(error).split())
            raise StoreError(f"{url}: the hub refuses this name ({reason}); choose another with --repo-id") from error
        if "/" not in self.repository:
            raise StoreError(f"{url}: expected hf://org/name")
        disable_progress_bars()  # ours counts for all places alike
        self.api = HfApi()

    def read(self, path: str) -> bytes:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            return self._download(path, Path(folder)).read_bytes()

    def fetch(self, path: str, to: Path, size: int, report: Report) -> None:
        # The hub's own client keeps what it has of a file below this folder, and goes on with it.
        scratch = to.parent / ".hub"
        before = to.stat().st_size if to.exists() else 0
        self._download(path, scratch).replace(to)
        report(max(to.stat().st_size - before, 0))

    def publish(self, bundle: Bundle, *, force: bool, report: Report) -> None:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        with writing(self.name):
            self.api.create_repo(self.repository, repo_type="dataset", private=self.private, exist_ok=True)
            head = self.api.dataset_info(self.repository).sha
            there = set(self.api.list_repo_files(self.repository, repo_type="dataset", revision=head))
        if NAME in there and not force:
            raise OutputExists(f"{self.name} exists; use --force to put a new commit on top")
        operations: list[Any] = [
            CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(file)) for path, file in bundle.sources.items()
        ]
        operations += [
            CommitOperationDelete(path_in_repo=path)
            for path in sorted(there - bundle.sources.keys())
            if path != ".gitattributes"
        ]
        with writing(self.name):
            # One commit: readers see the old bundle or the new. What was uploaded before an interruption is not again.
            commit = self.api.create_commit(
                self.repository,
                operations,
                commit_message=f"{bundle.manifest.dataset_id}, fingerprint {bundle.manifest.fingerprint[:12]}",
                repo_type="dataset",
                parent_commit=head,
            )
            tag = f"format-{FORMAT_VERSION}"
            tags = {reference.name for reference in self.api.list_repo_refs(self.repository, repo_type="dataset").tags}
            if tag in tags:
                self.api.delete_tag(self.repository, tag=tag, repo_type="dataset")
            self.api.create_tag(self.repository, tag=tag, revision=commit.oid, repo_type="dataset")
        report(bundle.manifest.n_bytes)

    def _download(self, path: str, folder: Path) -> Path:
        with reading(self.name):
            return Path(
                self.api.hf_hub_download(
                    self.repository, path, repo_type="dataset", revision=self.revision, local_dir=folder
                )
            )


def list_bundles(source: str) -> list[str]:
    """The sources of all bundles below a place; ``hf://org`` is one organisation's.

    Raises:
        StoreError: the place cannot be read.
    """
    if source.startswith(HUB):
        return _list_hub(source)
    if "://" in source and not source.startswith("file://"):
        place = Remote(source)
        with reading(place.name):
            found = [file for file in place.files.find(place.root) if file.endswith(f"/{NAME}")]
        paths = [file.removeprefix(place.root).removesuffix(NAME).strip("/") for file in found]
        return sorted(f"{place.name}/{path}".rstrip("/") for path in paths)
    folder = Path(source.removeprefix("file://")).expanduser()
    if not folder.is_dir():
        raise StoreError(f"{source}: no such folder")
    return sorted(
        str(file.parent)
        for file in folder.rglob(NAME)
        if not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def _list_hub(source: str) -> list[str]:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise MissingDependency(f"{source}: needs huggingface_hub: pip install 'feedbackgen[publish]'") from error
    organisation = source.removeprefix(HUB).strip("/")
    with reading(source):
        found = list(HfApi().list_datasets(author=organisation or None, filter=card.MARK))
    return sorted(f"{HUB}{entry.id}" for entry in found)


@contextmanager
def _folder_lock(path: Path) -> Iterator[None]:
    lock = path.with_name(f".{path.name}{LOCK}")
    with writing(str(path)):
        lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputExists(f"{path}: another fbgen publish is writing there; wait for it") from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what a place refuses into one line that names it."""
    with _explained(name, "read"):
        yield


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Likewise, for what is put there."""
    with _explained(name, "write to"):
        yield


@contextmanager
def _explained(name: str, verb: str) -> Iterator[None]:
    try:
        yield
    except (StoreError, DataError):
        raise
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise StoreError(f"cannot {verb} {name}: {reason}") from error


def _reason(error: Exception) -> str | None:
    """Why a place refused, and the way out; None for what is no refusal but a fault of ours."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"RepositoryNotFoundError", "GatedRepoError"}:
        return "no such repository, or no permission; check the name, and `hf auth login`"
    if kinds & {"RevisionNotFoundError"}:
        return "no such revision"
    # Of the hub's errors this is also one of an absent entry, though nobody could say.
    if kinds & NO_ANSWER:
        return f"no answer ({_short(error)}); check the network, and try again: what has come is kept"
    if kinds & {"EntryNotFoundError", "RemoteEntryNotFoundError", "FileNotFoundError"}:
        return f"no bundle there ({_short(error)})"
    if kinds & {"LocalTokenNotFoundError"}:
        return "no token; log in with `hf auth login`, or set HF_TOKEN"
    if kinds & {"HfHubHTTPError"}:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            return f"no permission (HTTP {status}); log in with `hf auth login` as somebody who may"
        if status in (409, 412):
            return f"another commit came first (HTTP {status}); publish again"
        return _short(error)
    if kinds & {"NoCredentialsError", "PermissionError"}:
        return f"no permission ({_short(error)}); check your credentials"
    if isinstance(error, OSError):
        return error.strerror or _short(error)
    return None


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
