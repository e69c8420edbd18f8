"""Datasets and feedback at URLs (s3://, hf://, https://, ...): copied once, whole or not at all. Imports fsspec."""

import errno
import hashlib
from pathlib import Path
from typing import Any

from feedbackgen.errors import DataError, MissingDependency, StoreError
from feedbackgen.files import cache_root, complete_or_absent, locked

# What tells one version of a remote file from another; each file system knows some of them.
VERSIONS = ("size", "ETag", "etag", "blob_id", "mtime", "LastModified", "last_modified", "updated", "created")


def is_url(place: str | Path) -> bool:
    """Whether a dataset or store is named by a URL."""
    return "://" in str(place)


def fetch_dataset(url: str) -> Path:
    """The folder of a copy of the dataset at a URL, in `cache_root`; copied again only when its files there changed.

    Args:
        url: of the folder that holds ``data/``.

    Raises:
        DataError: there is no dataset, or it cannot be read.
        StoreError: the copy cannot be written.
        MissingDependency: the URL's file system needs a package.
    """
    url = str(url).rstrip("/")
    listing = _list(f"{url}/data")
    if "metadata.json" not in listing:
        raise DataError(f"{url}: no dataset there; expected {url}/data/metadata.json")
    folder = cache_root() / "remote" / _digest(url, listing)[:32] / url.rpartition("/")[2]
    with locked(folder):
        if not (folder / "data").is_dir():
            _copy(f"{url}/data", listing, folder / "data")
    return folder


def fetch_feedback(url: str) -> Path:
    """The folder of a copy of the feedback at a URL, beside a copy of its dataset.

    Args:
        url: of the store, ``DATASET/feedback/NAME.zarr``, or ``DATASET[/NAME]``.

    Raises:
        DataError: there is no dataset, or it cannot be read.
        StoreError: the dataset has no such feedback, or the copy cannot be written.
        MissingDependency: the URL's file system needs a package.
    """
    url = str(url).rstrip("/")
    if url.endswith(".zarr"):
        parent, _, name = url.removesuffix(".zarr").rpartition("/")
        if not parent.endswith("/feedback"):
            raise DataError(f"{url}: expected it at <dataset>/feedback/{name}.zarr")
        dataset = parent.removesuffix("/feedback")
    elif "metadata.json" in _list(f"{url}/data"):
        dataset, name = url, "default"
    else:
        dataset, _, name = url.rpartition("/")
    folder = fetch_dataset(dataset)
    source, store = f"{dataset}/feedback/{name}.zarr", folder / "feedback" / f"{name}.zarr"
    listing = _list(source)
    if "zarr.json" not in listing:
        raise StoreError(f"{dataset}: no feedback named {name!r}; expected {source}")
    record = store.with_name(f".{name}.version")
    with locked(store):
        version = _digest(source, listing)
        if not store.is_dir() or not record.exists() or record.read_text() != version:
            record.unlink(missing_ok=True)
            _copy(source, listing, store)
            record.write_text(version)
    return store


def _list(url: str) -> dict[str, dict[str, Any]]:
    """Files below a URL, by their path from there; none where there is no such folder."""
    try:
        import fsspec

        system, root = fsspec.url_to_fs(url)
        found = system.find(root, detail=True)
    except FileNotFoundError:
        return {}
    except ImportError as error:
        raise MissingDependency(f"{url}: {error}; pip install 'feedbackgen[publish]'") from error
    except Exception as error:  # each file system has errors of its own
        raise _unreadable(url, error) from error
    return {str(path).removeprefix(root).lstrip("/"): detail for path, detail in found.items()}


def _digest(url: str, listing: dict[str, dict[str, Any]]) -> str:
    versions = [(name, [str(detail.get(key)) for key in VERSIONS]) for name, detail in sorted(listing.items())]
    return hashlib.sha256(repr((url, versions)).encode()).hexdigest()


def _copy(url: str, listing: dict[str, dict[str, Any]], target: Path) -> None:
    import fsspec

    with complete_or_absent(target, force=True) as draft:
        system, root = fsspec.url_to_fs(url)
        for name, detail in listing.items():
            place = draft / name
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                system.get_file(f"{root}/{name}", str(place))
            except Exception as error:
                if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                    raise
                raise _unreadable(f"{url}/{name}", error) from error
            if detail.get("size") is not None and place.stat().st_size != detail["size"]:
                raise DataError(f"{url}/{name}: {place.stat().st_size} of {detail['size']} bytes came; try again")


def _unreadable(url: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{url}: cannot be read ({reason}); is the address right, and does it need credentials?")
